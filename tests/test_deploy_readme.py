"""deploy/README.md speaks of what is there."""

import json
import re
from pathlib import Path

from mrigan.settings.describe import described
from mrigan.settings.sagemaker import LaunchSettings

DEPLOY = Path(__file__).parents[1] / "deploy"
README = (DEPLOY / "README.md").read_text()
# Of the commands themselves, where they are no settings.
COMMANDS = {"dry-run", "check", "count", "only"}


def test_every_statement_has_its_reason():
    reasons = README.partition("### Why each statement is there")[2]
    statements = {
        statement["Sid"]
        for path in (DEPLOY / "iam").glob("*.json")
        for statement in json.loads(path.read_text())["Statement"]
    }
    assert statements - set(re.findall(r"`(\w+)`", reasons)) == set()


def test_every_option_of_mrigan_exists():
    lines = [line for line in README.splitlines() if "mrigan launch" in line or "job=(" in line]
    named = re.findall(r"`--([a-z-]+)", README) + re.findall(r" \(?--([a-z-]+)", "\n".join(lines))
    settings = {setting.variable for setting in described()}
    known = {f"MRIGAN_{name.upper()}" for name in LaunchSettings.model_fields} | settings
    scripts = (DEPLOY / "build_and_push.sh").read_text()
    unknown = {
        name
        for name in named
        if f"MRIGAN_{name.replace('-', '_').upper()}" not in known
        and name not in COMMANDS
        and f"--{name})" not in scripts
    }
    assert unknown == set()


def test_every_output_and_variable_of_terraform_exists():
    terraform = "".join(path.read_text() for path in (DEPLOY / "terraform").glob("*.tf"))
    for name in re.findall(r"(?:terraform output|output -raw) (\w+)", README):
        assert f'output "{name}"' in terraform
    for name in [*re.findall(r"`(\w+) = true`", README), "kms_key_arn", "noncurrent_days"]:
        assert f'variable "{name}"' in terraform


def test_every_placeholder_is_filled_in_by_hand_too():
    exported = re.search(r"^export (partition=.*?)\n[^ ]", README, re.S | re.M)[1]
    named = {
        name
        for path in (DEPLOY / "iam").glob("*.json")
        for name in re.findall(r"\$\{(\w+)\}", path.read_text())
    }
    assert set(re.findall(r"(\w+)=", exported)) == named


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (DEPLOY / target).exists(), target
