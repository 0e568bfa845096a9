"""What is to be generated; the pieces that it is cut into."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mrigan.artifacts.generator import MAX_SEED, Which
from mrigan.artifacts.run_tree import JsonObject
from mrigan.errors import SettingsError
from mrigan.jobs.generate.pictures import KINDS, Kind
from mrigan.storage.store import StoreOptions

PIECE_IMAGES = 256
"""Slices after which it is written down that they are there: what a kill costs at most."""

_MOST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``mrigan generate`` was asked for.

    Attributes:
        run: URI of the run.
        out: URI to write to.
        which: Of the run's generators.
        count: Slices.
        first_seed: Of the first slice; each has the next one.
        truncation: Scales the latents, 0 to 1.
        kind: Of files.
        device: As the setting DEVICE.
        options: Of both stores.
    """

    run: str
    out: str
    which: Which
    count: int
    first_seed: int
    truncation: float
    kind: Kind
    device: str
    options: StoreOptions

    def check(self) -> None:
        """Refuse what can't be generated.

        Raises:
            SettingsError: With every problem.
        """
        problems = []
        if not 1 <= self.count <= _MOST:
            problems.append(f"--count: {self.count} is not within 1 to {_MOST:,}")
        if not 0 <= self.first_seed <= MAX_SEED - _MOST:
            problems.append(f"--first-seed: {self.first_seed} is not within 0 to 2^62")
        if not 0.0 <= self.truncation <= 1.0:
            problems.append(f"--truncation: {self.truncation} is not within 0 to 1")
        if self.kind not in KINDS:
            problems.append(f"--format: {self.kind!r} is none of {', '.join(KINDS)}")
        if problems:
            raise SettingsError(*problems)

    @property
    def pieces(self) -> int:
        """How many pieces there are; the last one may be shorter."""
        return -(-self.count // PIECE_IMAGES)

    def seeds(self, piece: int) -> Sequence[int]:
        """The seeds of a piece."""
        first = piece * PIECE_IMAGES
        end = min(first + PIECE_IMAGES, self.count)
        return range(self.first_seed + first, self.first_seed + end)

    def identity(self) -> JsonObject:
        """On what a start that continues another must agree."""
        names = ("which", "count", "first_seed", "truncation", "kind")
        return {name: value for name, value in asdict(self).items() if name in names}
