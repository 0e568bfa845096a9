"""BatchNorm's running mean and variance over a step, as one rank would have them.

Each group of images moves them by ``r ← (1−m)·r + m·s``. Over a step of n groups that is
``(1−m)ⁿ·r + Σ m(1−m)ⁿ⁻¹⁻ⁱ·sᵢ``, a sum whose terms ranks can add up wherever the groups were.
"""

import torch
from torch import Tensor, nn

from mrigan.models.batchnorm import BatchNorm2d, Seen, norms_of
from mrigan.training.micro_batches import StepPart


class RunningStatistics:
    """The statistics of ``network`` over one step.

    A network without BatchNorm has no statistics and costs nothing.
    """

    def __init__(self, network: nn.Module, part: StepPart) -> None:
        self._norms = norms_of(network)
        self._part = part
        self._seen: list[Seen] = []
        for norm in self._norms:
            norm.group_images = part.group_images
        self._momentum = (self._norms[0].momentum or 0.0) if self._norms else 0.0

    @property
    def weights(self) -> list[float]:
        """Of each group of this rank in the sum, in their order; none without BatchNorm."""
        if not self._norms:
            return []
        part, momentum = self._part, self._momentum
        return [
            part.weight * momentum * (1 - momentum) ** (part.group_count - 1 - number)
            for number in part.groups
        ]

    def clear(self) -> None:
        """Begin the step again."""
        self._seen = []

    def add(self) -> None:
        """Take over what the groups of a micro-batch have left in the network."""
        for groups in zip(*(norm.seen for norm in self._norms), strict=True):
            self._seen += groups

    def term(self, weights: Tensor) -> Tensor:
        """This rank's part of the sum, (statistics,); ranks add theirs up.

        Args:
            weights: Those above, on the device.
        """
        if not self._seen:
            return weights.new_zeros(sum(2 * norm.num_features for norm in self._norms))
        variances = torch._foreach_pow([seen.inverse_std for seen in self._seen], -2)
        torch._foreach_sub_(variances, self._norms[0].eps)
        # Running variances are those of an infinite population.
        unbiased = [seen.pixels / max(seen.pixels - 1, 1) for seen in self._seen]
        torch._foreach_mul_(variances, unbiased)
        means = [seen.mean for seen in self._seen]
        pairs = zip(means, variances, strict=True)
        seen = torch.cat([each for pair in pairs for each in pair]).view(len(weights), -1)
        return weights @ seen

    def finish(self, term: Tensor, taken: Tensor) -> None:
        """Give the network the statistics after the step, unless ``taken``, a flag, says no."""
        if not self._norms:
            return
        live = [each for norm in self._norms for each in _running(norm)]
        before = torch.cat(live)
        count = self._part.group_count
        after = torch.where(taken, before * (1 - self._momentum) ** count + term, before)
        torch._foreach_copy_(live, list(after.split([len(each) for each in live])))
        moved = taken.to(torch.int64) * count
        for norm in self._norms:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(moved)  # the foreach operator would read it on the host


def _running(norm: BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None, "our BatchNorms track"
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
