"""What the ranks beyond the first do: the same pull and the same steps, and nothing written.

They meet rank 0 at each point where it decides something: whether the run is complete, whether the
output takes it, which checkpoint it goes on from, and after each step whether to go on.
"""

import logging
from collections.abc import Iterator
from enum import Enum

from mrigan.data.bank import open_bank
from mrigan.data.pack import Pack, PullInterrupted
from mrigan.jobs.model import family_of, fresh_state, known
from mrigan.jobs.train.initial import begin
from mrigan.jobs.train.prepare import plan_of, pull
from mrigan.runtime.device import Hardware, free_bytes, keep_freed_memory
from mrigan.runtime.ranks import Ranks
from mrigan.runtime.signals import StopRequest
from mrigan.settings.fields import Settings
from mrigan.training.loop import Tick
from mrigan.training.loop import train as training_loop
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

COMPLETE = b"complete"  # rank 0's word that nothing is left to do


# What the first step takes longer for, by whether networks are compiled.
_WAIT = {
    False: "cuDNN chooses its algorithms",
    True: "the networks are compiled, cuDNN chooses its algorithms",
}


class Outcome(Enum):
    """How a training job that did not fail ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"


def follow(settings: Settings, hardware: Hardware, ranks: Ranks, stop: StopRequest) -> Outcome:
    """Take part in the run that rank 0 leads.

    Args:
        settings: With defaults filled in.
        hardware: Of this rank.
        ranks: This is not the first of them.
        stop: This rank's; heard by all.

    Raises:
        PeerFailedError: Another rank has failed.
        PeerLostError: Another rank is gone.
    """
    if ranks.from_main(_nothing) == COMPLETE:
        return Outcome.COMPLETED
    try:
        pack = pull(settings, ranks, should_stop=lambda: bool(stop))
    except PullInterrupted:
        return Outcome.INTERRUPTED
    ranks.from_main(_nothing)  # the output is claimed
    keep_freed_memory(hardware.device)
    state = fresh_state(settings, hardware, ranks)
    begin(state, settings, ranks)
    for _ in open_training(settings, hardware, pack, state, ranks):
        if ranks.check(None, stop=bool(stop)):
            break
    is_done = state.images_seen >= plan_of(settings, pack).total_images
    return Outcome.COMPLETED if is_done else Outcome.INTERRUPTED


def open_training(
    settings: Settings, hardware: Hardware, pack: Pack, state: TrainingState, ranks: Ranks
) -> Iterator[Tick]:
    """The loop over ``pack``, for any rank; says when memory made it cut smaller."""
    device = hardware.device
    bank = open_bank(pack.images, device, free_bytes=free_bytes(device), rows=pack.training)
    plan = plan_of(settings, pack)
    family = family_of(settings, plan)
    micro_batch = state.micro_batch
    if ranks.is_main and (device.type == "cuda" or settings.compile):
        log.info("preparing_first_step", extra={"wait": _WAIT[settings.compile]})
    for tick in training_loop(
        state,
        bank.take,
        plan,
        latent_dim=known(settings.latent_dim),
        seed=settings.seed,
        autocast=hardware.autocast(),
        family=family,
        ranks=ranks,
        graphs=settings.cuda_graphs,
    ):
        if tick.micro_batch < micro_batch and ranks.is_main:
            is_exact = family.is_separable or tick.micro_batch >= settings.batch_size
            _warn_of_halving(tick.micro_batch, exact=is_exact)
        micro_batch = tick.micro_batch
        yield tick


def _warn_of_halving(micro_batch: int, *, exact: bool) -> None:
    effect = "nothing else changes" if exact else "BatchNorm sees the smaller part from now on"
    consequence = f"the step was repeated in smaller parts; images per step stay, {effect}"
    log.warning("out_of_memory", extra={"micro_batch": micro_batch, "consequence": consequence})


def _nothing() -> bytes:
    return b""
