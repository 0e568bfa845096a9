"""``mrigan interpolate``: what lies between some slices of a generator, as an animation or a sheet.

On the sphere (Shoemake 1985; White 2016, arXiv 1609.04468): a mean of two latents is shorter than
any that the generator was trained on. Smooth steps speak for a generator that has learned what
slices have in common; jumps speak for one that repeats some.
"""

import io
import logging
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mrigan.artifacts.generator import MAX_SEED, TrainedGenerator, latent
from mrigan.artifacts.grids import lay_out
from mrigan.data.slices import to_grey
from mrigan.errors import SettingsError
from mrigan.jobs.build import file_place
from mrigan.jobs.drawing import Drawing

log = logging.getLogger(__name__)

FORMATS = (".gif", ".webp", ".mp4", ".png")
_MOST_FRAMES = 10_000
_NOTE = "synthetic, made by mrigan"
_FRAME_MS = 80
_VIDEO_QUALITY = "12"  # of x264, where 0 is lossless and 18 can hardly be told from it


def interpolate(drawing: Drawing, place: str, *, seeds: Sequence[int], frames: int) -> None:
    """Write the way from seed to seed, and back to the first in an animation.

    Args:
        drawing: With which generator, and how.
        place: A path or ``s3://bucket/key`` that ends in .gif, .webp, .mp4 (animations) or .png (a
            sheet, a row for each pair of seeds).
        seeds: Two at least.
        frames: From one seed to the next.

    Raises:
        SettingsError: With every problem.
        StorageError: The generator can't be read, or the file can't be written.
    """
    kind = PurePosixPath(place).suffix.lower()
    problems = drawing.problems()
    if kind not in FORMATS:
        problems.append(f"{place}: ends in none of {', '.join(FORMATS)}")
    if kind == ".mp4" and not find_spec("av"):
        problems.append(f"{place}: .mp4 needs PyAV: pip install 'mrigan[video]'")
    if len(seeds) < 2 or not all(0 <= seed < MAX_SEED for seed in seeds):
        problems.append("--seeds: two or more numbers from 0, separated by commas")
    if not 2 <= frames <= _MOST_FRAMES // max(len(seeds), 1):
        problems.append(f"--frames: {frames} is not within 2 to {_MOST_FRAMES:,} in all")
    if problems:
        raise SettingsError(*problems)
    store, name = file_place(place, drawing.options, "interpolation.gif")
    generator = drawing.generator()
    is_sheet = kind == ".png"
    ends = [latent(seed, generator.config.latent_dim) * drawing.truncation for seed in seeds]
    pairs = zip(ends, ends[1:] if is_sheet else [*ends[1:], ends[0]], strict=False)
    z = torch.cat([way(*pair, frames, closed=is_sheet) for pair in pairs])
    images = _drawn(generator, z)
    if is_sheet:
        store.put(name, _sheet(images, frames))
    else:
        store.put(name, _video(images) if kind == ".mp4" else _animation(images, kind))
    log.info("written", extra={"file": place, "frames": len(images), "seeds": len(seeds)})


def way(start: Tensor, end: Tensor, frames: int, *, closed: bool) -> Tensor:
    """Latents (frames, latent_dim) from ``start`` on, to ``end`` where ``closed``, else before it.

    Direction and length change evenly; in a straight line where one has no direction, or the two
    are opposite or equal.
    """
    steps = torch.linspace(0, 1, frames if closed else frames + 1, dtype=torch.float64)[:frames]
    one, other = start.double(), end.double()
    lengths = one.norm(), other.norm()
    cosine = (one @ other / (lengths[0] * lengths[1]).clamp(min=1e-12)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    t = steps[:, None]
    if torch.sin(angle) < 1e-4 or min(lengths) < 1e-12:
        return ((1 - t) * one + t * other).float()
    directions = (
        torch.sin((1 - t) * angle) * one / lengths[0] + torch.sin(t * angle) * other / lengths[1]
    ) / torch.sin(angle)
    latents: Tensor = directions * ((1 - t) * lengths[0] + t * lengths[1])
    return latents.float()


def _drawn(generator: TrainedGenerator, z: Tensor) -> NDArray[np.uint8]:
    parts = [to_grey(generator.draw_latents(part)) for part in z.split(generator.batch_images)]
    return torch.cat(parts).numpy()


def _sheet(images: NDArray[np.uint8], columns: int) -> bytes:
    buffer, text = io.BytesIO(), PngInfo()
    text.add_text("Synthetic", "true")
    lay_out(images, columns).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _animation(images: NDArray[np.uint8], kind: str) -> bytes:
    """Every pixel as it is: 256 grey levels are a palette, and WebP is lossless."""
    first, *others = [Image.fromarray(image[0]) for image in images]
    buffer = io.BytesIO()
    shared = {"save_all": True, "append_images": others, "duration": _FRAME_MS, "loop": 0}
    if kind == ".gif":
        first.save(buffer, "GIF", comment=_NOTE.encode(), **shared)
    else:
        first.save(buffer, "WEBP", lossless=True, xmp=_xmp(), **shared)
    return buffer.getvalue()


def _video(images: NDArray[np.uint8]) -> bytes:
    """H.264, nearly lossless; a last row or column is repeated where a side is odd."""
    import av

    height, width = images.shape[2:]
    even = np.pad(images[:, 0], ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as video:
        video.metadata["comment"] = _NOTE
        stream = video.add_stream("libx264", rate=Fraction(1000, _FRAME_MS))
        stream.height, stream.width = even.shape[1:]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": _VIDEO_QUALITY}
        for image in even:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        video.mux(stream.encode())
    return buffer.getvalue()


def _xmp() -> bytes:
    """Metadata in XMP (ISO 16684-1) with the IPTC's term for what a model has made."""
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        b"Iptc4xmpExt:DigitalSourceType="
        b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
