"""Every failure of docs/messages.md again, with credentials in each place that may hold them."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

CANARY = "c4n4ry/Secret+wJalr"
IN_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "c4n4ryKeyId",
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "AWS_SESSION_TOKEN": "c4n4ryToken==",
}
BAD_URI = f"s3://AKIAKEY:{CANARY}@bucket/run"


@pytest.fixture(scope="module")
def messages():
    sys.path.insert(0, "docs")
    try:
        import messages
    finally:
        sys.path.remove("docs")
    return messages


def with_user(value, *, is_place=False):
    """``value`` with credentials in it, if it is a URI or is to be one."""
    if "://" in value:
        return value.replace("://", f"://AKIAKEY:{CANARY}@", 1)
    return f"file://AKIAKEY:{CANARY}@host/{value}" if is_place else value


def all_with_user(arguments):
    options = ["", *arguments[:-1]]
    return [
        with_user(argument, is_place=option in ("--input-uri", "--output-uri", "--init-from"))
        for option, argument in zip(options, arguments, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_message_and_no_file_shows_a_secret(messages, monkeypatch):
    """Messages as they are and with ``--debug``; files are status.json, reports, manifests."""
    shown, failed = {}, 0

    def told(arguments, environment=None):
        nonlocal failed
        environment = dict(environment or {})
        status, *streams = messages.said(arguments, IN_ENVIRONMENT | environment)
        shown[f"{arguments} {environment}"] = "".join(streams)
        if status != 0:
            failed += 1
            endpoint = environment.get("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"])
            places = {name: with_user(value) for name, value in environment.items()}
            tries = (
                (arguments, environment),
                (all_with_user(arguments), places),
                (arguments, environment | {"AWS_ENDPOINT_URL": with_user(endpoint)}),
            )
            for again, given in tries:
                debugged = [*again, "--debug"]
                _, *again_streams = messages.said(debugged, IN_ENVIRONMENT | given)
                shown[f"{debugged} {given}"] = "".join(again_streams)
        return status, streams

    monkeypatch.setattr(messages, "told", told)
    with messages.workplace() as place:
        messages.page(place)
        Path(".env").write_text(f"MRIGAN_OUTPUT_URI={BAD_URI}\n")
        assert told(["train"], {})[0] != 0
        Path(".env").unlink()
        facts = Path("ml/input/config/hyperparameters.json")
        facts.parent.mkdir(parents=True)
        facts.write_text(json.dumps({"output_uri": BAD_URI}))
        assert told(["train"], {"MRIGAN_ML_ROOT": "ml"})[0] != 0
        facts.unlink()
        files = {
            str(path.relative_to(place.folder)): path.read_bytes()
            for path in place.folder.rglob("*")
            if path.is_file() and path.stat().st_size < 2**20
        }
    assert failed > 70  # the page's cases
    assert {"wild/status.json", "tolerant/data/manifest.jsonl"} <= set(files)
    leaked = re.compile(r"c4n4ry[^ ]*|wJalr")
    assert not {what: leaked.findall(text) for what, text in shown.items() if leaked.search(text)}
    inside = re.compile(rb"c4n4ry|wJalr")
    assert not [name for name, data in files.items() if inside.search(data)]
