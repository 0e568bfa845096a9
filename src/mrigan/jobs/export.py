"""``mrigan export``: a generator as a file that runs without mrigan, ONNX or torch.export's.

What is written is run first, and compared with the generator itself. The file takes latents ``z``
(N, latent_dim), N(0, 1), and gives ``images`` (N, 1, H, W) in [-1, 1], float32 both, for any N.
"""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from mrigan.artifacts.generator import TrainedGenerator, latent
from mrigan.errors import MriganError, SettingsError
from mrigan.jobs.build import file_place
from mrigan.jobs.drawing import Drawing

log = logging.getLogger(__name__)

FORMATS = (".onnx", ".pt2")
_FURTHEST = 1e-4  # of [-1, 1]: a hundredth of a grey level
_CHECKED = (1, 3, 16)  # images at a time
_NEEDED = ("onnx", "onnxruntime", "onnxscript")

Draws = Callable[[Tensor], Tensor]


class ExportError(MriganError):
    """What was exported draws other pictures than the generator."""


class _Clamped(nn.Module):
    """The generator with its output kept in [-1, 1], as slices are drawn."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.network(z)
        return images.clamp(-1.0, 1.0)


def export(drawing: Drawing, place: str) -> None:
    """Write the generator of a run as one file.

    Args:
        drawing: With which generator; it is exported from the CPU.
        place: A path or ``s3://bucket/key`` that ends in .onnx or .pt2.

    Raises:
        SettingsError: The format is none of these, or its packages are not installed.
        ExportError: What was exported draws other pictures.
        StorageError: The generator can't be read, or the file can't be written.
    """
    kind = PurePosixPath(place).suffix.lower()
    if kind not in FORMATS:
        raise SettingsError(f"{place}: ends in none of {', '.join(FORMATS)}")
    if kind == ".onnx" and (missing := [name for name in _NEEDED if find_spec(name) is None]):
        raise SettingsError(
            f"{place}: {', '.join(missing)} not installed; pip install 'mrigan[export]'"
        )
    store, name = file_place(place, drawing.options, "generator.onnx")
    generator = drawing.generator()
    program = _program(generator)
    about = _about(generator)
    data, draws = _onnx(program, about) if kind == ".onnx" else _pt2(program, about)
    furthest = _furthest(generator, draws)
    if not furthest <= _FURTHEST:
        raise ExportError(
            f"{place}: what was exported differs from the generator by {furthest:.2g}, more than "
            f"{_FURTHEST:g}; nothing was written; try the other of {', '.join(FORMATS)}"
        )
    store.put(name, data)
    facts = {"mib": round(len(data) / 2**20, 1), "furthest": float(f"{furthest:.2g}")}
    log.info("written", extra={"file": place, **facts})


def _about(generator: TrainedGenerator) -> dict[str, str]:
    config = generator.config
    return {
        "synthetic": "true",
        "note": "draws synthetic slices; made by mrigan; not for diagnosis",
        "model": config.model,
        "generator_sha256": config.sha256,
        "image_height": str(config.image_height),
        "image_width": str(config.image_width),
        "latent_dim": str(config.latent_dim),
        "epoch": str(config.epoch),
        "images_seen": str(config.images_seen),
    }


def _program(generator: TrainedGenerator) -> torch.export.ExportedProgram:
    count = torch.export.Dim("images", min=1)
    z = torch.zeros(2, generator.config.latent_dim)
    clamped = _Clamped(generator.network).eval()
    return torch.export.export(clamped, (z,), dynamic_shapes=({0: count},))


def _onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> tuple[bytes, Draws]:
    """The file, and what onnxruntime makes of it."""
    import onnx
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()), _quiet("`isinstance.treespec, LeafSpec.`"):
        # It says how far it is; torch 2.11 warns of how it copies its own trees.
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["z"], output_names=["images"]
        )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, about)
    data: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda z: torch.from_numpy(session.run(None, {"z": z.numpy()})[0])


def _pt2(program: torch.export.ExportedProgram, about: dict[str, str]) -> tuple[bytes, Draws]:
    """The file, and what torch makes of it."""
    with tempfile.TemporaryDirectory(prefix="mrigan-") as folder:
        path = Path(folder) / "generator.pt2"
        torch.export.save(program, path, extra_files={"about.json": json.dumps(about)})
        data = path.read_bytes()
    with _quiet("The given buffer is not writable"):  # torch 2.11, and nothing here writes to it
        module = torch.export.load(io.BytesIO(data)).module()

    def draw(z: Tensor) -> Tensor:
        with torch.inference_mode():
            images: Tensor = module(z)
            return images

    return data, draw


@contextlib.contextmanager
def _quiet(start: str) -> Iterator[None]:
    """Within it no warning is given that starts so; ``start`` is a regular expression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", start)
        yield


def _furthest(generator: TrainedGenerator, draws: Draws) -> float:
    """The largest difference of a pixel, of [-1, 1]."""
    found = 0.0
    for count in _CHECKED:
        z = torch.stack([latent(seed, generator.config.latent_dim) for seed in range(count)])
        apart = (draws(z) - generator.draw_latents(z)).abs().max()
        found = max(found, float(apart.nan_to_num(nan=torch.inf)))
    return found
