"""Writes the settings table of the README from the settings themselves (``make fix`` runs it)."""

import re
from pathlib import Path

from mrigan.settings.describe import markdown_table

README = Path(__file__).parent.parent / "README.md"
_BLOCK = re.compile(r"(<!-- settings: [^>]*-->\n).*?(<!-- /settings -->)", re.DOTALL)


def with_table(text: str) -> str:
    """``text`` with the table of today's settings in its place."""
    return _BLOCK.sub(lambda block: block[1] + markdown_table() + block[2], text)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
