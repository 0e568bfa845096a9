"""Small jobs that faults are injected into, and the run that met none."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from faulty_s3 import FaultyS3
from mrigan.artifacts.checkpoints import list_checkpoints
from mrigan.storage.store import Store, open_store

EPOCHS = 12
_JOB = (
    *("--input-uri", "phantom://13", "--image-height", "33", "--image-width", "40"),
    *("--batch-size", "4", "--accumulation-steps", "2", "--device", "cpu"),
    *("--epochs", str(EPOCHS), "--checkpoint-every", "2", "--storage-retries", "20"),
)
_LIMIT_SECONDS = 180.0
_VARYING = ("seconds", "images_per_second", "peak_rss_mib", "score_seconds")


class Row(NamedTuple):
    """What became of a job that met a fault."""

    fault: str
    where: str
    status: int | None
    happened: str
    as_promised: bool

    def markdown(self) -> str:
        """A row of a table."""
        verdict = "yes" if self.as_promised else "**no**"
        text = self.happened.replace("|", "\\|")
        return f"| {self.fault} | {self.where} | {self.status} | {text} | {verdict} |"


class Ended(NamedTuple):
    """A job that has ended."""

    status: int
    out: str
    err: str

    @property
    def is_one_line(self) -> bool:
        """Whether it said what was wrong in one line, and not that it is a bug."""
        return self.err.count("\n") == 1 and "bug of mrigan" not in self.err


class Job:
    """A job under way.

    Args:
        uri: Of its run.
        more: Options after the usual ones; a later one wins.
        prepare: Called in the process before it becomes the job.
    """

    def __init__(self, uri: str, *more: str, prepare: Callable[[], None] | None = None) -> None:
        command = [sys.executable, "-m", "mrigan", "train", *_JOB, "--output-uri", uri, *more]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
        )
        self._said: list[str] = []
        self._errors: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self._said), (self.process.stderr, self._errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: Iterator[str], lines: list[str]) -> None:
        for line in pipe:
            with self._changed:
                lines.append(line)
                self._changed.notify_all()

    def follow(self, event: str, nth: int = 1) -> None:
        """Wait for the ``nth`` line from now on that tells of ``event``."""
        deadline = time.monotonic() + _LIMIT_SECONDS
        with self._changed:
            first = len(self._said) if nth > 1 else 0

            def is_there() -> bool:
                found = [line for line in self._said[first:] if f" {event} " in line]
                return len(found) >= nth or self.process.poll() is not None

            if not self._changed.wait_for(is_there, deadline - time.monotonic()):
                raise TimeoutError(f"{event} was not said: {''.join(self._said)[-500:]}")

    def end(self) -> Ended:
        """Wait for its end."""
        try:
            self.process.wait(_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise TimeoutError(f"did not end: {''.join(self._said)[-500:]}") from None
        for reader in self._readers:
            reader.join()
        return Ended(self.process.returncode, "".join(self._said), "".join(self._errors))


class Place:
    """Where jobs write: a folder and a bucket behind ``proxy``; fresh for each fault."""

    def __init__(self, folder: Path, proxy: FaultyS3) -> None:
        self._root, self.proxy = folder, proxy
        self._number = 0
        os.environ["MRIGAN_CACHE_DIR"] = str(folder / "cache")
        self.fresh()
        ended = Job(self.folder).end()
        assert ended.status == 0, ended.err
        self._undisturbed = _content(open_store(self.folder))

    def fresh(self) -> None:
        """Go to another place, without faults."""
        self.proxy.fault = lambda _: None
        self.proxy.listen()
        self._number += 1

    @property
    def folder(self) -> str:
        """A run's folder."""
        return str(self._root / f"run-{self._number}")

    @property
    def bucket(self) -> str:
        """A run's place in the bucket."""
        return f"s3://faults/run-{self._number}"

    def path(self, name: str) -> Path:
        """Some other place of this fault's own."""
        return self._root / f"{name}-{self._number}"

    def is_same(self, uri: str) -> bool:
        """Whether the run has become what it would have been without the fault."""
        return _content(open_store(uri)) == self._undisturbed

    def finished(self, uri: str, *, first: Ended | None = None) -> tuple[int, str, bool]:
        """Run the same command again, without faults; tell of ``first``, or of this one."""
        self.proxy.fault = lambda _: None
        self.proxy.listen()
        resumed = Job(uri).end()
        told = first or resumed
        same = resumed.status == 0 and self.is_same(uri)
        found = re.search(r" resumed images_seen=(\d+)", resumed.out)
        point = f"resumed at {found[1]} images" if found else "resumed from the beginning"
        if " already_complete " in resumed.out:
            point = "complete already"
        return told.status, f"{point}: {'same bits' if same else 'OTHER BITS'}", same


def published(place: Place, uri: str, ended: Ended) -> tuple[str, bool]:
    """Publish what a job that failed has kept: what happened, and whether it is as promised."""
    place.proxy.fault = lambda _: None
    found = re.search(r": mrigan publish (\S+)\s*$", ended.err)
    if ended.status != 5 or not found or not ended.is_one_line:
        return f"kept nothing: {ended.err[-300:]}", False
    before = (list_checkpoints(open_store(uri)) or [0])[-1]
    command = [sys.executable, "-m", "mrigan", "publish", found[1]]
    status = subprocess.run(command, capture_output=True, text=True, check=False).returncode
    after = (list_checkpoints(open_store(uri)) or [0])[-1]
    reason = ended.err.split(";")[0].removeprefix("mrigan: ").replace(uri, "…")
    told = f"{reason}; kept, then published: {before} → {after} images"
    return told, status == 0 and after > before


def _content(store: Store) -> dict[str, object]:
    """What counts of a run."""
    content: dict[str, object] = {}
    for info in store.list():
        if info.key.startswith(("samples/", "model/")) or info.key == "plots/losses.png":
            content[info.key] = store.get(info.key)
    rows = [json.loads(line) for line in store.get("metrics.jsonl").splitlines()]
    content["rows"] = [{k: v for k, v in row.items() if k not in _VARYING} for row in rows]
    content["state"] = json.loads(store.get("status.json"))["state"]
    return content


@contextmanager
def serve() -> Iterator[FaultyS3]:
    """Serve a bucket, behind a proxy that fails when it is told to."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    upstream = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{upstream}/faults", method="PUT")).close()
    proxy = FaultyS3(upstream)
    os.environ.update(
        AWS_ENDPOINT_URL=proxy.url,
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="bench-secret",
        AWS_REGION="us-east-1",
    )
    yield proxy
    proxy.refuse()
    server.stop()
