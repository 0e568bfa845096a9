"""Pillow against torchvision.io: grey pixels of real slices, per core, and whether they are equal.

    python bench/decoding.py --folder SLICES [--slices 200] [--rounds 7]

Both decode from memory to the grey levels that ``data/formats.py`` scales, on one thread. The JPEGs
of the folder are taken as they are and, re-encoded from their own pixels, as grey and colour PNGs
of 8 bits and grey PNGs of 16 bits (the product of two slices, so that all bits are in use). The
second line is the way to a 200x160 slice: ``formats.decode`` against Pillow for the header and the
scaling and torchvision between them. The two take turns; times are CPU seconds of the process, and
the best round counts.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from mrigan.data.formats import decode as decode_slice

Decode = Callable[[bytes], NDArray[np.generic]]


def pillow(data: bytes) -> NDArray[np.generic]:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I;16"):
            return np.asarray(image)
        image.draft("L", image.size)
        return np.asarray(image.convert("L"))


def torchvision_jpeg(data: bytes) -> NDArray[np.generic]:
    return decode_jpeg(_tensor(data), ImageReadMode.GRAY)[0].numpy()


def pillow_slice(data: bytes) -> NDArray[np.generic]:
    return decode_slice(data, 200, 160)


def torchvision_slice(data: bytes) -> NDArray[np.generic]:
    with Image.open(io.BytesIO(data)) as image:
        image.getexif()  # its size, frames and orientation have to be known before
    grey = Image.fromarray(torchvision_jpeg(data))
    return np.asarray(grey.resize((160, 200), Image.Resampling.BILINEAR))


def torchvision_png(data: bytes) -> NDArray[np.generic]:
    return decode_png(_tensor(data), ImageReadMode.GRAY)[0].numpy()


def _tensor(data: bytes) -> torch.Tensor:
    # frombuffer refuses what is read-only; a bytearray costs one copy of the encoded bytes.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def encoded(pixels: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sixteen_bits(grey: NDArray[np.generic]) -> NDArray[np.uint16]:
    return grey.astype(np.uint16) * grey[::-1, ::-1].astype(np.uint16)


def compare(
    name: str, files: list[bytes], torchvision: Decode, rounds: int, pillow: Decode = pillow
) -> None:
    """Print one line of the table."""
    apart, differing = 0, 0
    for data in files:
        difference = np.abs(pillow(data).astype(np.int64) - torchvision(data).astype(np.int64))
        apart, differing = max(apart, int(difference.max())), differing + bool(difference.any())
    best = {decode: float("inf") for decode in (pillow, torchvision)}
    for _ in range(rounds):
        for decode in best:
            started = time.process_time()
            for data in files:
                decode(data)
            best[decode] = min(best[decode], time.process_time() - started)
    ours, theirs = (1000 * seconds / len(files) for seconds in best.values())
    print(
        f"{name:12} Pillow {ours:.3f} ms, torchvision {theirs:.3f} ms: {ours / theirs:.2f} times "
        f"as fast; {differing} of {len(files)} slices differ, by {apart} levels at most",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="of JPEGs, at any depth")
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() == ".jpg")
    files = [path.read_bytes() for path in paths[:: max(len(paths) // args.slices, 1)]]
    greys = [pillow(data) for data in files]
    with_colours = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    compare("JPEG", files, torchvision_jpeg, args.rounds)
    compare("JPEG, slice", files, torchvision_slice, args.rounds, pillow_slice)
    compare("PNG, grey", [encoded(grey) for grey in greys], torchvision_png, args.rounds)
    compare("PNG, colour", [encoded(each) for each in with_colours], torchvision_png, args.rounds)
    deep = [encoded(sixteen_bits(grey)) for grey in greys]
    compare("PNG, 16 bits", deep, torchvision_png, args.rounds)


if __name__ == "__main__":
    main()
