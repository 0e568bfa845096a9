"""What the platform itself uploads lies in the run's folder, and is no part of the run."""

import json

import pytest

from mrigan.jobs.fetch.selection import select_artifacts
from mrigan.jobs.train.output import open_output
from mrigan.sagemaker.request import build_request
from mrigan.settings.sources import load_launch
from mrigan.storage.store import open_store

JOB = {
    "role": "arn:aws:iam::123456789012:role/mrigan",
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/mrigan:1",
    "output_uri": "s3://runs/first",
}


@pytest.fixture
def archive():
    """Key, in the run, of an earlier job's archive."""
    settings, launch = load_launch(JOB)
    request = build_request(settings, launch, job_name="job", region="us-east-1")
    path = request["OutputDataConfig"]["S3OutputPath"]
    return f"{path.removeprefix('s3://runs/first/')}/job/output/output.tar.gz"


@pytest.fixture
def run(tmp_path, archive):
    """A run that an earlier job has written, and the platform's archive of it."""
    store = open_store(str(tmp_path / "run"))
    for key in ("run.json", "status.json", "samples/real.png", archive):
        store.put(key, b"{}")
    return store


def test_fetch_leaves_the_archives_where_they_are(run, archive):
    keys = {item.info.key for item in select_artifacts(run, frozenset()).items}
    assert "samples/real.png" in keys
    assert archive not in keys


def test_a_job_that_goes_on_packs_no_earlier_archive_into_its_own(
    run, archive, tmp_path, monkeypatch
):
    root = tmp_path / "ml"
    config = root / "input" / "config"
    config.mkdir(parents=True)
    (config / "resourceconfig.json").write_text(
        json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]})
    )
    (config / "checkpointconfig.json").write_text(
        json.dumps({"LocalPath": str(root / "checkpoints")})
    )
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(root))
    settings, _ = load_launch({"output_uri": run.uri})
    open_output(settings)
    copied = {path.name for path in root.rglob("*") if path.is_file()}
    assert "real.png" in copied
    assert "output.tar.gz" not in copied
