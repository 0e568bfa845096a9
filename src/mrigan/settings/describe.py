"""The settings in words: the options of a command line and the table of the README."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_settings import BaseSettings

from mrigan.settings.declared import ENV_PREFIX
from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS, defaults_of

_UNIT = re.compile(r"[, ](pixels|percent|seconds|minutes|hours|degrees|gib)\b", re.IGNORECASE)
_NOUNS = {
    "uri": "URI",
    "from": "URI",
    "image": "URI",
    "dir": "DIR",
    "pattern": "REGEX",
    "role": "ARN",
    "key": "ARN",
    "name": "NAME",
    "tags": "NAME=VALUE,...",
    "subnets": "ID,...",
    "groups": "ID,...",
}
_KINDS = {"integer": "N", "number": "NUMBER"}


class Described(NamedTuple):
    """One setting as people read it."""

    field: str
    group: str
    default: str
    choices: tuple[str, ...]
    kind: str  # of its JSON
    description: str

    @property
    def values(self) -> tuple[str, ...]:
        """All that it takes, where these are a few words; else nothing."""
        return ("true", "false") if self.kind == "boolean" else self.choices

    @property
    def takes(self) -> str:
        """What a value of it is, as a command line's help shows it."""
        if self.values:
            return "|".join(self.values)
        if unit := _UNIT.search(self.description):
            return unit[1].upper()
        last = self.field.rpartition("_")[2]
        return _NOUNS.get(last) or _KINDS.get(self.kind, "TEXT")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"{ENV_PREFIX}{self.field.upper()}"

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return f"--{self.field.replace('_', '-')}"


def described(model: type[BaseSettings] = Settings) -> Iterator[Described]:
    """Every setting, in the order of its declaration; a field's title opens a group."""
    schema = model.model_json_schema()["properties"]
    group = ""
    for field, info in model.model_fields.items():
        group = info.title or group
        choices = tuple(choice for choice in schema[field].get("enum", ()) if choice)
        if field == "model":
            choices = tuple(MODELS)
        default = schema[field].get("default")
        kinds = [each.get("type") for each in (schema[field], *schema[field].get("anyOf", ()))]
        kind = next((each for each in kinds if each in {"boolean", *_KINDS}), "")
        about = info.description or ""
        yield Described(field, group, _default(field, default), choices, kind, about)


def settings_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's settings that its model has: a γ means nothing to ``dcgan``."""
    model = MODELS.get(str(settings.get("model")))
    families = {
        name: extra["family"]
        for name, field in Settings.model_fields.items()
        if isinstance(extra := field.json_schema_extra, dict) and "family" in extra
    }
    return {
        name: value
        for name, value in settings.items()
        if model is None or families.get(name, model.family) == model.family
    }


def _default(field: str, value: object) -> str:
    """The default in words: of each model where they differ, nothing where there is none."""
    by_value: dict[str, list[str]] = {}
    for name, default in defaults_of(field).items():
        by_value.setdefault(_text(default), []).append(name)
    if len(by_value) > 1:
        return ", ".join(f"{text} ({_names(models)})" for text, models in by_value.items())
    return next(iter(by_value), _text(value))


def _names(models: Sequence[str]) -> str:
    """Names of ``models``; a family whose models are all among them has one name."""
    names = []
    for name in models:
        family = MODELS[name].family
        is_whole = all(other in models for other, model in MODELS.items() if model.family == family)
        names.append(family if is_whole else name)
    return " ".join(dict.fromkeys(names))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value)


def add_options(parser: argparse.ArgumentParser, model: type[BaseSettings] = Settings) -> None:
    """Give ``parser`` one option a setting, all as text: the settings themselves validate.

    One that is on or off needs no value: ``--spot`` is ``--spot true``.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in described(model):
        group = groups.setdefault(setting.group, parser.add_argument_group(setting.group.lower()))
        default = f" [{setting.default}]" if setting.default else ""
        is_switch = model.model_fields[setting.field].annotation is bool
        group.add_argument(
            setting.option,
            nargs="?" if is_switch else None,
            const="true" if is_switch else None,
            dest=setting.field,
            metavar=setting.takes,
            default=argparse.SUPPRESS,
            help=f"{setting.description.replace('`', '')}{default}".replace("%", "%%"),
        )


def markdown_table(model: type[BaseSettings] = Settings) -> str:
    """A table of settings, as in the README."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    group = ""
    for setting in described(model):
        if setting.group != group:
            group = setting.group
            rows.append(f"| **{group}** | | |")
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.variable}` | {default} | {setting.description} |")
    return "\n".join(rows) + "\n"
