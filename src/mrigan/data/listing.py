"""From what a store lists to what is read of it: one object or all, litter and patterns."""

import logging
import re
from collections.abc import Sequence

from mrigan.data.flatness import MASK
from mrigan.data.selection import Selection, mask_pattern, select
from mrigan.errors import DataError, StorageError
from mrigan.storage.keys import ObjectInfo
from mrigan.storage.location import BucketLocation, FolderLocation, parse_uri
from mrigan.storage.store import Store, StoreOptions, open_store

log = logging.getLogger(__name__)

_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


def open_one_or_all(uri: str, options: StoreOptions | None) -> tuple[Store, str]:
    """Open the store of ``uri``, or of the folder above and the name if it is one file or object.

    In a bucket only a name with an extension is looked at, and what can't be looked at is a prefix.
    """
    location = parse_uri(uri)
    if isinstance(location, FolderLocation):
        if location.path.is_file():
            return open_store(str(location.path.parent), options), location.path.name
        return open_store(uri, options), ""
    if _EXTENSION.search(location.prefix) and not uri.endswith("/"):
        above, name = _above(location)
        store = open_store(above, options)
        if _is_there(store, name):
            return store, name
    return open_store(uri, options), ""


def _above(location: BucketLocation) -> tuple[str, str]:
    folder, _, name = location.prefix.rpartition("/")
    return f"s3://{location.bucket}/{folder}", name


def _is_there(store: Store, name: str) -> bool:
    try:
        return store.head(name) is not None
    except StorageError:
        return False


def listed_one(store: Store, name: str) -> list[ObjectInfo]:
    """What the store says of its one object, as a listing."""
    info = store.head(name)
    return [info] if info else []


def refuse_object(store: Store, options: StoreOptions | None) -> None:
    """Say so where a URI with nothing below it is an object itself.

    Raises:
        DataError: It is.
    """
    location = parse_uri(store.uri) if store.is_s3 else None
    if not isinstance(location, BucketLocation) or not location.prefix:
        return
    above, name = _above(location)
    if _is_there(open_store(above, options), name):
        raise DataError(
            f"{store.uri} is an object, not a prefix; set MRIGAN_INPUT_URI={above} and "
            f"MRIGAN_INCLUDE={name}"
        )


def taken(infos: Sequence[ObjectInfo], selection: Selection, uri: str) -> list[ObjectInfo]:
    """Return what is to be read, and say in one line each what is not.

    Raises:
        DataError: The patterns leave nothing of what is there.
    """
    found = select(infos, selection)
    for event, passed in (("passed_over", found.litter), ("left_out", found.left_out)):
        if passed:
            log.info(event, extra={"objects": len(passed), "example": passed[0].key})
    if found.left_out and not found.taken:
        raise DataError(
            f"MRIGAN_INCLUDE and MRIGAN_EXCLUDE leave none of {len(found.left_out)} objects under "
            f"{uri}, such as {found.left_out[0].key!r}; correct the patterns"
        )
    return found.taken


def with_pattern(reason: str, key: str) -> str:
    """Add to a mask's refusal, or to an empty one's, the pattern that leaves such files out."""
    pattern = mask_pattern(key)
    if reason.startswith(MASK):
        if pattern:
            return f"{reason}; MRIGAN_EXCLUDE={pattern} leaves such files out"
        return f"{reason}; MRIGAN_EXCLUDE takes a pattern that leaves such files out"
    if reason.startswith("blank") and pattern:
        return f"{reason}, as an empty mask is; MRIGAN_EXCLUDE={pattern} leaves such files out"
    return reason
