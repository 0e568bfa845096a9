"""Grids, plots and the report: what a person looks at, told from its pixels and text."""

import base64
import io
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image

from mrigan.artifacts.figures import render_losses
from mrigan.artifacts.grids import GAP_GREY, render_grid
from mrigan.artifacts.report import render_report

HEIGHT, WIDTH = 37, 34


def noise(count):
    return np.random.default_rng(5).integers(0, 256, (count, 1, HEIGHT, WIDTH), np.uint8)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 8, 1), (8, 8, 1), (13, 8, 2), (5, 1, 5)]
)
def test_every_pixel_of_a_grid_is_the_slices_own(count, columns, rows):
    images = noise(count)
    grid = opened(render_grid(images, columns))
    assert grid.dtype == np.uint8
    assert grid.shape == (rows * (HEIGHT + 2) + 2, columns * (WIDTH + 2) + 2)
    rest = np.ones(grid.shape, bool)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = 2 + row * (HEIGHT + 2), 2 + column * (WIDTH + 2)
        place = np.s_[top : top + HEIGHT, left : left + WIDTH]
        assert np.array_equal(grid[place], image[0])
        rest[place] = False
    assert (grid[rest] == GAP_GREY).all()


def rows_of(count, scale=1.0):
    rng = np.random.default_rng(3)
    names = ("d_loss", "g_loss", "real_score", "fake_score")
    return [
        {"epoch": number, "images_seen": 13 * number, "images_per_second": 9.5}
        | {name: float(scale * rng.uniform(0.1, 0.9)) for name in names}
        for number in range(1, count + 1)
    ]


def is_ink(plot):
    """The axes' lines: near-black pixels, as a mask."""
    return (plot[..., :3] < 60).all(axis=-1)


def spines(plot):
    """Rows and columns of pixels that are dark over most of an axes' extent."""
    ink = is_ink(plot)
    across, down = ink.sum(axis=1), ink.sum(axis=0)
    return (
        np.flatnonzero(across > 0.6 * ink.shape[1]).tolist(),
        np.flatnonzero(down > 0.6 * ink.shape[0]).tolist(),
    )


def test_the_axes_stay_where_they_are_from_plot_to_plot():
    first = opened(render_losses(rows_of(1), 100))
    last = opened(render_losses(rows_of(100, scale=50.0), 100))
    across, down = spines(first)
    assert len(across) >= 2  # the bottom of either axes
    assert len(down) >= 1
    assert first.shape == last.shape
    assert spines(last) == (across, down)
    # Ticks and their labels: everything left of the axes and below them.
    left, bottom = min(down), max(across)
    assert np.array_equal(first[:, : left - 1], last[:, : left - 1])
    assert np.array_equal(first[bottom + 2 :], last[bottom + 2 :])


def test_an_epoch_is_drawn_at_the_same_place_early_and_late():
    rows = rows_of(40)
    early, late = opened(render_losses(rows[:20], 40)), opened(render_losses(rows, 40))
    _, (left, *_) = spines(early)
    differs = np.flatnonzero((early != late).any(axis=-1)[60:].any(axis=0))
    # The first half of the plot is the same picture, below the title.
    assert differs.min() > left + 0.45 * (early.shape[1] - left)


def test_a_value_above_the_axes_is_marked_at_the_rim():
    rows = rows_of(10)
    inside = opened(render_losses(rows, 10))
    rows[4] = rows[4] | {"d_loss": 4000.0}
    beyond = opened(render_losses(rows, 10))
    red = (beyond[..., 0] > 150) & (beyond[..., 1:3] < 80).all(axis=-1)
    were = (inside[..., 0] > 150) & (inside[..., 1:3] < 80).all(axis=-1)
    assert np.flatnonzero(red.any(axis=1)).min() < np.flatnonzero(were.any(axis=1)).min()


def test_a_plot_needs_no_rows():
    assert opened(render_losses([], 5)).shape == opened(render_losses(rows_of(1), 5)).shape


HOSTILE = '<script>alert("x")</script>&amp;\'"><img src=x onerror=alert(1)>'
SETTINGS = {
    "model": "dcgan",
    "input_uri": f"s3://bucket/{HOSTILE}",
    "output_uri": HOSTILE,
    "image_height": HEIGHT,
    "image_width": WIDTH,
    "seed": 0,
}
FACTS = {
    "settings": SETTINGS,
    "data": {"slices": 1300, "fingerprint": "f" * 64},
    "machine": {"device_name": HOSTILE},
    "versions": {"torch": "2.14.1"},
}


REAL, DRAWN = render_grid(noise(3), 8), render_grid(noise(2), 8)


@cache
def page(epochs_done):
    return render_report(
        rows=rows_of(epochs_done),
        facts=FACTS,
        epochs=7,
        images_seen=4321,
        real_grid=REAL,
        grid=DRAWN,
    ).decode()


def test_the_report_needs_nothing_from_anywhere():
    text = page(2)
    assert not re.search(r"https?:|//cdn|<link|<script|@import|url\(", text)
    sources = re.findall(r'\bsrc="([^"]{0,40})', text)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.findall(r"\b(?:href|srcset|action|data|poster)=", text)


def test_names_in_the_report_stay_text():
    text = page(2)
    assert "<script" not in text
    assert text.count("<img") == 3
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;amp;" in text


def test_the_report_holds_the_very_grids():
    text = page(2)
    for picture, caption in ((REAL, "Real slices"), (DRAWN, "Generated after 4,321 images")):
        code = base64.b64encode(picture).decode()
        assert f'src="data:image/png;base64,{code}"><figcaption>{caption}<' in text


def test_a_report_before_the_end_of_the_first_epoch_says_so():
    assert "<b>0 of 7</b>" in page(0)


def test_the_report_tells_the_last_epoch_and_the_limits():
    text = page(2)
    assert "<b>2 of 7</b>" in text
    assert "1,300 slices" in text
    assert "not for diagnosis" in text
