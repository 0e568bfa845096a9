"""BatchNorm over the micro-batches of all ranks at once (Ioffe & Szegedy 2015, arXiv 1502.03167).

torch's own SyncBatchNorm exists on accelerators only; this one runs wherever ranks can add up.
"""

import torch
from torch import Tensor, nn

from mrigan.runtime.ranks import Ranks


class SyncBatchNorm2d(nn.BatchNorm2d):
    """As ``BatchNorm2d`` over the images of every rank, empty shares included.

    All ranks go forward and backward through it together. Evaluation is ``BatchNorm2d``'s.
    """

    ranks: Ranks

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, ranks: Ranks) -> "SyncBatchNorm2d":
        """Take over the weights and statistics of ``norm``, which optimizers hold already."""
        synchronised = cls(norm.num_features, norm.eps, norm.momentum, device=norm.weight.device)
        synchronised.weight, synchronised.bias = norm.weight, norm.bias
        synchronised.load_state_dict(norm.state_dict())
        synchronised.ranks = ranks
        return synchronised

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), N ≥ 0."""
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype is torch.float64 else x.float()
        axes = (0, 2, 3)
        pixels = wide.new_full((1,), wide[:, 0].numel())
        total = self.ranks.added_up(torch.cat([wide.sum(axes), pixels]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = wide - mean[:, None, None]
        variance = self.ranks.added_up(centred.square().sum(axes)) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1))
        gain = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * gain[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum or 0.0
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
        self.num_batches_tracked.add_(1)


def synchronise(network: nn.Module, ranks: Ranks) -> None:
    """Put ``SyncBatchNorm2d`` in the place of every BatchNorm; names of the weights stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm2d.of(child, ranks))


def is_synchronised(network: nn.Module) -> bool:
    """Whether its BatchNorms wait for the other ranks."""
    return any(isinstance(module, SyncBatchNorm2d) for module in network.modules())
