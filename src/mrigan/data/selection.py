"""Which of the objects listed are meant to be slices, by their names alone.

Patterns are those of .gitignore: ``*`` and ``?`` stay within a name, ``**`` crosses folders, and a
pattern that matches a folder matches all in it. One that begins with ``/`` holds at the top.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mrigan.storage.keys import ObjectInfo

_LITTER = re.compile(
    r"(?:^|/)(?:\.[^/]+|__MACOSX|__pycache__|Thumbs\.db|ehthumbs(?:_vista)?\.db|desktop\.ini"
    r"|\$RECYCLE\.BIN|System Volume Information|lost\+found|@eaDir|Icon\r|~\$[^/]*|[^/]+~"
    r"|[^/]+\.(?:swp|crdownload|part))(?:/|$)",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_MASK_WORD = (
    r"masks?|segs?|segmentations?|labels?|labelmaps?|lesions?|rois?|annotations?|gt|aseg|aparc"
)
_MASK_NAME = re.compile(rf"(?:^|[^A-Za-z])({_MASK_WORD})(?![A-Za-z])", re.IGNORECASE)
_MASK_FOLDER = re.compile(rf"(?:^|/)((?:[^/]*[^A-Za-z/])?(?:{_MASK_WORD}))(?=/)", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """Globs of keys to take and to leave out; none to take means all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass
class Selected:
    """The listing, sorted out: what is taken, and how much of the rest there is.

    Attributes:
        taken: In the order of the listing.
        litter: What desktops and tools leave behind.
        left_out: By the patterns.
    """

    taken: list[ObjectInfo] = field(default_factory=list)
    litter: list[ObjectInfo] = field(default_factory=list)
    left_out: list[ObjectInfo] = field(default_factory=list)


EVERYTHING = Selection()


def select(infos: Iterable[ObjectInfo], selection: Selection = EVERYTHING) -> Selected:
    """Sort ``infos`` out by their keys."""
    found = Selected()
    include = [_compiled(pattern) for pattern in selection.include]
    exclude = [_compiled(pattern) for pattern in selection.exclude]
    for info in infos:
        if _LITTER.search(info.key):
            found.litter.append(info)
        elif (include and not _matches(include, info.key)) or _matches(exclude, info.key):
            found.left_out.append(info)
        else:
            found.taken.append(info)
    return found


def mask_pattern(key: str) -> str:
    """Return the pattern that leaves out files named like the mask ``key``; "" if none is plain."""
    if folder := _MASK_FOLDER.search(key):
        return f"{folder[1]}/"
    name = key.rpartition("/")[2]
    found = list(_MASK_NAME.finditer(name))
    if not found:
        return ""
    first = max(found[-1].start(), 0)
    ending = re.sub(r"\d+", "*", name[first:])
    return f"*{ending}" if first else ending


def _compiled(pattern: str) -> re.Pattern[str]:
    start = "^" if pattern.startswith("/") else "(?:^|/)"
    end = "/" if pattern.endswith("/") else "(?:/|$)"
    return re.compile(start + "".join(map(_part, _TOKEN.findall(pattern.strip("/")))) + end, re.S)


def _part(token: str) -> str:
    if token in _WILD:
        return _WILD[token]
    if len(token) > 2 and token.startswith("["):
        inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"[^/{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
    return re.escape(token)


def _matches(patterns: Iterable[re.Pattern[str]], key: str) -> bool:
    return any(pattern.search(key) for pattern in patterns)
