"""Slices of one series share an intensity window: a dark slice stays darker than its neighbours."""

import numpy as np
import pytest

from mrigan.data.formats import decode
from mrigan.data.pack import open_pack
from mrigan.data.source import open_source
from mrigan.data.volumes import series_of
from pictures import head, tiff

HEIGHT, WIDTH = 40, 33
PEAKS = [300, 900, 1500, 2300, 3000, 3600, 4000, 3900, 3300, 2500, 1600, 700, 350]


def slice_of(peak, dtype=np.uint16, offset=0, stripped=False):
    """A head whose brightest tissue is at ``peak`` counts, in air of 0 to 6 or in plain zeros."""
    tissue = head(HEIGHT, WIDTH).astype(float)
    noise = np.random.default_rng(peak).integers(0, 7, tissue.shape)
    tissue = np.rint(tissue / tissue.max() * peak)
    return ((tissue + (0 if stripped else noise)) + offset).astype(dtype)


def write(root, names, pictures):
    for name, pixels in zip(names, pictures, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(tiff(pixels))


def opened(root, cache, **options):
    options = {"height": HEIGHT, "width": WIDTH, "max_refused_percent": 90.0, **options}
    pack = open_pack(open_source(str(root)), cache_dir=cache, **options)
    by_key = {e.key: pack.images[pack.rows[e.row], 0] for e in pack.manifest if e.row is not None}
    return pack, by_key


@pytest.mark.parametrize(
    ("dtype", "offset", "stripped"),
    [(np.uint16, 0, False), (np.int16, -1024, False), (np.float32, 0, True), (">i4", 9, True)],
)
def test_one_count_has_one_grey_level_in_all_slices_of_a_series(tmp_path, dtype, offset, stripped):
    names = [f"p1/t1_{number:03d}.tif" for number in range(len(PEAKS))]
    pictures = [slice_of(peak, dtype, offset, stripped) for peak in PEAKS]
    write(tmp_path / "in", names, pictures)
    _, found = opened(tmp_path / "in", tmp_path / "cache")
    assert sorted(found) == names
    raw = np.concatenate([each.astype(float).ravel() for each in pictures])
    levels = np.concatenate([found[name].astype(float).ravel() for name in names])
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(levels[order]) >= 0), "a brighter pixel is darker in another slice"
    inside = (levels > 0) & (levels < 255)
    line = np.polyfit(raw[inside], levels[inside], 1)
    assert np.abs(np.polyval(line, raw[inside]) - levels[inside]).max() < 0.6
    assert found[names[0]].max() < 30 < 230 < found[names[6]].max()


def test_a_slice_that_is_dark_beside_its_series_is_blank(tmp_path):
    names = [f"p1/t1_{number:03d}.tif" for number in range(len(PEAKS))]
    write(tmp_path / "in", names, [slice_of(80), *map(slice_of, PEAKS[1:])])
    pack, found = opened(tmp_path / "in", tmp_path / "cache")
    assert sorted(found) == names[1:]
    assert pack.manifest[0].reason == "blank: within 8 grey levels in its series' window"


def test_contrasts_of_a_patient_have_a_window_each(tmp_path):
    names = [f"p1/{number:02d}/{kind}.tif" for number in range(6) for kind in ("t1", "flair")]
    pictures = [slice_of(peak) for at in range(6) for peak in (PEAKS[at + 3], 10 * PEAKS[at + 3])]
    write(tmp_path / "in", names, pictures)
    _, found = opened(tmp_path / "in", tmp_path / "cache")
    brightest = {
        kind: max(found[name].max() for name in names if kind in name) for kind in ("t1", "flair")
    }
    assert brightest == {"t1": 255, "flair": 255}


@pytest.mark.parametrize("other", [np.float32, np.uint16])
def test_unlike_pictures_are_no_series(tmp_path, other):
    """Of another type or size: each has its own window, as ``decode`` alone gives it."""
    sides = (HEIGHT, WIDTH) if other is np.float32 else (HEIGHT + 1, WIDTH)
    pictures = [slice_of(1000), slice_of(3000).astype(other)]
    pictures[1] = np.pad(pictures[1], [(0, sides[0] - HEIGHT), (0, 0)], "edge")
    write(tmp_path / "in", ["p1_1.tif", "p1_2.tif"], pictures)
    _, found = opened(tmp_path / "in", tmp_path / "cache")
    for name in found:
        alone = decode((tmp_path / "in" / name).read_bytes(), HEIGHT, WIDTH)
        np.testing.assert_array_equal(found[name], alone)


def test_a_changed_series_is_decoded_anew_and_an_eight_bit_one_is_not(tmp_path):
    source, cache = tmp_path / "in", tmp_path / "cache"
    deep = [f"p1/t1_{number:03d}.tif" for number in range(4)]
    grey = [f"p2/t1_{number:03d}.tif" for number in range(4)]
    write(source, deep, [slice_of(peak) for peak in PEAKS[1:5]])
    write(source, grey, [slice_of(peak, np.uint8) for peak in (90, 140, 200, 240)])
    opened(source, cache)
    write(source, ["p1/t1_004.tif", "p2/t1_004.tif"], [slice_of(4000), slice_of(99, np.uint8)])
    pack, found = opened(source, cache)
    assert (pack.fetched, pack.reused) == (6, 4)
    fresh, expected = opened(source, tmp_path / "other")
    assert pack.fingerprint == fresh.fingerprint
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    again, _ = opened(source, cache)
    assert (again.fetched, again.reused) == (0, 10)


def test_many_threads_and_large_slices_come_to_an_end(tmp_path):
    names = [f"p1/t1_{number:03d}.tif" for number in range(24)]
    write(tmp_path / "in", names, [slice_of(1000 + number) for number in range(24)])
    large = [np.kron(slice_of(peak), np.ones((60, 60), np.uint16)) for peak in (2000, 4000)]
    write(tmp_path / "in", ["p9_1.tif", "p9_2.tif"], large)
    _, found = opened(tmp_path / "in", tmp_path / "cache", concurrency=32)
    assert len(found) == 26


@pytest.mark.parametrize(
    ("key", "series"),
    [
        ("p7/t1_012.png", "p7/t1||.png"),
        ("p7/012/t1.nii.png", "p7|/t1|.nii.png"),
        ("p7_012_t1.png", "p7|_t1|.png"),
        ("sub-03/anat/sub-03_T1w_slice_099.tif", "sub-03/anat/sub-03_T1w_slice||.tif"),
        ("TCGA_CS_4941/TCGA_CS_4941_19960909_12.tif", "TCGA_CS_4941/TCGA_CS_4941_19960909||.tif"),
        ("slice_012.png", ""),
        ("yes/Y12.jpg", ""),
        ("m (12).jpg", ""),
        ("phantom-000012", ""),
        ("p7/brain.png", ""),
    ],
)
def test_series_by_name(key, series):
    assert series_of(key).replace("\n", "|") == series
