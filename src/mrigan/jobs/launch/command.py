"""``mrigan launch``: submits the job to SageMaker, follows it, ends by what became of it.

The job needs no one to follow it: Ctrl-C here leaves it running, and says how to come back.
"""

import json
import logging
import secrets
import sys
from datetime import UTC, datetime

from mrigan.errors import SettingsError
from mrigan.jobs.build import storage_options
from mrigan.jobs.checklist import Check, go_through
from mrigan.jobs.launch.view import open_view
from mrigan.runtime.signals import StopRequest
from mrigan.sagemaker.aws import AWS_ERRORS, Aws, Request, explain
from mrigan.sagemaker.checks import Checks
from mrigan.sagemaker.events import Ended, follow
from mrigan.sagemaker.outcome import outcome_of
from mrigan.sagemaker.request import build_request, make_job_name
from mrigan.sagemaker.rules import image_region
from mrigan.sagemaker.submit import send
from mrigan.sagemaker.submit_by_sdk import send_by_sdk
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings

log = logging.getLogger(__name__)

_INTERRUPTED = {"SIGINT": 130, "SIGTERM": 143}
_MISSING = SettingsError.exit_status


def show_request(settings: Settings, options: LaunchSettings) -> int:
    """Write the request as JSON; nothing is contacted, no credentials are needed."""
    _, request = _prepare(settings, options)
    sys.stdout.write(f"{json.dumps(request, indent=2)}\n")
    return 0


def check(settings: Settings, options: LaunchSettings) -> int:
    """Say what is there and what is missing, a line each; 2 if anything is missing."""
    aws, request = _prepare(settings, options)
    named = Checks(aws, request, storage_options(settings)).each()
    checks = [Check(name, act) for name, act in named]
    found = go_through(checks, settings.log_format, failed="missing", gate="caller")
    return _MISSING if any(found) else 0


def launch(
    settings: Settings, options: LaunchSettings, stop: StopRequest, *, wait: bool = True
) -> int:
    """Submit and, unless not to ``wait``, follow to the end.

    Returns:
        0 completed (or submitted), 10 stopped, the job's own status or 1 failed, 130 detached.

    Raises:
        MriganError: It could not be submitted, or no longer be followed.
    """
    aws, request = _prepare(settings, options)
    name = send_by_sdk(aws, request) if options.sender == "sagemaker" else send(aws, request)
    log.info("submitted", extra={"job": name, "region": aws.region, "output": settings.output_uri})
    if not wait:
        _say_how_to_return(name)
        return 0
    return _follow(aws, name, settings.log_format, stop)


def attach(job_name: str, log_format: str, stop: StopRequest) -> int:
    """Follow a job that is there already; returns as ``launch`` does."""
    return _follow(Aws(), job_name, log_format, stop)


def stop_job(job_name: str) -> int:
    """Ask a job to end: it saves a checkpoint and is charged no further."""
    try:
        Aws().client("sagemaker").stop_training_job(TrainingJobName=job_name)
    except AWS_ERRORS as error:
        raise explain(error, f"stop {job_name}") from error
    log.info("stopping", extra={"job": job_name, "within_seconds": 120})
    return 0


def _prepare(settings: Settings, options: LaunchSettings) -> tuple[Aws, Request]:
    aws = Aws(fallback_region=image_region(options.image))
    name = options.job_name or make_job_name(
        options.base_name, datetime.now(UTC), secrets.token_hex(2)
    )
    return aws, build_request(settings, options, job_name=name, region=aws.region)


def _follow(aws: Aws, name: str, log_format: str, stop: StopRequest) -> int:
    try:
        stop.at_once = True
        if stop:  # it came while the request was on its way
            raise KeyboardInterrupt
        with open_view(log_format) as view:
            for event in follow(aws, name):
                view.show(event)
                if isinstance(event, Ended):
                    ended = event
    except KeyboardInterrupt:
        log.info("detached", extra={"job": name, "keeps_running": True})
        _say_how_to_return(name)
        return _INTERRUPTED.get(stop.signal_name, _INTERRUPTED["SIGINT"])
    return _report(ended)


def _report(ended: Ended) -> int:
    outcome = outcome_of(ended.description)
    facts = {
        "job": ended.description["TrainingJobName"],
        "trained_seconds": outcome.trained_seconds,
        "billed_seconds": outcome.billed_seconds,
    }
    log.info(str(ended.description["TrainingJobStatus"]).lower(), extra=facts)
    if outcome.run_uri:
        folder = f"results/{outcome.run_uri.rstrip('/').rpartition('/')[2]}"
        log.info("fetch_with", extra={"command": f"mrigan fetch {outcome.run_uri} {folder}"})
    if outcome.problem:
        log.error("error", extra={"reason": outcome.problem})
    return outcome.exit_status


def _say_how_to_return(name: str) -> None:
    log.info("attach_with", extra={"command": f"mrigan launch --attach {name}"})
    log.info("stop_with", extra={"command": f"mrigan launch --stop {name}"})
