"""Turns every failure of a store into one line: what happened, where, and what to do.

Only this module reads the errors of obstore and botocore. Both keep S3's answer as text, so S3's
code decides where there is one, else the text, else the error's class.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from typing import Literal, TypeAlias

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from obstore.exceptions import BaseError

from mrigan.errors import StorageError
from mrigan.storage.remedies import (
    BUSY,
    BY_CODE,
    BY_STATUS,
    BY_TEXT,
    DENIED,
    EXPIRED,
    KMS,
    MISSING,
    UNTRUSTED,
    Line,
)

Action: TypeAlias = Literal["open", "list", "look at", "read", "write", "delete"]

# What a call into obstore or boto3 raises. A missing object is a FileNotFoundError: an OSError.
STORE_ERRORS = (BaseError, BotoCoreError, ClientError, OSError, ValueError)

# Of those, what boto3 says of a body that was damaged or cut short on the way.
BODY_ERRORS = (FlexibleChecksumError, IncompleteReadError, ResponseStreamingError)

_DETAIL_CHARACTERS = 240
_CODE = re.compile(r"<Code>\s*([\w.]+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([\w-]+)</Region>|expecting '([\w-]+)'")
# An upload in parts whose last answer was lost is over; a whole new one succeeds.
_AGAIN = {"NoSuchUpload", "InvalidPart", "RequestTimeout"}
_GARBLED = re.compile(r"Got invalid \w+ response|ill-formed document")
# Of a network file system that is away: EIO, ENOTCONN, ETIMEDOUT, EHOSTDOWN, ESTALE.
_AWAY = re.compile(r"(?:os error |\[Errno )(?:5|107|110|112|116)\b")
_LASTING = (EXPIRED, UNTRUSTED)
_REGION_CODES = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
    "AuthorizationHeaderMalformed",
}
_PERMISSIONS: dict[Action, str] = {
    "open": "s3:ListBucket on the bucket",
    "list": "s3:ListBucket on the bucket",
    "look at": "s3:GetObject",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a message can say about the store that was used.

    Attributes:
        bucket: "" for a folder.
        endpoint: What requests go to.
        region: What requests are signed for.
        find_region: Asks S3 for the bucket's region; returns "" without an answer.
    """

    bucket: str = ""
    endpoint: str = ""
    region: str = ""
    find_region: Callable[[], str] = str


def explain(error: Exception, action: Action, where: str, target: Target) -> StorageError:
    """Translate one of ``STORE_ERRORS``; ``where`` is the store's URI or the object's."""
    if isinstance(error, OSError) and error.filename:
        action, where = "open", str(error.filename)  # Python's own, about a local file
    code = s3_code(error)
    if code in _REGION_CODES or "redirect without LOCATION" in str(error):
        line = _wrong_region(error, target)
    elif known := _known(error, code):
        facts = {
            "bucket": target.bucket,
            "endpoint": target.endpoint,
            "code": code or _status(error),
            "permission": _PERMISSIONS[action],
        }
        detail = f" ({_detail(error)})" if known in (DENIED, KMS) and _detail(error) else ""
        line = Line(known.what.format_map(facts) + detail, known.remedy.format_map(facts))
    else:
        name = code or type(error).__name__
        line = Line(f"{name}: {_detail(error)}", "see what the store itself says about it")
    message = _one_line(f"can't {action} {where}: {line.what}; {line.remedy}")
    return StorageError(message, is_passing=line not in _LASTING and _is_passing(error))


def s3_code(error: Exception) -> str:
    """S3's name for the failure, such as ``NoSuchBucket``; "" if S3 gave none."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        return "" if code.isdigit() else code
    found = _CODE.search(str(error))
    return found[1] if found else ""


def has_answer(error: Exception) -> bool:
    """Whether a server answered, so that another request may tell more."""
    return bool(_status(error))


def broke_off(error: Exception) -> bool:
    """Whether an answer broke off or was garbled: obstore repeats a request, not its body."""
    is_busy = _status(error) and s3_code(error) not in _AGAIN
    return is_transient(error) and not is_busy


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed soon, or may even have succeeded already."""
    if s3_code(error) in _AGAIN or _GARBLED.search(str(error)):
        return True
    if status := _status(error):
        conflict = s3_code(error) == "ConditionalRequestConflict"
        return conflict or status == "429" or (status[0] == "5" and status != "501")
    return "HTTP error" in str(error) or isinstance(error, HTTPClientError)


def _is_passing(error: Exception) -> bool:
    """Whether waiting may mend it, without anybody's help."""
    if isinstance(error, SSLError):
        return False
    away = (BotoConnectionError, CredentialRetrievalError, MetadataRetrievalError)
    return (
        is_transient(error)
        or isinstance(error, away)
        or (not _status(error) and _AWAY.search(str(error)) is not None)
    )


def _known(error: Exception, code: str) -> Line | None:
    status = _status(error)
    if code.startswith("KMS."):
        return KMS
    if code in BY_CODE:
        return BY_CODE[code]
    if status in BY_STATUS and not code:
        return BY_STATUS[status]
    if status[:1] == "5":
        return BUSY
    for pattern, line in BY_TEXT:
        if not status and pattern.search(str(error)):
            return line
    return MISSING if isinstance(error, FileNotFoundError) else None


def _wrong_region(error: Exception, target: Target) -> Line:
    found = _REGION.search(str(error))
    right = (found[1] or found[2]) if found else target.find_region()
    if right and right != target.region:
        return Line(
            f"the bucket is in {right}, but the request was for {target.region}",
            f"set AWS_REGION={right}",
        )
    if s3_code(error) == "AuthorizationHeaderMalformed":
        return Line(f"malformed credentials ({_detail(error)})", "check AWS_ACCESS_KEY_ID")
    return Line(f"the bucket is not in {target.region}", "set AWS_REGION to the bucket's region")


def _status(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    found = _STATUS.search(str(error))
    return found[1] if found else ""


def _detail(error: Exception) -> str:
    """What S3, or else the library, says, without S3's echo of the request."""
    if isinstance(error, ClientError):
        text = str(error.response.get("Error", {}).get("Message", ""))
    elif found := _MESSAGE.search(str(error)):
        text = unescape(found[1])
    elif _STATUS.search(str(error)):
        text = ""
    else:
        text = str(error).split("\n\nDebug source:")[0].split("credential provider: ")[-1]
    text = _one_line(text)[:_DETAIL_CHARACTERS].rstrip(". ")
    return "" if text.lower() == "access denied" else text


def _one_line(text: str) -> str:
    return " ".join(text.split())
