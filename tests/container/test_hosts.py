"""One training job on two hosts: two containers on a network, each with its own /opt/ml."""

import json
import time
import uuid

import pytest
from safetensors.numpy import load

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

HOSTS = ("algo-1", "algo-2")
LONG = {"epochs": "2000", "sample_every": "2000", "checkpoint_minutes": "0.05"}


@pytest.fixture(scope="module")
def network(run):
    name = f"mrigan-hosts-{uuid.uuid4().hex[:8]}"
    run("docker", "network", "create", name)
    yield name
    run("docker", "network", "rm", name)


@pytest.fixture
def new_pair(network, new_job):
    """Lay out both hosts; each has all slices, as with FullyReplicated."""

    def lay_out(**hyperparameters):
        pair = [new_job(host=host, hosts=HOSTS, network=network) for host in HOSTS]
        for job in pair:
            job.hyperparameters(**hyperparameters)
        return pair

    pairs = []
    yield lambda **given: pairs.append(lay_out(**given)) or pairs[-1]
    for job in (each for pair in pairs for each in pair):
        job.remove()  # before the network goes


def start(pair):
    pair[1].start()
    time.sleep(3)  # the other host's name is not there yet
    pair[0].start()


def test_two_hosts_train_what_one_would(new_pair, new_job):
    pair = new_pair(epochs="3", checkpoint_every="1")
    start(pair)
    assert [job.wait() for job in pair] == [0, 0], pair[0].logs()
    one = new_job()
    one.hyperparameters(epochs="3", checkpoint_every="1")
    assert one.train().returncode == 0
    for ours, theirs in zip(pair[0].rows(), one.rows(), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("epoch", "images_seen", "d_loss", "g_loss", "real_score", "fake_score"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    ours, theirs = (load(job.files("model")["generator.safetensors"]) for job in (pair[0], one))
    for name, weight in theirs.items():
        assert ours[name] == pytest.approx(weight, rel=1e-3, abs=1e-4), name
    assert pair[1].files("model") == pair[1].files("checkpoints") == {}
    assert "ranks here=1 machines=2 of=2" in pair[0].logs()


def test_a_host_that_dies_ends_the_other_and_the_pair_goes_on(new_pair, run):
    pair = new_pair(**LONG)
    start(pair)
    pair[0].wait_for("checkpoint images_seen=")
    run("docker", "kill", pair[1].name)
    killed = time.monotonic()
    assert pair[0].wait() == 1
    assert time.monotonic() - killed < 90
    failure = (pair[0].root / "output/failure").read_text()
    assert failure.startswith("PeerLostError: another rank of this run is gone (")
    assert "run the same command again" in failure
    kept = json.loads(pair[0].files("checkpoints")["status.json"])
    assert kept["state"] == "failed"
    newest = max(name for name in pair[0].files("checkpoints/checkpoints") if name.endswith("json"))

    again = new_pair(**LONG)
    (again[0].root / "checkpoints").rmdir()
    (pair[0].root / "checkpoints").rename(again[0].root / "checkpoints")
    start(again)
    again[0].wait_for(" epoch epoch=")
    assert f"resumed images_seen={int(newest.removesuffix('.json'))} " in again[0].logs()
    again[1].wait_for("ranks here=1")
    ended = [job.stop() for job in again]  # one after the other: the first stops both
    assert [status for status, _ in ended] == [0, 0], again[0].logs()
    assert json.loads(again[0].files("checkpoints")["status.json"])["state"] == "interrupted"
