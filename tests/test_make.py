"""The commands a newcomer types, really run."""

import json
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


def make(*words, cwd=REPO, dry=False):
    command = ["make", *(["--dry-run"] if dry else []), *words]
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_settings_on_makes_command_line_reach_the_job_instead_of_the_demos():
    demo = make("train", dry=True)
    assert "MRIGAN_EPOCHS=" in demo
    given = make("train", "INPUT_URI=s3://bucket/slices", "EPOCHS=300", dry=True)
    found = re.findall(r"MRIGAN_\S+", given)
    assert sorted(found) == ["MRIGAN_EPOCHS=300", "MRIGAN_INPUT_URI=s3://bucket/slices"]
    assert r"MRIGAN_INPUT_URI=/my\ slices" in make("train", "INPUT_URI=/my slices", dry=True)


def test_the_image_targets_are_what_the_container_tests_do():
    assert "docker compose build train" in make("image", dry=True)
    assert "docker compose up" in make("up", dry=True)
    assert "ruff format" in make("fix", dry=True)
    assert "bench/gpu.py" in make("gpu", dry=True)


def test_the_bill_of_materials_has_every_locked_package_with_its_hashes():
    make("sbom")
    components = json.loads((REPO / "dist/sbom.cdx.json").read_text())["components"]
    lock = (REPO / "requirements.txt").read_text()
    locked = re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, re.M)
    assert sorted((each["name"], each["version"]) for each in components) == sorted(locked)
    hashes = {
        found["content"]
        for each in components
        for reference in each["externalReferences"]
        for found in reference["hashes"]
    }
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_train_is_a_demo_that_ends_with_samples(tmp_path):
    output = make("train", f"OUTPUT_URI={tmp_path}/run", "INPUT_URI=phantom://24", "EPOCHS=1")
    assert "completed epochs=1" in output
    assert (tmp_path / "run" / "samples" / "epoch-0001.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_itself_runs_to_its_end(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (".venv", "src", "pyproject.toml", "requirements-dev.txt", "Makefile"):
        (folder / name).symlink_to(REPO / name)
    output = make("train", cwd=folder)
    epochs = re.search(r"DEMO := .*EPOCHS=(\d+)", (REPO / "Makefile").read_text())[1]
    assert f"completed epochs={epochs}" in output
    assert (folder / "runs" / "demo" / "report.html").is_file()
