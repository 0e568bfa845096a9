"""Slices held out: by volume, alike on every start, never a copy of one that is trained on."""

import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mrigan.data.bank import open_bank
from mrigan.data.holdout import split_holdout
from mrigan.data.manifest import decode_manifest, encode_manifest
from mrigan.data.pack import open_pack
from mrigan.data.sampler import stream_seed
from mrigan.data.source import open_source
from mrigan.data.volumes import volume_ids
from mrigan.errors import SettingsError
from mrigan.settings.fields import Settings

SIZE = (35, 33)


def write(folder, key, seed):
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def shelf(tmp_path):
    """23 patients of 3 slices."""
    folder = tmp_path / "slices"
    for patient in range(23):
        for number in range(3):
            write(folder, f"p{patient:02d}/t1_{number:03d}.png", (patient, number))
    return folder


@pytest.fixture
def opened(shelf, tmp_path):
    def open_it(**chosen):
        source = open_source(str(shelf))
        pack = open_pack(source, height=35, width=33, cache_dir=tmp_path / "cache")
        return split_holdout(pack, **({"percent": 20, "seed": 3} | chosen))

    return open_it


def sides_of(pack):
    """Which side each volume is on."""
    sides = {}
    for entry in pack.manifest:
        sides.setdefault(entry.volume, set()).add(entry.side)
    return sides


def held(pack):
    return {volume for volume, sides in sides_of(pack).items() if "holdout" in sides}


def test_a_volume_is_whole_on_one_side_and_rows_agree_with_the_manifest(opened):
    pack = opened()
    sides = sides_of(pack)
    assert len(sides) == 23
    assert all(len(found) == 1 for found in sides.values())
    assert 1 <= len(held(pack)) <= 9
    for side, rows in (("training", pack.training), ("holdout", pack.holdout)):
        assert rows.tolist() == [entry.row for entry in pack.manifest if entry.side == side]
    assert sorted([*pack.training, *pack.holdout]) == list(range(69))


def test_the_same_seed_holds_out_the_same_and_another_one_others(opened):
    assert held(opened()) == held(opened())
    assert len({tuple(sorted(held(opened(seed=seed)))) for seed in range(5)}) > 1


def test_about_as_many_volumes_are_held_out_as_asked_for(opened):
    counts = [len(held(opened(percent=30, seed=seed))) for seed in range(40)]
    assert np.mean(counts) == pytest.approx(0.3 * 23, abs=1.2)


def test_volumes_that_are_added_move_none_that_were_there(opened, shelf):
    before = opened()
    for patient in range(23, 40):
        write(shelf, f"p{patient:02d}/t1_000.png", patient)
    after = opened()
    assert held(after) & sides_of(before).keys() == held(before)
    assert held(after) > held(before)


def test_one_volume_at_least_is_on_either_side(opened):
    assert len(held(opened(percent=0.01))) == 1
    assert len(held(opened(percent=100))) == 22


def test_without_a_holdout_the_pack_is_as_it_was(opened):
    pack = opened(percent=0)
    assert pack.training.tolist() == list(range(69))
    assert len(pack.holdout) == 0
    assert {entry.side for entry in pack.manifest} == {""}
    assert b"side" not in encode_manifest(pack.manifest)


def test_the_fingerprint_tells_who_is_held_out(opened):
    prints = {opened(percent=percent).fingerprint for percent in (0, 5, 40)}
    assert len(prints) == 3
    assert opened().fingerprint == opened().fingerprint


def test_the_only_volume_is_trained_on_with_a_warning(opened, caplog):
    pack = opened(pattern="^(p)")
    assert len(pack.training) == 69
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert (record.getMessage(), record.volumes) == ("no_holdout", 1)


def test_few_volumes_are_warned_of_with_an_example(opened, caplog):
    pack = opened(pattern="^(p[0-2])")
    assert len(held(pack)) in (1, 2)
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage() == "holdout_of_few_volumes"
    assert record.example == "p00/t1_000.png is of volume p0"


def test_a_class_taken_for_a_volume_is_not_held_out_whole(opened):
    pattern = "^(p2|p)"  # 60 slices of "p", 9 of "p2"

    def held_first(seed):
        return min(("p", "p2"), key=lambda name: stream_seed(seed, "holdout", name))

    large = next(seed for seed in range(99) if held_first(seed) == "p")
    small = next(seed for seed in range(99) if held_first(seed) == "p2")
    said = "MRIGAN_HOLDOUT: 60 of 69 slices .* 2 volumes and 'p00/t1_000.png' is .* of 'p'; say"
    with pytest.raises(SettingsError, match=said):
        opened(pattern=pattern, percent=10, seed=large)
    assert len(opened(pattern=pattern, percent=10, seed=small).training) == 60
    assert len(opened(pattern=pattern, percent=50, seed=large).training) == 9


def test_a_copy_of_a_slice_that_is_trained_on_is_on_neither_side(opened, shelf):
    (victim, *_) = sorted(held(opened()))
    folder = victim.split("/")[0]
    (trained,) = sorted(sides_of(opened()).keys() - held(opened()))[:1]
    source = shelf / trained.split("/")[0] / "t1_001.png"
    (shelf / folder / "t1_003.png").write_bytes(source.read_bytes())
    pack = opened()
    (copy,) = [entry for entry in pack.manifest if entry.side == "copy"]
    assert copy.key == f"{folder}/t1_003.png"
    assert copy.row not in {*pack.training, *pack.holdout}
    trained_on = {e.sha256 for e in pack.manifest if e.side == "training"}
    assert not trained_on & {e.sha256 for e in pack.manifest if e.side == "holdout"}


def test_the_manifest_with_sides_reads_back(opened):
    manifest = opened().manifest
    assert tuple(decode_manifest(encode_manifest(manifest))) == manifest


def test_the_bank_knows_no_other_rows_than_those_of_training(opened):
    pack = opened()
    bank = open_bank(pack.images, torch.device("cpu"), free_bytes=0, rows=pack.training)
    taken = bank.take(torch.arange(len(pack.training)))
    grey = ((taken + 1) * 127.5).round().to(torch.uint8).numpy()
    assert np.array_equal(grey, pack.images[pack.training])
    with pytest.raises(IndexError):
        bank.take(torch.tensor([len(pack.training)]))


@pytest.mark.parametrize(
    ("keys", "volumes"),
    [
        (["p7/t1_012.png", "p7/t1_013.png"], ["p7"]),
        (["p7_012.png", "p7-13.jpeg"], ["p7"]),
        (["BraTS20_Training_001/slice_45.png"], ["BraTS20_Training_001"]),
        (["sub-01/045.png", "sub-01/46.tif"], ["sub-01"]),
        (["TCGA_CS_4941_19960909_12.tif"], ["TCGA_CS_4941"]),
        (["glioma/gg (1).jpg", "glioma/gg (2).jpg"], ["glioma/gg (1).jpg", "glioma/gg (2).jpg"]),
        (["phantom-000000", "phantom-000001"], ["phantom-000000", "phantom-000001"]),
        (["a/phantom-000000.png", "b.png"], ["a/phantom-000000.png", "b"]),
        ([f"Mild/OAS1_0028_MR1_mpr-{n}_{n + 99}.jpg" for n in range(1, 5)], ["OAS1_0028"]),
        ([f"OAS1_0028_MR1_mpr_n4_anon_sbj_{n}.gif" for n in (7, 8)], ["OAS1_0028"]),
        (
            [f"B/BraTS20_Training_001_{c}_045.png" for c in ("t1", "t1ce", "t2", "flair")],
            ["BraTS20_Training_001"],
        ),
        (["BraTS-GLI-00005-000/x-t1c_1.png", "BraTS-GLI-00005-100/y.png"], ["BraTS-GLI-00005"]),
        (["BraTS2021_00002/BraTS2021_00002_flair/9.png"], ["BraTS2021_00002"]),
        (["sub-01/ses-1/anat/sub-01_T1w_9.png", "sub-01/ses-2/anat/x.png"], ["sub-01"]),
        (
            [f"p{p}/{n:03d}/{c}.png" for p in (1, 2) for n in (4, 5) for c in ("t1", "t2")],
            ["p1", "p2"],
        ),
        (["patient_12/t1.png", "patient_12/flair.png"], ["patient_12"]),
        (["patient_12/slice_004_t1.png", "patient_12/slice_005_flair.png"], ["patient_12"]),
        (["p7_012_t1.png", "p7_013_t2.png", "p7_t1_012.png"], ["p7"]),
        (["patient_12_t1.png", "patient_12_t2.png"], ["patient_12"]),
        (["t1/p7_001.png", "flair/p7_002.png"], ["p7"]),
        (["p7/t1/001.png", "p7/t2/001.png"], ["p7"]),
        (["p7/axial/001.png", "p7/sagittal/001.png"], ["p7"]),
        (["002_S_0413/MPRAGE_1/9.png", "ADNI_002_S_0413_MR_x_9.png"], ["002_S_0413"]),
        (["IXI002-Guys-0828-T1/9.png", "IXI002-Guys-0828-PD/9.png"], ["IXI002"]),
    ],
)
def test_a_key_without_its_slice_number_names_the_volume(keys, volumes):
    assert list(dict.fromkeys(volume_ids(keys))) == volumes


def test_more_slices_than_a_head_has_are_pictures_of_their_own():
    keys = [f"class/Tr-me_{number:04d}.jpg" for number in range(513)]
    assert volume_ids(keys) == keys
    assert set(volume_ids(keys[1:])) == {"class/Tr-me"}


def test_a_pattern_that_does_not_fit_every_key_is_refused():
    message = r"MRIGAN_VOLUME_PATTERN: '\^\(p\\\\d\)' finds no volume in 'q1.png' \(1 of 2 keys\)"
    with pytest.raises(SettingsError, match=message):
        volume_ids(["p1.png", "q1.png"], r"^(p\d)")


@pytest.mark.parametrize(("pattern", "why"), [("(", "no regular"), ("p1", "no group")])
def test_a_pattern_without_use_is_refused_with_the_settings(pattern, why):
    with pytest.raises(ValidationError, match=re.escape(why)):
        Settings(volume_pattern=pattern)


def test_folders_of_patients_that_would_be_split_are_warned_of(tmp_path, caplog):
    for patient in range(11):
        for series in ("first", "second"):
            write(tmp_path / "in", f"case{patient:02d}/{series}_001.png", (patient, len(series)))
    source = open_source(str(tmp_path / "in"))
    pack = open_pack(source, height=35, width=33, cache_dir=tmp_path / "cache")
    split_holdout(pack, percent=20)
    (record,) = [r for r in caplog.records if r.getMessage() == "holdout_splits_folders"]
    assert record.example == "case00 holds 2 volumes"
    caplog.clear()
    split_holdout(pack, percent=20, pattern="^([^/]+)/")
    assert "holdout_splits_folders" not in caplog.messages
