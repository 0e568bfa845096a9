"""Where slices come from: objects of a store, or phantoms that are drawn.

A ``Source`` lists objects without reading them and reads one slice at a time, from any thread.
"""

import re
import threading
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mrigan.data.cores import usable_cores
from mrigan.data.formats import DECODE_VERSION, MAX_BYTES, Fit, decode, deep_pixels
from mrigan.data.listing import (
    listed_one,
    open_one_or_all,
    refuse_object,
    taken,
    with_pattern,
)
from mrigan.data.phantom import PHANTOM_VERSION, draw
from mrigan.data.refusal import UnusableSliceError
from mrigan.data.selection import EVERYTHING, Selection
from mrigan.data.series import Series
from mrigan.errors import SettingsError
from mrigan.storage.keys import UNREADABLE, ObjectInfo
from mrigan.storage.store import Store, StoreOptions

_PHANTOM_URI = re.compile(r"phantom://([1-9][0-9]{0,6})/?")
_LARGE_BYTES = 8 * 2**20


class Source(Protocol):
    """Slices by key."""

    @property
    def uri(self) -> str:
        """Where the slices are, as people write it."""
        ...

    @property
    def identity(self) -> str:
        """Name the same objects alike in every process, and others differently."""
        ...

    @property
    def recipe(self) -> str:
        """Name how pixels are made of them; another recipe may give other pixels."""
        ...

    def list(self) -> list[ObjectInfo]:
        """Return every object, without reading any.

        Raises:
            StorageError: The store can't be listed.
        """
        ...

    def read(
        self, info: ObjectInfo, height: int, width: int, fit: Fit, series: Series | None = None
    ) -> NDArray[np.uint8]:
        """Return one slice (height, width), uint8, in the window of its series; thread-safe.

        Raises:
            UnusableSliceError: The object is not a slice.
            StorageError: The object can't be read.
        """
        ...


def open_source(
    uri: str, options: StoreOptions | None = None, selection: Selection = EVERYTHING
) -> Source:
    """Open ``s3://bucket/prefix``, a folder, one object or file, or ``phantom://N``.

    Raises:
        SettingsError: A phantom URI without a count.
        StorageError: The store can't be opened.
    """
    if not uri.startswith("phantom:"):
        return StoreSource(*open_one_or_all(uri, options), selection, options)
    if found := _PHANTOM_URI.fullmatch(uri):
        return PhantomSource(int(found[1]))
    raise SettingsError(f"MRIGAN_INPUT_URI: {uri!r} is no number of phantoms; try phantom://512")


def is_folder_marker(key: str, size_bytes: int) -> bool:
    """Whether this is the empty object by which consoles show a folder; it is not data."""
    return key.endswith("/") and size_bytes == 0


class StoreSource:
    """Encoded pictures in a bucket or folder.

    Many threads may wait for the store at once, but only about as many decode as there are cores:
    waiting costs nothing, and each picture that is being decoded takes memory.
    """

    def __init__(
        self,
        store: Store,
        only: str = "",
        selection: Selection = EVERYTHING,
        options: StoreOptions | None = None,
    ) -> None:
        self._store = store
        self._options = options
        self._only = only
        self._selection = selection
        self._decoders = threading.BoundedSemaphore(usable_cores() + 1)
        self._one_large_object = threading.Lock()

    @property
    def uri(self) -> str:
        """The store's, or the one object's."""
        return f"{self._store.uri}/{self._only}" if self._only else self._store.uri

    @property
    def identity(self) -> str:
        """The store's, and the one object's name."""
        return f"{self._store.identity}/{self._only}" if self._only else self._store.identity

    @property
    def recipe(self) -> str:
        """The decoder's version."""
        return f"formats {DECODE_VERSION}"

    def list(self) -> list[ObjectInfo]:
        """Return what the store lists and the patterns leave, slices or not.

        Raises:
            DataError: The patterns leave nothing, or the URI is one object without an extension.
            StorageError: The store can't be listed.
        """
        if self._only:
            return listed_one(self._store, self._only)
        infos = [*self._store.list(), *self._store.unlisted()]
        if not infos:
            refuse_object(self._store, self._options)
        return taken(infos, self._selection, self._store.uri)

    def read(
        self, info: ObjectInfo, height: int, width: int, fit: Fit, series: Series | None = None
    ) -> NDArray[np.uint8]:
        """Fetch and decode one object, unless the listing already tells that it is no slice."""
        if info.etag.startswith(UNREADABLE):
            raise UnusableSliceError(info.etag.removeprefix(UNREADABLE))
        if is_folder_marker(info.key, info.size_bytes):
            raise UnusableSliceError("folder marker")
        if info.size_bytes == 0:
            raise UnusableSliceError("zero bytes")
        if info.size_bytes > MAX_BYTES:
            mebibytes = info.size_bytes / 2**20
            raise UnusableSliceError(f"{mebibytes:.0f} MiB; {MAX_BYTES >> 20} MiB is the limit")
        if info.size_bytes > _LARGE_BYTES:
            with self._one_large_object:
                return self._read(info, height, width, fit, None)
        return self._read(info, height, width, fit, series)

    def _read(
        self, info: ObjectInfo, height: int, width: int, fit: Fit, series: Series | None
    ) -> NDArray[np.uint8]:
        data = self._store.get(info.key, etag=info.etag)
        window = None if series is None else partial(series.window, self._deep_pixels)
        try:
            with self._decoders:
                return decode(data, height, width, fit, window)
        except UnusableSliceError as error:
            raise UnusableSliceError(with_pattern(error.reason, info.key)) from error

    def _deep_pixels(self, info: ObjectInfo) -> NDArray[np.generic] | None:
        """Read another slice of a series for its window, on the thread that is decoding one."""
        try:
            return deep_pixels(self._store.get(info.key, etag=info.etag))
        except UnusableSliceError:
            return None  # it is refused when its turn comes


class PhantomSource:
    """``count`` procedural slices, drawn at the size asked for, so ``fit`` is not used."""

    _DRAWN = datetime(2026, 1, 1, tzinfo=UTC)

    def __init__(self, count: int) -> None:
        self._count = count
        self._drawing = threading.BoundedSemaphore(usable_cores() + 1)

    @property
    def uri(self) -> str:
        """As it was given."""
        return f"phantom://{self._count}"

    @property
    def identity(self) -> str:
        """The URI, since there is only one series of phantoms."""
        return self.uri

    @property
    def recipe(self) -> str:
        """The drawing's version."""
        return f"phantom {PHANTOM_VERSION}"

    def list(self) -> list[ObjectInfo]:
        """Return one object per phantom; their size is not known before they are drawn."""
        etag = f"v{PHANTOM_VERSION}"
        return [
            ObjectInfo(f"phantom-{index:06d}", 0, etag, self._DRAWN) for index in range(self._count)
        ]

    def read(
        self, info: ObjectInfo, height: int, width: int, fit: Fit, series: Series | None = None
    ) -> NDArray[np.uint8]:
        """Draw one phantom."""
        del fit, series
        with self._drawing:
            return draw(int(info.key.removeprefix("phantom-")), height, width)
