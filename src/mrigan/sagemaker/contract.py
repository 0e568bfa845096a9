"""The names that the request of a training job and the job itself must agree on."""

from pathlib import Path

ROOT = Path("/opt/ml")  # of the files that the platform and a container share
CHANNEL = "training"  # the input that holds the slices
CHECKPOINTS = ROOT / "checkpoints"  # kept as an S3 prefix while the job runs
# Below OUTPUT_URI: what the platform itself uploads, archives of each job and a spot job's copies.
PLATFORM_FOLDER = "sagemaker"
METRIC_PREFIX = "train:"
