"""Every kind of picture a slice comes in, and every kind of thing that is none."""

import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mrigan.data.formats import decode
from mrigan.data.refusal import UnusableSliceError

HEIGHT, WIDTH = 19, 17


def ramp(top, dtype, height=15, width=12):
    """A picture without symmetry that uses the whole of 0..top."""
    values = np.linspace(0.0, 1.0, height * width).reshape(height, width)
    return (values * top).astype(dtype)


def picture(height=31, width=27, seed=0):
    """Smooth enough for lossy formats, without symmetry, of many levels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = 90 + 3 * rows + 2 * columns + 20 * np.sin(rows / 3) + rng.normal(0, 3, (height, width))
    return waves.clip(0, 255).astype(np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels, colour_type, *, extra=b"", bits=16):
    """A PNG written by hand: Pillow writes no 16-bit colour."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    height, width = pixels.shape[:2]
    order = ">u2" if bits == 16 else "u1"
    lines = b"".join(b"\0" + line.astype(order).tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def trns(*values):
    body = b"".join(struct.pack(">H", value) for value in values)
    return (
        struct.pack(">I", len(body))
        + b"tRNS"
        + body
        + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    )


def tiff(pixels, *, order="<", photometric=1, sample_format=1, big=False):
    """A grey TIFF of one strip, of any depth and byte order."""
    height, width = pixels.shape
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    head, entry, value_bytes = (16, "HHQ", 8) if big else (8, "HHI", 4)
    tags = {256: width, 257: height, 258: pixels.dtype.itemsize * 8, 259: 1, 262: photometric,
            273: 0, 277: 1, 278: height, 279: len(raw), 339: sample_format}  # fmt: skip
    size_of_ifd = (8 if big else 2) + len(tags) * (12 + 8 if big else 12) + value_bytes
    tags[273] = head + size_of_ifd
    ifd = struct.pack(order + ("Q" if big else "H"), len(tags))
    for tag, value in tags.items():
        kind = 4 if tag in (256, 257, 273, 278, 279) else 3
        packed = struct.pack(order + ("I" if kind == 4 else "H"), value)
        ifd += struct.pack(order + entry, tag, kind, 1) + packed.ljust(value_bytes, b"\0")
    ifd += bytes(value_bytes)
    start = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 16) if big else (42, 8)))
    return (b"II" if order == "<" else b"MM") + start + ifd + raw


def rgb(grey):
    return Image.fromarray(np.stack([grey, grey // 2 + 40, 255 - grey], axis=-1))


EIGHT_BIT = {
    "grey PNG": lambda: saved(Image.fromarray(picture()), "PNG"),
    "1-bit PNG": lambda: saved(Image.fromarray(picture()).convert("1"), "PNG"),
    "palette PNG": lambda: saved(rgb(picture()).quantize(64), "PNG"),
    "colour PNG": lambda: saved(rgb(picture()), "PNG"),
    "interlaced PNG": lambda: saved(Image.fromarray(picture()), "PNG", interlace=1),
    "grey JPEG": lambda: saved(Image.fromarray(picture()), "JPEG"),
    "grey JPEG in colour": lambda: saved(Image.fromarray(picture()).convert("RGB"), "JPEG"),
    "progressive JPEG": lambda: saved(Image.fromarray(picture()), "JPEG", progressive=True),
    "TIFF": lambda: saved(Image.fromarray(picture()), "TIFF"),
    "packed TIFF": lambda: saved(Image.fromarray(picture()), "TIFF", compression="tiff_lzw"),
    "MinIsWhite TIFF": lambda: tiff(picture(), photometric=0),
    "BMP": lambda: saved(Image.fromarray(picture()), "BMP"),
    "colour BMP": lambda: saved(rgb(picture()), "BMP"),
    "WebP": lambda: saved(rgb(picture()), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_an_eight_bit_picture_gives_the_pixels_of_the_notebook(name):
    data = EIGHT_BIT[name]()
    with Image.open(io.BytesIO(data)) as image:
        expected = image.convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    got = decode(data, HEIGHT, WIDTH)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.asarray(expected))


DEEP = {
    "16-bit PNG": lambda: png(ramp(4095, np.uint16), 0),
    "16-bit TIFF": lambda: tiff(ramp(4095, np.uint16)),
    "big-endian TIFF": lambda: tiff(ramp(4095, np.uint16), order=">"),
    "BigTIFF": lambda: tiff(ramp(4095, np.uint16), big=True),
    "packed 16-bit TIFF": lambda: saved(
        Image.fromarray(ramp(4095, np.uint16)), "TIFF", compression="tiff_lzw"
    ),
    "MinIsWhite": lambda: tiff(4095 - ramp(4095, np.uint16), photometric=0),
    "big-endian MinIsWhite": lambda: tiff(4095 - ramp(4095, np.uint16), photometric=0, order=">"),
    "MinIsWhite BigTIFF": lambda: tiff(4095 - ramp(4095, np.uint16), photometric=0, big=True),
    "signed": lambda: tiff(ramp(4095, np.int16) - 1024, sample_format=2),
    "big-endian signed": lambda: tiff(ramp(4095, np.int16) - 1024, sample_format=2, order=">"),
    "signed bytes": lambda: tiff((ramp(255, np.int16) - 128).astype(np.int8), sample_format=2),
    "32-bit signed": lambda: tiff(ramp(2e9, np.int32) - 10**9, sample_format=2),
    "32-bit unsigned": lambda: tiff(ramp(4e9, np.uint32)),
    "big-endian 32-bit unsigned": lambda: tiff(ramp(4e9, np.uint32), order=">"),
    "float": lambda: tiff(ramp(1e-3, np.float32), sample_format=3),
    "big-endian float": lambda: tiff(ramp(1e38, np.float32), sample_format=3, order=">"),
    "MinIsWhite float": lambda: tiff(-ramp(1.0, np.float32), sample_format=3, photometric=0),
    "widest float": lambda: tiff(
        (ramp(2.0, np.float32) - 1) * np.float32(3.4e38), sample_format=3
    ),
    "16-bit colour PNG": lambda: png(np.stack([ramp(4095, np.uint16)] * 3, axis=-1), 2),
    "16-bit grey and alpha PNG": lambda: png(
        np.stack([ramp(4095, np.uint16), np.full((15, 12), 65535)], axis=-1), 4
    ),
    "16-bit colour and alpha PNG": lambda: png(
        np.stack([*[ramp(4095, np.uint16)] * 3, np.full((15, 12), 65535)], axis=-1), 6
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_picture_keeps_its_contrast(name):
    got = decode(DEEP[name](), 15, 12).astype(float)
    low, high = np.percentile(ramp(1.0, float), (0.5, 99.5))
    expected = ((ramp(1.0, float) - low) / (high - low)).clip(0, 1) * 255
    np.testing.assert_allclose(got, expected, atol=1.01)


def test_twelve_bits_in_a_sixteen_bit_png_do_not_saturate():
    slices = np.random.default_rng(0).integers(0, 4096, (64, 48)).astype(np.uint16)
    got = decode(png(slices, 0), 64, 48)
    assert (got == 255).mean() < 0.02
    assert got.std() > 60


def test_deep_pixels_are_resized_before_they_are_rounded():
    coarse = decode(tiff(ramp(1.0, np.float32, 8, 8), sample_format=3), 64, 64)
    assert len(np.unique(coarse)) > 200  # 64 source values only


def test_one_hot_pixel_does_not_darken_the_slice():
    pixels = ramp(4095, np.uint16, 40, 40)
    pixels[20, 20] = 65535
    plain, hot = (
        decode(png(ramp(4095, np.uint16, 40, 40), 0), 20, 20),
        decode(png(pixels, 0), 20, 20),
    )
    far = np.ones((20, 20), bool)
    far[8:13, 8:13] = False
    assert np.abs(plain.astype(int) - hot)[far].max() <= 2


def test_a_single_bright_dot_on_a_plain_ground_is_kept():
    pixels = np.zeros((40, 40), np.uint16)
    pixels[20, 20] = 900
    assert decode(png(pixels, 0), 40, 40).max() == 255


def test_pixels_that_are_not_finite_become_background():
    pixels = ramp(1.0, np.float32, 20, 20) + 5
    pixels[3, 3], pixels[4, 4], pixels[5, 5] = np.nan, np.inf, -np.inf
    got = decode(tiff(pixels, sample_format=3), 20, 20)
    assert got[3, 3] == got[4, 4] == got[5, 5] == 0
    assert got.max() == 255


def test_any_bits_may_stand_in_a_float():
    pixels = ramp(1.0, np.float32, 20, 20)
    pixels.view(np.uint32)[3, 3] = 0x7F800001  # a signalling NaN: NumPy remarks on converting it
    assert decode(tiff(pixels, sample_format=3), 20, 20)[3, 3] == 0


def test_what_is_transparent_in_a_deep_picture_is_black():
    pixels = ramp(4095, np.uint16, 20, 20)
    hidden = int(pixels[11, 7])
    got = decode(png(pixels, 0, extra=trns(hidden)), 20, 20)
    assert got[11, 7] == 0
    assert got[11, 6] > 100


WHITE_ON_NOTHING = {
    "RGBA": lambda: saved(Image.new("RGBA", (16, 16), (255, 255, 255, 0)), "PNG"),
    "LA": lambda: saved(Image.new("LA", (16, 16), (255, 0)), "PNG"),
    "WebP": lambda: saved(
        Image.new("RGBA", (16, 16), (255, 255, 255, 0)), "WEBP", lossless=True, exact=True
    ),
    "palette": lambda: saved(
        Image.new("L", (16, 16), 255).convert("P"), "PNG", transparency=bytes(256)
    ),
    "TIFF": lambda: saved(Image.new("RGBA", (16, 16), (255, 255, 255, 0)), "TIFF"),
    "tRNS": lambda: png(np.full((16, 16), 255), 0, extra=trns(255), bits=8),
    "16-bit tRNS": lambda: png(np.full((16, 16), 4000), 0, extra=trns(4000)),
    "16-bit colour tRNS": lambda: png(np.full((16, 16, 3), 4000), 2, extra=trns(4000, 4000, 4000)),
    "16-bit alpha": lambda: png(np.dstack([np.full((16, 16), 4000), np.zeros((16, 16))]), 4),
}


@pytest.mark.parametrize("name", WHITE_ON_NOTHING)
def test_what_is_transparent_is_black_and_a_slice_of_it_is_blank(name):
    with pytest.raises(UnusableSliceError, match="blank"):
        decode(WHITE_ON_NOTHING[name](), 16, 16)


def test_alpha_weighs_the_grey():
    pixels = np.zeros((16, 16, 2), np.uint8)
    pixels[..., 0], pixels[8:, :, 1], pixels[:8, :, 1] = 200, 255, 128
    got = decode(saved(Image.fromarray(pixels, "LA"), "PNG"), 16, 16)
    assert (got[0, 0], got[15, 15]) == (100, 200)


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "16-bit PNG"])
def test_the_exif_orientation_is_applied_once(kind, orientation):
    stored = np.zeros((24, 16), np.uint8)
    stored[:8, :8] = 240  # a corner that no two orientations put in one place
    stored[:8, 8:] = 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored)
    if kind == "16-bit PNG":
        image, kind = Image.fromarray(stored.astype(np.uint16) * 16), "PNG"
    options = {"lossless": True} if kind == "WEBP" else {}
    expected = UPRIGHT[orientation](stored)
    got = decode(saved(image, kind, exif=exif, **options), *expected.shape)
    assert np.abs(got.astype(float) * 240 / got.max() - expected).mean() < 4


def test_cmyk_is_inverted_only_where_adobe_wrote_it():
    image = Image.fromarray(255 - picture(32, 32))
    zero = Image.new("L", (32, 32))
    adobe = saved(Image.merge("CMYK", (zero, zero, zero, image)), "JPEG", quality=95)
    at = adobe.index(b"\xff\xee")
    plain = adobe[:at] + adobe[at + 2 + int.from_bytes(adobe[at + 2 : at + 4], "big") :]
    got = decode(adobe, 32, 32).astype(int)
    assert np.abs(got - picture(32, 32)).mean() < 4
    # Without the marker the same samples say ink where they said none: all black, but for nothing.
    with pytest.raises(UnusableSliceError, match="blank"):
        decode(plain, 32, 32)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (37, 11)])
def test_pad_keeps_the_aspect_and_letterboxes_on_black(height, width, deep):
    pixels = np.full((height, width), 200)
    pixels[height // 2 - 2 : height // 2 + 1, 4:7] = 0  # enough to be in the window
    data = png(pixels * 20, 0) if deep else png(pixels, 0, bits=8)
    got = decode(data, 32, 32, "pad")
    filled = got > 60
    rows, columns = filled.any(axis=1).sum(), filled.any(axis=0).sum()
    assert max(rows, columns) == 32
    assert rows / columns == pytest.approx(height / width, rel=0.1)
    np.testing.assert_allclose(np.argwhere(filled).mean(axis=0), (15.5, 15.5), atol=0.6)


def test_crop_keeps_the_aspect_and_cuts_the_centre():
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = np.linspace(50, 250, 20)[None]
    got = decode(png(pixels, 0, bits=8), 20, 20, "crop")
    np.testing.assert_array_equal(got, pixels[:, 20:40])


def pages(count):
    images = [Image.fromarray(picture(seed=seed)) for seed in range(count)]
    return {"save_all": True, "append_images": images[1:]}, images[0]


def frames(kind, count, **options):
    more, image = pages(count)
    return saved(image, kind, **more, **options)


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + (struct.pack(">I", 4) + b"IDAT" + bytes(4))
    )


GOOD_PNG = EIGHT_BIT["grey PNG"]()
NOT_A_SLICE = {
    "zero bytes": (b"", "^zero bytes$"),
    "DICOM": (bytes(128) + b"DICM" + bytes(64), "^DICOM; not read in this version$"),
    "NIfTI": (bytes(344) + b"n+1\0" + bytes(64), "^NIfTI; not read"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "^gzip .*not read"),
    "HTML": (b"\n<!DOCTYPE html><html>no such bucket</html>", "^HTML or XML; not read"),
    "CSV": (b"patient,slice\n1,2\n", "^text; not read"),
    "JSON": (b'{"a": 1}', "^JSON; not read"),
    "GIF": (saved(Image.fromarray(picture()), "GIF"), "^GIF; not read"),
    "zip": (b"PK\x03\x04" + bytes(64), "^zip; not read"),
    "noise": (bytes(range(128, 256)) * 9, "^not an image$"),
    "a cut PNG": (GOOD_PNG[: len(GOOD_PNG) // 2], "^truncated PNG$"),
    "a cut JPEG": (EIGHT_BIT["grey JPEG"]()[:-200], "^truncated JPEG$"),
    "a cut BMP": (EIGHT_BIT["BMP"]()[:-200], "^truncated BMP$"),
    "a cut TIFF": (tiff(picture())[:-200], "^truncated TIFF$"),
    "a TIFF that lacks strips": (
        tiff(picture()).replace(
            struct.pack("<HHIII", 257, 4, 1, 31, 258)[:12], struct.pack("<HHII", 257, 4, 1, 310)
        ),
        "^truncated TIFF$",
    ),
    "a cut WebP": (EIGHT_BIT["WebP"]()[:-200], "WEBP"),
    "a PNG's head": (GOOD_PNG[:20], "PNG"),
    "65 Mpx": (bomb(6500, 10001), "^6500x10001 px; 64 Mpx is the limit$"),
    "100 Mpx": (bomb(10_000, 10_000), "64 Mpx"),
    "a gigapixel": (bomb(40_000, 40_000), "64 Mpx"),
    "two pages": (frames("TIFF", 2), "^holds 2 frames; one slice"),
    "an animated PNG": (frames("PNG", 3), "^holds 3 frames; one slice"),
    "an animated WebP": (frames("WEBP", 3), "^holds 3 frames; one slice"),
    "black": (saved(Image.new("L", (32, 32)), "PNG"), "^blank"),
    "nearly black": (png(np.arange(256).reshape(16, 16) % 7, 0, bits=8), "^blank"),
    "a plain deep one": (png(np.full((16, 16), 900), 0), "^blank"),
    "too small": (saved(Image.new("L", (7, 99)), "PNG"), "^7x99 px; 8 px a side"),
    "mostly NaN": (tiff(np.full((16, 16), np.nan, np.float32), sample_format=3), "^100% of the"),
    "complex TIFF": (tiff(ramp(1.0, np.complex64), sample_format=6), "^TIFF of complex.*not read"),
}


@pytest.mark.parametrize("name", NOT_A_SLICE)
def test_what_is_no_slice_is_refused_with_its_reason(name):
    data, reason = NOT_A_SLICE[name]
    with pytest.raises(UnusableSliceError, match=reason):
        decode(data, HEIGHT, WIDTH)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_plain_bright_picture_is_blank_however_it_is_fitted(fit):
    with pytest.raises(UnusableSliceError, match="blank"):
        decode(saved(Image.new("L", (40, 16), 200), "PNG"), 32, 32, fit)


def test_eight_grey_levels_are_enough():
    decode(png(np.arange(256).reshape(16, 16) % 9, 0, bits=8), 16, 16)


SEEDS = {**EIGHT_BIT, **DEEP, **{f"alpha {k}": v for k, v in WHITE_ON_NOTHING.items()}}


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_bytes_are_decoded_or_refused_and_never_anything_else(name, capfd):
    data = SEEDS[name]()
    rng = random.Random(name)
    for round_number in range(60):
        damaged = bytearray(data)
        # Headers are where the interesting lies are told.
        reach = len(data) if round_number % 2 else min(len(data), 300)
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(reach)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if round_number % 5 == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        outcome = decoded_or_refused(bytes(damaged))
        assert outcome.isprintable()
        assert len(outcome) < 120
    # The C library behind packed TIFFs has its own way to stderr, with no thread-safe end to it.
    assert "packed" in name or capfd.readouterr().err == ""


def decoded_or_refused(data):
    try:
        got = decode(data, 16, 16)
    except UnusableSliceError as refusal:
        return refusal.reason
    return f"{got.shape} {got.dtype}"


def test_threads_do_not_disturb_each_other():
    data = [make() for make in (*EIGHT_BIT.values(), *DEEP.values())]
    expected = [decode(one, HEIGHT, WIDTH) for one in data]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda one: decode(one, HEIGHT, WIDTH), data * 8))
    for index, pixels in enumerate(got):
        np.testing.assert_array_equal(pixels, expected[index % len(expected)])
