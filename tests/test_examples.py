"""The example notebook runs from its first cell to its last."""

import json
from pathlib import Path

import pytest

from test_generate import published

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first-look.ipynb"


@pytest.fixture
def cells():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "outputs are not kept"
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_cells_run_one_after_another(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    published("runs/demo", "r3-tiny")
    names = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    told = capsys.readouterr().out
    assert "kernel distance (KID)" in told
    assert names["nearest"].match[0] == 7
    assert names["nearest"].likeness[0] > 0.99
