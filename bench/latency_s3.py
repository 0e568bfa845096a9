"""A read-only S3 whose answers take as long as they are told to: for benchmarks.

    python bench/latency_s3.py FOLDER [--latency-ms 30] [--port 9000]

Serves the files of FOLDER as ``s3://bench/slices/...`` over plain HTTP, path-style, to anyone.
Every answer is built beforehand, so that what is measured is the client: GET and HEAD of objects
with their MD5 as ETag, and ListObjectsV2 in pages of 1,000. ``/_counts`` tells how many requests
of each kind came, ``/_latency?ms=30`` sets the time before an answer's first byte and ``/_reset``
forgets the counts. Other requests are refused, ranges are ignored.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bench"
PREFIX = "slices"
_PAGE = 1000
_MODIFIED = 1_767_225_600.0  # 2026-01-01: the same for all, so that listings never change


def _answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


class Objects:
    """The files of a folder as the bytes that answer for them."""

    def __init__(self, folder: Path) -> None:
        self._get: dict[str, bytes] = {}
        self._head: dict[str, bytes] = {}
        self._contents: list[tuple[str, str]] = []  # (key, XML), sorted by the key's UTF-8
        self._pages: dict[tuple[str, str], bytes] = {}
        paths = [path for path in folder.rglob("*") if path.is_file()]
        if not paths:
            raise SystemExit(f"no files in {folder}")
        for path in sorted(paths, key=lambda path: path.as_posix().encode()):
            self._add(f"{PREFIX}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def _add(self, key: str, body: bytes) -> None:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        headers = (
            f'ETag: "{etag}"',
            f"Last-Modified: {formatdate(_MODIFIED, usegmt=True)}",
            "Content-Type: application/octet-stream",
        )
        self._get[key] = _answer("200 OK", body, *headers)
        self._head[key] = self._get[key][: -len(body)] if body else self._get[key]
        self._contents.append(
            (
                key,
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z"
                f"</LastModified><ETag>&quot;{etag}&quot;</ETag><Size>{len(body)}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>",
            )
        )

    def answer(self, method: str, target: str) -> tuple[str, bytes]:
        """Return the kind of request that ``target`` is, and the answer to it."""
        path, _, query = target.partition("?")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        if bucket != BUCKET:
            return "refused", _error("404 Not Found", "NoSuchBucket")
        if method == "GET" and not key:
            asked = parse_qs(query)
            page = asked.get("prefix", [""])[0], asked.get("continuation-token", [""])[0]
            return "list", self._pages.get(page) or self._build_page(*page)
        if method == "GET":
            return "get", self._get.get(key) or _error("404 Not Found", "NoSuchKey")
        if method == "HEAD":
            return "head", self._head.get(key) or _headless(_error("404 Not Found", "NoSuchKey"))
        return "refused", _error("501 Not Implemented", "NotImplemented")

    def _build_page(self, prefix: str, token: str) -> bytes:
        start = int(token or 0)
        keys = [item for item in self._contents if item[0].startswith(prefix)]
        shown = keys[start : start + _PAGE]
        is_last = start + _PAGE >= len(keys)
        after = "" if is_last else f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>"
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>{_PAGE}</MaxKeys>"
            f"<KeyCount>{len(shown)}</KeyCount><IsTruncated>{str(not is_last).lower()}"
            f"</IsTruncated>{after}{''.join(xml for _, xml in shown)}</ListBucketResult>"
        )
        answer = _answer("200 OK", body.encode(), "Content-Type: application/xml")
        self._pages[prefix, token] = answer
        return answer


def _error(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return _answer(status, body, "Content-Type: application/xml")


def _headless(answer: bytes) -> bytes:
    return answer[: answer.index(b"\r\n\r\n") + 4]


class Server:
    """What all connections share."""

    def __init__(self, objects: Objects, latency_ms: float) -> None:
        self.objects = objects
        self.latency_seconds = latency_ms / 1000
        self.counts: Counter[str] = Counter()

    def control(self, target: str) -> bytes:
        """Obey a request to the server itself."""
        parts = urlsplit(target)
        if parts.path == "/_reset":
            self.counts.clear()
        elif parts.path == "/_latency":
            self.latency_seconds = float(parse_qs(parts.query)["ms"][0]) / 1000
        elif parts.path != "/_counts":
            return _error("404 Not Found", "NoSuchControl")
        return _answer("200 OK", json.dumps(self.counts).encode())


class Connection(asyncio.Protocol):
    """One client's keep-alive connection; answers one request after another."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers go out through."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete; none that is allowed has a body."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            line = self._received[: self._received.index(b"\r\n")].decode("latin-1")
            self._received = self._received[end + 4 :]
            self._handle(line)

    def _handle(self, request_line: str) -> None:
        method, target, _ = request_line.split(" ", 2)
        if target.startswith("/_"):
            self._transport.write(self._server.control(target))
            return
        kind, answer = self._server.objects.answer(method, target)
        self._server.counts[kind] += 1
        if kind == "refused":  # what follows may be a body
            self._transport.write(answer)
            self._transport.close()
        elif self._server.latency_seconds:
            self._loop.call_later(self._server.latency_seconds, self._transport.write, answer)
        else:
            self._transport.write(answer)


async def serve(objects: Objects, latency_ms: float, port: int) -> None:
    """Serve until SIGTERM; the first line on stdout is the URL."""
    loop = asyncio.get_running_loop()
    state = Server(objects, latency_ms)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", port, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


class RunningServer:
    """A server in a process of its own.

    Attributes:
        url: For AWS_ENDPOINT_URL.
        uri: Of the slices.
    """

    uri = f"s3://{BUCKET}/{PREFIX}"

    def __init__(self, url: str) -> None:
        self.url = url

    def set_latency(self, ms: float) -> None:
        """Let every answer wait for so long."""
        self._ask(f"/_latency?ms={ms}")

    def reset(self) -> None:
        """Count from zero."""
        self._ask("/_reset")

    def counts(self) -> Counter[str]:
        """Requests since the last reset: get, head, list, refused."""
        return Counter(self._ask("/_counts"))

    def environ(self) -> dict[str, str]:
        """What leads an S3 client here, and to no credentials of this machine's."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _ask(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(self.url + path) as answer:
            found: dict[str, int] = json.load(answer)
            return found


@contextmanager
def running(folder: Path) -> Iterator[RunningServer]:
    """Serve ``folder`` from another process while the context lasts."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise SystemExit("the fake S3 did not start")
            yield RunningServer(url)
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    args = parser.parse_args()
    asyncio.run(serve(Objects(args.folder), args.latency_ms, args.port))


if __name__ == "__main__":
    main()
