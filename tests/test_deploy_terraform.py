"""deploy/terraform, checked by Terraform itself against the AWS provider's schema.

No registry is asked: tests/terraform/provider.py stands in for the provider.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PROVIDER = REPO / "tests/terraform/provider.py"

pytestmark = pytest.mark.skipif(
    shutil.which("terraform") is None and not os.environ.get("CI"), reason="needs terraform"
)


@pytest.fixture(scope="module")
def provider():
    """The environment in which Terraform finds a provider that knows its schema."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(PROVIDER)], **pipes) as process:
        yield {"TF_REATTACH_PROVIDERS": process.stdout.readline(), "CHECKPOINT_DISABLE": "1"}
        process.stdin.close()


@pytest.fixture
def terraform(tmp_path, provider):
    """Run a command of Terraform's on a copy of the configuration."""
    shutil.copytree(REPO / "deploy/iam", tmp_path / "iam")
    own = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars")
    folder = shutil.copytree(REPO / "deploy/terraform", tmp_path / "terraform", ignore=own)

    def run(*arguments):
        command = ["terraform", f"-chdir={folder}", *arguments, "-no-color"]
        environment = os.environ | provider
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    run.folder = folder
    assert run("init", "-backend=false", "-input=false").returncode == 0
    return run


def test_the_configuration_fits_the_provider_s_schema(terraform):
    result = terraform("validate")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("registry.tf", "image_tag_mutability", "tag_mutability", "Unsupported argument"),
        ("registry.tf", "scan_on_push = true", 'scan_on_push = "yes!"', "Incorrect attribute"),
        ("bucket.tf", "    id     =", "    # id     =", "Missing required argument"),
        ("roles.tf", "aws_iam_role_policy", "aws_iam_role_polices", "Invalid resource type"),
    ],
)
def test_what_the_provider_would_refuse_is_refused(terraform, file, right, wrong, said):
    path = terraform.folder / file
    path.write_text(path.read_text().replace(right, wrong))
    result = terraform("validate")
    assert result.returncode == 1
    assert said in result.stderr


def test_the_module_s_own_tests_pass(terraform):
    result = terraform("test")
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed, 0 failed", result.stdout)[1]) >= 5


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("terraform/registry.tf", "IMMUTABLE", "MUTABLE"),
        ("terraform/bucket.tf", "block_public_policy     = true", "block_public_policy = false"),
        ("terraform/bucket.tf", '"aws:kms"', '"AES256"\n#'),
        ("terraform/variables.tf", "[^/*?$]+(/[^/*?$]+)*", ".*"),
        ("iam/sagemaker-trust.json", "${account}", "*"),
        ("iam/sagemaker-policy.json", "${input_prefix}/*", "*"),
    ],
)
def test_a_weakened_module_fails_its_own_tests(terraform, file, right, wrong):
    path = terraform.folder.parent / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    assert terraform("test").returncode == 1


def test_files_are_formatted(terraform):
    result = terraform("fmt", "-check", "-recursive", "-diff")
    assert result.returncode == 0, result.stdout


def test_the_bucket_outlives_the_configuration():
    text = (REPO / "deploy/terraform/bucket.tf").read_text()
    bucket = re.search(r'^resource "aws_s3_bucket" .*?^}', text, re.S | re.M)[0]
    assert "prevent_destroy = true" in bucket


def test_state_and_variables_are_never_committed(tmp_path):
    names = ["terraform.tfstate", "terraform.tfstate.backup", "terraform.tfvars", ".terraform/x"]
    paths = [f"deploy/terraform/{name}" for name in names]
    command = ["git", "-C", str(REPO), "check-ignore", *paths]
    ignored = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == paths
