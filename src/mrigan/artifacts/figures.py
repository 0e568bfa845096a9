"""The training history as a figure whose axes rarely move, so that two of them can be compared."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mrigan.artifacts.history import EpochRow, scored
from mrigan.models.family import Chart, Curve

SMOOTHING_SHARE = 0.02  # of the run's epochs
_USUAL_SHARE = 0.97
_HEIGHTS = (1 / 3, 1 / 2, 2 / 3, 1.0)
# Beyond, a value is drawn at the rim and counted there.
SCORE_RANGE = (0.0, 1.0)
DISTANCE_RANGE = (0.01, 2.0)  # of real patches' standard deviation: noise is at about 1

_RED, _BLUE, _GREEN, _VIOLET = "#c0392b", "#2563a8", "#2a7f4f", "#8e5ea2"
_RUN_COLOURS = (_BLUE, _RED, _GREEN, _VIOLET, "#b8860b", "#16808a", "#7f7f7f", "#d4549a")
_LOSS_COLOURS, _SCORE_COLOURS = (_RED, _BLUE), (_GREEN, _VIOLET)


def render_losses(
    rows: Sequence[EpochRow], epochs: int, chart: Chart, *, is_scored: bool = False
) -> bytes:
    """Draw losses, D's scores, the distance to real slices and their coverage as a PNG.

    Args:
        rows: Of the epochs so far.
        epochs: Of the whole run: the right end of the axis, from the first plot on.
        chart: What is drawn of the family of networks.
        is_scored: Whether there is a distance to draw, if not yet.
    """
    heights = (2.0, 1.0, 1.3, 0.8)[: 4 if is_scored else 2]
    figure = Figure(figsize=(9, 2.1 * sum(heights)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores, *rest = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    loss_range = _loss_range(rows, chart)
    for curve, colour in zip(chart.losses, _LOSS_COLOURS, strict=True):
        _draw(losses, rows, curve, colour, epochs, loss_range)
    _finish(losses, epochs, loss_range, "loss, mean of an epoch")
    _mark(losses, chart.chance_loss, "D can't tell")
    for curve, colour in zip(chart.scores, _SCORE_COLOURS, strict=True):
        _draw(scores, rows, curve, colour, epochs, SCORE_RANGE)
    _finish(scores, epochs, SCORE_RANGE, chart.scores_label)
    if is_scored:
        _draw_distance(rest[0], rows, epochs)
        _draw_coverage(rest[1], rows, epochs)
    (rest or [scores])[-1].set_xlabel("epoch")
    figure.align_ylabels()
    figure.suptitle(f"Training history: epoch {len(rows):,} of {epochs:,}", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def render_comparison(runs: Mapping[str, Sequence[EpochRow]]) -> bytes:
    """Draw distance and coverage of each run, by its name, over images seen as a PNG."""
    figure = Figure(figsize=(9, 6.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    distance, coverage = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 1.0))
    for number, (name, rows) in enumerate(runs.items()):
        found = scored(rows)
        images = [each.row.images_seen for each in found]
        style = {"color": _RUN_COLOURS[number], "marker": "o", "ms": 3, "clip_on": False}
        swd = np.clip([each.score.swd for each in found], *DISTANCE_RANGE)
        distance.plot(images, swd, label=name, **style)
        covered = [(each.row.images_seen, each.score.coverage) for each in found
                   if each.score.coverage is not None]  # fmt: skip
        if covered:
            coverage.plot(*np.array(covered).T, **style)
    floors = [found[-1].score.swd_floor for rows in runs.values() if (found := scored(rows))]
    if floors:
        _mark(distance, max(floors), "real against real")
    last = max(row.images_seen for rows in runs.values() for row in rows)
    _finish_distance(distance, last)
    _finish(coverage, last, SCORE_RANGE, "of real slices\ncovered")
    coverage.set_xlabel("images seen")
    coverage.xaxis.set_major_formatter("{x:,.0f}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _loss_range(rows: Sequence[EpochRow], chart: Chart) -> tuple[float, float]:
    """From 0 to the least of some fixed heights that the losses fit under, but for rare peaks.

    So an axis changes rarely from plot to plot, and never goes beyond what the family has.
    """
    low, most = chart.loss_range
    found = [
        row.means[curve.key] for row in rows for curve in chart.losses if curve.key in row.means
    ]
    finite = [value for value in found if np.isfinite(value)]
    usual = max(float(np.quantile(finite, _USUAL_SHARE)) if finite else 0.0, chart.chance_loss)
    heights = [most * part for part in _HEIGHTS if most * part > usual * 1.05]
    return low, min(heights, default=most)


def _draw(
    axes: Axes,
    rows: Sequence[EpochRow],
    curve: Curve,
    colour: str,
    epochs: int,
    limits: tuple[float, float],
) -> None:
    """Draw a metric twice: as it was, faint, and smoothed, strong."""
    known = [(row.epoch, value) for row in rows if (value := row.value(curve.key)) is not None]
    epoch, values = np.array(known, dtype=float).reshape(-1, 2).T
    shown = np.clip(values, *limits)
    axes.plot(epoch, shown, color=colour, alpha=0.3, lw=1, zorder=3, clip_on=False)
    axes.plot(epoch, np.clip(_smoothed(values, epochs), *limits), color=colour, lw=2, zorder=3,
              label=curve.name, marker="o" if len(known) == 1 else None)  # fmt: skip
    above = values > limits[1]
    if above.any():
        axes.plot(epoch[above], shown[above], "^", color=colour, ms=5, clip_on=False)


def _draw_distance(axes: Axes, rows: Sequence[EpochRow], epochs: int) -> None:
    """Draw the scores that were taken, the best of them, and what reals are at among themselves."""
    found = scored(rows)
    epoch = np.array([each.row.epoch for each in found], dtype=float)
    shown = np.clip([each.score.swd for each in found], *DISTANCE_RANGE)
    axes.plot(epoch, shown, color=_BLUE, lw=1.5, marker="o", ms=3, clip_on=False, label="fakes")
    if found:
        best = min(range(len(found)), key=lambda index: found[index].score.swd)
        axes.plot(epoch[best], shown[best], "o", ms=9, mfc="none", mec=_RED, clip_on=False,
                  ls="none", label="best so far")  # fmt: skip
        _mark(axes, found[-1].score.swd_floor, "real against real")
    _finish_distance(axes, epochs)


def _draw_coverage(axes: Axes, rows: Sequence[EpochRow], epochs: int) -> None:
    """Draw which share of the reals has a fake near it, where there were enough reals."""
    known = [(each.row.epoch, each.score.coverage) for each in scored(rows)
             if each.score.coverage is not None]  # fmt: skip
    if known:
        axes.plot(*np.array(known).T, color=_GREEN, lw=1.5, marker="o", ms=3, clip_on=False)
    else:
        axes.text(0.5, 0.5, "not measured: too few real slices" if scored(rows) else "",
                  transform=axes.transAxes, ha="center", va="center", color="0.45")  # fmt: skip
    _finish(axes, epochs, SCORE_RANGE, "of real slices\ncovered")


def _mark(axes: Axes, value: float, text: str) -> None:
    """Rule a line across at ``value`` and say what it is, at its right end."""
    axes.axhline(value, color="0.75", lw=0.8, ls=":", zorder=0)
    axes.annotate(text, (0.995, value), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                  fontsize=8, color="0.45")  # fmt: skip


def _finish(axes: Axes, epochs: int, limits: tuple[float, float], label: str) -> None:
    axes.set_xlim(0, epochs)
    axes.set_ylim(*limits)
    axes.set_ylabel(label)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        # Above the axes, where no curve is.
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.97))


def _finish_distance(axes: Axes, end: int) -> None:
    axes.set_yscale("log")
    _finish(axes, end, DISTANCE_RANGE, "distance to\nreal slices")
    ticks = (0.01, 0.1, 1.0)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _smoothed(values: np.ndarray, epochs: int) -> np.ndarray:
    """Exponential mean, free of the bias of its start; as wide in a plot whatever the run."""
    decay = 1 - 1 / max(1.0, epochs * SMOOTHING_SHARE)
    total = weight = 0.0
    out = np.empty_like(values)
    for index, value in enumerate(values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out[index] = total / weight
    return out
