"""Starts of one small training job, each ended at a moment of choice by a signal or by itself."""

import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from signal import Signals
from typing import Any, NamedTuple

_JOB = (
    *("--image-height", "48", "--image-width", "40", "--device", "cpu"),
    *("--checkpoint-every", "3", "--checkpoint-minutes", "0.02", "--log-format", "json"),
)
# Of each model, so that a whole run takes about as long.
_SETTINGS = {
    "dcgan": ("--input-uri", "phantom://48", "--batch-size", "8", "--accumulation-steps", "2"),
    "r3-tiny": ("--input-uri", "phantom://13", "--batch-size", "8"),
}
MODELS = tuple(_SETTINGS)
_LONGEST_LIFE_SECONDS = 300.0


class Moment(NamedTuple):
    """When to kill: a delay after the ``nth`` line of an event; "start" is the process's."""

    event: str
    nth: int
    delay_seconds: float
    signal: Signals = Signals.SIGKILL

    def __str__(self) -> str:
        which = f" {self.nth}" if self.nth > 1 else ""
        return f"{self.signal.name} {self.event}{which} +{1000 * self.delay_seconds:.0f} ms"


class Life(NamedTuple):
    """One start of the job, as far as it got."""

    was_killed: bool  # or ended in good order by a signal, before its end
    seconds: float
    lines: list[dict[str, Any]]

    def find(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return [line for line in self.lines if line.get("event") == event]

    def phase(self, epochs: int) -> str:
        """Where it ended."""
        if any(row["epoch"] == epochs for row in self.find("epoch")):
            return "after the last epoch"
        names = {line.get("event") for line in self.lines}
        if names & {"epoch", "checkpoint"}:
            return "training"
        if "plan" in names:
            return "first epoch of the start"
        return "pull and claim" if "machine" in names else "imports"


def live(uri: str, model: str, epochs: int, moments: list[Moment]) -> Life:
    """Run the job to its end, or end it at the first of ``moments`` that comes."""
    command = [sys.executable, "-m", "mrigan", "train", *_JOB, *_SETTINGS[model]]
    command += ["--model", model, "--epochs", str(epochs), "--output-uri", uri]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        coming: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, coming), daemon=True).start()
        try:
            lines = list(_lines_until_due(coming, began, moments))
            process.send_signal(moments[0].signal if moments else Signals.SIGKILL)
            process.wait(_LONGEST_LIFE_SECONDS)
        finally:
            process.kill()
        seconds = time.monotonic() - began
        # What was in the pipe still counts.
        lines += [json.loads(line) for line in iter(coming.get, "")]
    if process.returncode not in (0, -9, -15, 143):  # -15: before it has taken signals over
        raise SystemExit(f"the job failed with status {process.returncode}")
    return Life(process.returncode != 0, seconds, lines)


def _read(process: "subprocess.Popen[str]", coming: "queue.SimpleQueue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        coming.put(line)
    coming.put("")


def _lines_until_due(
    coming: "queue.SimpleQueue[str]", began: float, moments: list[Moment]
) -> Iterator[dict[str, Any]]:
    """Yield lines until a moment has come, or there are no more."""
    seen: Counter[str] = Counter()
    due = began + min(
        [moment.delay_seconds for moment in moments if moment.event == "start"],
        default=_LONGEST_LIFE_SECONDS,
    )
    while True:
        try:
            line = coming.get(timeout=max(due - time.monotonic(), 0))
        except queue.Empty:
            return
        if not line:
            coming.put("")  # for who drains it
            return
        found = json.loads(line)
        yield found
        names = [found.get("event"), f"{found.get('event')} {found.get('epoch')}"]
        seen.update(names)
        for moment in moments:
            if moment.event in names and seen[moment.event] == moment.nth:
                due = min(due, time.monotonic() + moment.delay_seconds)


def draw_moments(rng: random.Random, whole_seconds: float) -> Iterator[Moment]:
    """Yield moments without end: each twenty cover a start's whole life, in random order."""

    def soon() -> float:
        return rng.uniform(0, 0.3)

    while True:
        drawn = [Moment("start", 1, rng.uniform(0, whole_seconds)) for _ in range(6)]
        drawn += [Moment("machine", 1, rng.uniform(0, 0.1)) for _ in range(2)]
        drawn += [Moment("slices", 1, soon()), Moment("plan", 1, soon()), Moment("plan", 1, 1)]
        drawn += [Moment("epoch", rng.randint(1, 8), soon()) for _ in range(5)]
        drawn += [Moment("checkpoint", rng.randint(1, 3), soon()) for _ in range(4)]
        rng.shuffle(drawn)
        signals = (Signals.SIGKILL, Signals.SIGKILL, Signals.SIGTERM)
        yield from (moment._replace(signal=rng.choice(signals)) for moment in drawn)
