"""The docs as a site: built without a network, read without one; its reference is current."""

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mrigan.cli.parser import build_parser

REPO = Path(__file__).parent.parent
PAGE = (REPO / "docs" / "commands.md").read_text()


def build(repo, folder):
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    # A proxy that nobody listens to stands for a missing network.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environ = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=repo, env=environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    ended = build(REPO, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_every_page_is_in_the_site(site):
    pages = {path.stem for path in (REPO / "docs").glob("*.md")} | {"changelog"}
    assert {path.stem for path in site.glob("*.html")} == pages | {"404"}
    nav = (site / "index.html").read_text()
    assert all(f'href="{page}.html"' in nav for page in pages - {"index"})


def test_no_page_fetches_anything_from_elsewhere(site):
    for path in site.glob("*.html"):
        found = re.findall(r"<(?:link|script|img|iframe)\b[^>]*https?://[^>]*>", path.read_text())
        assert found == [], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", path.read_text()), path.name


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path):
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(REPO / name, tmp_path)
    with (tmp_path / "docs" / "faults.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    ended = build(tmp_path, tmp_path / "site")
    assert ended.returncode == 1
    assert "nowhere.md" in ended.stderr


def test_it_can_be_searched(site):
    (index,) = site.glob("search/search_index.json")
    titles = {each["title"] for each in json.loads(index.read_text())["docs"]}
    assert {
        "Metrics and privacy: what the numbers mean, and what they can't tell",
        "Commands",
    } <= titles


def test_the_reference_names_every_command_and_option():
    commands = dict(re.findall(r"## mrigan (\S+)\n\n```text\n(.*?)\n```", PAGE, re.DOTALL))
    named = next(each for each in build_parser()._actions if each.choices)
    assert commands.keys() == named.choices.keys(), "run `make fix`"
    for name, parser in named.choices.items():
        for action in parser._actions:
            if parser.get_default("takes_settings") and action.default == argparse.SUPPRESS:
                continue  # a setting: docs/settings.md and docs/sagemaker.md have those
            for option in action.option_strings or [action.metavar or action.dest]:
                assert option in commands[name], f"{name} {option}: run `make fix`"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays help out anew")
def test_the_reference_is_current(monkeypatch):
    monkeypatch.setenv("COLUMNS", "")
    text = runpy.run_path(str(REPO / "docs" / "commands.py"))["text"]
    assert text() == PAGE, "run `make fix`"
