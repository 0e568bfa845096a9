"""What an evaluation has found, as files for programs and a table for people."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrigan.artifacts import run_tree
from mrigan.artifacts.grids import render_grid
from mrigan.artifacts.run_facts import versions
from mrigan.artifacts.run_status import now
from mrigan.artifacts.run_tree import JsonObject
from mrigan.evaluation.comparison import metric_of
from mrigan.evaluation.privacy import Privacy
from mrigan.evaluation.sampling import Estimate
from mrigan.jobs.evaluate.comparisons import Comparison
from mrigan.jobs.evaluate.sets import Sets
from mrigan.storage.store import Store

PAIR_COLUMNS = 8
_LIMITS = (
    "Such a check finds slices that are like a training slice as a whole. It does not find a "
    "copied detail, nor what an attack on the networks could tell; PASS is no proof of privacy."
)


def write(
    store: Store,
    sets: Sets,
    comparisons: Sequence[Comparison],
    privacy: Privacy,
    features: str,
    seed: int,
) -> str:
    """Write the results, and return the table."""
    about: JsonObject = {
        **sets.about,
        "at": now(),
        "features": features,
        "seed": seed,
        "generated": len(sets.fake),
        "training": len(sets.training),
        "holdout": len(sets.holdout),
        "other_data": sets.is_other_data,
        "versions": versions(),
    }
    table = markdown(sets, comparisons, privacy, features)
    store.put(run_tree.CLOSEST, render_grid(closest(sets, privacy), PAIR_COLUMNS))
    store.put(run_tree.EVALUATION_TABLE, table.encode())
    metrics = {**about, "compared": [_fields(each) for each in comparisons]}
    run_tree.write_json(store, run_tree.EVALUATION, metrics)
    run_tree.write_json(store, run_tree.PRIVACY, {**about, **asdict(privacy), "limits": _LIMITS})
    return table


def closest(sets: Sets, privacy: Privacy) -> NDArray[np.uint8]:
    """The closest pairs, (2k, 1, H, W): a generated slice, then its training slice, and so on."""
    rows: list[Tensor] = []
    for fake, real in privacy.closest:
        rows += [sets.fake[fake], sets.training[real]]
    return torch.stack(rows).numpy()


def markdown(sets: Sets, comparisons: Sequence[Comparison], privacy: Privacy, features: str) -> str:
    """The numbers as a table for each comparison, and the privacy check in words."""
    parts = []
    for each in comparisons:
        named = "held-out slices" if each.against == "holdout" else "real slices"
        lines = [
            f"## {each.slices:,} generated against as many {named}",
            "",
            f"| | generated | 95 % | other reals ({each.floor_of}) | 95 % |",
            "|---|---:|---|---:|---|",
        ]
        for name, value in each.metrics.items():
            floor = each.floors[name]
            lines.append(
                f"| {metric_of(name).title} | {_number(value.value)} | {_interval(value)} | "
                f"{_number(floor.value)} | {_interval(floor)} |"
            )
        parts.append("\n".join(lines))
    parts.append(
        f"Features: {features}. The interval is of 95 %, over random halves of the sets. A number "
        "that is within that of other reals is as good as can be told from so many slices."
    )
    parts.append(_privacy(sets, privacy))
    return "\n\n".join(parts) + "\n"


def _privacy(sets: Sets, privacy: Privacy) -> str:
    strongest, nearer = privacy.strongest, privacy.nearer
    lines = [
        f"## Privacy: {privacy.verdict}",
        "",
        *(f"- {reason}" for reason in privacy.reasons),
        f"- {privacy.fakes:,} generated slices were looked up among {privacy.training:,} training "
        f"slices; {privacy.references:,} real slices say what likeness means nothing"
        + (
            f" ({privacy.left_out:,} repeat another one and were left out)" * bool(privacy.left_out)
        ),
        f"- strongest sign of copies: {strongest.fakes:.2%} of the generated and "
        f"{strongest.reals:.2%} of the real slices {strongest.what} (p = {privacy.p:.2g})",
        f"- plain copies would be found from {privacy.detectable:.2%} on",
    ]
    if nearer is not None:
        lines.append(
            f"- {nearer.value:.1%} ({nearer.low:.1%} to {nearer.high:.1%}) are nearer to training "
            "slices than to as many held-out ones; 50 % says nothing"
        )
    else:
        lines.append("- too few slices are held out to say whether training slices are nearer")
    if sets.is_other_data:
        lines.append("- the real slices are not those that the run was trained on")
    return "\n".join([*lines, "", _LIMITS])


def _fields(comparison: Comparison) -> dict[str, Any]:
    return {
        "against": comparison.against,
        "floor_of": comparison.floor_of,
        "slices": comparison.slices,
        "metrics": {
            name: {**value._asdict(), "floor": comparison.floors[name]._asdict()}
            for name, value in comparison.metrics.items()
        },
    }


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _interval(estimate: Estimate) -> str:
    return f"{_number(estimate.low)} to {_number(estimate.high)}"
