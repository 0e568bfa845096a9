"""The notebook's training as plainly as it is usually written: fp32, NCHW, a float32 stack.

Same widths and losses as ``mrigan.models.dcgan``; none of its tricks. For comparison only.
"""

import torch
from torch import Tensor, nn

from mrigan.models.dcgan.networks import BASE_CHANNELS, D_WIDTHS, G_WIDTHS

LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)


def generator(latent_dim: int, height: int, width: int) -> nn.Sequential:
    """Latents to images; H and W divisible by 8."""
    base = (BASE_CHANNELS, height // 8, width // 8)
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, BASE_CHANNELS * base[1] * base[2]),
        nn.Unflatten(1, base),
        nn.BatchNorm2d(BASE_CHANNELS),
    ]
    channels = BASE_CHANNELS
    for out in G_WIDTHS:
        layers += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(channels, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(0.2),
        ]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1), nn.Tanh())


def discriminator(height: int, width: int) -> nn.Sequential:
    """Images to logits (N, 1)."""
    layers: list[nn.Module] = []
    channels = 1
    for out in D_WIDTHS:
        layers += [
            nn.Conv2d(channels, out, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Dropout2d(0.25),
        ]
        channels, height, width = out, (height - 1) // 2 + 1, (width - 1) // 2 + 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, 1))


class PlainTrainer:
    """``train_gan`` of the notebook: a window of D, its step, a window of G, its step."""

    def __init__(self, stack: Tensor, latent_dim: int, batch_size: int, steps: int) -> None:
        self.stack, self.latent_dim = stack, latent_dim
        self.batch_size, self.steps = batch_size, steps
        height, width = stack.shape[-2:]
        self.G = generator(latent_dim, height, width).to(stack.device)
        self.D = discriminator(height, width).to(stack.device)
        self.g_optim = torch.optim.Adam(self.G.parameters(), LEARNING_RATE, BETAS)
        self.d_optim = torch.optim.Adam(self.D.parameters(), LEARNING_RATE, BETAS)
        self.bce = nn.BCEWithLogitsLoss()

    def step(self) -> int:
        """One optimizer step of each network; returns the reals it showed."""
        device = self.stack.device
        ones = torch.ones(self.batch_size, 1, device=device)
        zeros = torch.zeros(self.batch_size, 1, device=device)
        self.d_optim.zero_grad()
        for _ in range(self.steps):
            real = self.stack[torch.randint(len(self.stack), (self.batch_size,), device=device)]
            fake = self.G(torch.randn(self.batch_size, self.latent_dim, device=device)).detach()
            real_loss = self.bce(self.D(real), ones)
            fake_loss = self.bce(self.D(fake), zeros)
            ((real_loss + fake_loss) / self.steps).backward()
        self.d_optim.step()
        self.g_optim.zero_grad()
        for _ in range(self.steps):
            fake = self.G(torch.randn(self.batch_size, self.latent_dim, device=device))
            (self.bce(self.D(fake), ones) / self.steps).backward()
        self.g_optim.step()
        return self.batch_size * self.steps
