"""A script that completes command lines: the shell runs it at each TAB, and Python only once."""

import argparse
from collections.abc import Iterator

import shtab

from mrigan.cli.parser import build_parser
from mrigan.settings.describe import described
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings

_FILES = {"file", "sheet", "input_uri"}
_FOLDERS = {"cache_dir", "folder", "init_from", "out", "output_uri", "run", "to", "uri"}


def script(shell: str) -> str:
    """The script for ``shell``, which knows each command's options, and what these take."""
    parser = build_parser()
    settings = [*described(Settings), *described(LaunchSettings)]
    values = {setting.option: setting.values for setting in settings}
    for action in _actions(parser):
        # The settings check what they are given, so their options have no choices of their own.
        for option in action.option_strings:
            action.choices = values.get(option) or action.choices
        if action.dest in _FILES | _FOLDERS:
            kind = shtab.FILE if action.dest in _FILES else shtab.DIRECTORY
            vars(action)["complete"] = kind  # where shtab looks
    return f"{shtab.complete(parser, shell)}\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command, listed in zip(
                action.choices.values(), action._get_subactions(), strict=True
            ):
                command.description = listed.help  # the first line of a long one says too little
                yield from _actions(command)
