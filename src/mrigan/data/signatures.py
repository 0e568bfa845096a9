"""What kind of file some bytes are, by the first few hundred of them and never by a name."""

READABLE = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""The formats a slice may come in, by Pillow's names."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "DICOM"),  # before TIFF, which its preamble may be
    (0, b"\x02\x00\x00\x00UL", "DICOM without a preamble"),
    (0, b"\x02\x00\x01\x00OB", "DICOM without a preamble"),
    (0, b"\x02\x00\x02\x00UI", "DICOM without a preamble"),
    (0, b"\x02\x00\x10\x00UI", "DICOM without a preamble"),
    (0, b"\x08\x00\x00\x00", "DICOM without a preamble"),
    (0, b"\x08\x00\x05\x00", "DICOM without a preamble"),
    (0, b"\x08\x00\x08\x00", "DICOM without a preamble"),
    (0, b"\x08\x00\x16\x00", "DICOM without a preamble"),
    (0, b"\x00\x08\x00\x05CS", "DICOM without a preamble"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II\x2a\x00", "TIFF"),
    (0, b"MM\x00\x2a", "TIFF"),
    (0, b"II\x2b\x00", "TIFF"),
    (0, b"MM\x00\x2b", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (344, b"n+1\x00", "NIfTI"),
    (344, b"ni1\x00", "NIfTI"),
    (4, b"n+2\x00\r\n", "NIfTI-2"),
    (0, b"\x5c\x01\x00\x00", "Analyze or NIfTI header"),
    (0, b"\x00\x00\x01\x5c", "Analyze or NIfTI header"),
    (0, b"\x00\x00\x00\x01\x00\x00\x01", "FreeSurfer MGH"),
    (0, b"ObjectType", "MetaImage"),
    (0, b"NDims", "MetaImage"),
    (0, b"CDF\x01", "NetCDF or MINC"),
    (0, b"CDF\x02", "NetCDF or MINC"),
    (0, b"# === DATA DESCRIPTION FILE", "Philips PAR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"MATLAB 5.0", "MATLAB"),
    (257, b"ustar", "tar"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"\x04\x22\x4d\x18", "LZ4"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "RAR"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"8BPS", "Photoshop"),
    (0, b"P1\n", "PBM"),
    (0, b"P2\n", "PGM"),
    (0, b"P4\n", "PBM"),
    (0, b"P5\n", "PGM"),
    (0, b"P5 ", "PGM"),
    (0, b"P3\n", "PPM"),
    (0, b"P6\n", "PPM"),
    (0, b"P6 ", "PPM"),
    (0, b"P7\n", "PAM"),
    (0, b"Pf\n", "PFM"),
    (0, b"PF\n", "PFM"),
    (0, b"\x00\x00\x01\x00", "icon"),
    (0, b"DDS ", "DDS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda", "SGI image"),
    (0, b"%!PS", "PostScript"),
    (8, b"AVI ", "AVI"),
    (8, b"WAVE", "WAV"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"OggS", "Ogg"),
    (0, b"SQLite format 3", "SQLite"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Microsoft OLE (Thumbs.db, old Office)"),
    (0, b"\x00\x05\x16\x07", "AppleDouble"),
    (0, b"\x7fELF", "ELF program"),
    (0, b"MZ", "Windows program"),
    (0, b"PAR1", "Parquet"),
    (0, b"ARROW1", "Arrow"),
    (0, b"Obj\x01", "Avro"),
    (0, b"version https://git-lfs", "Git LFS pointer; run git lfs pull"),
    (0, b"/annex/objects/", "git-annex pointer; run git annex get"),
    (0, b"../.git/annex/objects", "git-annex pointer; run git annex get"),
    (0, b".git/annex/objects", "git-annex pointer; run git annex get"),
    (0, b"\x80\x02", "Python pickle"),
    (0, b"\x80\x03", "Python pickle"),
    (0, b"\x80\x04\x95", "Python pickle"),
    (0, b"\x80\x05\x95", "Python pickle"),
    (0, b"{\\rtf", "RTF"),
    (0, b"NRRD", "NRRD"),
    (0, b"\x1f\x8b", "gzip (perhaps NIfTI)"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"%PDF", "PDF"),
    (0, b"GIF8", "GIF"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (4, b"ftypheic", "HEIF"),
    (4, b"ftypheix", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "MP4 video"),
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
