"""deploy/build_and_push.sh, run for real in a git checkout beside stand-ins of docker and aws."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SCRIPTS = ("deploy/build_and_push.sh", "deploy/ec2/user-data.sh", ".ci/run")
REGISTRY = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
DIGEST = f"sha256:{'5e' * 32}"
DOCKER_V2 = "application/vnd.docker.distribution.manifest.v2+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def git(folder, *arguments):
    who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A git checkout that holds the script and is clean."""
    folder = tmp_path / "a checkout"
    (folder / "deploy").mkdir(parents=True)
    shutil.copy(REPO / "deploy/build_and_push.sh", folder / "deploy")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=all")
    return folder


def registry_of(tools, *, media_type=DOCKER_V2, holds_tag=False):
    """Stand-ins of an engine, and of a registry that knows a tag from its push on."""
    pushed = tools.bin / "pushed"
    if holds_tag:
        pushed.touch()
    tools.add(
        "docker",
        f'case $1 in login) cat >>"$CALLS"; echo >>"$CALLS" ;; push) touch {pushed} ;; esac',
    )
    tools.add(
        "aws",
        f"""case $2 in
            get-login-password) echo a-password ;;
            describe-images)
                [ -e {pushed} ] && printf '{DIGEST}\\t{media_type}\\n' && exit
                echo 'An error occurred (ImageNotFoundException): no such tag' >&2; exit 254 ;;
        esac""",
    )


def push(tools, checkout, *arguments, **environment):
    script = checkout / "deploy/build_and_push.sh"
    return tools.run([script, *arguments, f"{REGISTRY}/team/mrigan"], **environment)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    command = [shellcheck, "-x", "-P", str(REPO), str(REPO / script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_a_push_builds_one_plain_manifest_and_prints_its_digest(tools, checkout):
    registry_of(tools)
    result = push(tools, checkout)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{REGISTRY}/team/mrigan@{DIGEST}\n"
    tag = f"{REGISTRY}/team/mrigan:{git(checkout, 'rev-parse', '--short=12', 'HEAD')}"
    build = next(call for call in tools.calls if call[:3] == ["docker", "buildx", "build"])
    for part in (
        ["--platform", "linux/amd64"],
        ["--provenance=false"],
        ["--sbom=false"],
        ["--output", "type=docker"],
        ["--tag", tag],
    ):
        assert " ".join(part) in " ".join(build)
    assert ["docker", "push", tag] in tools.calls
    assert ["docker", "login", "--username", "AWS", "--password-stdin", REGISTRY] in tools.calls
    assert [call for call in tools.calls if "a-password" in call] == [["a-password"]]


def test_every_call_to_aws_names_the_repository_s_region(tools, checkout):
    registry_of(tools)
    push(tools, checkout, AWS_REGION="us-west-2")
    calls = [call for call in tools.calls if call[0] == "aws"]
    assert len(calls) == 3
    assert all(call[call.index("--region") + 1] == "eu-central-1" for call in calls)
    assert {call[2] for call in calls} == {"describe-images", "get-login-password"}


def test_a_commit_that_was_pushed_is_not_built_again(tools, checkout):
    registry_of(tools, holds_tag=True)
    result = push(tools, checkout)
    assert (result.returncode, result.stdout) == (0, f"{REGISTRY}/team/mrigan@{DIGEST}\n")
    assert not [call for call in tools.calls if call[0] == "docker"]


def test_uncommitted_changes_are_refused_unless_allowed(tools, checkout):
    registry_of(tools)
    (checkout / "new.py").touch()
    refused = push(tools, checkout)
    assert (refused.returncode, refused.stdout, tools.calls) == (1, "", [])
    assert "--allow-dirty" in refused.stderr
    assert push(tools, checkout, "--allow-dirty").returncode == 0
    (pushed,) = (call[2] for call in tools.calls if call[:2] == ["docker", "push"])
    assert f":{git(checkout, 'rev-parse', '--short=12', 'HEAD')}-dirty-20" in pushed


def test_build_arguments_and_a_tag_are_handed_on(tools, checkout):
    registry_of(tools)
    base = "nvidia/cuda:12.6.3-base-ubuntu24.04"
    result = push(tools, checkout, "--tag", "cu126", BASE=base, UV_TORCH_BACKEND="cu126")
    assert result.returncode == 0, result.stderr
    build = next(call for call in tools.calls if call[:3] == ["docker", "buildx", "build"])
    assert build[-5:-1] == ["--build-arg", f"BASE={base}", "--build-arg", "UV_TORCH_BACKEND=cu126"]
    assert f"{REGISTRY}/team/mrigan:cu126" in build


def test_an_oci_index_is_refused(tools, checkout):
    registry_of(tools, media_type=OCI_INDEX)
    result = push(tools, checkout)
    assert (result.returncode, result.stdout) == (1, "")
    assert OCI_INDEX in result.stderr


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ("RepositoryNotFoundException", "make it with deploy/terraform"),
        ("ExpiredTokenException", "ExpiredTokenException"),
    ],
)
def test_a_registry_that_refuses_is_told_before_a_build(tools, checkout, failing, said):
    registry_of(tools)
    tools.add("aws", f"echo 'An error occurred ({failing})' >&2; exit 254")
    result = push(tools, checkout)
    assert (result.returncode, result.stdout) == (1, "")
    assert said in result.stderr
    assert len(tools.calls) == 1


@pytest.mark.parametrize("step", ["login", "buildx", "push"])
def test_a_step_of_docker_that_fails_ends_it_without_a_uri(tools, checkout, step):
    registry_of(tools)
    tools.add("docker", f'[ "$1" = login ] && cat >/dev/null; [ "$1" != {step} ] || exit 17')
    result = push(tools, checkout)
    assert (result.returncode, result.stdout) == (17, "")
    assert tools.calls[-1][:2] in (["docker", step], ["aws", "ecr"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mrigan"],
        [f"{REGISTRY}/mrigan:latest"],
        [f"{REGISTRY}/a", f"{REGISTRY}/b"],
        ["--pull", f"{REGISTRY}/a"],
        [f"{REGISTRY}/a", "--tag"],
    ],
)
def test_wrong_arguments_end_with_two_and_touch_nothing(tools, checkout, arguments):
    registry_of(tools)
    result = tools.run([checkout / "deploy/build_and_push.sh", *arguments])
    assert (result.returncode, result.stdout, tools.calls) == (2, "", [])
    assert len(result.stderr.splitlines()) == 1
