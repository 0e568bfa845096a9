"""What a job's end means: an exit status, the reason, what it cost, where its run is."""

import re
from dataclasses import dataclass

from mrigan.sagemaker.aws import Answer
from mrigan.sagemaker.contract import PLATFORM_FOLDER

STOPPED = 10
_FAILED = 1
_EXIT_CODE = re.compile(r"exit code:? *(\d+)", re.IGNORECASE)
_OURS = frozenset({2, 3, 4, 5})
_AGAIN = "the same command again resumes from its checkpoint"
_STOPS = {
    "MaxRuntimeExceeded": f"it ran for as long as --max-run-hours allows; {_AGAIN}",
    "MaxWaitTimeExceeded": f"--max-wait-hours ended, capacity was scarce; {_AGAIN}, without --spot "
    "or with another --instance-type sooner",
}


@dataclass(frozen=True)
class Outcome:
    """How a job has ended.

    Attributes:
        exit_status: 0 completed, 10 stopped; a failed job's own status where it is one of ours.
        problem: One line of why and what to do, "" for a completed job.
        run_uri: Its OUTPUT_URI, "" if the job is not one of ours.
        trained_seconds: From the start of training to its end, on each machine.
        billed_seconds: Of them, for each machine.
    """

    exit_status: int
    problem: str
    run_uri: str
    trained_seconds: int
    billed_seconds: int


def outcome_of(description: Answer) -> Outcome:
    """Read DescribeTrainingJob's answer about a job that has ended."""
    status, problem = _judged(description)
    return Outcome(
        exit_status=status,
        problem=problem,
        run_uri=run_uri(description),
        trained_seconds=int(description.get("TrainingTimeInSeconds", 0)),
        billed_seconds=int(description.get("BillableTimeInSeconds", 0)),
    )


def run_uri(description: Answer) -> str:
    """Where a job writes its run: the OUTPUT_URI that it was launched with."""
    named = str(description.get("HyperParameters", {}).get("output_uri", ""))
    if named:
        return named
    path = str(description.get("OutputDataConfig", {}).get("S3OutputPath", "")).rstrip("/")
    suffix = f"/{PLATFORM_FOLDER}"
    return path.removesuffix(suffix) if path.endswith(suffix) else ""


def _judged(description: Answer) -> tuple[int, str]:
    name, status = description["TrainingJobName"], description["TrainingJobStatus"]
    if status == "Completed":
        return 0, ""
    if status == "Stopped":
        secondary = str(description.get("SecondaryStatus", status))
        why = _STOPS.get(secondary, f"someone stopped it; {_AGAIN}")
        return STOPPED, f"{name} {secondary}: {why}"
    reason = " ".join(str(description.get("FailureReason") or "no reason given").split())
    codes = _EXIT_CODE.findall(reason)
    own = int(codes[-1]) if codes and int(codes[-1]) in _OURS else _FAILED
    return own, f"{name} failed: {reason}"
