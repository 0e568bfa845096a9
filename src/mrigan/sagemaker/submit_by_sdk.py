"""Submits a request by the sagemaker SDK's ModelTrainer (version 3), an extra of its own.

ModelTrainer names its jobs itself, leaves out what is empty, and would add defaults of its own. So
what it is about to send is compared with the request, and anything but the name that differs stops
it: what ``--dry-run`` shows is what is sent.
"""

import logging
import re
from typing import Any

from mrigan.environment import skip_role_simulation
from mrigan.errors import MriganError, SettingsError
from mrigan.sagemaker.aws import AWS_ERRORS, Aws, Request
from mrigan.sagemaker.submit import refused

_MAKING = "provide-client-params.sagemaker.CreateTrainingJob"
_TIME = re.compile(r"-\d{8}-\d{6}(?=-)")  # of make_job_name; the SDK puts its own behind the rest
_CONFIGURATION = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}


def send_by_sdk(aws: Aws, request: Request) -> str:
    """Submit and return the name that ModelTrainer gave to the job.

    Raises:
        SettingsError: The SDK is not installed, or there are no credentials.
        MriganError: AWS refuses, or the SDK would send something else.
    """
    skip_role_simulation()
    try:
        trainer, inputs = _trainer(aws, request)
        aws.session.events.register(_MAKING, _Comparison(request))
        trainer.train(input_data_config=inputs, wait=False, logs=False)
    except ImportError as error:
        raise SettingsError(
            "--sender sagemaker: the SDK is not installed; pip install 'sagemaker>=3.27,<4', or "
            "use boto3"
        ) from error
    except AWS_ERRORS as error:
        raise refused(error, request) from error
    return str(trainer._latest_training_job.training_job_name)


class _Comparison:
    """Called by botocore with what is about to be sent."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __call__(self, params: Request, **_: object) -> None:
        """Refuse anything else.

        Raises:
            MriganError: Names the arguments that differ.
        """
        names = (params.keys() | self._request.keys()) - {"TrainingJobName"}
        differing = [
            name
            for name in sorted(names)
            if (params.get(name) or None) != (self._request.get(name) or None)
        ]
        if differing:
            raise MriganError(
                f"the sagemaker SDK would send another {', '.join(differing)} than --dry-run "
                "shows; use --sender boto3"
            )


def _trainer(aws: Aws, request: Request) -> tuple[Any, Any]:
    """Say ``request`` in ModelTrainer's words; the second are its channels."""
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.train import ModelTrainer, configs

    logging.getLogger("sagemaker").setLevel(logging.WARNING)
    output, algorithm = request["OutputDataConfig"], request["AlgorithmSpecification"]
    bucket = output["S3OutputPath"].split("/")[2]
    network = _network(request)
    checkpoints = request.get("CheckpointConfig")
    trainer = ModelTrainer(
        sagemaker_session=Session(
            boto_session=aws.session, default_bucket=bucket, sagemaker_config=_CONFIGURATION
        ),
        training_image=algorithm["TrainingImage"],
        training_input_mode=algorithm["TrainingInputMode"],
        role=request["RoleArn"],
        base_job_name=_TIME.sub("", request["TrainingJobName"]),
        hyperparameters=request["HyperParameters"],
        environment=request["Environment"],
        compute=configs.Compute(
            **_snake(request["ResourceConfig"]),
            enable_managed_spot_training=request.get("EnableManagedSpotTraining"),
        ),
        networking=configs.Networking(**network) if network else None,
        stopping_condition=configs.StoppingCondition(**_snake(request["StoppingCondition"])),
        output_data_config=configs.OutputDataConfig(**_snake(output)),
        checkpoint_config=configs.CheckpointConfig(**_snake(checkpoints)) if checkpoints else None,
        tags=[configs.Tag(**_snake(tag)) for tag in request.get("Tags", [])] or None,
    )
    trainer.with_metric_definitions(
        [configs.MetricDefinition(**_snake(each)) for each in algorithm["MetricDefinitions"]]
    )
    if retry := request.get("RetryStrategy"):
        trainer.with_retry_strategy(configs.RetryStrategy(**_snake(retry)))
    inputs = [
        configs.InputData(
            channel_name=channel["ChannelName"],
            data_source=configs.S3DataSource(**_snake(channel["DataSource"]["S3DataSource"])),
        )
        for channel in request.get("InputDataConfig", [])
    ]
    return trainer, inputs or None


def _network(request: Request) -> Request:
    named = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption")
    chosen = {name: request[name] for name in named if name in request}
    return _snake({**request.get("VpcConfig", {}), **chosen})


def _snake(arguments: Request) -> Request:
    """``VolumeSizeInGB`` as ``volume_size_in_gb``, for every key of one level."""
    cut = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
    return {cut.sub("_", name).lower(): value for name, value in arguments.items()}
