"""What CITATION.cff and CHANGELOG.md say agrees with the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[1]


@pytest.fixture
def project():
    return tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


@pytest.fixture
def citation():
    return yaml.safe_load((REPO / "CITATION.cff").read_text())


def test_the_citation_follows_the_schema():
    schema = ["--builtin-schema", "vendor.citation-file-format", "--force-filetype", "yaml"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(REPO / "CITATION.cff")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_citation_is_of_this_version_under_this_licence(citation, project):
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"]


def test_the_changelog_names_this_version_or_what_is_unreleased(project):
    sections = re.findall(r"^## \[(.+?)\]", (REPO / "CHANGELOG.md").read_text(), re.M)
    assert {project["version"], "Unreleased"} & set(sections)
    assert len(sections) == len(set(sections))


def test_the_changelog_groups_changes_by_the_names_of_the_format():
    groups = re.findall(r"^### (.+)$", (REPO / "CHANGELOG.md").read_text(), re.M)
    assert groups
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
