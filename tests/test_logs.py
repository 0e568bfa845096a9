"""Log lines as a filter reads them back: nothing is lost, one line stays one line."""

import io
import json
import logging
import re
import warnings

import pytest

from mrigan import logs

PAIR = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)')
VALUES = {
    "uri": "s3://bucket/a prefix/with=signs",
    "plain": "runs/demo",
    "empty": "",
    "quoted": 'say "cheese"',
    "one_quote": '"',
    "backslash": "C:\\temp dir",
    "lines": "first\nsecond\r\n\tthird",
    "greek": "β1 ≤ 0,5",
    "separator": "one\u2028line \x07",
}


@pytest.fixture
def log(request):
    """Configure a log and read what came of it; afterwards all is as before."""
    loggers = [logging.getLogger(name) for name in ("mrigan", "py.warnings")]
    before = [(each.handlers[:], each.propagate, each.level) for each in loggers]
    stream = io.StringIO()

    def configure(log_format, **options):
        logs.configure(log_format, stream, **options)
        return logging.getLogger("mrigan.somewhere"), stream

    yield configure
    logging.captureWarnings(capture=False)
    for each, (handlers, propagate, level) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def parsed(line):
    """A text line's level, event and facts."""
    head = re.match(r"\d\d:\d\d:\d\d (?:(DEBUG|WARNING|ERROR) )?(\w+)", line)
    facts = dict(PAIR.findall(line[head.end() :]))
    assert line == head[0] + "".join(f" {name}={value}" for name, value in facts.items())
    return (
        head[1],
        head[2],
        {name: json.loads(value) if value[0] == '"' else value for name, value in facts.items()},
    )


def test_text_gives_back_every_value(log):
    logger, stream = log("text")
    logger.info("saved", extra=VALUES)
    [line] = stream.getvalue().splitlines()
    assert parsed(line) == (None, "saved", VALUES)
    assert " plain=runs/demo " in line


def test_text_shows_numbers_short(log):
    logger, stream = log("text")
    logger.warning("epoch", extra={"loss": 1.38629436, "count": 512000, "lr": 0.0002, "ok": True})
    level, event, facts = parsed(stream.getvalue().rstrip("\n"))
    assert (level, event) == ("WARNING", "epoch")
    assert facts == {"loss": "1.3863", "count": "512000", "lr": "0.0002", "ok": "True"}


def test_json_gives_back_every_value(log):
    logger, stream = log("json")
    logger.info("saved", extra=VALUES | {"loss": 1.38629436, "ok": True, "none": None})
    [text] = stream.getvalue().splitlines()
    line = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("time"))
    assert line.pop("level") == "info"
    assert line.pop("event") == "saved"
    assert line == VALUES | {"loss": 1.38629436, "ok": True, "none": None}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_warning_of_a_library_is_one_line_too(log, log_format):
    _, stream = log(log_format)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something\nis deprecated", UserWarning, stacklevel=1)
    [line] = stream.getvalue().splitlines()
    assert "something" in line
    assert "is deprecated" in line
    if log_format == "json":
        assert json.loads(line)["level"] == "warning"


def test_an_error_reads_as_a_command_says_it(log):
    logger, stream = log("text")
    logger.error("error", extra={"reason": "s3://b: access denied; use others"})
    assert stream.getvalue() == "mrigan: s3://b: access denied; use others\n"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_is_shown_where_it_was_asked_for(log, log_format):
    logger, stream = log(log_format, debug=True)
    try:
        raise ValueError("where is it")
    except ValueError:
        logger.exception("error", extra={"reason": "lost"})
    text = stream.getvalue()
    if log_format == "json":
        [line] = text.splitlines()
        text = json.loads(line)["traceback"]
    assert "Traceback (most recent call last)" in text
    assert "where is it" in text


def test_details_are_for_debugging_only(log):
    logger, stream = log("text")
    logger.debug("detail")
    assert stream.getvalue() == ""
    log("text", debug=True)
    logger.debug("detail")
    assert "DEBUG detail" in stream.getvalue()


def test_errors_go_to_stderr_and_the_rest_to_stdout(log, capsys):
    logger, _ = log("text")
    logs.configure("text")
    logger.info("fine")
    logger.warning("careful")
    logger.error("error", extra={"reason": "broken"})
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == ["fine", "careful"]
    assert err == "mrigan: broken\n"


def test_other_libraries_stay_silent(log):
    _, stream = log("json", debug=True)
    logging.getLogger("botocore").warning("chatter")
    assert stream.getvalue() == ""
