"""One self-contained page about a run: no script, no font, no address to fetch from."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_PAGES = Environment(
    loader=PackageLoader("mrigan", "artifacts"), autoescape=True, undefined=StrictUndefined
)


def render_report(
    *,
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    epochs: int,
    images_seen: int,
    real_grid: bytes,
    grid: bytes,
    losses: bytes,
    events: Sequence[Mapping[str, Any]] = (),
    best: Mapping[str, Any] | None = None,
) -> bytes:
    """Draw the page.

    Args:
        rows: Of metrics.jsonl, at least none.
        facts: Of settings.json: ``settings``, ``data``, ``machine``, ``versions``, ``memory``.
        epochs: Of the whole run.
        images_seen: By the networks that drew ``grid``.
        real_grid: PNG of real slices.
        grid: PNG of samples.
        losses: PNG of the training history.
        events: What went wrong: ``event``, ``first_epoch`` and ``last_epoch`` of each.
        best: ``epoch``, ``images_seen`` and ``swd`` of the best score, if there is one.
    """
    last = rows[-1] if rows else {}
    settings = facts["settings"]
    grids = [("Real slices", real_grid), (f"Generated after {images_seen:,} images", grid)]
    page = _PAGES.get_template("report.html.j2").render(
        title=f"{settings['model']} on {facts['data']['slices']:,} slices",
        summary=f"{settings['input_uri']}, {settings['image_height']}×{settings['image_width']}, "
        f"seed {settings['seed']}{_held_out(facts['data'])}",
        tiles=[*_tiles(last, epochs), *_score_tiles(rows, best or {})],
        events=[(_EVENTS.get(each["event"], each["event"]), _epochs(each)) for each in events],
        against=next((row["swd_against"] for row in reversed(rows) if "swd" in row), ""),
        grids=[(caption, _inline(image)) for caption, image in grids],
        losses=_inline(losses),
        tables=[
            ("Settings", list(settings.items())),
            (
                "Data, machine, memory, versions",
                [
                    (f"{part}: {name}", value)
                    for part in ("data", "machine", "memory", "versions")
                    for name, value in facts.get(part, {}).items()
                ],
            ),
        ],
    )
    return page.encode()


_EVENTS = {
    "d_overpowers": "D tells real slices from fakes too well for G to learn from it",
    "collapse": "The generator draws too much of the same",
    "penalty_spike": "D's gradients rose to ten times what was usual",
}


def _epochs(event: Mapping[str, Any]) -> str:
    first, last = event["first_epoch"], event["last_epoch"]
    return f"epoch {first:,}" if first == last else f"epochs {first:,} to {last:,}"


def _held_out(data: Mapping[str, Any]) -> str:
    held = data.get("holdout", 0)
    return f"; {data['training']:,} slices are trained on, {held:,} held out" if held else ""


def _score_tiles(
    rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]
) -> list[tuple[str, str]]:
    scored = [row for row in rows if "swd" in row]
    if not scored:
        return []
    tiles = [(f"distance (reals: {scored[-1]['swd_floor']:.3f})", f"{scored[-1]['swd']:.3f}")]
    if best:
        tiles.append((f"best distance, epoch {best['epoch']:,}", f"{best['swd']:.3f}"))
    if "coverage" in scored[-1]:
        tiles.append(("of real slices covered", f"{scored[-1]['coverage']:.0%}"))
    return tiles


def _tiles(last: Mapping[str, Any], epochs: int) -> list[tuple[str, str]]:
    if not last:
        return [("epochs", f"0 of {epochs:,}")]
    return [
        ("epochs", f"{last['epoch']:,} of {epochs:,}"),
        ("images seen", f"{last['images_seen']:,}"),
        ("D's loss", f"{last['d_loss']:.3f}"),
        ("G's loss", f"{last['g_loss']:.3f}"),
        ("images per second", f"{last['images_per_second']:,.0f}"),
    ]


def _inline(image: bytes) -> str:
    return base64.b64encode(image).decode()
