"""Writes docs/messages.md: provokes each failure for real and notes what the user is told.

    python docs/messages.py          writes the page
    python docs/messages.py --check  fails if the page is not current

Runs in a temporary folder against real files and, for the bucket's failures, real HTTP: moto's S3,
and a server that refuses. Temporary paths, ports and versions are replaced by names.
"""

import contextlib
import difflib
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from message_cases import (
    COMMAND_LINE,
    DATA,
    RUNS,
    SETTINGS,
    STORAGE,
    TRAIN,
    Case,
    bad_objects,
    encoded,
)
from moto.server import ThreadedMotoServer
from PIL import Image

from mrigan.cli.run import run
from mrigan.data.formats import MAX_BYTES
from mrigan.data.phantom import draw

PAGE = Path(__file__).with_name("messages.md")
_HEAD = """\
# What you are told when something is wrong

Each line is what the command printed when the failure was provoked: `docs/messages.py` does so, and
writes this page. One line a problem: what, where, what to do. `--debug` adds a traceback.
"""
_OBJECTS = """
## Objects that are no slices

The job goes on without them while there are no more than `MRIGAN_MAX_REFUSED`. What became of each
object is in the run's `data/manifest.jsonl`.

| object | reason in the manifest |
|---|---|
"""
_STATUS = {"ExpiredToken": 400, "KMS.DisabledException": 400, "PermanentRedirect": 301}


class Place(NamedTuple):
    """Where failures are provoked: a current folder, an S3, and one that refuses."""

    folder: Path
    endpoint: str
    refusing: str

    def tidy(self, text: str) -> str:
        """``text`` as it would be on any machine, fit for a table."""
        text = text.replace(str(self.folder), "/home/you")
        for url in (self.endpoint, self.refusing):
            text = re.sub(rf"{re.escape(url)}(/[A-Z]\w+)?", "http://s3:8333", text)
        text = re.sub(r"torch \S+ finds", "torch 2.14.1 finds", text)
        text = re.sub(r"at [\d,]+ images", "at 8 images", text)
        choices = re.compile(r"(?<=\(choose from )[^)]*")
        text = choices.sub(lambda found: found[0].replace("'", ""), text)  # as Python 3.12 has it
        return text.replace("|", "\\|")


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the refusal that the path begins with."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _refuse(self) -> None:
        code = self.path.split("/")[1]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = "arn:aws:kms:key/1 is disabled" if code.startswith("KMS") else "because"
        body = f"<Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()
        self.send_response(_STATUS.get(code, 503 if code == "SlowDown" else 403))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-bucket-region", "eu-west-3")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = _refuse  # noqa: N815 - the library's names


def said(
    arguments: list[str], environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run one command and return its status and what it wrote to either stream."""
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return status, out.getvalue(), err.getvalue()


def told(
    arguments: list[str], environment: Mapping[str, str] | None = None
) -> tuple[int, list[str]]:
    """Run one command and return its status and the lines meant for the user."""
    status, out, err = said(arguments, environment)
    lines = err.splitlines() or out.splitlines()[-1:]
    return status, [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines]


def table(title: str, cases: Sequence[Case], place: Place) -> Iterator[str]:
    """A section of the page: what was wrong, how it ended, what was said."""
    yield f"\n## {title}\n\n| what is wrong | exit | what you read |\n|---|---|---|\n"
    for case in cases:
        environment = dict(case.environment)
        if case.s3_code:
            environment["AWS_ENDPOINT_URL"] = f"{place.refusing}/{case.s3_code}"
        for name, text in case.files.items():
            path = place.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        status, lines = told(case.arguments, environment)
        for name in case.files:
            top = place.folder / Path(name).parts[0]
            shutil.rmtree(top) if top.is_dir() else top.unlink()
        message = "<br>".join(code(place.tidy(line)) for line in lines)
        yield f"| {case.name} | {status} | {message} |\n"


def code(text: str) -> str:
    """Markdown for ``text`` as it is."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def refusals(place: Place) -> Iterator[str]:
    """The rows of objects that are no slices, from the manifest of a job that went on."""
    arguments = [*TRAIN, "--input-uri", "many", "--output-uri", "tolerant", "--max-refused", "100"]
    status, lines = told(arguments)
    assert status == 0, lines
    for line in (place.folder / "tolerant/data/manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] == "refused":
            yield f"| `{entry['key']}` | {place.tidy(entry['reason'])} |\n"


def fill(folder: Path, objects: Mapping[str, bytes], slices: int) -> None:
    """Write ``objects`` and so many good slices below ``folder``."""
    folder.mkdir()
    for name, data in objects.items():
        (folder / name).write_bytes(data)
    for index in range(slices):
        picture = Image.fromarray(draw(index, 40, 36))
        (folder / f"slice-{index:03d}.png").write_bytes(encoded(picture, "PNG"))


def page(place: Place) -> str:
    """Make the page, working in ``place``."""
    objects, folder = bad_objects(), place.folder
    fill(folder / "many", objects, 12)
    with (folder / "many" / "huge.tif").open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 2**20)
    fill(folder / "mixed", {name: objects[name] for name in ("empty.png", "labels.csv")}, 12)
    fill(folder / "useless", {name: objects[name] for name in ("dicom.dcm", "page.html")}, 0)
    (folder / "empty").mkdir()
    (folder / "a-file").write_text("in the way")
    status, lines = told([*TRAIN, "--output-uri", "done"])
    assert status == 0, lines
    parts = [
        _HEAD,
        *table("The command line", COMMAND_LINE, place),
        *table("Settings", SETTINGS, place),
        *table("Slices", DATA, place),
        *table("Runs", RUNS, place),
        *table("Storage", STORAGE, place),
        _OBJECTS,
        *refusals(place),
    ]
    return "".join(parts)


@contextlib.contextmanager
def workplace() -> Iterator[Place]:
    """A temporary current folder and two servers; the environment knows nothing else."""
    kept, before = dict(os.environ), Path.cwd()
    for name in list(os.environ):
        if name.startswith(("MRIGAN_", "AWS_")):
            del os.environ[name]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    endpoint = "http://{}:{}".format(*moto.get_host_and_port())
    refusing = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=refusing.serve_forever, daemon=True).start()
    request = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
    urllib.request.urlopen(request).close()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "CUDA_VISIBLE_DEVICES": "",
            "MRIGAN_CACHE_DIR": str(folder / "cache"),
        }
        os.chdir(folder)
        try:
            yield Place(folder, endpoint, f"http://127.0.0.1:{refusing.server_port}")
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(kept)
            refusing.shutdown()
            moto.stop()


def main() -> None:
    """Write the page, or compare it."""
    with workplace() as place:
        text = page(place)
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif text != PAGE.read_text():
        changes = difflib.unified_diff(
            PAGE.read_text().splitlines(), text.splitlines(), lineterm=""
        )
        sys.exit("docs/messages.md is not current: python docs/messages.py\n" + "\n".join(changes))


if __name__ == "__main__":
    main()
