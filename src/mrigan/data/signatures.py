"""What kind of file some bytes are, by the first few hundred of them and never by a name."""

READABLE = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""The formats a slice may come in, by Pillow's names."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II\x2a\x00", "TIFF"),
    (0, b"MM\x00\x2a", "TIFF"),
    (0, b"II\x2b\x00", "TIFF"),
    (0, b"MM\x00\x2b", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (128, b"DICM", "DICOM"),
    (344, b"n+1\x00", "NIfTI"),
    (344, b"ni1\x00", "NIfTI"),
    (0, b"NRRD", "NRRD"),
    (0, b"\x1f\x8b", "gzip (perhaps NIfTI)"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"%PDF", "PDF"),
    (0, b"GIF8", "GIF"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (4, b"ftypheic", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"\x00\x00\x00\x01Bud1", ".DS_Store"),
    (0, b"BM", "BMP"),
)


def looks_like(data: bytes) -> str | None:
    """Name the kind of file that ``data`` seems to be, or None when nothing is recognised."""
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            return name
    head = data[:512].lstrip()
    if head[:1] == b"<":
        return "HTML or XML"
    if head[:1] in (b"{", b"["):
        return "JSON"
    if head.isascii() and not any(byte < 9 for byte in head):
        return "text"
    return None
