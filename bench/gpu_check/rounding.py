"""How far gradients may be from those of float64, from the precision and the number of terms.

A sum of T terms is off by about u·√T of its spread (u: half a unit in the last place), and errors
of L layers in a row add up like a random walk, so a value after L layers is off by δ = u·√(T·L) of
its spread. That is also what moves activations across the kink of a leaky ReLU: of values spread as
a normal distribution a share of 2δ/√(2π) lies within δ of zero, and each that changes sides changes
its slope by 1 − LEAK. Over K such layers the slopes change by (1 − LEAK)·√(0.8·δ·K) of their norm,
which for fp32 is far more than the rounding itself. A gradient's norm, of thousands of numbers, is
allowed the sum of both; a single value four times δ, as many standard deviations.
"""

import math
from typing import NamedTuple

from torch import nn

from mrigan.models.r3.layers import LEAK

HALF_ULP = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-9}
_DEVIATIONS = 4.0


class Allowed(NamedTuple):
    """Both relative: to a norm, and to a value of the order of one."""

    gradient: float
    value: float


def allowed(precision: str, *networks: nn.Module, passes: int) -> Allowed:
    """What a half of a step may be off by.

    Args:
        precision: Of the convolutions; in bf16 sums are kept in fp32 and rounded once a layer.
        networks: That it passes through.
        passes: How often, forward and back.
    """
    weights = [each for network in networks for each in network.parameters()]
    kernels = [weight for weight in weights if weight.dim() >= 2]
    terms = 1 if precision == "bf16" else max(weight[0].numel() for weight in kernels)
    kinks = sum(weight.dim() == 1 for weight in weights)
    off = HALF_ULP[precision] * math.sqrt(terms * len(kernels) * passes)
    flips = (1 - LEAK) * math.sqrt(0.8 * off * kinks)
    return Allowed(gradient=off + flips, value=_DEVIATIONS * off)
