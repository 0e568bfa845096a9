"""Writes docs/commands.md from the command line's own help (``make fix`` runs it)."""

import argparse
import os
import re
from pathlib import Path

# The width is read when the parser is built.
os.environ["COLUMNS"] = "96"
os.environ["NO_COLOR"] = "1"

from mrigan.cli.parser import build_parser
from mrigan.settings.describe import described
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings

PAGE = Path(__file__).parent / "commands.md"
_HEAD = """# Commands

Written by `make fix` from `mrigan COMMAND --help`. Commands that take all settings of
`mrigan train` as options have them in [settings.md](settings.md); those of a job on SageMaker
are in [sagemaker.md](sagemaker.md).
"""
_SETTINGS = {
    each.group.lower() for model in (Settings, LaunchSettings) for each in described(model)
}


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
    for group in command._action_groups:
        if group.title in _SETTINGS:
            told = re.sub(
                rf"\n\n{re.escape(group.title)}:\n(?:  .*\n?)+", "\n", told + "\n"
            ).strip()
    return re.sub(r" +$", "", told, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(text())
