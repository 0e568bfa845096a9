"""What a person sees of a job on SageMaker, on a terminal and in the help."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from mrigan.jobs.launch.view import LiveView, open_view, read_line
from mrigan.sagemaker.events import Notice, StatusChanged
from mrigan.sagemaker.job_log import LogLine

EPOCH = "12:00:01 epoch epoch=3 images_seen=39 d_loss=1.31 g_loss=0.72 images_per_second=204.5"


def test_on_a_terminal_epochs_move_the_bar_and_the_rest_scrolls_above_it():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, no_color=True)
    with LiveView(console) as view:
        view.show(StatusChanged("Training", "in progress"))
        view.show(LogLine("algo-1", "12:00:00 plan slices=13 epochs=7 steps=9", 1))
        view.show(LogLine("algo-1", EPOCH, 2))
        view.show(LogLine("algo-2", "[bold]hello[/bold]", 3))
        view.show(Notice("no answer from AWS"))
    shown = out.getvalue()
    assert "Training: in progress" in shown
    assert "algo-2: [bold]hello[/bold]" in shown
    assert "no answer from AWS" in shown
    bar = [line for line in shown.splitlines() if "epoch 3" in line][-1]
    assert "epoch 3" in bar
    assert "204.5 images/s  D 1.31  G 0.72" in bar
    assert EPOCH not in shown
    [task] = view._progress.tasks
    assert (task.completed, task.total) == (3, 7)


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for log_format, is_live in (("auto", True), ("text", False)):
        with open_view(log_format) as view:
            assert isinstance(view, LiveView) is is_live
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    with open_view("auto") as view:
        assert not isinstance(view, LiveView)


@pytest.mark.parametrize(
    ("line", "event", "epoch"),
    [
        (EPOCH, "epoch", "3"),
        ('{"event": "epoch", "epoch": 3, "d_loss": 1.3}', "epoch", "3"),
        ("12:00:01 resumed epoch=3", "resumed", "3"),
        ("{not json", "", None),
        ("Traceback epoch=3", "", None),
        ("", "", None),
    ],
)
def test_a_line_of_either_format_is_understood_and_any_other_is_let_be(line, event, epoch):
    found, facts = read_line(line)
    assert (found, facts.get("epoch")) == (event, epoch)


def test_help_tells_the_settings_of_both_and_imports_nothing_heavy(mrigan):
    script = (
        "import sys, atexit; from mrigan.__main__ import main;"
        "heavy = {'torch', 'boto3', 'botocore', 'rich', 'numpy'};"
        "atexit.register(lambda: print('HEAVY', *(heavy & set(sys.modules)))); main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "launch", "--help"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert ended.stdout.rstrip().endswith("HEAVY")
    for told in ("--role", "--epochs", "--dry-run", "10 the job was stopped", "[ml.g5.xlarge]"):
        assert told in ended.stdout
    for untold in ("[None]", "[()]", "[False]", "`spot`"):
        assert untold not in ended.stdout
