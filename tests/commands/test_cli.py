"""The command line itself: answers at once, one line for what is wrong, statuses as documented."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "numpy", "PIL", "matplotlib", "obstore", "boto3", "botocore", "rich", "shtab")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_comes_at_once_and_imports_nothing_heavy(arguments):
    script = (
        "import sys, atexit; from mrigan.__main__ import main;"
        f"atexit.register(lambda: print('HEAVY', *(set({HEAVY}) & set(sys.modules)))); main()"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    # Of the CPU, not of a clock that other processes slow down.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2
    assert ended.stdout.startswith("usage: mrigan")
    assert ended.stdout.rstrip().endswith("HEAVY")
    assert ended.stderr == ""


def test_the_help_of_train_tells_settings_sources_and_statuses(mrigan):
    ended = mrigan("train", "--help")
    assert ended.status == 0
    for told in ("--batch-size", "[32]", "MRIGAN_<NAME>", "hyperparameters.json", "143 cleanly"):
        assert told in ended.out
    for untold in ("None", "%", "`"):
        assert untold not in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-such"], "--no-such: unknown; `mrigan --help` shows how"),
        (["trian"], "trian: no such command, did you mean train?; `mrigan --help` shows how"),
        (["xyz"], "xyz: no such command; `mrigan --help` shows how"),
        (["train", "--epochs"], "--epochs: expected one argument; `mrigan train --help`"),
        (["train", "--epoch", "3"], "--epoch: unknown, did you mean --epochs?"),
        (["train", "--no-such", "3"], "--no-such: unknown; `mrigan train --help` lists"),
        (["train", "s3://bucket/x"], "s3://bucket/x: unknown; `mrigan train --help` lists"),
        (["doctor", "--out-uri=x"], "--out-uri: unknown, did you mean --output-uri?"),
        (["phantom"], "the following arguments are required: uri; `mrigan phantom --help`"),
        (["phantom", "x", "--count", "many"], "--count: invalid int value: 'many'; "),
        (["phantom", "x", "--cuont", "3"], "--cuont: unknown; `mrigan phantom --help` lists"),
        (
            ["phantom", "x", "--storage-retries", "0"],
            "--storage-retries: no option of `mrigan phantom`; set MRIGAN_STORAGE_RETRIES instead",
        ),
        (["fetch", "x", "y", "z"], "z: unknown; `mrigan fetch --help` lists the options"),
        (["fetch", "x", "y", "--only", "sample"], "--only: sample is no part of a run; choose"),
        (["train", "--log-format", "xml"], "--log-format: takes 'auto', 'text' or 'json'"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_how_to_right_it(mrigan, arguments, said):
    ended = mrigan(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"mrigan: {said}")
    assert ended.err.count("\n") == 1


def test_all_problems_are_told_at_once_a_line_each(mrigan, monkeypatch):
    monkeypatch.setenv("MRIGAN_EPOCS", "3")
    ended = mrigan("train", "--batch-size", "0", "--sede", "1", "--fit", "squash")
    assert ended.status == 2
    lines = ended.err.splitlines()
    assert all(line.startswith("mrigan: ") for line in lines)
    assert sorted(line.split(": ")[1] for line in lines) == [
        "--batch-size", "--fit", "--sede", "MRIGAN_EPOCS",
    ]  # fmt: skip


FAILURES = {
    2: ["--epochs", "0"],
    5: ["--input-uri", "nowhere", "--device", "cpu"],
}


@pytest.mark.parametrize("status", FAILURES)
def test_a_traceback_is_shown_only_on_request(mrigan, status):
    brief = mrigan("train", *FAILURES[status])
    assert brief.status == status
    assert "Traceback" not in brief.out + brief.err
    long = mrigan("train", "--debug", *FAILURES[status])
    assert long.status == status
    assert "Traceback (most recent call last)" in long.err
    assert brief.err.removeprefix("mrigan: ").strip() in long.err.replace('"', "")


def test_what_nobody_foresaw_is_one_line_too_and_asks_for_a_report(mrigan, monkeypatch):
    def surprise(*_):
        raise RuntimeError("first line\n\n  second")

    monkeypatch.setattr("mrigan.jobs.train.job.choose_hardware", surprise)
    ended = mrigan("train", "--output-uri", "run")
    assert ended.status == 1
    assert re.fullmatch(r"[\d:]+ starting input=phantom://512 output=run\n", ended.out)
    assert re.fullmatch(
        r"mrigan: RuntimeError: first line second \(.*report it; --debug shows where\)\n", ended.err
    )


def test_a_json_log_is_json_on_every_line(mrigan, tmp_path):
    ended = mrigan(
        "train", "--log-format", "json", "--input-uri", "phantom://3", "--output-uri",
        tmp_path / "run", "--image-height", 32, "--image-width", 35, "--epochs", 1, "--batch-size",
        2, "--device", "cpu",
    )  # fmt: skip
    assert ended.status == 0
    lines = [json.loads(line) for line in ended.out.splitlines()]
    events = [line["event"] for line in lines]
    assert events[:3] == ["starting", "machine", "slices"]
    assert {"plan", "few_steps", "epoch", "checkpoint", "completed", "published"} <= set(events)
    [epoch] = [line for line in lines if line["event"] == "epoch"]
    assert epoch["images_seen"] == 3
    assert epoch["d_loss"] > 0


def test_an_error_is_json_where_json_was_asked_for(mrigan):
    ended = mrigan("train", "--log-format", "json", "--input-uri", "nowhere", "--device", "cpu")
    assert ended.status == 5
    line = json.loads(ended.err)
    assert (line["event"], line["level"]) == ("error", "error")
    assert "nowhere" in line["reason"]


def test_the_setting_of_the_log_is_heard_from_the_environment_too(mrigan, monkeypatch):
    monkeypatch.setenv("MRIGAN_LOG_FORMAT", "json")
    ended = mrigan("train", "--input-uri", "nowhere", "--device", "cpu")
    assert json.loads(ended.err)["event"] == "error"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_with_nothing_to_finish_ends_at_once(mrigan, monkeypatch, number, status):
    """Doctor hears of a signal while a check waits."""

    waited = []

    def silent(*_):
        os.kill(os.getpid(), number)
        time.sleep(60)
        waited.append("to the end")

    monkeypatch.setattr("mrigan.jobs.doctor.choose_hardware", silent)
    ended = mrigan("doctor")
    assert waited == []
    assert ended.status == status
    assert ended.err.startswith("mrigan: interrupted at once")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_networks_train_and_are_kept_for_the_next_start(tmp_path):
    def run(output):
        given = {
            "INPUT_URI": "phantom://8",
            "OUTPUT_URI": str(tmp_path / output),
            "CACHE_DIR": str(tmp_path / "cache"),
            "IMAGE_HEIGHT": "32",
            "IMAGE_WIDTH": "32",
            "MODEL": "r3-tiny",
            "BATCH_SIZE": "4",
            "ACCUMULATION_STEPS": "1",
            "EPOCHS": "1",
            "HOLDOUT": "0",
            "COMPILE": "true",
        }
        # A test in this process may have compiled something: torch then sets the folder itself.
        environment = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}
        done = subprocess.run(
            [sys.executable, "-m", "mrigan", "train"],
            env=environment | {f"MRIGAN_{name}": value for name, value in given.items()},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr
        assert "compile_off" not in done.stdout
        assert "preparing_first_step" in done.stdout

    run("first")
    kept = [path for path in (tmp_path / "cache" / "inductor").rglob("*") if path.is_file()]
    assert kept
    run("second")
