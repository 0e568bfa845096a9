"""Stand-ins for the commands that deploy/'s scripts call: real processes that keep a record."""

import os
import subprocess

import pytest

# One write a call: the two ends of a pipe record theirs at the same time.
RECORD = """#!/bin/bash
line=${0##*/}
for word; do line+=$'\\037'$word; done
printf '%s\\n' "$line" >>"$CALLS"
"""


class Tools:
    """A folder of stand-ins for PATH, and what was asked of them."""

    def __init__(self, folder):
        self.bin = folder / "bin"
        self.bin.mkdir()
        self._calls = folder / "calls"
        self._calls.touch()

    def add(self, name, answer=""):
        """Make ``name`` a command that records its arguments and then runs ``answer`` in bash."""
        tool = self.bin / name
        tool.write_text(f"{RECORD}{answer}\n")
        tool.chmod(0o755)

    @property
    def calls(self):
        return [line.split("\x1f") for line in self._calls.read_text().splitlines()]

    def run(self, command, **environment):
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CALLS": str(self._calls),
            **environment,
        }
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path)
