"""The page: no font and no address to fetch from; all that it needs is in it."""

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from mrigan.artifacts import run_tree
from mrigan.artifacts.history import scored
from mrigan.artifacts.report.content import Content
from mrigan.artifacts.report.pictures import Picture, as_png, exact, frame, rows_of
from mrigan.artifacts.run_status import AlarmSpan, RunStatus
from mrigan.errors import MriganError, StorageError
from mrigan.evaluation.comparison import metric_of
from mrigan.redaction import shown
from mrigan.settings.describe import settings_of
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

_PAGES = Environment(
    loader=PackageLoader("mrigan", "artifacts/report"), autoescape=True, undefined=StrictUndefined
)
_STATE_BEGINS, _STATE_ENDS = "<!-- state -->", "<!-- /state -->"
_ALARMS = {
    "d_overpowers": "D tells real slices from fakes too well for G to learn from it",
    "collapse": "The generator draws too much of the same",
    "penalty_spike": "D's gradients rose to ten times what was usual",
}
_FEW_METRICS = ("kid", "frechet", "precision", "recall", "coverage", "swd", "diversity",
                "duplicates", "intensity", "spectrum")  # fmt: skip


class Tile(NamedTuple):
    """A number that matters."""

    value: str
    name: str
    floor: str  # what other real slices reach


def render_report(content: Content) -> bytes:
    """Draw the page; at most about 5 MB."""
    facts, stored = content.facts, content.stored
    settings, data = facts.settings, facts.data
    height = int(settings["image_height"])
    rows = rows_of(content.real_grid, height)
    page = _PAGES.get_template("report.html.j2").render(
        title=f"{settings['model']} on {data.slices:,} slices",
        state=_STATE_BEGINS + _state(content.status) + _STATE_ENDS,
        summary=_summary(content),
        tiles=_tiles(content),
        alarms=_alarms(content.status.summary.get("alarms", ())),
        against=next((each.score.swd_against for each in reversed(scored(content.rows))), ""),
        images_seen=content.status.images_seen,
        real=exact(content.real_grid, rows),
        drawn=exact(content.grid, rows),
        frames=[(epoch, frame(png, rows_of(png, height))) for epoch, png in stored.frames],
        losses=as_png(content.losses),
        closest=exact(stored.closest, rows_of(stored.closest, height)) if stored.closest else None,
        privacy=stored.privacy,
        comparisons=_comparisons(stored.evaluation),
        refusals=content.refusals,
        uri=content.uri,
        seed=settings["seed"],
        tables=_tables(content),
        metrics=[(metric_of(name).title, metric_of(name).meaning) for name in _FEW_METRICS],
    )
    return page.encode()


def render_compare(
    *,
    names: Sequence[str],
    samples: Sequence[tuple[int, Picture] | None],
    images_seen: int,
    curves: Picture,
    table: Sequence[tuple[str, Sequence[str]]],
    warnings: Sequence[str],
) -> bytes:
    """Draw the page of some runs.

    Args:
        names: Of the runs.
        samples: Of each run: the epoch and its grid; None where there is none.
        images_seen: To which the samples are nearest.
        curves: Of all runs.
        table: A title and a cell for each run, line by line.
        warnings: Why numbers may not be compared.
    """
    runs = [
        {"name": name, "epoch": found[0] if found else 0, "samples": found[1] if found else None}
        for name, found in zip(names, samples, strict=True)
    ]
    page = _PAGES.get_template("compare.html.j2").render(
        runs=runs, images_seen=images_seen, curves=curves, table=table, warnings=warnings
    )
    return page.encode()


def tell_state(store: Store, status: RunStatus) -> None:
    """Put ``status`` at the top of the run's report, where there is one; never raises for that."""
    try:
        if store.head(run_tree.REPORT) is None:
            return
        page = store.get(run_tree.REPORT).decode()
        before, begins, rest = page.partition(_STATE_BEGINS)
        _, ends, after = rest.partition(_STATE_ENDS)
        if begins and ends:
            told = before + begins + _state(status) + ends + after
            store.put(run_tree.REPORT, told.encode())
    except (StorageError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, MriganError) else "it is no text"
        log.warning("report_not_updated", extra={"reason": reason})


def _state(status: RunStatus) -> str:
    words = {
        "running": "Running",
        "interrupted": "Interrupted",
        "completed": "Completed",
        "failed": "Failed",
    }
    state = status.state if status.state in words else "running"
    told = f'<p class="state {state}"><b>{words[state]}</b>'
    told += f" after epoch {status.epoch:,} of {status.epochs:,}, {status.images_seen:,} images"
    if status.reason:
        told += f": {html.escape(shown(status.reason))}"
    return f"{told}</p>"


def _summary(content: Content) -> list[tuple[str, str]]:
    """When, how long, on what, of which data."""
    facts, data = content.facts, content.facts.data
    settings, machine = facts.settings, facts.machine
    seconds = sum(row.seconds for row in content.rows)
    last = content.rows[-1] if content.rows else None
    speed = f", {last.images_per_second:,.0f} images a second" if last else ""
    sides = f" ({data.training:,} trained on, {data.holdout:,} held out)" if data.holdout else ""
    ranks = f"{machine.ranks} × " if machine.ranks > 1 else ""
    return [
        ("started", content.status.started.replace("T", " ").removesuffix("Z") + " UTC"),
        ("training took", f"{_duration(seconds)}{speed}"),
        ("on", f"{ranks}{machine.device_name}, {machine.precision}"),
        ("slices", f"{data.slices:,} of {shown(str(settings['input_uri']))}{sides}"),
        ("size", f"{settings['image_height']} × {settings['image_width']} pixels"),
    ]


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _tiles(content: Content) -> list[Tile]:
    """The numbers that matter most; those of an evaluation, where there is one."""
    if content.stored.evaluation.get("compared"):
        return _evaluated_tiles(content)
    found = scored(content.rows)
    if not found:
        return []
    last = found[-1].score
    best = f"; best {content.best.swd:.3f} at epoch {content.best.epoch:,}" if content.best else ""
    tiles = [Tile(f"{last.swd:.3f}", f"distance{best}", f"other reals: {last.swd_floor:.3f}")]
    if last.coverage is not None:
        tiles.append(Tile(f"{last.coverage:.0%}", "of real slices covered", "other reals: ~97%"))
    tiles.append(Tile(f"{last.spread:.2f}", "spread, relative to reals", "other reals: 1"))
    return tiles


def _evaluated_tiles(content: Content) -> list[Tile]:
    metrics = content.stored.evaluation["compared"][0]["metrics"]
    tiles = []
    for name, form in (("kid", ".3f"), ("coverage", ".0%"), ("swd", ".3f")):
        found = metrics[name]
        value, floor = (_number(each["value"], form) for each in (found, found["floor"]))
        tiles.append(Tile(value, metric_of(name).title, f"other reals: {floor}"))
    if verdict := content.stored.privacy.get("verdict"):
        tiles.append(Tile(str(verdict), "privacy check", "see below"))
    return tiles


def _comparisons(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "against": each["against"],
            "slices": each["slices"],
            "rows": [
                (metric_of(name).title, _told(found), _told(found["floor"]))
                for name, found in each["metrics"].items()
                if name in _FEW_METRICS
            ],
        }
        for each in evaluation.get("compared", ())
    ]


def _told(found: Mapping[str, float]) -> str:
    digits = 3 if abs(found["value"]) < 10 else 1
    numbers = (found[name] for name in ("low", "value", "high"))
    low, value, high = (_number(each, f".{digits}f") for each in numbers)
    return f"{value} ({low} to {high})"


def _number(value: float, form: str) -> str:
    told = f"{value:{form}}"
    return told.removeprefix("-") if not told.strip("-0.%") else told  # no "-0.0"


def _alarms(spans: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - JSON that is only passed on
    found = [
        AlarmSpan(*each) if isinstance(each, list | tuple) else AlarmSpan(**each) for each in spans
    ]
    return [(_ALARMS.get(each.alarm, each.alarm), _epochs(each)) for each in found]


def _epochs(span: AlarmSpan) -> str:
    first, last = span.first_epoch, span.last_epoch
    return f"epoch {first:,}" if first == last else f"epochs {first:,} to {last:,}"


def _tables(content: Content) -> list[tuple[str, list[tuple[str, Any]]]]:
    facts = content.facts
    used = settings_of(facts.settings)
    machine = {"machine": asdict(facts.machine), "memory": content.status.memory}
    return [
        ("Settings", [(name, shown(str(value))) for name, value in used.items()]),
        (
            "Machine, memory (MiB), versions",
            [
                (f"{part}: {name}", value)
                for part, values in {**machine, "versions": facts.versions}.items()
                for name, value in values.items()
            ],
        ),
    ]
