"""What each rank does in the tests of ranks; started by torchrun, answers into a file per rank."""

import torch

from mrigan.models.sync_batchnorm import synchronise
from mrigan.training.checkpoint import decode, encode, restore, snapshot
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from mrigan.training.state import AdamValues, build_state

SIZE = (33, 47)
SLICES = torch.rand(11, 1, *SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1


def state_of(batch_size):
    return build_state(
        latent_dim=6,
        height=SIZE[0],
        width=SIZE[1],
        adam=AdamValues(2e-3, 1e-3, (0.5, 0.999)),
        batch_size=batch_size,
        seed=0,
        device=torch.device("cpu"),
    )


def steps(
    ranks,
    *,
    count,
    batch_size=2,
    accumulation_steps=4,
    sync=False,
    limit=None,
    start=None,
    plain=(),
):
    """Take ``count`` steps; return the state and what the Ticks said."""
    state = state_of(batch_size)
    if start is not None:
        restore(state, decode(start))
    if sync:
        synchronise(state.G, ranks)
    if limit is not None:

        def check(_module, inputs):
            if len(inputs[0]) > limit:
                raise torch.OutOfMemoryError("full")

        state.G.register_forward_pre_hook(check)
    for network in plain:  # without what couples images or draws
        getattr(state, network).eval()
    plan = Plan(
        slices=len(SLICES), epochs=99, batch_size=batch_size, accumulation_steps=accumulation_steps
    )
    ticks = train(
        state,
        SLICES.__getitem__,
        plan,
        latent_dim=6,
        seed=0,
        autocast=torch.autocast("cpu", enabled=False),
        ranks=ranks,
    )
    said = [next(ticks) for _ in range(count)]
    sums = [{name: float(value) for name, value in tick.sums.items()} for tick in said]
    gradients = [weight.grad for net in (state.G, state.D) for weight in net.parameters()]
    return {
        "state": encode(snapshot(state)),
        "sums": sums,
        "micro_batch": state.micro_batch,
        "gradients": gradients,
    }
