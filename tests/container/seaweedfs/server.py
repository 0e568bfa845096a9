"""An S3 with SeaweedFS's habits: healthy on /healthz a moment before its bucket is there.

Takes ``mini`` and its options and ignores them. Objects live in memory, while it runs.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

PORT = 8333
# Longer than the seeding job takes to start: who trusts /healthz meets a server without its bucket.
BUCKET_DELAY_SECONDS = 8.0

StartResponse = Callable[..., Any]


def make_bucket() -> None:
    """Create the bucket that the environment names."""
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{PORT}", region_name="us-east-1")
    client.create_bucket(Bucket=os.environ["S3_BUCKET"])


class HealthyAtOnce:
    """Moto's S3 with /healthz in front of it."""

    def __init__(self) -> None:
        self.s3 = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            return self.s3(environ, start_response)
        start_response("200 OK", [("Content-Length", "0")])
        return []


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # as PID 1 it would ignore it
    threading.Timer(BUCKET_DELAY_SECONDS, make_bucket).start()
    run_simple("0.0.0.0", PORT, HealthyAtOnce(), threaded=True)
