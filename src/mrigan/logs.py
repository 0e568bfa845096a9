"""One line per event on stdout: an event name first, then facts a filter can parse.

``text`` reads ``epoch epoch=3 of=500 d_loss=1.2``, ``json`` is one object a line. Values come from
``extra``, so both carry the same names. Modules log; only a command configures.
"""

import json
import logging
import re
import sys
import time
from typing import IO

from mrigan.redaction import redact, shown

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What these have to say they also raise; without a handler Python would print it.
_LIBRARIES = ("matplotlib", "tifffile")
_SILENCE = logging.NullHandler()
_QUOTED = re.compile(r"[\s\"]")  # what would end a value, or begin a quoted one
_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"

# What of a run's lines a platform may draw as a series. Memory is that of the GPU, or else of the
# process; no number matches NaN, so a run that has diverged says nonfinite=1.
METRICS: tuple[str, ...] = (
    "epoch",
    "images_seen",
    "d_loss",
    "g_loss",
    "real_loss",
    "fake_loss",
    "real_score",
    "fake_score",
    "real_sign",
    "r1",
    "r2",
    "augment_p",
    "swd",
    "swd_floor",
    "kid",
    "kid_floor",
    "coverage",
    "images_per_second",
    "peak_allocated_mib",
    "peak_reserved_mib",
    "peak_rss_mib",
    "nonfinite",
)


def configure(
    log_format: str,
    stream: IO[str] | None = None,
    *,
    debug: bool = False,
    only_warnings: bool = False,
) -> None:
    """Send every record of ours to ``stream`` (stdout; errors stderr) as ``text`` or ``json``.

    With several ranks only the first tells of what goes well.
    """
    handler = logging.StreamHandler(stream) if stream else _Standard()
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    ours = logging.getLogger("mrigan")
    ours.handlers[:] = [handler]
    ours.propagate = False
    usual = logging.WARNING if only_warnings else logging.INFO
    ours.setLevel(logging.DEBUG if debug else usual)
    for library in _LIBRARIES:
        logging.getLogger(library).addHandler(_SILENCE)
    logging.captureWarnings(capture=True)
    warnings = logging.getLogger("py.warnings")
    warnings.handlers[:] = [handler]
    warnings.propagate = False


def metric_regex(name: str) -> str:
    """A pattern whose first group is the number called ``name``, in lines of either format.

    Kept to what every dialect of regular expressions means alike: platforms run it, not we.
    """
    return rf'[\s"]{name}(?:=|":\s?){_NUMBER}'


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What the caller put into ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class _Standard(logging.StreamHandler[IO[str]]):
    """Sends errors to stderr and the rest to stdout, as these are at the moment.

    A live display stands in for stdout while it runs.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        super().emit(record)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(self._format(record))

    def _format(self, record: logging.LogRecord) -> str:
        if record.levelno == logging.ERROR and not record.exc_info:
            return f"mrigan: {facts(record).get('reason', record.getMessage())}"
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        pairs = "".join(f" {name}={_plain(value)}" for name, value in facts(record).items())
        line = f"{clock} {level}{record.getMessage().strip()}{pairs}"
        line = line.replace("\n", " ").replace("\t", " ")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            **facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    text = str(value)
    if not text or _QUOTED.search(text):
        return json.dumps(text, ensure_ascii=not text.isprintable())
    return text
