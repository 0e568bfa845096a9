"""For the site: the changelog as a page; links to files that are no pages become plain text."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_BESIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
_CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    text = _CHANGELOG.read_text().replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    return _BESIDE.sub(r"\1", markdown)
