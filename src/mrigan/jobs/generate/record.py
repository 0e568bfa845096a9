"""What was generated, written down as it is made, so that a later start continues.

``generation.json`` says from what and how; ``pieces/N.jsonl`` that the slices of piece N are all
there; in the end ``manifest.jsonl`` has a line for each slice, and the pieces are removed.
"""

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrigan.artifacts import run_tree
from mrigan.artifacts.generator import TrainedGenerator
from mrigan.artifacts.run_tree import JsonObject
from mrigan.errors import SettingsError, StorageError
from mrigan.jobs.generate.request import Request
from mrigan.storage.store import Store

GENERATION = "generation.json"
MANIFEST = "manifest.jsonl"
PACKED = "slices.npz"
_PIECE = re.compile(r"pieces/(\d{6})\.jsonl")


def piece_key(piece: int, extension: str = "jsonl") -> str:
    """Where a piece is written down; with ``npy``, where its slices wait to be packed."""
    return f"pieces/{piece:06d}.{extension}"


def begin(
    store: Store, request: Request, generator: TrainedGenerator
) -> tuple[JsonObject, set[int]]:
    """Say what is being generated, and return that and the pieces that are there already.

    Raises:
        SettingsError: Something else is in ``store``.
    """
    config = generator.config
    about: JsonObject = {
        "synthetic": True,
        "note": "Made by a generative model; not for diagnosis.",
        "run": request.drawing.run,
        **request.identity(),
        "model": config.model,
        "generator_sha256": config.sha256,
        "epoch": config.epoch,
        "images_seen": config.images_seen,
        "device": generator.device.type,
        "complete": False,
    }
    exists = store.is_s3 or Path(store.uri).exists()
    keys = {info.key for info in store.list()} if exists else set[str]()
    found = run_tree.read_json(store, GENERATION) if GENERATION in keys else None
    if found is None:
        if keys:
            raise SettingsError(
                f"{store.uri} holds other objects ({min(keys)!r}); choose an empty place"
            )
        run_tree.write_json(store, GENERATION, about)
        return about, set()
    for name in (*request.identity(), "generator_sha256", "device"):
        if found.get(name) != about[name]:
            raise SettingsError(
                f"{store.uri} holds other slices: {name} is {about[name]}, was "
                f"{found.get(name)}; choose another place"
            )
    if found.get("complete") is True and MANIFEST in keys:
        return {**about, "complete": True}, set(range(request.pieces))
    return about, {int(match[1]) for key in keys if (match := _PIECE.fullmatch(key))}


def finish(store: Store, request: Request, about: JsonObject) -> None:
    """Write the manifest, pack what is to be packed, and remove the pieces."""
    rows: list[JsonObject] = []
    for piece in range(request.pieces):
        found = run_tree.read_rows(store, piece_key(piece))
        if [row.get("seed") for row in found] != list(request.seeds(piece)):
            raise StorageError(
                f"{store.uri}/{piece_key(piece)}: does not have the slices of its piece; remove "
                "it and run the same command again"
            )
        rows += found
    if request.kind == "npz":
        _pack(store, request, about)
    store.put(MANIFEST, run_tree.encode_rows(rows))
    run_tree.write_json(store, GENERATION, {**about, "complete": True})
    remove_pieces(store)


def remove_pieces(store: Store) -> None:
    """Remove what only a start that goes on needs."""
    for info in store.list("pieces"):
        store.delete(info.key)
    if not store.is_s3:
        with suppress(OSError):  # an empty folder does no harm
            (Path(store.uri) / piece_key(0)).parent.rmdir()


def _pack(store: Store, request: Request, about: JsonObject) -> None:
    """Put the slices of all pieces into one file, with one piece at a time in memory."""
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder:
        path = Path(folder) / PACKED
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            with packed.open(_member("images"), "w", force_zip64=True) as images:
                for number, pixels in enumerate(_pieces(store, request)):
                    if not number:
                        shape = (request.count, *pixels.shape[1:])
                        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(images, header)
                    images.write(pixels.tobytes())
            end = request.first_seed + request.count
            for name, value in (
                ("seeds", np.arange(request.first_seed, end)),
                ("synthetic", np.array(True)),
                ("about", np.array(json.dumps({**about, "complete": True}))),
            ):
                with packed.open(_member(name), "w") as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)
        store.put(PACKED, path)


def _member(name: str) -> zipfile.ZipInfo:
    """An array of the file, without the time: the same slices make the same bytes."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _pieces(store: Store, request: Request) -> Iterator[NDArray[np.uint8]]:
    for piece in range(request.pieces):
        key, count = piece_key(piece, "npy"), len(request.seeds(piece))
        try:
            pixels = np.load(io.BytesIO(store.get(key)), allow_pickle=False)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or len(pixels) != count:
                raise ValueError
        except ValueError:
            raise StorageError(
                f"{store.uri}/{key}: is damaged; remove it and the .jsonl beside it, and run the "
                "same command again"
            ) from None
        yield pixels
