"""Several hosts as SageMaker lays them out, as processes on this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mrigan.storage.store import open_store
from processes import follow
from tiny import newest

HOSTS = ("127.0.0.1", "127.0.0.2")
PORT = 7777  # where they meet
DEADLINE_SECONDS = 500  # against hangs; hosts wait 600 s for each other

# These start several processes that each load torch.
pytestmark = pytest.mark.timeout(900)
HYPERPARAMETERS = {
    "input_uri": "phantom://13",
    "image_height": "48",
    "image_width": "33",
    "batch_size": "4",
    "accumulation_steps": "2",
    "epochs": "3",
    "checkpoint_every": "1",
    "device": "cpu",
}


@pytest.fixture
def pair(tmp_path):
    """Lay out a host's tree each; return their roots."""
    roots = []
    for host in HOSTS:
        config = tmp_path / host / "input" / "config"
        config.mkdir(parents=True)
        cluster = {"current_host": host, "hosts": HOSTS, "network_interface_name": "ethwe"}
        (config / "resourceconfig.json").write_text(json.dumps(cluster))
        roots.append(tmp_path / host)
        configure(roots[-1])
    return roots


def configure(root, **changed):
    own = HYPERPARAMETERS | {"cache_dir": str(root / "cache")} | changed
    (root / "input/config/hyperparameters.json").write_text(json.dumps(own))


@pytest.fixture
def start():
    started = []

    def begin(root):
        started.append(
            subprocess.Popen(
                [Path(sys.executable).with_name("mrigan"), "train"],
                env=os.environ | {"MRIGAN_ML_ROOT": str(root), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ends(processes):
    said = [process.communicate(timeout=DEADLINE_SECONDS) for process in processes]
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]


@pytest.mark.slow
def test_a_step_that_two_hosts_can_not_share_is_refused_before_they_meet(pair, start):
    configure(pair[1], accumulation_steps="3")
    ((status, out, err),) = ends([start(pair[1])])
    assert status == 2
    assert [line.split()[1] for line in out.splitlines()] == ["starting"]
    assert re.fullmatch(r"mrigan: .*ACCUMULATION_STEPS: 3 .*2 ranks; use 2 or 4, .*\n", err)
    assert (pair[1] / "output/failure").read_text().startswith("SettingsError: ")


@contextmanager
def calling(process):
    """Wait until the first host, ``process``, listens for the others."""
    while True:
        try:
            with socket.create_connection((HOSTS[0], PORT)):
                break
        except ConnectionRefusedError:
            assert process.poll() is None
            time.sleep(0.05)
    yield


@contextmanager
def called_by(process):
    """Be a first host that says nothing; wait until ``process`` calls."""
    with socket.create_server((HOSTS[0], PORT)) as server:
        server.settimeout(DEADLINE_SECONDS)
        connection, _ = server.accept()
        with connection:
            assert process.poll() is None
            yield


@pytest.mark.slow
@pytest.mark.parametrize("host", [0, 1])
def test_a_host_that_waits_for_the_other_stops_at_once(pair, start, host):
    process = start(pair[host])
    follow(process, " ranks here=1 machines=2 ")
    with (called_by if host else calling)(process):  # it is waiting inside torch now
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0


@pytest.mark.slow
def test_a_stop_of_one_host_stops_both_and_one_host_goes_on(pair, start, content):
    for root in pair:
        configure(root, epochs="300")
    processes = [start(root) for root in pair]
    while " epoch epoch=2 " not in processes[0].stdout.readline():
        assert processes[0].poll() is None
    processes[1].send_signal(signal.SIGTERM)
    (first, out, err), (second, *_) = ends(processes)
    assert (first, second, err) == (0, 0, "")
    saved = newest(open_store(str(pair[0] / "checkpoints")))
    assert f"images_seen={saved.images_seen} " in out

    alone = {"current_host": HOSTS[0], "hosts": HOSTS[:1]}
    (pair[0] / "input/config/resourceconfig.json").write_text(json.dumps(alone))
    configure(pair[0], epochs=str(saved.images_seen // 13 + 2))
    ((status, out, err),) = ends([start(pair[0])])
    assert (status, err) == (0, "")
    assert f"resumed images_seen={saved.images_seen} " in out
    assert "fetched=0 " in out
    rows = content(str(pair[0] / "checkpoints"))["metrics.jsonl"].splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(1, saved.images_seen // 13 + 3))


@pytest.mark.slow
def test_hosts_that_fail_together_say_why_once_each(pair, start):
    for root in pair:
        configure(root, input_uri=str(root / "nothing"))
    found = ends([start(root) for root in pair])
    assert [status for status, _, _ in found] == [5, 5], found
    assert "there is no such folder" in found[0][2]
    assert all(len(err.splitlines()) == 1 for _, _, err in found)
    assert (pair[0] / "output/failure").read_text().startswith("StorageError: ")


# As the entrypoint does it where a machine has two GPUs.
TWO_RANKS = """
import sys
from mrigan.runtime.signals import StopRequest
from mrigan.runtime.torchrun import ONE_MACHINE, run_ranks
stop = StopRequest()
stop.install()
print(run_ranks(sys.argv[1:], 2, ONE_MACHINE, stop, interrupted=143), stop.signal_name)
"""


@pytest.fixture
def two_ranks(spawn_python, tmp_path):
    options = HYPERPARAMETERS | {"epochs": "500", "output_uri": str(tmp_path / "run")}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    process = spawn_python("-c", TWO_RANKS, "train", *given)
    while " epoch epoch=2 " not in process.stdout.readline():
        assert process.poll() is None
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_ranks_of_one_machine_hear_the_signal_that_their_parent_gets(two_ranks, number):
    two_ranks.send_signal(number)
    ((status, out, err),) = ends([two_ranks])
    assert (status, err) == (0, "")
    assert out.endswith(f"End(status=143, is_echo=False) {number.name}\n")
    assert out.count("interrupted signal=") == 1


@pytest.mark.slow
def test_ranks_do_not_outlive_the_process_that_started_them(two_ranks, tmp_path):
    two_ranks.kill()
    # Its pipes are the ranks', too: both have closed them.
    two_ranks.communicate(timeout=DEADLINE_SECONDS)
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["state"] == "running"  # nobody had the time to say otherwise


@pytest.mark.slow
def test_a_rank_of_one_machine_that_is_killed_is_named(two_ranks):
    ranks = subprocess.run(
        ["pgrep", "-P", str(two_ranks.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(ranks) == 2
    os.kill(int(ranks[1]), signal.SIGKILL)
    ((status, _, err),) = ends([two_ranks])
    assert status == 1
    assert "MriganError: a rank was killed by SIGKILL; SIGKILL often means that host memory" in err
