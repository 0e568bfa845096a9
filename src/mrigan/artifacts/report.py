"""One self-contained page about a run: no script, no font, no address to fetch from."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mrigan.artifacts.figures import render_losses

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
) -> bytes:
    """Draw the page.

    Args:
        rows: Of metrics.jsonl, at least none.
        facts: Of settings.json: ``settings``, ``data``, ``machine``, ``versions``.
        epochs: Of the whole run.
        images_seen: By the networks that drew ``grid``.
        real_grid: PNG of real slices.
        grid: PNG of samples.
    """
    last = rows[-1] if rows else {}
    settings = facts["settings"]
    grids = [("Real slices", real_grid), (f"Generated after {images_seen:,} images", grid)]
    page = _PAGES.get_template("report.html.j2").render(
        title=f"{settings['model']} on {facts['data']['slices']:,} slices",
        summary=f"{settings['input_uri']}, {settings['image_height']}×{settings['image_width']}, "
        f"seed {settings['seed']}",
        tiles=list(_tiles(last, epochs)),
        grids=[(caption, _inline(image)) for caption, image in grids],
        losses=_inline(render_losses(rows, epochs)),
        tables=[
            ("Settings", list(settings.items())),
            (
                "Data, machine, versions",
                [
                    (f"{part}: {name}", value)
                    for part in ("data", "machine", "versions")
                    for name, value in facts[part].items()
                ],
            ),
        ],
    )
    return page.encode()


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
