"""A bucket as a store: obstore for the data, boto3 for keys and listings that obstore refuses."""

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from mrigan.errors import StorageError
from mrigan.storage import creation
from mrigan.storage.connection import Connection, StoreOptions
from mrigan.storage.failures import BODY_ERRORS, STORE_ERRORS, Action, Target, explain
from mrigan.storage.keys import ObjectInfo
from mrigan.storage.listing import list_objects
from mrigan.storage.location import BucketLocation

if TYPE_CHECKING:
    from obstore import Attributes

# An upload has _PARTS_AT_ONCE of these in memory and under way.
_PART_BYTES = 8 * 2**20
_PARTS_AT_ONCE = 4

# Those that botocore compares; of several it takes one.
_CHECKSUMS = {
    f"x-amz-checksum-{name}" for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
}

# An upload in one piece that is slower than this, in bytes per second, counts as failed.
_SLOWEST_UPLOAD = 256 * 1024


class Bucket:
    """The objects below one prefix of one bucket.

    Raises:
        StorageError: No credentials, or invalid AWS settings.
    """

    is_s3 = True

    def __init__(self, location: BucketLocation, options: StoreOptions) -> None:
        self.uri = location.uri
        self._below = f"{location.prefix}/" if location.prefix else ""
        self._target = Target(bucket=location.bucket)
        try:
            self._connection = Connection(location.bucket, location.prefix, options)
            self._store = self._connection.open(options.max_retries)
        except STORE_ERRORS as error:
            raise self.explain(error, "open", "") from error
        self._target = Target(
            bucket=location.bucket,
            endpoint=self._connection.endpoint,
            region=self._connection.region,
            find_region=self._find_region,
        )
        endpoint = "aws" if self._connection.is_aws else self._connection.endpoint
        self.identity = f"s3 {endpoint} {location.bucket}/{location.prefix}"

    def exists(self) -> bool:
        """Say yes without a request: any later one says that there is no bucket."""
        return True

    def reader(self) -> S3Store:
        """Return the obstore to read from."""
        return self._store

    def listing(self, prefix: str) -> list[ObjectInfo]:
        """List objects, folder markers among them."""
        return list_objects(self._store, prefix, self._relist, has_markers=True)

    def unlisted(self) -> list[ObjectInfo]:
        """Return nothing: a bucket lists every key."""
        return []

    def put(self, key: str, data: bytes | Path) -> None:
        """Write, in parts where it is large; transient failures are retried."""
        obstore.put(
            self._store,
            key,
            data,
            attributes=_attributes(key),
            chunk_size=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )

    def create(self, key: str, body: bytes, *, retries: int, is_ours: Callable[[], bool]) -> None:
        """Write in one piece on the condition that nothing is there."""
        store = self._single_put(len(body))
        attributes = _attributes(key)
        creation.create(store, key, body, retries=retries, is_ours=is_ours, attributes=attributes)

    def refuses_second_write(self, *, retries: int) -> bool:
        """Try it on a scratch object."""
        return creation.refuses_second_write(self._single_put(1), retries=retries)

    def remove_unfinished(self, is_ours: Callable[[str], bool]) -> None:
        """Nothing: what was not finished is not there."""
        del is_ours

    def delete(self, key: str) -> None:
        """Remove an object."""
        obstore.delete(self._store, key)

    def move(self, key: str, to: str) -> None:
        """Have the store copy an object, then remove it."""
        obstore.copy(self._store, key, to)
        obstore.delete(self._store, key)

    def read_checked(self, key: str) -> tuple[bytes | None, str, bool]:
        """Read an object by boto3, which compares with the checksum that S3 has stored, if any.

        A checksum of a multi-part upload's parts ("…-2") says nothing about the whole.
        """
        found = self._connection.client.get_object(
            Bucket=self._target.bucket, Key=self._below + key, ChecksumMode="ENABLED"
        )
        headers = found["ResponseMetadata"]["HTTPHeaders"]
        checksums = [headers[name] for name in headers if name in _CHECKSUMS]
        is_checked = any("-" not in checksum for checksum in checksums)
        try:
            body = found["Body"].read()
        except BODY_ERRORS:
            return None, "", False
        return body, found.get("ETag", "").strip('"'), is_checked

    def explain(self, error: Exception, action: Action, key: str) -> StorageError:
        """Say what went wrong with the object ``key``, or with the store if that is ""."""
        return explain(error, action, f"{self.uri}/{key}" if key else self.uri, self._target)

    def _relist(self, prefix: str) -> list[ObjectInfo]:
        """List also what obstore hides or fails on: markers, ``//``, control characters."""
        below = f"{self._below}{prefix}/" if prefix else self._below
        pages = self._connection.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._target.bucket, Prefix=below
        )
        return [
            ObjectInfo(key, found["Size"], found.get("ETag", "").strip('"'), found["LastModified"])
            for page in pages
            for found in page.get("Contents", [])
            if (key := found["Key"].removeprefix(self._below))
        ]

    def _single_put(self, size_bytes: int) -> S3Store:
        """Return an obstore for a write in one piece, which it must not retry by itself."""
        return self._connection.open(0, upload_seconds=size_bytes / _SLOWEST_UPLOAD)

    def _find_region(self) -> str:
        try:
            return self._connection.find_region()
        except STORE_ERRORS:
            return ""  # it would only have made a message more precise


def _attributes(key: str) -> "Attributes | None":
    kind, encoding = mimetypes.guess_type(key)
    return {"Content-Type": kind} if kind and not encoding else None
