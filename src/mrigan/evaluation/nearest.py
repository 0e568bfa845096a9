"""The slice of a set that another one is most like, and the two that it could be a blend of.

Likeness is a correlation of details (``bands``), after the best shift of some pixels, and of the
slice or its mirror image: 1 for a copy, however bright or contrasted, about 0 for slices that have
nothing in common. A search in three resolutions keeps it affordable: every slice of the set at the
coarsest, some candidates at the next, the best few at the finest.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mrigan.data.slices import to_unit
from mrigan.evaluation.bands import aligned, band, shifted, unit

_COARSE_SIDE_PX, _FINE_SIDE_PX = 20, 160  # of the short side, at least, where it has so many
_FINE_REACH_PX, _MIDDLE_REACH_PX = 12, 6
_SHIFTS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
_CANDIDATES = 16  # of each of two searches at the coarsest resolution
_SAME = 0.98  # correlation of two candidates from which they are one, and no pair
_CHUNK_IMAGES = 32


class Nearest(NamedTuple):
    """For each of n slices, what of a set it is most like.

    Attributes:
        match: Number of the slice of the set, (n,).
        likeness: To it, 0 to 1, (n,).
        pair: To the best sum of two slices of the set, or to one: at least ``likeness``, (n,).
    """

    match: Tensor
    likeness: Tensor
    pair: Tensor


class Gallery:
    """The slices of a set, ready to be searched.

    Args:
        images: (N, 1, H, W) uint8, N at least 2, sides from 32 pixels.
        groups: (N,) integers, the same for slices of one volume; none means that each is its own.
    """

    def __init__(self, images: Tensor, groups: Tensor | None = None) -> None:
        short = min(images.shape[2:])
        self._images = images
        self._groups = torch.arange(len(images)) if groups is None else groups
        self._step = max(1, short // _COARSE_SIDE_PX)
        self._fine_step = max(1, short // _FINE_SIDE_PX)
        self._middle_step = max(self._fine_step, self._step // 2)
        # The same details of a head, whatever its size in pixels.
        self._scale = min(1.0, short / self._fine_step / _FINE_SIDE_PX)
        self._reach = min(_FINE_REACH_PX, short // self._fine_step // 8)
        self._middle_reach = min(_MIDDLE_REACH_PX, short // self._middle_step // 8)
        parts = [to_unit(part) for part in images.split(256)]
        coarse = torch.cat([self._coarse(part) for part in parts])
        self._rows = torch.cat([unit(each.flatten(1)) for each in (coarse, coarse.flip(-1))])
        self._details = torch.cat([self._middle(part).half() for part in parts])

    def __len__(self) -> int:
        return len(self._images)

    def nearest(self, images: Tensor, groups: Tensor | None = None) -> Nearest:
        """Find what each of (n, 1, H, W), uint8, of the set's H and W, is most like.

        Args:
            images: To look up.
            groups: (n,) integers; slices of the set that are of the same group do not count.
        """
        found = []
        for first in range(0, len(images), _CHUNK_IMAGES):
            chunk = slice(first, first + _CHUNK_IMAGES)
            is_out = None if groups is None else groups[chunk, None] == self._groups
            found.append(self._search(to_unit(images[chunk]), is_out))
        match, likeness, pair = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Nearest(match, likeness, pair)

    def scores(self, images: Tensor) -> Tensor:
        """How like each of (n, 1, H, W), uint8, all of the set are, at the coarsest resolution.

        Returns:
            Correlations (n, N).
        """
        found = []
        for part in images.split(_CHUNK_IMAGES):
            scores = self._scores(_poses(self._coarse(to_unit(part))), None).amax(1)
            found.append(scores.view(len(part), 2, -1).amax(1))
        return torch.cat(found)

    def _search(self, images: Tensor, is_out: Tensor | None) -> Nearest:
        candidates = self._candidates(self._coarse(images), is_out)
        details = self._middle(images)
        likeness, pairs = _fits(details, self._posed(self._details, candidates), self._middle_reach)
        flat = pairs.flatten(1).argmax(1)
        k = candidates.shape[1]
        few = [*likeness.topk(2, dim=1).indices.T, flat // k, flat % k]
        candidates = candidates.gather(1, torch.stack(few, 1))
        chosen = self._fine(to_unit(self._images[candidates.flatten() % len(self)]))
        chosen = chosen.view(*candidates.shape, *chosen.shape[1:])
        chosen = _mirrored(chosen, candidates >= len(self))
        likeness, pairs = _fits(self._fine(images), chosen, self._reach)
        one, at = likeness.max(1)
        match = candidates.gather(1, at[:, None])[:, 0] % len(self)
        return Nearest(match, one, torch.maximum(one, pairs.flatten(1).amax(1)))

    def _candidates(self, details: Tensor, is_out: Tensor | None) -> Tensor:
        """Indices (n, k) of slices worth a closer look; from N on, of mirror images.

        Those that are most like a slice, and those most like what the first of these leaves of it:
        the other one of a blend.
        """
        poses = _poses(details)
        best, pose = self._scores(poses, is_out).max(1)
        k = min(_CANDIDATES, best.shape[1])
        alike = best.topk(k, dim=1).indices
        first = alike[:, 0]
        kept = poses[torch.arange(len(poses)), pose.gather(1, first[:, None])[:, 0]]
        row = self._rows[first]
        left = kept - (kept * row).sum(1, keepdim=True) * row
        others = self._scores(_poses(left.view_as(details)), is_out).amax(1)
        return torch.cat([alike, others.topk(k, dim=1).indices], 1)

    def _scores(self, poses: Tensor, is_out: Tensor | None) -> Tensor:
        """Correlation (n, shifts, 2N) of shifted slices with all of the set and their mirrors."""
        scores = (poses.flatten(0, 1) @ self._rows.T).view(*poses.shape[:2], -1)
        if is_out is not None:
            scores.masked_fill_(is_out.repeat(1, 2)[:, None], -1.0)
        return scores

    def _posed(self, details: Tensor, candidates: Tensor) -> Tensor:
        chosen = details[candidates % len(self)].float()
        return _mirrored(chosen, candidates >= len(self))

    def _coarse(self, images: Tensor) -> Tensor:
        return band(images, self._step, 0.0, 1.5)

    def _middle(self, images: Tensor) -> Tensor:
        return band(images, self._middle_step, 0.7, 2.0)

    def _fine(self, images: Tensor) -> Tensor:
        return band(images, self._fine_step, 2.0 * self._scale, 6.0 * self._scale)


def _poses(details: Tensor) -> Tensor:
    """Each of (n, h, w) at every small shift, as rows (n, shifts, h · w) of length 1."""
    return unit(torch.stack([shifted(details, *by).flatten(1) for by in _SHIFTS], 1))


def _mirrored(images: Tensor, is_mirrored: Tensor) -> Tensor:
    return torch.where(is_mirrored[..., None, None], images.flip(-1), images)


def _fits(images: Tensor, candidates: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """How like (n, h, w) each of its k candidates (n, k, h, w) is, and each two of them together.

    Returns:
        Correlations (n, k), and multiple correlations (n, k, k): of a least-squares fit by two
        candidates, where both count positively; 0 elsewhere.
    """
    rows = aligned(images, candidates, reach)
    r = (rows @ unit(images.flatten(1))[:, :, None])[..., 0].clamp(-1, 1)
    between = rows @ rows.transpose(1, 2)
    one, other = r[:, :, None], r[:, None, :]
    left = (1 - between**2).clamp(min=1 - _SAME**2)
    explained = (one**2 + other**2 - 2 * one * other * between) / left
    is_sum = (one > between * other) & (other > between * one) & (between < _SAME)
    return r.clamp(min=0), torch.where(is_sum, explained.clamp(0, 1).sqrt(), torch.zeros_like(left))
