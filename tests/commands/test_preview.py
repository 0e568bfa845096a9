"""``mrigan preview``: the first column is the slice itself, the others what D may see."""

import io

import numpy as np
import pytest
from PIL import Image

from mrigan.artifacts.grids import GAP_PX
from mrigan.storage.store import open_store

HEIGHT, WIDTH = 37, 45


@pytest.fixture
def slices(tmp_path):
    folder = tmp_path / "slices"
    folder.mkdir()
    random = np.random.default_rng(0)
    pixels = np.zeros((5, HEIGHT, WIDTH), np.uint8)
    pixels[:, 8:30, 9:40] = random.integers(1, 256, (5, 22, 31))
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no slice")
    return folder, pixels


def preview(mrigan, sheet, folder, **settings):
    options = {"input_uri": folder, "image_height": HEIGHT, "image_width": WIDTH} | settings
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return mrigan("preview", sheet, *given)


def cells_of(data, rows, columns):
    grid = np.asarray(Image.open(io.BytesIO(data)))
    assert grid.shape == (rows * (HEIGHT + GAP_PX) + GAP_PX, columns * (WIDTH + GAP_PX) + GAP_PX)
    return [
        [
            grid[GAP_PX + row * (HEIGHT + GAP_PX) :, GAP_PX + column * (WIDTH + GAP_PX) :][
                :HEIGHT, :WIDTH
            ]
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def test_each_row_is_a_slice_and_its_variants(mrigan, slices, store_uri):
    folder, pixels = slices
    sheet = f"{store_uri}/sheet.png"
    ended = preview(mrigan, sheet, folder, rows=4, columns=6)
    assert ended.status == 0, ended.err
    rows = cells_of(open_store(store_uri).get("sheet.png"), 4, 6)
    shown = {row[0].tobytes() for row in rows}
    assert len(shown) == 4
    assert shown <= {image.tobytes() for image in pixels}  # as they are, to the bit
    for row in rows:
        assert len({cell.tobytes() for cell in row}) >= 5

    again = preview(mrigan, f"{store_uri}/again.png", folder, rows=4, columns=6)
    assert again.status == 0
    assert open_store(store_uri).get("again.png") == open_store(store_uri).get("sheet.png")


def test_at_p_0_all_columns_are_the_slice(mrigan, slices, tmp_path):
    assert preview(mrigan, tmp_path / "sheet.png", slices[0], rows=9, columns=3, p=0).status == 0
    rows = cells_of((tmp_path / "sheet.png").read_bytes(), 5, 3)  # no more than there are
    assert all(np.array_equal(cell, row[0]) for row in rows for cell in row)


def test_mirroring_shows_only_where_it_is_asked_for(mrigan, slices, tmp_path):
    sheets = []
    for flips in ("false", "true"):
        ended = preview(mrigan, tmp_path / "sheet.png", slices[0], augment_flips=flips)
        assert ended.status == 0
        sheets.append((tmp_path / "sheet.png").read_bytes())
    assert sheets[0] != sheets[1]


@pytest.mark.parametrize(
    ("sheet", "settings", "status", "said"),
    [
        ("sheet.png", {"columns": 1}, 2, "--columns 2"),
        ("sheet.png", {"p": 1.5}, 2, "--p is from 0 to 1"),
        ("folder/", {}, 2, "names no file"),
        ("s3://bucket", {}, 2, "s3://bucket: names no file; add one, as in s3://bucket/sheet.png"),
        ("sheet.png", {"input_uri": "EMPTY"}, 4, "'notes.txt'"),
        ("sheet.png", {"colums": 3}, 2, "--colums: unknown"),
    ],
)
def test_what_makes_no_sheet_is_said(mrigan, slices, tmp_path, sheet, settings, status, said):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "EMPTY/notes.txt").write_text("no slice")
    if "input_uri" in settings:
        settings = {"input_uri": tmp_path / settings["input_uri"]}
    place = sheet if sheet.startswith("s3:") else f"{tmp_path}/{sheet}"
    ended = preview(mrigan, place, slices[0], **settings)
    assert ended.status == status
    assert said in ended.err
    assert not (tmp_path / "sheet.png").exists()
