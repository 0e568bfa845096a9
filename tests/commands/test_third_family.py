"""A third family of networks is one module and one entry: nothing else knows of it."""

import json
import sys
from types import ModuleType

import torch
from torch import nn

from mrigan.models.family import Chart, Curve, Family, Half, Recipe, Values
from mrigan.settings.models import MODELS, Model
from mrigan.storage.store import open_store


class Generator(nn.Module):
    """One matrix from latents to pixels."""

    def __init__(self, latent_dim, height, width):
        super().__init__()
        self.latent_dim, self.size = latent_dim, (height, width)
        self.to_pixels = nn.Linear(latent_dim, height * width)

    def forward(self, z):
        return self.to_pixels(z).tanh().view(len(z), 1, *self.size)


class Discriminator(nn.Module):
    """One matrix from pixels to a logit."""

    def __init__(self, height, width):
        super().__init__()
        self.stage = nn.Linear(height * width, 8)
        self.to_logit = nn.Linear(8, 1)

    def stages_from_image(self):
        return [self.stage]

    def forward(self, images):
        return self.to_logit(self.stage(images.flatten(1)).relu()).squeeze(1)


def networks(settings):
    size = (settings.image_height, settings.image_width)
    return Generator(settings.latent_dim, *size), Discriminator(*size)


def d_losses(G, D, batch, autocast, gamma):
    """Least squares (Mao et al. 2017, arXiv 1611.04076)."""
    with autocast:
        with torch.no_grad():
            fake = G(batch.z)
        loss = ((D(batch.real) - 1).square() + D(fake).square()).sum()
    return loss, [loss.detach()[None]]


def g_losses(G, D, batch, autocast, gamma):
    with autocast:
        loss = (D(G(batch.z)) - 1).square().sum()
    return loss, [loss.detach()[None]]


FAMILY = Family(
    networks=networks,
    recipe=lambda settings, slices, total_images: Recipe(
        d=Half(losses=d_losses, sums=("d_loss",)),
        g=Half(losses=g_losses, sums=("g_loss",), takes_reals=False),
        values=lambda images_seen: Values(1.0, float(settings.beta2), 0.0, 100.0),
    ),
    chart=Chart(
        losses=(Curve("d_loss", "D"), Curve("g_loss", "G")),
        loss_range=(0.0, 2.0),
        chance_loss=0.5,
        scores=(Curve("none", "none"), Curve("neither", "neither")),
        scores_label="",
    ),
)
MODEL = Model(
    family="toy",
    latent_dim=7,
    accumulation_steps=2,
    g_lr=1e-3,
    d_lr=1e-3,
    beta1=0.0,
    beta2=0.99,
    ema_images=100.0,
    holdout=20.0,
)


def test_a_family_of_one_module_and_one_entry_is_trained_resumed_and_scored(
    monkeypatch, tmp_path, train, mrigan
):
    package, module = ModuleType("mrigan.models.toy"), ModuleType("mrigan.models.toy.family")
    module.FAMILY = FAMILY
    for each in (package, module):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    monkeypatch.setitem(MODELS, "toy", MODEL)
    uri = str(tmp_path / "run")
    # The defaults of the tests' runs are for another model.
    chosen = {"model": "toy", "latent_dim": 7, "accumulation_steps": 2, "freeze_d": 0}
    assert train(uri, epochs=1, **chosen).status == 0
    ended = train(uri, epochs=3, **chosen)
    assert (ended.status, ended.err) == (0, "")
    assert "resumed images_seen=" in ended.out
    store = open_store(uri)
    settings = json.loads(store.get("run.json"))["settings"]
    assert (settings["beta2"], settings["holdout"]) == (0.99, 20.0)
    rows = [json.loads(line) for line in store.get("metrics.jsonl").splitlines()]
    assert rows[2]["swd_against"] == "holdout"
    assert rows[2]["d_loss"] != rows[0]["d_loss"]
    for key in ("model/generator.safetensors", "plots/losses.png", "report.html"):
        assert store.head(key), key
    helped = " ".join(mrigan("train", "--help").out.split())
    assert "r3-l|toy" in helped.replace("| ", "|")
    assert "0.99 (toy)" in helped
    refused = train(str(tmp_path / "new"), init_from=uri, **chosen | {"freeze_d": 2})
    assert "at this size it has 1" in refused.err
