"""What a job finds in its container on SageMaker.

    <root>/input/config/{hyperparameters,inputdataconfig,resourceconfig,checkpointconfig}.json
    <root>/input/data/<channel>/    slices, downloaded (File) or read on demand (FastFile)
    <root>/model/, <root>/output/data/    archived and uploaded when the job ends
    <root>/output/failure           why it failed, for the console
    LocalPath of checkpointconfig   restored at a start, and kept as its S3 prefix all along

``<root>`` is ``/opt/ml``, or where ``MRIGAN_ML_ROOT`` moves it. Newer fields may be absent.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import os.path
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrigan.environment import ml_root, training_job_arn
from mrigan.errors import SettingsError
from mrigan.sagemaker.contract import CHANNEL, CHECKPOINTS, ROOT
from mrigan.settings.sources import PlatformDefaults


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One input of the job.

    Attributes:
        name: As the job's request calls it.
        path: Where its files are.
        input_mode: ``File``, ``FastFile`` or ``Pipe``.
        is_sharded: Whether each host has files of its own (``ShardedByS3Key``).
    """

    name: str
    path: Path
    input_mode: str
    is_sharded: bool


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The hosts of the job, each with a container like this one.

    Attributes:
        current_host: This one's name.
        hosts: All names in the order that every host agrees on; never empty.
        network_interface_name: What they reach each other by; it may not exist (SDK local mode).
    """

    current_host: str
    hosts: tuple[str, ...]
    network_interface_name: str

    @property
    def host_rank(self) -> int:
        """This host's number, from 0."""
        return self.hosts.index(self.current_host)


def is_sagemaker() -> bool:
    """Whether the platform started this process; its local mode counts."""
    return bool(training_job_arn()) or _config("resourceconfig").is_file()


def hyperparameters_path() -> Path:
    """The platform's settings file; absent elsewhere."""
    return _config("hyperparameters")


def model_folder() -> Path:
    """What the platform uploads as model.tar.gz."""
    return ml_root() / "model"


def output_data_folder() -> Path:
    """What the platform uploads as output.tar.gz."""
    return ml_root() / "output" / "data"


def failure_path() -> Path:
    """The file whose first 1,024 characters become the job's FailureReason."""
    return ml_root() / "output" / "failure"


def read_cluster() -> Cluster | None:
    """The hosts of the job; None where there is no resourceconfig.json.

    Raises:
        SettingsError: The file is not what the platform writes.
    """
    path = _config("resourceconfig")
    found = _read(path)
    if found is None:
        return None
    current = found.get("current_host")
    hosts = found.get("hosts") or [current]
    if not isinstance(current, str) or not isinstance(hosts, list) or current not in hosts:
        raise SettingsError(f"{path}: current_host is none of hosts; SageMaker names both")
    interface = found.get("network_interface_name") or ""
    return Cluster(current_host=current, hosts=tuple(hosts), network_interface_name=interface)


def read_channels() -> dict[str, Channel]:
    """The job's inputs by name.

    Raises:
        SettingsError: inputdataconfig.json is not what the platform writes.
    """
    path = _config("inputdataconfig")
    channels = {}
    for name, about in (_read(path) or {}).items():
        if not isinstance(about, dict):
            raise SettingsError(f"{path}: channel {name} is no JSON object; SageMaker writes one")
        channels[name] = Channel(
            name=name,
            path=ml_root() / "input" / "data" / name,
            input_mode=about.get("TrainingInputMode") or "File",
            is_sharded=about.get("S3DistributionType") == "ShardedByS3Key",
        )
    return channels


def read_checkpoint_folder() -> Path | None:
    """The folder that the platform keeps in S3 while the job runs; None if it was not asked to.

    Raises:
        SettingsError: checkpointconfig.json is not what the platform writes.
    """
    path = _config("checkpointconfig")
    found = _read(path)
    if found is None:
        return None
    local = found.get("LocalPath") or found.get("local_path") or str(CHECKPOINTS)
    if not isinstance(local, str) or not Path(local).is_absolute():
        raise SettingsError(f"{path}: LocalPath is no absolute path; give the job one")
    folder = Path(os.path.normpath(local))
    if folder.is_relative_to(ROOT):
        return ml_root() / folder.relative_to(ROOT)
    return folder


def platform_defaults() -> PlatformDefaults | None:
    """Where a training job reads and writes unless a setting says otherwise; None elsewhere.

    Raises:
        SettingsError: A file of the platform's is not what it writes.
    """
    if not is_sagemaker():
        return None
    output = read_checkpoint_folder() or ml_root() / "checkpoints"
    values = {"output_uri": str(output)}
    channels = read_channels()
    if problem := _channel_problem(channels):
        return PlatformDefaults(values, {"input_uri": problem})
    if channels:
        values["input_uri"] = str(channels[CHANNEL].path)
    return PlatformDefaults(values, {})


def _channel_problem(channels: dict[str, Channel]) -> str:
    """Why the job's channels can't be the input; "" if they can, or if there are none."""
    otherwise = "or set input_uri to the slices' s3:// prefix"
    if not channels:
        return ""
    channel = channels.get(CHANNEL)
    if channel is None:
        names = ", ".join(sorted(channels))
        return f"no channel is called {CHANNEL} (there are: {names}); rename one, {otherwise}"
    if channel.input_mode not in ("File", "FastFile"):
        mode = channel.input_mode
        return f"channel {CHANNEL} is in {mode} mode; use File or FastFile, {otherwise}"
    cluster = read_cluster()
    if channel.is_sharded and cluster and len(cluster.hosts) > 1:
        return (
            f"channel {CHANNEL} is ShardedByS3Key over {len(cluster.hosts)} hosts, and each has "
            f"to see every slice; use FullyReplicated, {otherwise}"
        )
    return ""


def _config(name: str) -> Path:
    return ml_root() / "input" / "config" / f"{name}.json"


def _read(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in a file of the platform's; None if there is no such file."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path}: can't be read ({reason}); SageMaker writes JSON") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: no JSON object; SageMaker writes one")
    return found
