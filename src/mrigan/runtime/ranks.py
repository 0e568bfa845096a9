"""The ranks of a run and what they say to each other.

Every call here is made by all ranks of the group, in the same order, or none: whoever is about to
act (stop, repeat a step, give up) tells the others first and does what they all have agreed on.
"""

import datetime
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist  # noqa: TID251 - the door
from torch import Tensor

from mrigan.environment import ALONE as _ALONE
from mrigan.environment import ProcessRank
from mrigan.errors import MriganError, PeerFailedError, PeerLostError

T = TypeVar("T")
R = TypeVar("R")

# Longer than a publisher waits for a failing store: the others wait for rank 0 meanwhile.
TIMEOUT = datetime.timedelta(minutes=15)

_LOCATION = re.compile(r"^\[[^]]*\] ?")  # of the line in gloo's source


class Peers:
    """Some of the ranks, numbered from 0; on its own, every call returns at once.

    Attributes:
        index: This one's number among them.
        size: How many they are.
    """

    def __init__(
        self,
        members: Sequence[int],
        rank: int,
        group: Any = None,  # noqa: ANN401 - torch gives a group, or a number for none
    ) -> None:
        self._members = members
        self._group = group
        self.index = members.index(rank)
        self.size = len(members)

    def gather(self, numbers: Sequence[int]) -> list[list[int]]:
        """Everyone's ``numbers``, in the order of the ranks; all give equally many."""
        mine = torch.tensor(numbers, dtype=torch.int64)
        if self.size == 1:
            return [mine.tolist()]
        told = [torch.empty_like(mine) for _ in self._members]
        with _watched():
            dist.all_gather(told, mine, group=self._group)
        return [each.tolist() for each in told]

    def spread(self, tensor: Tensor, source: int) -> None:
        """Give everyone what ``source`` holds; CPU tensors of one shape and type."""
        if self.size > 1:
            with _watched():
                dist.broadcast(tensor, self._members[source], group=self._group)

    def spread_bytes(self, data: bytes, source: int) -> bytes:
        """Return the bytes of ``source``; what the others give is not looked at."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        self.spread(length, source)
        is_source = self.index == source
        buffer = (
            torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if is_source and data
            else (torch.empty(int(length), dtype=torch.uint8))
        )
        if len(buffer):
            self.spread(buffer, source)
        return data if is_source else buffer.numpy().tobytes()

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Everyone's bytes, in the order of the ranks."""
        return [self.spread_bytes(data, source) for source in range(self.size)]


class Ranks:
    """This process among the processes of a run.

    Attributes:
        rank: This one's number among all, from 0.
        local_rank: That among the ranks of its machine.
        world: All of them.
        leaders: One rank of each machine; None to those that are none.
    """

    def __init__(self, own: ProcessRank, world: Peers, leaders: Peers | None) -> None:
        self.rank, self.local_rank = own.rank, own.local_rank
        self.world = world
        self.leaders = leaders

    @property
    def is_main(self) -> bool:
        """Whether this one publishes and speaks for all."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> None:
        """Replace ``tensor``, on the device that trains, by its sum over the ranks."""
        if self.world.size > 1:
            with _watched():
                dist.all_reduce(tensor)

    def added_up(self, tensor: Tensor) -> Tensor:
        """Return the sum over the ranks, through which gradients flow back to each."""
        return _AddedUp.apply(tensor, self) if self.world.size > 1 else tensor

    def from_main(self, work: Callable[[], T]) -> T:
        """Do ``work`` on rank 0; every rank gets its result, or its error.

        Args:
            work: Returns None, numbers, text, tensors, or tuples, lists and dicts of those.

        Raises:
            MriganError: Whatever ``work`` raised, on rank 0.
            PeerFailedError: On the others then.
        """
        if self.world.size == 1:
            return work()
        result, data, error = None, b"", None
        if self.is_main:
            try:
                result = work()
                buffer = io.BytesIO()
                torch.save(result, buffer)
                data = buffer.getvalue()
            except Exception as caught:  # noqa: BLE001 - the others must hear of anything
                error = caught
        self.check(error)
        data = self.world.spread_bytes(data, 0)
        if not self.is_main:
            result = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return cast(T, result)

    def on_main(self, make: Callable[[], T]) -> "OnMain[T]":
        """Make something on rank 0 alone; the others get its error, or nothing.

        Raises:
            As ``from_main``.
        """
        made: list[T] = []
        self.from_main(lambda: made.append(make()))
        return OnMain(self, made[0] if made else None)

    def check(self, failed: Exception | None, *, stop: bool = False) -> bool:
        """Agree on what to do next: tell the others what happened here and hear what did there.

        Returns:
            Whether anyone was asked to stop.

        Raises:
            Exception: ``failed``, on the rank that it came from.
            PeerFailedError: On the others, if any has failed.
        """
        status = getattr(failed, "exit_status", MriganError.exit_status) if failed else 0
        told = self.world.gather([status, int(stop)])
        failures = [status for status, _ in told if status]
        if failures:
            # A rank that ends at once resets connections, and what it said may be lost with them.
            with suppress(PeerLostError):
                self.world.gather([status])  # of one number: nothing to send would wait for no one
        if failed is not None:
            raise failed
        if failures:
            raise PeerFailedError(exit_status=failures[0])
        return any(asked for _, asked in told)


class OnMain(Generic[T]):
    """Something that only rank 0 has, such as the run's output; all ranks use it together.

    Attributes:
        value: It, on rank 0; None on the others, so nothing that all ranks do may depend on it.
    """

    def __init__(self, ranks: Ranks, value: T | None) -> None:
        self._ranks = ranks
        self.value = value

    def ask(self, question: Callable[[T], R]) -> R:
        """Ask it on rank 0; every rank gets the answer, as by ``Ranks.from_main``."""
        return self._ranks.from_main(lambda: question(cast(T, self.value)))

    def then(self, make: Callable[[T], R]) -> "OnMain[R]":
        """Make something else of it, as by ``Ranks.on_main``."""
        return self._ranks.on_main(lambda: make(cast(T, self.value)))


ALONE = Ranks(_ALONE, Peers([0], 0), Peers([0], 0))


@contextmanager
def join(own: ProcessRank | None, device: torch.device) -> Iterator[Ranks]:
    """Meet the other ranks and leave them at the end.

    Args:
        own: What torchrun said; None is alone.
        device: What this rank trains on; tensors there are added up by NCCL, the rest by gloo.

    Raises:
        PeerLostError: The others did not come.
    """
    if own is None or own.world_size == 1:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _watched():
        dist.init_process_group(
            backend,
            timeout=TIMEOUT,
            device_id=device if device.type == "cuda" else None,
        )
    world = Peers(range(own.world_size), own.rank)
    local_ranks = [told[0] for told in world.gather([own.local_rank])]
    leading = [rank for rank, local_rank in enumerate(local_ranks) if local_rank == 0]
    with _watched():
        group = dist.new_group(leading, timeout=TIMEOUT, backend="gloo")
    leaders = Peers(leading, own.rank, group) if own.local_rank == 0 else None
    yield Ranks(own, world, leaders)
    # Only here: after a failure the others may be gone, and leaving together would wait for them.
    with suppress(RuntimeError):
        dist.destroy_process_group()


class _AddedUp(torch.autograd.Function):
    """A sum over ranks whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:  # noqa: ANN401 - torch's
        ctx.ranks = ranks
        total = tensor.clone(memory_format=torch.contiguous_format)
        ranks.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        total = gradient.clone(memory_format=torch.contiguous_format)
        ctx.ranks.add_up(total)
        return total, None


@contextmanager
def _watched() -> Iterator[None]:
    """Say in one line what a lost peer looks like from here."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = _LOCATION.sub("", str(error).strip().splitlines()[0]).split(". ")[0]
        raise PeerLostError(
            f"another rank of this run is gone ({reason}); its own log says why; run the same "
            "command again to resume from the newest checkpoint"
        ) from error
