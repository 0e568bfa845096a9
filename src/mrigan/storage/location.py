"""What a URI means: a bucket and a prefix, or a folder. No request is made."""

import os.path
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from mrigan.errors import StorageError
from mrigan.redaction import has_user
from mrigan.storage.keys import key_problem

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=//)")
_SLIP = re.compile(r"(s3|file|https?|gs|phantom):", re.IGNORECASE)
# Old buckets in us-east-1 may have capitals and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_FORMS = "give s3://bucket/prefix or a folder"


@dataclass(frozen=True)
class BucketLocation:
    """``prefix`` has no slash at either end and may be empty."""

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """The URI as a user would write it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class FolderLocation:
    """``path`` is absolute and need not exist."""

    path: Path

    @property
    def uri(self) -> str:
        """The path, as messages name it."""
        return str(self.path)


def parse_uri(uri: str) -> BucketLocation | FolderLocation:
    """Read ``s3://bucket/prefix``, ``file:///folder`` (percent-encoded) or a folder's path as is.

    Raises:
        StorageError: It is none of these. Its message never repeats what precedes an ``@``.
    """
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else ""
    rest = uri[len(scheme) + 3 :] if found else uri
    if scheme == "s3":
        return _bucket(rest)
    if scheme == "file":
        return _folder(_file_path(rest))
    if not scheme and (slip := _SLIP.match(uri)):
        raise StorageError(f"{slip[1]}: is followed by two slashes, as in {slip[1]}://; {_FORMS}")
    if scheme:
        raise StorageError(f"{scheme}://: no such kind of store; {_FORMS}")
    return _folder(uri)


def _bucket(rest: str) -> BucketLocation:
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if has_user(rest):
        raise StorageError(
            "s3://…@…: credentials don't belong in a URI; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if not _BUCKET.fullmatch(bucket):
        raise StorageError(
            f"s3://{rest}: that is no bucket's name (3 to 255 letters, digits, '.', '-', '_'); "
            "give s3://bucket/prefix"
        )
    if prefix and (problem := key_problem(prefix, is_s3=True)):
        raise StorageError(f"s3://{rest}: {problem}; give s3://bucket/prefix")
    return BucketLocation(bucket, prefix)


def _file_path(rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise StorageError(f"file://{rest}: not an absolute path; write file:///folder")
    return unquote(slash + path)


def _folder(path: str) -> FolderLocation:
    if not path.strip() or "\0" in path:
        raise StorageError(f"{path!r} is no folder's name; {_FORMS}")
    try:
        return FolderLocation(Path(os.path.normpath(Path(path).expanduser().absolute())))
    except RuntimeError as error:
        raise StorageError(f"{path}: this user's home folder is not known; {_FORMS}") from error
