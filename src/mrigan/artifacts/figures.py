"""The training history as a figure whose axes never move, so that two of them can be compared."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SMOOTHING_SHARE = 0.02  # of the run's epochs
# Beyond, a value is drawn at the rim and counted there.
SCORE_RANGE = (0.0, 1.0)
DISTANCE_RANGE = (0.01, 2.0)  # of real patches' standard deviation: noise is at about 1

Row = Mapping[str, float]


class _Line(NamedTuple):
    """One metric: its key in a row, its name for people, its colour."""

    key: str
    name: str
    colour: str


class _Family(NamedTuple):
    """How a family of networks is drawn."""

    losses: tuple[_Line, ...]
    loss_range: tuple[float, float]
    chance_loss: float  # D's, when it can't tell
    scores: tuple[_Line, ...]
    scores_label: str


_RED, _BLUE, _GREEN, _VIOLET = "#c0392b", "#2563a8", "#2a7f4f", "#8e5ea2"
_DCGAN = _Family(
    losses=(_Line("d_loss", "D: real_loss + fake_loss", _RED), _Line("g_loss", "G", _BLUE)),
    loss_range=(0.0, 6.0),
    chance_loss=2 * np.log(2),
    scores=(_Line("real_score", "real slices", _GREEN), _Line("fake_score", "fakes", _VIOLET)),
    scores_label="D's score\n(1 = real)",
)
_RELATIVISTIC = _Family(
    losses=(_Line("d_loss", "D, without penalties", _RED), _Line("g_loss", "G", _BLUE)),
    loss_range=(0.0, 3.0),
    chance_loss=np.log(2),
    scores=(
        _Line("real_score", "real over fake, by D (½ = can't tell)", _GREEN),
        _Line("augment_p", "augmented", _VIOLET),
    ),
    scores_label="probability",
)
_DISTANCE = _Line("swd", "fakes", _BLUE)


def render_losses(
    rows: Sequence[Row], epochs: int, *, is_relativistic: bool = False, is_scored: bool = False
) -> bytes:
    """Draw losses, D's scores and the distance to real slices over epochs as a PNG.

    Args:
        rows: One mapping an epoch, as in metrics.jsonl.
        epochs: Of the whole run: the right end of the axis, from the first plot on.
        is_relativistic: Whether the losses are those of ``r3``.
        is_scored: Whether there is a distance to draw, if not yet.
    """
    family = _RELATIVISTIC if is_relativistic else _DCGAN
    heights = (2.0, 1.0, 1.3)[: 3 if is_scored else 2]
    figure = Figure(figsize=(9, 2.1 * sum(heights)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores, *rest = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for line in family.losses:
        _draw(losses, rows, line, epochs, family.loss_range)
    _finish(losses, epochs, family.loss_range, "loss, mean of an epoch")
    _mark(losses, family.chance_loss, "D can't tell")
    for line in family.scores:
        _draw(scores, rows, line, epochs, SCORE_RANGE)
    _finish(scores, epochs, SCORE_RANGE, family.scores_label)
    for axes in rest:
        _draw_distance(axes, rows, epochs)
    (rest or [scores])[-1].set_xlabel("epoch")
    figure.align_ylabels()
    figure.suptitle(f"Training history: epoch {len(rows):,} of {epochs:,}", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(
    axes: Axes, rows: Sequence[Row], line: _Line, epochs: int, limits: tuple[float, float]
) -> None:
    """Draw a metric twice: as it was, faint, and smoothed, strong."""
    known = [row for row in rows if line.key in row]
    epoch = np.array([row["epoch"] for row in known], dtype=float)
    values = np.array([row[line.key] for row in known], dtype=float)
    shown = np.clip(values, *limits)
    axes.plot(epoch, shown, color=line.colour, alpha=0.3, lw=1, zorder=3, clip_on=False)
    axes.plot(epoch, np.clip(_smoothed(values, epochs), *limits), color=line.colour, lw=2, zorder=3,
              label=line.name, marker="o" if len(known) == 1 else None)  # fmt: skip
    above = values > limits[1]
    if above.any():
        axes.plot(epoch[above], shown[above], "^", color=line.colour, ms=5, clip_on=False)


def _draw_distance(axes: Axes, rows: Sequence[Row], epochs: int) -> None:
    """Draw the scores that were taken, the best of them, and what reals are at among themselves."""
    scored = [row for row in rows if "swd" in row]
    epoch = np.array([row["epoch"] for row in scored], dtype=float)
    shown = np.clip([row["swd"] for row in scored], *DISTANCE_RANGE)
    axes.plot(epoch, shown, color=_DISTANCE.colour, lw=1.5, marker="o", ms=3, clip_on=False,
              label=_DISTANCE.name)  # fmt: skip
    if scored:
        best = min(range(len(scored)), key=lambda index: scored[index]["swd"])
        axes.plot(epoch[best], shown[best], "o", ms=9, mfc="none", mec=_RED, clip_on=False,
                  ls="none", label="best so far")  # fmt: skip
        _mark(axes, scored[-1]["swd_floor"], "real against real")
    axes.set_yscale("log")
    _finish(axes, epochs, DISTANCE_RANGE, "distance to\nreal slices")
    ticks = (0.01, 0.1, 1.0)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


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
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")


def _smoothed(values: np.ndarray, epochs: int) -> np.ndarray:
    """Exponential mean, free of the bias of its start; as wide in a plot whatever the run."""
    decay = 1 - 1 / max(1.0, epochs * SMOOTHING_SHARE)
    total = weight = 0.0
    out = np.empty_like(values)
    for index, value in enumerate(values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out[index] = total / weight
    return out
