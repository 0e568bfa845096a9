"""What SageMaker's files say, and the settings that follow from it."""

import json

import pytest

from mrigan.errors import SettingsError
from mrigan.sagemaker import container
from mrigan.settings.sources import load_settings

CONFIG = "input/config"


@pytest.fixture
def ml_root(tmp_path, monkeypatch):
    """An empty tree of the platform's, elsewhere than /opt/ml."""
    root = tmp_path / "ml"
    (root / CONFIG).mkdir(parents=True)
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def says(ml_root):
    """Write one of the platform's files: ``says("resourceconfig", {...})``."""

    def write(name, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (ml_root / CONFIG / f"{name}.json").write_text(text)

    return write


@pytest.fixture
def one_host(says):
    says("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]})


def chosen(**options):
    return load_settings(options, platform=container.platform_defaults())


def refused(**options):
    with pytest.raises(SettingsError) as caught:
        chosen(**options)
    return caught.value.problems


def test_elsewhere_nothing_is_found_and_nothing_decided(ml_root):
    assert not container.is_sagemaker()
    assert container.read_cluster() is None
    assert container.read_channels() == {}
    assert container.read_checkpoint_folder() is None
    assert container.platform_defaults() is None


def test_a_job_is_known_by_its_arn_or_by_its_hosts(ml_root, says, monkeypatch):
    monkeypatch.setenv("TRAINING_JOB_ARN", "arn:aws:sagemaker:eu-west-1:123456789012:job/x")
    assert container.is_sagemaker()
    monkeypatch.delenv("TRAINING_JOB_ARN")
    says("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]})
    assert container.is_sagemaker()


def test_a_cluster_of_today_and_one_of_years_ago(says):
    says(
        "resourceconfig",
        {
            "current_host": "algo-2",
            "current_instance_type": "ml.g5.xlarge",
            "hosts": ["algo-1", "algo-2"],
            "instance_groups": [],
            "network_interface_name": "eth0",
            "topology": None,
        },
    )
    new = container.read_cluster()
    assert (new.current_host, new.hosts, new.host_rank) == ("algo-2", ("algo-1", "algo-2"), 1)
    assert new.network_interface_name == "eth0"
    says("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"]})
    old = container.read_cluster()
    assert (old.hosts, old.network_interface_name) == (("algo-1",), "")


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("resourceconfig", "{", container.read_cluster),
        ("resourceconfig", "[]", container.read_cluster),
        ("resourceconfig", {"current_host": "algo-3", "hosts": ["algo-1"]}, container.read_cluster),
        ("resourceconfig", {}, container.read_cluster),
        ("inputdataconfig", "training", container.read_channels),
        ("inputdataconfig", {"training": "File"}, container.read_channels),
        ("checkpointconfig", {"LocalPath": "checkpoints"}, container.read_checkpoint_folder),
        ("checkpointconfig", {"LocalPath": 7}, container.read_checkpoint_folder),
    ],
)
def test_a_broken_file_is_named_in_one_line(says, name, content, read):
    says(name, content)
    with pytest.raises(SettingsError, match=rf"^/[^\n]*{name}\.json: [^\n]+$"):
        read()


@pytest.mark.parametrize(
    ("content", "below_root"),
    [
        ({"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/checkpoints"}, "checkpoints"),
        ({"LocalPath": "/opt/ml/checkpoints/../kept/"}, "kept"),
        ({"local_path": "/opt/ml/other"}, "other"),
        ({"S3Uri": "s3://b/c"}, "checkpoints"),
    ],
)
def test_the_checkpoint_folder_moves_with_the_root(ml_root, says, content, below_root):
    says("checkpointconfig", content)
    assert container.read_checkpoint_folder() == ml_root / below_root


def test_a_checkpoint_folder_outside_of_the_root_stays_where_it_is(says, tmp_path):
    says("checkpointconfig", {"LocalPath": str(tmp_path / "elsewhere")})
    assert container.read_checkpoint_folder() == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    "about", [{"TrainingInputMode": "File"}, {"TrainingInputMode": "FastFile"}, {}]
)
def test_a_job_reads_its_channel_and_writes_where_checkpoints_are_kept(
    ml_root, says, one_host, about
):
    says("inputdataconfig", {"training": about, "notes": {"TrainingInputMode": "Pipe"}})
    assert chosen().input_uri == str(ml_root / "input/data/training")
    assert chosen().output_uri == str(ml_root / "checkpoints")
    says("checkpointconfig", {"LocalPath": "/opt/ml/state"})
    assert chosen().output_uri == str(ml_root / "state")


def test_what_a_user_says_wins_over_the_platform(says, one_host, tmp_path, monkeypatch):
    says("inputdataconfig", {"training": {}})
    says("checkpointconfig", {"LocalPath": "/opt/ml/state"})
    (tmp_path / ".env").write_text("MRIGAN_INPUT_URI=s3://bucket/slices\n")
    monkeypatch.setenv("MRIGAN_OUTPUT_URI", "s3://bucket/run")
    assert (chosen().input_uri, chosen().output_uri) == ("s3://bucket/slices", "s3://bucket/run")


def test_without_a_channel_phantoms_do(says, one_host):
    assert chosen().input_uri == "phantom://512"
    says("inputdataconfig", {})
    assert chosen().input_uri == "phantom://512"


BAD_CHANNELS = {
    "no channel is called training (there are: images, train)": {"train": {}, "images": {}},
    "channel training is in Pipe mode": {"training": {"TrainingInputMode": "Pipe"}},
    "channel training is ShardedByS3Key over 2 hosts": {
        "training": {"S3DistributionType": "ShardedByS3Key"}
    },
}


@pytest.mark.parametrize("said", BAD_CHANNELS)
def test_a_channel_that_can_not_be_the_input_is_named_with_what_to_do(says, said):
    says("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
    says("inputdataconfig", BAD_CHANNELS[said])
    first, second = refused(epochs="none")
    assert first.startswith(said)
    assert "set input_uri to the slices' s3:// prefix" in first
    assert second.startswith("--epochs: ")
    assert chosen(input_uri="s3://bucket/slices").input_uri == "s3://bucket/slices"


def test_shards_of_one_host_are_everything(ml_root, says, one_host):
    says("inputdataconfig", {"training": {"S3DistributionType": "ShardedByS3Key"}})
    assert chosen().input_uri == str(ml_root / "input/data/training")
