"""BatchNorm over groups of a batch, so that one pass may hold several groups of a step.

Ioffe & Szegedy 2015 (arXiv 1502.03167). Each group is normalised by its own statistics, as if it
had come alone. Running statistics are not moved by a forward pass: a step moves them once, from
the statistics that its groups left in ``seen`` (training/running_statistics.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.runtime.ranks import Ranks


class Seen(NamedTuple):
    """Statistics of one group."""

    mean: Tensor  # (C,)
    inverse_std: Tensor  # (C,), of the biased variance plus eps
    pixels: int  # that they are over


class BatchNorm2d(nn.BatchNorm2d):
    """As torch's, with statistics for every ``group_images`` images of a training batch.

    Attributes:
        group_images: Images in a group; 0 takes the whole batch as one. The last may be smaller.
        seen: Statistics of the groups of the last training pass.
    """

    group_images: int = 0
    seen: list[Seen]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        self.seen = []
        groups = x.split(self.group_images or max(len(x), 1))
        parts = [self._normalised(group) for group in groups]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _normalised(self, x: Tensor) -> Tensor:
        out, mean, inverse_std = torch.native_batch_norm(
            x,
            self.weight,
            self.bias,
            None,
            None,
            True,
            0.0,
            self.eps,
        )
        self.seen.append(Seen(mean.detach(), inverse_std.detach(), x[:, 0].numel()))
        return out


class SyncBatchNorm2d(BatchNorm2d):
    """Over the groups of all ranks at once, empty ones included.

    torch's own exists on accelerators only; this one runs wherever ranks can add up. All ranks go
    forward and backward through it together. Evaluation is ``BatchNorm2d``'s.
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

    def _normalised(self, x: Tensor) -> Tensor:
        wide = x if x.dtype is torch.float64 else x.float()
        axes = (0, 2, 3)
        pixels = wide.new_full((1,), wide[:, 0].numel())
        total = self.ranks.added_up(torch.cat([wide.sum(axes), pixels]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = wide - mean[:, None, None]
        variance = self.ranks.added_up(centred.square().sum(axes)) / count
        inverse_std = torch.rsqrt(variance + self.eps)
        self.seen.append(Seen(mean.detach(), inverse_std.detach(), int(count)))
        gain = self.weight * inverse_std
        return (centred * gain[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def norms_of(network: nn.Module) -> list[BatchNorm2d]:
    """The BatchNorms of ``network``, in order."""
    return [module for module in network.modules() if isinstance(module, BatchNorm2d)]


def synchronise(network: nn.Module, ranks: Ranks) -> None:
    """Put ``SyncBatchNorm2d`` in the place of every BatchNorm; names of the weights stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm2d.of(child, ranks))


def is_synchronised(network: nn.Module) -> bool:
    """Whether its BatchNorms wait for the other ranks."""
    return any(isinstance(module, SyncBatchNorm2d) for module in network.modules())
