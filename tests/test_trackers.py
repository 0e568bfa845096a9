"""Trackers that fail, are slow, or are told of a run that goes back."""

import logging
import threading

import pytest

from mrigan.artifacts.history import EpochRow
from mrigan.jobs.train.trackers import beside
from mrigan.jobs.train.trackers.beside import Beside
from mrigan.jobs.train.trackers.choice import Trackers
from mrigan.jobs.train.trackers.tracker import scalars


def row(epoch, **means):
    return EpochRow(
        epoch=epoch, images_seen=10 * epoch, means=means, seconds=1.0, images_per_second=10.0
    )


class Heard:
    """A tracker that remembers; it raises where ``flaws`` still has something."""

    def __init__(self, *flaws):
        self.flaws, self.told = list(flaws), []

    def rows(self, rows):
        if self.flaws:
            raise self.flaws.pop(0)
        self.told += [row.epoch for row in rows]

    def grid(self, png, row):
        self.told.append((png, row.epoch))

    def end(self, state):
        self.told.append(state)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(beside, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(beside, "_LONGEST_PAUSE_SECONDS", 0.001)


def test_each_row_is_told_once_and_again_where_the_run_went_back():
    heard = Heard()
    trackers = Trackers([heard], told=10)
    rows = [row(1), row(2)]
    trackers.rows(rows)
    trackers.rows(rows)
    trackers.rows([*rows, row(3)])
    assert heard.told == [2, 3]
    trackers.rows(rows[:1])  # rolled back
    trackers.rows(rows)
    trackers.rows([])  # to the start
    trackers.rows(rows)
    assert heard.told == [2, 3, 2, 1, 2]


def test_what_a_tracker_did_not_take_is_told_again_in_its_order(impatient, caplog):
    heard = Heard(OSError("away\nfor long"), ValueError())
    sent = threading.Event()
    heard.grid = lambda png, row: sent.set()
    with caplog.at_level(logging.WARNING):
        told = Beside("some", lambda: heard)
        told.rows([row(1), row(2)])
        told.rows([row(3)])
        told.grid(b"", row(3))
        assert sent.wait(60)
        told.end("completed")
    assert heard.told == [1, 2, 3, "completed"]
    (record,) = caplog.records
    assert (record.message, record.tracker, record.reason) == ("tracker_failed", "some", "away")


def test_a_tracker_that_can_not_be_reached_is_left_with_a_warning(impatient, caplog):
    def begin():
        raise OSError("nobody there")

    with caplog.at_level(logging.WARNING):
        told = Beside("some", begin)
        told.rows([row(1)])
        told.end("interrupted")
    assert [record.message for record in caplog.records] == ["tracker_failed", "tracker_missed"]
    assert caplog.records[-1].messages == 2


def test_the_first_end_of_a_run_counts(caplog):
    heard = Heard()
    told = Beside("some", lambda: heard)
    told.end("completed")
    told.end("failed")  # the status could not be published
    assert heard.told == ["completed"]
    assert not caplog.records


def test_a_tracker_that_hangs_does_not_keep_a_job(monkeypatch, caplog):
    monkeypatch.setitem(beside._END_SECONDS, "failed", 0.01)
    hold, heard = threading.Event(), Heard()

    def hang(rows):
        hold.wait(60)
        raise OSError("after all")

    heard.rows = hang
    with caplog.at_level(logging.WARNING):
        told = Beside("some", lambda: heard)
        told.rows([row(1)])
        told.end("failed")
        hold.set()
        told._thread.join(60)
    assert [record.message for record in caplog.records] == ["tracker_missed"]


def test_a_long_outage_keeps_the_newest_messages(monkeypatch):
    monkeypatch.setattr(beside, "_MOST_WAITING", 3)
    begun, hold, heard = threading.Event(), threading.Event(), Heard()

    def begin():
        begun.set()
        hold.wait(60)
        return heard

    told = Beside("some", begin)
    told.rows([row(1)])
    assert begun.wait(60)
    for epoch in range(2, 6):
        told.rows([row(epoch)])
    hold.set()
    told.end("completed")
    assert heard.told[-2:] == [5, "completed"]


def test_numbers_that_are_not_finite_are_told_to_nobody():
    found = scalars(row(3, d_loss=float("nan"), g_loss=0.5))
    assert found == {
        "training/g_loss": 0.5,
        "machine/images_per_second": 10.0,
        "progress/epoch": 3.0,
        "progress/alarms": 0.0,
    }
