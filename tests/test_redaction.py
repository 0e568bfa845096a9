"""Secrets and characters that act on a terminal, wherever they might be shown."""

import io
import json
import logging

import pytest

from mrigan import logs
from mrigan.redaction import printable, redact, shown

CANARY = "c4n4ry/Secret+wJalr"
URIS = [
    f"s3://AKIAKEY:{CANARY}@bucket/slices",
    f"s3://{CANARY.replace('/', '')}@bucket/slices",
    f"s3:/AKIAKEY:{CANARY}@bucket",
    f"s3:AKIAKEY:{CANARY}@bucket",
    f"file://user:{CANARY}@host/folder",
    f"https://user:{CANARY}@minio.example:9000",
    f"http://user:p@{CANARY}@minio.example",
    "s3://AKIAKEY%3Ac4n4ry%2FSecret@bucket/slices",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=c4n4ry&X-Amz-Signature=c4n4ry",
    "https://account.blob.example/k?sv=1&sig=c4n4ry%2B&se=2",
    "https://host/k?access_token=c4n4ry",
    "password=c4n4ry",
]


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("around", ["{}", "can't read {}: it is gone", "'{}'; choose another"])
def test_a_secret_in_a_uri_is_hidden(uri, around):
    said = redact(around.format(uri))
    assert "c4n4ry" not in said
    assert "…" in said
    assert said.endswith(around.format("x")[-6:] if around != "{}" else "")


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/runs/first",
        "s3://bucket/patient@home/1.png",
        "/data/a@b/c.png",
        "12:30:11 epoch epoch=3 d_loss=1.2",
        "MRIGAN_OUTPUT_URI: runs/x lies inside runs",
        "key='sub-01/token.png'",
    ],
)
def test_what_is_no_secret_stays(text):
    assert shown(text) == text


def test_a_credential_of_the_environment_is_hidden_in_every_spelling(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "c4n4ryToken==")
    said = redact(f"a {CANARY} b c4n4ry%2FSecret%2BwJalr c c4n4ryToken== d c4n4ryToken%3D%3D")
    assert said == "a … b … c … d …"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\x9b31m", "a\\x9b31m"),
        ("a\x07\x00\x7f", "a\\x07\\x00\\x7f"),
        ("ab\u202egnp.exe", "ab\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half \udcff", "half \\udcff"),
        ("line\u2028end", "line\\u2028end"),
        ("Köpfe 頭 🧠", "Köpfe 頭 🧠"),
    ],
)
def test_what_acts_on_a_terminal_is_written_out(text, seen):
    assert printable(text) == seen
    seen.encode()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_log_line_shows_either(log_format, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    stream = io.StringIO()
    ours = logging.getLogger("mrigan")
    before = ours.handlers[:], ours.propagate, ours.level
    try:
        logs.configure(log_format, stream, debug=True)
        log = logging.getLogger("mrigan.test")
        for uri in URIS:
            log.info("skipped", extra={"key": f"a\x1b[2J\r\n\t\u202e{uri}"})
            log.error("error", extra={"reason": f"can't read {uri} ({CANARY})"})
        try:
            raise ValueError(URIS[0], CANARY)
        except ValueError:
            log.exception("error", extra={"reason": CANARY})
    finally:
        ours.handlers[:], ours.propagate, level = before
        ours.setLevel(level)
        logging.captureWarnings(capture=False)
    said = stream.getvalue()
    assert "c4n4ry" not in said
    for character in "\x1b\r\u202e":
        assert character not in said
    if log_format == "json":
        assert all(json.loads(line) for line in said.splitlines())
