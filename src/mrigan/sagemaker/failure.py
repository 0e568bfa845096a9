"""The failure file: what SageMaker shows of a job that failed, and nothing of one that did not."""

import logging
from pathlib import Path

from mrigan.errors import MriganError, SettingsError
from mrigan.redaction import shown
from mrigan.sagemaker.container import failure_path

log = logging.getLogger(__name__)

LIMIT_CHARACTERS = 1024
_CUT = " … "
# Of ranks that only know that another one failed; whoever knows why says it in their place.
_SECOND_HAND = ("PeerFailedError", "PeerLostError")


def clear_failure() -> None:
    """Remove what an earlier start left; for the first process of this one."""
    try:
        failure_path().unlink(missing_ok=True)
    except OSError as error:
        log.warning("failure_file", extra={"reason": str(error)})


def write_failure(error: BaseException | str) -> None:
    """Write why the job failed, unless another process of this start has said so; never raises.

    Args:
        error: Its class, message and remedy are written, or a text as it is; never a traceback.
    """
    text = shown(error if isinstance(error, str) else describe(error))
    try:
        _write(failure_path(), text)
    except OSError as unwritten:
        log.warning("failure_file", extra={"reason": str(unwritten)})


def describe(error: BaseException) -> str:
    """``error`` in one line of at most ``LIMIT_CHARACTERS``."""
    name = type(error).__name__
    if isinstance(error, SettingsError):
        return _joined(name, error.problems)
    hint = "" if isinstance(error, MriganError) else "; the log of the job shows more"
    return _shortened(f"{name}: {error}{hint}")


def _joined(name: str, problems: tuple[str, ...]) -> str:
    """As many of ``problems`` as there is room for, and how many more there are."""
    for count in range(len(problems), 0, -1):
        more = f"; and {len(problems) - count} more in the log" if count < len(problems) else ""
        text = f"{name}: {'; '.join(problems[:count])}{more}"
        if len(text) <= LIMIT_CHARACTERS:
            return _shortened(text)
    return _shortened(f"{name}: {'; '.join(problems)}")


def _shortened(text: str) -> str:
    """One line; a long one loses its middle, since the remedy stands at the end."""
    line = " ".join(text.split())
    if len(line) <= LIMIT_CHARACTERS:
        return line
    tail = LIMIT_CHARACTERS // 3
    return line[: LIMIT_CHARACTERS - tail - len(_CUT)] + _CUT + line[-tail:]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _shortened(text).encode(errors="replace")
    try:
        with path.open("xb") as out:
            out.write(data)
    except FileExistsError:
        if path.read_text(errors="replace").startswith(_SECOND_HAND):
            path.write_bytes(data)
