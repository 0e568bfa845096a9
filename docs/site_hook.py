"""For the site: links to files of the repository that are no pages become plain text."""

import re

_BESIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    return _BESIDE.sub(r"\1", markdown)
