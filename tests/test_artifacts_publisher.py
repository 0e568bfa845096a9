"""The publisher beside a training thread: order, room, and a store that fails."""

import threading
import time

import pytest

from mrigan.artifacts import publisher as publisher_module
from mrigan.artifacts.publisher import Publisher
from mrigan.errors import AlreadyExistsError, StorageError

DEADLINE_SECONDS = 120  # only a broken promise takes so long


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(publisher_module, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(publisher_module, "_LONGEST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def open_publisher():
    opened = []

    def make(**options):
        opened.append(Publisher(RUN, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
        each._thread.join(DEADLINE_SECONDS)
        assert not each._thread.is_alive()


class Place:
    """Stands for a store: this publisher's work only needs to know which one it is."""

    def __init__(self):
        self.seconds = 0.0

    def seconds_in_write(self):
        return self.seconds


RUN, ELSEWHERE = Place(), Place()


class Store:
    """Notes what is written; the first piece of work waits until the gate opens."""

    def __init__(self):
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.stopping = threading.Event()
        self.written = []

    def hold(self, _):
        self.entered.set()
        assert self.gate.wait(DEADLINE_SECONDS)
        self.written.append("first")

    def writes(self, name):
        return lambda _: self.written.append(name)


@pytest.fixture
def held(open_publisher):
    """A publisher busy with its first piece of work, and the store that holds it there."""
    store = Store()
    publisher = open_publisher(backlog_bytes=4, should_stop=store.stopping.is_set)
    publisher.submit("first", store.hold)
    assert store.entered.wait(DEADLINE_SECONDS)
    yield publisher, store
    store.gate.set()


def released(publisher, store):
    store.gate.set()
    publisher.flush(DEADLINE_SECONDS)
    return store.written


def test_work_is_done_in_the_order_of_its_submission(held):
    publisher, store = held
    for name in "cab":
        publisher.submit(name, store.writes(name))
    assert released(publisher, store) == ["first", "c", "a", "b"]


def test_newer_work_takes_the_place_of_what_waits(held):
    publisher, store = held
    for name in ("metrics 1", "plot 1", "metrics 2"):
        publisher.submit(name.split()[0], store.writes(name))
    assert released(publisher, store) == ["first", "metrics 2", "plot 1"]


def test_work_that_has_begun_is_not_replaced(held):
    publisher, store = held
    publisher.submit("first", store.writes("first again"))
    assert released(publisher, store) == ["first", "first again"]


def test_a_checkpoint_comes_after_all_that_it_stands_for(held):
    publisher, store = held
    publisher.submit_behind_all("checkpoint", store.writes("checkpoint 1"))
    publisher.submit("metrics", store.writes("metrics 2"))
    done = in_background(
        lambda: publisher.submit_behind_all("checkpoint", store.writes("checkpoint 2"))
    )
    assert not done.wait(0.3)
    store.gate.set()
    assert done.wait(DEADLINE_SECONDS)
    assert released(publisher, store) == ["first", "checkpoint 1", "metrics 2", "checkpoint 2"]


def test_training_goes_on_while_the_store_is_away_and_only_the_newest_checkpoint_waits(
    held, monkeypatch
):
    publisher, store = held
    monkeypatch.setattr(RUN, "seconds", 3.1)
    for epoch in range(1, 200):
        publisher.submit("metrics", store.writes(f"metrics {epoch}"))
        publisher.submit_behind_all("checkpoint", store.writes(f"checkpoint {epoch}"))
    assert len(publisher._queue) == 2
    assert released(publisher, store) == ["first", "metrics 199", "checkpoint 199"]


def test_when_time_is_short_nothing_blocks_and_only_the_last_checkpoint_counts(held):
    publisher, store = held
    publisher.submit_behind_all("checkpoint", store.writes("checkpoint 1"))
    for number in (1, 2, 3, 4):
        publisher.submit(f"grid {number}", store.writes(f"grid {number}"), size_bytes=1)

    def last_words():
        publisher.submit("grid 5", store.writes("grid 5"), size_bytes=1)
        publisher.submit_behind_all("checkpoint", store.writes("checkpoint 2"))

    done = in_background(last_words)
    assert not done.wait(0.3)
    store.stopping.set()
    assert done.wait(DEADLINE_SECONDS)
    assert released(publisher, store) == [
        "first", "grid 1", "grid 2", "grid 3", "grid 4", "grid 5", "checkpoint 2",
    ]  # fmt: skip


def in_background(call):
    done = threading.Event()

    def run():
        call()
        done.set()

    threading.Thread(target=run, daemon=True).start()
    return done


def test_no_more_waits_than_there_is_room_for(held):
    publisher, store = held
    for number in range(2):
        publisher.submit(f"grid {number}", store.writes(number), size_bytes=2)
    publisher.submit("metrics", store.writes("metrics"))  # takes no room
    done = in_background(lambda: publisher.submit("grid 2", store.writes(2), size_bytes=1))
    assert not done.wait(0.3)
    store.gate.set()
    assert done.wait(DEADLINE_SECONDS)
    assert released(publisher, store) == ["first", 0, 1, "metrics", 2]


def test_what_is_larger_than_all_the_room_does_not_wait_for_ever(held):
    publisher, store = held
    publisher.submit("grid", store.writes("grid"), size_bytes=5)
    assert released(publisher, store) == ["first", "grid"]


AWAY = StorageError("can't write s3://b/k: the store keeps answering SlowDown", is_passing=True)
REFUSED = StorageError("can't write s3://b/k: access denied")


def failing(times, error=AWAY):
    left = [error] * times

    def work(_=None):
        if left:
            raise left.pop()

    return work


def test_a_store_that_fails_for_a_while_is_waited_for(open_publisher, caplog):
    publisher, done = open_publisher(), []
    attempts = failing(3)

    def work(_):
        attempts()
        done.append("written")

    publisher.submit("plot", work)
    publisher.submit("next", lambda _: done.append("next"))
    publisher.flush(DEADLINE_SECONDS)
    assert done == ["written", "next"]
    assert [record.message for record in caplog.records] == ["publish_again"] * 3
    assert "SlowDown" in caplog.records[0].reason


def test_a_store_that_keeps_failing_ends_the_training_thread(open_publisher):
    publisher = open_publisher(patience_seconds=0.1)
    publisher.submit("plot", failing(10**6))

    def train():
        for _ in range(100 * DEADLINE_SECONDS):
            publisher.submit("metrics", lambda _: None)
            publisher.check()
            time.sleep(0.01)

    with pytest.raises(StorageError, match="SlowDown"):
        train()
    with pytest.raises(StorageError, match="SlowDown"):
        publisher.flush(DEADLINE_SECONDS)


def test_a_thread_that_waits_for_room_hears_of_the_failure(open_publisher):
    publisher = open_publisher(patience_seconds=0.1, backlog_bytes=1)
    publisher.submit("plot", failing(10**6))

    def train():
        for number in range(3):
            publisher.submit(f"grid {number}", lambda _: None, size_bytes=1)
            publisher.submit_behind_all("checkpoint", lambda _: None)
        publisher.check()

    with pytest.raises(StorageError, match="SlowDown"):
        train()


@pytest.mark.parametrize("error", [AlreadyExistsError("another run"), ValueError("a bug")])
def test_what_waiting_can_not_mend_is_told_at_once(open_publisher, error):
    publisher, attempts = open_publisher(), []

    def work(_):
        attempts.append(1)
        raise error

    publisher.submit("checkpoint", work)
    with pytest.raises(type(error), match=str(error)):
        publisher.flush(DEADLINE_SECONDS)
    assert attempts == [1]


def test_a_flush_gives_up_in_time_and_says_what_waits(held):
    publisher, store = held
    publisher.submit("plots/losses.png", store.writes("plot"))
    with pytest.raises(StorageError, match=r"within 0 s \(waiting: plots/losses.png\)"):
        publisher.flush(0.05)


def test_a_flush_shortens_the_patience_with_a_failing_store(open_publisher):
    publisher, again = open_publisher(patience_seconds=600), threading.Event()
    fail, attempts = failing(10**6), []

    def work(_):
        attempts.append(1)
        if len(attempts) == 2:
            again.set()
        fail()

    publisher.submit("plot", work)
    assert again.wait(DEADLINE_SECONDS)
    with pytest.raises(StorageError, match="SlowDown"):
        publisher.flush(0.3)
    publisher._thread.join(DEADLINE_SECONDS)
    assert not publisher._thread.is_alive()  # it has given up, before anyone closes it


def test_closing_drops_what_has_not_begun(held):
    publisher, store = held
    publisher.submit("plot", store.writes("plot"))
    closed = in_background(publisher.close)
    while publisher._queue:
        time.sleep(0.01)
    store.gate.set()
    assert closed.wait(DEADLINE_SECONDS)
    assert store.written == ["first"]


def test_closing_ends_the_wait_for_a_failing_store(open_publisher, monkeypatch, caplog):
    monkeypatch.setattr(publisher_module, "_FIRST_PAUSE_SECONDS", 2.0 * DEADLINE_SECONDS)
    publisher = open_publisher()
    publisher.submit("plot", failing(10**6))
    while not caplog.records:  # said with the lock held that the wait gives back
        time.sleep(0.01)
    publisher.close()
    publisher._thread.join(DEADLINE_SECONDS)
    assert not publisher._thread.is_alive()
    assert [record.message for record in caplog.records] == ["publish_again"]


def test_a_store_that_refuses_ends_the_training_thread_within_seconds(open_publisher, monkeypatch):
    monkeypatch.setattr(publisher_module, "_UNMENDABLE_SECONDS", 0.05)
    publisher, attempts = open_publisher(patience_seconds=10.0 * DEADLINE_SECONDS), []

    def work(_):
        attempts.append(1)
        raise REFUSED

    publisher.submit("checkpoint", work)
    with pytest.raises(StorageError, match="access denied"):
        publisher.flush(DEADLINE_SECONDS)
    with pytest.raises(StorageError, match="access denied"):
        publisher.check()
    assert len(attempts) > 1  # a permission may have been given a moment ago


def test_what_is_not_written_goes_elsewhere_and_so_does_what_comes_later(open_publisher):
    refusing, written = [True], []

    def writes(name):
        def write(store):
            if store is RUN and refusing:
                raise AlreadyExistsError("another run")
            written.append((store, name))

        return write

    publisher = open_publisher()
    publisher.submit("checkpoint", writes("checkpoint 1"))
    publisher.submit("metrics", writes("metrics"))
    with pytest.raises(AlreadyExistsError):
        publisher.flush(DEADLINE_SECONDS)
    publisher.redirect(ELSEWHERE)
    publisher.submit("plot", writes("plot"))
    publisher.flush(DEADLINE_SECONDS)
    assert written == [(ELSEWHERE, name) for name in ("checkpoint 1", "metrics", "plot")]


def test_a_write_that_never_returns_is_done_again_elsewhere(held):
    publisher, store = held
    stores = []
    publisher.submit("plot", stores.append)
    with pytest.raises(StorageError, match="within 0 s"):
        publisher.flush(0.05)
    store.entered.clear()
    store.gate.set()  # of the second attempt; the first may end at any time
    publisher.redirect(ELSEWHERE)
    publisher.flush(DEADLINE_SECONDS)
    assert store.entered.is_set()
    assert stores == [ELSEWHERE]
