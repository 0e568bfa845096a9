"""Writes docs/messages.md: provokes each failure for real and notes what the user is told.

    python docs/messages.py          writes the page
    python docs/messages.py --check  fails if the page is not current

Runs in a temporary folder against real files, and a real S3 over HTTP (moto's) for the bucket's
failures. Temporary paths and ports are replaced by names.
"""

import contextlib
import io
import json
import logging
import os
import re
import struct
import sys
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from moto.server import ThreadedMotoServer
from PIL import Image

from mrigan.cli import run
from mrigan.data.phantom import draw

PAGE = Path(__file__).with_name("messages.md")
SMALL = ["--image-height", "32", "--image-width", "32", "--epochs", "1", "--batch-size", "4"]
TRAIN = ["train", *SMALL, "--accumulation-steps", "1", "--input-uri", "phantom://8"]

Case = tuple[str, dict[str, str], list[str]]  # what is wrong, environment, arguments

SETTINGS: list[Case] = [
    ("a misspelt variable", {"MRIGAN_SEDD": "3"}, ["train"]),
    ("a misspelt option", {}, ["train", "--epoch", "3"]),
    ("two mistakes at once", {"MRIGAN_EPOCHS": "0", "MRIGAN_G_LR": "nan"}, ["train"]),
    ("text for a number", {"MRIGAN_BATCH_SIZE": "lots"}, ["train"]),
    ("a size below 32", {"MRIGAN_IMAGE_HEIGHT": "31"}, ["train"]),
    ("an unknown choice", {"MRIGAN_FIT": "squash"}, ["train"]),
    ("an unknown model", {"MRIGAN_MODEL": "stylegan"}, ["train"]),
    ("an unknown precision", {"MRIGAN_PRECISION": "fp16"}, ["train"]),
    ("another cloud's URI", {"MRIGAN_INPUT_URI": "gs://bucket/slices"}, ["train"]),
    ("phantoms without a number", {"MRIGAN_INPUT_URI": "phantom://many"}, ["train"]),
    ("an output that can't be written to", {"MRIGAN_OUTPUT_URI": "phantom://8"}, ["train"]),
    ("output inside input", {}, ["train", "--input-uri", "data", "--output-uri", "data/run"]),
    ("a KMS key without KMS", {"MRIGAN_SSE_KMS_KEY_ID": "alias/mri"}, ["train"]),
    ("a GPU where there is none", {}, [*TRAIN, "--output-uri", "run", "--device", "cuda"]),
    ("other settings against a run", {}, [*TRAIN, "--output-uri", "done", "--seed", "7"]),
    ("a run that is complete", {}, [*TRAIN, "--output-uri", "done"]),
    ("an unknown part to fetch", {}, ["fetch", "done", "copy", "--only", "sample"]),
]

DATA: list[Case] = [
    ("an empty folder", {}, [*TRAIN, "--input-uri", "empty", "--output-uri", "run"]),
    ("no such folder", {}, [*TRAIN, "--input-uri", "nowhere", "--output-uri", "run"]),
    ("no slice among the objects", {}, [*TRAIN, "--input-uri", "useless", "--output-uri", "run"]),
    ("too many refused", {}, [*TRAIN, "--input-uri", "mixed", "--output-uri", "run"]),
    ("other slices against a run", {},
     [*TRAIN, "--input-uri", "phantom://9", "--output-uri", "done", "--epochs", "2"]),
    ("learning rates far too high", {},
     [*TRAIN, "--output-uri", "wild", "--epochs", "40", "--g-lr", "1", "--d-lr", "1",
      "--beta1", "0.9", "--beta2", "0"]),
]  # fmt: skip

STORAGE: list[Case] = [
    ("no such bucket", {}, [*TRAIN, "--output-uri", "s3://no-such-bucket/run"]),
    ("a bucket name that is none", {}, [*TRAIN, "--output-uri", "s3://A/run"]),
    ("nothing listens at the endpoint", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
     [*TRAIN, "--output-uri", "s3://bucket/run", "--storage-retries", "0"]),
    ("no credentials", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
     [*TRAIN, "--output-uri", "s3://bucket/run"]),
    ("an endpoint that is no URL", {"AWS_ENDPOINT_URL": "localhost:8333"},
     [*TRAIN, "--output-uri", "s3://bucket/run"]),
    ("a file where the output's folder should be", {}, [*TRAIN, "--output-uri", "a-file/run"]),
    ("no run to fetch", {}, ["fetch", "empty", "copy"]),
]  # fmt: skip


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bad_objects() -> dict[str, bytes]:
    """Objects that are no slices, by a name that says why."""
    slice_ = Image.fromarray(draw(0, 64, 52))
    jpeg, png = encoded(slice_, "JPEG"), encoded(slice_, "PNG")
    nan = Image.fromarray(np.full((40, 40), np.nan, np.float32))
    return {
        "animated.webp": encoded(slice_, "WEBP", save_all=True, append_images=[slice_.rotate(9)]),
        "black.png": encoded(Image.new("L", (64, 52)), "PNG"),
        "bomb.png": png_header(40_000, 40_000),
        "cut-off.jpg": jpeg[: len(jpeg) // 2],
        "cut-off.png": png[: len(png) // 2],
        "damaged-header.png": png[:8] + b"\xff" * 40,
        "dicom.dcm": bytes(128) + b"DICM" + bytes(64),
        "empty.png": b"",
        "gif.gif": encoded(slice_, "GIF"),
        "icon.png": encoded(slice_.resize((5, 5)), "PNG"),
        "labels.csv": b"key,label\nslice-1.png,glioma\n",
        "not-finite.tif": encoded(nan, "TIFF"),
        "page.html": b"<!doctype html><title>403</title>",
        "volume.nii.gz": b"\x1f\x8b\x08\x00" + bytes(32),
        "volume.tif": encoded(slice_, "TIFF", save_all=True, append_images=[slice_] * 2),
    }


def fill(folder: Path, objects: dict[str, bytes], slices: int) -> None:
    """Write ``objects`` and so many good slices below ``folder``."""
    folder.mkdir()
    for name, data in objects.items():
        (folder / name).write_bytes(data)
    for index in range(slices):
        (folder / f"slice-{index:03d}.png").write_bytes(
            encoded(Image.fromarray(draw(index, 40, 36)), "PNG")
        )


def told(environment: dict[str, str], arguments: list[str]) -> tuple[int, list[str]]:
    """Run one command and return its status and the lines meant for the user."""
    out, err = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    lines = err.getvalue().splitlines() or out.getvalue().splitlines()[-1:]
    return status, [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines]


def rows(cases: list[Case], tidy: Callable[[str], str]) -> Iterator[str]:
    """The table of some cases."""
    yield "| what is wrong | exit | what you read |\n|---|---|---|\n"
    for name, environment, arguments in cases:
        status, lines = told(environment, arguments)
        message = "<br>".join(f"`{tidy(line)}`" for line in lines)
        yield f"| {name} | {status} | {message} |\n"


def refusals(tidy: Callable[[str], str]) -> Iterator[str]:
    """The table of objects that are no slices, from the manifest of a job that went on."""
    arguments = [*TRAIN, "--input-uri", "many", "--output-uri", "tolerant", "--max-refused", "100"]
    status, lines = told({}, arguments)
    assert status == 0, lines
    yield "| object | reason in the manifest |\n|---|---|\n"
    for line in Path("tolerant/data/manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] == "refused":
            yield f"| `{entry['key']}` | {tidy(entry['reason'])} |\n"


def page(folder: Path, endpoint: str) -> str:
    """Make the page, working in ``folder``."""

    def tidy(text: str) -> str:
        text = text.replace(str(folder), "/home/you").replace(endpoint, "http://s3:8333")
        text = re.sub(r"torch \S+ finds", "torch 2.14.1 finds", text)
        text = re.sub(r"at [\d,]+ images", "at 8 images", text)
        return text.replace("|", "\\|")

    objects = bad_objects()
    fill(folder / "many", objects, 12)
    fill(folder / "mixed", {name: objects[name] for name in ("empty.png", "labels.csv")}, 12)
    fill(folder / "useless", {name: objects[name] for name in ("dicom.dcm", "page.html")}, 0)
    (folder / "empty").mkdir()
    (folder / "a-file").write_text("in the way")
    status, lines = told({}, [*TRAIN, "--output-uri", "done"])
    assert status == 0, lines
    parts = [
        "# What you are told when something is wrong\n\n",
        "Each line is what the command printed when the failure was provoked: `docs/messages.py`\n",
        "does so, and writes this page. One line a problem: what, where, what to do. `--debug`\n",
        "adds a traceback.\n\n## Settings\n\n",
        *rows(SETTINGS, tidy),
        "\n## Slices and training\n\n",
        *rows(DATA, tidy),
        "\n## Storage\n\n",
        *rows(STORAGE, tidy),
        "\n## Objects that are no slices\n\nThe job goes on without them while there are no more "
        "than `MAX_REFUSED`.\n\n",
        *refusals(tidy),
    ]
    return "".join(parts)


@contextlib.contextmanager
def workplace() -> Iterator[tuple[Path, str]]:
    """A temporary current folder and an S3's URL; the environment knows nothing else."""
    kept, before = dict(os.environ), Path.cwd()
    for name in list(os.environ):
        if name.startswith(("MRIGAN_", "AWS_")):
            del os.environ[name]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
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
            "MRIGAN_CACHE_DIR": str(folder / "cache"),
        }
        request = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
        urllib.request.urlopen(request).close()
        os.chdir(folder)
        try:
            yield folder, endpoint
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(kept)
            server.stop()


def main() -> None:
    with workplace() as (folder, endpoint):
        text = page(folder, endpoint)
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif text != PAGE.read_text():
        sys.exit("docs/messages.md is not current: python docs/messages.py")


if __name__ == "__main__":
    main()
