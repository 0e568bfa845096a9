"""Submits mrigan as a spot training job with version 3 of the sagemaker SDK; copy it and edit.

    pip install 'sagemaker>=3.27,<4'
    export MRIGAN_IMAGE=111122223333.dkr.ecr.eu-central-1.amazonaws.com/mrigan:0.1.0
    export MRIGAN_ROLE=arn:aws:iam::111122223333:role/mrigan
    export MRIGAN_INPUT_URI=s3://bucket/slices MRIGAN_OUTPUT_URI=s3://bucket/runs/first
    python model_trainer_v3.py

The run is its output URI: the same URI again goes on from the last checkpoint there.
"""

from os import environ

from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training import configs
from sagemaker.train import ModelTrainer

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
# The SDK's own check of the role asks for more rights than the job has use for.
environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")

trainer = ModelTrainer(
    training_image=environ["MRIGAN_IMAGE"],
    role=environ["MRIGAN_ROLE"],
    base_job_name="mrigan",
    compute=configs.Compute(
        instance_type="ml.g5.xlarge",
        instance_count=1,
        volume_size_in_gb=50,
        enable_managed_spot_training=True,
    ),
    stopping_condition=configs.StoppingCondition(
        max_runtime_in_seconds=24 * 3600,
        max_wait_time_in_seconds=36 * 3600,  # waiting for spot capacity included
    ),
    # The job sees no network and no credentials; SageMaker moves the files.
    networking=configs.Networking(enable_network_isolation=True),
    output_data_config=configs.OutputDataConfig(s3_output_path=f"{RUN}/sagemaker"),
    # The run itself: checkpoints, samples, plots, generator.
    checkpoint_config=configs.CheckpointConfig(s3_uri=RUN, local_path="/opt/ml/checkpoints"),
    hyperparameters={"epochs": 500, "batch_size": 32, "accumulation_steps": 8},
    sagemaker_session=Session(sagemaker_config=NO_TELEMETRY),
).with_metric_definitions(
    [
        configs.MetricDefinition(name=f"train:{name}", regex=rf'[\s"]{name}(?:=|":\s?){NUMBER}')
        for name in METRICS
    ]
)
# The slash keeps s3://bucket/slices-old out. A wait here would take a stopped job for a good one.
slices = environ["MRIGAN_INPUT_URI"].rstrip("/") + "/"
training = configs.InputData(channel_name="training", data_source=slices)
trainer.train(input_data_config=[training], wait=False, logs=False)
print(f"mrigan launch --attach {trainer._latest_training_job.training_job_name}")
