"""Why an object is not a slice. The job refuses the object and goes on."""

from mrigan.redaction import printable

_LONGEST = 150  # a damaged file's own words may be thousands of characters


class UnusableSliceError(Exception):
    """One object can't be trained on; ``reason`` goes into the manifest and holds no pixel data."""

    def __init__(self, reason: str) -> None:
        reason = printable(" ".join(reason.split()))
        shown = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
        super().__init__(shown)
        self.reason = shown
