"""What may be shown of a text: no secret, and no character that acts on a terminal.

Whatever leaves a process for people or for a file goes through ``shown``: log lines, errors,
status.json, SageMaker's failure file.
"""

import re
import unicodedata
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

from mrigan.environment import secrets

_HIDDEN = "…"
# What stands between a scheme and an "@": with a colon in it, or without a slash, it is of a user.
# A secret may hold slashes. A single slash after the scheme is a slip that hides nothing.
_USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{0,3})([^\s'\"]+)@")
_PARAMETER = re.compile(
    r"((?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|token|"
    r"access_token|password|passwd|pwd|secret|secret_access_key|api_?key|session_token)(?:=|%3D))[^&\s'\"]+",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6  # a shorter one would hide parts of ordinary words
_HARMLESS = {"\n", "\t"}
_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def shown(text: str) -> str:
    """``text`` as it may be shown; line ends and tabs stay."""
    return printable(redact(text))


def redact(text: str) -> str:
    """Hide credentials: of this process's environment, in URIs, in the parameters of a URL."""
    for secret in _secrets(secrets()):
        text = text.replace(secret, _HIDDEN)
    if "@" in text:
        text = _USER.sub(_without_user, text)
    return _PARAMETER.sub(rf"\1{_HIDDEN}", text)


def printable(text: str) -> str:
    """Write characters that are not to be seen, or turn the line's direction, as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each in _HARMLESS or unicodedata.category(each) not in _ACTING
        else each.encode("unicode_escape").decode()
        for each in text
    )


def has_user(rest: str) -> bool:
    """Whether what follows a URI's scheme begins with somebody's name or credentials."""
    user, at, _ = unquote(rest).rpartition("@")
    return bool(at) and (":" in user or "/" not in user)


def _without_user(found: re.Match[str]) -> str:
    return f"{found[1]}{_HIDDEN}@" if has_user(f"{found[2]}@") else found[0]


@lru_cache(maxsize=8)
def _secrets(values: tuple[str, ...]) -> tuple[str, ...]:
    """Every way in which a secret may be written, longest first."""
    ways = {
        way
        for value in values
        if len(value) >= _SHORTEST_SECRET
        for way in (value, quote(value, safe=""), quote(value), quote_plus(value))
    }
    return tuple(sorted(ways, key=len, reverse=True))
