"""Brings the settings together: command line, environment, hyperparameters.json, ``.env``, default.

Every problem is found before anything else happens, and named as the user typed it: a misspelt
``MRIGAN_EPOCH`` is refused with a suggestion rather than ignored, whichever of the four it was in.
A platform may have defaults of its own, which stand before ours.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypeVar

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

from mrigan.environment import ML_ROOT, variable_names
from mrigan.errors import SettingsError
from mrigan.settings.declared import ENV_PREFIX
from mrigan.settings.fields import Settings
from mrigan.settings.hyperparameters import decode, is_platforms_own
from mrigan.settings.sagemaker import LaunchSettings

# One .env serves all commands: each knows the others' names.
_MODELS: tuple[type[BaseSettings], ...] = (Settings, LaunchSettings)
_Model = TypeVar("_Model", bound=BaseSettings)
# The library's own words speak of inputs and parsing; by its name of the error.
_SAID = {
    "int_parsing": "takes a whole number",
    "int_type": "takes a whole number",
    "int_from_float": "takes a whole number",
    "float_parsing": "takes a number",
    "float_type": "takes a number",
    "finite_number": "takes a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "takes {expected}",
    "string_type": "takes a text",
    "string_too_short": "must not be empty",
    "string_too_long": "takes at most {max_length} characters",
    "too_long": "takes at most {max_length}",
    "bool_parsing": "takes true or false",
}


class PlatformDefaults(NamedTuple):
    """What a platform says where the user says nothing.

    Attributes:
        values: Field to text.
        refusals: Field to why the platform has no default for it although it should have: a
            problem if no one else sets the field.
    """

    values: Mapping[str, str]
    refusals: Mapping[str, str]


class _Layer(NamedTuple):
    """One place that settings come from: field -> value, and how its names are spelt there."""

    values: dict[str, object]
    prefix: str
    unknown: list[str]
    file: str = ""

    def name(self, field: str) -> str:
        dashed = self.prefix == "--"
        upper = self.prefix == ENV_PREFIX
        spelt = field.replace("_", "-") if dashed else field.upper() if upper else field
        return f"{self.prefix}{spelt}"

    @property
    def place(self) -> str:
        """Where to look, if the name does not tell."""
        return f" (in {self.file})" if self.file else ""


def load_settings(
    options: Mapping[str, str] | None = None,
    *,
    unknown_options: Sequence[str] = (),
    hyperparameters: Path | None = None,
    dotenv: Path = Path(".env"),
    platform: PlatformDefaults | None = None,
) -> Settings:
    """Return the settings in force.

    Args:
        options: Field name to text, from the command line; strongest.
        unknown_options: Options as typed that no field answers to, reported with the rest.
        hyperparameters: SageMaker's file of strings, read if it exists.
        dotenv: File of ``MRIGAN_*`` lines, read if it exists; weakest of what a user says.
        platform: Stands before our own defaults.

    Raises:
        SettingsError: With one line for every problem in every source.
    """
    platform = platform or PlatformDefaults({}, {})
    layers = [
        _command_line(options or {}, unknown_options, [Settings]),
        _environment(),
        _hyperparameters(hyperparameters),
        _dotenv(dotenv),
        _Layer(dict(platform.values), "the platform's ", []),
    ]
    problems = [line for layer in layers for line in layer.unknown]
    chosen = {field for layer in layers for field in layer.values}
    problems += [why for field, why in platform.refusals.items() if field not in chosen]
    settings = _validated(Settings, layers, problems)
    if problems or not settings:
        raise SettingsError(*problems)
    return settings


def load_launch(
    options: Mapping[str, str] | None = None,
    *,
    unknown_options: Sequence[str] = (),
    dotenv: Path = Path(".env"),
) -> tuple[Settings, LaunchSettings]:
    """Return a job's settings and how to launch it, from the same places and by the same rules.

    ``Settings.model_fields_set`` is what someone has chosen; the rest are defaults.

    Raises:
        SettingsError: With one line for every problem in every source.
    """
    layers = [
        _command_line(options or {}, unknown_options, [Settings, LaunchSettings]),
        _environment(),
        _dotenv(dotenv),
    ]
    problems = [line for layer in layers for line in layer.unknown]
    settings = _validated(Settings, layers, problems)
    launch = _validated(LaunchSettings, layers, problems)
    if problems or not settings or not launch:
        raise SettingsError(*problems)
    return settings, launch


def _validated(model: type[_Model], layers: Sequence[_Layer], problems: list[str]) -> _Model | None:
    """Merge what the layers hold of ``model``'s fields; None with further ``problems`` if wrong."""
    values: dict[str, object] = {}
    names: dict[str, str] = {}
    places: dict[str, str] = {}
    for layer in reversed(layers):
        ours = {field: layer.values[field] for field in model.model_fields if field in layer.values}
        values |= ours
        names |= {field: layer.name(field) for field in ours}
        places |= dict.fromkeys(ours, layer.place)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems += _problems(error, names, places)
        return None


def _command_line(
    options: Mapping[str, str], unknown: Sequence[str], models: Sequence[type[BaseSettings]]
) -> _Layer:
    fields = [field for model in models for field in model.model_fields]
    spelling = [f"--{field.replace('_', '-')}" for field in fields]
    return _Layer(dict(options), "--", [_suggest(name, spelling) for name in unknown])


def _environment() -> _Layer:
    unknown = _misspelt(name for name in variable_names() if name.upper().startswith(ENV_PREFIX))
    values = {
        field: value for model in _MODELS for field, value in EnvSettingsSource(model)().items()
    }
    return _Layer(values, ENV_PREFIX, unknown)


def _dotenv(path: Path) -> _Layer:
    if not path.is_file():
        return _Layer({}, ENV_PREFIX, [])
    try:
        names = [name for name in dotenv_values(path) if name.upper().startswith(ENV_PREFIX)]
    except (OSError, UnicodeDecodeError) as error:
        return _Layer({}, ENV_PREFIX, [f"{path}: can't be read ({error}); it holds NAME=value"])
    # The library hands on the file's other variables too: compose keeps its own there.
    values = {
        field: value
        for model in _MODELS
        for field, value in DotEnvSettingsSource(model, env_file=path)().items()
        if field in model.model_fields
    }
    unknown = [f"{line} (in {path})" for line in _misspelt(names)]
    return _Layer(values, ENV_PREFIX, unknown, str(path))


def _hyperparameters(path: Path | None) -> _Layer:
    if path is None or not path.is_file():
        return _Layer({}, "hyperparameter ", [])
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise TypeError(f"it is a {type(raw).__name__}")
    except (OSError, ValueError, TypeError) as error:
        return _Layer({}, "hyperparameter ", [f"{path}: not a JSON object of settings ({error})"])
    ours = {name: decode(value) for name, value in raw.items() if not is_platforms_own(name)}
    known = {name: value for name, value in ours.items() if name in Settings.model_fields}
    unknown = [
        _suggest(name, list(Settings.model_fields), "hyperparameter ")
        for name in sorted(ours.keys() - known.keys())
    ]
    return _Layer({k: v for k, v in known.items() if v is not None}, "hyperparameter ", unknown)


def _misspelt(names: Iterable[str]) -> list[str]:
    known = [_variable(field) for model in _MODELS for field in model.model_fields]
    known.append(ML_ROOT)
    return [_suggest(name, known) for name in sorted(names) if name.upper() not in known]


def _suggest(name: str, known: list[str], prefix: str = "") -> str:
    near = get_close_matches(name if prefix or name.startswith("--") else name.upper(), known, n=1)
    hint = f", did you mean {near[0]}?" if near else "; `mrigan train --help` lists the settings"
    return f"{prefix}{name}: unknown{hint}"


def _problems(
    error: ValidationError, names: Mapping[str, str], places: Mapping[str, str]
) -> list[str]:
    """One line for each setting that is wrong, by the name the user typed."""
    found: dict[str, list[str]] = {}
    between: list[str] = []
    for item in error.errors(include_url=False):
        message = str(item["msg"]).removeprefix("Value error, ")
        if said := _SAID.get(item["type"]):
            message = said.format_map(item.get("ctx", {})).removesuffix(".0")
        if item["type"] == "default_factory_not_called":
            continue  # a default that hangs on MODEL, which is wrong itself
        if item["loc"]:
            found.setdefault(str(item["loc"][0]), []).append(message)
        else:
            between.append(_by_their_names(message, names))
    # Where one of several types will do, there is a message for each of them.
    lines = [
        f"{names.get(field, field)}: {' or '.join(messages)}{places.get(field, '')}"
        for field, messages in found.items()
    ]
    return lines + between


def _by_their_names(rule: str, names: Mapping[str, str]) -> str:
    """A rule between settings speaks of fields; say them as the user did."""
    fields = re.compile(rf"\b({'|'.join(Settings.model_fields)})\b")
    return fields.sub(lambda found: names.get(found[0], _variable(found[0])), rule)


def _variable(field: str) -> str:
    return f"{ENV_PREFIX}{field.upper()}"
