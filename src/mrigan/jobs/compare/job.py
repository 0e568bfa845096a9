"""The command: reads the runs, prints a table, writes a page."""

import logging
import sys
from collections.abc import Sequence

from mrigan.artifacts import run_tree
from mrigan.artifacts.figures import render_comparison
from mrigan.artifacts.report.page import render_compare
from mrigan.artifacts.report.pictures import Picture, as_png, exact, rows_of
from mrigan.errors import SettingsError
from mrigan.jobs.build import file_place, storage_options
from mrigan.jobs.compare.runs import ComparedRun, read_runs
from mrigan.jobs.compare.table import markdown, table_of, warnings_of
from mrigan.settings.fields import Settings

log = logging.getLogger(__name__)

_MOST_RUNS = 8


def compare(settings: Settings, uris: Sequence[str], place: str) -> None:
    """Print the table of some runs, and write the page.

    Args:
        settings: How stores are opened, and what is printed.
        uris: Of the runs, two to eight.
        place: Of the page: a path or ``s3://bucket/key`` that ends in .html.

    Raises:
        SettingsError: Not two to eight runs, or no place for a page.
        StorageError: A run can't be read, or the page can't be written.
    """
    problems = []
    if not 2 <= len(set(uris)) == len(uris) <= _MOST_RUNS:
        problems.append(f"{len(set(uris))} runs: name 2 to {_MOST_RUNS} different ones")
    if not place.lower().endswith(".html"):
        problems.append(f"--to: {place} does not end in .html")
    if problems:
        raise SettingsError(*problems)
    options = storage_options(settings)
    store, name = file_place(place, options, "compare.html")
    runs = read_runs(uris, options)
    images_seen = min(run.images_seen for run in runs)
    page = render_compare(
        names=[run.name for run in runs],
        samples=[_samples(run, images_seen) for run in runs],
        images_seen=images_seen,
        curves=as_png(render_comparison({run.name: run.rows for run in runs})),
        table=table_of(runs),
        warnings=warnings_of(runs),
    )
    store.put(name, page)
    if settings.log_format != "json":
        sys.stdout.write(markdown(runs))
    log.info("written", extra={"file": place, "runs": len(runs)})


def _samples(run: ComparedRun, images_seen: int) -> tuple[int, Picture] | None:
    """The sample grid nearest to ``images_seen``, with its epoch."""
    keys = {info.key for info in run.store.list("samples")}
    rows = [row for row in run.rows if run_tree.sample_grid(row.epoch) in keys]
    if not rows:
        return None
    nearest = min(rows, key=lambda row: abs(row.images_seen - images_seen))
    png = run.store.get(run_tree.sample_grid(nearest.epoch))
    return nearest.epoch, exact(png, rows_of(png, int(run.facts.settings["image_height"])))
