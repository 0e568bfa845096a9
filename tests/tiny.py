"""The smallest networks that show everything, for the tests of training."""

import torch

from mrigan.artifacts.checkpoints import read_newest
from mrigan.models.dcgan import networks as dcgan
from mrigan.models.r3 import networks as r3
from mrigan.training.checkpoint import decode
from mrigan.training.state import build_state

SIZE = (33, 47)
LATENTS = 6
SMALLEST = r3.Preset(widths=(8, 8, 8, 8, 8))


def newest(store):
    """The newest checkpoint of a run that verifies, decoded."""
    return read_newest(store, decode).saved


def slices(count):
    """Reals (count, 1, H, W) in [-1, 1], the same each time."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, *SIZE, generator=generator) * 2 - 1


def tiny_state(preset=None, *, micro_batch=4, seed=0, g_lr=2e-3, d_lr=1e-3, beta1=0.5):
    """Fresh networks of dcgan, or of r3 at ``preset`` with an EMA, on the CPU."""

    def networks():
        if preset is None:
            return dcgan.Generator(LATENTS, *SIZE), dcgan.Discriminator(*SIZE)
        return r3.Generator(preset, LATENTS, *SIZE), r3.Discriminator(preset, *SIZE)

    return build_state(
        networks,
        g_lr=g_lr,
        d_lr=d_lr,
        beta1=beta1,
        micro_batch=micro_batch,
        seed=seed,
        device=torch.device("cpu"),
        with_ema=preset is not None,
    )
