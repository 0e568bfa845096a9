"""deploy/ec2/user-data.sh, run for real beside stand-ins of docker, nvidia-smi and shutdown."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[2]
IMAGE = f"111122223333.dkr.ecr.eu-central-1.amazonaws.com/mrigan@sha256:{'5e' * 32}"


@pytest.fixture
def instance(tools, tmp_path):
    """Start user data on a machine with a GPU; options are its variables or a tool's answer."""

    def start(*, driver="595.91.07", status=0, compose=True, **variables):
        tools.add("nvidia-smi", f"echo {driver}; echo {driver}")
        tools.add("shutdown")
        tools.add("aws", "echo a-password")
        tools.add("apt-get", "exit 100")
        tools.add(
            "docker",
            f"""[ "$1" != login ] || {{ cat >>"$CALLS"; echo "$HOME" >>"$CALLS"; }}
            case $2 in version) exit {0 if compose else 1} ;; up) exit {status} ;; esac""",
        )
        defaults = {
            "IMAGE": IMAGE,
            "INPUT_URI": "s3://bucket/slices",
            "OUTPUT_URI": "s3://bucket/runs/first",
            "FOLDER": str(tmp_path / "state"),
            "LOG": str(tmp_path / "log"),
            "CONSOLE": str(tmp_path / "console"),
        }
        (tmp_path / "console").touch()
        return tools.run([REPO / "deploy/ec2/user-data.sh"], **defaults | variables)

    return start


def test_an_instance_trains_and_shuts_itself_down(instance, tools, tmp_path):
    assert instance().returncode == 0
    assert tools.calls[-3:] == [
        ["docker", "compose", "pull", "--quiet", "train"],
        ["docker", "compose", "up", "--no-log-prefix", "--exit-code-from", "train", "train"],
        ["shutdown", "-h", "+5"],
    ]
    log = (tmp_path / "log").read_text()
    assert "ended status=0" in log
    assert log == (tmp_path / "console").read_text()


def test_docker_has_a_home_for_its_login_where_cloud_init_sets_none(instance, tools):
    instance()
    assert ["/root"] in tools.calls


def test_an_instance_shuts_down_after_a_failure_too(instance, tools, tmp_path):
    assert instance(status=5).returncode == 5
    assert tools.calls[-1] == ["shutdown", "-h", "+5"]
    assert "hop limit" in (tmp_path / "log").read_text()


def test_an_instance_that_is_to_stay_is_not_shut_down(instance, tools):
    assert instance(status=3, AT_END="stay").returncode == 3
    assert "shutdown" not in [call[0] for call in tools.calls]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"driver": "570.195.03"}, "580 or newer"),
        ({"IMAGE": ""}, "IMAGE"),
        ({"INPUT_URI": "/data"}, "INPUT_URI"),
        ({"OUTPUT_URI": "s3://"}, "OUTPUT_URI"),
        ({"AT_END": "halt"}, "AT_END"),
        ({"driver": "none; exit 9"}, "no GPU answers"),
    ],
)
def test_what_cannot_train_ends_with_two_before_an_image_is_pulled(
    instance, tools, tmp_path, options, said
):
    assert instance(**options).returncode == 2
    assert said in (tmp_path / "log").read_text()
    assert {call[0] for call in tools.calls} <= {"nvidia-smi", "shutdown"}
    assert tools.calls[-1][0] == "shutdown"


def test_an_older_driver_serves_the_older_image(instance):
    assert instance(driver="570.195.03", LEAST_DRIVER="525").returncode == 0


def test_without_compose_in_the_ami_the_script_says_so(instance, tools, tmp_path):
    assert instance(compose=False).returncode != 0
    assert ["apt-get", "update"] in tools.calls
    assert tools.calls[-1][0] == "shutdown"


def test_an_instance_s_train_is_the_repository_s_with_its_settings(instance, tools, tmp_path):
    instance(SETTINGS="MRIGAN_EPOCHS=300\nMRIGAN_SEED=7")
    written = tmp_path / "state/docker-compose.yml"
    schema = ["--builtin-schema", "vendor.compose-spec", str(written)]
    checked = subprocess.run([sys.executable, "-m", "check_jsonschema", *schema], check=False)
    assert checked.returncode == 0
    ours, base, gpu = (
        yaml.safe_load(path.read_text())["services"]["train"]
        for path in (written, REPO / "docker-compose.yml", REPO / "docker-compose.gpu.yml")
    )
    replaced = {"image", "build", "pull_policy", "environment", "env_file", "depends_on"}
    expected = {key: value for key, value in (base | gpu).items() if key not in replaced}
    assert {
        key: value for key, value in ours.items() if key not in {"image", "env_file"}
    } == expected
    lines = (tmp_path / "state/train.env").read_text().split()
    assert lines == [
        "MRIGAN_INPUT_URI=s3://bucket/slices",
        "MRIGAN_OUTPUT_URI=s3://bucket/runs/first",
        "MRIGAN_CACHE_DIR=/cache",
        "MRIGAN_DEVICE=cuda",
        "AWS_REGION=eu-central-1",
        "MRIGAN_EPOCHS=300",
        "MRIGAN_SEED=7",
    ]
