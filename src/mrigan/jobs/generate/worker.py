"""One process's part: draws the pieces that are its own, while threads encode and write them."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mrigan.artifacts import run_tree
from mrigan.artifacts.generator import TrainedGenerator
from mrigan.artifacts.run_tree import JsonObject
from mrigan.data.cores import usable_cores
from mrigan.jobs.generate.pictures import encode, file_name, pixels_of
from mrigan.jobs.generate.record import PACKED, piece_key
from mrigan.jobs.generate.request import Request
from mrigan.runtime.signals import Stopped
from mrigan.storage.store import Store

_WRITES_IN_FLIGHT = 16


class _Piece(NamedTuple):
    number: int
    rows: list[Future[list[JsonObject]]]


def draw_pieces(
    request: Request,
    store: Store,
    generator: TrainedGenerator,
    pieces: Iterable[int],
    *,
    advance: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Draw and write ``pieces``; a piece is written down when all of its slices are there.

    Args:
        request: What is generated.
        store: To write to.
        generator: Draws.
        pieces: By number.
        advance: Called with the number of further slices that are there.
        should_stop: Asked before each batch.

    Raises:
        Stopped: ``should_stop`` said so; finished pieces are kept.
        StorageError: A slice could not be written.
    """
    waiting: deque[_Piece] = deque()
    with ThreadPoolExecutor(max(_WRITES_IN_FLIGHT, usable_cores())) as pool:
        for number in pieces:
            waiting.append(_Piece(number, []))
            seeds = request.seeds(number)
            for first in range(0, len(seeds), generator.batch_images):
                if should_stop():
                    raise Stopped("generating")
                batch = seeds[first : first + generator.batch_images]
                images = generator.draw(batch, truncation=request.drawing.truncation)
                write = _write_all if request.kind != "npz" else _describe
                waiting[-1].rows.append(pool.submit(write, request, store, images, batch))
            # The next piece is drawn while this one is written, and no more than that.
            while len(waiting) > 1:
                _finish(request, store, waiting.popleft(), advance)
        while waiting:
            _finish(request, store, waiting.popleft(), advance)


def _finish(
    request: Request,
    store: Store,
    piece: _Piece,
    advance: Callable[[int], None],
) -> None:
    rows = [row for future in piece.rows for row in future.result()]
    if request.kind == "npz":
        pixels = [row.pop("pixels") for row in rows]
        buffer = io.BytesIO()
        np.save(buffer, np.stack(pixels))
        store.put(piece_key(piece.number, "npy"), buffer.getvalue())
    store.put(piece_key(piece.number), run_tree.encode_rows(rows))
    advance(len(rows))


def _describe(
    request: Request, _store: Store, images: Tensor, seeds: Sequence[int]
) -> list[JsonObject]:
    """The manifest's rows of slices that are packed at the end, with their pixels."""
    pixels = pixels_of(images, request.kind)
    start = seeds[0] - request.first_seed
    return [
        {
            "file": PACKED,
            "row": start + index,
            "seed": seed,
            "pixels_sha256": hashlib.sha256(pixels[index].tobytes()).hexdigest(),
            "pixels": pixels[index],
        }
        for index, seed in enumerate(seeds)
    ]


def _write_all(
    request: Request, store: Store, images: Tensor, seeds: Sequence[int]
) -> list[JsonObject]:
    """Write the slices of one batch; returns the manifest's rows of them."""
    rows: list[JsonObject] = []
    for pixels, seed in zip(pixels_of(images, request.kind), seeds, strict=True):
        about = {"Synthetic": "true", "Software": "mrigan", "Seed": str(seed)}
        data, key = encode(pixels, request.kind, about), file_name(request.kind, seed)
        store.put(key, data)
        rows.append(
            {
                "file": key,
                "seed": seed,
                "size_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            }
        )
    return rows
