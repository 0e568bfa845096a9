"""What docs/messages.py provokes: wrong settings, places and objects."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mrigan.data.phantom import draw

SMALL = ["--image-height", "32", "--image-width", "32", "--epochs", "1", "--batch-size", "4"]
TRAIN = ["train", *SMALL, "--accumulation-steps", "1", "--input-uri", "phantom://8"]
TO_BUCKET = [*TRAIN, "--output-uri", "s3://bucket/run", "--storage-retries", "0"]
HYPERPARAMETERS = "ml/input/config/hyperparameters.json"


@dataclass(frozen=True)
class Case:
    """One command that fails.

    Attributes:
        name: What is wrong.
        arguments: Of the command.
        environment: Beside the workplace's.
        files: By path, there only for this command.
        s3_code: What the S3 answers to everything.
    """

    name: str
    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    s3_code: str = ""


def variable(name: str, **values: str) -> Case:
    """A setting in the environment that is wrong."""
    return Case(name, ["train"], {f"MRIGAN_{key}": value for key, value in values.items()})


def from_sagemaker(name: str, text: str) -> Case:
    """Settings in SageMaker's file."""
    return Case(name, ["train"], {"MRIGAN_ML_ROOT": "ml"}, {HYPERPARAMETERS: text})


COMMAND_LINE = [
    Case("a misspelt command", ["trian"]),
    Case("a misspelt option", ["train", "--epoch", "3"]),
    Case("an option without its value", ["train", "--epochs"]),
    Case("a URI without its option", ["train", "s3://bucket/slices"]),
    Case("another command's option", ["phantom", "slices", "--storage-retries", "0"]),
    Case("a misspelt option of fetch", ["fetch", "done", "copy", "--olny", "samples"]),
    Case("an unknown part to fetch", ["fetch", "done", "copy", "--only", "sample"]),
    Case("phantoms that can't be drawn", ["phantom", "slices", "--count", "0", "--height", "31"]),
    Case("slices without reals to compare with", ["evaluate", "slices"]),
    Case("too few slices to compare", ["evaluate", "done", "--count", "10"]),
    Case("a run compared with itself", ["compare", "done", "done"]),
    Case("a format that can't be exported", ["export", "done", "generator.pth"]),
    Case("a sheet without a name", ["preview", "sheets/"]),
    Case("a sheet of one column", ["preview", "sheet.png", "--columns", "1"]),
    Case("a folder to upload that is not there", ["phantom", "slices", "--from", "nowhere"]),
    Case("a folder to upload with nothing in it", ["phantom", "slices", "--from", "empty"]),
]

SETTINGS = [
    variable("a misspelt variable", SEDD="3"),
    Case("a misspelt name in .env", ["train"], files={".env": "MRIGAN_EPOCS=3\n"}),
    from_sagemaker("a misspelt hyperparameter", json.dumps({"batchsize": "8"})),
    variable("text for a number", BATCH_SIZE="lots"),
    Case("text for a number in .env", ["train"], files={".env": "MRIGAN_SEED=one\n"}),
    from_sagemaker("text for a number in hyperparameters.json", json.dumps({"epochs": "many"})),
    from_sagemaker("hyperparameters.json that is no JSON", "epochs: 3\n"),
    from_sagemaker("hyperparameters.json that is a list", "[1, 2]\n"),
    variable("a fraction for a count", EPOCHS="1.5"),
    variable("a size below 32", IMAGE_HEIGHT="31"),
    variable("a size beyond 2048", IMAGE_WIDTH="4096"),
    variable("a learning rate of nothing", G_LR="0"),
    variable("a learning rate that is no number", D_LR="nan"),
    variable("a β of one", BETA1="1"),
    variable("a negative seed", SEED="-1"),
    variable("more than all of it", MAX_REFUSED="101%"),
    variable("an unknown choice", FIT="squash"),
    variable("an unknown model", MODEL="stylegan"),
    variable("an unknown schedule of γ", GAMMA="large"),
    variable("a pass that would cut a group of images", MICRO_BATCH="48"),
    Case("a sweep for a model without γ", ["gamma-sweep", "--model", "dcgan"]),
    Case("a sweep of one γ", ["gamma-sweep", "--model", "r3-tiny", "--gamma", "paper"]),
    variable("a glob with a backslash", EXCLUDE="labels\\*"),
    variable("a pattern that does not close", VOLUME_PATTERN="(scan"),
    variable("a pattern without a group", VOLUME_PATTERN="scan_[0-9]+"),
    variable("a rotation beyond 15°", AUGMENT_ROTATION="90"),
    variable("frozen layers without weights", FREEZE_D="2"),
    Case("a launch without role and image", ["launch"]),
    variable("an unknown precision", PRECISION="fp16"),
    variable("an unknown encryption", SSE="kms"),
    variable("a KMS key without KMS", SSE_KMS_KEY_ID="alias/mri"),
    variable("another cloud's URI", INPUT_URI="gs://bucket/slices"),
    variable("a URI of nothing", OUTPUT_URI="s3://"),
    variable("phantoms without a number", INPUT_URI="phantom://many"),
    variable("an output that can't be written to", OUTPUT_URI="phantom://8"),
    Case("output inside input", ["train", "--input-uri", "data", "--output-uri", "data/run"]),
    variable("several mistakes at once", EPOCHS="0", SEDD="3", FIT="squash"),
    Case("a GPU where there is none", [*TRAIN, "--output-uri", "run", "--device", "cuda"]),
    Case("a Mac's GPU elsewhere", [*TRAIN, "--output-uri", "run", "--device", "mps"]),
]

RUNS = [
    Case("a run that is complete", [*TRAIN, "--output-uri", "done"]),
    Case(
        "other settings against a run",
        [*TRAIN, "--output-uri", "done", "--seed", "7", "--batch-size", "5"],
    ),
    Case(
        "other slices against a run",
        [*TRAIN, "--input-uri", "phantom://9", "--output-uri", "done", "--epochs", "2"],
    ),
    Case(
        "another program's run.json at the output",
        [*TRAIN, "--output-uri", "taken"],
        files={"taken/run.json": '{"editor": "dark"}'},
    ),
    Case(
        "a run that another version of mrigan began",
        [*TRAIN, "--output-uri", "older"],
        files={"older/run.json": '{"identity": {}}'},
    ),
    Case(
        "a run.json that is no JSON",
        [*TRAIN, "--output-uri", "torn"],
        files={"torn/run.json": '{"settings": '},
    ),
    Case(
        "learning rates far too high",
        [*TRAIN, "--output-uri", "wild", "--epochs", "40", "--g-lr", "1", "--d-lr", "1", "--beta1",
         "0.9", "--beta2", "0"],
    ),
    Case(
        "weights of a place without a run",
        [*TRAIN, "--output-uri", "run", "--init-from", "empty"],
    ),
    Case(
        "weights of another model",
        [*TRAIN, "--output-uri", "run", "--init-from", "done", "--model", "r3-tiny"],
    ),
    Case("no run to fetch", ["fetch", "empty", "copy"]),
    Case("a folder of runs to fetch", ["fetch", "a", "copy"], files={"a/run/status.json": "{}"}),
    Case("a run fetched into itself", ["fetch", "done", "done"]),
]  # fmt: skip

DATA = [
    Case("an empty folder", [*TRAIN, "--input-uri", "empty", "--output-uri", "run"]),
    Case("no such folder", [*TRAIN, "--input-uri", "nowhere", "--output-uri", "run"]),
    Case("a file for a folder", [*TRAIN, "--input-uri", "a-file", "--output-uri", "run"]),
    Case("no slice among the objects", [*TRAIN, "--input-uri", "useless", "--output-uri", "run"]),
    Case("no slice for a sheet", ["preview", "sheet.png", "--input-uri", "empty"]),
    Case("too many refused", [*TRAIN, "--input-uri", "mixed", "--output-uri", "run"]),
]

STORAGE = [
    Case("no such bucket", [*TRAIN, "--output-uri", "s3://no-such-bucket/run"]),
    Case(
        "no such bucket to read from",
        [*TRAIN, "--input-uri", "s3://no-such-bucket/slices", "--output-uri", "run"],
    ),
    Case("a bucket name that is none", [*TRAIN, "--output-uri", "s3://A/run"]),
    Case("credentials in the URI", [*TRAIN, "--output-uri", "s3://AKIA12:secret@bucket/run"]),
    Case("a file URI of another machine", [*TRAIN, "--output-uri", "file://server/run"]),
    Case("nothing listens at the endpoint", TO_BUCKET, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
    Case("an unknown host", TO_BUCKET, {"AWS_ENDPOINT_URL": "http://s3.invalid"}),
    Case("an endpoint that is no URL", TO_BUCKET, {"AWS_ENDPOINT_URL": "localhost:8333"}),
    Case(
        "credentials in the endpoint",
        TO_BUCKET,
        {"AWS_ENDPOINT_URL": "http://AKIA12:secret/of+mine@minio.example:9000"},
    ),
    Case("no credentials", TO_BUCKET, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}),
    Case("a profile that is not there", TO_BUCKET, {"AWS_PROFILE": "research"}),
    Case("access denied", TO_BUCKET, s3_code="AccessDenied"),
    Case("an access key of another store", TO_BUCKET, s3_code="InvalidAccessKeyId"),
    Case("a wrong secret key", TO_BUCKET, s3_code="SignatureDoesNotMatch"),
    Case("expired credentials", TO_BUCKET, s3_code="ExpiredToken"),
    Case("a clock that is off", TO_BUCKET, s3_code="RequestTimeTooSkewed"),
    Case("a bucket of another region", TO_BUCKET, s3_code="PermanentRedirect"),
    Case("a KMS key that is disabled", TO_BUCKET, s3_code="KMS.DisabledException"),
    Case("a store that stays busy", TO_BUCKET, s3_code="SlowDown"),
    Case("a file where the output's folder should be", [*TRAIN, "--output-uri", "a-file/run"]),
]


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
    jpeg, png, tiff = (encoded(slice_, kind) for kind in ("JPEG", "PNG", "TIFF"))
    nan = Image.fromarray(np.full((40, 40), np.nan, np.float32))
    blank = Image.fromarray(np.full((40, 40), 900, np.uint16))
    return {
        ".DS_Store": b"\x00\x00\x00\x01Bud1" + bytes(40),
        "animated.webp": encoded(slice_, "WEBP", save_all=True, append_images=[slice_.rotate(9)]),
        "archive.zip": b"PK\x03\x04" + bytes(40),
        "array.npy": b"\x93NUMPY" + bytes(40),
        "black.png": encoded(Image.new("L", (64, 52)), "PNG"),
        "blank-16-bit.png": encoded(blank, "PNG"),
        "bomb.png": png_header(40_000, 40_000),
        "cut-off.jpg": jpeg[: len(jpeg) // 2],
        "cut-off.png": png[: len(png) // 2],
        "cut-off.tif": tiff[: len(tiff) // 2],
        "damaged-header.png": png[:8] + b"\xff" * 40,
        "damaged-pixels.png": png[:60] + bytes(200) + png[260:],
        "dicom.dcm": bytes(128) + b"DICM" + bytes(64),
        "empty.png": b"",
        "gif.gif": encoded(slice_, "GIF"),
        "icon.png": encoded(slice_.resize((5, 5)), "PNG"),
        "labels.csv": b"key,label\nslice-1.png,glioma\n",
        "large.png": png_header(10_000, 8_000),
        "noise.bin": bytes(range(1, 256)) * 4,
        "not-finite.tif": encoded(nan, "TIFF"),
        "page.html": b"<!doctype html><title>403</title>",
        "paper.pdf": b"%PDF-1.7\n",
        "sidecar.json": b'{"RepetitionTime": 2}',
        "volume.nii": bytes(344) + b"n+1\x00" + bytes(40),
        "volume.nii.gz": b"\x1f\x8b\x08\x00" + bytes(32),
        "volume.tif": encoded(slice_, "TIFF", save_all=True, append_images=[slice_] * 2),
    }
