"""The numbers of runs side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from mrigan.artifacts.history import scored
from mrigan.evaluation.comparison import metric_of
from mrigan.jobs.compare.runs import ComparedRun

_METRICS = ("kid", "frechet", "precision", "recall", "coverage", "swd", "diversity",
            "duplicates", "intensity", "spectrum")  # fmt: skip
_NOTHING = "–"

Row = tuple[str, list[str]]


def table_of(runs: Sequence[ComparedRun]) -> list[Row]:
    """A title and a cell for each run, line by line; lines that no run has are left out."""
    lines: list[Row] = [
        ("model", [str(run.facts.settings["model"]) for run in runs]),
        ("state", [run.status.state for run in runs]),
        ("images seen", [f"{run.images_seen:,}" for run in runs]),
        ("minutes", [f"{run.seconds / 60:.1f}" for run in runs]),
        ("device", [run.facts.machine.device_name for run in runs]),
        ("distance (other reals)", [_distance(run) for run in runs]),
        ("best distance, at images", [_best(run) for run in runs]),
    ]
    lines += [(metric_of(name).title, [_metric(run, name) for run in runs]) for name in _METRICS]
    lines.append(("privacy", [str(run.privacy.get("verdict", _NOTHING)) for run in runs]))
    return [line for line in lines if set(line[1]) != {_NOTHING}]


def warnings_of(runs: Sequence[ComparedRun]) -> list[str]:
    """Why numbers of these runs may not be compared."""
    found = []
    sizes = {
        (run.facts.settings["image_height"], run.facts.settings["image_width"]) for run in runs
    }
    if len(sizes) > 1:
        found.append("The runs have slices of different sizes: their distances are not comparable.")
    if len({run.facts.data.fingerprint for run in runs}) > 1:
        found.append("The runs were trained on different slices, or hold out different ones.")
    counts = {_compared(run)["slices"] for run in runs if _compared(run)}
    if len(counts) > 1:
        found.append("The evaluations are of different numbers of slices: evaluate them alike.")
    return found


def markdown(runs: Sequence[ComparedRun]) -> str:
    """The table as Markdown."""
    names = [run.name for run in runs]
    lines = [("", names), ("---", ["---"] * len(runs)), *table_of(runs)]
    table = "\n".join(f"| {title} | {' | '.join(cells)} |" for title, cells in lines)
    return "\n\n".join([*warnings_of(runs), table]) + "\n"


def _distance(run: ComparedRun) -> str:
    found = scored(run.rows)
    return f"{found[-1].score.swd:.3f} ({found[-1].score.swd_floor:.3f})" if found else _NOTHING


def _best(run: ComparedRun) -> str:
    found = min(scored(run.rows), key=lambda each: each.score.swd, default=None)
    return f"{found.score.swd:.3f}, {found.row.images_seen:,}" if found else _NOTHING


def _compared(run: ComparedRun) -> Mapping[str, Any]:
    compared = run.evaluation.get("compared") or [{}]
    first: Mapping[str, Any] = compared[0]
    return first


def _metric(run: ComparedRun, name: str) -> str:
    found = _compared(run).get("metrics", {}).get(name)
    if not found:
        return _NOTHING
    digits = 3 if abs(found["value"]) < 10 else 1
    low, value, high = (f"{found[part]:.{digits}f}" for part in ("low", "value", "high"))
    return f"{value} ({low} to {high})"
