"""One self-contained page about a run: no script, no font, no address to fetch from."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from jinja2 import Environment, PackageLoader, StrictUndefined

from mrigan.artifacts.history import EpochRow, scored
from mrigan.artifacts.run_facts import DataFacts, RunFacts
from mrigan.artifacts.run_status import AlarmSpan, BestScore

_PAGES = Environment(
    loader=PackageLoader("mrigan", "artifacts"), autoescape=True, undefined=StrictUndefined
)


def render_report(
    *,
    rows: Sequence[EpochRow],
    facts: RunFacts,
    memory: Mapping[str, object],
    epochs: int,
    images_seen: int,
    real_grid: bytes,
    grid: bytes,
    losses: bytes,
    alarms: Sequence[AlarmSpan] = (),
    best: BestScore | None = None,
) -> bytes:
    """Draw the page.

    Args:
        rows: Of metrics.jsonl, at least none.
        facts: Of run.json.
        memory: What takes it, MiB.
        epochs: Of the whole run.
        images_seen: By the networks that drew ``grid``.
        real_grid: PNG of real slices.
        grid: PNG of samples.
        losses: PNG of the training history.
        alarms: What went wrong, and when.
        best: The best score, if there is one.
    """
    settings, data = facts.settings, facts.data
    grids = [("Real slices", real_grid), (f"Generated after {images_seen:,} images", grid)]
    machine = {"data": asdict(data), "machine": asdict(facts.machine), "memory": memory}
    page = _PAGES.get_template("report.html.j2").render(
        title=f"{settings['model']} on {data.slices:,} slices",
        summary=f"{settings['input_uri']}, {settings['image_height']}×{settings['image_width']}, "
        f"seed {settings['seed']}{_held_out(data)}",
        tiles=[*_tiles(rows, epochs), *_score_tiles(rows, best)],
        alarms=[(_ALARMS.get(each.alarm, each.alarm), _epochs(each)) for each in alarms],
        against=next((each.score.swd_against for each in reversed(scored(rows))), ""),
        grids=[(caption, _inline(image)) for caption, image in grids],
        losses=_inline(losses),
        tables=[
            ("Settings", list(settings.items())),
            (
                "Data, machine, memory, versions",
                [
                    (f"{part}: {name}", value)
                    for part, values in {**machine, "versions": facts.versions}.items()
                    for name, value in values.items()
                ],
            ),
        ],
    )
    return page.encode()


_ALARMS = {
    "d_overpowers": "D tells real slices from fakes too well for G to learn from it",
    "collapse": "The generator draws too much of the same",
    "penalty_spike": "D's gradients rose to ten times what was usual",
}


def _epochs(span: AlarmSpan) -> str:
    first, last = span.first_epoch, span.last_epoch
    return f"epoch {first:,}" if first == last else f"epochs {first:,} to {last:,}"


def _held_out(data: DataFacts) -> str:
    if not data.holdout:
        return ""
    return f"; {data.training:,} slices are trained on, {data.holdout:,} held out"


def _score_tiles(rows: Sequence[EpochRow], best: BestScore | None) -> list[tuple[str, str]]:
    if not (found := scored(rows)):
        return []
    last = found[-1].score
    tiles = [(f"distance (reals: {last.swd_floor:.3f})", f"{last.swd:.3f}")]
    if best:
        tiles.append((f"best distance, epoch {best.epoch:,}", f"{best.swd:.3f}"))
    if last.coverage is not None:
        tiles.append(("of real slices covered", f"{last.coverage:.0%}"))
    return tiles


def _tiles(rows: Sequence[EpochRow], epochs: int) -> list[tuple[str, str]]:
    if not rows:
        return [("epochs", f"0 of {epochs:,}")]
    last = rows[-1]
    return [
        ("epochs", f"{last.epoch:,} of {epochs:,}"),
        ("images seen", f"{last.images_seen:,}"),
        ("D's loss", f"{last.means['d_loss']:.3f}"),
        ("G's loss", f"{last.means['g_loss']:.3f}"),
        ("images per second", f"{last.images_per_second:,.0f}"),
    ]


def _inline(image: bytes) -> str:
    return base64.b64encode(image).decode()
