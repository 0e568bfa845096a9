"""What each rank does in the tests of ranks: ``python rank_work.py FOLDER`` as torchrun would."""

import json
import math
import sys
import time
from pathlib import Path

import torch

from mrigan.artifacts.checkpoints import publish_checkpoint
from mrigan.data.lockstep import lockstep
from mrigan.data.pack import PullInterrupted, open_pack
from mrigan.data.source import open_source
from mrigan.environment import process_rank
from mrigan.errors import MriganError, PeerFailedError
from mrigan.jobs.train.prepare import FoundRun
from mrigan.jobs.train.resume import adopt_initial, resume
from mrigan.models.augment import Policy
from mrigan.models.batchnorm import synchronise
from mrigan.models.dcgan import family as dcgan_family
from mrigan.models.family import Augmentation
from mrigan.models.r3 import family as r3_family
from mrigan.models.r3.schedule import gammas, r3_schedule
from mrigan.runtime.ranks import join
from mrigan.settings.fields import Settings
from mrigan.storage.store import open_store
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.checkpoint import REVISION, decode, encode, restore, snapshot
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from tiny import SIZE, SMALLEST, slices, tiny_state

SLICES = slices(64)
FEW = 11  # of them, for steps of 8 and 3 images
PLAIN = {"word": "é", "tensor": 1, "rows": [1, None, (2.5, "é", False)]}


def state_of(micro_batch, preset=None):
    state = tiny_state(preset, micro_batch=micro_batch)
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


def r3_recipe(plan):
    """How ``r3`` is trained, with all the augmentation there is."""
    schedule = r3_schedule(total_images=plan.total_images, gamma=gammas(*SIZE)["small"])
    policy = Policy(flips=True, rotation_degrees=15.0)
    return r3_family.recipe(schedule, Augmentation(policy, SIZE, "adaptive"))


def steps(
    ranks,
    *,
    count,
    batch_size,
    accumulation_steps,
    reals=FEW,
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
        slices=reals,
        epochs=99,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
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
        recipe=dcgan_family.recipe(beta2=0.999) if preset is None else r3_recipe(plan),
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


def scenarios(ranks, start, folder):
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
        "begun": begun(ranks, folder),
        # Whatever fits: each rank takes its part of the 64 in one pass.
        "r3": steps(ranks, count=1, reals=64, preset=SMALLEST, batch_size=64, accumulation_steps=1),
        "r3 full": steps(
            ranks,
            count=2,
            preset=SMALLEST,
            batch_size=8,
            accumulation_steps=1,
            limit=2 if ranks.is_main else None,
        ),
    }


def begun(ranks, folder):
    """Where a run begins whose store, and another run's, only rank 0 reads."""
    other, own = (str(folder / f"{name}-{ranks.world.size}") for name in ("other", "own"))
    settings = Settings(model="r3-tiny", init_from=other, output_uri=own, micro_batch=4)
    facts = {"revision": REVISION, "settings": settings.model_dump(mode="json")}
    state = state_of(4, SMALLEST)
    state.micro_batch = 1
    source = encode(snapshot(state))
    state.micro_batch = 4
    with torch.no_grad():
        state.G.project.weight.zero_()

    def find():
        publish_checkpoint(open_store(other), 7, source, facts)
        store = open_store(own)
        return FoundRun(settings=settings, store=store, facts=None, status=None, started="")

    found = ranks.on_main(find)
    initial = adopt_initial(state, found, settings)
    fresh = encode(snapshot(state))
    first = resume(state, found, initial, settings)
    found.then(lambda run: publish_checkpoint(run.store, 3, source, facts))
    second = resume(state, found, initial, settings)
    return {
        "of rank 0": [
            initial.value and initial.value.facts.images_seen,
            *(point.value and point.value.images_seen for point in (first, second)),
        ],
        "micro_batch": state.micro_batch,
        "weight": state.G.project.weight.detach(),
        "state": fresh,
    }


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
    ended_too_early = _outlives(ranks)
    stops = [ranks.check(None, stop=ranks.rank == 1), ranks.check(None)]
    return {
        "heard": heard,
        "ended too early": ended_too_early,
        "stops": stops,
        "from_main": ranks.from_main(lambda: PLAIN if ranks.is_main else None) == PLAIN,
    }


def _outlives(ranks):
    """Whether rank 0 leaves a call in which it fails before the last rank has heard of it."""
    gather, calls = ranks.world.gather, []

    def late(numbers):
        heard = gather(numbers)
        calls.append(time.monotonic())
        if ranks.rank == ranks.world.size - 1 and len(calls) == 1:
            time.sleep(0.3)
            calls[0] = time.monotonic()
        return heard

    ranks.world.gather = late
    try:
        ranks.check(_of_rank(ranks, 0))
    except MriganError:
        left = time.monotonic()
    finally:
        del ranks.world.gather
    told = ranks.world.gather([int(left * 1000), int(calls[0] * 1000)])
    return told[0][0] < told[-1][1]


def _of_rank(ranks, rank):
    if ranks.rank != rank:
        return None
    error = MriganError("a follower's own")
    error.exit_status = 5
    return error


def in_lockstep(ranks, *, failing=None, stopping=None):
    """What each rank hears while rank 1 alone reads and a rank fails or is stopped."""
    rank, seen = ranks.rank, []
    try:
        with lockstep(ranks, lambda *n: seen.append(n), lambda: rank == stopping) as tick:
            if rank == 1:
                tick(3, 5)
                if error := _of_rank(ranks, failing):
                    raise error
    except PeerFailedError as error:
        return ["peer", error.exit_status, seen]
    except MriganError as error:
        return [str(error), error.exit_status, seen]
    except PullInterrupted as stopped:
        return [str(stopped), 0, seen]


class Counted:
    """A source that notes what it was asked to read."""

    def __init__(self, source):
        self._source = source
        self.reads = []
        self.uri, self.identity, self.recipe = source.uri, source.identity, source.recipe

    def list(self):
        return self._source.list()

    def read(self, info, height, width, fit, series=None):
        self.reads.append(info.key)
        return self._source.read(info, height, width, fit, series)


def pulled(ranks, folder, caches):
    """Pull the slices of ``folder`` into this rank's cache; say what was read and what came."""
    source = Counted(open_source(str(folder)))
    pack = open_pack(
        source,
        height=32,
        width=40,
        cache_dir=caches[ranks.rank],
        max_refused_percent=50,
        ranks=ranks,
    )
    return {
        "reads": sorted(source.reads),
        "fetched": pack.fetched,
        "fingerprint": pack.fingerprint,
        "pixels": pack.images[pack.rows].tobytes().hex(),
    }


def main(folder):
    torch.set_num_threads(1)
    with join(process_rank(), torch.device("cpu")) as ranks:
        rank = ranks.rank
        if not folder.exists():
            sys.stderr.write("met\n")
            sys.stderr.flush()
            while True:
                ranks.check(None)
        out = {
            "told": told(ranks),
            "lockstep": [in_lockstep(ranks, failing=1), in_lockstep(ranks, stopping=0)],
        }
        caches = [folder / f"cache-{each}" for each in range(ranks.world.size)]
        out["cold"] = pulled(ranks, folder / "slices", caches)
        # One machine starts again with an empty disk, and there is a new slice.
        new = [folder / "other", *caches[1:]]
        ranks.from_main(lambda: (folder / "late.png").rename(folder / "slices/late.png") and None)
        out["half warm"] = pulled(ranks, folder / "slices", new)
        out["warm"] = pulled(ranks, folder / "slices", new)
        torch.save(
            scenarios(ranks, (folder / "start.pt").read_bytes(), folder), folder / f"{rank}.pt"
        )
        (folder / f"{rank}.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
