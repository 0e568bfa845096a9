"""The image: what is in it, what is not, and that it runs with no right that it does not need."""

import pytest

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

UNPRIVILEGED = (
    *("--user", "10001:10001", "--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
TINY_RUN = {
    "MRIGAN_INPUT_URI": "phantom://12",
    "MRIGAN_OUTPUT_URI": "/tmp/run",
    "MRIGAN_CACHE_DIR": "/tmp/slices",
    "MRIGAN_IMAGE_HEIGHT": "40",
    "MRIGAN_IMAGE_WIDTH": "32",
    "MRIGAN_EPOCHS": "1",
    "MRIGAN_BATCH_SIZE": "4",
    "MRIGAN_ACCUMULATION_STEPS": "1",
    "MRIGAN_LOG_FORMAT": "json",
}

TOOLS = "gcc cc g++ c++ clang tcc cpp as ld make cmake nvcc pip pip3 uv git"
LEFT_OVERS = (
    "/root/.cache /home/*/.cache /opt/uv /build /tmp/* /opt/ml "
    "/var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb"
)

IMPORT_DEPENDENCIES = """
import importlib, re
from importlib.metadata import packages_distributions, requires
needed = {re.match(r"[\\w.-]+", line)[0].lower() for line in requires("mrigan")
          if "extra ==" not in line}
found = set()
for module, distributions in packages_distributions().items():
    names = needed & {name.lower() for name in distributions}
    if names and not module.startswith("_"):
        importlib.import_module(module)
        found |= names
assert found == needed, needed - found
import matplotlib.pyplot, torch.nn
"""


def settings(values):
    return [part for name, value in values.items() for part in ("--env", f"{name}={value}")]


@pytest.fixture
def shell(docker_run):
    return lambda script: docker_run(["--entrypoint", "sh"], "-c", script).stdout.split()


@pytest.fixture(scope="module")
def unprivileged_run(docker_run):
    """``docker run IMAGE``, no argument."""
    return docker_run([*UNPRIVILEGED, *settings(TINY_RUN)])


def test_a_container_that_can_write_nowhere_says_so_in_one_line(run, image):
    nobody = ["--user", "1234:1234", "--read-only", "--network", "none"]
    ended = run("docker", "run", "--rm", *nobody, image, "train", "--epochs", "1", check=False)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode in (1, 5), ended
    assert len(lines) == 1, ended.stderr
    assert "bug of mrigan" not in lines[0]
    assert any(word in lines[0] for word in ("read-only", "--tmpfs /tmp"))


def test_the_image_holds_no_compiler_and_no_installer(shell):
    assert shell(f"for tool in {TOOLS}; do command -v $tool; done; true") == []


def test_the_image_holds_no_cache_and_nothing_where_sagemaker_mounts(shell):
    assert shell(f"ls -d {LEFT_OVERS} 2>/dev/null; true") == []


def test_the_layers_hold_nothing_twice(run, image, shell):
    history = run("docker", "history", "--human=false", "--format", "{{.Size}}", image).stdout
    in_layers = sum(int(size) for size in history.split())
    visible = sum(int(size) for size in shell("find / -xdev -type f -printf '%s\\n'"))
    assert in_layers < 1.02 * visible


def test_every_dependency_imports_without_any_right(docker_run):
    docker_run([*UNPRIVILEGED, "--entrypoint", "python"], "-c", IMPORT_DEPENDENCIES)


def test_a_start_compiles_no_python(docker_run):
    start = "python -v -c 'import mrigan.jobs.train.job' 2>/tmp/trace"
    or_why = "{ grep -v '^#' /tmp/trace; exit 1; }"
    script = f"{start} || {or_why}; grep '^# code object from' /tmp/trace"
    result = docker_run([*UNPRIVILEGED, "--entrypoint", "sh"], "-c", script)
    loaded = result.stdout.splitlines()
    assert len(loaded) > 500
    assert not [line for line in loaded if line.endswith(".py'")]


def test_help_of_the_job_answers_within_two_seconds(docker_run, shell):
    assert "--batch-size" in docker_run([], "train", "--help").stdout
    clock = "date +%s%N"
    timed = f"mrigan train --help >/dev/null; {clock}; mrigan train --help >/dev/null; {clock}"
    begin, end = shell(timed)
    assert int(end) - int(begin) < 2e9


def test_the_job_runs_without_any_right(events, unprivileged_run):
    assert len(events(unprivileged_run.stdout, "completed")) == 1


def test_no_argument_means_train_as_root_too(docker_run, events, unprivileged_run):
    as_root = docker_run(settings(TINY_RUN), "train")
    (ours,), (theirs,) = (events(result.stdout, "epoch") for result in (as_root, unprivileged_run))
    assert (ours["d_loss"], ours["g_loss"]) == (theirs["d_loss"], theirs["g_loss"])


def test_a_misspelt_setting_ends_with_status_2_and_one_line(docker_run):
    result = docker_run(["--env", "MRIGAN_BATCH_SIZ=4"], check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "mrigan: MRIGAN_BATCH_SIZ: unknown, did you mean MRIGAN_BATCH_SIZE?"
    ]


def allocator(docker_run, *options):
    """The string that torch reads when the job starts."""
    script = "from mrigan.environment import configure_allocators as f; print(f())"
    return docker_run([*options, "--entrypoint", "python"], "-c", script).stdout.strip()


def test_the_image_sets_the_allocator(docker_run):
    assert allocator(docker_run) == "expandable_segments:True"


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_users_allocator_wins_over_the_images(docker_run, name):
    chosen = allocator(docker_run, "--env", f"{name}=max_split_size_mb:64")
    assert chosen == "max_split_size_mb:64"
