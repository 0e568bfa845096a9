"""What a job's containers print, as CloudWatch hands it out: a stream a machine and start."""

from dataclasses import dataclass
from typing import Any

_GROUP = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True)
class LogLine:
    """One line of one machine.

    Attributes:
        host: As ``algo-1``.
        text: Without control characters: a log must not steer a terminal.
        at_ms: When it was printed, milliseconds since 1970.
    """

    host: str
    text: str
    at_ms: int


class LogTail:
    """Reads on from where it was; a spot restart's new streams are found by themselves.

    ``read`` raises ``aws.AWS_ERRORS``; what it had read until then comes with the next call.
    """

    def __init__(self, client: Any, job_name: str) -> None:  # noqa: ANN401 - boto3's
        self._client = client
        self._prefix = f"{job_name}/"
        self._tokens: dict[str, str] = {}
        self._pending: list[LogLine] = []

    def read(self) -> list[LogLine]:
        """Return what is new, oldest first; nothing before the first machine is up."""
        try:
            for stream in self._streams():
                self._read_on(stream)
        except self._client.exceptions.ResourceNotFoundException:
            return []  # the account's first job: the group is made with its first line
        lines, self._pending = self._pending, []
        return sorted(lines, key=lambda line: line.at_ms)

    def _streams(self) -> list[str]:
        pages = self._client.get_paginator("describe_log_streams").paginate(
            logGroupName=_GROUP, logStreamNamePrefix=self._prefix
        )
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    def _read_on(self, stream: str) -> None:
        host = stream.removeprefix(self._prefix).rpartition("-")[0]
        while True:
            token = self._tokens.get(stream)
            answer = self._client.get_log_events(
                logGroupName=_GROUP,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            self._pending += [
                LogLine(host, _printable(event["message"]), event["timestamp"])
                for event in answer["events"]
            ]
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token or not answer["events"]:
                return


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text.rstrip())
