"""Checkpoints in a folder and in a bucket: what is believed, what is kept, what is removed."""

import hashlib
import json

import pytest

from mrigan.artifacts.checkpoints import (
    checkpoint_key,
    delete_after,
    keep_newest,
    list_checkpoints,
    list_incomplete,
    publish_checkpoint,
    read_newest,
    set_aside,
)
from mrigan.errors import CheckpointError, StorageError
from mrigan.storage.store import open_store


@pytest.fixture
def store(store_uri):
    return open_store(store_uri)


def publish(store, *numbers):
    for number in numbers:
        publish_checkpoint(store, number, b"tensors %d" % number, {"epoch": number})


def newest(store):
    return read_newest(store, lambda data: data).saved


def keys(store):
    return [info.key for info in store.list("checkpoints")]


def test_names_sort_as_time_does(store):
    publish(store, 512_000, 9, 1_000_000, 13)
    assert keys(store) == sorted(keys(store))
    assert keys(store)[0] == "checkpoints/000000009.json"
    assert keys(store)[-1] == "checkpoints/001000000.pt"
    assert list_checkpoints(store) == [9, 13, 512_000, 1_000_000]


def test_the_newest_pair_comes_back_with_its_facts(store):
    assert newest(store) is None
    publish(store, 13, 26)
    saved = newest(store)
    assert (saved.images_seen, saved.content) == (26, b"tensors 26")
    assert saved.facts == {
        "images_seen": 26,
        "sha256": hashlib.sha256(b"tensors 26").hexdigest(),
        "size_bytes": 10,
        "epoch": 26,
    }


def flip_a_byte(store, key):
    data = bytearray(store.get(key))
    data[3] ^= 1
    store.put(key, bytes(data))


DAMAGE = {
    "a flipped byte": lambda store: flip_a_byte(store, "checkpoints/000000026.pt"),
    "a truncated file": lambda store: store.put("checkpoints/000000026.pt", b"tens"),
    "no tensors": lambda store: store.delete("checkpoints/000000026.pt"),
    "no JSON": lambda store: store.put("checkpoints/000000026.json", b"{"),
    "JSON of another kind": lambda store: store.put("checkpoints/000000026.json", b"[1]"),
    "no sha256": lambda store: store.put("checkpoints/000000026.json", b"{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_pair_is_passed_over_with_a_warning_and_stays(store, caplog, damage):
    publish(store, 13, 26)
    DAMAGE[damage](store)
    before = {key: store.get(key) for key in keys(store)}
    found = read_newest(store, lambda data: data)
    assert found.saved.images_seen == 13
    assert list(found.broken) == [26]
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert "checkpoints/000000026." in warning.reason
    assert {key: store.get(key) for key in keys(store)} == before


def test_one_that_can_not_be_decoded_is_passed_over(store):
    def decode(data):
        if data == b"tensors 26":
            raise CheckpointError("holds no tensors")
        return data.decode()

    publish(store, 13, 26)
    found = read_newest(store, decode)
    assert (found.saved.images_seen, found.saved.content) == (13, "tensors 13")
    assert found.broken == {26: f"{store.uri}/checkpoints/000000026.pt: holds no tensors"}


def test_what_is_set_aside_keeps_its_bytes_under_another_name(store):
    publish(store, 13, 26)
    set_aside(store, 26)
    assert list_checkpoints(store) == [13]
    assert store.get("checkpoints/unverified/000000026.pt") == b"tensors 26"
    assert b"sha256" in store.get("checkpoints/unverified/000000026.json")
    delete_after(store, 0)
    assert [key for key in keys(store) if "unverified" in key] == keys(store)


def test_tensors_whose_json_has_gone_are_no_fresh_start(store):
    publish(store, 13, 26)
    for number in (13, 26):
        store.delete(checkpoint_key(number, "json"))
    found = read_newest(store, lambda data: data)
    assert found.saved is None
    assert sorted(found.broken) == list_incomplete(store) == [13, 26]


def test_tensors_without_their_json_were_never_complete(store):
    publish(store, 13)
    store.put("checkpoints/000000026.pt", b"half")
    assert newest(store).images_seen == 13


def test_other_files_there_are_no_checkpoints(store):
    for key in ("checkpoints/notes.json", "checkpoints/old/000000099.json", "checkpoints/x.pt"):
        store.put(key, b"{}")
    publish(store, 13)
    keep_newest(store, 1)
    delete_after(store, 13)
    assert newest(store).images_seen == 13
    assert len(keys(store)) == 5


def in_order(store, monkeypatch, method):
    """Note the keys that a method of ``store`` is called with; it still does its work."""
    seen, real = [], getattr(store, method)

    def noted(key, *arguments, **options):
        seen.append(key)
        return real(key, *arguments, **options)

    monkeypatch.setattr(store, method, noted)
    return seen


def test_the_tensors_are_written_first(store, monkeypatch):
    written = in_order(store, monkeypatch, "put")
    publish(store, 13)
    assert written == ["checkpoints/000000013.pt", "checkpoints/000000013.json"]


def test_the_newest_are_kept_and_of_the_others_the_json_goes_first(store, monkeypatch):
    publish(store, 13, 26, 39, 52)
    deleted = in_order(store, monkeypatch, "delete")
    keep_newest(store, 2)
    assert list_checkpoints(store) == [39, 52]
    assert deleted == [
        checkpoint_key(number, suffix) for number in (13, 26) for suffix in ("json", "pt")
    ]
    assert len(keys(store)) == 4


def test_fewer_than_are_to_be_kept_all_stay(store):
    keep_newest(store, 3)
    publish(store, 13, 26)
    keep_newest(store, 3)
    assert list_checkpoints(store) == [13, 26]


def test_what_a_kill_left_half_written_goes_too(store):
    publish(store, 13, 39)
    for number in (20, 26, 45):
        store.put(checkpoint_key(number, "pt"), b"half")
    keep_newest(store, 1)
    assert keys(store) == [
        "checkpoints/000000039.json",
        "checkpoints/000000039.pt",
        "checkpoints/000000045.pt",
    ]
    delete_after(store, 39)
    assert keys(store) == ["checkpoints/000000039.json", "checkpoints/000000039.pt"]


def test_the_same_checkpoint_again_is_fine(store, monkeypatch):
    publish(store, 13)
    written = in_order(store, monkeypatch, "put")
    publish(store, 13)
    assert written == []


def test_other_weights_under_the_same_name_are_refused_and_nothing_is_lost(store):
    publish(store, 13)
    with pytest.raises(StorageError, match=r"000000013\.json: another run.*stop one of them"):
        publish_checkpoint(store, 13, b"other", {})
    assert newest(store).content == b"tensors 13"


def test_of_two_runs_in_the_same_moment_one_is_told(store, monkeypatch):
    """The other's JSON comes between our look and our write."""
    real = store.put

    def put(key, data, **options):
        if key.endswith(".pt"):
            facts = {"sha256": "0" * 64}
            open_store(store.uri).put(checkpoint_key(13, "json"), json.dumps(facts).encode())
        real(key, data, **options)

    monkeypatch.setattr(store, "put", put)
    with pytest.raises(StorageError, match="another run has written other weights"):
        publish(store, 13)
