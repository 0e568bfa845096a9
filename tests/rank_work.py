"""What each rank does in the tests of ranks: ``python rank_work.py FOLDER`` as torchrun would."""

import json
import math
import sys
from pathlib import Path

import torch

from mrigan.data.pack import open_pack
from mrigan.data.source import open_source
from mrigan.errors import MriganError, PeerFailedError
from mrigan.jobs.train.initial import begin
from mrigan.models.augment import Policy
from mrigan.models.batchnorm import synchronise
from mrigan.models.r3 import Preset
from mrigan.runtime.ranks import join
from mrigan.settings.fields import Settings
from mrigan.settings.ranks import rank_place
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.checkpoint import decode, encode, restore, snapshot
from mrigan.training.family import DCGAN, r3
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from mrigan.training.schedule import gamma_ramp, r3_schedule
from mrigan.training.state import AdamValues, build_state

SIZE = (33, 47)
SLICES = torch.rand(64, 1, *SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1
FEW = 11  # of them, for windows of 8 and 3
SMALLEST = Preset(widths=(8, 8, 8, 8, 8))


def state_of(micro_batch, preset=None):
    state = build_state(
        latent_dim=6,
        height=SIZE[0],
        width=SIZE[1],
        adam=AdamValues(2e-3, 1e-3, (0.5, 0.999)),
        micro_batch=micro_batch,
        seed=0,
        device=torch.device("cpu"),
        preset=preset,
        with_average=preset is not None,
    )
    for _name, weight in [*state.G.named_parameters(), *state.D.named_parameters()]:
        if weight.ndim > 1 and bool(
            (weight == 0).all()
        ):  # while they are 0, what is before them learns nothing
            torch.nn.init.normal_(weight, 0.0, 0.1)
    return state


def in_float64(state):
    for network, optim in ((state.G, state.g_optim), (state.D, state.d_optim)):
        network.double()
        optim.moments = [[moment.double() for moment in moments] for moments in optim.moments]
    state.G_ema.double()


def family_of(plan):
    """How ``r3`` is trained, with all the augmentation there is."""
    schedule = r3_schedule(total_images=plan.total_images, gamma=gamma_ramp("small", *SIZE))
    policy = Policy(flips=True, rotation_degrees=15.0)
    return r3(schedule, policy=policy, size=SIZE, augment_by="adaptive")


def steps(
    ranks,
    *,
    count,
    batch_size,
    accumulation_steps,
    slices=FEW,
    preset=None,
    sync=False,
    limit=None,
    bad=(),
    start=None,
):
    """Take steps of 8 and 3 images in turn, or so; return where they led.

    Of the steps that begin at ``bad``, some pixels on rank 0 are no numbers.
    """
    state = state_of(batch_size, preset)
    if preset is not None:
        in_float64(state)  # where no rounding moves a leaky ReLU to its other side
        state.augment = AdaptiveP.of(p=0.5, sign_sum=100.0, pairs=245)
    if start is not None:
        restore(state, decode(start))
    if sync:  # dropout draws by micro-batch, and would hide what BatchNorm does
        synchronise(state.G, ranks)
        state.D.eval()
    if limit is not None:

        def check(_module, inputs):
            if len(inputs[0]) > limit:
                raise torch.OutOfMemoryError("full")

        state.G.register_forward_pre_hook(check)
    plan = Plan(
        slices=slices, epochs=99, batch_size=batch_size, accumulation_steps=accumulation_steps
    )

    def take(indices):
        spoilt = ranks.is_main and state.attempt == 0 and state.images_seen in bad
        return SLICES[indices].to(state.G.project.weight) * (math.nan if spoilt else 1.0)

    ticks = train(
        state,
        take,
        plan,
        latent_dim=6,
        seed=0,
        autocast=torch.autocast("cpu", enabled=False),
        family=DCGAN if preset is None else family_of(plan),
        ranks=ranks,
    )
    said = [next(ticks)]
    # Adam turns a gradient's rounding into a step of full size where there is next to none, so
    # what is to be equal is what the first step saw.
    first = [weight.grad.clone() for net in (state.D, state.G) for weight in net.parameters()]
    first_state = encode(snapshot(state))
    said += [next(ticks) for _ in range(count - 1)]
    return {
        "first": torch.cat([gradient.flatten() for gradient in first]),
        "first_state": first_state,
        "state": encode(snapshot(state)),
        "sums": [{name: float(value) for name, value in tick.sums.items()} for tick in said],
        "micro_batch": state.micro_batch,
        "augment_p": float(state.augment.p),
        "verdicts": [[tick.verdict.value, tick.images_seen] for tick in said],
        "gradients": [weight.grad for net in (state.G, state.D) for weight in net.parameters()],
    }


def scenarios(ranks, start):
    """Everything that is compared with one rank."""
    two_by_four = {"batch_size": 2, "accumulation_steps": 4}
    by_rank = {"batch_size": 8 // ranks.world.size, "accumulation_steps": ranks.world.size}
    return {
        "whole": steps(ranks, count=4, **two_by_four),
        "resumed": steps(ranks, count=2, start=start, **two_by_four),
        # Memory runs out on one rank only; all cut smaller.
        "full": steps(
            ranks,
            count=2,
            batch_size=4,
            accumulation_steps=2,
            limit=2 if ranks.is_main else None,
        ),
        "synchronised": steps(ranks, count=2, sync=True, **by_rank),
        "skipped": steps(ranks, count=3, bad=(8,), **two_by_four),
        "rolled back": steps(ranks, count=5, bad=(8, 11, 19), **two_by_four),
        "begun": begun(ranks),
        # Whatever fits: each rank takes its part of the 64 in one pass.
        "r3": steps(
            ranks, count=1, slices=64, preset=SMALLEST, batch_size=64, accumulation_steps=1
        ),
        "r3 full": steps(
            ranks,
            count=2,
            preset=SMALLEST,
            batch_size=8,
            accumulation_steps=1,
            limit=2 if ranks.is_main else None,
        ),
    }


def begun(ranks):
    """Where a run begins that another one's weights are known of on rank 0 only."""
    settings = Settings(model="r3-tiny", init_from="elsewhere", micro_batch=4)
    state = state_of(4, SMALLEST)
    state.micro_batch = 1
    source = encode(snapshot(state))
    state.micro_batch = 4
    with torch.no_grad():
        state.G.project.weight.zero_()
    is_resumed = begin(state, settings, ranks, find_weights=lambda: source)
    fresh = encode(snapshot(state))
    goes_on = begin(state, settings, ranks, find_checkpoint=lambda: source)
    found = {"is_resumed": is_resumed, "goes_on": goes_on, "micro_batch": state.micro_batch}
    return {**found, "weight": state.G.project.weight.detach(), "state": fresh}


def told(ranks):
    """What each rank hears of another's failure."""

    def fail():
        raise MriganError("no output")

    heard = []
    for attempt in (lambda: ranks.from_main(fail), lambda: ranks.check(_of_rank(ranks, 1))):
        try:
            attempt()
        except PeerFailedError as error:
            heard.append(["peer", error.exit_status])
        except MriganError as error:
            heard.append([str(error), error.exit_status])
    stops = [ranks.check(None, stop=ranks.place.rank == 1), ranks.check(None)]
    return {"heard": heard, "stops": stops, "from_main": ranks.from_main(lambda: b"word").decode()}


def _of_rank(ranks, rank):
    if ranks.place.rank != rank:
        return None
    error = MriganError("a follower's own")
    error.exit_status = 5
    return error


class Counted:
    """A source that notes what it was asked to read."""

    def __init__(self, source):
        self._source = source
        self.reads = []
        self.uri, self.identity, self.recipe = source.uri, source.identity, source.recipe

    def list(self):
        return self._source.list()

    def read(self, info, height, width, fit):
        self.reads.append(info.key)
        return self._source.read(info, height, width, fit)


def pulled(ranks, folder, caches):
    """Pull the slices of ``folder`` into this rank's cache; say what was read and what came."""
    source = Counted(open_source(str(folder)))
    pack = open_pack(
        source,
        height=32,
        width=40,
        cache_dir=caches[ranks.place.rank],
        max_refused_percent=50,
        ranks=ranks,
    )
    return {
        "reads": sorted(source.reads),
        "fetched": pack.fetched,
        "fingerprint": pack.fingerprint,
        "pixels": pack.images.tobytes().hex(),
    }


def main(folder):
    torch.set_num_threads(1)
    with join(rank_place(), torch.device("cpu")) as ranks:
        rank = ranks.place.rank
        if not folder.exists():
            sys.stderr.write("met\n")
            sys.stderr.flush()
            while True:
                ranks.check(None)
        out = {"told": told(ranks)}
        caches = [folder / f"cache-{each}" for each in range(ranks.world.size)]
        out["cold"] = pulled(ranks, folder / "slices", caches)
        # One machine starts again with an empty disk, and there is a new slice.
        new = [folder / "other", *caches[1:]]
        ranks.from_main(lambda: (folder / "late.png").rename(folder / "slices/late.png") and b"")
        out["half warm"] = pulled(ranks, folder / "slices", new)
        out["warm"] = pulled(ranks, folder / "slices", new)
        torch.save(scenarios(ranks, (folder / "start.pt").read_bytes()), folder / f"{rank}.pt")
        (folder / f"{rank}.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
