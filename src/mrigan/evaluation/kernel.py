"""Distances between sets of features: the kernel distance, and Fréchet's.

KID (Bińkowski et al. 2018, arXiv 1801.01401): the squared maximum mean discrepancy under the
kernel (x·y / d + 1)³, by its unbiased estimator: about 0, and a little below it as often as above,
for sets of one distribution, whatever their size. Fréchet's distance between Gaussians (Heusel et
al. 2017, arXiv 1706.08500) is biased: for few slices it is large, so compare it at equal numbers
only.
"""

import math

import torch
from torch import Tensor


class KernelDistance:
    """KID of two sets of features, (n, d) and (m, d), and of any rows of them."""

    def __init__(self, one: Tensor, other: Tensor) -> None:
        one, other = one.double(), other.double()
        self._within, self._within_other = _kernel(one, one), _kernel(other, other)
        self._between = _kernel(one, other)

    def __call__(self, rows: Tensor, others: Tensor) -> float:
        """KID of ``rows`` (i,) and ``others`` (j,), each 2 at least."""
        between = self._between[rows][:, others].mean()
        within = _mean_without_self(self._within[rows][:, rows])
        within_other = _mean_without_self(self._within_other[others][:, others])
        return float(within + within_other - 2 * between)


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Fréchet's distance of two sets of features, (n, d) and (m, d), n and m 2 at least."""
    first, second = (_centred(each.double()) for each in (one, other))
    if min(len(first), len(second)) < first.shape[1]:
        # The same sum of square roots, by way of the products of slices and not of features.
        shared = torch.linalg.svdvals(first @ second.T).sum()
    else:
        values, vectors = torch.linalg.eigh(first.T @ first)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        products = root @ (second.T @ second) @ root
        shared = torch.linalg.eigvalsh(products).clamp(min=0).sqrt().sum()
    means = (one.double().mean(0) - other.double().mean(0)).square().sum()
    distance = means + first.square().sum() + second.square().sum() - 2 * shared
    return max(0.0, float(distance))


def _centred(rows: Tensor) -> Tensor:
    """Rows whose products with themselves, transposed, are their covariance."""
    return (rows - rows.mean(0)) / math.sqrt(len(rows) - 1)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _mean_without_self(kernel: Tensor) -> Tensor:
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))
