"""The kinds of files that slices are written as; plain values, for the command line, too."""

from typing import Literal, get_args

Kind = Literal["png", "png16", "npy", "npz"]
KINDS: tuple[Kind, ...] = get_args(Kind)
