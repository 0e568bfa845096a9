"""The same command again: complete, gone on with, refused, or put right after damage."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from mrigan.storage.store import open_store
from mrigan.training.checkpoint import encode


def listing(uri):
    """What changes whenever an object is written, even with the same bytes."""
    return [
        (info.key, info.etag, info.modified)
        for info in open_store(uri).list()
        if not info.key.startswith("lease/")
    ]


def test_the_same_command_again_says_that_it_is_complete_and_writes_nothing(finished, train):
    before = listing(finished.uri)
    again = train(finished.uri)
    assert again.status == 0
    assert "already_complete" in again.out
    assert listing(finished.uri) == before


def test_more_epochs_go_on_to_the_very_bits_of_a_longer_run(
    finished_in_folder, store_uri, train, content, assert_same_run
):
    assert train(store_uri, epochs=1).status == 0
    longer = train(store_uri)
    assert longer.status == 0
    assert "resumed images_seen=13" in longer.out
    assert_same_run(content(store_uri), content(finished_in_folder.uri))


def test_other_settings_are_refused_by_name_and_change_nothing(finished, train):
    before = listing(finished.uri)
    ended = train(finished.uri, seed=1, batch_size=5, epochs=4)
    assert ended.status == 2
    assert [line.split()[1] for line in ended.out.splitlines()] == ["starting"]
    assert ended.err == (
        f"mrigan: {finished.uri} holds a run with other settings: batch_size is 5, was 4, "
        "seed is 1, was 0; use those, or another MRIGAN_OUTPUT_URI\n"
    )
    assert listing(finished.uri) == before


def test_other_slices_are_refused_and_change_nothing(finished, train):
    before = listing(finished.uri)
    ended = train(finished.uri, input_uri="phantom://14", epochs=4)
    assert ended.status == 4
    assert re.fullmatch(
        r"mrigan: the slices are not those this run began with \(13 then, 14 now; .*"
        r"data/manifest.jsonl lists the former\): put them back, or choose another "
        r"MRIGAN_OUTPUT_URI\n",
        ended.err,
    )
    assert listing(finished.uri) == before


def test_what_changes_no_weight_may_differ(finished_in_folder, tmp_path, train):
    uri = copied(finished_in_folder, tmp_path)
    assert train(uri, epochs=4, keep_checkpoints=2, sample_every=3, log_format="json").status == 0
    kept = [info.key for info in open_store(uri).list("checkpoints")]
    assert kept == [f"checkpoints/{n:09d}.{kind}" for n in (39, 52) for kind in ("json", "pt")]
    # The last epoch has a grid, whatever SAMPLE_EVERY says.
    assert open_store(uri).head("samples/epoch-0004.png")


def copied(run, tmp_path):
    """The run in a folder of the test's own."""
    return str(shutil.copytree(run.uri, tmp_path / "copy"))


def as_killed(uri):
    """The run as a kill would have left it: with nothing that says it is complete."""
    store = open_store(uri)
    status = json.loads(store.get("status.json")) | {"state": "running"}
    store.put("status.json", json.dumps(status).encode())
    return store


def broken(data):
    return data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]


DAMAGE = {
    "flipped byte": lambda store, key: store.put(key, broken(store.get(key))),
    "truncated": lambda store, key: store.put(key, store.get(key)[:-1]),
    "tensors missing": lambda store, key: store.delete(key),
    "json missing": lambda store, key: store.delete(key.replace(".pt", ".json")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_newest_checkpoint_is_passed_over_and_the_bits_are_the_same(
    finished_in_folder, tmp_path, train, content, assert_same_run, damage
):
    store = as_killed(copied(finished_in_folder, tmp_path))
    DAMAGE[damage](store, "checkpoints/000000039.pt")
    ended = train(store.uri)
    assert ended.status == 0
    assert "resumed images_seen=26" in ended.out
    warnings = [line for line in ended.out.splitlines() if "WARNING checkpoint_" in line]
    assert len(warnings) == (damage != "json missing")  # tensors alone were never a checkpoint
    assert all("checkpoints/000000039.pt: " in line for line in warnings)
    ours, aside = content(store.uri), "checkpoints/unverified/000000039"
    kept = {key: ours.pop(key) for key in list(ours) if key.startswith(aside)}
    if damage in ("flipped byte", "truncated"):
        assert sorted(kept) == [f"{aside}.json", f"{aside}.pt"]
        assert f"set_aside key=checkpoints/000000039.pt to={aside}.pt" in ended.out
    assert_same_run(ours, content(finished_in_folder.uri))


@pytest.fixture
def unreadable(store_uri, train, tinier):
    """A killed run whose only checkpoint is damaged, and the settings that it was made with."""
    settings = tinier | {"epochs": 1, "keep_checkpoints": 1}
    assert train(store_uri, **settings).status == 0
    store = as_killed(store_uri)
    store.put("checkpoints/000000004.pt", broken(store.get("checkpoints/000000004.pt")))
    return store, settings


def test_a_run_whose_checkpoints_can_not_be_read_never_begins_anew_by_itself(
    unreadable, train, content
):
    store, settings = unreadable
    before = content(store.uri)
    ended = train(store.uri, **settings)
    assert ended.status == 5
    assert "checkpoints/000000004.pt: " in ended.err
    assert "MRIGAN_START_OVER=true" in ended.err
    assert ended.err.count("\n") == 1
    for name in ("checkpoints/000000004.pt", "checkpoints/000000004.json", "metrics.jsonl"):
        assert store.get(name) == before[name]


def test_it_begins_anew_when_told_to_and_keeps_what_could_not_be_read(
    unreadable, train, content, tmp_path, assert_same_run
):
    store, settings = unreadable
    damaged = store.get("checkpoints/000000004.pt")
    ended = train(store.uri, **settings, start_over="true")
    assert ended.status == 0
    assert "resumed" not in ended.out
    assert store.get("checkpoints/unverified/000000004.pt") == damaged
    undisturbed = str(tmp_path / "undisturbed")
    assert train(undisturbed, **settings).status == 0
    ours = content(store.uri)
    ours = {key: data for key, data in ours.items() if "unverified" not in key}
    assert_same_run(ours, content(undisturbed))


def test_a_checkpoint_that_verifies_but_would_run_code_is_passed_over(
    finished_in_folder, tmp_path, train
):
    """Its JSON vouches for it: whoever can write the bucket can do that."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    store = as_killed(copied(finished_in_folder, tmp_path))
    for content in (encode({"G": Evil()}), encode({"G": {"a": torch.zeros(3)}}), encode([1])):
        facts = json.loads(store.get("checkpoints/000000039.json"))
        facts |= {"sha256": sha256(content).hexdigest(), "size_bytes": len(content)}
        store.put("checkpoints/000000039.pt", content)
        store.put("checkpoints/000000039.json", json.dumps(facts).encode())
        ended = train(store.uri)
        assert ended.status == 0
        assert "resumed images_seen=26" in ended.out
        assert "weights_only" not in ended.out + ended.err
        store = as_killed(store.uri)
    assert not (tmp_path / "executed").exists()


def test_a_run_killed_before_its_last_word_only_says_it(finished_in_folder, tmp_path, train):
    store = as_killed(copied(finished_in_folder, tmp_path))
    before = {info.key: info.etag for info in store.list("checkpoints")}
    ended = train(store.uri)
    assert ended.status == 0
    assert "epoch epoch=" not in ended.out
    assert json.loads(store.get("status.json"))["state"] == "completed"
    assert {info.key: info.etag for info in store.list("checkpoints")} == before


def test_a_run_that_another_version_began_is_refused_in_one_line_and_left_alone(finished, train):
    store = open_store(finished.uri)
    kept = store.get("run.json")
    facts = json.loads(kept)
    del facts["revision"]  # as versions wrote it whose networks were others
    store.put("run.json", json.dumps(facts).encode())
    before = listing(finished.uri)
    try:
        ended = train(finished.uri)
        assert ended.status == 2
        assert [line.split()[1] for line in ended.out.splitlines()] == ["starting"]
        assert ended.err.count("\n") == 1
        assert "a run that another version of mrigan began" in ended.err
        assert listing(finished.uri) == before
    finally:
        store.put("run.json", kept)


def test_a_run_with_the_names_of_the_version_before_is_resumed(finished_in_folder, tmp_path, train):
    store = open_store(copied(finished_in_folder, tmp_path))
    facts = json.loads(store.get("run.json")) | {"memory": {"weights_mib": 3.0}}
    facts["identity"] |= {"freeze_d": None, "init_from": None}  # as where nobody had set them
    store.put("settings.json", json.dumps(facts).encode())
    store.delete("run.json")
    rows = [json.loads(line) for line in store.get("metrics.jsonl").splitlines()]
    rows[1]["events"] = ["collapse"]
    store.put("metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    ended = train(store.uri, epochs=4)
    assert (ended.status, ended.err) == (0, "")
    assert "resumed images_seen=39" in ended.out
    assert store.head("settings.json") is None
    assert json.loads(store.get("run.json"))["identity"]["freeze_d"] == 0
    found = [json.loads(line).get("alarms") for line in store.get("metrics.jsonl").splitlines()]
    assert found == [None, ["collapse"], None, None]


def test_a_resume_publishes_again_what_its_checkpoint_holds(
    finished_in_folder, tmp_path, train, content
):
    """As a job leaves a run that has lost it to another one."""
    store = as_killed(copied(finished_in_folder, tmp_path))
    for key in ("model/generator.safetensors", "plots/losses.png", "report.html"):
        store.put(key, b"of another job")
    shown = content(finished_in_folder.uri)
    ended = train(store.uri)
    assert (ended.status, ended.err) == (0, "")
    found = content(store.uri)
    assert found["model/generator.safetensors"] == shown["model/generator.safetensors"]
    assert found["model/config.json"] == shown["model/config.json"]
    for key in ("plots/losses.png", "report.html"):
        assert found[key] != b"of another job"


def test_a_complete_run_with_another_generator_is_put_right(
    finished_in_folder, tmp_path, train, content
):
    store = open_store(copied(finished_in_folder, tmp_path))
    config = json.loads(store.get("model/config.json")) | {"images_seen": 13}
    store.put("model/config.json", json.dumps(config).encode())
    store.put("model/generator.safetensors", b"of epoch 1")
    ended = train(store.uri)
    assert (ended.status, ended.err) == (0, "")
    shown = content(finished_in_folder.uri)
    for key in ("model/generator.safetensors", "model/config.json"):
        assert content(store.uri)[key] == shown[key]
    assert "already_complete" in train(store.uri).out


def test_fewer_epochs_than_are_done_are_done(finished_in_folder, tmp_path, train):
    store = as_killed(copied(finished_in_folder, tmp_path))
    ended = train(store.uri, epochs=2)
    assert ended.status == 0
    assert "resumed images_seen=39" in ended.out
    assert " epoch epoch=" not in ended.out
