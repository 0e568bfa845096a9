"""All that is read from the environment, or set in it, besides the settings (``settings``).

Nothing here imports torch: its allocators and its compiler read their variables only once.
"""

import re
from os import environ  # noqa: TID251 - the door
from pathlib import Path
from typing import NamedTuple

from mrigan.errors import SettingsError

# -- torch's allocators: https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management

ALLOCATOR_DEFAULT = "expandable_segments:True"
# torch reads the first of these that is set: the image's own would hide a user's newer name.
_CUDA_ALLOCATOR, _ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def configure_allocators() -> str:
    """Set our defaults unless the user chose, and return the string torch will read for CUDA.

    ``expandable_segments`` lets a freed block of one size serve another, which is what
    fragmentation takes away. The user's own string is never touched: each parse resets the options
    it leaves out. On a CPU, activations of hundreds of megabytes are paged in anew each step unless
    they lie in huge pages (docs/decisions.md). Must run before torch is imported.
    """
    chosen = environ.get(_CUDA_ALLOCATOR, ALLOCATOR_DEFAULT)
    generic = environ.get(_ALLOCATOR, "")
    if generic and chosen == ALLOCATOR_DEFAULT:
        chosen = generic
    environ[_CUDA_ALLOCATOR] = chosen
    environ.setdefault(_HUGE_PAGES, "1")
    return chosen


def keep_compiled(folder: Path) -> None:
    """Let the next start find what torch's compiler makes; a folder that the user chose stays.

    Must run before torch is imported.
    """
    environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))


# -- torchrun: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables


class ProcessRank(NamedTuple):
    """A process among the processes of a run."""

    rank: int
    local_rank: int  # on its machine
    world_size: int


_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD", re.IGNORECASE)
ALONE = ProcessRank(rank=0, local_rank=0, world_size=1)


def process_rank() -> ProcessRank | None:
    """This process's rank, or None where nothing like torchrun has started it.

    Raises:
        SettingsError: RANK, LOCAL_RANK and WORLD_SIZE make no sense together.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = [environ.get(name) for name in names]
    if None in given or "MASTER_ADDR" not in environ:
        return None
    try:
        rank, local_rank, world_size = (int(value or "") for value in given)
        if not (0 <= local_rank <= rank < world_size):
            raise ValueError
    except ValueError:
        said = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
        raise SettingsError(f"{said}: no rank of a run; start mrigan with torchrun") from None
    return ProcessRank(rank, local_rank, world_size)


def worker_folder() -> Path | None:
    """The folder that torchrun has given this worker alone; None to others."""
    path = environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(path).parent if path else None


def variable_names() -> list[str]:
    """The names of all variables, for whoever looks for misspelt ones."""
    return list(environ)


def secrets() -> tuple[str, ...]:
    """The values of variables that hold credentials, which nothing may show."""
    return tuple(value for name, value in environ.items() if value and _SECRET.search(name))


def set_default(name: str, value: str) -> None:
    """Set a variable for this process and those it starts, unless the user has."""
    environ.setdefault(name, value)


# -- SageMaker

ML_ROOT = "MRIGAN_ML_ROOT"


def ml_root() -> Path:
    """The root of SageMaker's tree of files: ``/opt/ml``, or where ``MRIGAN_ML_ROOT`` moves it."""
    return Path(environ.get(ML_ROOT) or "/opt/ml").absolute()


def training_job_arn() -> str:
    """Which SageMaker job this process is of; "" outside, and in the SDKs' local mode."""
    return environ.get("TRAINING_JOB_ARN", "")


def skip_role_simulation() -> None:
    """Keep the SDK's ModelTrainer from simulating the role's policy, unless the user wants it to.

    It refuses a role that has no more than a job needs: https://github.com/aws/sagemaker-python-sdk/issues/6019
    """
    environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")


# -- compose


def fetch_command() -> str:
    """The command by which a person brings the run here, where compose knows it; "" elsewhere."""
    return environ.get("FETCH_COMMAND", "")


# -- experiment trackers


def mlflow_place() -> str:
    """Where MLflow's server is; "" where nothing says so."""
    return environ.get("MLFLOW_TRACKING_URI", "")


def mlflow_experiment() -> str:
    """The experiment of a run in MLflow."""
    return environ.get("MLFLOW_EXPERIMENT_NAME") or "mrigan"


def wandb_mode() -> str:
    """``online``, ``offline`` or another mode of Weights & Biases."""
    return environ.get("WANDB_MODE") or "online"


def wandb_project() -> str:
    """The project of a run in Weights & Biases."""
    return environ.get("WANDB_PROJECT") or "mrigan"


# -- this user


def allows_colours() -> bool:
    """Whether a terminal can show colours and its user wants them: https://no-color.org."""
    return not environ.get("NO_COLOR") and environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def default_cache_dir() -> Path:
    """Where this user's caches are, by the XDG base directory specification."""
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mrigan"
