"""docs/architecture.md and docs/notebook.md speak of files and names that exist."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
SOURCE = REPO / "src" / "mrigan"
PAGE = "".join((REPO / "docs" / f"{name}.md").read_text() for name in ("architecture", "notebook"))
# Between backticks: files and folders, and names of the code; the rest is commands and values.
SAID = set(re.findall(r"`([^`\s]+)`", PAGE))
PATHS = sorted(said for said in SAID if re.search(r"/|\.(py|md|toml)$", said))
NAMES = sorted(set(re.findall(r"`([A-Za-z_]\w*)`", PAGE)))
# Words of the outside world.
NOT_OURS = {"dcgan"} | {"load_images_from_s3", "save_generated_images", "save_models"}
NOT_OURS |= {"plot_training_history", "train_gan", "empty_cache", "PYTORCH_CUDA_ALLOC_CONF"}


@pytest.fixture(scope="module")
def code():
    return "\n".join(file.read_text() for file in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", PATHS)
def test_each_file_exists(path):
    assert (REPO / path).exists() or (SOURCE / path).exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_OURS])
def test_each_name_is_defined_or_a_module(name, code):
    is_defined = re.search(rf"^\s*(?:class|def|async def) {name}\b", code, re.MULTILINE)
    is_assigned = re.search(
        rf"^\s*(?:self\.)?{name}\b(?:: [^=\n]+)?(?: =|$|: )", code, re.MULTILINE
    )
    is_module = any(SOURCE.rglob(f"{name}.py"))
    assert is_defined or is_assigned or is_module, name
