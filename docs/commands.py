"""Writes docs/commands.md from the command line's own help (``make fix`` runs it)."""

import argparse
import os
import re
from pathlib import Path

# The width is read when the parser is built.
os.environ["COLUMNS"] = "96"
os.environ["NO_COLOR"] = "1"

from mrigan.cli.parser import build_parser

PAGE = Path(__file__).parent / "commands.md"
_HEAD = """# Commands

Written by `make fix` from `mrigan COMMAND --help`. Commands that take all settings of
`mrigan train` as options have them in [settings.md](settings.md).
"""


def text() -> str:
    parser = build_parser()
    (named,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    parts = [_HEAD]
    for name, command in named.choices.items():
        parts.append(f"## mrigan {name}\n\n```text\n{_help(command)}\n```\n")
    return "\n".join(parts)


def _help(command: argparse.ArgumentParser) -> str:
    """Its help without the settings, which have a page of their own."""
    told = command.format_help().strip()
    if command.get_default("takes_settings"):
        groups = {group.title for group in command._action_groups} - {
            "options",
            "positional arguments",
        }
        for title in groups:
            told = re.sub(rf"\n\n{re.escape(title)}:\n(?:  .*\n?)+", "\n", told + "\n").strip()
    return re.sub(r" +$", "", told, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(text())
