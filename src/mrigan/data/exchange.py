"""Slices read once for several machines: who reads which, and how the others get their rows.

Every object is fetched and decoded by one machine, and afterwards each machine's cache holds all
of them. One rank of each machine takes part; its other ranks read that cache.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime

import torch

from mrigan.data.pull import Pulled, PullInterrupted, Wanted
from mrigan.data.snapshot_builder import SnapshotBuilder
from mrigan.errors import StorageError
from mrigan.runtime.beside import do_beside
from mrigan.runtime.ranks import Peers, Ranks
from mrigan.runtime.signals import Stopped
from mrigan.storage.keys import ObjectInfo

_CHUNK_BYTES = 64 * 2**20


def agreed_listing(
    ranks: Ranks, listed: Callable[[], Sequence[ObjectInfo]], should_stop: Callable[[], bool]
) -> list[ObjectInfo]:
    """Return rank 0's listing on every rank: objects may come or go between two listings.

    Raises:
        PullInterrupted: ``should_stop`` said so; a listing under way goes on by itself.
    """

    def encoded() -> bytes:
        try:
            infos = _unless_stopped(listed, should_stop)
        except PullInterrupted:
            return b""
        rows = [(i.key, i.size_bytes, i.etag, i.modified.isoformat()) for i in infos]
        return json.dumps(rows).encode()

    if ranks.world.size == 1:
        return list(_unless_stopped(listed, should_stop))
    told = ranks.from_main(encoded)
    if not told:
        raise PullInterrupted
    return [
        ObjectInfo(key, size_bytes, etag, datetime.fromisoformat(modified))
        for key, size_bytes, etag, modified in json.loads(told)
    ]


def _unless_stopped(
    listed: Callable[[], Sequence[ObjectInfo]], should_stop: Callable[[], bool]
) -> Sequence[ObjectInfo]:
    """List, but leave a listing that is stopped: a million objects take minutes."""
    try:
        return do_beside(listed, should_stop, "listing")
    except Stopped:
        raise PullInterrupted from None


class Assignment:
    """Which machine reads, or already holds, an object and sends it to those that lack it.

    Args:
        lacking: For each machine, the numbers of the objects that it has no row of.
        own: This machine's index.
    """

    def __init__(self, lacking: Sequence[Sequence[int]], own: int) -> None:
        self._lacking = [set(numbers) for numbers in lacking]
        self._own = own
        self._senders: dict[int, int] = {}
        unread = 0
        for number in sorted(set().union(*self._lacking)):
            holders = [i for i, numbers in enumerate(self._lacking) if number not in numbers]
            self._senders[number] = holders[0] if holders else unread % len(lacking)
            unread += not holders

    def to_read(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Return the part of ``wanted`` that no other machine reads or sends."""
        own = self._own
        return [each for each in wanted if self._senders.get(each.number, own) == own]

    def sent_by(self, machine: int) -> list[int]:
        """Return the numbers of the objects that ``machine`` sends."""
        others = [numbers for i, numbers in enumerate(self._lacking) if i != machine]
        return [
            number
            for number, sender in self._senders.items()
            if sender == machine and any(number in numbers for numbers in others)
        ]

    def exchange(self, builder: SnapshotBuilder, machines: Peers) -> None:
        """Send the other machines what they lack of ``builder``, and add what they send.

        Raises:
            StorageError: A row arrived damaged.
        """
        for machine in range(machines.size):
            is_sender = machine == self._own
            results = builder.results(self.sent_by(machine)) if is_sender else []
            told = machines.spread_bytes(json.dumps(results).encode(), machine)
            sent = [Pulled(*each) for each in json.loads(told)]
            taken = set() if is_sender else self._lacking[self._own]
            _exchange_rows(
                builder, [each for each in sent if each.sha256], taken, machines, machine
            )
            builder.pulled.extend(each for each in sent if each.number in taken)


def _exchange_rows(
    builder: SnapshotBuilder,
    sent: Sequence[Pulled],
    taken: set[int],
    machines: Peers,
    sender: int,
) -> None:
    """Send the rows ``sent`` from one machine to all, in chunks; keep those in ``taken``."""
    descriptor, row_bytes = builder.rows.fileno(), builder.row_bytes
    at_once = max(1, _CHUNK_BYTES // row_bytes)
    for first in range(0, len(sent), at_once):
        chunk = sent[first : first + at_once]
        buffer = torch.empty(len(chunk), row_bytes, dtype=torch.uint8)
        if machines.index == sender:
            for row, each in zip(buffer.numpy(), chunk, strict=True):
                row[:] = memoryview(os.pread(descriptor, row_bytes, each.number * row_bytes))
        machines.spread(buffer, sender)
        for row, each in zip(buffer.numpy(), chunk, strict=True):
            if each.number not in taken:
                continue
            if hashlib.sha256(row).hexdigest() != each.sha256:
                raise StorageError(
                    "a slice arrived damaged from another machine; run the same command again"
                )
            os.pwrite(descriptor, row, each.number * row_bytes)
