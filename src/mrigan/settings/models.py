"""The models that MODEL may name, with the settings that each one decides where nobody sets them.

A family of networks is a package of ``mrigan.models``; its models differ in size. Plain values:
``mrigan --help`` lists them without loading torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scheduled = Literal["schedule"]  # follows the family's schedule instead of one value
Which = Literal["latest", "best"]  # of a run's generators: the newest, or that of the best score


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model: its family, what the settings must respect, and its defaults.

    Attributes:
        family: Package of ``mrigan.models`` that has its networks.
        couples_images: Whether BatchNorm sees ``batch_size`` images together, so that a micro-batch
            must hold whole groups of them.
        follows_length: Whether its schedule is a function of the run's length, so that a run can't
            be prolonged.
    """

    family: str
    couples_images: bool = False
    follows_length: bool = False
    latent_dim: int
    accumulation_steps: int
    g_lr: float
    d_lr: float
    beta1: float
    beta2: float | Scheduled
    ema_images: float | Scheduled
    holdout: float  # percent


def _r3(learning_rate: float) -> Model:
    """An ``r3`` model; narrow networks take larger rates (docs/r3.md)."""
    return Model(
        family="r3",
        follows_length=True,
        latent_dim=64,
        accumulation_steps=1,  # steps teach, and nothing in the loss wants more images at once
        g_lr=learning_rate,
        d_lr=learning_rate,
        beta1=0.0,
        beta2="schedule",
        ema_images="schedule",
        holdout=10.0,
    )


MODELS: dict[str, Model] = {
    # Radford et al. 2016 (arXiv 1511.06434), as the notebook had it.
    "dcgan": Model(
        family="dcgan",
        couples_images=True,
        latent_dim=100,
        accumulation_steps=8,
        g_lr=2e-4,
        d_lr=2e-4,
        beta1=0.5,
        beta2=0.999,
        ema_images=0.0,
        holdout=0.0,
    ),
    "r3-tiny": _r3(4e-3),
    "r3-s": _r3(2e-4),
    "r3-m": _r3(2e-4),
    "r3-l": _r3(2e-4),
}
DEFAULT = "dcgan"


def defaults_of(field: str) -> Mapping[str, object]:
    """What each model decides for the setting ``field``; empty if no model decides it."""
    return {name: getattr(model, field) for name, model in MODELS.items() if hasattr(model, field)}


def of_model(field: str) -> Callable[[dict[str, Any]], Any]:
    """A default factory: what the model that was chosen decides for ``field``."""
    return lambda validated: getattr(MODELS[validated["model"]], field)
