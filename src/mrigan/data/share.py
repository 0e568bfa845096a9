"""A pull shared by machines: each reads its part of the objects, then all give each other the rows.

So every object is fetched and decoded once, however many machines train, and each machine's cache
holds all of them afterwards. One rank of each machine does this; the others of its machine wait
and then read that cache.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

import torch

from mrigan.data.draft import Draft
from mrigan.data.pull import Pulled, PullInterrupted, Wanted
from mrigan.errors import StorageError
from mrigan.runtime.ranks import Peers, Ranks
from mrigan.storage.keys import ObjectInfo

_CHUNK_BYTES = 64 * 2**20
_PAUSE_SECONDS = 0.1

OnProgress = Callable[[int, int], None]


def agreed_listing(ranks: Ranks, listed: Callable[[], Sequence[ObjectInfo]]) -> list[ObjectInfo]:
    """Rank 0's listing, on every rank: an object may come or go between two of them."""

    def encoded() -> bytes:
        rows = [(i.key, i.size_bytes, i.etag, i.modified.isoformat()) for i in listed()]
        return json.dumps(rows).encode()

    if ranks.world.size == 1:
        return list(listed())
    return [
        ObjectInfo(key, size_bytes, etag, datetime.fromisoformat(modified))
        for key, size_bytes, etag, modified in json.loads(ranks.from_main(encoded))
    ]


class Watch:
    """Keeps the ranks together while some of them pull: all go on, or none does.

    Within the ``with`` each rank ticks or is at its end; leaving it waits for the others, and an
    exception that leaves it ends them, too.

    Args:
        ranks: Every one of them enters.
        on_progress: Told of the objects read, and to read, over all machines.
        should_stop: Whether this rank was asked to stop.
    """

    def __init__(
        self,
        ranks: Ranks,
        on_progress: OnProgress | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._ranks = ranks
        self._on_progress = on_progress
        self._should_stop = should_stop or (lambda: False)
        self._counts = (0, 0)
        self._is_over = False

    def tick(self, done: int, total: int) -> None:
        """Say how far this rank is.

        Raises:
            PullInterrupted: One of the ranks was asked to stop.
            PeerFailedError: One of them has failed.
        """
        self._counts = (done, total)
        self._agree(is_busy=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_over:  # what leaves here is what all have agreed on
            return
        if isinstance(error, Exception):
            self._agree(is_busy=True, failed=error)
        while error is None and self._agree(is_busy=False):
            time.sleep(_PAUSE_SECONDS)

    def _agree(self, *, is_busy: bool, failed: Exception | None = None) -> bool:
        """Exchange how things stand; return whether anyone is busy."""
        stop = self._should_stop() or isinstance(failed, PullInterrupted)
        self._is_over = True
        told = self._ranks.world.gather([int(is_busy), *self._counts])
        if self._ranks.check(None if stop else failed, stop=stop):
            raise PullInterrupted("stopped while the slices were being fetched")
        self._is_over = False
        if self._on_progress is not None:
            self._on_progress(sum(each[1] for each in told), sum(each[2] for each in told))
        return any(each[0] for each in told)


class Shares:
    """Who reads what: known to each machine from what all of them lack.

    Args:
        lacking: Of each machine, the numbers of the objects it has no row of.
    """

    def __init__(self, lacking: Sequence[Sequence[int]], own: int) -> None:
        self._lacking = [set(each) for each in lacking]
        self._own = own
        machines = range(len(lacking))
        self._givers: dict[int, int] = {}
        unread = 0
        for number in sorted(set().union(*self._lacking)):
            havers = [machine for machine in machines if number not in self._lacking[machine]]
            self._givers[number] = havers[0] if havers else unread % len(lacking)
            unread += not havers

    def to_read(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Of what this machine wants, what falls to it."""
        return [each for each in wanted if self._givers[each.number] == self._own]

    def given_by(self, machine: int) -> list[int]:
        """The objects that ``machine`` gives to those that lack them."""
        return [
            number
            for number, giver in self._givers.items()
            if giver == machine
            and any(
                number in lacking for taker, lacking in enumerate(self._lacking) if taker != machine
            )
        ]

    def exchange(self, draft: Draft, row_bytes: int, leaders: Peers) -> None:
        """Fill ``draft`` with what the other machines have read, and give them what this one has.

        Raises:
            StorageError: A row did not arrive as it was sent.
        """
        for machine in range(leaders.size):
            numbers = self.given_by(machine)
            is_giver = machine == self._own
            facts = draft.facts(numbers) if is_giver else []
            facts = [
                tuple(each) for each in json.loads(leaders.spread_bytes(_json(facts), machine))
            ]
            given = [Pulled(number, *fact) for number, fact in zip(numbers, facts, strict=True)]
            takes = self._lacking[self._own] if not is_giver else set()
            rows = [each for each in given if not each.reason]
            _send_rows(draft, rows, takes, row_bytes, leaders, machine)
            draft.pulled.extend(each for each in given if each.number in takes)


def _send_rows(
    draft: Draft,
    rows: Sequence[Pulled],
    takes: set[int],
    row_bytes: int,
    leaders: Peers,
    machine: int,
) -> None:
    """Pass the pixels of ``rows`` from ``machine`` to the others, some at a time."""
    descriptor = draft.rows.fileno()
    at_once = max(1, _CHUNK_BYTES // row_bytes)
    for first in range(0, len(rows), at_once):
        part = rows[first : first + at_once]
        buffer = torch.empty(len(part), row_bytes, dtype=torch.uint8)
        if leaders.index == machine:
            for row, each in zip(buffer.numpy(), part, strict=True):
                row[:] = memoryview(os.pread(descriptor, row_bytes, each.number * row_bytes))
        leaders.spread(buffer, machine)
        for row, each in zip(buffer.numpy(), part, strict=True):
            if each.number not in takes:
                continue
            if hashlib.sha256(row).hexdigest() != each.sha256:
                raise StorageError(
                    "a slice did not arrive from another machine as it was sent; run the same "
                    "command again"
                )
            os.pwrite(descriptor, row, each.number * row_bytes)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
