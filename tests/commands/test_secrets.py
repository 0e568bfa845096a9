"""A secret that somebody has put into a URI is shown nowhere: not on a terminal, not in a file."""

import json
from pathlib import Path

import pytest

CANARY = "c4n4ry"
URIS = [
    "s3://AKIAKEY:c4n4ry/c4n4ry+x@bucket/slices",
    "s3://c4n4ry@bucket/slices",
    "s3:/AKIAKEY:c4n4ry@bucket",
    "s3:AKIAKEY:c4n4ry@bucket",
    "file://AKIAKEY:c4n4ry@host/folder",
    "https://AKIAKEY:c4n4ry@host/bucket",
    "s3://AKIAKEY%3Ac4n4ry%2Fx@bucket/slices",
    "https://bucket.s3.amazonaws.com/k?X-Amz-Signature=c4n4ry&X-Amz-Security-Token=c4n4ry",
    "s3://bucket/k?token=c4n4ry",
]
NAMES = ["MRIGAN_INPUT_URI", "MRIGAN_OUTPUT_URI", "MRIGAN_INIT_FROM", "AWS_ENDPOINT_URL"]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_secret_in_a_uri_is_shown_nowhere(mrigan, monkeypatch, tmp_path, name, debug):
    root = tmp_path / "ml"
    (root / "input/config").mkdir(parents=True)
    (root / "input/config/resourceconfig.json").write_text(
        json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]})
    )
    for number, uri in enumerate(URIS):
        with monkeypatch.context() as patch:
            patch.setenv("MRIGAN_ML_ROOT", str(root))
            patch.setenv("MRIGAN_INPUT_URI", "s3://bucket/slices")
            patch.setenv("MRIGAN_OUTPUT_URI", str(tmp_path / f"run-{number}"))
            patch.setenv("MRIGAN_STORAGE_RETRIES", "0")
            patch.setenv("MRIGAN_STORAGE_TIMEOUT", "1")
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            patch.setenv("AWS_ACCESS_KEY_ID", "AKIAKEY")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "c4n4ry/of+the environment".replace(" ", ""))
            patch.setenv("AWS_REGION", "us-east-1")
            patch.setenv(name, uri)
            ended = mrigan("train", *(["--debug"] if debug else []))
        assert ended.status in (2, 5), ended
        assert CANARY not in ended.out + ended.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "failure" for path in written)
    for path in written:
        assert CANARY not in path.read_text(), path
        assert CANARY not in str(Path(path).relative_to(tmp_path))
