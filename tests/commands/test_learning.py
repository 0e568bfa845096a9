"""That a run teaches its generator to draw: the job with its own defaults, on phantoms."""

import json

import pytest
import torch

from mrigan.data.phantom import draw
from mrigan.evaluation.sliced_wasserstein import sliced_wasserstein
from mrigan.storage.store import open_store

HEIGHT, WIDTH = 40, 32


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_r3_tiny_comes_nearer_to_unseen_slices_than_their_mean_does(train, tmp_path):
    uri = str(tmp_path / "run")
    ended = train(
        uri,
        model="r3-tiny",
        input_uri="phantom://512",
        image_height=HEIGHT,
        image_width=WIDTH,
        batch_size=8,
        accumulation_steps=1,
        epochs=10,
        holdout=20,
    )
    assert (ended.status, ended.err) == (0, "")
    reals = torch.stack([torch.from_numpy(draw(index, HEIGHT, WIDTH)) for index in range(200)])
    mean = reals.float().mean(0).round().byte().expand_as(reals)
    of_mean = sliced_wasserstein(reals[:, None], mean[:, None])
    rows = [json.loads(row) for row in open_store(uri).get("metrics.jsonl").splitlines()]
    assert rows[-1]["swd_against"] == "holdout"
    assert rows[-1]["swd"] < 0.5 * sum(of_mean) / len(of_mean)
