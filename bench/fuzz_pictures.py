"""Damage pictures of every kind at random: nothing but a refusal may come of it.

    PYTHONPATH=tests python bench/fuzz_pictures.py [--rounds 170] [--seed 0]

Prints how many files were tried, how many of them were read, the slowest, and the peak memory.
A crash of the process, another exception or more than 2 s for one file is a failure.
"""

import argparse
import random
import resource
import time

from mrigan.data.formats import decode
from mrigan.data.refusal import UnusableSliceError
from pictures import others, refused, tiffs
from test_pictures import mutated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=170)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds = {**tiffs(), **others(), **{name: data for name, (data, _) in refused().items()}}
    tried = read = 0
    slowest = (0.0, "")
    for name, data in kinds.items():
        rng = random.Random(f"{options.seed} {name}")
        for _ in range(options.rounds):
            began = time.perf_counter()
            try:
                decode(mutated(data, rng), 32, 32)
                read += 1
            except UnusableSliceError:
                pass
            tried += 1
            slowest = max(slowest, (time.perf_counter() - began, name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(kinds)} kinds, {tried} files, {read} read, {tried - read} refused")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}), peak memory {peak:.0f} MiB")
    if slowest[0] > 2:
        raise SystemExit("a file took more than 2 s")


if __name__ == "__main__":
    main()
