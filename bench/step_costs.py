"""What one optimizer step costs, counted: these numbers hold without a GPU.

    python bench/step_costs.py [--write]

Operator calls (no views), convolutions, reads of the device by the host, and the bytes that
operators read and write. ``--write`` puts the table into docs/step-costs.md, and a test compares
it.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mrigan.jobs.build import fresh_state, recipe_of
from mrigan.models.augment import draw_randoms, warp_of
from mrigan.models.family import MicroBatch
from mrigan.runtime.device import Hardware
from mrigan.settings.fields import Settings
from mrigan.training.loop import train
from mrigan.training.micro_batches import fill_gradients
from mrigan.training.plan import Plan

PAGE = Path(__file__).parents[1] / "docs" / "step-costs.md"
START, END = "<!-- step costs -->", "<!-- /step costs -->"
CPU = torch.device("cpu")
# Calls that move no data: views, and memory that is handed out.
_FREE = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "diagonal", "empty",
    "empty_like", "empty_strided", "expand", "is_same_size", "lift_fresh", "narrow", "new_empty",
    "new_empty_strided", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t",
    "transpose", "unbind", "unfold", "unsqueeze", "view",
}  # fmt: skip


class Costs(NamedTuple):
    """Of one step, or of one network's half of it."""

    calls: int
    convolutions: int
    host_reads: int
    gigabytes: float


class Counted(TorchDispatchMode):
    """Counts what is called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.bytes = 0
        self.convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        self.names[name] += 1
        if name == "convolution_backward":
            self.convolutions += sum(args[-1][:2])  # of the input, of the kernel
        elif "convolution" in name:
            self.convolutions += 1
        if name.removesuffix("_") not in _FREE:
            tensors = [
                each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)
            ]
            self.bytes += sum(each.numel() * each.element_size() for each in tensors)
        return out

    @property
    def costs(self) -> Costs:
        """All of it."""
        calls = sum(count for name, count in self.names.items() if name.rstrip("_") not in _FREE)
        reads = self.names["_local_scalar_dense"]
        return Costs(calls, self.convolutions, reads, self.bytes / 1e9)


def settings_of(model: str, **given: Any) -> Settings:
    """Of a run on a GPU: whole steps in one pass."""
    sizes = {"image_height": 200, "image_width": 160, "device": "cpu"}
    return Settings(model=model, **sizes | given)


def whole_step(settings: Settings, *, taken: int = 2) -> Costs:
    """A step of both networks through the training loop, in the middle of an epoch."""
    images = settings.batch_size * settings.accumulation_steps
    plan = Plan(
        slices=images * 9,
        epochs=1,
        batch_size=settings.batch_size,
        accumulation_steps=settings.accumulation_steps,
    )
    state = fresh_state(settings, Hardware(CPU, torch.float32, ""))
    state.micro_batch = images
    slices = torch.zeros(1, 1, settings.image_height, settings.image_width)
    ticks = train(
        state,
        lambda indices: slices.expand(len(indices), -1, -1, -1),
        plan,
        latent_dim=settings.latent_dim,
        seed=0,
        autocast=torch.autocast("cpu", enabled=False),
        recipe=recipe_of(settings, plan),
    )
    for _ in range(taken):
        next(ticks)
    with Counted() as counted:
        next(ticks)
    return counted.costs


def halves(settings: Settings, images: int) -> list[Costs]:
    """D's half of a step and G's, of so many images, in bf16."""
    plan = Plan(slices=images, epochs=1, batch_size=images, accumulation_steps=1)
    state = fresh_state(settings, Hardware(CPU, torch.bfloat16, ""))
    recipe = recipe_of(settings, plan)
    assert recipe.augmentation is not None
    policy, size, _ = recipe.augmentation
    warp = warp_of(policy, size, draw_randoms(images, 0), 0.5)
    batch = MicroBatch(
        z=torch.zeros(images, settings.latent_dim),
        real=torch.zeros(images, 1, settings.image_height, settings.image_width),
        real_warp=warp,
        fake_warp=warp,
    )
    found = []
    for half in (recipe.d, recipe.g):
        with Counted() as counted:
            fill_gradients(
                half,
                (state.G, state.D),
                [batch],
                step_images=images,
                autocast=torch.autocast("cpu", torch.bfloat16),
                gamma=torch.ones(()),
                learning=state.D if half is recipe.d else state.G,
            )
        found.append(counted.costs)
    return found


def halves_of_64(settings: Settings) -> list[Costs]:
    """The same of 64 images: bytes grow evenly, so 1 and 2 images tell."""
    pairs = zip(halves(settings, 1), halves(settings, 2), strict=True)
    return [
        two._replace(gigabytes=one.gigabytes + 63 * (two.gigabytes - one.gigabytes))
        for one, two in pairs
    ]


def table() -> str:
    """Markdown: a row for each measurement."""
    dcgan = whole_step(settings_of("dcgan", image_height=32, image_width=32))
    rows = [
        "| what | operator calls | convolutions | host reads | GB an image |",
        "|---|---|---|---|---|",
        f"| `dcgan`, a whole step of 8 × 32 images | {dcgan.calls} | {dcgan.convolutions} "
        f"| {dcgan.host_reads} | |",
    ]
    tiny = whole_step(settings_of("r3-tiny", image_height=32, image_width=32))
    rows.append(
        f"| `r3-tiny`, a whole step of 32 images, at 32×32 | {tiny.calls} | {tiny.convolutions} "
        f"| {tiny.host_reads} | |"
    )
    for model in ("r3-s", "r3-m"):
        for half, costs in zip("DG", halves_of_64(settings_of(model)), strict=True):
            rows.append(
                f"| `{model}`, {half}'s half, 64 images, bf16 | {costs.calls} "
                f"| {costs.convolutions} | {costs.host_reads} | {costs.gigabytes / 64:.2f} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    found = table()
    print(found)
    if args.write:
        before, _, rest = PAGE.read_text().partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{START}\n{found}\n{END}{after}")


if __name__ == "__main__":
    main()
