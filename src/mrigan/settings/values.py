"""What a setting's value may be, beyond its type: URIs, patterns, shares, rates."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, Field

from mrigan.settings.models import MODELS


def percent(value: object) -> object:
    """Take ``5%`` for 5."""
    return value.strip().removesuffix("%") if isinstance(value, str) else value


def with_a_group(value: str) -> str:
    """Refuse a regular expression that picks nothing out."""
    if len(value) > _LONGEST_PATTERN:
        raise ValueError(f"has {len(value):,} characters; {_LONGEST_PATTERN:,} is the limit")
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    except (RecursionError, OverflowError, MemoryError):
        raise ValueError("a regular expression that is nested or repeats too much") from None
    if value and not groups:
        raise ValueError(r"no group; put what names the volume into (...), as in ^(.*)_\d+\.png$")
    return value


def globs(value: str) -> str:
    """Refuse patterns that match nothing; several are separated by commas, or a JSON list."""
    for pattern in patterns(value):
        if not pattern.strip("/"):
            raise ValueError("an empty pattern; write globs such as *_mask.tif,labels/")
        if "\\" in pattern:
            raise ValueError(f"{pattern!r} has a backslash; folders are separated by /")
        try:
            for inner in re.findall(r"\[!?(\]?[^\]]*)\]", pattern):
                escaped = inner.replace("[", "\\[").replace("]", "\\]")
                re.compile(f"[{escaped}]")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no glob: {error}") from None
    return value


TRACKERS = ("tensorboard", "mlflow", "wandb")


def known_trackers(value: str) -> str:
    """Refuse what is neither ``auto``, ``none`` nor names of trackers."""
    if unknown := [name for name in names_of_trackers(value) if name not in TRACKERS]:
        raise ValueError(
            f"{', '.join(map(repr, unknown))} is no tracker; choose auto, none or some of "
            f"{','.join(TRACKERS)}"
        )
    return value


def names_of_trackers(value: str) -> tuple[str, ...]:
    """The trackers that a setting's value names; none for ``auto`` and ``none``."""
    if value in ("auto", "none"):
        return ()
    return tuple(dict.fromkeys(name.strip() for name in value.split(",")))


def patterns(value: str) -> tuple[str, ...]:
    """The globs of a setting's value, in their order."""
    if value.lstrip().startswith('["'):
        try:
            return tuple(str(pattern) for pattern in json.loads(value))
        except ValueError as error:
            raise ValueError(f"no list of patterns: {error}") from None
    return tuple(part.strip() for part in re.split(r"[,\n]", value) if part.strip())


def known_model(value: str) -> str:
    """Refuse a name that is not in ``MODELS``."""
    if value not in MODELS:
        *names, last = (f"'{name}'" for name in MODELS)
        raise ValueError(f"takes {', '.join(names)} or {last}")
    return value


def _known_uri(value: str) -> str:
    if "\0" in value or not value.strip():
        raise ValueError("names no place; use s3://bucket/prefix or a folder")
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in {"s3", "file", "phantom"}:
        raise ValueError(f"{scheme}:// is not supported; use s3://bucket/prefix or a folder")
    if separator and not rest.strip("/"):
        raise ValueError(f"nothing follows {scheme}://; name what is meant")
    is_number = rest.isdecimal() and len(rest) <= 7 and int(rest) > 0
    if scheme == "phantom" and separator and not is_number:
        raise ValueError("phantom:// takes a number of slices, as in phantom://512")
    if not separator or scheme == "file":
        folder_of(value)
    return value


def known_folder(value: Path) -> Path:
    """Refuse the folder of a user that does not exist."""
    folder_of(str(value))
    return value


def writable_uri(value: str) -> str:
    """Refuse what can only be read."""
    if value.startswith("phantom://"):
        raise ValueError("phantom:// can't be written to; use s3://bucket/prefix or a folder")
    return value


Uri = Annotated[str, Field(min_length=1), AfterValidator(_known_uri)]
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Device = Literal["auto", "cuda", "mps", "cpu"]
Count = Annotated[int, Field(ge=1, le=65_536)]
Images = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_LONGEST_PATTERN = 1_000


def is_inside(inner: str, outer: str) -> bool:
    """Whether ``inner`` is ``outer`` or lies below it; both of one scheme."""
    if inner.startswith("s3://") != outer.startswith("s3://") or outer.startswith("phantom://"):
        return False
    if inner.startswith("s3://"):
        inside, outside = (re.sub("/+", "/", f"{uri}/") for uri in (inner, outer))
        return inside.startswith(outside)
    return folder_of(inner).is_relative_to(folder_of(outer))


def is_same(one: str, other: str) -> bool:
    """Whether both name one place."""
    return is_inside(one, other) and is_inside(other, one)


def folder_of(uri: str) -> Path:
    """The folder that a path or ``file://`` URI (percent-encoded) names; links are followed.

    Raises:
        ValueError: It is in the home of a user that is not known, or no file can have such a name.
    """
    if uri.lower().startswith("file://"):
        host, slash, path = uri[len("file://") :].partition("/")
        uri = unquote(f"{'' if host.lower() == 'localhost' else host}{slash}{path}")
    try:
        return Path(uri).expanduser().resolve()
    except (RuntimeError, OSError, ValueError):
        raise ValueError("no folder can have that name, or its user is not known") from None
