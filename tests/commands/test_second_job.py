"""Two jobs on one run: the second is refused, takes over what has died, or is told to."""

import json
import signal

import pytest

from mrigan.storage.store import open_store
from processes import follow

DEADLINE_SECONDS = 250


@pytest.fixture
def first(spawn_train, store_uri):
    """A job that trains, for long enough."""
    process = spawn_train(store_uri, epochs=5000, checkpoint_every=1)
    follow(process, " checkpoint ")
    return process


@pytest.mark.slow
def test_a_second_job_ends_at_once_and_the_first_goes_on(first, train, store_uri):
    ended = train(store_uri, epochs=5000)
    assert ended.status == 5
    assert f"another job writes this run (process {first.pid} on " in ended.err
    assert ended.err.count("\n") == 1
    assert " slices " not in ended.out  # before the pull
    follow(first, " checkpoint ")
    first.send_signal(signal.SIGTERM)
    assert first.wait(DEADLINE_SECONDS) == 143


@pytest.mark.slow
def test_a_job_that_is_taken_over_stops_and_writes_nothing_more(first, spawn_train, store_uri):
    second = spawn_train(store_uri, epochs=5000, take_over="true", checkpoint_every=1)
    follow(second, "resumed images_seen=")
    first.stdout.close()
    assert first.wait(DEADLINE_SECONDS) == 5
    assert "another job has taken the run over" in first.stderr.read()
    follow(second, " checkpoint ")
    second.send_signal(signal.SIGTERM)
    assert second.wait(DEADLINE_SECONDS) == 143
    assert b"interrupted" in open_store(store_uri).get("status.json")


@pytest.mark.slow
def test_a_job_that_was_killed_is_followed_without_a_question(first, train, store_uri):
    first.kill()
    first.wait()
    ended = train(store_uri, epochs=5000, at=" epoch epoch=", do=lambda: signal.raise_signal(15))
    assert (ended.status, ended.err) == (143, "")
    assert "WARNING taken_over" in ended.out
    assert "resumed images_seen=" in ended.out


@pytest.mark.slow
def test_a_stop_while_a_holder_is_watched_is_a_clean_stop(spawn_train, store_uri):
    """A holder of another machine, which renews nothing: it may be dead, or only slow."""
    process = {"host": "algo-9", "namespace": "elsewhere", "pid": 7, "started": 1}
    holder = {"token": "t", "process": process, "job": "", "since": "2026-11-26T12:00:00Z"}
    store = open_store(store_uri)
    store.put("lease/000001.json", json.dumps(holder).encode())
    waiting = spawn_train(store_uri)
    follow(waiting, " watching_lease ")
    waiting.send_signal(signal.SIGTERM)
    out, err = waiting.communicate(timeout=DEADLINE_SECONDS)
    assert (waiting.returncode, err) == (143, "")
    assert 'interrupted signal=SIGTERM while="waiting for another job\'s lease"' in out
    assert [info.key for info in store.list()] == ["lease/000001.json"]
