"""The allocators' settings, which torch reads from the environment before its first use.

``expandable_segments`` lets a freed block of one size serve another, which is what fragmentation
takes away. The user's own string is never touched: each parse resets the options it leaves out.
https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management

On a CPU, activations of hundreds of megabytes are paged in anew each step unless they lie in huge
pages: measured in docs/decisions.md.
"""

import os

DEFAULT = "expandable_segments:True"
# torch reads the first of these that is set: the image's own would hide a user's newer name.
_CUDA_NAME = "PYTORCH_CUDA_ALLOC_CONF"
_GENERIC_NAME = "PYTORCH_ALLOC_CONF"
_HUGE_PAGES_NAME = "THP_MEM_ALLOC_ENABLE"


def apply_default() -> str:
    """Set our default unless the user chose, and return the string torch will read for CUDA.

    Must run before torch is imported.
    """
    chosen = os.environ.get(_CUDA_NAME, DEFAULT)
    generic = os.environ.get(_GENERIC_NAME, "")
    if generic and chosen == DEFAULT:
        chosen = generic
    os.environ[_CUDA_NAME] = chosen
    os.environ.setdefault(_HUGE_PAGES_NAME, "1")
    return chosen
