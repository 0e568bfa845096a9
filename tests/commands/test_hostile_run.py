"""A run's files, damaged or written by somebody else: put right, or one line says what to do."""

import json
import shutil
from pathlib import Path

import pytest

from mrigan.storage.store import open_store

CONTENTS = {
    "empty": b"",
    "blanks": b" \n\t ",
    "nothing but zeros": bytes(64),
    "no UTF-8": b"\xff\xfe\x00{",
    "torn": b'{"state": "runn',
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "objects nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a list": b"[1, 2]",
    "a number": b"1e999",
    "text": b'"status"',
    "null": b"null",
    "another object": b'{"editor": "dark"}',
    "a large number": b'{"images_seen": 1' + b"0" * 6000 + b"}",
}
WRONG = ["x", -1, 10**30, None, {"a": [1]}, "\x1b[31m"]
JSON_FILES = {
    "run.json": ("identity", "revision", "data", "settings"),
    "status.json": ("state", "epoch", "images_seen", "summary", "memory", "started"),
    "model/config.json": ("images_seen",),
    "model/best.json": ("epoch", "images_seen", "swd"),
    "checkpoints/000000039.json": ("sha256", "images_seen", "settings", "revision"),
    "lease/000001.json": ("token", "process", "renewals"),
}


def copied(run, tmp_path):
    uri = str(shutil.copytree(run.uri, tmp_path / "copy"))
    status = json.loads((Path(uri) / "status.json").read_text()) | {"state": "running"}
    (Path(uri) / "status.json").write_text(json.dumps(status))
    return uri


def check(ended, uri):
    """Either the run is complete now, or one line says which file is wrong and what to do."""
    assert "bug of mrigan" not in ended.err
    assert "Traceback" not in ended.out + ended.err
    assert "\x1b" not in ended.out + ended.err
    if ended.status == 0:
        assert json.loads(open_store(uri).get("status.json"))["state"] == "completed"
        return
    assert ended.status in (2, 5)
    assert ended.err.count("\n") == 1
    assert uri in ended.err
    remedies = ("choose another", "remove the file", "START_OVER", "another MRIGAN_OUTPUT_URI")
    assert any(remedy in ended.err for remedy in remedies), ended.err


@pytest.mark.slow
@pytest.mark.parametrize("key", [*JSON_FILES, "metrics.jsonl", "data/manifest.jsonl"])
def test_a_damaged_file_is_put_right_or_named(finished_in_folder, tmp_path, train, key):
    for name, content in CONTENTS.items():
        uri = copied(finished_in_folder, tmp_path / name.replace(" ", "-"))
        path = Path(uri, key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        ended = train(uri)
        check(ended, uri)
        shutil.rmtree(uri)


@pytest.mark.slow
@pytest.mark.parametrize("key", JSON_FILES)
def test_a_value_of_another_kind_is_put_right_or_named(finished_in_folder, tmp_path, train, key):
    for field in JSON_FILES[key]:
        for number, wrong in enumerate(WRONG):
            uri = copied(finished_in_folder, tmp_path / f"{field}-{number}")
            path = Path(uri, key)
            content = json.loads(path.read_text()) | {field: wrong}
            path.write_text(json.dumps(content))
            check(train(uri), uri)
            shutil.rmtree(uri)


@pytest.mark.slow
def test_an_unreadable_status_is_no_reason_not_to_resume(finished_in_folder, tmp_path, train):
    uri = copied(finished_in_folder, tmp_path)
    Path(uri, "status.json").write_bytes(b"")
    ended = train(uri, epochs=4)
    assert ended.status == 0
    assert "unreadable key=status.json" in ended.out
    assert "resumed images_seen=39" in ended.out


@pytest.mark.slow
def test_rows_that_can_not_be_read_are_kept_beside(finished_in_folder, tmp_path, train):
    uri = copied(finished_in_folder, tmp_path)
    path = Path(uri, "metrics.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + b'{"epoch": "two"}\n' + lines[2]
    path.write_bytes(damaged)
    ended = train(uri, epochs=4)
    assert ended.status == 0
    assert Path(uri, "metrics.unreadable.jsonl").read_bytes() == damaged
    assert [json.loads(line)["epoch"] for line in path.read_bytes().splitlines()] == [1, 4]


@pytest.mark.slow
def test_a_lone_torn_last_line_is_left_out(finished_in_folder, tmp_path, train):
    uri = copied(finished_in_folder, tmp_path)
    path = Path(uri, "metrics.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    ended = train(uri)
    assert ended.status == 0
    assert not Path(uri, "metrics.unreadable.jsonl").exists()
