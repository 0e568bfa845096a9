"""What mrigan does on this GPU: right numbers, speed, limits, kernels, start, samples.

    python bench/gpu.py                  four minutes; `make gpu` is the same
    python bench/gpu.py --sections speed,limits
    python bench/gpu.py --sections quality --seconds 1800 --slices FOLDER
    python bench/gpu.py --sections job,compiled --seconds 400
    python bench/gpu.py --rates          five minutes: {1, 2, 4} × the rates of r3-s and r3-m

It needs mrigan's dependencies and neither a network nor data: slices are phantoms unless a folder
is given. After each row the results are in ``--out``: JSON, the same as a table, and sample grids.
What fails is a row that says why; the rest still runs, and the exit status is 1.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mrigan import environment

SECTIONS = "correctness,speed,limits,start,kernels,quality"
MORE = "job,compiled"  # a minute and more each


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--size", type=_size, default=(200, 160), help="HEIGHTxWIDTH, pixels")
    parser.add_argument("--seconds", type=float, help="for all of it; 240, or 300 with --rates")
    parser.add_argument("--sections", type=_sections, default=_sections(SECTIONS), help=SECTIONS)
    parser.add_argument("--rates", action="store_true", help="learning rates instead of sections")
    parser.add_argument("--slices", default="", help="a folder; phantoms without")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--tiny", action="store_true", help="small networks, few steps: for tests")
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    parser.add_argument("--going-on", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.seconds = args.seconds or (300.0 if args.rates else 240.0)
    return args


def _size(text: str) -> tuple[int, int]:
    height, width = (int(side) for side in text.split("x"))
    return height, width


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - {*SECTIONS.split(","), *MORE.split(",")}:
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(unknown)}; there are {SECTIONS},{MORE}"
        )
    return names


def main() -> int:
    arguments = sys.argv[1:]
    args = parsed(arguments)
    environment.configure_allocators()  # torch reads it when it is imported
    from gpu_check.main import run

    return run(args, arguments)


if __name__ == "__main__":
    sys.exit(main())
