"""Folders of encoded slices for the benchmarks to serve."""

import multiprocessing
from pathlib import Path

from PIL import Image


def make_slices(folder: Path, count: int) -> None:
    """Phantoms as they come from a scanner's archive: 512x512 colour JPEGs, quality 90."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_write_slice, ((folder, index) for index in range(count)), chunksize=16)


def _write_slice(folder: Path, index: int) -> None:
    from mrigan.data.phantom import draw

    # Drawn small and enlarged, as scanners interpolate; at 512 px noise alone makes the file.
    picture = Image.fromarray(draw(index, 256, 256)).resize((512, 512), Image.Resampling.BICUBIC)
    picture.convert("RGB").save(folder / f"slice-{index:05d}.jpg", quality=90)


def link_slices(folder: Path, into: Path, count: int) -> int:
    """Link the first ``count`` files of ``folder``, evenly spread over it, into ``into``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    step = max(len(paths) / count, 1.0) if count else 1.0
    chosen = [paths[int(index * step)] for index in range(min(count or len(paths), len(paths)))]
    for path in chosen:
        link = into / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return len(chosen)
