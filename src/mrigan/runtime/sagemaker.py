"""The facts of SageMaker's container contract; the only code that knows its tree of files."""

from pathlib import Path

from mrigan.settings.sources import ml_root


def hyperparameters_path() -> Path:
    """The platform's settings file; absent elsewhere."""
    return ml_root() / "input" / "config" / "hyperparameters.json"


def is_sagemaker() -> bool:
    """Whether the platform started this process; its local mode counts."""
    return (ml_root() / "input" / "config" / "resourceconfig.json").is_file()
