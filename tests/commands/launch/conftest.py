"""SageMaker and CloudWatch as an HTTP server that plays a script: what moto has no part for."""

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

NEEDED = {
    "role": "arn:aws:iam::123456789012:role/mrigan",
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/mrigan:4b51249",
    "input_uri": "s3://slices/t1",
    "output_uri": "s3://runs/first",
}
STARTING = ("Starting", "Preparing the instances for training")
DOWNLOADING = ("Downloading", "Downloading input data")
TRAINING = ("Training", "Training image download completed. Training in progress.")


class Platform:
    """One training job's life, a scene for each time that someone looks.

    Attributes:
        scenes: Answers of DescribeTrainingJob in turn, the last for ever: the job's status, its
            stages so far, and the lines that each stream has then; further fields by name.
        refusals: Operation to what it answers before it works: (HTTP status, code, message), or
            None to close the connection with the request done and no answer given.
        requests: Every (operation, parameters) that came.
        created: The job.
        quotas: Of the account, by name.
        url: Where it listens.
    """

    def __init__(self):
        self.scenes = []
        self.refusals = defaultdict(list)
        self.requests = []
        self.created = {"TrainingJobName": "mine"}
        self.quotas = {}
        self.url = ""
        self._looks = 0

    def scene(self, status, *stages, lines=None, **fields):
        self.scenes.append((status, stages, lines or {}, fields))
        return self

    @property
    def operations(self):
        return [operation for operation, _ in self.requests]

    def answer(self, operation, parameters):
        self.requests.append((operation, parameters))
        return getattr(self, f"_{operation}", lambda _: {})(parameters)

    def _CreateTrainingJob(self, parameters):
        self.created = parameters
        return {"TrainingJobArn": f"arn:aws:sagemaker:us-east-1:1:{parameters['TrainingJobName']}"}

    def _DescribeTrainingJob(self, _):
        status, stages, _, fields = self._now()
        self._looks += 1
        return {
            **self.created,
            "TrainingJobStatus": status,
            "SecondaryStatus": stages[-1][0] if stages else "Starting",
            "SecondaryStatusTransitions": [
                {"Status": name, "StartTime": 1.8e9, "StatusMessage": said} for name, said in stages
            ],
            **fields,
        }

    def _DescribeLogStreams(self, parameters):
        name = self.created["TrainingJobName"]
        assert parameters["logStreamNamePrefix"] == f"{name}/"
        return {"logStreams": [{"logStreamName": f"{name}/{each}"} for each in self._lines()]}

    def _GetLogEvents(self, parameters):
        lines = self._lines()[parameters["logStreamName"].rpartition("/")[2]]
        first = int(parameters.get("nextToken", "f/0").removeprefix("f/"))
        page = lines[first : first + 3]  # less than there is: there are further pages
        events = [{"timestamp": at, "message": text, "ingestionTime": at} for at, text in page]
        return {"events": events, "nextForwardToken": f"f/{first + len(page)}"}

    def _ListServiceQuotas(self, parameters):
        assert parameters["ServiceCode"] == "sagemaker"
        first, names = int(parameters.get("NextToken", "0")), sorted(self.quotas)
        page = [{"QuotaName": name, "Value": self.quotas[name]} for name in names[first:][:3]]
        further = {"NextToken": str(first + 3)} if first + 3 < len(names) else {}
        return {"Quotas": page, **further}

    def _lines(self):
        return self.scenes[min(max(self._looks - 1, 0), len(self.scenes) - 1)][2]

    def _now(self):
        if not self.scenes:
            return "InProgress", (STARTING,), {}, {}
        return self.scenes[min(self._looks, len(self.scenes) - 1)]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        target = self.headers["X-Amz-Target"]
        operation = target.rpartition(".")[2] if target else parse_qs(body.decode())["Action"][0]
        platform = self.server.platform
        refusals = platform.refusals[operation]
        refusal = refusals.pop(0) if refusals else ()
        if refusal:
            status, code, message = refusal
            xml = f"<R><Error><Code>{code}</Code><Message>{message}</Message></Error></R>"
            answer = json.dumps({"__type": code, "message": message}) if target else xml
            self._reply(status, answer)
            return
        answer = platform.answer(operation, json.loads(body))
        if refusal is None:
            self.close_connection = True
            return
        self._reply(200, json.dumps(answer))

    def _reply(self, status, answer):
        body = answer.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def platform(monkeypatch):
    """A ``Platform``; the environment leads SageMaker and CloudWatch to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.platform = Platform()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.platform.url = f"http://127.0.0.1:{server.server_port}"
    for variable, value in {
        "AWS_ENDPOINT_URL_SAGEMAKER": server.platform.url,
        "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": server.platform.url,
        "AWS_ACCESS_KEY_ID": "testing-key",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(variable, value)
    yield server.platform
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def quick(monkeypatch):
    """Looks follow each other at once, and boto3 does not wait before it asks again."""
    monkeypatch.setattr("mrigan.sagemaker.events.POLL_SECONDS", 0.0)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", _no_delay)


def _no_delay(*_):
    return 0


def launch_line(**settings):
    options = NEEDED | settings
    return ["launch", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]


@pytest.fixture
def launch(mrigan, platform, quick):
    """Run ``mrigan launch`` here with what it needs: ``launch("--no-follow", spot="true")``."""

    def run(*flags, **settings):
        return mrigan(*launch_line(**settings), *flags)

    return run


@pytest.fixture
def scenes():
    """The words of the platform that scripts are made of."""
    return STARTING, DOWNLOADING, TRAINING


@pytest.fixture
def arguments():
    """The command line of ``launch``, for a process of its own."""
    return launch_line
