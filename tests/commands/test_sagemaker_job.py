"""The job under SageMaker's contract, as the process that the platform starts: `mrigan train`."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from mrigan import logs
from mrigan.storage.store import open_store
from tiny import newest

# As SDK v2 sends them: str() of each.
HYPERPARAMETERS = {
    "image_height": "48",
    "image_width": "33",
    "batch_size": "4",
    "accumulation_steps": "2",
    "epochs": "3",
    "checkpoint_every": "1",
    "beta1": "None",
    "device": "cpu",
    "fit": "pad",
}
CONFIG = {
    "resourceconfig": {
        "current_host": "algo-1",
        "current_instance_type": "ml.g5.xlarge",
        "hosts": ["algo-1"],
        "network_interface_name": "eth0",
    },
    "inputdataconfig": {
        "training": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    },
    "checkpointconfig": {"S3Uri": "s3://bucket/kept", "LocalPath": "/opt/ml/checkpoints"},
}
ON_CPU = {name for name in logs.METRICS if not re.match("nonfinite|peak_[ar]", name)} | {
    "peak_rss_mib"
}
OF_ONE_MODEL = {
    "dcgan": {"real_loss", "fake_loss"},
    "r3-tiny": {"real_sign", "r1", "r2", "augment_p"},
}


class Job(NamedTuple):
    """A tree as the platform lays it out, and the job in it."""

    root: Path

    def say(self, **files):
        """Change the platform's files; None removes one."""
        for name, content in files.items():
            path = self.root / f"input/config/{name}.json"
            path.write_text(json.dumps(content)) if content is not None else path.unlink()

    def hyperparameters(self, **changed):
        self.say(hyperparameters=HYPERPARAMETERS | changed)

    def start(self):
        environ = os.environ | {"MRIGAN_ML_ROOT": str(self.root)}
        return subprocess.Popen(
            [Path(sys.executable).with_name("mrigan"), "train"],
            env=environ,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def files(self, folder):
        below = self.root / folder
        found = [path for path in below.rglob("*") if path.is_file()]
        return {path.relative_to(below).as_posix(): path.read_bytes() for path in found}

    def status(self):
        return json.loads((self.root / "checkpoints/status.json").read_text())


@pytest.fixture
def new_job(tmp_path):
    """Lay out the tree of a job with 13 slices in its channel."""

    def lay_out(name="ml"):
        job = Job(tmp_path / name)
        for folder in ("input/config", "model", "output/data", "checkpoints"):
            (job.root / folder).mkdir(parents=True)
        slices = job.root / "input/data/training/patients"
        slices.mkdir(parents=True)
        rng = np.random.default_rng(7)
        for number in range(13):
            pixels = rng.integers(0, 256, (41, 30 + number), np.uint8)
            Image.fromarray(pixels).save(slices / f"{number:02}.png")
        job.say(**CONFIG)
        job.hyperparameters()
        return job

    return lay_out


@pytest.fixture
def here(mrigan, monkeypatch):
    """Run a job's command in this process, which spares the start of another."""

    def run(job, command="train", **watched):
        monkeypatch.setenv("MRIGAN_ML_ROOT", str(job.root))
        return mrigan(command, **watched)

    return run


def test_it_trains_from_its_channel_and_leaves_model_and_output_data(new_job, here):
    job = new_job()
    ended = here(job)
    assert (ended.status, ended.err) == (0, "")
    assert "slices used=13 refused=0" in ended.out
    model, run = job.files("model"), job.files("checkpoints")
    assert model == {
        key.removeprefix("model/"): data for key, data in run.items() if key.startswith("model/")
    }
    weights = {"best.safetensors", "generator.safetensors"}
    assert model.keys() == {"README.md", "best.json", "config.json", *weights}
    assert job.files("output/data") == {
        key: data
        for key, data in run.items()
        if not key.startswith(("model/", "checkpoints/", "lease/"))
    }
    assert json.loads(run["run.json"])["settings"]["fit"] == "pad"
    assert not (job.root / "output/failure").exists()


@pytest.mark.parametrize(
    ("model", "other"),
    [("dcgan", "r3-tiny"), pytest.param("r3-tiny", "dcgan", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_every_metrics_pattern_finds_its_number_in_what_a_run_prints(
    new_job, here, model, other, log_format
):
    job = new_job()
    job.hyperparameters(model=model, log_format=log_format)
    ended = here(job)
    rows = [json.loads(row) for row in job.files("output/data")["metrics.jsonl"].splitlines()]
    lines = [line for line in ended.out.splitlines() if re.search(r'[ "]seconds\b', line)]
    assert len(lines) == len(rows) == 3
    seen = set()
    for line, row in zip(lines, rows, strict=True):
        for name in ON_CPU & row.keys():
            found = re.search(logs.metric_regex(name), line)
            assert found, (name, line)
            assert float(found[1]) == pytest.approx(row[name], rel=1e-4), name
            seen.add(name)
    assert seen == ON_CPU - OF_ONE_MODEL[other]
    assert max(len(logs.metric_regex(name)) for name in logs.METRICS) <= 500


@pytest.mark.parametrize(
    "line", ["12:00:00 epoch xd_loss=1.5", '{"event": "d_loss", "xd_loss": 2}']
)
def test_a_metrics_pattern_does_not_take_anothers_number(line):
    assert not re.search(logs.metric_regex("d_loss"), line)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("=1.2", 1.2),
        ("=1.24e+00", 1.24),
        ("=-3", -3),
        ("=.5", 0.5),
        ('": 1e-05', 1e-5),
        ("=nan", None),
    ],
)
def test_a_metrics_pattern_reads_every_way_to_write_a_number(text, number):
    quote = '"' if text[0] == '"' else " "
    found = re.search(logs.metric_regex("g_loss"), f"progress{quote}g_loss{text} x=1")
    assert (float(found[1]) if found else None) == number


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.slow
def test_a_run_that_diverges_says_so_in_a_number(new_job, here, log_format):
    job = new_job()
    job.hyperparameters(g_lr="1", d_lr="1", beta1="0.9", beta2="0", log_format=log_format)
    ended = here(job)
    assert ended.status == 3
    lines = [line for line in ended.out.splitlines() if "nonfinite" in line]
    (line,) = [line for line in lines if re.search(r'[ "]diverged[ "]', line)]
    assert lines[-1] == line
    assert re.search(logs.metric_regex("nonfinite"), line)[1] == "1"
    assert int(re.search(logs.metric_regex("images_seen"), line)[1]) > 0
    assert (job.root / "output/failure").read_text().startswith("DivergedError: training diverged")


@pytest.mark.slow
def test_a_stop_leaves_a_checkpoint_and_the_next_start_goes_on_to_the_same_bits(
    new_job, here, assert_same_run
):
    whole, job = new_job("whole"), new_job()
    for each in (whole, job):
        each.hyperparameters(epochs="9", sample_every="4", checkpoint_every="3")
    assert here(whole).status == 0
    process = job.start()
    for line in process.stdout:
        if " epoch epoch=2 " in line:
            process.send_signal(signal.SIGTERM)
    assert (process.wait(), process.stderr.read()) == (0, "")
    process.stdout.close()
    process.stderr.close()
    status = job.status()
    assert (status["state"], status["reason"]) == ("interrupted", "SIGTERM")
    saved = newest(open_store(str(job.root / "checkpoints")))
    assert saved.images_seen == status["images_seen"] < 9 * 13
    assert not (job.root / "output/failure").exists()

    # Of a restarted job only the checkpoints and the input are there.
    restarted = new_job("restarted")
    restarted.hyperparameters(epochs="9", sample_every="4", checkpoint_every="3")
    (restarted.root / "checkpoints").rmdir()
    (job.root / "checkpoints").rename(restarted.root / "checkpoints")
    ended = here(restarted)
    assert ended.status == 0
    assert f"resumed images_seen={saved.images_seen} " in ended.out
    assert_same_run(restarted.files("checkpoints"), whole.files("checkpoints"))
    models = [each.files("model") for each in (restarted, whole)]
    for model in models:
        del model["README.md"]  # which names the folder of the slices
    assert models[0] == models[1]
    ours, theirs = (
        # Event files are named by the time at which they were written.
        {name for name in each.files("output/data") if not name.startswith("tensorboard/")}
        for each in (restarted, whole)
    )
    assert ours == theirs


def test_a_job_that_finds_its_run_complete_leaves_a_model_too(new_job, here):
    job = new_job()
    job.hyperparameters(epochs="1")
    assert here(job).status == 0
    model = job.files("model")
    for path in (job.root / "model").iterdir():
        path.unlink()
    ended = here(job)
    assert ended.status == 0
    assert "already_complete" in ended.out
    assert job.files("model") == model


def test_an_output_of_its_own_is_copied_to_the_checkpoints_and_comes_back_from_there(
    new_job, here, bucket, content, monkeypatch
):
    job = new_job()
    job.hyperparameters(epochs="1", output_uri=f"{bucket}/lost")
    assert here(job).status == 0
    assert content(f"{bucket}/lost") == job.files("checkpoints")
    job.hyperparameters(epochs="2", output_uri=f"{bucket}/found")
    ended = here(job)
    assert "restored objects=" in ended.out
    assert "resumed images_seen=13 " in ended.out
    assert content(f"{bucket}/found") == job.files("checkpoints")
    assert job.status()["epoch"] == 2


def empty_channel(job):
    for path in job.root.rglob("*.png"):
        path.unlink()


FAILURES = {
    "settings": (2, "SettingsError: hyperparameter batchsize: unknown, did you mean batch_size?; "),
    "data": (4, "DataError: nothing under "),
    "channel": (2, "SettingsError: channel training is in Pipe mode; use File or FastFile, or "),
    "platform": (2, "SettingsError: "),
}
SPOIL = {
    "settings": lambda job: job.hyperparameters(epochs="many", batchsize="3"),
    "data": empty_channel,
    "channel": lambda job: job.say(inputdataconfig={"training": {"TrainingInputMode": "Pipe"}}),
    "platform": lambda job: job.say(checkpointconfig=[]),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_told_to_the_platform_and_forgotten_by_the_next_start(new_job, here, what):
    job = new_job()
    SPOIL[what](job)
    status, begins = FAILURES[what]
    ended = here(job)
    assert ended.status == status
    failure = (job.root / "output/failure").read_text()
    assert failure.startswith(begins)
    assert len(failure) <= 1024
    for line in ended.err.splitlines():
        assert line.removeprefix("mrigan: ") in failure
    if what == "settings":
        job.hyperparameters(epochs="1")
        assert here(job).status == 0
        assert not (job.root / "output/failure").exists()


def test_a_bug_is_told_to_the_platform_without_a_traceback(new_job, here, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of luck")

    job = new_job()
    monkeypatch.setattr("mrigan.jobs.train.prepare.open_output", broken)
    assert here(job).status == 1
    assert (job.root / "output/failure").read_text() == (
        "RuntimeError: out of luck; the log of the job shows more"
    )


def test_a_command_that_is_not_the_job_leaves_the_failure_file_alone(new_job, mrigan, monkeypatch):
    job = new_job()
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(job.root))
    (job.root / "output/failure").write_text("of the job")
    assert mrigan("phantom", job.root / "x", "--count", "0").status == 2
    assert (job.root / "output/failure").read_text() == "of the job"
    assert mrigan("trian").status == 2
    assert (job.root / "output/failure").read_text() == "of the job"


def test_the_doctor_looks_at_the_channel_and_writes_nothing_that_stays(new_job, here):
    job = new_job()
    before = job.files(".")
    ended = here(job, "doctor")
    assert ended.status == 0, ended.out
    assert f"{job.root}/input/data/training: 13 objects" in ended.out
    assert job.files(".") == before
