"""What a person sees while a run trains: on a real terminal, and where there is none."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from mrigan.artifacts.history import EpochRow
from mrigan.jobs.train import display as display_module
from mrigan.jobs.train.display import LineDisplay, LiveDisplay, open_display
from mrigan.training.loop import Tick
from mrigan.training.plan import Plan

PLAN = Plan(slices=13, epochs=500, batch_size=4, accumulation_steps=2)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A pty of 80 columns, and all that was written to it."""

    def __init__(self):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stream = os.fdopen(slave, "w")
        self._parts = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while True:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # Linux's end of a pty
                return
            if not part:
                return
            self._parts.append(part)

    def close(self):
        """Return everything that was written."""
        self.stream.close()
        self._reader.join()
        os.close(self._master)
        return b"".join(self._parts).decode()


def row(epoch=1, memory=()):
    return EpochRow(
        epoch=epoch,
        images_seen=13 * epoch,
        means={"d_loss": 1.5},
        seconds=1.0,
        images_per_second=13.0,
        memory=dict(memory),
    )


def tick(images_seen, *, ends_epoch=False):
    sums = {"d_loss": torch.tensor(8 * 1.25), "g_loss": torch.tensor(8 * 0.7512)}
    epoch = PLAN.epoch_of(images_seen - 1)[0] + 1
    return Tick(
        epoch=epoch,
        images_seen=images_seen,
        step_images=8,
        sums=sums,
        ends_epoch=ends_epoch,
        micro_batch=4,
        taken=torch.ones((), dtype=torch.bool),
    )


def test_a_terminal_shows_the_run_live_and_is_left_as_it_was(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    ended = train(tmp_path / "run", out=terminal.stream, epochs=2)
    shown = terminal.close()
    assert (ended.status, ended.err) == (0, "")
    text = ESCAPES.sub("", shown)
    lines = re.split(r"[\r\n]+", text)
    [last] = [line for line in lines if "epoch 2/2" in line and "images/s" in line][-1:]
    figures = r"[\d,.]+ images/s  D 1\.\d{3}  G 0\.\d{3}  \d+\.\d GiB \d:\d\d:\d\d left"
    assert re.search(figures, last), last
    assert len(last) <= 80
    # Events stand above the bar; epochs are the bar's.
    assert any(
        re.fullmatch(r"\d\d:\d\d:\d\d checkpoint images_seen=26 epoch=2 *", x) for x in lines
    )
    assert "epoch epoch=" not in text
    # Each epoch leaves a line.
    left = [each for each in lines if re.match(r"epoch \d/2  D 1\.\d{3}  G 0\.\d{3}", each)]
    assert len(left) == 2
    assert re.match(r"\d\d:\d\d:\d\d starting input=phantom://\d+ output=", text)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_a_line_of_80_columns_holds_a_long_run(monkeypatch):
    monkeypatch.setattr(display_module, "_REFRESH_SECONDS", 0.0)
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    with LiveDisplay(console) as live:
        live.pulling(1234, 2570)
        assert re.search(
            r"slices .* 1,234 of 2,570 -:--:-- left", ESCAPES.sub("", _drawn(live, shown))
        )
        live.training(PLAN, 4000)
        waiting = ESCAPES.sub("", _drawn(live, shown))
        assert re.search(r"epoch 308/500 .* preparing the first step", waiting)
        live.epoch(row(memory={"peak_allocated_mib": 12.3 * 1024}))
        live.tick(tick(4008))
        live.tick(tick(4016))
        line = ESCAPES.sub("", _drawn(live, shown)).rstrip().splitlines()[-1]
    # The bar goes: nothing is left that looks as if it still ran.
    assert "\x1b[2K" in shown.getvalue()[shown.getvalue().rindex("images/s") :]
    assert re.search(
        r"epoch 309/500 .* images/s  D 1\.250  G 0\.751  12\.3 GiB \d:\d\d:\d\d left", line
    )


def _drawn(live, shown):
    start = shown.tell()
    live._progress.refresh()
    return shown.getvalue()[start:]


def test_the_bar_does_not_ask_the_device_more_than_once_a_second():
    """Reading a loss waits for the device."""

    class Losses(dict):
        reads = 0

        def __getitem__(self, name):
            Losses.reads += 1
            return super().__getitem__(name)

    console = Console(file=StringIO(), force_terminal=True)
    with LiveDisplay(console) as live:
        live.training(PLAN, 0)
        for number in range(1, 50):
            step = vars(tick(number))
            live.tick(Tick(**step | {"sums": Losses(step["sums"])}))
    assert Losses.reads == 2


@pytest.mark.parametrize("log_format", ["auto", "text", "json"])
def test_where_there_is_no_terminal_lines_are_logged(log_format):
    with open_display(log_format, is_main=True) as chosen:
        assert isinstance(chosen, LineDisplay)


def test_ranks_but_the_first_show_nothing(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal.stream)
    with open_display("auto", is_main=False) as chosen:
        chosen.pulling(1, 2)
        chosen.training(PLAN, 0)
        chosen.tick(tick(8))
        chosen.epoch(row())
    monkeypatch.undo()
    assert terminal.close() == ""


@pytest.mark.parametrize(
    ("log_format", "kind"), [("auto", LiveDisplay), ("text", LineDisplay), ("json", LineDisplay)]
)
def test_lines_can_be_asked_for_on_a_terminal(monkeypatch, log_format, kind):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal.stream)
    with open_display(log_format, is_main=True) as chosen:
        assert isinstance(chosen, kind)
    monkeypatch.undo()
    terminal.close()


def test_lines_are_one_an_epoch_and_one_a_minute(monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr(display_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    lines = LineDisplay()
    with caplog.at_level("INFO", logger="mrigan"):
        lines.pulling(3, 13)
        clock[0] = 61.0
        lines.pulling(7, 13)
        lines.pulling(8, 13)
        lines.training(PLAN, 0)
        lines.tick(tick(8))
        clock[0] = 122.0
        lines.tick(tick(16))
        lines.tick(tick(24))
        clock[0] = 200.0
        lines.tick(tick(26, ends_epoch=True))
        lines.epoch(row(epoch=2))
    events = [(record.message, getattr(record, "epoch", None)) for record in caplog.records]
    assert events == [("pulling", None), ("progress", 2), ("epoch", 2)]
    assert caplog.records[0].done == 7
    assert caplog.records[1].d_loss == pytest.approx(1.25)
    assert caplog.records[1].images_seen == 16
