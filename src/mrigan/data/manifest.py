"""What became of each input object, used or refused: one JSON object a line."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_MOST_ROWS = 2**40
Side = Literal["", "training", "holdout", "copy"]


@dataclass(frozen=True)
class ManifestEntry:
    """One object of the input.

    Attributes:
        key: In the store.
        size_bytes: As listed; 0 for what is drawn rather than stored.
        etag: As listed; another one means another object under the same key.
        status: ``used`` or ``refused``.
        reason: Why it was refused, else empty.
        row: The slice's number, from 0, or in a cache its row in the file; None when refused.
        sha256: Of the row's pixels, in hexadecimal; empty when refused.
        volume: What it is a slice of, where volumes are held out; else empty.
        side: Then ``training``, ``holdout``, or ``copy``: the pixels of a held-out slice that are
            also trained on, so it counts on neither side.
        series: Names the slices whose intensity window its pixels went through, where that is
            the window of a series; else empty.
    """

    key: str
    size_bytes: int
    etag: str
    status: Literal["used", "refused"]
    reason: str = ""
    row: int | None = None
    sha256: str = ""
    volume: str = ""
    side: Side = ""
    series: str = ""


def encode_manifest(entries: Iterable[ManifestEntry]) -> bytes:
    """Write entries as JSON lines, in their order, in ASCII: keys may hold any character."""
    return "".join(json.dumps(_fields(entry)) + "\n" for entry in entries).encode("ascii")


def _fields(entry: ManifestEntry) -> dict[str, str | int | None]:
    fields = dict(vars(entry))
    if not entry.side:  # as in the cache, where nothing is held out
        del fields["volume"], fields["side"]
    if not entry.series:
        del fields["series"]
    return fields


def decode_manifest(lines: bytes) -> list[ManifestEntry]:
    """Read what ``encode_manifest`` wrote.

    Raises:
        ValueError: Not JSON lines.
        TypeError: JSON, but not of manifest entries.
    """
    array = b",".join(lines.splitlines())  # one call parses three times as fast as one a line
    entries = [ManifestEntry(**entry) for entry in json.loads(b"[%b]" % array)]
    # Not by pydantic, which has no text with lone surrogates: a key may hold them.
    if not all(isinstance(entry.key, str) and _is_row(entry.row) for entry in entries):
        raise ValueError("an entry has a key or a row of another type")
    return entries


def _is_row(row: object) -> bool:
    return row is None or (type(row) is int and 0 <= row < _MOST_ROWS)
