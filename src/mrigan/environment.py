"""Whatever else than settings is read from the environment."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Where this user's caches are, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mrigan"
