"""Submits a request by boto3."""

from typing import Any

from mrigan.errors import MriganError
from mrigan.sagemaker.aws import AWS_ERRORS, Aws, Request, code_of, explain


def send(aws: Aws, request: Request) -> str:
    """Submit and return the job's name.

    Raises:
        SettingsError: No credentials or no region.
        MriganError: AWS refuses, with what to do.
    """
    name = str(request["TrainingJobName"])
    attempts: list[object] = []
    try:
        client = aws.client("sagemaker")
        client.meta.events.register("before-send.sagemaker.CreateTrainingJob", _note(attempts))
        client.create_training_job(**request)
    except AWS_ERRORS as error:
        # An answer was lost on the way and boto3 asked again: the job that is there is this one.
        if code_of(error) == "ResourceInUse" and len(attempts) > 1:
            return name
        raise refused(error, request) from error
    return name


def refused(error: Exception, request: Request) -> MriganError:
    """Say what AWS has against a request; a quota by the name that its console has for it."""
    resources = request["ResourceConfig"]
    use = "training job usage"
    if request.get("EnableManagedSpotTraining"):
        use = "spot training job usage"
    elif "KeepAlivePeriodInSeconds" in resources:
        use = "training warm pool usage"
    return explain(error, "submit the job", quota=f"{resources['InstanceType']} for {use}")


def _note(attempts: list[object]) -> Any:  # noqa: ANN401  # botocore's handlers take what comes
    def note(request: object, **_: object) -> None:
        attempts.append(request)

    return note
