"""Which objects are slices by name: litter, patterns, one object, and names that can't be read."""

import logging

import numpy as np
import pytest
from PIL import Image

from mrigan.data.pack import RefusedError, open_pack
from mrigan.data.selection import Selection, mask_pattern, select
from mrigan.data.source import open_source
from mrigan.errors import DataError, SettingsError
from mrigan.settings.sources import load_settings
from mrigan.settings.values import patterns
from mrigan.storage.keys import ObjectInfo

KEYS = ["p1/t1_1.png", "p1/t1_1_mask.png", "p2/masks/a b.png", "p2/flair/9.png", "[x] 3.png"]
LITTER = [
    ".DS_Store", "a/._b.png", "__MACOSX/a/._b.png", "Thumbs.db", "a/thumbs.db", "desktop.ini",
    ".git/objects/00/1", ".ipynb_checkpoints/a-checkpoint.png", ".Trash-1000/a.png",
    "@eaDir/a.png", "a.png~", "~$a.xlsx",
]  # fmt: skip


def chosen(include="", exclude="", keys=KEYS):
    infos = [ObjectInfo(key, 1, "x", None) for key in keys]
    found = select(infos, Selection(patterns(include), patterns(exclude)))
    return [info.key for info in found.taken]


@pytest.mark.parametrize("key", LITTER)
def test_what_tools_leave_behind_is_passed_over(key):
    assert chosen(keys=[key, "a.png"]) == ["a.png"]


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        ("", "*_mask.png", [0, 2, 3, 4]),
        ("", "masks/", [0, 1, 3, 4]),
        ("", "*_mask.png, masks/,flair", [0, 4]),
        ('["p1/*", "p2/**/*.png"]', "", [0, 1, 2, 3]),
        ("/p2", "", [2, 3]),
        ("t1_[0-9].png", "", [0]),
        ("[[]x] ?.png", "", [4]),
        ("p?/t1_?.png", "", [0]),
        ("*.png", "p1/*", [2, 3, 4]),
    ],
)
def test_patterns_are_those_of_gitignore(include, exclude, left):
    assert chosen(include, exclude) == [KEYS[number] for number in left]


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("a/TCGA_1_mask.tif", "*_mask.tif"),
        ("a/masks/7.png", "masks/"),
        ("BraTS_1/BraTS_1_seg_045.png", "*_seg_*.png"),
        ("a/7.png", ""),
        ("a/masked_t1.png", ""),
    ],
)
def test_a_mask_says_which_pattern_leaves_it_out(key, pattern):
    assert mask_pattern(key) == pattern
    if pattern:
        assert chosen(exclude=pattern, keys=[key]) == []


def test_a_pattern_that_matches_nothing_is_refused_with_the_settings():
    with pytest.raises(SettingsError, match=r"MRIGAN_EXCLUDE|exclude"):
        load_settings({"exclude": "a\\b"})


def write(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (35, 37), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def packed(place, cache, **chosen):
    source = open_source(str(place), None, Selection(**chosen))
    return open_pack(source, height=32, width=33, cache_dir=cache, max_refused_percent=50)


def test_one_file_is_a_source(tmp_path):
    write(tmp_path / "in/a.png")
    write(tmp_path / "in/b.png", 1)
    pack = packed(tmp_path / "in/b.png", tmp_path / "cache")
    assert [entry.key for entry in pack.manifest] == ["b.png"]


def test_names_that_can_not_be_read_are_counted(tmp_path):
    for name in ("a.png", "b.png", "c.png", "scan#12"):
        write(tmp_path / "in" / name, sum(name.encode()))
    (tmp_path / "in/d.png").symlink_to("../.git/annex/objects/xx/SHA256E-s1--0.png")
    pack = packed(tmp_path / "in", tmp_path / "cache")
    refused = {entry.key: entry.reason for entry in pack.manifest if entry.row is None}
    assert refused.keys() == {"scan#12", "d.png"}
    assert "rename it" in refused["scan#12"]
    assert "git annex get" in refused["d.png"]


def test_litter_is_said_in_one_line_and_counts_for_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path / "in/a.png")
    for name in (".DS_Store", "Thumbs.db", "._a.png"):
        (tmp_path / "in" / name).write_bytes(b"x")
    assert len(packed(tmp_path / "in", tmp_path / "cache").manifest) == 1
    (record,) = [each for each in caplog.records if each.getMessage() == "passed_over"]
    assert record.objects == 3


def test_patterns_that_leave_nothing_are_refused(tmp_path):
    write(tmp_path / "in/a.png")
    with pytest.raises(DataError, match=r"leave none of 1 objects .*'a.png'; correct"):
        packed(tmp_path / "in", tmp_path / "cache", include=("*.tif",))


def test_masks_are_refused_with_their_pattern(tmp_path):
    mask = np.zeros((40, 44), np.uint8)
    mask[9:30, 11:31] = 255
    for number in range(3):
        write(tmp_path / f"in/a_{number}.png", number)
        for name in ("mask", "seg"):
            Image.fromarray(mask).save(tmp_path / f"in/a_{number}_{name}.png")
    with pytest.raises(RefusedError, match=r"3 more|2 more.*MRIGAN_EXCLUDE=\*_mask.png"):
        packed(tmp_path / "in", tmp_path / "cache")
    exclude = ("*_mask.png", "*_seg.png")
    assert len(packed(tmp_path / "in", tmp_path / "cache", exclude=exclude).rows) == 3


def test_slices_that_are_all_alike_are_refused_in_one_line(tmp_path):
    for number in range(3):
        write(tmp_path / f"in/{number}.png")
    with pytest.raises(DataError, match=r"all 3 slices .* have the same pixels, as '0.png'"):
        packed(tmp_path / "in", tmp_path / "cache")
