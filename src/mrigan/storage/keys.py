"""Keys of objects: which ones can be written, and which only read.

Both kinds of store get keys exactly as they are; no character is escaped.
"""

import re
from dataclasses import dataclass
from datetime import datetime

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# obstore writes files under temporary names of this form, and does not list such files.
STAGED = re.compile(r"#\d+$")

UNREADABLE = "unreadable: "
"""How the ETag of a name begins that a folder has but whose file can't be read; then why."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing says of an object.

    Attributes:
        key: Relative to the store's URI, separated by ``/``. One that ends in ``/`` is a marker by
            which a console shows a folder.
        size_bytes: Length of the whole object.
        etag: Without its quotes, "" if the store has none. Changes when the object does.
        modified: When it was last written, with a time zone.
    """

    key: str
    size_bytes: int
    etag: str
    modified: datetime


def key_problem(key: str, *, is_s3: bool) -> str:
    """Say why an object can't be written under ``key``; "" if it can."""
    segments = key.split("/")
    if not key:
        return "a key can't be empty"
    if ".." in segments or "." in segments:
        return "a key can't have '.' or '..' as a segment"
    if "" in segments:
        return "a key can't start or end with '/', or hold '//'"
    if _CONTROL.search(key):
        return "a key can't hold control characters"
    if _SURROGATE.search(key):
        return "a key must be valid Unicode"
    if not is_s3 and STAGED.search(key):
        return "a file's name can't end in '#' and digits: half-written files are named so"
    return ""
