"""``mrigan phantom``: slices put where there are none, and trained on."""

import functools
import io
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mrigan.data.phantom import draw
from mrigan.storage.store import open_store

DEADLINE_SECONDS = 120  # only a broken promise takes so long
IN_FLIGHT = 16


@pytest.fixture
def held(mrigan, monkeypatch):
    """Draw as many phantoms as are under way at once, and no more until the command has ended.

    Call it with a place for ``count`` phantoms and what to do before number ``at`` is drawn, when
    all are queued. It returns how the command ended and which phantoms were begun until no thread
    of it was left.
    """
    queued, over = threading.Event(), threading.Event()

    def run(uri, *, count, at, do):
        begun, waited_in_vain, jobs = [], [], []
        others = set(threading.enumerate())

        class Pool(ThreadPoolExecutor):
            def submit(self, job):
                jobs.append(job)
                if len(jobs) == count:
                    queued.set()
                return super().submit(job)

        def drawn(index, height, width):
            begun.append(index)
            if index == at:
                assert queued.wait(DEADLINE_SECONDS)
                do()
            elif index > at and not over.wait(DEADLINE_SECONDS):
                waited_in_vain.append(index)
            return draw(index, height, width)

        monkeypatch.setattr("mrigan.jobs.phantom.ThreadPoolExecutor", Pool)
        monkeypatch.setattr("mrigan.jobs.phantom.draw", drawn)
        ended = mrigan("phantom", uri, "--count", count, "--height", 33, "--width", 33)
        over.set()
        for thread in set(threading.enumerate()) - others:
            thread.join(DEADLINE_SECONDS)
        assert waited_in_vain == []
        return ended, begun

    yield run
    over.set()


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_phantoms_are_written_as_drawn(mrigan, store_uri, content):
    ended = mrigan("phantom", store_uri, "--count", 5, "--height", 41, "--width", 33)
    assert (ended.status, ended.err) == (0, "")
    assert "written objects=5 " in ended.out
    objects = content(store_uri)
    assert list(objects) == [f"phantom-{index:06d}.png" for index in range(5)]
    for index, data in enumerate(objects.values()):
        assert np.array_equal(pixels(data), draw(index, 41, 33))


def test_they_are_the_same_ones_each_time(mrigan, tmp_path, content):
    for name, count in (("one", 3), ("two", 4)):
        assert mrigan("phantom", tmp_path / name, "--count", count, "--height", 40).status == 0
    one, two = content(str(tmp_path / "one")), content(str(tmp_path / "two"))
    assert one.items() < two.items()
    assert pixels(one["phantom-000000.png"]).shape == (40, 160)


def test_if_empty_leaves_what_is_there_alone(mrigan, store_uri, content):
    for expected in ("slices_written objects=2", "slices_not_written "):
        ended = mrigan("phantom", store_uri, "--count", 2, "--height", 33, "--if-empty")
        assert ended.status == 0
        assert expected in ended.out
    open_store(store_uri).delete("phantom-000000.png")
    assert mrigan("phantom", store_uri, "--count", 3, "--if-empty").status == 0
    assert list(content(store_uri)) == ["phantom-000001.png"]


def test_a_folder_of_ones_own_is_uploaded_in_their_place(mrigan, store_uri, content, tmp_path):
    mine = tmp_path / "mine"
    (mine / "patient 1").mkdir(parents=True)
    files = {"patient 1/slice é.png": b"first", "b.png": b"second", "notes.txt": b""}
    for name, data in files.items():
        (mine / name).write_bytes(data)
    ended = mrigan("phantom", store_uri, "--from", mine, "--count", 7)
    assert ended.status == 0
    assert "written objects=3 " in ended.out
    assert content(store_uri) == files


def test_what_can_not_be_drawn_is_refused_at_once(mrigan, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = mrigan(
        "phantom", tmp_path / "out", "--count", 0, "--height", 31, "--from", tmp_path / "empty"
    )
    assert ended.status == 2
    assert ended.err.splitlines() == [
        "mrigan: --count: must be at least 1",
        "mrigan: --height and --width: must be at least 32 pixels",
        f"mrigan: --from: {tmp_path / 'empty'} holds no files; name a folder of slices, with "
        "compose by SLICES, or leave it out",
    ]
    assert not (tmp_path / "out").exists()


def test_the_first_failed_upload_ends_it(aws_environ, monkeypatch, held):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MRIGAN_STORAGE_RETRIES", "1")
    ended, begun = held("s3://bucket/slices", count=200, at=0, do=lambda: None)
    assert len(begun) <= IN_FLIGHT + 1  # the place of the one that failed is taken at once
    assert ended.status == 5
    assert ended.err.count("\n") == 1
    assert f"127.0.0.1:{port} refuses connections" in ended.err


def test_a_signal_ends_it_at_once(tmp_path, held):
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    ended, begun = held(tmp_path / "out", count=200, at=3, do=stop)
    assert ended.status == 143
    assert len(begun) <= 3 + IN_FLIGHT + 1
    assert len(list((tmp_path / "out").glob("*.png"))) == len(begun)


def test_what_it_writes_can_be_trained_on_as_if_drawn(
    mrigan, train, tmp_path, content, finished_in_folder
):
    """Slices from files and slices drawn in memory are the same slices."""
    slices = tmp_path / "slices"
    assert mrigan("phantom", slices, "--count", 13, "--height", 48, "--width", 33).status == 0
    ended = train(tmp_path / "run", input_uri=slices, epochs=1)
    assert ended.status == 0
    ours = content(str(tmp_path / "run"))
    theirs = content(finished_in_folder.uri)
    assert ours["samples/real.png"] == theirs["samples/real.png"]
    assert ours["samples/epoch-0001.png"] == theirs["samples/epoch-0001.png"]


@pytest.mark.parametrize("uri", ["gs://bucket/x", "phantom://5"])
def test_a_place_that_can_not_be_written_is_named(mrigan, uri):
    ended = mrigan("phantom", uri, "--count", 1)
    assert ended.status == 5
    assert ended.err.startswith(
        f"mrigan: {uri.split(':')[0]}://: no such kind of store; give s3://"
    )
