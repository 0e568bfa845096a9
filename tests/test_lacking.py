"""What a process lacks is said in one line with the remedy, and is no bug of mrigan's."""

import os
import resource
import subprocess
import sys

import pytest

TRAIN = [sys.executable, "-m", "mrigan", "train", "--input-uri", "phantom://4", "--epochs", "1"]
TRAIN += ["--image-height", "32", "--image-width", "32", "--batch-size", "4", "--device", "cpu"]


def run(tmp_path, *more, prepare=None, **environ):
    (tmp_path / "cwd").mkdir(exist_ok=True)
    return subprocess.run(
        [*TRAIN, *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path / "cwd",
        env=dict(os.environ) | environ,
        preexec_fn=prepare,
    )


def assert_one_line(ended, said):
    assert ended.returncode not in (0, -11, -6), ended
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert "bug of mrigan" not in lines[0]
    assert said in lines[0]


@pytest.mark.parametrize("limit_mb", [300, 700, 1500])
def test_an_address_space_that_is_too_small(tmp_path, limit_mb):
    def prepare():
        limit = limit_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ended = run(tmp_path, "--output-uri", str(tmp_path / "run"), prepare=prepare)
    assert_one_line(ended, "ulimit -v")
