"""What every test starts from: no AWS settings of this machine's, and real stores to talk to."""

import logging
import os
import re
import urllib.request
import uuid
from pathlib import Path

import pytest

# As `make test` does it, and before anything imports torch: where other processes hold the cores,
# threads that spin until the last of them has run make minutes of a second's work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_REMOVED = re.compile(r"MRIGAN_|AWS_|PYTORCH_.*ALLOC")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """What CI alone can run must run there: an engine or an SDK that is missing fails."""
    report = yield
    promised = item.get_closest_marker("container") or item.get_closest_marker("sdk")
    if report.skipped and promised and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch):
    """The environment of a machine that has never heard of us or of AWS."""
    for name in list(os.environ):
        if _REMOVED.match(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(scope="session")
def s3_server():
    """URL of an S3 that speaks HTTP on this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws_environ(monkeypatch, s3_server):
    """Credentials and endpoint for ``s3_server``, as a user would set them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def bucket(aws_environ, s3_server):
    """URI of a fresh, empty bucket; the environment leads to it."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{s3_server}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return f"s3://{name}"


@pytest.fixture(params=["folder", "s3"])
def store_uri(request, tmp_path):
    """A URI that a run may write to: below a folder, then below a bucket's prefix."""
    if request.param == "folder":
        return str(tmp_path / "store" / "run 1")
    return f"{request.getfixturevalue('bucket')}/some/run 1"


@pytest.fixture(scope="session")
def sdk():
    """The Python that has a version of the sagemaker SDK: ``sdk("v3")``."""

    def python(version):
        found = Path(__file__).parents[1] / ".sdk" / version / "bin" / "python"
        if not found.exists():
            pytest.skip(f"no sagemaker SDK {version}: `make sdk`")
        return str(found)

    return python
