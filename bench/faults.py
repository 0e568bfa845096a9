"""Injects every kind of fault into a small job, one after the other, and says what became of it.

    python bench/faults.py [--only WORD] [--write]

Everything stays on this machine: the bucket is served by this process, behind ``faulty_s3``. Each
fault meets a job of its own. A row is as promised if the job ended with the status that the fault
calls for, with one line on stderr, and if the run, resumed where that is due, has the undisturbed
run's generator, sample grids and metrics to the bit. ``--write`` puts the table into
docs/faults.md. Exit status 1 if a row is not as promised.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fault_scenarios
from fault_jobs import Place, Row, serve

_PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
_HEAD = """\
# Faults, and what becomes of a job that meets them

Written by `python bench/faults.py --write`, which injects each of them into a real job (here on
{device}). "Same bits": the run has the generator, the sample grids and the metrics of a run that
met no fault. "Resumed": the same command was run again. How long a job waits for a store, and what
is kept where, is in [guide.md](guide.md#when-storage-fails).

| fault | where | exit status | what happened | as promised |
|---|---|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="faults whose name has this word")
    parser.add_argument("--write", action="store_true", help="into docs/faults.md")
    args = parser.parse_args()
    for name in list(os.environ):
        if name.startswith(("AWS_", "MRIGAN_")):
            del os.environ[name]
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mrigan-faults-") as name, serve() as proxy:
        rows = list(_rows(Place(Path(name), proxy), args.only, name))
    wrong = [row for row in rows if not row.as_promised]
    print(f"{len(rows)} faults, {len(wrong)} not as promised, {time.monotonic() - began:.0f} s")
    if args.write:
        table = "".join(f"{row.markdown()}\n" for row in rows)
        device = f"{os.cpu_count()} CPU cores, no GPU"
        _PAGE.write_text(_HEAD.format(device=device) + table)
    return 1 if wrong else 0


def _rows(place: Place, only: str, root: str) -> Iterator[Row]:
    for fault, where, inject in fault_scenarios.every():
        if only not in f"{fault} {where}":
            continue
        place.fresh()
        try:
            status, happened, as_promised = inject(place)
        except Exception as error:  # noqa: BLE001 - it belongs into the table
            status, happened, as_promised = None, f"{type(error).__name__}: {error}", False
        happened = " ".join(happened.split()).replace(root, "…")
        row = Row(fault, where, status, happened, as_promised)
        print(row.markdown(), flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(main())
