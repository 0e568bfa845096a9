"""One contract, held by a folder and by a bucket alike."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mrigan.errors import AlreadyExistsError, StorageError
from mrigan.storage.store import open_store

ODD_KEYS = [
    "plain.png",
    "with blank.png",
    "deep/er/still.png",
    "ünïcödé/日本.png",
    "e\u0301 decomposed",
    "100%.png",
    "a%20b%2Fc",
    "a+b=c&d",
    "slice #3.png",
    "what?.png",
    "a\\b",
    "[1]{2}~^|*<>:\"'`",
    ".hidden",
    "...",
    " ",
]


@pytest.fixture
def store(store_uri):
    return open_store(store_uri)


def test_bytes_come_back_as_they_were_put(store):
    data = bytes(range(256)) * 13
    store.put("a/b.bin", data)
    assert store.get("a/b.bin") == data


def test_a_file_can_be_put_by_its_path(store, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file")
    store.put("copy.bin", source)
    assert store.get("copy.bin") == b"from a file"


def test_a_file_that_does_not_exist_is_named(store, tmp_path):
    with pytest.raises(StorageError, match=r"absent\.bin"):
        store.put("copy.bin", tmp_path / "absent.bin")


def test_more_than_one_part_comes_back_whole(store, tmp_path):
    data = os.urandom(17 * 2**20 + 5)
    store.put("large.bin", data)
    assert store.get("large.bin") == data
    store.download("large.bin", tmp_path / "large.bin")
    assert (tmp_path / "large.bin").read_bytes() == data


def test_an_empty_object_is_an_object(store):
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert [(info.key, info.size_bytes) for info in store.list()] == [("empty", 0)]


def test_every_odd_key_is_listed_and_read_as_it_was_written(store):
    for key in ODD_KEYS:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == sorted(ODD_KEYS, key=str.encode)
    for key in ODD_KEYS:
        assert store.get(key) == key.encode()
        assert store.head(key).key == key


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\nb", "a\x7f", "a\ud800"]
)
def test_a_key_that_both_stores_could_not_hold_is_refused(store, key):
    with pytest.raises(StorageError, match="a key"):
        store.put(key, b"x")


def test_what_is_listed_is_true_of_the_object(store):
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.put("samples/epoch-0001.png", b"12345")
    [info] = store.list()
    assert info.key == "samples/epoch-0001.png"
    assert info.size_bytes == 5
    assert info.etag
    assert '"' not in info.etag
    assert before < info.modified < datetime.now(UTC) + timedelta(seconds=2)
    assert store.head(info.key) == info


def test_the_etag_changes_with_the_object(store):
    store.put("a", b"one")
    first = store.head("a").etag
    store.put("a", b"two, and longer")
    assert store.head("a").etag != first


def test_a_prefix_matches_whole_segments(store):
    for key in ("slices/1", "slices/deep/2", "slices-old/3", "slices.txt", "other/slices/4"):
        store.put(key, b"x")
    assert [info.key for info in store.list("slices")] == ["slices/1", "slices/deep/2"]
    assert [info.key for info in store.list("slices/")] == ["slices/1", "slices/deep/2"]
    assert store.list("nothing") == []


def test_a_store_sees_its_own_prefix_alone(store_uri):
    open_store(f"{store_uri}/a").put("x", b"1")
    open_store(f"{store_uri}/ab").put("x", b"2")
    assert [info.key for info in open_store(f"{store_uri}/a/").list()] == ["x"]
    assert [info.key for info in open_store(store_uri).list()] == ["a/x", "ab/x"]


def test_a_missing_object_is_none_to_head_and_an_error_to_get(store, tmp_path):
    assert store.head("absent") is None
    store.put("there", b"x")
    assert store.head("absent") is None
    with pytest.raises(StorageError, match=r"absent: there is no such object"):
        store.get("absent")
    with pytest.raises(StorageError, match=r"absent: there is no such object"):
        store.download("absent", tmp_path / "absent")
    assert list(tmp_path.glob("absent*")) == []


def test_putting_again_replaces(store):
    store.put("a", b"one, the longer of the two")
    store.put("a", b"two")
    assert store.get("a") == b"two"


def test_create_leaves_what_is_there_alone(store):
    store.put("a", b"one", create=True)
    with pytest.raises(AlreadyExistsError, match=r"/a: is there already"):
        store.put("a", b"two", create=True)
    assert store.get("a") == b"one"


def test_of_many_who_create_at_once_one_succeeds(store):
    def try_to_create(number):
        try:
            store.put("lock", b"%d" % number, create=True)
        except AlreadyExistsError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [n for n in pool.map(try_to_create, range(16)) if n is not None]
    assert len(winners) == 1
    assert store.get("lock") == b"%d" % winners[0]


def test_both_stores_honour_create_and_keep_nothing_of_the_probe(store):
    assert store.honours_create() is True
    assert store.honours_create() is True
    assert store.list("") == []


def test_a_deleted_object_is_gone_and_can_be_deleted_again(store):
    store.delete("a")
    store.put("a", b"x")
    store.put("b", b"y")
    store.delete("a")
    store.delete("a")
    assert [info.key for info in store.list()] == ["b"]


def test_the_identity_is_that_of_the_place(store_uri):
    same = {open_store(uri).identity for uri in (store_uri, f"{store_uri}/")}
    assert len(same) == 1
    assert open_store(f"{store_uri}2").identity not in same


def test_many_threads_read_the_same_store(store):
    bodies = {f"{number}.bin": os.urandom(500 + number) for number in range(40)}
    for key, body in bodies.items():
        store.put(key, body)
    with ThreadPoolExecutor(64) as pool:
        read = dict(zip(bodies, pool.map(store.get, bodies), strict=True))
    assert read == bodies


def test_a_download_replaces_a_file_and_leaves_no_parts(store, tmp_path):
    path = tmp_path / "into" / "here.bin"
    path.parent.mkdir()
    path.write_bytes(b"older")
    store.put("a", b"newer")
    store.download("a", path)
    assert path.read_bytes() == b"newer"
    assert list(path.parent.iterdir()) == [path]


def test_a_download_counts_its_bytes(store, tmp_path):
    store.put("a", b"x" * 5001)
    counted = []
    store.download("a", tmp_path / "a", on_bytes=counted.append)
    assert sum(counted) == 5001


def test_a_download_goes_on_where_an_earlier_one_was_cut(store, tmp_path):
    data = os.urandom(9 * 2**20)
    store.put("a", data)
    path = tmp_path / "a"
    stop = threading.Event()

    def interrupt(count):
        if count and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with pytest.raises(KeyboardInterrupt):
        store.download("a", path, on_bytes=interrupt)
    assert not path.exists()
    begun = (tmp_path / "a.part").stat().st_size
    assert 0 < begun < len(data)

    counted = []
    store.download("a", path, on_bytes=counted.append)
    assert path.read_bytes() == data
    assert counted[0] == begun
    assert sum(counted) == len(data)


def test_a_part_of_another_version_is_begun_anew(store, tmp_path):
    store.put("a", b"the new version")
    (tmp_path / "a.part").write_bytes(b"the old")
    (tmp_path / "a.part.etag").write_text("0" * 32)
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"the new version"


def test_a_whole_part_that_lacks_only_its_name_is_finished(store, tmp_path):
    store.put("a", b"all of it")
    (tmp_path / "a.part").write_bytes(b"all of it")
    (tmp_path / "a.part.etag").write_text(store.head("a").etag)
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"all of it"


def test_a_download_with_another_sha256_is_refused_and_replaces_nothing(store, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"good")
    store.put("a", b"bad")
    with pytest.raises(StorageError, match=r"/a: .*sha256"):
        store.download("a", path, sha256=hashlib.sha256(b"good").hexdigest())
    assert not list(tmp_path.glob("a.*"))
    assert path.read_bytes() == b"good"


def test_a_broken_part_is_found_out_by_sha256_and_begun_anew(store, tmp_path):
    data = os.urandom(3000)
    store.put("a", data)
    (tmp_path / "a.part").write_bytes(b"?" * 1000)
    (tmp_path / "a.part.etag").write_text(store.head("a").etag)
    store.download("a", tmp_path / "a", sha256=hashlib.sha256(data).hexdigest())
    assert (tmp_path / "a").read_bytes() == data
