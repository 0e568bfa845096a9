"""A folder that SageMaker's agent mirrors to S3: it uploads new files and deletes removed ones.

The agent ignores ``*.sagemaker-ignore``, so files are written under such names first. Beside a file
it puts ``<file>.sagemaker-uploading`` and then ``<file>.sagemaker-uploaded``; a file that has only
the first must not be deleted. The protocol is not documented; AWS's own XGBoost container follows
it (github.com/aws/sagemaker-xgboost-container, checkpointing.py).
"""

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from obstore.exceptions import AlreadyExistsError as Taken

from mrigan.storage.folder import Folder
from mrigan.storage.keys import ObjectInfo

log = logging.getLogger(__name__)

_IGNORED = ".sagemaker-ignore"
_UPLOADING = ".sagemaker-uploading"
_UPLOADED = ".sagemaker-uploaded"


class SyncedFolder(Folder):
    """Files as the agent needs them: whole when they get their name, and no links."""

    def listing(self, prefix: str) -> list[ObjectInfo]:
        """List files, without the agent's markers and unfinished files."""
        others = (_IGNORED, _UPLOADING, _UPLOADED)
        return [info for info in super().listing(prefix) if not info.key.endswith(others)]

    def put(self, key: str, data: bytes | Path) -> None:
        """Write under a name that the agent ignores, then rename."""
        with self._written(key, data) as whole:
            whole.replace(self.path / key)

    def create(self, key: str, body: bytes, *, retries: int, is_ours: Callable[[], bool]) -> None:
        """Write under a name that the agent ignores, then link the file to its name."""
        del retries, is_ours
        with self._written(key, body) as whole:
            try:
                (self.path / key).hardlink_to(whole)
            except FileExistsError as error:
                raise Taken(str(error)) from error

    def refuses_second_write(self, *, retries: int) -> bool:
        """Whether a file can have two names here."""
        del retries
        with self._written("scratch", b"") as whole:
            second = whole.with_name(f"2-{whole.name}")
            try:
                second.hardlink_to(whole)
            except OSError:
                return False
            second.unlink()
            return True

    def move(self, key: str, to: str) -> None:
        """Write a file under its other name, then remove it."""
        self.put(to, self.path / key)
        self.delete(key)

    def delete(self, key: str) -> None:
        """Remove a file, unless it is being uploaded: then it stays and is listed."""
        path = self.path / key
        uploading, uploaded = (path.with_name(path.name + end) for end in (_UPLOADING, _UPLOADED))
        if uploading.exists() and not uploaded.exists():
            log.debug("kept_while_uploading", extra={"key": key})
            return
        path.unlink()

    @contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[Path]:
        """Write ``data`` to disk under an ignored name; a file that keeps it is removed."""
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_IGNORED}")
        try:
            with begun.open("xb") as out:
                if isinstance(data, bytes):
                    out.write(data)
                else:
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, out)
                out.flush()
                os.fsync(out.fileno())
            yield begun
        finally:
            begun.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files below ``folder``, where no process may be writing."""
    for path in folder.rglob(f"*{_IGNORED}"):
        path.unlink(missing_ok=True)
