"""Pictures and other objects of many kinds, made here: name to (bytes, what is right).

What is right is a correlation of 1 with ``head`` (``None``), or the beginning of a refusal.
"""

import io
import struct

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 53, 41


def head(height=HEIGHT, width=WIDTH):
    """A smooth picture without symmetry, 0 to 1."""
    y, x = np.mgrid[:height, :width]
    return 0.1 + 0.45 * y / height + 0.35 * x / width + 0.1 * np.sin(y / 5.0)


def typed(dtype):
    dtype = np.dtype(dtype)
    top = {1: 100, 2: 4000}.get(dtype.itemsize, 90_000)
    if dtype.kind == "f":
        return head().astype(dtype)
    return (head() * top).astype(dtype) - (top // 2 if dtype.kind == "i" else 0)


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"photometric": "minisblack", "metadata": None, **options})
    return buffer.getvalue()


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bmp(pixels, bits, masks):
    """A bottom-up BMP of BI_BITFIELDS with masks after its 40-byte header."""
    height, width = pixels.shape
    rows = [row.astype(f"<u{bits // 8}").tobytes() for row in pixels[::-1]]
    body = b"".join(row + bytes(-len(row) % 4) for row in rows)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3, len(body), 0, 0, 0, 0)
    size = 66 + len(body)
    return (
        b"BM" + struct.pack("<IHHI", size, 0, 0, 66) + header + struct.pack("<III", *masks) + body
    )


def fields(*masks):
    """Grey of ``head`` packed by ``masks``."""
    packed = np.zeros((HEIGHT, WIDTH), np.uint32)
    for mask in masks:
        shift = (mask & -mask).bit_length() - 1
        packed |= np.rint(head() * (mask >> shift)).astype(np.uint32) << shift
    return packed


def tiffs():
    found = {}
    for dtype in ("u2", "i2", "u4", "i4", "f2", "f4", "f8", "i8", "u8", "i1"):
        for order in "<>":
            for packed in (None, "lzw", "deflate", "zstd", "packbits"):
                name = f"TIFF {dtype} {order} {packed}"
                found[name] = tiff(typed(dtype), byteorder=order, compression=packed)
    for predictor in (2, 3):
        for order in "<>":
            pixels = typed("f4" if predictor == 3 else "u2")
            found[f"predictor {predictor} {order}"] = tiff(
                pixels, byteorder=order, compression="zlib", predictor=predictor
            )
    for dtype in ("i1", "u2", "i2", "f4"):
        pixels = typed(dtype)
        flipped = -pixels if dtype == "f4" else np.invert(pixels)
        found[f"MinIsWhite {dtype}"] = tiff(flipped, photometric="miniswhite")
    colour = np.stack([typed("u2")] * 3, axis=-1)
    for packed in (None, "lzw", "deflate"):
        found[f"RGB16 {packed}"] = tiff(colour, photometric="rgb", compression=packed)
        planes = np.moveaxis(colour, -1, 0)
        found[f"planar RGB16 {packed}"] = tiff(
            planes, photometric="rgb", planarconfig="separate", compression=packed
        )
    found["tiles"] = tiff(typed("u2"), tile=(16, 32), compression="lzw")
    found["BigTIFF f8"] = tiff(typed("f8"), bigtiff=True)
    found["strips of 7 rows"] = tiff(typed("i4"), rowsperstrip=7, compression="deflate")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(typed("u2"), photometric="minisblack", metadata=None)
        writer.write(typed("u2")[::4, ::4], subfiletype=1, photometric="minisblack", metadata=None)
    found["a thumbnail beside it"] = buffer.getvalue()
    return found


def others():
    grey = Image.fromarray((head() * 255).astype(np.uint8))
    twelve = (head() * 4000).astype("u2")
    jpeg8 = imagecodecs.jpeg8_encode
    return {
        "RGB565": bmp(fields(0xF800, 0x7E0, 0x1F), 16, (0xF800, 0x7E0, 0x1F)),
        "RGB555": bmp(fields(0x7C00, 0x3E0, 0x1F), 16, (0x7C00, 0x3E0, 0x1F)),
        "BGR565": bmp(fields(0x1F, 0x7E0, 0xF800), 16, (0x1F, 0x7E0, 0xF800)),
        "10 bits a colour": bmp(
            fields(0x3FF00000, 0xFFC00, 0x3FF), 32, (0x3FF00000, 0xFFC00, 0x3FF)
        ),
        "unused alpha": unused_alpha(),
        "12-bit JPEG": jpeg8(twelve, bitspersample=12, level=95),
        "12-bit lossless JPEG": jpeg8(twelve, bitspersample=12, lossless=True),
        "16-bit lossless JPEG": jpeg8(twelve * 16, bitspersample=16, lossless=True),
        "8-bit lossless JPEG": jpeg8(np.asarray(grey), lossless=True),
        "JPEG-LS": imagecodecs.jpegls_encode(np.asarray(grey)),
        "12-bit JPEG-LS": imagecodecs.jpegls_encode(twelve),
        "16-bit RGB PNG": imagecodecs.png_encode(np.stack([twelve] * 3, axis=-1)),
        "PNG": saved(grey, "PNG"),
        "16-bit PNG": saved(Image.fromarray(twelve), "PNG"),
        "JPEG": saved(grey, "JPEG", quality=95),
        "progressive JPEG": saved(grey, "JPEG", quality=95, progressive=True),
        "WebP": saved(grey, "WEBP", lossless=True),
        "BMP": saved(grey, "BMP"),
    }


def unused_alpha():
    """A BMP of 32 bits whose header speaks of alpha and whose every fourth byte is 0."""
    grey = (head() * 255).astype(np.uint8)
    quads = np.dstack([grey, grey, grey, grey * 0])
    data = bytearray(saved(Image.fromarray(quads, "RGBA"), "BMP"))
    return bytes(data)


def air(dtype="u2", sigma=3.0):
    rng = np.random.default_rng(5)
    return np.hypot(*rng.normal(0, sigma, (2, HEIGHT, WIDTH))).astype(dtype)


def mask(dtype="u1", levels=(0, 255)):
    found = np.full((HEIGHT, WIDTH), levels[0], dtype)
    for number, level in enumerate(levels[1:]):
        found[10 + 4 * number : 40 - 3 * number, 8 + 3 * number : 33] = level
    return found


def refused():
    stack = np.stack([typed("u2")] * 5)
    imagej = io.BytesIO()
    tifffile.imwrite(imagej, stack, imagej=True)
    one_page = tiff(typed("u2"), description="ImageJ=1.54f\nimages=7\nslices=7\n")
    return {
        "ImageJ stack": (imagej.getvalue(), "holds 5 "),
        "ImageJ stack in one page": (one_page, "holds 7 planes"),
        "pages": (tiff(stack), "holds 5 frames"),
        "shaped stack": (tiff(stack, metadata={}, truncate=True), "holds 5 planes"),
        "volumetric": (tiff(stack, volumetric=True, tile=(1, 16, 16)), ""),
        "complex": (tiff(head().astype("c8")), "TIFF of complex"),
        "air": (tiff(air()), "blank"),
        "louder air": (tiff(air(sigma=12.0)), "blank"),
        "air in floats": (tiff(air("f4", 0.002)), "blank"),
        "a mask": (saved(Image.fromarray(mask()), "PNG"), "a mask or label map"),
        "a mask of 16 bits": (tiff(mask("u2", (0, 1))), "a mask or label map"),
        "a label map": (tiff(mask("u2", (0, 1, 2, 4))), "a mask or label map"),
        "labels in floats": (tiff(mask("f4", (0, 1, 2, 3))), "a mask or label map"),
        "a mask in JPEG": (saved(Image.fromarray(mask()), "JPEG"), "a mask or label map"),
        "DICOM behind a TIFF's head": (
            b"II*\0" + bytes(124) + b"DICM" + bytes(99), "DICOM"),
        "DICOM, bare": (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(99), "DICOM without"),
        "DICOM, bare meta": (b"\x02\0\0\0UL\x04\0" + bytes(99), "DICOM without"),
        "PGM": (b"P5\n41 53\n255\n" + bytes(41 * 53), "PGM"),
        "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        "MetaImage": (b"ObjectType = Image\nNDims = 3\n", "MetaImage"),
        "AppleDouble": (b"\0\x05\x16\x07" + bytes(99), "AppleDouble"),
        "JPEG 2000": (imagecodecs.jpeg2k_encode(typed("u2")), "JPEG 2000"),
        "truncated": (tiff(typed("f4"))[:-300], "truncated TIFF"),
        "SQLite": (b"SQLite format 3\0" + bytes(99), "SQLite"),
    }  # fmt: skip
