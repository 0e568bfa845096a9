"""The README is true: its table is current, and every command in it is run somewhere."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()

# Where each command of the README is really run; the file must speak of it.
RUN_BY = {
    "make train": ("tests/test_make.py", '"train"'),
    "make train INPUT_URI=slices/ OUTPUT_URI=runs/first": ("tests/test_make.py", "INPUT_URI="),
    "make train INPUT_URI=s3://bucket/slices OUTPUT_URI=s3://bucket/runs/first EPOCHS=300": (
        "tests/test_make.py",
        "EPOCHS=",
    ),
    "docker compose up train": ("tests/container/test_compose.py", '"up"'),
    "docker compose run --rm fetch": ("tests/container/test_compose.py", '"fetch"'),
    "docker compose kill -s TERM train": ("tests/container/test_compose.py", '"TERM"'),
    "make setup": (".ci/run", "make test"),
    "make check": (".ci/run", "make test"),
    "make test": (".ci/run", "make test"),
    "make fix": ("tests/test_make.py", '"fix"'),
    "make sdk": (".ci/run", "sdk"),
    "mrigan launch --role ARN --image URI --input-uri s3://bucket/slices "
    "--output-uri s3://bucket/runs/first --spot": ("tests/commands/launch/conftest.py", '"launch"'),
    "mrigan evaluate runs/first": ("tests/commands/test_evaluate.py", '"evaluate"'),
    "mrigan generate runs/first synthetic/ --count 1000": ("tests/test_generate.py", '"generate"'),
    "make gpu": ("tests/test_make.py", '"gpu"'),
    "make image": ("tests/test_make.py", '"image"'),
    "make up": ("tests/test_make.py", '"up"'),
}


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("page", ["docs/settings.md", "docs/sagemaker.md"])
def test_the_settings_table_is_current(page):
    with_table = runpy.run_path(str(REPO / "docs" / "settings.py"))["with_table"]
    assert with_table(page) == (REPO / page).read_text(), "run `make fix`"


def test_every_command_is_run_by_a_test_or_by_ci():
    assert set(commands()) == RUN_BY.keys()
    for command, (file, evidence) in RUN_BY.items():
        assert evidence in (REPO / file).read_text(), command


PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "bench/README.md",
    "deploy/README.md",
    *(f"docs/{path.name}" for path in (REPO / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = (REPO / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (REPO / page).parent / name if name else REPO / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert anchor in slugs, target


def test_no_line_of_output_in_it_is_invented():
    demo = dict(re.findall(r"(\w+)=(\S+)", re.search(r"DEMO := (.*)", _makefile())[1]))
    assert f"completed epochs={demo['EPOCHS']} uri=runs/demo" in README


def _makefile():
    return (REPO / "Makefile").read_text()


@pytest.mark.parametrize("target", ["setup", "train", "test", "check", "fix", "image", "up"])
def test_make_knows_the_target(target):
    subprocess.run(["make", "-n", target], cwd=REPO, check=True, capture_output=True)


@pytest.mark.slow
def test_the_page_of_messages_is_current():
    command = [sys.executable, "docs/messages.py", "--check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
