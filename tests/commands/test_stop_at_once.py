"""A stop is answered at once, whatever the job is doing, and written down."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from mrigan.storage.store import open_store
from processes import follow

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 250  # only a broken promise takes so long

# The command, whose main thread waits in a library after the third step: for a signal, that then
# Python's handler sees, or deaf to signals, as in a compiler.
WAITING = """
import ctypes, signal, sys
from mrigan.__main__ import main
from mrigan.jobs.train.recorder import Recorder

is_deaf, record, steps = sys.argv.pop(1) == "deaf", Recorder.record, []

def waiting(*arguments):
    steps.append(1)
    if len(steps) == 3:
        print("waiting", flush=True)
        if is_deaf:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        for _ in range(2):
            ctypes.CDLL(None).sleep(100_000)
    return record(*arguments)

Recorder.record = waiting
main()
"""


@pytest.fixture
def spawn_waiting(spawn_python, tmp_path):
    def run(kind):
        line = ["train", "--input-uri", "phantom://13", "--image-height", "48", "--device", "cpu"]
        line += ["--image-width", "33", "--batch-size", "4", "--accumulation-steps", "2"]
        return spawn_python("-c", WAITING, kind, *line, "--output-uri", str(tmp_path / "run"))

    return run


def ended(process):
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, out, err


def state_of(uri):
    return json.loads(open_store(uri).get("status.json"))["state"]


def test_the_first_ctrl_c_says_at_once_what_it_does(spawn_train, tmp_path):
    uri = str(tmp_path / "run")
    process = spawn_train(uri, epochs=5000)
    follow(process, " epoch epoch=2 ")
    process.send_signal(signal.SIGINT)
    said = follow(process, " stopping ")
    assert (
        "stopping after this step, with a checkpoint; again: at once, unsaved work is lost" in said
    )
    status, _, err = ended(process)
    assert (status, err) == (143, "")
    assert state_of(uri) == "interrupted"


@pytest.mark.parametrize("kind", ["hearing", "deaf"])
def test_the_second_ends_it_whatever_it_does_and_status_json_says_interrupted(
    spawn_waiting, tmp_path, kind
):
    process = spawn_waiting(kind)
    follow(process, "waiting")
    process.send_signal(signal.SIGINT)
    follow(process, " stopping ")  # said although the main thread does nothing
    process.send_signal(signal.SIGINT)
    follow(process, "stopping at once")
    status, *_ = ended(process)
    assert status == 130
    assert state_of(str(tmp_path / "run")) == "interrupted"


@pytest.mark.parametrize(
    ("at", "phase"),
    [
        (" machine device=", None),
        (" slices used=", "getting ready for the first step"),
        (" plan slices=", "getting ready for the first step"),
    ],
)
def test_a_stop_before_the_first_step_ends_there(spawn_train, tmp_path, at, phase):
    uri = str(tmp_path / "run")
    process = spawn_train(uri, held_at=at, epochs=5000)
    follow(process, at)
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert (status, err) == (143, "")
    assert " stopping signal=SIGTERM " in out
    assert " epoch " not in out
    if phase:
        assert f'interrupted signal=SIGTERM while="{phase}"' in out
        assert state_of(uri) == "interrupted"


def test_a_stop_during_the_imports_is_heard(spawn, tmp_path):
    uri = str(tmp_path / "run")
    process = spawn("train", "--output-uri", uri, "--cache-dir", str(tmp_path / "cache"))
    wait_until_handled(process.pid)
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert (status, err) == (143, "")
    assert "stopping as soon as the program has started" in out
    assert " slices " not in out
    assert not (tmp_path / "run" / "run.json").exists()


def wait_until_handled(pid):
    """Until the process has a handler of SIGTERM: the very first thing it does."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    bit = 1 << (signal.SIGTERM - 1)
    while True:
        with Path(f"/proc/{pid}/status").open() as lines:
            caught = next(line for line in lines if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & bit:
            return
        time.sleep(0.002)


def test_a_listing_that_takes_for_ever_is_left(spawn_train, tmp_path, bucket, s3_server):
    from faulty_s3 import FaultyS3

    proxy = FaultyS3(s3_server)
    asked = []

    def silent(request):
        if "list-type" in request.path:
            asked.append(request)
            return "silent"
        return None

    proxy.fault = silent
    environ = pytest.MonkeyPatch()
    environ.setenv("AWS_ENDPOINT_URL", proxy.url)
    uri = str(tmp_path / "run")
    process = spawn_train(uri, input_uri=f"{bucket}/slices")
    while not asked:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    proxy.fault = lambda _: None
    proxy.refuse()
    environ.undo()
    assert (status, err) == (143, "")
    assert 'while="pulling slices"' in out
    assert state_of(uri) == "interrupted"
