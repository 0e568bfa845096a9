"""Grids, plots and the report: what a person looks at, told from its pixels and text."""

import base64
import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image

from mrigan.artifacts.figures import render_losses
from mrigan.artifacts.grids import GAP_GREY, render_grid
from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.report.card import render_card
from mrigan.artifacts.report.content import Content, Refusals, Stored
from mrigan.artifacts.report.page import render_report, tell_state
from mrigan.artifacts.report.pictures import exact
from mrigan.artifacts.run_facts import DataFacts, MachineFacts, RunFacts
from mrigan.artifacts.run_status import AlarmSpan, BestScore, RunStatus
from mrigan.models.family import family_of
from mrigan.settings.fields import Settings
from mrigan.storage.store import open_store

HEIGHT, WIDTH = 37, 34
RED = (0xC0, 0x39, 0x2B)


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


def laid_out_by_hand(images, columns):
    """The PNG of a grid whose slices are copied into place one by one."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    grid = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2), GAP_GREY, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = 2 + row * (height + 2), 2 + column * (width + 2)
        grid[top : top + height, left : left + width] = image[0]
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(1, 33, 35), (7, 32, 47), (9, 51, 34), (32, 37, 41)])
@pytest.mark.parametrize("columns", [1, 3, 8])
def test_a_grid_has_the_bytes_of_one_that_is_laid_out_by_hand(shape, columns):
    count, *size = shape
    images = np.random.default_rng(count).integers(0, 256, (count, 1, *size), np.uint8)
    assert render_grid(images, columns) == laid_out_by_hand(images, columns)


def as_rows(objects):
    """Rows, each from its JSON."""
    return [EpochRow.from_json({"seconds": 1.0} | each) for each in objects]


def plot_of(objects, epochs, model="dcgan", **options):
    return render_losses(as_rows(objects), epochs, family_of(model).chart, **options)


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
    first = opened(plot_of(rows_of(1), 100))
    last = opened(plot_of(rows_of(100, scale=1.1), 100))
    across, down = spines(first)
    assert len(across) >= 2  # the bottom of either axes
    assert len(down) >= 1
    assert first.shape == last.shape
    assert spines(last) == (across, down)
    # Ticks and their labels: everything left of the axes and below them.
    left, bottom = min(down), max(across)
    assert np.array_equal(first[:, : left - 1], last[:, : left - 1])
    assert np.array_equal(first[bottom + 2 :], last[bottom + 2 :])


@pytest.mark.parametrize("loss", [1.2, 1.7, 2.8, 5.7])
def test_losses_use_the_room_of_their_axis(loss):
    rows = [row | {"d_loss": loss, "g_loss": loss / 2} for row in rows_of(9)]
    plot = opened(plot_of(rows, 9))[..., :3].astype(int)
    across, (left, *_) = spines(plot)
    red = (np.abs(plot - RED) < 25).all(axis=-1)[:, left : left + plot.shape[1] // 3]
    line, bottom = np.median(np.flatnonzero(red.any(axis=1))), min(across)
    # At half of the axis or higher, of which the title and the legend take a part.
    assert line < 0.56 * bottom


def test_an_epoch_is_drawn_at_the_same_place_early_and_late():
    rows = rows_of(40)
    early, late = opened(plot_of(rows[:20], 40)), opened(plot_of(rows, 40))
    _, (left, *_) = spines(early)
    differs = np.flatnonzero((early != late).any(axis=-1)[60:].any(axis=0))
    # The first half of the plot is the same picture, below the title.
    assert differs.min() > left + 0.45 * (early.shape[1] - left)


def test_a_value_above_the_axes_is_marked_at_the_rim():
    rows = rows_of(10)
    inside = opened(plot_of(rows, 10))
    rows[4] = rows[4] | {"d_loss": 4000.0}
    beyond = opened(plot_of(rows, 10))
    red = (beyond[..., 0] > 150) & (beyond[..., 1:3] < 80).all(axis=-1)
    were = (inside[..., 0] > 150) & (inside[..., 1:3] < 80).all(axis=-1)
    half = beyond.shape[1] // 2 + 90  # right of it is the legend
    assert red[:, :half].any(axis=1).argmax() < were[:, :half].any(axis=1).argmax()


def test_a_plot_needs_no_rows():
    assert opened(plot_of([], 5)).shape == opened(plot_of(rows_of(1), 5)).shape


HOSTILE = '<script>alert("x")</script>&amp;\'"><img src=x onerror=alert(1)>'
SETTINGS = {
    "model": "dcgan",
    "input_uri": f"s3://bucket/{HOSTILE}",
    "output_uri": HOSTILE,
    "image_height": HEIGHT,
    "image_width": WIDTH,
    "seed": 0,
    "latent_dim": 100,
}
DATA = DataFacts(slices=1300, training=1300, holdout=0, fingerprint="f" * 64)
FACTS = RunFacts(
    settings=SETTINGS,
    identity={},
    revision=2,
    data=DATA,
    machine=MachineFacts(
        device="cpu", device_name=HOSTILE, precision="fp32", platform="linux", ranks=1
    ),
    versions={"torch": "2.14.1"},
)


REAL, DRAWN = render_grid(noise(3), 8), render_grid(noise(2), 8)


def content_of(rows, **changed):
    told = {
        "facts": FACTS,
        "status": RunStatus(
            state="running",
            epoch=len(rows),
            epochs=7,
            images_seen=4321,
            memory={"weights_mib": 1.5},
            started="2026-11-27T08:00:00Z",
        ),
        "rows": as_rows(rows),
        "best": None,
        "refusals": Refusals(objects=1302, refused=2, copies=1, reasons=(("zero bytes", 2),)),
        "uri": "runs/first",
        "real_grid": REAL,
        "grid": DRAWN,
        "losses": plot_of(rows, 7),
        "stored": Stored(),
    }
    return Content(**told | changed)


@cache
def page(epochs_done):
    return render_report(content_of(rows_of(epochs_done))).decode()


def pictures(text):
    """What is in the page, decoded."""
    codes = re.findall(r'src="data:image/(?:png|webp);base64,([^"]+)"', text)
    return [opened(base64.b64decode(code)) for code in codes]


def test_the_report_needs_nothing_from_anywhere():
    text = page(2)
    assert not re.search(r"https?:|//cdn|<link|@import|url\(", text)
    assert len(pictures(text)) == text.count("<img") == 3
    assert not re.findall(r"\b(?:href|srcset|action|data|poster)=", text)


def test_names_in_the_report_stay_text():
    text = page(2)
    assert "<script" not in text  # there is one with the slider, and a slider with two epochs
    assert text.count("<img") == 3
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;amp;" in text


def test_the_report_holds_the_very_pixels_of_the_grids():
    real, drawn, _ = pictures(page(2))
    for found, expected in ((real, REAL), (drawn, DRAWN)):
        np.testing.assert_array_equal(found[..., 0], opened(expected))
    assert "Generated after 4,321 images" in page(2)


def test_grids_that_are_too_large_lose_rows_and_no_pixel():
    images = np.random.default_rng(0).integers(0, 256, (32, 1, 200, 160), np.uint8)
    grid = render_grid(images, 8)
    found = opened(exact(grid, 4, most_bytes=600_000).data)[..., 0]
    assert found.shape[0] in {406, 608}
    np.testing.assert_array_equal(found, opened(grid)[: found.shape[0]])


def test_a_long_run_of_large_slices_makes_a_page_of_less_than_5_mb():
    images = np.random.default_rng(0).integers(0, 256, (32, 1, 256, 256), np.uint8)
    grid = render_grid(images, 8)
    stored = Stored(frames=tuple((epoch, grid) for epoch in range(1, 11)), closest=grid)
    settings = {**SETTINGS, "image_height": 256, "image_width": 256}
    content = content_of(rows_of(2), real_grid=grid, grid=grid, stored=stored,
                         facts=replace(FACTS, settings=settings))  # fmt: skip
    assert len(render_report(content)) < 5e6


def test_a_report_before_the_end_of_the_first_epoch_says_so():
    assert "after epoch 0 of 7" in page(0)


def test_the_report_tells_state_data_and_limits():
    text = page(2)
    assert "<b>Running</b> after epoch 2 of 7, 4,321 images" in text
    assert "2026-11-27 08:00:00 UTC" in text
    assert "1,300 of " in text
    assert "1,302 objects were listed; 2 refused" in text
    assert "<th>2</th><td>zero bytes</td>" in text
    assert "not for diagnosis" in text


def test_the_state_at_the_top_is_told_anew_and_nothing_else(tmp_path):
    store = open_store(str(tmp_path))
    tell_state(store, RunStatus(state="failed"))  # there is no report yet
    store.put("report.html", page(2).encode())
    ended = RunStatus(state="failed", reason="a <b>bad</b> end", epoch=3, epochs=7, images_seen=5)
    tell_state(store, ended)
    text = store.get("report.html").decode()
    assert "<b>Failed</b> after epoch 3 of 7, 5 images: a &lt;b&gt;bad&lt;/b&gt; end" in text
    assert "Running" not in text
    assert re.sub(r"<p class=\"state.*?</p>", "", text) == re.sub(
        r"<p class=\"state.*?</p>", "", page(2)
    )


def test_only_the_settings_of_the_chosen_model_are_told():
    settings = {**Settings(model="dcgan").model_dump(mode="json"), **SETTINGS}
    of_dcgan = render_report(content_of([], facts=replace(FACTS, settings=settings))).decode()
    assert "<th>augment_rotation</th>" not in of_dcgan
    assert "<th>sync_batchnorm</th>" in of_dcgan
    settings["model"] = "r3-s"
    of_r3 = render_report(content_of([], facts=replace(FACTS, settings=settings))).decode()
    assert "<th>augment_rotation</th>" in of_r3
    assert "<th>sync_batchnorm</th>" not in of_r3


def test_the_model_card_tells_data_quality_and_privacy():
    scored = rows_of(2)
    scored[-1] |= SCORE | {"swd": 0.25, "coverage": 0.5}
    text = render_card(content_of(scored)).decode()
    assert text.startswith("# Model card: dcgan on 1,300 slices\n")
    assert "distance 0.250 (other real slices: 0.050)" in text
    assert "Not checked." in text
    flagged = Stored(privacy={"verdict": "FLAG", "reasons": ["3 copies"], "limits": "None."})
    assert "FLAG\n- 3 copies" in render_card(content_of(scored, stored=flagged)).decode()


SCORE = {
    "swd_floor": 0.05,
    "swd_against": "holdout",
    "spread": 1.0,
    "duplicates": 0.0,
    "score_seconds": 1.0,
}


def r3_rows_of(count, *, scored=True):
    rng = np.random.default_rng(4)
    rows = []
    for number in range(1, count + 1):
        row = {
            "epoch": number,
            "images_seen": number,
            "images_per_second": 9.5,
            "d_loss": 0.6,
            "g_loss": 0.9,
            "real_score": 0.6,
            "augment_p": 0.3,
        }
        if scored and number % 2:
            row |= SCORE | {"swd": float(rng.uniform(0.1, 0.9))}
        rows.append(row)
    return rows


def test_the_distance_is_a_third_panel_from_the_first_plot_on():
    two = opened(plot_of(rows_of(3), 9))
    for rows in ([], r3_rows_of(1), r3_rows_of(9)):
        three = opened(plot_of(rows, 9, model="r3-s", is_scored=True))
        assert three.shape[1] == two.shape[1]
        assert three.shape[0] > 1.3 * two.shape[0]


def test_the_axes_of_a_scored_plot_stay_too():
    first, last = (
        opened(plot_of(r3_rows_of(count), 50, model="r3-s", is_scored=True)) for count in (1, 50)
    )
    across, down = spines(first)
    assert len(across) >= 3
    assert spines(last) == (across, down)
    assert np.array_equal(first[:, : min(down) - 1], last[:, : min(down) - 1])


@pytest.mark.parametrize(("model", "chance"), [("r3-s", np.log(2)), ("dcgan", 2 * np.log(2))])
def test_chance_is_marked_where_each_family_has_it(model, chance):
    def plot(d_loss):
        rows = [row | {"d_loss": d_loss} for row in rows_of(9)]
        return opened(plot_of(rows, 9, model=model))

    # The title is black and the legend is the first red: D's line is the second.
    red = np.flatnonzero(
        (np.abs(plot(chance)[..., :3].astype(int) - RED) < 25).all(axis=-1).sum(axis=1) > 300
    )
    line, elsewhere = int(np.median(red)), plot(0.05)
    _, (left, *_) = spines(elsewhere)
    # Left of the first epoch there is nothing but the grid, faint, and the mark.
    beside = elsewhere[line - 3 : line + 4, left + 5 : left + 60, :3]
    assert (beside < 215).any()


def test_the_report_tells_warnings_the_best_and_what_is_held_out():
    assert "Warnings" not in page(2)
    scored = rows_of(2)
    scored[-1] |= SCORE | {"swd": 0.25, "coverage": 0.5}
    status = RunStatus(
        state="running",
        epoch=2,
        epochs=7,
        summary={"alarms": [AlarmSpan("collapse", 3, 5)._asdict()]},
    )
    text = render_report(
        content_of(
            scored,
            facts=replace(FACTS, data=replace(DATA, training=1200, holdout=100)),
            status=status,
            best=BestScore(1, 13, 0.125),
        )
    ).decode()
    assert "<h2>Warnings</h2>" in text
    assert "<th>epochs 3 to 5</th><td>The generator draws too much of the same<" in text
    assert "<b>0.250</b><span>distance; best 0.125 at epoch 1</span>" in text
    assert "<span>other reals: 0.050</span>" in text
    assert "<b>50%</b>" in text
    assert "held-out slices" in text
    assert "(1,200 trained on, 100 held out)" in text
