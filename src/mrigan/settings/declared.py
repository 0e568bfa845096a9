"""What every declaration of settings has in common: it reads no source by itself."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class DeclaredSettings(BaseSettings):
    """Settings whose sources ``settings.sources`` merges, to name each value's own."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is handed in, and nothing from the environment or a file."""
        return (init_settings,)
