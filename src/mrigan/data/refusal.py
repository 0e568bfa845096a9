"""Why an object is not a slice. The job refuses the object and goes on."""


class UnusableSliceError(Exception):
    """One object can't be trained on; ``reason`` goes into the manifest and holds no pixel data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
