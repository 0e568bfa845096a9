"""`mrigan compare`: runs side by side, whatever each of them has."""

import base64
import io
import json
import re

import pytest
from PIL import Image

from mrigan.jobs.compare.runs import short_names
from mrigan.storage.store import open_store


@pytest.fixture(scope="module")
def runs(train, mrigan, tmp_path_factory):
    """A run that is evaluated, and a shorter one of another model that is not."""
    folder = tmp_path_factory.mktemp("runs")
    shared = {"input_uri": "phantom://60", "batch_size": 8, "accumulation_steps": 1, "holdout": 20}
    for name, more in (("long", {"epochs": 3}), ("short", {"epochs": 1, "model": "r3-tiny"})):
        ended = train(str(folder / name), **shared | more)
        assert ended.status == 0, ended.err
    assert mrigan("evaluate", folder / "long", "--count", 24).status == 0
    return str(folder / "long"), str(folder / "short")


def pictures(page):
    codes = re.findall(r'src="data:image/(?:png|webp);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in codes]


def cells(table, title):
    line = next(line for line in table.splitlines() if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_runs_stand_side_by_side_in_a_table_and_on_a_page(mrigan, runs, store_uri):
    ended = mrigan("compare", *runs, "--to", f"{store_uri}/two.html")
    assert ended.status == 0, ended.err
    assert cells(ended.out, "model") == ["dcgan", "r3-tiny"]
    seen = [json.loads(open_store(run).get("status.json"))["images_seen"] for run in runs]
    assert cells(ended.out, "images seen") == [f"{count:,}" for count in seen]
    kid = json.loads(open_store(runs[0]).get("evaluation/metrics.json"))["compared"][0]["metrics"][
        "kid"
    ]
    evaluated, not_evaluated = cells(ended.out, "kernel distance (KID)")
    assert evaluated.startswith(f"{kid['value']:.1f} (") or evaluated.startswith(
        f"{kid['value']:.3f} ("
    )
    assert not_evaluated == "–"
    page = open_store(store_uri).get("two.html").decode()
    assert not re.search(r"https?:|<link|<script|@import|url\(", page)
    curves, *samples = pictures(page)
    assert curves.width > 800
    # Of the longer run those after as many images as the shorter one has.
    for picture, run in zip(samples, runs, strict=True):
        with Image.open(io.BytesIO(open_store(run).get("samples/epoch-0001.png"))) as grid:
            assert picture.convert("L").tobytes() == grid.tobytes()


def test_what_may_not_be_compared_is_said(mrigan, train, runs, tmp_path):
    other = str(tmp_path / "other")
    assert train(other, input_uri="phantom://50", epochs=1, image_height=40).status == 0
    ended = mrigan("compare", runs[0], other)
    assert "different sizes" in ended.out
    assert "different slices" in ended.out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((0,), 2, "1 runs: name 2 to 8"),
        ((0, 0), 2, "1 runs: name 2 to 8"),
        ((0, 1, "--to", "page.png"), 2, "does not end in .html"),
        ((0, "nowhere"), 5, "no run is there"),
    ],
)
def test_what_can_not_be_compared_is_refused(mrigan, runs, arguments, status, said):
    named = [runs[each] if isinstance(each, int) else each for each in arguments]
    ended = mrigan("compare", *named)
    assert (ended.status, ended.err.count("\n")) == (status, 1)
    assert said in ended.err


def test_names_are_as_short_as_they_can_be():
    assert short_names(["runs/a", "s3://bucket/runs/b/"]) == ["a", "b"]
    assert short_names(["x/one/run", "x/two/run"]) == ["one/run", "two/run"]
