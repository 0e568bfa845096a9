"""``mrigan gamma-sweep``: three normal runs, and a table that says what they published."""

import json
import os
import re
import signal

import pytest
import torch

from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.run_status import BestScore
from mrigan.jobs.sweep import Result, markdown
from mrigan.models.family import Ramp
from mrigan.storage.store import open_store

pytestmark = pytest.mark.slow


SMALL = {
    "model": "r3-tiny",
    "image_height": 32,
    "image_width": 35,
    "input_uri": "phantom://9",
    "batch_size": 5,
    "accumulation_steps": 1,
    "holdout": 0,
    "device": "cpu",
}


@pytest.fixture
def sweep(mrigan):
    def run(uri, **settings):
        options = SMALL | {"output_uri": uri} | settings
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return mrigan("gamma-sweep", *given)

    return run


def test_three_runs_of_about_so_many_images_are_compared_and_not_made_twice(sweep, store_uri):
    ended = sweep(store_uri, images=10)
    assert ended.status == 0, ended.err
    store = open_store(store_uri)
    results = json.loads(store.get("sweep.json"))["runs"]
    assert [(run["gamma"], run["outcome"]) for run in results] == [
        ("small", "completed"),
        ("constant", "completed"),
        ("paper", "completed"),
    ]
    for run in results:
        assert run["images_seen"] == 18  # two epochs of nine
        last = json.loads(store.get(f"{run['gamma']}/metrics.jsonl").splitlines()[-1])
        assert (run["swd"], run["swd_floor"]) == (last["swd"], last["swd_floor"])
        settings = json.loads(store.get(f"{run['gamma']}/run.json"))["settings"]
        assert (settings["gamma"], settings["epochs"]) == (run["gamma"], 2)
    table = store.get("sweep.md").decode()
    assert table in ended.out
    # γ goes with the number of pixels: 2.5 to 20 at 200×160.
    assert "| small | 0.0875 → 0.7 | completed | 18 | " in table

    again = sweep(store_uri, images=10)
    assert again.status == 0
    assert again.out.count("already_complete epochs=2") == 3
    assert table in again.out


@pytest.mark.slow
def test_runs_that_diverge_are_lines_of_the_table(sweep, tmp_path, monkeypatch):
    # Whether the wildest rates lead to infinity is a matter of rounding; this is not.
    never = torch.zeros((), dtype=torch.bool)
    monkeypatch.setattr("mrigan.training.step.is_finite_step", lambda *_: never)
    wild = {"batch_size": 1, "input_uri": "phantom://3"}
    ended = sweep(tmp_path / "sweep", epochs=3, log_format="json", **wild)
    assert ended.status == 0, ended.err
    results = json.loads((tmp_path / "sweep/sweep.json").read_text())["runs"]
    assert {run["outcome"] for run in results} == {"diverged"}
    said = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["gamma"] for each in said if each["event"] == "sweep_result"] == [
        run["gamma"] for run in results
    ]


def test_the_table_has_the_best_first_and_a_run_without_a_score_last():
    def result(gamma, swd=None, images_seen=0, outcome="completed", best=None):
        measured = {"swd_floor": 0.125, "swd_against": "holdout", "score_seconds": 1.0}
        row = {"epoch": 1, "images_seen": images_seen, "seconds": 1.0, "images_per_second": 1.0}
        if swd is not None:
            row |= measured | {"swd": swd, "spread": 1.0, "duplicates": 0.0}
        return Result(
            gamma=gamma,
            schedule=Ramp(1.0, 2.5),
            outcome=outcome,
            last=EpochRow.from_json(row),
            best=best,
            uri="",
        )

    table = markdown(
        [
            result("a", swd=0.5, images_seen=1000),
            result("b", outcome="diverged", swd=0.1),
            result("c"),
            result("d", swd=0.25, best=BestScore(3, 512_000, 0.2)),
        ]
    )
    assert re.findall(r"^\| (\w) \|", table, re.MULTILINE) == ["d", "a", "c", "b"]
    assert "| d | 1 → 2.5 | completed | 0 | 0.2500 | 0.1250 | – | 0.2000 at 512,000 |\n" in table


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "dcgan"}, "MRIGAN_MODEL: dcgan has no gamma to sweep; use r3-tiny"),
        ({"gamma": "paper"}, "MRIGAN_GAMMA: gamma-sweep tries each"),
        ({"images": 0}, "--images: must be at least 1"),
    ],
)
def test_what_can_not_be_swept_is_refused(sweep, tmp_path, settings, said):
    ended = sweep(tmp_path / "sweep", **settings)
    assert ended.status == 2
    assert said in ended.err
    assert not (tmp_path / "sweep").exists()


def test_a_stop_ends_the_sweep_and_the_next_goes_on(sweep, mrigan, tmp_path):
    uri = tmp_path / "sweep"
    options = SMALL | {"output_uri": uri, "epochs": 2}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    ended = mrigan("gamma-sweep", *given, at="epoch epoch=1 ", do=_terminate)
    assert ended.status == 143
    assert not (uri / "sweep.json").exists()
    assert not (uri / "constant").exists()
    went_on = sweep(uri, epochs=2)
    assert went_on.status == 0
    assert "resumed images_seen=9" in went_on.out
    assert (uri / "sweep.json").exists()


def _terminate():
    os.kill(os.getpid(), signal.SIGTERM)
