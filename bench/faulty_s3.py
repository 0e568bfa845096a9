"""An S3 that fails in the way it is told to: a proxy on this machine in front of a sound one.

``FaultyS3.fault`` is asked before each request and names what happens to it; None lets it pass.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_XML = "<?xml version='1.0'?>\n<Error><Code>{0}</Code><Message>injected</Message></Error>"
_ANSWERS = {
    "SlowDown": 503,
    "ServiceUnavailable": 503,
    "InternalError": 500,
    "TooManyRequests": 429,
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "ExpiredToken": 400,
    "RequestTimeTooSkewed": 403,
    "NoSuchBucket": 404,
    "QuotaExceeded": 403,  # as Ceph has it; 507 is repeated by obstore first, for STORAGE_TIMEOUT
}
FAULTS = (*_ANSWERS, "refused", "reset", "cut", "flipped", "lost", "silent", "slow", "garbage")


class Request(NamedTuple):
    """What is asked for; ``number`` counts them all from 1."""

    method: str
    path: str
    number: int


Fault = Callable[[Request], str | None]


class FaultyS3:
    """Forwards to ``upstream`` but for what ``fault`` says.

    ======== ==================================================================================
    a code   S3 answers with that error
    refused  nobody listens (set for all requests at once)
    reset    the connection is reset before an answer
    cut      half of the answer's body, then the end
    flipped  a bit of the answer's body is another one, a different one each time
    lost     the request takes effect, the answer never comes
    silent   no answer while the fault lasts
    slow     an answer after a second
    garbage  an answer that is no HTTP
    ======== ==================================================================================
    """

    def __init__(self, upstream: str) -> None:
        self.fault: Fault = lambda _: None
        self.requests: list[Request] = []
        self._upstream = urlsplit(upstream)
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.listen()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Accept connections, at the same port as before."""
        if self._server is None:
            server = _Server(("127.0.0.1", self._port), self._handler())
            self._server, self._port = server, server.server_port
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections, and end those there are, until ``listen``."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            server.end_connections()

    def _decide(self, method: str, path: str) -> tuple[Request, str | None]:
        with self._lock:
            request = Request(method, path, len(self.requests) + 1)
            self.requests.append(request)
        return request, self.fault(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def log_message(self, *_: Any) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request, fault = outer._decide(self.command, self.path)
                if fault in _ANSWERS:
                    self.answer(_ANSWERS[fault], {}, _XML.format(fault).encode())
                elif fault == "reset":
                    self.reset()
                elif fault == "garbage":
                    self.wfile.write(b"\x00\x01 no HTTP at all\r\n\r\n")
                    self.close_connection = True
                elif fault == "silent":
                    while outer.fault(request) == "silent":
                        time.sleep(0.05)
                    self.reset()
                else:
                    self.forward(body, request, fault)

            def forward(self, body: bytes, request: Request, fault: str | None) -> None:
                if fault == "slow":
                    time.sleep(1)
                host, port = outer._upstream.hostname or "", outer._upstream.port
                with closing(HTTPConnection(host, port)) as upstream:
                    upstream.request(self.command, self.path, body, dict(self.headers))
                    found = upstream.getresponse()
                    answer, headers = found.read(), dict(found.getheaders())
                if fault == "lost":
                    self.reset()
                elif fault == "flipped" and answer:
                    changed = bytearray(answer)
                    changed[request.number * 7919 % len(changed)] ^= 1 << request.number % 8
                    self.answer(found.status, headers, bytes(changed))
                elif fault == "cut" and answer:
                    self.answer(found.status, headers, answer, send=len(answer) // 2)
                else:
                    self.answer(found.status, headers, answer)

            def answer(
                self, status: int, headers: dict[str, str], body: bytes, send: int | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                is_head = self.command == "HEAD"
                length = headers.get("Content-Length", "0") if is_head else str(len(body))
                self.send_header("Content-Length", length)
                self.end_headers()
                if not is_head:
                    self.wfile.write(body[:send])
                self.close_connection = send is not None

            def reset(self) -> None:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True

        for method in ("GET", "HEAD", "PUT", "DELETE", "POST"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass
