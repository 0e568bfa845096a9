"""A store that is away or refuses while a run trains, and what becomes of the work."""

import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from faulty_s3 import FaultyS3
from mrigan.artifacts.checkpoints import list_checkpoints
from mrigan.jobs.train import recorder
from mrigan.storage.store import open_store
from processes import follow

pytestmark = pytest.mark.slow

EPOCHS = 40
DEADLINE_SECONDS = 250  # only a broken promise takes so long


@pytest.fixture
def faulty(bucket, s3_server, monkeypatch):
    """A bucket behind a proxy that fails when it is told to, and the proxy."""
    proxy = FaultyS3(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy, f"{bucket}/runs/away"
    proxy.fault = lambda _: None
    proxy.refuse()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("cache")
    small = {"image_height": 32, "image_width": 33}
    return small | {"epochs": EPOCHS, "checkpoint_every": 2, "cache_dir": cache_dir}


@pytest.fixture(scope="module")
def undisturbed(train, settings, tmp_path_factory):
    """What the run becomes when nothing happens."""
    uri = str(tmp_path_factory.mktemp("undisturbed") / "run")
    assert train(uri, **settings).status == 0
    return uri


@pytest.fixture
def assert_as_undisturbed(undisturbed, content, assert_same_run):
    """Of the checkpoints the last counts: which others there are depends on the clock."""

    def last_only(contents):
        last = max(key for key in contents if key.startswith("checkpoints/"))
        stem = last.partition(".")[0]
        return {
            key: data
            for key, data in contents.items()
            if key.startswith(stem) or not key.startswith("checkpoints/")
        }

    return lambda uri: assert_same_run(last_only(content(uri)), last_only(content(undisturbed)))


def ended(process):
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, out, err


def refusing_writes(proxy, code):
    proxy.fault = lambda request: code if request.method == "PUT" else None


def kept_folder(err):
    assert err.count("\n") == 1
    found = re.search(r"what is not published is kept in (\S+): mrigan publish (\S+)$", err.strip())
    assert found, err
    assert found[1] == found[2]
    return Path(found[1])


def test_training_goes_on_while_storage_is_away(
    faulty, spawn_train, settings, assert_as_undisturbed
):
    proxy, uri = faulty
    process = spawn_train(uri, **settings)
    follow(process, " epoch ", 3)
    proxy.refuse()
    away = follow(process, " epoch ", 20)  # with a checkpoint due after every second one
    assert not any(" checkpoint " in line for line in away.splitlines()[5:])
    proxy.listen()
    status, _, err = ended(process)
    assert (status, err) == (0, "")
    assert_as_undisturbed(uri)


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken"])
def test_what_waiting_can_not_mend_ends_the_job_and_nothing_is_lost(
    faulty, spawn_train, mrigan, train, settings, assert_as_undisturbed, code
):
    proxy, uri = faulty
    process = spawn_train(uri, **settings)
    follow(process, " epoch ", 3)
    refusing_writes(proxy, code)
    status, out, err = ended(process)
    assert status == 5
    told = [line for line in out.splitlines() if " epoch " in line]
    assert len(told) < EPOCHS - 3  # it did not train on for nothing
    folder = kept_folder(err)
    proxy.fault = lambda _: None
    before = list_checkpoints(open_store(uri))
    published = mrigan("publish", folder)
    assert published.status == 0, published.err
    assert f"uri={uri}" in published.out
    assert not folder.exists()
    after = list_checkpoints(open_store(uri))
    assert after[-1] > (before or [0])[-1]
    status = json.loads(open_store(uri).get("status.json"))
    assert (status["state"], status["exit_status"]) == ("failed", 5)
    resumed = train(uri, **settings)
    assert resumed.status == 0
    assert f"resumed images_seen={after[-1]} " in resumed.out
    assert_as_undisturbed(uri)


def test_a_run_whose_end_could_not_be_published_is_complete_once_it_is(
    faulty, spawn_train, mrigan, train, settings, assert_as_undisturbed
):
    proxy, uri = faulty
    process = spawn_train(uri, **settings)
    follow(process, " epoch ", EPOCHS)
    refusing_writes(proxy, "AccessDenied")
    status, _, err = ended(process)
    if status == 0:  # everything was written before the refusal
        pytest.skip("the last uploads were quicker than this test")
    assert status == 5
    folder = kept_folder(err)
    proxy.fault = lambda _: None
    assert mrigan("publish", folder).status == 0
    again = train(uri, **settings)
    assert (again.status, "already_complete" in again.out) == (0, True)
    assert_as_undisturbed(uri)


def test_a_stop_while_storage_is_away_keeps_the_work(
    faulty, mrigan, train, settings, monkeypatch, assert_as_undisturbed
):
    monkeypatch.setattr(recorder, "_FLUSH_SECONDS_WHEN_STOPPED", 2.0)
    proxy, uri = faulty

    def stop():
        proxy.refuse()
        os.kill(os.getpid(), signal.SIGTERM)

    ended = train(uri, **settings, at=" epoch epoch=5 ", do=stop)
    assert ended.status == 5
    assert 'stopping signal=SIGTERM effect="stopping ' in ended.out
    folder = kept_folder(ended.err)
    proxy.listen()
    monkeypatch.setenv("MRIGAN_TAKE_OVER", "true")  # this process, which could not say so, lives on
    assert mrigan("publish", folder).status == 0
    resumed = list_checkpoints(open_store(uri))[-1]
    again = train(uri, **settings)
    assert f"resumed images_seen={resumed} " in again.out
    assert_as_undisturbed(uri)


def test_a_storm_of_faults_changes_nothing(faulty, train, settings, assert_as_undisturbed):
    """Every second request fails, each time in another way."""
    proxy, uri = faulty
    kinds = ("SlowDown", "InternalError", "reset", "cut", "flipped", "lost", "TooManyRequests")
    proxy.fault = lambda r: kinds[r.number // 2 % len(kinds)] if r.number % 2 else None
    ended = train(uri, **settings, storage_retries=30)
    assert (ended.status, ended.err) == (0, "")
    proxy.fault = lambda _: None
    assert_as_undisturbed(uri)


def test_a_silent_store_is_no_reason_to_stand_still(faulty, spawn_train, settings):
    proxy, uri = faulty
    process = spawn_train(uri, **settings | {"epochs": 5000})
    follow(process, " epoch ", 3)
    lasting = threading.Event()
    proxy.fault = lambda _: None if lasting.is_set() else "silent"
    follow(process, " epoch ", 60)
    process.kill()
    lasting.set()
