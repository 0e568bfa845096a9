"""The training history as a figure whose axes never move, so that two of them can be compared."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The seed's losses live here: 2 ln 2 and ln 2 are D and G when D can't tell. What is above is drawn
# at the rim and counted.
LOSS_RANGE = (0.0, 6.0)
SCORE_RANGE = (0.0, 1.0)
SMOOTHING_SHARE = 0.02  # of the run's epochs
_COLOURS = {
    "d_loss": "#c0392b",
    "g_loss": "#2563a8",
    "real_score": "#2a7f4f",
    "fake_score": "#8e5ea2",
}
_NAMES = {
    "d_loss": "D: real_loss + fake_loss",
    "g_loss": "G",
    "real_score": "real slices",
    "fake_score": "fakes",
}


def render_losses(rows: Sequence[Mapping[str, float]], epochs: int) -> bytes:
    """Draw losses and D's scores over epochs as a PNG.

    Args:
        rows: One mapping an epoch, as in metrics.jsonl.
        epochs: Of the whole run: the right end of the axis, from the first plot on.
    """
    figure = Figure(figsize=(9, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _draw(losses, rows, ("d_loss", "g_loss"), epochs, LOSS_RANGE)
    losses.set_ylabel("loss, mean of an epoch")
    losses.axhline(2 * np.log(2), color="0.75", lw=0.8, ls=":", zorder=0)
    losses.annotate("D can't tell", (0.995, 2 * np.log(2)), xycoords=("axes fraction", "data"),
                    ha="right", va="bottom", fontsize=8, color="0.45")  # fmt: skip
    _draw(scores, rows, ("real_score", "fake_score"), epochs, SCORE_RANGE)
    scores.set_ylabel("D's score\n(1 = real)")
    scores.set_xlabel("epoch")
    done = len(rows)
    figure.suptitle(f"Training history: epoch {done:,} of {epochs:,}", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(
    axes: Axes,
    rows: Sequence[Mapping[str, float]],
    names: Sequence[str],
    epochs: int,
    limits: tuple[float, float],
) -> None:
    """Each metric twice: as it was, faint, and smoothed, strong."""
    epoch = np.array([row["epoch"] for row in rows], dtype=float)
    for name in names:
        values = np.array([row[name] for row in rows], dtype=float)
        shown = np.clip(values, *limits)
        axes.plot(epoch, shown, color=_COLOURS[name], alpha=0.3, lw=1, clip_on=False)
        axes.plot(epoch, np.clip(_smoothed(values, epochs), *limits), color=_COLOURS[name], lw=2,
                  label=_NAMES[name], marker="o" if len(rows) == 1 else None)  # fmt: skip
        above = values > limits[1]
        if above.any():
            axes.plot(epoch[above], shown[above], "^", color=_COLOURS[name], ms=5, clip_on=False)
    axes.set_xlim(0, epochs)
    axes.set_ylim(*limits)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, ncols=len(names), loc="upper right")


def _smoothed(values: np.ndarray, epochs: int) -> np.ndarray:
    """Exponential mean, free of the bias of its start; as wide in a plot whatever the run."""
    decay = 1 - 1 / max(1.0, epochs * SMOOTHING_SHARE)
    total = weight = 0.0
    out = np.empty_like(values)
    for index, value in enumerate(values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out[index] = total / weight
    return out
