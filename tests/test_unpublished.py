"""What a run could not publish: from the local folder into the run, in order, or not at all."""

import json

import pytest

from mrigan.artifacts.checkpoints import list_checkpoints, publish_checkpoint
from mrigan.artifacts.unpublished import (
    RECORD,
    Unpublished,
    new_folder,
    publish_kept,
    read_record,
    write_record,
)
from mrigan.errors import StorageError
from mrigan.storage.store import open_store

IDENTITY = {"seed": 0, "model": "dcgan"}


@pytest.fixture
def run(store_uri):
    """A run with two checkpoints."""
    run = open_store(store_uri)
    run.put("run.json", json.dumps({"identity": IDENTITY}).encode())
    for number in (13, 26):
        publish_checkpoint(run, number, b"tensors %d" % number, {})
    run.put("metrics.jsonl", b"two rows\n")
    return run


@pytest.fixture
def keep(run, tmp_path):
    """Make a folder that keeps later artifacts of ``run``."""

    def make(*numbers, rolled_back_to=None, identity=IDENTITY):
        kept = open_store(str(tmp_path / "kept"))
        for number in numbers:
            publish_checkpoint(kept, number, b"tensors %d" % number, {})
        kept.put("metrics.jsonl", b"three rows\n")
        kept.put("status.json", b'{"state": "failed"}')
        kept.put("samples/epoch-0003.png", b"a grid")
        record = Unpublished(
            uri=run.uri,
            identity=identity,
            reason="access denied",
            rolled_back_to=rolled_back_to,
            keep_checkpoints=2,
            since="2026-11-26T12:00:00Z",
        )
        write_record(kept, record)
        return kept

    return make


def content(store):
    return {info.key: store.get(info.key) for info in store.list()}


def test_everything_arrives_and_what_vouches_comes_last(run, keep, monkeypatch):
    kept = keep(39)
    written, real = [], run.put

    def put(key, data, **options):
        written.append(key)
        real(key, data, **options)

    monkeypatch.setattr(run, "put", put)
    assert publish_kept(kept, run, read_record(kept)) == 5
    assert written[-3:] == [
        "checkpoints/000000039.pt", "checkpoints/000000039.json", "status.json",
    ]  # fmt: skip
    assert list_checkpoints(run) == [26, 39]
    assert run.get("metrics.jsonl") == b"three rows\n"
    assert RECORD not in content(run)


def test_publishing_twice_is_publishing_once(run, keep):
    kept = keep(39)
    publish_kept(kept, run, read_record(kept))
    before = content(run)
    publish_kept(kept, run, read_record(kept))
    assert content(run) == before


def test_a_rollback_takes_the_checkpoints_beyond_it_away(run, keep):
    publish_checkpoint(run, 52, b"of the attempt that was rolled back", {})
    kept = keep(39, rolled_back_to=30)
    publish_kept(kept, run, read_record(kept))
    assert list_checkpoints(run) == [26, 39]


@pytest.mark.parametrize(
    ("later", "identity", "said"),
    [
        (52, IDENTITY, "has gone on to 52 images meanwhile"),
        (26, {"seed": 1}, "another run is there now"),
    ],
)
def test_a_run_that_has_gone_on_or_is_another_one_is_left_as_it_is(
    run, keep, later, identity, said
):
    publish_checkpoint(run, later, b"tensors %d" % later, {})
    kept = keep(39, identity=identity)
    before = content(run)
    with pytest.raises(StorageError, match=said):
        publish_kept(kept, run, read_record(kept))
    assert content(run) == before


def test_other_weights_under_the_same_name_stay(run, keep):
    publish_checkpoint(run, 39, b"of another job", {})
    kept = keep(39)
    run.delete("checkpoints/000000039.pt")
    run.put("checkpoints/000000039.pt", b"of another job")
    with pytest.raises(StorageError, match="other weights"):
        publish_kept(kept, run, read_record(kept))
    assert run.get("checkpoints/000000039.pt") == b"of another job"


@pytest.mark.parametrize("content", [None, b"{}", b"[]", b"{", b'{"uri": 3}'])
def test_a_folder_that_keeps_nothing_is_refused_in_one_line(tmp_path, content):
    kept = open_store(str(tmp_path / "kept"))
    kept.put("note.txt", b"mine")
    if content is not None:
        kept.put(RECORD, content)
    with pytest.raises(StorageError, match=r"kept.*(give the folder|remove the file)"):
        read_record(kept)


def test_a_new_folder_is_named_after_the_run_and_is_not_there_yet(tmp_path):
    first = new_folder(tmp_path, "s3://bucket/runs/my run")
    assert first.name.startswith("my-run-20")
    first.mkdir()
    assert new_folder(tmp_path, "s3://bucket/runs/my run") not in (None, first)
    assert new_folder(tmp_path, "/").parent == tmp_path
