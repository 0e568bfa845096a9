"""AWS as a server on this machine that keeps every request, and is the way out to any other."""

import io
import json
import os
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

# Version 3 reports to its makers in a thread that the script's end may cut short.
TO_THE_END = """
import runpy, sys, threading
runpy.run_path(sys.argv[1], run_name="__main__")
[thread.join() for thread in threading.enumerate() if "telemetry" in thread.name]
"""


class Quiet(WSGIRequestHandler):
    def log_request(self, *arguments, **named):
        """Say nothing of each request."""


@dataclass
class Aws:
    """moto, and what it was asked: ``(operation, body)``, as it came over the wire."""

    url: str = ""
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    _app: DomainDispatcherApplication = field(
        default_factory=lambda: DomainDispatcherApplication(create_backend_app)
    )

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        request = f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}"
        self.requests.append((environ.get("HTTP_X_AMZ_TARGET", request), body))
        return self._app(environ, start_response)

    @property
    def operations(self):
        return [operation for operation, _ in self.requests]

    def training_job(self):
        """The one CreateTrainingJob."""
        created = [body for name, body in self.requests if name == "SageMaker.CreateTrainingJob"]
        assert len(created) == 1, self.operations
        return json.loads(created[0])


@contextmanager
def serve():
    """An ``Aws`` that answers while the block lasts."""
    application = Aws()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    application.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield application
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def submit(tmp_path_factory):
    """Run a script as a user of AWS does: ``submit(python, script, **environment)``.

    Returns what it printed, and the ``Aws`` that knows what it asked for.
    """

    def run(python, script, **environment):
        home = tmp_path_factory.mktemp("home")
        with serve() as aws:
            clean = {
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "AWS_ENDPOINT_URL": aws.url,
                "AWS_REGION": "eu-central-1",
                "AWS_DEFAULT_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "testing-key",
                "AWS_SECRET_ACCESS_KEY": "testing-secret",
                "AWS_EC2_METADATA_DISABLED": "true",
                # Whatever is said to another host over TLS is asked of this server.
                "HTTPS_PROXY": aws.url,
                **environment,
            }
            command = [python, "-c", TO_THE_END, str(script)]
            options = {"env": clean, "cwd": home, "capture_output": True, "text": True}
            done = subprocess.run(command, check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, aws

    return run
