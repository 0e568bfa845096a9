"""What a store holds, including what obstore's own listing hides or fails on.

obstore removes the ``/`` at a marker's end, so that it looks like an empty object of another name,
and fails at the first key that it can't represent: with ``//``, ``.`` or a control character in it,
or at links in a circle.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import GenericError, InvalidPathError

from mrigan.storage.keys import ObjectInfo

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import LocalStore, S3Store

_PAGE = 1000
# Up to so many empty objects, one request for each is faster than listing everything again.
_LOOKS = 64
_LOOKS_AT_ONCE = 8
_UNREADABLE = ("File system loop", "invalid list response")


def list_objects(
    store: "S3Store | LocalStore",
    prefix: str,
    relist: Callable[[str], list[ObjectInfo]],
    *,
    has_markers: bool,
) -> list[ObjectInfo]:
    """Return every object below ``prefix``, sorted by key as S3 sorts: by UTF-8 bytes.

    Args:
        store: Where.
        prefix: By whole segments; "" for everything.
        relist: Lists everything, more slowly.
        has_markers: Whether an empty object may be a folder's marker.
    """
    try:
        pages = store.list(prefix or None, chunk_size=_PAGE)
        found = [info_of(meta) for page in pages for meta in page if meta["path"]]
    except InvalidPathError:
        found = relist(prefix)
    except GenericError as error:
        if not any(text in str(error) for text in _UNREADABLE):
            raise
        found = relist(prefix)
    else:
        if has_markers and (empty := [info for info in found if not info.size_bytes]):
            few = len(empty) <= _LOOKS
            found = _with_markers(store, found, empty) if few else relist(prefix)
    own_marker = f"{prefix}/"
    # Code points sort as their UTF-8 does.
    return sorted((info for info in found if info.key != own_marker), key=lambda info: info.key)


def info_of(meta: "ObjectMeta") -> ObjectInfo:
    """Translate what obstore says of an object."""
    etag = (meta["e_tag"] or "").strip('"')
    return ObjectInfo(meta["path"], meta["size"], etag, meta["last_modified"])


def _with_markers(
    store: "S3Store | LocalStore", found: list[ObjectInfo], empty: list[ObjectInfo]
) -> list[ObjectInfo]:
    """Give markers their ``/`` back: without it no object has their name."""

    def is_marker(info: ObjectInfo) -> bool:
        try:
            obstore.head(store, info.key)
        except FileNotFoundError:
            return True
        return False

    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        markers = {
            info.key for info, yes in zip(empty, pool.map(is_marker, empty), strict=True) if yes
        }
    return [
        replace(info, key=f"{info.key}/") if info.key in markers and not info.size_bytes else info
        for info in found
    ]
