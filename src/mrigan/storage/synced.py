"""A folder that SageMaker's agent keeps in S3: it uploads what appears and deletes what goes.

The agent leaves ``*.sagemaker-ignore`` alone, so files are begun under such names. Beside a file it
puts ``<file>.sagemaker-uploading`` and then ``<file>.sagemaker-uploaded``; a file between the two
is not to be deleted. The protocol is not documented; AWS's own XGBoost container follows it
(github.com/aws/sagemaker-xgboost-container, checkpointing.py).
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
    """Files as the agent wants them: whole when they get their name, and no links."""

    def listing(self, prefix: str) -> list[ObjectInfo]:
        """List files, but neither the agent's markers nor what was never finished."""
        others = (_IGNORED, _UPLOADING, _UPLOADED)
        return [info for info in super().listing(prefix) if not info.key.endswith(others)]

    def put(self, key: str, data: bytes | Path) -> None:
        """Write under a name that the agent ignores, then rename."""
        with self._written(key, data) as whole:
            whole.replace(self.path / key)

    def create(self, key: str, body: bytes, *, retries: int, is_ours: Callable[[], bool]) -> None:
        """Write under a name that the agent ignores, then give it a second name."""
        del retries, is_ours
        with self._written(key, body) as whole:
            try:
                (self.path / key).hardlink_to(whole)
            except FileExistsError as error:
                raise Taken(str(error)) from error

    def refuses_second_write(self, *, retries: int) -> bool:
        """Whether a file can have two names here, for a moment."""
        del retries
        with self._written("scratch", b"") as whole:
            second = whole.with_name(f"2-{whole.name}")
            try:
                second.hardlink_to(whole)
            except OSError:
                return False
            second.unlink()
            return True

    def delete(self, key: str) -> None:
        """Remove a file, unless it is being uploaded: then it stays, and is there to be seen."""
        path = self.path / key
        uploading, uploaded = (path.with_name(path.name + end) for end in (_UPLOADING, _UPLOADED))
        if uploading.exists() and not uploaded.exists():
            log.debug("kept_while_uploading", extra={"key": key})
            return
        path.unlink()

    @contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[Path]:
        """Write all of ``data`` down, and remove the file if it keeps its first name."""
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
    """Remove what a killed process had begun to write below ``folder``; nothing may write there."""
    for path in folder.rglob(f"*{_IGNORED}"):
        path.unlink(missing_ok=True)
