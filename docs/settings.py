"""Writes the tables of settings into the pages from the settings (``make fix`` runs it)."""

import re
from pathlib import Path

from mrigan.settings.describe import markdown_table
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings

REPO = Path(__file__).parent.parent
PAGES = {"docs/settings.md": Settings, "docs/sagemaker.md": LaunchSettings}
_BLOCK = re.compile(r"(<!-- (?:launch )?settings: [^>]*-->\n).*?(<!-- /settings -->)", re.DOTALL)


def with_table(page: str) -> str:
    """The text of ``page`` with the table of today's settings in its place."""
    text = (REPO / page).read_text()
    return _BLOCK.sub(lambda block: block[1] + markdown_table(PAGES[page]) + block[2], text)


if __name__ == "__main__":
    for page in PAGES:
        (REPO / page).write_text(with_table(page))
