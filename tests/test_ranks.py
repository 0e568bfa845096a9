"""Ranks as real processes that talk over sockets, compared with one rank."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rank_work as work
from mrigan.data.exchange import Assignment
from mrigan.environment import process_rank
from mrigan.errors import PeerLostError, SettingsError
from mrigan.runtime.ends import End, decisive
from mrigan.runtime.hosts import choose_interface, spare_shared_memory, wait_for_names
from mrigan.runtime.ranks import ALONE
from mrigan.training.checkpoint import decode
from mrigan.training.plan import check_groups_divide

WORK = Path(work.__file__)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def started_ranks(count, *arguments):
    """One process a rank, each the first of its machine; none outlives the block."""
    port = free_port()
    processes = []
    try:
        for rank in range(count):
            place = {
                "RANK": str(rank),
                "LOCAL_RANK": "0",
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            command = [sys.executable, WORK, *arguments]
            environment = os.environ | place
            processes.append(
                subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            )
        yield processes
    finally:
        for process in processes:
            with process:  # closes its pipe and waits
                process.kill()


def wait_for(process, line):
    """Read what ``process`` says until it says ``line``; torch may have said things before."""
    said = ""
    for each in process.stderr:
        if each == line:
            return
        said += each
    raise AssertionError(f"{line!r} was never said: {said}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One rank's results, and the checkpoint that one scenario starts from."""
    start = work.steps(ALONE, count=1, batch_size=2, accumulation_steps=4)["state"]
    folder = tmp_path_factory.mktemp("alone")
    return start, work.scenarios(ALONE, start, folder)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(count, marks=[pytest.mark.slow, pytest.mark.timeout(1500)]) for count in (2, 4)
    ],
)
def ranks(request, tmp_path_factory, alone):
    """What each of several ranks says, by what they were asked."""
    folder = tmp_path_factory.mktemp(f"ranks-{request.param}")
    (folder / "slices").mkdir()
    random = np.random.default_rng(0)
    for number in range(9):
        pixels = random.integers(0, 256, (32, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "slices" / f"{number}.png")
    (folder / "slices" / "notes.txt").write_text("no slice")
    Image.fromarray(pixels.T).save(folder / "late.png")
    (folder / "start.pt").write_bytes(alone[0])
    with started_ranks(request.param, folder) as processes:
        said = [process.communicate()[1] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join(said)
    return [
        (json.loads((folder / f"{rank}.json").read_text()), torch.load(folder / f"{rank}.pt"))
        for rank in range(request.param)
    ]


@pytest.mark.parametrize(
    "scenario", ["whole", "resumed", "full", "synchronised", "skipped", "rolled back", "r3 full"]
)
def test_ranks_have_the_gradients_and_the_numbers_of_one(alone, ranks, scenario):
    one = alone[1][scenario]
    for _, results in ranks:
        ours = results[scenario]
        error = (ours["first"] - one["first"]).norm() / one["first"].norm()
        assert error < 1e-5
        assert len(ours["sums"]) == len(one["sums"])
        for said, expected in zip(ours["sums"], one["sums"], strict=True):
            assert said == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_ranks_have_the_gradients_of_r3(alone, ranks):
    one = alone[1]["r3"]
    for _, results in ranks:
        ours = results["r3"]
        for gradient, expected in zip(ours["gradients"], one["gradients"], strict=True):
            assert expected.any()
            # By the size of each: some are sums that nearly cancel. Networks are float64, warps
            # fp32, whose exponentials round differently at the end of a vector.
            assert (gradient - expected).norm() <= 1e-6 * expected.norm()
        assert ours["sums"][0] == pytest.approx(one["sums"][0], rel=1e-6)
        assert ours["augment_p"] == one["augment_p"] != 0.5


def test_ranks_agree_on_what_to_skip_and_where_to_roll_back_to(alone, ranks):
    # What became of a step is read when an epoch of 11 ends.
    lost = [["taken", 8], ["skipped", 11], ["taken", 19], ["rolled back", 0], ["taken", 8]]
    for results in [alone[1], *(results for _, results in ranks)]:
        assert results["rolled back"]["verdicts"] == lost
        assert results["skipped"]["verdicts"] == [["taken", 8], ["skipped", 11], ["taken", 19]]


@pytest.mark.parametrize("scenario", ["whole", "synchronised"])
def test_ranks_leave_the_running_statistics_of_one(alone, ranks, scenario):
    one = decode(alone[1][scenario]["first_state"])["G"]
    names = [name for name in one if "running" in name or "tracked" in name]
    assert len(names) == 12
    for _, results in ranks:
        ours = decode(results[scenario]["first_state"])["G"]
        for name in names:
            torch.testing.assert_close(ours[name], one[name], rtol=1e-4, atol=1e-6)


def test_all_ranks_begin_with_the_weights_that_the_first_has_found(alone, ranks):
    for rank, results in enumerate([alone[1], *(results for _, results in ranks)]):
        begun = results["begun"]
        assert begun["weight"].norm() > 1
        assert begun["of rank 0"] == ([7, None, 3] if rank < 2 else [None] * 3)
        assert begun["micro_batch"] == 4  # what was asked for, not what was saved


def test_all_ranks_hold_the_same_bits(ranks):
    first, *others = [results for _, results in ranks]
    for other in others:
        for scenario, results in first.items():
            assert other[scenario]["state"] == results["state"], scenario


def test_all_ranks_cut_smaller_when_memory_runs_out_on_one(ranks):
    assert [results["full"]["micro_batch"] for _, results in ranks] == [2] * len(ranks)
    # The share of one of four ranks is as small as what fits.
    fits = 2 if len(ranks) == 2 else 8
    assert [results["r3 full"]["micro_batch"] for _, results in ranks] == [fits] * len(ranks)


def test_ranks_hear_of_a_failure_and_of_a_stop(ranks):
    for rank, (said, _) in enumerate(ranks):
        first = ["no output", 1] if rank == 0 else ["peer", 1]
        second = ["a follower's own", 5] if rank == 1 else ["peer", 5]
        assert said["told"]["heard"] == [first, second]
        assert said["told"]["stops"] == [True, False]
        assert not said["told"]["ended too early"]
        assert said["told"]["from_main"]


def test_ranks_that_wait_for_a_reading_one_end_with_it_and_it_with_them(ranks):
    stopped = ["stopped while pulling slices", 0, []]
    for rank, (said, _) in enumerate(ranks):
        failed = ["a follower's own", 5] if rank == 1 else ["peer", 5]
        assert said["lockstep"] == [[*failed, [[3, 5]]], stopped]


def test_machines_share_the_reading_and_each_has_all(ranks):
    keys = sorted([f"{number}.png" for number in range(9)] + ["notes.txt"])
    cold = [said["cold"] for said, _ in ranks]
    assert sorted(key for each in cold for key in each["reads"]) == keys
    assert all(len(each["reads"]) >= 10 // len(ranks) for each in cold)
    for stage, slices in (("cold", 9), ("half warm", 10), ("warm", 10)):
        (pixels,) = {said[stage]["pixels"] for said, _ in ranks}
        assert len(pixels) == slices * 32 * 40 * 2
        assert len({said[stage]["fingerprint"] for said, _ in ranks}) == 1


def test_what_one_machine_has_is_not_read_again(ranks):
    reads = [key for said, _ in ranks for key in said["half warm"]["reads"]]
    assert reads == ["late.png"]
    assert [said["half warm"]["fetched"] for said, _ in ranks] == [1] * len(ranks)
    assert [said["warm"]["reads"] for said, _ in ranks] == [[]] * len(ranks)


def test_a_rank_that_is_killed_ends_the_others_in_one_line(tmp_path):
    with started_ranks(2, tmp_path / "absent") as (first, second):
        for process in (first, second):
            wait_for(process, "met\n")
        second.kill()
        _, said = first.communicate()
    assert first.returncode == 1
    last = said.splitlines()[-1]
    assert re.search(r"PeerLostError: another rank of this run is gone .*same command again", last)


def test_each_machine_is_sent_what_it_lacks():
    assignment = Assignment([[0, 1, 2, 5], [1, 2, 3], [1]], own=0)
    assert [assignment.sent_by(machine) for machine in range(3)] == [[1, 3], [0, 5], [2]]
    assert Assignment([[0, 1, 2]], own=0).sent_by(0) == []


@pytest.mark.parametrize(
    ("accumulation_steps", "ranks", "nearest"), [(8, 3, "6 or 9"), (1, 2, "use 2"), (5, 8, "use 8")]
)
def test_steps_that_can_not_be_shared_name_the_nearest_that_can(accumulation_steps, ranks, nearest):
    with pytest.raises(SettingsError, match=nearest):
        check_groups_divide(accumulation_steps, ranks)


def test_no_place_without_torchrun_and_nonsense_is_refused(monkeypatch):
    assert process_rank() is None
    for name, value in {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert process_rank() is None  # some schedulers set these, without an address to meet at
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(SettingsError, match=r"RANK=2.*torchrun"):
        process_rank()


def test_a_host_without_an_address_is_named():
    wait_for_names(("localhost",), should_stop=lambda: False)
    with pytest.raises(PeerLostError, match=r"algo-2\.invalid .*resourceconfig"):
        wait_for_names(("localhost", "algo-2.invalid"), should_stop=lambda: False, seconds=0.1)
    wait_for_names(("algo-2.invalid",), should_stop=lambda: True)


def test_an_interface_that_does_not_exist_is_not_used(monkeypatch):
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    choose_interface("ethwe")
    assert "NCCL_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "theirs")
    choose_interface("lo")
    assert os.environ.pop("NCCL_SOCKET_IFNAME") == "lo"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "theirs"


def test_nccl_is_kept_out_of_a_small_shared_memory(monkeypatch, tmp_path):
    monkeypatch.delenv("NCCL_SHM_DISABLE", raising=False)
    spare_shared_memory(tmp_path)  # a disk is large
    assert "NCCL_SHM_DISABLE" not in os.environ
    facts = os.statvfs(tmp_path)
    small = os.statvfs_result((4096, 4096, 16384, *tuple(facts)[3:]))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    spare_shared_memory()
    assert os.environ.pop("NCCL_SHM_DISABLE") == "1"


def test_the_end_of_a_run_is_the_first_failure_that_is_no_echo():
    assert decisive([]) is None
    assert decisive([End(0, False), End(0, False)]) == End(0, False)
    assert decisive([End(1, True), End(5, False), End(1, True)]) == End(5, False)
    assert decisive([End(0, False), End(1, True)]) == End(1, True)


@pytest.mark.parametrize(("is_rank", "expected"), [(True, ""), (False, "torn down\n")])
def test_a_rank_leaves_without_tearing_down_what_other_threads_use(tmp_path, is_rank, expected):
    """Gloo's threads would end the process by SIGABRT, whatever its status."""
    script = (
        "import atexit, sys\n"
        "from mrigan.__main__ import main\n"
        "atexit.register(print, 'torn down')\n"
        "sys.argv = ['mrigan', 'phantom', '--wrong']\n"
        "main()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_ERROR_FILE"}
    if is_rank:
        environment["TORCHELASTIC_ERROR_FILE"] = str(tmp_path / "error.json")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, expected)
