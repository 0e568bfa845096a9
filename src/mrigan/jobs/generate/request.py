"""What is to be generated; the pieces that it is cut into."""

from collections.abc import Sequence
from dataclasses import dataclass

from mrigan.artifacts.generator import MAX_SEED
from mrigan.artifacts.run_tree import JsonObject
from mrigan.errors import SettingsError
from mrigan.jobs.drawing import Drawing
from mrigan.jobs.generate.kinds import KINDS, Kind

PIECE_IMAGES = 256
"""Slices after which it is written down that they are there: what a kill costs at most."""

_MOST = 10_000_000
_MOST_PROCESSES = 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``mrigan generate`` was asked for.

    Attributes:
        drawing: With which generator, and how.
        out: URI to write to.
        count: Slices.
        first_seed: Of the first slice; each has the next one.
        kind: Of files.
        processes: That draw; None for one on each GPU, or one where there is none.
        accepts_flag: Whether to draw although the privacy check has flagged the generator.
    """

    drawing: Drawing
    out: str
    count: int
    first_seed: int = 0
    kind: Kind = "png"
    processes: int | None = None
    accepts_flag: bool = False

    def check(self) -> None:
        """Refuse what can't be generated.

        Raises:
            SettingsError: With every problem.
        """
        problems = self.drawing.problems()
        if not 1 <= self.count <= _MOST:
            problems.append(f"--count: {self.count} is not within 1 to {_MOST:,}")
        if not 0 <= self.first_seed <= MAX_SEED - _MOST:
            problems.append(f"--first-seed: {self.first_seed} is not within 0 to 2^62")
        if self.kind not in KINDS:
            problems.append(f"--format: {self.kind!r} is none of {', '.join(KINDS)}")
        if self.processes is not None and not 1 <= self.processes <= _MOST_PROCESSES:
            problems.append(f"--processes: {self.processes} is not within 1 to {_MOST_PROCESSES}")
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
        return {
            "which": self.drawing.which,
            "count": self.count,
            "first_seed": self.first_seed,
            "truncation": self.drawing.truncation,
            "kind": self.kind,
        }
