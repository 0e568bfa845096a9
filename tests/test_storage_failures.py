"""Each way an S3 can fail, said by a server that does it over HTTP: what we do, what we say."""

import base64
import hashlib
import json
import os
import re
import socket
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import awscrt.checksums
import pytest

from mrigan.errors import AlreadyExistsError, StorageError
from mrigan.jobs.train import job
from mrigan.storage.store import StoreOptions, open_store

# A server's silence has a test of its own; here it only means that the machine is busy.
IMPATIENT = StoreOptions(max_retries=0, request_timeout_seconds=120)
PATIENT = StoreOptions(max_retries=3, request_timeout_seconds=120)
MODIFIED = "Wed, 21 Oct 2026 07:28:00 GMT"


class ScriptedS3:
    """Answers each request by ``answer(request)``: a status, headers and a body.

    A body shorter than its Content-Length is cut off there, and the connection closed.
    """

    def __init__(self, answer):
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def log_message(self, *_):
                pass

            def handle_any(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append(copy(self))  # a connection has one handler for all of its
                status, headers, body = answer(self)
                self.send_response(status)
                headers = {"Content-Length": str(len(body)), "Last-Modified": MODIFIED} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                    self.close_connection = len(body) < int(headers["Content-Length"])

        for verb in ("GET", "HEAD", "PUT", "DELETE", "POST"):
            setattr(Handler, f"do_{verb}", Handler.handle_any)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.outer = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve(monkeypatch):
    """Start a scripted S3 and point the environment to it."""
    running = []

    def start(answer):
        running.append(ScriptedS3(answer))
        monkeypatch.setenv("AWS_ENDPOINT_URL", running[-1].url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        return running[-1]

    yield start
    for server in running:
        server.stop()


def refusal(status, code, message="because", more=""):
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code>\n<Message>{message}</Message>{more}"
    return status, {"Content-Type": "application/xml"}, f"{body}<RequestId>1</RequestId></Error>"


def answer_always(status, code, message="because", more="", headers=None):
    def answer(request):
        _, own, body = refusal(status, code, message, more)
        return status, own | (headers or {}), b"" if request.command == "HEAD" else body.encode()

    return answer


def found(body, **headers):
    return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} | headers, body


OPERATIONS = {
    "list": lambda store: store.list(),
    "look at": lambda store: store.head("k.png"),
    "read": lambda store: store.get("k.png"),
    "write": lambda store: store.put("k.png", b"x"),
    "delete": lambda store: store.delete("k.png"),
}
REFUSALS = {
    "NoSuchBucket": (404, {}, r"bucket bkt does not exist at http://\S+; create it"),
    "AccessDenied": (403, {}, r"access denied.*; allow s3:\w+"),
    "InvalidAccessKeyId": (403, {}, r"access key is not known.*check AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, {}, r"signature is not accepted.*AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": (400, {}, r"credentials have expired; renew"),
    "RequestTimeTooSkewed": (403, {}, r"clock is more than 15 minutes off; set it"),
    "AuthorizationHeaderMalformed": (
        400,
        {"more": "<Region>eu-west-3</Region>"},
        r"bucket is in eu-west-3, but the request was for us-east-1; set AWS_REGION=eu-west-3",
    ),
    "PermanentRedirect": (
        301,
        {"headers": {"x-amz-bucket-region": "eu-west-3"}},
        r"bucket is in eu-west-3, but the request was for us-east-1; set AWS_REGION=eu-west-3",
    ),
    "KMS.DisabledException": (
        400,
        {"message": "arn:key/1 is disabled"},
        r"KMS key can't be used \(arn:key/1 is disabled\); allow kms:",
    ),
    "SomethingNew": (400, {"message": "A {new}\n one."}, r"SomethingNew: A \{new\} one"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_one_line_that_says_what_where_and_what_to_do(serve, code):
    status, details, expected = REFUSALS[code]
    serve(answer_always(status, code, **details))
    store = open_store("s3://bkt/some/run", IMPATIENT)
    for name, operation in OPERATIONS.items():
        with pytest.raises(StorageError) as caught:
            operation(store)
        line = str(caught.value)
        assert re.search(expected, line), line
        assert line.startswith(f"can't {name} s3://bkt/some/run")
        assert "\n" not in line
        assert "<" not in line
        assert "secret" not in line.replace("AWS_SECRET_ACCESS_KEY", "")


def test_what_s3_says_about_a_denial_is_passed_on(serve):
    said = "User: arn:aws:iam::1:user/a is not authorized to perform: s3:GetObject"
    serve(answer_always(403, "AccessDenied", said))
    with pytest.raises(StorageError, match=re.escape(said)):
        open_store("s3://bkt", IMPATIENT).get("k")


def test_a_missing_bucket_is_told_from_a_missing_object(bucket):
    with pytest.raises(StorageError, match=r"bucket nobody-made-it does not exist"):
        open_store("s3://nobody-made-it/run").head("k")
    assert open_store(f"{bucket}/run").head("k") is None


def test_a_store_that_is_busy_for_a_moment_is_asked_again(serve):
    def answer(_):
        if len(server.requests) <= 2:
            return answer_always(503, "SlowDown")(server.requests[-1])
        return found(b"at last")

    server = serve(answer)
    assert open_store("s3://bkt", PATIENT).get("k") == b"at last"
    assert len(server.requests) == 3


def test_a_store_that_stays_busy_is_given_up(serve):
    server = serve(answer_always(503, "SlowDown"))
    with pytest.raises(StorageError, match=r"keeps answering SlowDown; try again later"):
        open_store("s3://bkt", StoreOptions(max_retries=1)).get("k")
    assert len(server.requests) == 2


def cutting(body, etag, pieces):
    """Send at most ``pieces`` bytes of what is asked for, then cut the connection."""

    def answer(request):
        start = int(re.search(r"\d+", request.headers.get("Range", "0"))[0])
        rest = body[start:]
        headers = {"Content-Length": str(len(rest)), "ETag": etag}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return 206 if start else 200, headers, rest[:pieces]

    return answer


def test_a_body_that_is_cut_is_continued(serve, tmp_path):
    body = os.urandom(250_000)
    server = serve(cutting(body, f'"{hashlib.md5(body).hexdigest()}"', 100_000))
    store = open_store("s3://bkt", PATIENT)
    assert store.get("k") == body
    assert len(server.requests) == 3
    store.download("k", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == body


def test_a_download_goes_on_as_long_as_each_attempt_brings_something(serve, tmp_path):
    body = os.urandom(20 * 2**20)
    serve(cutting(body, '"x-2"', 6 * 2**20))
    counted = []
    store = open_store("s3://bkt", IMPATIENT)
    with pytest.raises(StorageError, match=r"connection to http://.* broke"):
        store.get("k")
    store.download("k", tmp_path / "k", on_bytes=counted.append)
    assert (tmp_path / "k").read_bytes() == body
    assert sum(counted) == len(body)


def test_a_download_that_gets_nowhere_ends_and_keeps_what_it_has(serve, tmp_path):
    body = os.urandom(9 * 2**20)

    def answer(request):
        if "Range" in request.headers:
            return 206, {"Content-Length": "1000", "ETag": '"x-2"'}, b""
        return cutting(body, '"x-2"', 5 * 2**20)(request)

    serve(answer)
    with pytest.raises(StorageError, match="can't read s3://bkt/k"):
        open_store("s3://bkt", IMPATIENT).download("k", tmp_path / "k")
    assert (tmp_path / "k.part").stat().st_size >= 4 * 2**20
    assert not (tmp_path / "k").exists()


def test_a_store_that_knows_no_ranges_sends_it_all_again(serve, tmp_path):
    body = os.urandom(3000)
    etag = hashlib.md5(body).hexdigest()
    serve(lambda _: found(body))
    (tmp_path / "k.part").write_bytes(b"?" * 1000)
    (tmp_path / "k.part.etag").write_text(etag)
    open_store("s3://bkt", IMPATIENT).download("k", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == body


def damage(body, flip):
    return bytes([body[0] ^ flip]) + body[1:]


def test_a_damaged_body_of_the_right_length_is_fetched_again(serve, tmp_path):
    body = b"the true bytes"
    etag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}

    def answer(request):
        sent = body if request.command == "HEAD" else damage(body, len(server.requests) % 2)
        return 200, etag, sent

    server = serve(answer)
    store = open_store("s3://bkt", PATIENT)
    assert store.get("k") == body
    assert len(server.requests) == 2
    counted = []
    store.download("k", tmp_path / "k", on_bytes=counted.append)
    assert (tmp_path / "k").read_bytes() == body
    assert -len(body) in counted
    assert sum(counted) == len(body)


@pytest.mark.parametrize("way", ["get", "download"])
def test_a_body_that_is_damaged_every_time_is_an_error_and_no_file(serve, tmp_path, way):
    etag = {"ETag": f'"{hashlib.md5(b"true").hexdigest()}"'}
    server = serve(lambda _: (200, etag, b"%04d" % len(server.requests)))
    store = open_store("s3://bkt", PATIENT)
    with pytest.raises(StorageError, match=r"s3://bkt/k: corrupt in transit"):
        store.get("k") if way == "get" else store.download("k", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_twice_show_that_the_etag_is_no_md5(serve, caplog):
    server = serve(lambda request: found(request.path.encode(), ETag=f'"{"0" * 32}"'))
    store = open_store("s3://bkt", PATIENT)
    with caplog.at_level("INFO", logger="mrigan"):
        for number in range(6):
            assert store.get(f"k{number}") == f"/bkt/k{number}".encode()
    assert len(server.requests) == 6 * 2
    assert [record.message for record in caplog.records] == ["md5_unchecked"]


def test_one_etag_that_is_an_md5_keeps_the_others_checked(serve):
    true = f'"{hashlib.md5(b"true").hexdigest()}"'
    server = serve(lambda r: found(b"true") if "good" in r.path else (200, {"ETag": true}, b"bad"))
    store = open_store("s3://bkt", PATIENT)
    store.get("good")
    for number in range(5):
        store.get(f"kms-{number}")
    assert len(server.requests) == 1 + 2 * 5


def test_the_etag_of_an_object_in_parts_is_not_taken_for_an_md5(serve):
    server = serve(lambda _: found(b"bytes", ETag=f'"{"0" * 32}-2"'))
    assert open_store("s3://bkt").get("k") == b"bytes"
    assert len(server.requests) == 2


def crc32(body):
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def crc64nvme(body):
    return base64.b64encode(awscrt.checksums.crc64nvme(body).to_bytes(8, "big")).decode()


CHECKSUMS = {"x-amz-checksum-crc32": crc32, "x-amz-checksum-crc64nvme": crc64nvme}


def with_checksum(request, body, name="x-amz-checksum-crc32", of=None, **headers):
    """An object without a usable ETag; S3 gives the checksum to who asks for it."""
    asked = request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    checksum = {name: CHECKSUMS[name](of or body)} if asked else {}
    return found(body, ETag=f'"{"0" * 32}-2"') if not asked else (
        200, {"ETag": f'"{"0" * 32}-2"'} | checksum | headers, body
    )  # fmt: skip


@pytest.mark.parametrize("name", CHECKSUMS)
def test_what_has_no_usable_etag_is_compared_with_the_checksum_that_s3_keeps(serve, name):
    """Of four answers three are damaged, each in its own way."""

    def answer(request):
        damaged = b"%d bytes" % len(server.requests)
        body = b"the bytes" if len(server.requests) == 4 else damaged
        return with_checksum(request, body, name, of=b"the bytes")

    server = serve(answer)
    assert open_store("s3://bkt", PATIENT).get("k") == b"the bytes"
    assert len(server.requests) == 4


def test_a_checksum_of_parts_says_nothing_so_that_two_reads_must_agree(serve):
    def answer(request):
        body = b"the bytes" if len(server.requests) > 2 else b"%d bytes" % len(server.requests)
        return 200, {"ETag": f'"{"0" * 32}-2"', "x-amz-checksum-crc32": "AAAAAA==-2"}, body

    server = serve(answer)
    assert open_store("s3://bkt", PATIENT).get("k") == b"the bytes"
    assert len(server.requests) == 4


def flipping(request, body, numbers=lambda _: True):
    """Answer with ``body``, or a range of it, in which a bit is flipped: another one each time."""
    number = len(server_requests(request))
    span = request.headers.get("Range")
    first, last = map(int, span.removeprefix("bytes=").split("-")) if span else (0, len(body) - 1)
    part = bytearray(body[first : last + 1])
    if request.command == "GET" and numbers(number):
        part[number * 7919 % len(part)] ^= 1
    headers = {"ETag": f'"{"0" * 32}-2"', "Content-Length": str(len(part))}
    if span:
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
    return 206 if span else 200, headers, bytes(part)


def server_requests(request):
    return request.server.outer.requests


LARGE = bytes(range(256)) * (9 * 2**12)  # 9 MiB: two parts


def test_bytes_of_a_known_sha256_are_read_again_and_then_in_parts(serve):
    sha256 = hashlib.sha256(LARGE).hexdigest()
    ranges = []

    def answer(request):
        ranges.append(request.headers.get("Range"))
        return flipping(request, LARGE, lambda number: number < 5)

    serve(answer)
    assert open_store("s3://bkt", PATIENT).get("k", sha256=sha256) == LARGE
    assert {*ranges} == {None, "bytes=0-8388607", "bytes=8388608-9437183"}


def test_bytes_that_differ_each_time_are_a_passing_fault_and_the_same_wrong_ones_are_not(serve):
    serve(lambda request: flipping(request, LARGE[:1000]))
    with pytest.raises(StorageError, match="other bytes each time") as differing:
        open_store("s3://bkt", PATIENT).get("k", sha256="0" * 64)
    serve(lambda _: found(b"the same"))
    with pytest.raises(StorageError, match="damaged or was replaced") as same:
        open_store("s3://bkt", PATIENT).get("k", sha256="0" * 64)
    assert (differing.value.is_passing, same.value.is_passing) == (True, False)


@pytest.fixture
def overwriting(serve):
    """An S3 that ignores If-None-Match, as rclone's and s3rver do."""
    objects = {}

    def answer(request):
        key = urlsplit(request.path).path
        if request.command == "PUT":
            objects[key] = request.body
            return found(b"")
        if request.command == "DELETE":
            objects.pop(key, None)
            return 204, {}, b""
        return found(objects[key]) if key in objects else answer_always(404, "NoSuchKey")(request)

    serve(answer)
    return objects


def test_a_store_that_ignores_if_none_match_is_found_out(overwriting):
    store = open_store("s3://bkt/run", IMPATIENT)
    assert store.honours_create() is False
    assert overwriting == {}


def test_create_looks_first_where_the_store_would_overwrite(overwriting):
    store = open_store("s3://bkt/run", IMPATIENT)
    store.put("k", b"one", create=True)
    with pytest.raises(AlreadyExistsError):
        store.put("k", b"two", create=True)
    assert overwriting == {"/bkt/run/k": b"one"}


def test_a_store_that_lacks_conditional_writes_is_written_to_without(serve):
    def answer(request):
        if "If-None-Match" in request.headers:
            return answer_always(501, "NotImplemented")(request)
        if request.command in ("GET", "HEAD"):
            return answer_always(404, "NoSuchKey")(request)
        return found(b"")

    serve(answer)
    store = open_store("s3://bkt/run", IMPATIENT)
    store.put("k", b"one", create=True)
    assert store.honours_create() is False


def test_a_store_that_is_busy_during_the_probe_is_not_taken_for_an_incapable_one(serve):
    objects = {}

    def answer(request):
        if len(server.requests) in (1, 3):
            return answer_always(503, "SlowDown")(request)
        return conditional(objects, lambda _: False)(request)

    server = serve(answer)
    assert open_store("s3://bkt/run", PATIENT).honours_create() is True


def test_a_probe_that_may_not_write_says_so(serve):
    serve(answer_always(403, "AccessDenied"))
    with pytest.raises(StorageError, match=r"can't write .*allow s3:PutObject"):
        open_store("s3://bkt/run", IMPATIENT).honours_create()


def conditional(objects, fail_after_writing):
    """An S3 that honours If-None-Match, and calls some writes failed that took place."""

    def answer(request):
        key = request.path
        if request.command != "PUT":
            return found(objects.get(key, b""))
        if key in objects and "If-None-Match" in request.headers:
            return answer_always(412, "PreconditionFailed")(request)
        objects[key] = request.body
        if fail_after_writing(key):
            return answer_always(500, "InternalError")(request)
        return found(b"")

    return answer


def test_a_create_that_failed_only_seemingly_is_a_success(serve):
    objects = {}
    serve(conditional(objects, lambda key: key.endswith("/k")))
    open_store("s3://bkt", PATIENT).put("k", b"ours", create=True)
    assert objects["/bkt/k"] == b"ours"


def test_a_create_after_a_failure_still_finds_another_writer_s_bytes(serve):
    objects = {}

    def another_writes(key):
        if key.endswith("/k"):
            objects[key] = b"theirs"
        return key.endswith("/k")

    serve(conditional(objects, another_writes))
    with pytest.raises(AlreadyExistsError):
        open_store("s3://bkt", PATIENT).put("k", b"ours", create=True)
    assert objects["/bkt/k"] == b"theirs"


def test_a_conflict_of_two_creates_is_tried_again(serve):
    objects = {}
    conflicts = iter([True])

    def answer(request):
        if request.path == "/bkt/k" and next(conflicts, False):
            return answer_always(409, "ConditionalRequestConflict")(request)
        return conditional(objects, lambda _: False)(request)

    serve(answer)
    open_store("s3://bkt", PATIENT).put("k", b"ours", create=True)
    assert objects["/bkt/k"] == b"ours"


def test_encryption_is_asked_for_in_one_piece_in_parts_and_when_creating(serve):
    def answer(request):
        if request.command in ("GET", "HEAD"):
            return answer_always(404, "NoSuchKey")(request)
        if request.command == "POST" and "uploads" in request.path:
            kind, more = "InitiateMultipartUploadResult", "<UploadId>1</UploadId>"
        else:
            kind, more = "CompleteMultipartUploadResult", "<ETag>x</ETag>"
        return found(f"<{kind}><Bucket>bkt</Bucket><Key>k</Key>{more}</{kind}>".encode())

    server = serve(answer)
    options = StoreOptions(sse="aws:kms", sse_kms_key_id="key-1", max_retries=0)
    store = open_store("s3://bkt", options)
    store.put("k", b"x")
    store.put("k", bytes(9 * 2**20))
    store.put("k", b"x", create=True)
    begun = [r for r in server.requests if r.command == "PUT" and "partNumber" not in r.path]
    begun += [r for r in server.requests if r.path.endswith("?uploads")]
    assert len(begun) >= 4  # the probe writes, too
    for write in begun:
        assert write.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert write.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"


def test_what_is_written_is_signed_with_its_bytes(serve):
    server = serve(lambda _: found(b""))
    open_store("s3://bkt", IMPATIENT).put("a picture.png", b"bytes")
    [write] = server.requests
    assert write.headers["x-amz-content-sha256"] == hashlib.sha256(b"bytes").hexdigest()
    assert write.headers["Content-Type"] == "image/png"


def list_page(keys, token=""):
    rows = "".join(
        f"<Contents><Key>{key}</Key><Size>3</Size><ETag>&quot;{'0' * 32}&quot;</ETag>"
        "<LastModified>2026-10-21T07:28:00.000Z</LastModified></Contents>"
        for key in keys
    )
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    body = (
        f"<?xml version='1.0'?><ListBucketResult><Name>bkt</Name><Prefix>run/</Prefix>"
        f"<KeyCount>{len(keys)}</KeyCount><IsTruncated>{str(bool(token)).lower()}</IsTruncated>"
        f"{more}{rows}</ListBucketResult>"
    )
    return 200, {"Content-Type": "application/xml"}, body.encode()


def test_a_listing_follows_its_pages_and_is_sorted(serve):
    def answer(request):
        query = parse_qs(urlsplit(request.path).query)
        assert query["prefix"] == ["run/"]
        first = "continuation-token" not in query
        return list_page(["run/b", "run/é"], "next") if first else list_page(["run/a", "run/z"])

    serve(answer)
    keys = [info.key for info in open_store("s3://bkt/run", IMPATIENT).list()]
    assert keys == ["a", "b", "z", "é"]


@pytest.mark.parametrize("retries", [0, 1])
def test_an_endpoint_that_is_not_there_is_named(serve, monkeypatch, retries):
    serve(lambda _: found(b""))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    store = open_store("s3://bkt/run", StoreOptions(max_retries=retries))
    for operation in OPERATIONS.values():
        with pytest.raises(StorageError, match=rf":{port} refuses connections; start it"):
            operation(store)


def test_a_host_that_nobody_knows_is_named(serve, monkeypatch):
    serve(lambda _: found(b""))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nobody.invalid:9")
    with pytest.raises(StorageError, match=r"host of http://nobody.invalid:9 is not known"):
        open_store("s3://bkt/run", IMPATIENT).get("k")


def test_silence_ends_in_time(serve):
    silence = threading.Event()
    serve(lambda _: silence.wait(200) and found(b""))
    store = open_store("s3://bkt/run", StoreOptions(max_retries=0, request_timeout_seconds=0.2))
    try:
        with pytest.raises(StorageError, match=r"does not answer in time; check the network"):
            store.get("k")
    finally:
        silence.set()


def test_sixty_four_threads_share_what_is_learnt_about_etags(serve):
    server = serve(lambda request: with_checksum(request, request.path.partition("?")[0].encode()))
    store = open_store("s3://bkt", PATIENT)
    keys = [f"k{number}" for number in range(200)]
    with ThreadPoolExecutor(64) as pool:
        bodies = list(pool.map(store.get, keys))
    assert bodies == [f"/bkt/k{number}".encode() for number in range(200)]
    assert len(server.requests) == 400
    # The ETag of the listing tells that it is no MD5: then one request with the checksum does.
    etag = f"{'0' * 32}-2"
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(lambda key: store.get(key, etag=etag), keys)) == bodies
    assert len(server.requests) == 600


def test_a_job_s_last_words_survive_a_store_that_goes_away_meanwhile(serve, caplog):
    is_written = threading.Event()

    def answer(request):
        if is_written.is_set():
            return answer_always(403, "AccessDenied")(request)
        if request.command == "PUT":
            is_written.set()
            return found(b"")
        return answer_always(404, "NoSuchKey")(request)

    server = serve(answer)
    store = open_store("s3://bkt/run", StoreOptions(max_retries=0))
    job._record_end(store, "failed", reason="it was so", exit_status=4)
    (written,) = [json.loads(each.body) for each in server.requests if each.command == "PUT"]
    assert (written["state"], written["reason"]) == ("failed", "it was so")
    assert [record.message for record in caplog.records] == ["report_not_updated"]
