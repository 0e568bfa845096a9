"""A running job as a stream of events; it ends with the job, or with an error that stays.

What passes by itself, throttling or a network that is gone for minutes, is waited out and said. The
job does not depend on anyone following it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mrigan.errors import MriganError
from mrigan.sagemaker.aws import (
    AWS_ERRORS,
    Answer,
    Aws,
    code_of,
    explain,
    is_denied,
    is_expired,
    is_passing,
)
from mrigan.sagemaker.job_log import LogLine, LogTail

ENDED = frozenset({"Completed", "Failed", "Stopped"})
POLL_SECONDS = 5.0
_PATIENCE_SECONDS = 900.0
_REMIND_SECONDS = 60.0
# The last lines reach CloudWatch some seconds after the end.
_LAST_READS = 3


@dataclass(frozen=True)
class StatusChanged:
    """The platform has begun the next stage; ``message`` is its own text."""

    status: str
    message: str


@dataclass(frozen=True)
class Notice:
    """Something about following, not about the job."""

    text: str


@dataclass(frozen=True)
class Ended:
    """Nothing more comes; ``description`` is DescribeTrainingJob's answer."""

    description: Answer


Event = StatusChanged | LogLine | Notice | Ended


def follow(
    aws: Aws,
    job_name: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Yield what becomes of a job, until it has ended.

    Args:
        aws: Where and as whom.
        job_name: Of an existing job, at whatever stage.
        sleep: Waits between two looks, seconds.
        clock: Seconds.

    Raises:
        MriganError: No such job, no permission, credentials that ended, or no answer for 15 min.
    """
    follower = _Follower(aws, job_name, clock)
    while True:
        yield from follower.look()
        if follower.ended:
            break
        sleep(POLL_SECONDS)
    for _ in range(_LAST_READS):
        sleep(POLL_SECONDS)
        lines = follower.read_log()
        yield from lines
        if not any(isinstance(line, LogLine) for line in lines):
            break
    yield Ended(follower.description)


class _Follower:
    """Remembers what has been told."""

    def __init__(self, aws: Aws, job_name: str, clock: Callable[[], float]) -> None:
        try:
            self._client = aws.client("sagemaker")
            self._tail: LogTail | None = LogTail(aws.client("logs"), job_name)
        except AWS_ERRORS as error:
            raise explain(error, f"follow {job_name}") from error
        self._job_name = job_name
        self._clock = clock
        self._told = 0
        self._message = ""
        self._failing_since: float | None = None
        self._reminded = clock() - _REMIND_SECONDS
        self.description: Answer = {}

    @property
    def ended(self) -> bool:
        return self.description.get("TrainingJobStatus") in ENDED

    def look(self) -> list[Event]:
        try:
            found = self._client.describe_training_job(TrainingJobName=self._job_name)
        except AWS_ERRORS as error:
            return self._wait_out(error)
        self._failing_since = None
        self.description = found
        return [*self._changes(found.get("SecondaryStatusTransitions", [])), *self.read_log()]

    def read_log(self) -> list[Event]:
        if self._tail is None:
            return []
        try:
            return list(self._tail.read())
        except AWS_ERRORS as error:
            if not is_denied(error):
                return self._wait_out(error)
        self._tail = None
        return [
            Notice("the log can't be read: allow logs:DescribeLogStreams and logs:GetLogEvents")
        ]

    def _changes(self, transitions: list[Answer]) -> list[Event]:
        """New stages, and another message of the stage that lasts."""
        changes: list[Event] = []
        for number, stage in enumerate(transitions, start=1):
            message = stage.get("StatusMessage", "")
            is_new = number > self._told
            is_reworded = number == self._told == len(transitions) and message != self._message
            if is_new or is_reworded:
                changes.append(StatusChanged(stage["Status"], message))
                self._message = message
        self._told = max(self._told, len(transitions))
        return changes

    def _wait_out(self, error: Exception) -> list[Event]:
        """Say now and then that there is no answer.

        Raises:
            MriganError: The failure will not pass, or has lasted too long.
        """
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        lasts = now - self._failing_since
        if not is_passing(error) or lasts > _PATIENCE_SECONDS:
            raise self._given_up(error) from error
        if now - self._reminded < _REMIND_SECONDS:
            return []
        self._reminded = now
        what = code_of(error) or type(error).__name__
        return [Notice(f"no answer from AWS ({what}); trying again, the job keeps running")]

    def _given_up(self, error: Exception) -> MriganError:
        back = f"the job keeps running; then: mrigan launch --attach {self._job_name}"
        line = explain(error, f"follow {self._job_name}")
        # moto and SageMaker alike: an unknown name is a ValidationException.
        if code_of(error) == "ValidationException":
            return MriganError(
                f"there is no job {self._job_name} here ({line}); check the name and AWS_REGION"
            )
        is_lasting = is_denied(error) and not is_expired(error)
        return line if is_lasting else MriganError(f"{line}; {back}")
