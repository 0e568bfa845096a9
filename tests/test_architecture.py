"""The doors of docs/architecture.md: what is planted behind one is refused by ``make check``."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
SOURCE = REPO / "src" / "mrigan"
BIN = Path(sys.executable).parent

# File, what is planted at its end, and what the check says of it.
IMPORTS = [
    ("storage/keys.py", "import boto3", "mrigan.storage.keys -> boto3"),
    ("storage/keys.py", "from obstore.store import S3Store", "mrigan.storage.keys -> obstore"),
    ("settings/values.py", "import obstore", "mrigan.settings.values -> obstore"),
    ("settings/values.py", "import botocore.session", "mrigan.settings.values -> botocore"),
    ("runtime/ranks.py", "import boto3", "mrigan.runtime.ranks -> boto3"),
    ("data/pack.py", "from mrigan.jobs import build", "mrigan.data.pack -> mrigan.jobs.build"),
    ("models/family.py", "import matplotlib", "mrigan.models.family -> matplotlib"),
    (
        "jobs/train/output.py",
        "from mrigan.sagemaker.request import build_request",
        "mrigan.jobs.train.output -> mrigan.sagemaker.request",
    ),
]
USES = [
    ("storage/keys.py", 'import os\n\nHOME = os.environ["HOME"]'),
    ("runtime/ranks.py", 'import os\n\nHOME = os.getenv("HOME")'),
    ("settings/values.py", "from os import environ"),
    ("storage/connection.py", "import torch.distributed"),
    ("environment.py", "from torch import distributed"),
    ("training/step.py", "from torch.distributed import all_reduce"),
]


@pytest.fixture
def planted(tmp_path):
    """A copy of the tree, and a way to plant something into it."""
    shutil.copytree(SOURCE, tmp_path / "src/mrigan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)

    def plant(file, text):
        with (tmp_path / "src/mrigan" / file).open("a") as out:
            out.write(f"\n\n{text}\n")

    plant.root = tmp_path
    return plant


def said(root, *command):
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_forbidden_import_is_refused_in_each_module_by_itself(planted):
    lint = (BIN / "lint-imports", "--no-cache", "--no-logo")
    assert said(planted.root, *lint)[0] == 0
    for file, text, _ in IMPORTS:
        planted(file, text)
    status, text = said(planted.root, *lint)
    assert status == 1
    assert [line for _, _, line in IMPORTS if line not in text] == []


def test_the_environment_and_other_ranks_are_refused_elsewhere(planted):
    ruff = (BIN / "ruff", "check", "--no-cache", "--select=TID251", "--output-format=concise")
    assert said(planted.root, *ruff, "src")[0] == 0
    for file, text in USES:
        planted(file, text)
    status, text = said(planted.root, *ruff, "src")
    assert status == 1
    assert [file for file, _ in USES if f"src/mrigan/{file}:" not in text] == []


def pixel_scales(file):
    """Where ``file`` multiplies or divides by what tells pixels and levels apart."""
    sums = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.BinOp)]
    return [
        f"{file}:{side.lineno}"
        for node in sums
        for side in (node.left, node.right)
        if isinstance(side, ast.Constant) and side.value in (127.5, 255)
    ]


def test_pixels_change_scale_in_data_alone(tmp_path):
    files = [file for file in SOURCE.rglob("*.py") if file.relative_to(SOURCE).parts[0] != "data"]
    assert [place for file in files for place in pixel_scales(file)] == []
    planted = tmp_path / "drawing.py"
    planted.write_text("def to_unit(x):\n    return x / 127.5 - 1\n")
    assert pixel_scales(planted) == [f"{planted}:2"]


def test_a_training_job_loads_nothing_of_what_launches_it():
    script = "import sys, mrigan.jobs.train.start; print(*sorted(sys.modules), sep='\\n')"
    status, text = said(REPO, sys.executable, "-c", script)
    assert status == 0
    loaded = {name for name in text.split() if name.startswith("mrigan.sagemaker.")}
    contract = {"container", "contract"}
    assert loaded == {f"mrigan.sagemaker.{name}" for name in contract}
