"""The SDK's versions: what users are told to install is what the tests run with."""

import re
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
FOLDER = REPO / "deploy" / "sagemaker"


def asked(version):
    """The requirement behind the lock of a version's environment."""
    return (FOLDER / f"requirements-{version}.in").read_text().strip().replace("[local]", "")


@pytest.mark.parametrize(
    ("example", "version"), [("estimator_v2.py", "v2"), ("model_trainer_v3.py", "v3")]
)
def test_an_example_says_to_install_the_version_it_is_tested_with(example, version):
    told = re.search(r"pip install '(.+)'", (FOLDER / example).read_text())[1]
    assert told == asked(version)


def test_the_extra_for_mrigan_launch_is_the_third_version_of_the_tests():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["sagemaker"] == [asked("v3")]
