"""Commands as users run them, in this process where a new one would only cost time."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest

from mrigan.cli.run import run as run_command
from mrigan.storage.store import open_store

# 13 slices in windows of 8 and 5 images: every window, batch and side is ragged.
TINY = {
    "input_uri": "phantom://13",
    "image_height": 48,
    "image_width": 33,
    "batch_size": 4,
    "accumulation_steps": 2,
    "epochs": 3,
    "checkpoint_every": 1,
    "trackers": "none",  # tests/commands/test_trackers.py
    "device": "cpu",
}
S3_NAMES = {
    "AWS_ACCESS_KEY_ID": "testing-key",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_REGION": "us-east-1",
}


# The command, held up where it says a text, so that no run is over before its signal comes. What
# another thread than the trainer's says is held up, too: then the trainer waits to say more.
HELD = """
import sys, time
from mrigan.__main__ import main
from mrigan.runtime.signals import StopRequest

heard, note, out, text = [], StopRequest._note, sys.stdout, sys.argv.pop(1)

def hear(request, *arguments):
    heard.append(arguments)
    note(request, *arguments)

class Out:
    def __getattr__(self, name):
        return getattr(out, name)
    def write(self, said):
        written = out.write(said)
        if text in said:
            out.flush()
            while not heard:
                time.sleep(0.01)
        return written

StopRequest._note, sys.stdout = hear, Out()
main()
"""


class Ended(NamedTuple):
    """A command that has ended: what a shell would have seen of it."""

    status: int
    out: str
    err: str


class Run(NamedTuple):
    """A training run that is complete; tests copy it before they change it."""

    uri: str
    ended: Ended


def command_line(command, *arguments, **settings):
    options = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
    return [command, *arguments, *(str(part) for option in options.items() for part in option)]


class Watched(io.StringIO):
    """Does something in the very moment that a text is written."""

    def __init__(self, text, action):
        super().__init__()
        self._text, self._action = text, action

    def write(self, text):
        written = super().write(text)
        if self._text and self._text in text:
            self._action()
        return written


def here(*arguments, at="", do=None, out=None):
    """Run a command in this process, left as it was; call ``do`` once it says ``at``."""
    out, err = out or Watched(at, do), io.StringIO()
    with _process_kept(), redirect_stdout(out), redirect_stderr(err):
        try:
            status = run_command([str(argument) for argument in arguments])
        except SystemExit as left:  # argparse's way
            status = left.code
    said = out.getvalue() if isinstance(out, io.StringIO) else ""
    return Ended(status, said, err.getvalue())


@contextmanager
def _process_kept():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    loggers = [logging.getLogger(name) for name in ("mrigan", "py.warnings")]
    before = [(each.handlers[:], each.propagate, each.level) for each in loggers]
    environ = dict(os.environ)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for each, (kept, propagate, level) in zip(loggers, before, strict=True):
            each.handlers[:], each.propagate = kept, propagate
            each.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environ)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Decoded slices, shared by all runs: none of these tests is about the pack."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path, cache_dir):
    """No .env of this machine's, no runs or caches left on it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="session")
def mrigan():
    """Run any command line here: ``mrigan("doctor", "--epochs", 3)``."""
    return here


@pytest.fixture(scope="session")
def train(cache_dir):
    """Train the tiny run at a URI here, with some settings changed."""

    def run(output_uri, *, at="", do=None, out=None, **settings):
        chosen = TINY | {"output_uri": output_uri, "cache_dir": cache_dir / "mrigan"} | settings
        return here(*command_line("train", **chosen), at=at, do=do, out=out)

    return run


@pytest.fixture(scope="session")
def finished_in_folder(train, tmp_path_factory):
    """The tiny run, uninterrupted: what interrupted ones are compared with."""
    uri = str(tmp_path_factory.mktemp("finished") / "run")
    return Run(uri, train(uri))


@pytest.fixture(scope="session")
def finished_in_bucket(train, s3_server):
    """The same in a bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    urlopen(Request(f"{s3_server}/{name}", method="PUT")).close()
    uri = f"s3://{name}/runs/tiny"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in {**S3_NAMES, "AWS_ENDPOINT_URL": s3_server}.items():
            patch.setenv(variable, value)
        return Run(uri, train(uri))


@pytest.fixture(params=["folder", "bucket"])
def finished(request):
    """The tiny run in either kind of store, to look at and not to change."""
    if request.param == "bucket":
        request.getfixturevalue("aws_environ")
    return request.getfixturevalue(f"finished_in_{request.param}")


@pytest.fixture
def tinier():
    """Settings that make an epoch one step, for runs that are compared with nothing."""
    return {"input_uri": "phantom://4", "image_height": 32, "image_width": 32}


@pytest.fixture
def content():
    """Every object of the run at a URI: key -> bytes; who wrote it last is no part of it."""

    def read(uri):
        store = open_store(uri)
        keys = [info.key for info in store.list() if not info.key.startswith("lease/")]
        return {key: store.get(key) for key in keys}

    return read


@pytest.fixture(scope="session")
def assert_same_run():
    """Compare two runs' contents: the weights to the bit, the pictures, the losses."""

    def compare(ours, theirs):
        # Who wrote a run last is no part of it; event files are named by the time.
        ours, theirs = (
            {
                key: data
                for key, data in each.items()
                if not key.startswith(("lease/", "tensorboard/"))
            }
            for each in (ours, theirs)
        )
        assert ours.keys() == theirs.keys()
        for key in theirs:
            if key.endswith((".safetensors", ".pt")) or key.startswith("samples/"):
                assert sha256(ours[key]).digest() == sha256(theirs[key]).digest(), key
        assert _without_clocks(ours) == _without_clocks(theirs)

    return compare


def _without_clocks(objects):
    clocks = {"seconds", "images_per_second", "peak_rss_mib", "score_seconds"}
    rows = [json.loads(line) for line in objects["metrics.jsonl"].splitlines()]
    return [{name: row[name] for name in row.keys() - clocks} for row in rows]


@pytest.fixture
def spawn(start_process):
    """Start a command as a real process; it is killed if the test leaves it running."""
    return lambda *arguments: start_process(Path(sys.executable).with_name("mrigan"), *arguments)


@pytest.fixture
def spawn_python(start_process):
    """The same of Python itself."""
    return lambda *arguments: start_process(sys.executable, *arguments)


@pytest.fixture
def start_process():
    """Start any command; it is killed if the test leaves it running."""
    started = []

    def run(*command):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def spawn_train(spawn, spawn_python, cache_dir):
    """Start a real process that trains the tiny run, with some settings changed.

    Once it has said ``held_at``, it says and does nothing more until it hears SIGTERM.
    """

    def run(output_uri, *, held_at="", **settings):
        chosen = TINY | {"output_uri": output_uri, "cache_dir": cache_dir / "mrigan"} | settings
        line = command_line("train", **chosen)
        return spawn_python("-c", HELD, held_at, *line) if held_at else spawn(*line)

    return run
