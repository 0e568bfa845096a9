"""One writer per run, whatever the store: who gets the lease, from whom, and who notices."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mrigan.artifacts import lease as lease_module
from mrigan.artifacts.lease import holder_of, take
from mrigan.errors import LeaseError
from mrigan.runtime.process import Process, is_running, this_process
from mrigan.storage.store import Store, open_store


@pytest.fixture
def store(store_uri):
    return open_store(store_uri)


@pytest.fixture
def taken(store):
    """Take the lease, as another job would; all are released at the end."""
    held = []

    def run(*, take_over=False):
        held.append(take(store, take_over=take_over, should_stop=lambda: False))
        return held[-1]

    yield run
    for each in held:
        each.release()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lease_module, "RENEWAL_SECONDS", 0.2)
    monkeypatch.setattr(lease_module, "DEAD_SECONDS", 3.0)
    monkeypatch.setattr(lease_module, "_PAUSE_SECONDS", 0.1)


def written(store):
    """The lease as it stands, and its key."""
    (info,) = store.list("lease")
    return info.key, json.loads(store.get(info.key))


def rewritten(store, **changed):
    """Put another holder into the lease, its process changed by ``process``."""
    key, found = written(store)
    found["process"] |= changed.pop("process", {})
    store.put(key, json.dumps(found | changed).encode())


def test_a_run_that_another_job_writes_is_refused_and_named(store, taken):
    first = taken()
    with pytest.raises(LeaseError) as refused:
        taken()
    own = this_process()
    assert f"process {own.pid} on {own.host}, since 20" in str(refused.value)
    assert "MRIGAN_TAKE_OVER=true" in str(refused.value)
    first.verify()


def test_a_released_run_is_free_and_one_small_file_stays(store, taken):
    for _ in range(3):
        taken().release()
    assert holder_of(store) is None
    assert written(store)[0] == "lease/000003.json"


def test_a_process_that_is_gone_is_followed_at_once(store, taken):
    taken().release()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    rewritten(store, is_released=False, process={"pid": gone.pid})
    started = time.monotonic()
    taken().verify()
    assert time.monotonic() - started < lease_module.DEAD_SECONDS / 2


def test_a_number_that_another_process_has_now_is_not_the_holder(store, taken):
    taken().release()
    rewritten(store, is_released=False, process={"started": 1})
    taken().verify()


def test_a_process_of_another_machine_that_renews_is_alive(store, taken, quick):
    taken().release()
    rewritten(store, is_released=False, process={"namespace": "elsewhere"})
    end = threading.Event()

    def renew():
        renewals = 0
        while not end.wait(0.3):
            renewals += 1
            rewritten(store, renewals=renewals)

    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(renew)
        try:
            with pytest.raises(LeaseError):
                taken()
        finally:
            end.set()
        renewing.result()


def test_a_process_of_another_machine_that_renews_no_more_is_followed(store, taken, quick):
    taken().release()
    rewritten(store, is_released=False, process={"namespace": "elsewhere"})
    taken().verify()
    assert written(store)[0] == "lease/000002.json"


def test_the_same_sagemaker_job_started_again_does_not_wait(store, taken, monkeypatch):
    monkeypatch.setenv("TRAINING_JOB_ARN", "arn:aws:sagemaker:eu-west-3:1:training-job/mine")
    taken().release()
    rewritten(store, is_released=False, process={"namespace": "elsewhere", "host": "algo-1"})
    with monkeypatch.context() as patch:
        patch.setattr(lease_module.time, "sleep", pytest.fail)
        taken().verify()


def test_whoever_was_taken_over_hears_of_it_and_leaves_the_lease_alone(store, taken):
    first = taken()
    second = taken(take_over=True)
    with pytest.raises(LeaseError, match="another job has taken the run over"):
        first.verify()
    first.release()
    second.verify()
    assert written(store)[0] == "lease/000002.json"
    assert not written(store)[1]["is_released"]


def test_a_holder_renews_and_hears_of_its_end_by_itself(store, taken, quick):
    first = taken()
    deadline = time.monotonic() + 60
    while written(store)[1]["renewals"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store.delete(written(store)[0])
    with pytest.raises(LeaseError, match="has been removed"):
        first.verify()


def test_of_many_at_the_same_moment_one_wins(store_uri):
    stores = [open_store(store_uri) for _ in range(8)]
    barrier = threading.Barrier(len(stores))

    def attempt(store):
        barrier.wait()
        try:
            return take(store, take_over=False, should_stop=lambda: False)
        except LeaseError:
            return None

    with ThreadPoolExecutor(len(stores)) as pool:
        won = [each for each in pool.map(attempt, stores) if each]
    assert len(won) == 1
    won[0].verify()
    won[0].release()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"token": 3}', "{" * 1000])
def test_a_lease_that_says_nothing_is_followed(store, taken, text):
    store.put("lease/000004.json", text.encode())
    taken().verify()
    assert written(store)[0] == "lease/000005.json"


def test_a_store_without_conditional_writes_is_warned_of(store, taken, monkeypatch, caplog):
    monkeypatch.setattr(type(store), "honours_create", lambda _: False)
    monkeypatch.setattr(lease_module, "_SETTLING_SECONDS", 0.0)
    taken().verify()
    assert "no_conditional_writes" in caplog.messages
    with pytest.raises(LeaseError):
        taken()


def test_a_process_is_told_from_others():
    own = this_process()
    assert is_running(own) is True
    script = "from mrigan.runtime.process import this_process as t; print(t().started, flush=True)"
    command = [sys.executable, "-c", f"{script}; input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        started = int(child.stdout.readline())
        other = Process(host="", namespace=own.namespace, pid=child.pid, started=started)
        assert is_running(other) is True
        assert is_running(replace(other, started=started + 1)) is False
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie does not run
        assert is_running(other) is False
    assert is_running(other) is False
    assert is_running(replace(other, namespace="")) is None


def test_one_garbled_listing_neither_loses_the_lease_nor_gives_it_away(
    store, taken, monkeypatch, quick
):
    """A flipped bit makes lease/000001.json look like lease/000005.json."""
    first = taken()
    real, wrong = Store.list, [True]

    def garbled(self, prefix=""):
        found = real(self, prefix)
        if wrong and wrong.pop():
            return [replace(found[0], key="lease/000005.json")]
        return found

    monkeypatch.setattr(Store, "list", garbled)
    first.verify()
    wrong.append(True)
    with pytest.raises(LeaseError, match="another job writes this run"):
        taken()
    assert written(store)[0] == "lease/000001.json"
