"""The wheel is all that a user needs beside the dependencies: built, installed, run elsewhere."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import uv

REPO = Path(__file__).parents[1]
TINY = (
    "--input-uri", "phantom://13", "--image-height", "48", "--image-width", "33", "--epochs", "1",
    "--batch-size", "4", "--accumulation-steps", "2", "--device", "cpu",
)  # fmt: skip
SAMPLE = """
import json, sys
import mrigan
slices = mrigan.load(sys.argv[1], device="cpu").sample(2)
ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "mrigan"]
print(json.dumps([slices.shape, str(slices.dtype), [module.__file__ for module in ours]]))
"""

pytestmark = pytest.mark.slow


def run(*command, cwd, environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Installed(NamedTuple):
    """The wheel in an environment of its own."""

    environment: Path
    elsewhere: Path  # a folder that knows nothing of the checkout
    variables: dict[str, str]

    def __call__(self, name, *arguments):
        program = self.environment / "bin" / name
        return run(program, *arguments, cwd=self.elsewhere, environment=self.variables)


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """This process's, without what would lead to the checkout or to settings of this machine."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "UV_", "MRIGAN_")) and name != "VIRTUAL_ENV"
    }
    return kept | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, variables):
    # Offline: uv carries the backend itself, so nothing is fetched.
    out = tmp_path_factory.mktemp("dist")
    build = [uv.find_uv_bin(), "build", "--offline", "--wheel", "--out-dir", out, REPO]
    run(*build, cwd=out, environment=variables)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory, variables, wheel):
    folder = tmp_path_factory.mktemp("installed")
    environment, elsewhere = folder / "venv", folder / "elsewhere"
    elsewhere.mkdir()
    made = [uv.find_uv_bin(), "venv", "--offline", "--python", sys.executable, environment]
    run(*made, cwd=elsewhere, environment=variables)
    python = environment / "bin" / "python"
    install = [uv.find_uv_bin(), "pip", "install", "--offline", "--no-deps", "--python", python]
    run(*install, wheel, cwd=elsewhere, environment=variables)
    # The dependencies, behind the wheel on the path. A .pth file names a folder, whose own .pth
    # files (the editable install of the checkout) are not read then.
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = run(python, "-c", query, cwd=elsewhere, environment=variables).strip()
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(packages, "dependencies.pth").write_text("".join(f"{path}\n" for path in here))
    return Installed(environment, elsewhere, variables)


@pytest.fixture(scope="module")
def trained(installed):
    said = installed("mrigan", "train", "--output-uri", "run", *TINY)
    assert "completed epochs=1 " in said
    return "run"


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    source = REPO / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in (source / "mrigan").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]
    assert {name for name in names if ".dist-info/" not in name} == files
    assert {"mrigan/py.typed", "mrigan/artifacts/report/report.html.j2"} <= files
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_command_says_its_version_and_helps(installed, wheel):
    assert installed("mrigan", "--version") == f"mrigan {wheel.name.split('-')[1]}\n"
    assert installed("mrigan", "--help").startswith("usage: mrigan")


def test_phantoms_are_written(installed):
    installed("mrigan", "phantom", "phantoms", "--count", 3)
    assert len(list((installed.elsewhere / "phantoms").rglob("*.png"))) == 3


def test_a_run_is_trained_with_its_report(installed, trained):
    run = installed.elsewhere / trained
    assert (run / "model" / "generator.safetensors").is_file()
    assert "<html" in (run / "report.html").read_text()


def test_a_run_is_drawn_from_by_the_command(installed, trained):
    installed("mrigan", "generate", trained, "drawn", "--count", 2)
    assert len(list((installed.elsewhere / "drawn").rglob("*.png"))) == 2


def test_a_run_is_drawn_from_in_python_by_the_modules_of_the_wheel(installed, trained):
    shape, kind, files = json.loads(installed("python", "-c", SAMPLE, trained))
    assert (shape, kind) == ([2, 48, 33], "uint8")
    assert len(files) > 10
    assert all(Path(file).is_relative_to(installed.environment) for file in files), files
