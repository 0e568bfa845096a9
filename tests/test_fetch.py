"""A run's artifacts come down whole, once, or not at all; from a folder and from S3 alike."""

import hashlib
import json
import os
import time
from dataclasses import replace

import pytest

from mrigan.errors import SettingsError, StorageError
from mrigan.jobs.fetch.fetch import fetch, parse_parts
from mrigan.jobs.fetch.item import fetch_item
from mrigan.jobs.fetch.selection import select_artifacts
from mrigan.storage.store import Store, open_store

TENSORS = os.urandom(40_001)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def record(data):
    return json.dumps({"sha256": sha256(data), "images_seen": 512}).encode()


RUN = {
    "status.json": b'{"state": "completed"}',
    "run.json": b"{}",
    "metrics.jsonl": b'{"epoch": 1}\n',
    "report.html": b"<html></html>",
    "data/manifest.jsonl": b"{}\n",
    "samples/real.png": b"real",
    "samples/epoch-0001.png": b"sample",
    "plots/losses.png": b"plot",
    "checkpoints/000000512.pt": TENSORS,
    "checkpoints/000000512.json": record(TENSORS),
    "model/generator.safetensors": TENSORS[:999],
    "model/config.json": record(TENSORS[:999]),
}
ROOT = {key for key in RUN if "/" not in key}


def publish(uri):
    store = open_store(uri)
    for key, body in RUN.items():
        store.put(key, body)
    return store


@pytest.fixture
def run(store_uri):
    """The store of a finished run, of either kind."""
    return publish(store_uri)


@pytest.fixture
def local_run(tmp_path):
    """The same in a folder, for what does not depend on the kind."""
    return publish(str(tmp_path / "runs" / "one"))


@pytest.fixture
def here(tmp_path):
    return tmp_path / "results" / "here"


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_everything_comes_down_and_the_second_time_nothing(run, here):
    first = fetch(run.uri, here)
    assert files_in(here) == RUN
    assert (first.fetched_files, first.kept_files, first.skipped) == (len(RUN), 0, ())
    records = sum(len(body) for key, body in RUN.items() if body.startswith(b'{"sha256"'))
    assert first.fetched_bytes == sum(map(len, RUN.values())) - records

    second = fetch(run.uri, here)
    assert (second.fetched_files, second.kept_files) == (0, len(RUN))
    assert files_in(here) == RUN


@pytest.mark.parametrize("parts", ["samples", "plots,model", " checkpoints , samples"])
def test_a_part_brings_its_folder_and_the_small_files(local_run, here, parts):
    fetch(local_run.uri, here, parse_parts(parts))
    chosen = {name.strip() for name in parts.split(",")}
    assert set(files_in(here)) == ROOT | {key for key in RUN if key.split("/")[0] in chosen}


def test_a_part_that_no_run_has_is_refused():
    with pytest.raises(SettingsError, match=r"--only: sample is no part of a run; choose among"):
        parse_parts("sample,plots")
    assert parse_parts("") == frozenset()


def test_what_has_changed_is_brought_again_and_the_rest_kept(run, here):
    fetch(run.uri, here)
    run.put("status.json", b'{"state": "runninggg"}')
    assert len(b'{"state": "runninggg"}') == len(RUN["status.json"])
    summary = fetch(run.uri, here)
    assert (here / "status.json").read_bytes() == b'{"state": "runninggg"}'
    assert (summary.fetched_files, summary.kept_files) == (1, len(RUN) - 1)


def test_files_that_are_cut_short_here_are_brought_again(run, here):
    fetch(run.uri, here)
    for key in ("checkpoints/000000512.pt", "model/config.json", "samples/real.png"):
        (here / key).write_bytes(RUN[key][:-1])
    fetch(run.uri, here)
    assert files_in(here) == RUN


def test_a_flipped_bit_here_is_seen_where_a_hash_is_known(run, here):
    fetch(run.uri, here)
    path = here / "checkpoints/000000512.pt"
    path.write_bytes(bytes([TENSORS[0] ^ 1]) + TENSORS[1:])
    fetch(run.uri, here)
    assert path.read_bytes() == TENSORS


def test_a_checkpoint_without_its_json_is_skipped_with_a_warning(local_run, here, caplog):
    local_run.delete("checkpoints/000000512.json")
    local_run.put("checkpoints/000000900.json", b'{"sha256": "0"}')
    summary = fetch(local_run.uri, here)
    assert summary.skipped == ("checkpoints/000000512.pt", "checkpoints/000000900.json")
    assert not (here / "checkpoints").exists()
    assert [record.message for record in caplog.records] == ["artifact_skipped"] * 2


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[1]", b"{}", b'{"sha256": 7}'])
def test_a_record_that_says_nothing_vouches_for_nothing(local_run, here, body):
    local_run.put("model/config.json", body)
    assert fetch(local_run.uri, here).skipped == ("model/generator.safetensors",)
    assert not (here / "model").exists()


def test_a_checkpoint_that_is_not_what_its_json_says_is_an_error_and_no_file(run, here):
    run.put("checkpoints/000000512.pt", TENSORS[::-1])
    with pytest.raises(StorageError, match=r"1 files were not fetched.*000000512.pt: .*sha256"):
        fetch(run.uri, here)
    assert set(files_in(here)) == {key for key in RUN if not key.startswith("checkpoints")}


def test_a_good_file_here_is_not_replaced_by_a_broken_one(run, here):
    fetch(run.uri, here)
    run.put("model/generator.safetensors", b"broken")
    with pytest.raises(StorageError, match=r"model/generator.safetensors"):
        fetch(run.uri, here)
    assert files_in(here) == RUN


def test_a_model_replaced_after_its_record_was_read_comes_with_its_new_record(run, here):
    newer = TENSORS[7:777]
    [model] = [item for item in select_artifacts(run, frozenset({"model"})).items if item.record]
    run.put("model/generator.safetensors", newer)
    run.put("model/config.json", record(newer))
    assert fetch_item(run, model, here, lambda _: None) == "fetched"
    assert files_in(here / "model") == {
        "generator.safetensors": newer,
        "config.json": record(newer),
    }


def test_a_checkpoint_that_the_run_has_retired_meanwhile_is_no_error(local_run, here):
    [item] = [
        item
        for item in select_artifacts(local_run, frozenset({"checkpoints"})).items
        if item.record
    ]
    local_run.delete("checkpoints/000000512.json")
    local_run.delete("checkpoints/000000512.pt")
    assert fetch_item(local_run, item, here, lambda _: None) == "gone"
    assert not here.exists()


def test_a_part_that_was_cut_off_is_continued(run, here):
    key = "checkpoints/000000512.pt"
    (here / "checkpoints").mkdir(parents=True)
    (here / f"{key}.part").write_bytes(TENSORS[:30_000])
    (here / f"{key}.part.etag").write_text(run.head(key).etag)
    fetch(run.uri, here, parse_parts("checkpoints"))
    assert (here / key).read_bytes() == TENSORS
    assert set(files_in(here)) == ROOT | {key, key.replace(".pt", ".json")}


def test_a_request_to_stop_ends_it_and_the_next_call_finishes(run, here):
    summary = fetch(run.uri, here, should_stop=lambda: True)
    assert summary.interrupted
    assert not fetch(run.uri, here).interrupted
    assert files_in(here) == RUN


def test_a_file_here_keeps_the_object_s_time(local_run, here):
    fetch(local_run.uri, here)
    modified = local_run.head("samples/real.png").modified.timestamp()
    assert abs((here / "samples/real.png").stat().st_mtime - modified) < 0.01
    assert modified <= time.time() + 1


def test_a_uri_without_a_run_says_what_is_there(run, store_uri, here):
    with pytest.raises(StorageError, match=r"holds no run \(no status.json\).* epoch-0001.png"):
        fetch(f"{store_uri}/samples", here)
    parent, _, name = store_uri.rpartition("/")
    with pytest.raises(StorageError, match=rf"there are runs below it: {name}; name one"):
        fetch(parent, here)
    assert not here.exists()


def test_an_empty_prefix_holds_nothing(bucket, here):
    with pytest.raises(StorageError, match=r"holds no run .* there is nothing"):
        fetch(f"{bucket}/absent", here)


def test_the_run_s_own_folder_is_no_place_to_bring_it_to(tmp_path):
    open_store(str(tmp_path / "run")).put("status.json", b"{}")
    with pytest.raises(StorageError, match="the run is in this very folder"):
        fetch(str(tmp_path / "run"), tmp_path / "." / "run")


def test_a_place_that_cannot_be_written_to_is_named(local_run, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(
        StorageError,
        match=r"/file.*a file and a folder would have one",
    ):
        fetch(local_run.uri, tmp_path / "file")


def test_a_folder_holds_one_run_and_refuses_another(run, here, tmp_path):
    fetch(run.uri, here)
    other = publish(str(tmp_path / "other run"))
    other.put("run.json", json.dumps({"identity": {"seed": 1}}).encode())
    before = files_in(here)
    with pytest.raises(StorageError, match=r"holds another run.*already; fetch .* to another fol"):
        fetch(other.uri, here)
    assert files_in(here) == before
    assert fetch(run.uri, here).kept_files == len(RUN)


def test_a_run_s_files_that_do_not_say_whose_they_are_are_not_mixed_with_others(run, here):
    here.mkdir(parents=True)
    (here / "status.json").write_text("{}")
    with pytest.raises(StorageError, match=r"no run\.json that says which"):
        fetch(run.uri, here)


@pytest.mark.parametrize(
    "link",
    [
        "metrics.jsonl",
        "metrics.jsonl.part",
        "run.json.part",
        "checkpoints",
        "checkpoints/000000512.json.part",
        "model/generator.safetensors.part.etag",
        "samples/real.png",
    ],
)
def test_nothing_is_written_through_a_link_below_the_folder(run, here, tmp_path, link):
    target = tmp_path / "elsewhere"
    path = here / link
    path.parent.mkdir(parents=True, exist_ok=True)
    is_folder = link == "checkpoints"
    target.mkdir() if is_folder else target.write_text("mine")
    path.symlink_to(target)
    with pytest.raises(StorageError, match="is a link, to which nothing is fetched; remove it"):
        fetch(run.uri, here)
    assert list(target.iterdir()) == [] if is_folder else target.read_text() == "mine"


@pytest.mark.parametrize("key", ["checkpoints/../../x.pt", "samples//a.png", "samples/a\nb.png"])
def test_a_key_that_no_file_can_have_is_skipped_and_the_rest_comes(run, here, monkeypatch, key):
    listed, real = run.list()[0], Store.list

    def with_odd(store, prefix=""):
        return [*real(store, prefix), replace(listed, key=key)]

    monkeypatch.setattr(Store, "list", with_odd)
    summary = fetch(run.uri, here)
    assert summary.skipped == (key,)
    assert files_in(here) == RUN


def test_a_damaged_run_json_is_fetched_as_it_is(run, here):
    run.put("run.json", b"[" * 100_000)
    fetch(run.uri, here)
    assert files_in(here) == {**RUN, "run.json": b"[" * 100_000}
    assert fetch(run.uri, here).kept_files == len(RUN)
