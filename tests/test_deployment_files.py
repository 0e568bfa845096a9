"""What the Dockerfile, the compose files and .env.example promise, read without an engine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mrigan.settings.describe import described

REPO = Path(__file__).parents[1]
COMPOSE_FILES = ("docker-compose.yml", "docker-compose.gpu.yml")


def services(file):
    return yaml.safe_load((REPO / file).read_text())["services"]


def locked(package):
    return re.search(rf"^{package}==(\S+)", (REPO / "requirements-dev.txt").read_text(), re.M)[1]


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_a_compose_file_follows_the_schema(file):
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(REPO / file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_compose_hands_every_setting_to_the_job_and_no_other():
    environment = services("docker-compose.yml")["train"]["environment"]
    passed = {name for name in environment if name.startswith("MRIGAN_")}
    assert passed == {setting.variable for setting in described()}


def test_a_setting_in_compose_yields_to_the_shell_under_its_own_name():
    for name, value in services("docker-compose.yml")["train"]["environment"].items():
        fixed = not name.startswith("MRIGAN_") or name == "MRIGAN_CACHE_DIR"
        assert fixed or value is None or value.startswith(f"${{{name}:-"), name


def test_compose_runs_the_demo_of_make_train():
    demo = re.search(r"^DEMO := (.+)$", (REPO / "Makefile").read_text(), re.M)[1]
    environment = services("docker-compose.yml")["train"]["environment"]
    for name, value in (setting.split("=") for setting in demo.split()):
        assert environment[f"MRIGAN_{name}"] == f"${{MRIGAN_{name}:-{value}}}"


def test_only_the_override_reserves_a_gpu():
    base, override = (services(file) for file in COMPOSE_FILES)
    for name, service in base.items():
        assert not {"deploy", "gpus", "runtime", "devices", "ulimits"} & service.keys(), name
    (device,) = override["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


@pytest.mark.parametrize("service", ["seed", "train", "fetch"])
def test_our_services_hold_no_privilege_and_pull_no_image(service):
    ours = services("docker-compose.yml")[service]
    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]
    assert ours["pull_policy"] == "never"


@pytest.mark.parametrize(
    ("dockerfile", "argument", "package"),
    [
        ("Dockerfile", "UV_VERSION", "uv"),
        ("tests/container/seaweedfs/Dockerfile", "MOTO_VERSION", "moto"),
    ],
)
def test_an_image_installs_the_locked_version(dockerfile, argument, package):
    default = re.search(rf"^ARG {argument}=(\S+)", (REPO / dockerfile).read_text(), re.M)[1]
    assert default == locked(package)


def test_every_variable_of_the_example_means_something():
    example = (REPO / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", example, re.M))
    settings = {setting.variable for setting in described()}
    compose = set(re.findall(r"\$\{([A-Z0-9_]+)", (REPO / COMPOSE_FILES[0]).read_text()))
    passed_on = services(COMPOSE_FILES[0])["train"]["environment"].keys()
    assert named <= settings | compose | passed_on | {"COMPOSE_FILE"}
    assert "COMPOSE_FILE" in named
