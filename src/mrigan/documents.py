"""JSON that lies where others can write: read within limits of size and depth, or refused."""

import json
from typing import Any

MAX_BYTES = 32 * 2**20
MAX_ROWS_BYTES = 2**30


class DocumentError(ValueError):
    """It is not JSON, or more of it than anything of ours; says what is wrong with it."""


def parse(data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:  # noqa: ANN401 - any JSON
    """Return the value that ``data`` holds.

    Args:
        data: UTF-8, with or without a byte order mark.
        max_bytes: More is refused unread.

    Raises:
        DocumentError: It is too large, nested too deeply (about a thousand levels), or not JSON.
    """
    if len(data) > max_bytes:
        raise DocumentError(f"has {len(data):,} bytes; {max_bytes:,} is the limit")
    if not data.strip():
        raise DocumentError("is empty")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise DocumentError("is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ones
        raise DocumentError(f"is not JSON ({str(error)[:100]})") from None


def parse_object(data: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the JSON object that ``data`` holds; raises as ``parse``, also where it is another."""
    value = parse(data, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise DocumentError("is not a JSON object")
    return value
