"""The errors a user can meet, and the exit status each one ends the job with.

    MriganError                 1
    ├── SettingsError           2   a setting, or a set of settings that do not go together
    ├── DivergedError           3   training left the finite numbers
    ├── DataError               4   nothing usable to train on
    ├── StorageError            5   a bucket or folder did not do what was asked
    │   ├── AlreadyExistsError  5   a create-only write found the key taken
    │   ├── DamagedError        5   an object's bytes can't be verified
    │   ├── UnreadableError     5   a run's file is not what mrigan writes there
    │   └── LeaseError          5   another job writes this run
    ├── CheckpointError         1   a checkpoint can't be believed; never leaves the reading of one
    ├── UncheckedError          0   what a check could not look at; ends nothing
    ├── PeerLostError           1   another rank of the run is gone
    └── PeerFailedError             another rank has failed, and has its exit status

Every message is one line: what, where, what to do. ``cli`` turns it into a status; nothing else
catches these broadly.
"""


class MriganError(Exception):
    """A failure with one line for the user; base of all of ours."""

    exit_status = 1


class SettingsError(MriganError):
    """One or more settings are wrong; ``problems`` holds a line for each."""

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class DivergedError(MriganError):
    """A loss or a weight is no longer a finite number."""

    exit_status = 3


class DataError(MriganError):
    """The slices can't be trained on."""

    exit_status = 4


class StorageError(MriganError):
    """A store refused or failed; names the key and the remedy.

    Attributes:
        is_passing: Whether waiting may mend it: the store is away or busy, rather than refusing.
    """

    exit_status = 5

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.is_passing = is_passing


class AlreadyExistsError(StorageError):
    """A create-only write found an object under its key; nothing was changed."""


class DamagedError(StorageError):
    """An object's bytes can't be verified, however often they are read."""


class CheckpointError(MriganError):
    """A checkpoint can't be believed; an older one may be."""


class UnreadableError(StorageError):
    """A run's file is not what mrigan writes there."""


class LeaseError(StorageError):
    """Another job writes the run; names it."""


class UncheckedError(MriganError):
    """Something could not be looked at, which says nothing about it."""


class PeerLostError(MriganError):
    """Another process of the run ended or can't be reached; it could not say why."""


class PeerFailedError(MriganError):
    """Another process of the run has failed and said why; this one ends with the same status."""

    def __init__(self, *, exit_status: int) -> None:
        super().__init__("another rank of this run has failed; its line says why")
        self.exit_status = exit_status
