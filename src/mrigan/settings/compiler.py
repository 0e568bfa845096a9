"""Where torch's compiler keeps what it has made, which it reads from the environment."""

import os
from pathlib import Path

_CACHE_NAME = "TORCHINDUCTOR_CACHE_DIR"


def keep_cache(folder: Path) -> None:
    """Let the next start find what this one compiles; a folder that the user chose stays.

    Must run before torch is imported.
    """
    os.environ.setdefault(_CACHE_NAME, str(folder / "inductor"))
