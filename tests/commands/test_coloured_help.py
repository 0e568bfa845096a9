"""The help on a terminal: in colours where these are wanted, and word for word as elsewhere."""

import os
import pty
import re
import subprocess
import sys

import pytest

COMMANDS = [[], ["train"], ["generate"], ["launch"], ["completion"]]  # every kind of help
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def help_on_a_terminal(*command, **variables):
    ours, its_end = pty.openpty()
    chosen = {"TERM": "xterm-256color", "COLUMNS": "80"} | variables
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | chosen
    process = subprocess.Popen(
        [sys.executable, "-m", "mrigan", *command, "--help"],
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        env=environment,
    )
    os.close(its_end)
    said = b""
    while part := _read(ours):
        said += part
    os.close(ours)
    assert process.wait() == 0, said
    return said.decode().replace("\r\n", "\n")


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.fixture
def plain(mrigan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *command: mrigan(*command, "--help").out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_terminal_shows_colours_and_the_same_words(plain, command):
    shown = help_on_a_terminal(*command)
    assert COLOUR.search(shown)
    assert COLOUR.sub("", shown) == plain(*command)


def test_options_what_they_take_and_defaults_are_told_apart():
    shown = help_on_a_terminal("train")
    colours = [
        re.search(rf"\x1b\[([\d;]+)m{re.escape(text)}\x1b", shown)[1]
        for text in ("--epochs", "PIXELS", "[500]", "[~/.cache/mrigan]", "training:")
    ]
    option, takes, default, another_default, group = colours
    assert len({option, takes, default, group}) == 4
    assert another_default == default


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colours_gets_none(plain, variables):
    assert help_on_a_terminal("train", **variables) == plain("train")


def test_a_file_or_a_pipe_gets_no_colours(plain):
    assert "\x1b" not in plain("train")
