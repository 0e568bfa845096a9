"""Which patient or volume a slice is of, by its key.

What published data sets call their patients is known; in other keys, the slice's number and words
for contrasts, planes and series are no part of the name.
"""

import re
from collections import Counter
from collections.abc import Sequence

from mrigan.errors import SettingsError

_EXTENSIONS = re.compile(r"(\.[A-Za-z][A-Za-z0-9]*)+$")
_SLICE_NUMBER = re.compile(r"[^A-Za-z0-9)]*[0-9]+$")
# Numbers that count pictures: ours, and those a file manager gives, as in "m (12).jpg".
_PICTURE_NUMBER = re.compile(r"(?:(?:^|/)phantom-[0-9]{6}|\([0-9]+\))$")
# A scanner makes no more slices of one head: more names that differ in a number count pictures.
MOST_SLICES = 512

_PATIENT = re.compile(
    r"(?:^|[/_-])("
    r"OAS[0-9]_?[0-9]{4,5}|OAS3[0-9]{4}"  # OASIS
    r"|BraTS[0-9]*-[A-Z]+-[0-9]+"  # BraTS 2023 and later: BraTS-GLI-00005-100 is a second scan
    r"|BraTS[0-9]+_Training_[0-9]+|BraTS[0-9]+_Validation_[0-9]+"
    r"|BraTS(?:17|18|19)_[A-Z0-9]+_[A-Z0-9]+(?:_[0-9]+)?|BraTS2021_[0-9]+"
    r"|TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4}"  # The Cancer Genome Atlas, LGG
    r"|sub-[A-Za-z0-9]+"  # BIDS
    r"|[0-9]{3}_S_[0-9]{4,5}"  # ADNI
    r"|IXI[0-9]{3}"
    r"|(?:UPENN-GBM|UCSF-PDGM|ReMIND|Yale-Brain-Mets)-[0-9]+"
    r")(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_WORD = (
    r"(?:t1(?:ce|c|gd|n|w|post|pre)?|t2(?:w|f|star|s)?|flair|pdw?|dwi|adc|swi|asl|dti|bold|mra|tof"
    r"|mpr(?:age)?(?:[-_]?[0-9])?|run[-_]?[0-9]+|echo[-_]?[0-9]+|anon|sbj|masked|gfc|t88"
    r"|sag(?:ittal)?|cor(?:onal)?|ax(?:ial)?|tra(?:nsversal)?|slices?|img|images?|frame)"
)
_LAST_WORD = re.compile(rf"(?<=[A-Za-z0-9])[ _.-]+{_WORD}$", re.IGNORECASE)
_LAST_FOLDER = re.compile(rf"/{_WORD}$", re.IGNORECASE)
_FOLDER = re.compile(rf"(?:^|(?<=/)){_WORD}/", re.IGNORECASE)
_NUMBERED_FOLDER = re.compile(r"/(?:(?:slice|img|image|frame|z|s)?[ _-]?[0-9]+)$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"[ _.-]+[0-9]+$")
_HAS_NUMBER = re.compile(r"[0-9/]")


def volume_ids(keys: Sequence[str], pattern: str = "") -> list[str]:
    """Name the volume of each key.

    Args:
        keys: Of slices.
        pattern: A regular expression whose first group, searched for in a key, is its volume's
            name. Empty: the patient as a known data set names it, or a key without its trailing
            slice number and contrast, ``p7/t1_012.png`` and ``t2/p7_012.png`` alike; without a
            number, or where it counts pictures, the whole key.

    Raises:
        SettingsError: A key has no volume by ``pattern``.
    """
    if pattern:
        return _by_pattern(keys, re.compile(pattern))
    named = [_without_slice(key) for key in keys]
    sizes = Counter(_without_slice_number(key) for key in keys)
    return [
        key if name != patient_of(key) and sizes[_without_slice_number(key)] > MOST_SLICES else name
        for key, name in zip(keys, named, strict=True)
    ]


def patient_of(key: str) -> str:
    """The patient as a known data set writes it in its names, "" in others."""
    found = _PATIENT.search(key)
    return found[1] if found else ""


def series_of(key: str) -> str:
    """The volume, contrast and extension of a numbered slice, "" where its name tells no volume.

    ``p7/t1_012.png`` and ``p7/012/t1.png`` are of one series each, ``slice_012.png`` is of none:
    without a number of its own, a name is not known to be a patient's.
    """
    stem = _EXTENSIONS.sub("", key)
    if _PICTURE_NUMBER.search(stem):
        return ""
    contrast = ""
    if found := _LAST_FOLDER.search(stem):
        bare, contrast = _NUMBERED_FOLDER.sub("", stem[: found.start()]), found[0]
    elif found := _LAST_WORD.search(stem):
        bare, contrast = _LAST_NUMBER.sub("", stem[: found.start()]), found[0]
    else:
        bare = _SLICE_NUMBER.sub("", stem)
    if bare + contrast == stem or not any(map(str.isdigit, bare)):
        return ""
    return "\n".join((bare, contrast, key[len(stem) :]))


def splits_folders(keys: Sequence[str], names: Sequence[str]) -> bool:
    """Whether folders that look like patients' hold several volumes each."""
    folders: dict[str, set[str]] = {}
    for key, name in zip(keys, names, strict=True):
        folder, slash, _ = key.partition("/")
        if not slash or not any(map(str.isdigit, folder)):
            return False
        folders.setdefault(folder, set()).add(name)
    several = sum(len(found) > 1 for found in folders.values())
    return len(folders) > 1 and several > len(folders) / 2


def _by_pattern(keys: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    found = [pattern.search(key) for key in keys]
    names = [match.group(1) if match else None for match in found]
    missed = [key for key, name in zip(keys, names, strict=True) if not name]
    if missed:
        raise SettingsError(
            f"MRIGAN_VOLUME_PATTERN: {pattern.pattern!r} finds no volume in {missed[0]!r} "
            f"({len(missed)} of {len(keys)} keys); its first group must match in every key"
        )
    return [name for name in names if name]


def _without_slice_number(key: str) -> str:
    stem = _EXTENSIONS.sub("", key)
    return key if _PICTURE_NUMBER.search(stem) else _SLICE_NUMBER.sub("", stem)


def _without_slice(key: str) -> str:
    """The patient's known name, or the key without slice number, contrast and the like."""
    if patient := patient_of(key):
        return patient
    stem = _EXTENSIONS.sub("", key)
    if _PICTURE_NUMBER.search(stem):
        return key
    bare = _FOLDER.sub("", stem)
    if _LAST_FOLDER.search(bare):  # patient/slice/contrast, or patient/contrast
        return _NUMBERED_FOLDER.sub("", _without_words(bare)) or key
    if _LAST_WORD.search(bare):  # patient_slice_contrast, or patient_contrast
        name = _without_words(bare)
        shorter = _NUMBERED_FOLDER.sub("", name)
        if shorter == name:
            shorter = _LAST_NUMBER.sub("", name)
        return _without_words(shorter) if _HAS_NUMBER.search(shorter) else name
    return _without_words(_SLICE_NUMBER.sub("", bare)) or key


def _without_words(name: str) -> str:
    while (shorter := _LAST_FOLDER.sub("", _LAST_WORD.sub("", name))) != name:
        name = shorter
    return name
