"""Submits mrigan as a spot training job with version 2 of the sagemaker SDK; copy it and edit.

    pip install 'sagemaker>=2.257,<3'
    export MRIGAN_IMAGE=111122223333.dkr.ecr.eu-central-1.amazonaws.com/mrigan:0.1.0
    export MRIGAN_ROLE=arn:aws:iam::111122223333:role/mrigan
    export MRIGAN_INPUT_URI=s3://bucket/slices MRIGAN_OUTPUT_URI=s3://bucket/runs/first
    python estimator_v2.py

The run is its output URI: the same URI again goes on from the last checkpoint there.
"""

from os import environ

from sagemaker.estimator import Estimator
from sagemaker.session import Session

RUN = environ["MRIGAN_OUTPUT_URI"].rstrip("/")
METRICS = (
    *("epoch", "images_seen", "d_loss", "g_loss", "real_loss", "fake_loss", "real_score"),
    *("fake_score", "real_sign", "r1", "r2", "augment_p", "swd", "swd_floor"),
    *("kid", "kid_floor", "coverage"),
    *("images_per_second", "peak_allocated_mib", "peak_reserved_mib", "peak_rss_mib"),
    "nonfinite",
)
NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
# Without this the SDK reports each call, with your account's number, to a bucket of its makers'.
NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}

estimator = Estimator(
    image_uri=environ["MRIGAN_IMAGE"],
    role=environ["MRIGAN_ROLE"],
    base_job_name="mrigan",
    instance_type="ml.g5.xlarge",
    instance_count=1,
    volume_size=50,  # GB
    use_spot_instances=True,
    max_run=24 * 3600,
    max_wait=36 * 3600,  # waiting for spot capacity included
    # The job sees no network and no credentials; SageMaker moves the files.
    enable_network_isolation=True,
    output_path=f"{RUN}/sagemaker",
    checkpoint_s3_uri=RUN,  # the run itself: checkpoints, samples, plots, generator
    checkpoint_local_path="/opt/ml/checkpoints",
    hyperparameters={"epochs": 500, "batch_size": 32, "accumulation_steps": 8},
    metric_definitions=[
        {"Name": f"train:{name}", "Regex": rf'[\s"]{name}(?:=|":\s?){NUMBER}'} for name in METRICS
    ],
    disable_profiler=True,
    debugger_hook_config=False,
    sagemaker_session=Session(sagemaker_config=NO_TELEMETRY),
)
# The slash keeps s3://bucket/slices-old out. A wait here would take a stopped job for a good one.
slices = environ["MRIGAN_INPUT_URI"].rstrip("/") + "/"
estimator.fit({"training": slices}, wait=False)
print(f"mrigan launch --attach {estimator.latest_training_job.name}")
