"""Halves of a step on the device against float64 on the CPU, and graphs against eager steps."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpu_check.bench import Bench, switches_kept
from gpu_check.jobs import Job, begin, heard
from gpu_check.report import FAILED, Row
from gpu_check.rounding import allowed
from gpu_check.slices import drawn
from mrigan.data.slices import to_unit
from mrigan.models.augment import Policy, Randoms, draw_randoms, warp_of
from mrigan.models.batchnorm import norms_of
from mrigan.models.dcgan.networks import DROPOUT
from mrigan.models.family import Dropout, Half, MicroBatch, Recipe
from mrigan.settings.models import MODELS
from mrigan.training.inputs import draw_keep, draw_latents
from mrigan.training.micro_batches import fill_gradients
from mrigan.training.step import TakeSlices

_SIZE, _SIZE_TINY = (64, 52), (32, 32)
_BATCH, _ROUNDS = 4, 2  # images BatchNorm sees together, groups a step
_IMAGES = _BATCH * _ROUNDS
_SLICES, _EPOCHS = 20, 5  # steps of 8, 8 and 4 images: two shapes, each captured
_POISONED = 10  # the taking of reals that is not finite
_CAPTURE = 3  # the run of a half's work that is captured
_GAMMA = 100.0  # the penalties are half of D's gradient then


def run(bench: Bench) -> None:
    """Halves in fp32 and bf16, whole steps as graphs, memory that runs out."""
    models = ("r3-tiny", "dcgan")
    for precision in ("fp32", "bf16"):
        for model in models:
            for half in ("d", "g"):
                measure = partial(_half, bench, model, half, precision)
                bench.row(f"{model} {half} {precision}", measure)
    for model in models:
        bench.row(f"{model} fp32 graphs = eager", partial(_graphs, bench, model, "fp32"))
        bench.row(f"{model} halving while capturing", partial(_halving, bench, model))
    for model in models:
        bench.row(f"{model} bf16 graphs = eager", partial(_graphs, bench, model, "bf16"))


def _job(bench: Bench, model: str, *, on_cpu: bool = False, **chosen: Any) -> Job:
    size = _SIZE_TINY if bench.is_tiny else _SIZE
    job = begin(
        bench,
        model,
        drawn((_SLICES, 1), size)[0],
        epochs=_EPOCHS,
        device=torch.device("cpu") if on_cpu else None,
        batch_size=_BATCH,
        accumulation_steps=_ROUNDS,
        micro_batch=_IMAGES,
        augment="schedule",
        **chosen,
    )
    # Exactly: no trials, none whose sums come in any order, no shortened factors.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return job


def _half(bench: Bench, model: str, name: str, precision: str) -> Row:
    """Sums and gradients of one half from the same weights and numbers."""
    with switches_kept(bench.device):
        job = _job(bench, model, on_cpu=True, precision="fp32")
        recipes: list[Recipe] = []
        _job(bench, model, on_cpu=True, precision="fp32", change_recipe=_kept(recipes))
        half: Half = getattr(recipes[0], name)
        networks = (job.state.G, job.state.D)
        _move_zeros(networks)
        expected = _accumulated(half, networks, name, job, torch.device("cpu"), torch.float64)
        found = _accumulated(half, networks, name, job, bench.device, torch.float32, precision)
    limits = allowed(precision, *networks, passes=4)
    gradient = float((found[1] - expected[1]).norm() / expected[1].norm())
    gaps = {
        title: abs(float(ours - theirs)) / (_IMAGES + abs(float(theirs)))
        for title, ours, theirs in zip(half.sums, found[0], expected[0], strict=True)
        if title != "real_sign" or precision == "fp32"  # near chance, signs are rounding's
    }
    worst = max(gaps.values())
    # A penalty is a square of slopes, and so has their error.
    sums_limit = limits.gradient if "r1" in half.sums else limits.value
    row: Row = {
        "gradient off by": gradient,
        "allowed": limits.gradient,
        "sums off by": worst,
        "sums allowed": sums_limit,
    }
    if not gradient <= limits.gradient or not worst <= sums_limit:
        row[FAILED] = "further from float64 than rounding explains"
    return row


def _accumulated(
    half: Half,
    networks: tuple[nn.Module, nn.Module],
    name: str,
    job: Job,
    device: torch.device,
    dtype: torch.dtype,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Sums and the gradient, float64 on the CPU."""
    G, D = (deepcopy(network).to(device, dtype) for network in networks)
    G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    for norm in norms_of(G):
        norm.group_images = _BATCH
    learning = D if name == "d" else G
    totals = fill_gradients(
        half,
        (G, D),
        _batches(job, device, dtype),
        step_images=_IMAGES,
        autocast=torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        gamma=torch.full((), _GAMMA, device=device, dtype=dtype),
        learning=learning,
    )
    gradients = [weight.grad for weight in learning.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    return totals.detach().cpu().double(), flat.detach().cpu().double()


def _batches(job: Job, device: torch.device, dtype: torch.dtype) -> list[MicroBatch]:
    size = (job.settings.image_height, job.settings.image_width)
    real = to_unit(torch.from_numpy(drawn((_IMAGES, 1), size)[0]))
    z = draw_latents(_IMAGES, job.settings.latent_dim, 7)
    if MODELS[job.settings.model].family == "r3":
        warps = [_warp(size, seed) for seed in (8, 9)]
        moved = [type(warp)(*(rows.to(device, dtype) for rows in warp)) for warp in warps]
        return [
            MicroBatch(
                z.to(device, dtype), real.to(device, dtype), real_warp=moved[0], fake_warp=moved[1]
            )
        ]
    channels = sum(job.state.D.widths)
    keeps = [draw_keep(_IMAGES, Dropout(channels, DROPOUT), seed).to(device) for seed in (8, 9)]
    return [MicroBatch(z.to(device, dtype), real.to(device, dtype), *keeps)]


def _warp(size: tuple[int, int], seed: int) -> Any:
    randoms = Randoms(*(each.double() for each in draw_randoms(_IMAGES, seed)))
    return warp_of(Policy(flips=True, rotation_degrees=5.0), size, randoms, 0.5)


def _move_zeros(networks: tuple[nn.Module, nn.Module]) -> None:
    """Give weights that start at zero a value, or half of the gradients would be zero, too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for network in networks:
            for weight in network.parameters():
                if not weight.any():
                    spread = 0.1 if weight.dim() == 1 else weight[0].numel() ** -0.5
                    weight.copy_(torch.randn(weight.shape, generator=generator) * spread)


def _graphs(bench: Bench, model: str, precision: str) -> Row:
    """Steps with everything that changes, one not finite among them: the same bits."""
    facts, warnings = [], []
    for graphs in (False, True):
        with switches_kept(bench.device), heard() as heard_here:
            job = _job(bench, model, graphs=graphs, precision=precision, change_take=_poisoned)
            ticks = [(bool(tick.taken), _read(tick.sums)) for tick in job.ticks]
        facts.append((ticks, _weights(job)))
        warnings += heard_here
    (eager, eager_weights), (captured, weights) = facts
    skipped = [index for index, (taken, _) in enumerate(captured) if not taken]
    steps = [
        (ours - theirs).abs().max()
        for (_, ours), (_, theirs) in zip(captured, eager, strict=True)
        if torch.isfinite(theirs).all()
    ]
    row: Row = {
        "steps": len(captured),
        "not taken": skipped,
        "weights differ by": float((weights - eager_weights).abs().max()),
        "sums differ by": float(torch.stack(steps).max()),
        "largest": float(eager_weights.abs().max()),
    }
    is_same = row["weights differ by"] <= 1e-6 * row["largest"]
    if [taken for taken, _ in eager] != [taken for taken, _ in captured] or len(skipped) != 1:
        row[FAILED] = "not the step that was to be skipped"
    elif not is_same:
        row[FAILED] = "graphs have other numbers"
    if warnings:
        row[FAILED] = "; ".join(warnings)
    return row


def _halving(bench: Bench, model: str) -> Row:
    """Memory that runs out during the capture halves the micro-batch; graphs go on."""
    sums = []
    for fails in (False, True):
        with switches_kept(bench.device), heard() as warnings:
            change = _out_of_memory_at_capture if fails else None
            job = _job(bench, model, graphs=True, precision="fp32", change_recipe=change)
            sums.append([_read(next(job.ticks).sums) for _ in range(10)])
    untouched, halved = sums
    # The step of the halving itself, before Adam has blown up the last bit.
    at = 3 * (_CAPTURE - 1) // 2
    gap = float(((halved[at] - untouched[at]) / (untouched[at].abs() + _IMAGES)).abs().max())
    limit = allowed("fp32", job.state.G, job.state.D, passes=4).gradient
    row: Row = {"micro-batch": job.state.micro_batch, "sums differ by": gap, "allowed": limit}
    if job.state.micro_batch != _IMAGES // 2 or not gap <= limit:
        row[FAILED] = "halving changed the numbers"
    if warnings:
        row[FAILED] = "; ".join(warnings)
    return row


def _read(sums: dict[str, Tensor]) -> Tensor:
    return torch.stack([sums[name] for name in sorted(sums)]).detach().cpu().double()


def _weights(job: Job) -> Tensor:
    networks = [job.state.G, job.state.D, *([job.state.G_ema] if job.state.G_ema else [])]
    parts = [part for network in networks for part in network.state_dict().values()]
    parts = [part for part in parts if part.is_floating_point()]
    return torch.cat([part.detach().flatten().cpu().double() for part in parts])


def _poisoned(take: TakeSlices) -> TakeSlices:
    calls = 0

    def poisoned(indices: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        images = take(indices)
        return images * float("nan") if calls == _POISONED else images

    return poisoned


def _kept(recipes: list[Recipe]) -> Callable[[Recipe], Recipe]:
    def keep(recipe: Recipe) -> Recipe:
        recipes.append(recipe)
        return recipe

    return keep


def _out_of_memory_at_capture(recipe: Recipe) -> Recipe:
    runs: list[int] = []

    def losses(G: nn.Module, D: nn.Module, batch: MicroBatch, *rest: Any) -> Any:
        found = recipe.d.losses(G, D, batch, *rest)
        if len(batch.z) == _IMAGES:
            runs.append(1)
            if len(runs) == _CAPTURE:
                raise torch.OutOfMemoryError("as if")
        return found

    return replace(recipe, d=replace(recipe.d, losses=losses))
