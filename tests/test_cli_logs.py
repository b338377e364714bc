"""Log lines: prefixes, dates, levels."""

import io
import logging
import re

import pytest

from ccstore.server.logs import LEVELS, SyslogFormatter, configure_logging


@pytest.fixture
def stream():
    """Return a text stream for the log, and put the loggers back as they were."""
    root, ours = logging.getLogger(), logging.getLogger("ccstore")
    before = root.handlers[:], root.level, ours.level
    for handler in before[0]:
        root.removeHandler(handler)  # so that force=True does not close those of pytest
    yield io.StringIO()
    root.handlers[:], root.level = before[:2]
    ours.setLevel(before[2])


PREFIXES = {
    "debug": "<7>[DEBUG]    ",
    "info": "<6>[INFO]     ",
    "warning": "<4>[WARNING]  ",
    "error": "<3>[ERROR]    ",
    "critical": "<2>[CRITICAL] ",
}


@pytest.mark.parametrize(("method", "prefix"), PREFIXES.items())
def test_every_level_has_its_syslog_prefix(stream, method, prefix):
    """journald reads the number, people read the name."""
    configure_logging("debug", stream=stream)
    getattr(logging.getLogger("ccstore.x"), method)("hello %s", "world")
    assert stream.getvalue() == f"{prefix}hello world\n"


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warn", ["warning", "error", "critical"]),
        ("err", ["error", "critical"]),
        ("fatal", ["error", "critical"]),
        ("crit", ["critical"]),
    ],
)
def test_the_level_decides_what_is_heard(stream, level, heard):
    """Names as in the reference store."""
    assert level in LEVELS
    configure_logging(level, stream=stream)
    for method in PREFIXES:
        getattr(logging.getLogger("ccstore.x"), method)(method)
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == heard


def test_an_unknown_level_is_reported_and_means_debug(stream):
    """As the reference store does."""
    configure_logging("loud", stream=stream)
    assert stream.getvalue() == (
        "<4>[WARNING]  --loglevel: unknown level, so debug is used (got 'loud', wanted debug, info, warn, "
        "err, fatal, crit)\n"
    )
    logging.getLogger("ccstore.x").debug("heard")
    assert stream.getvalue().endswith("<7>[DEBUG]    heard\n")


def test_libraries_are_heard_from_warnings_on(stream):
    """A compiler's debug lines would drown ours; and at crit nobody's warning counts."""
    configure_logging("debug", stream=stream)
    logging.getLogger("numba").info("quiet")
    logging.getLogger("hypercorn").warning("loud")
    assert stream.getvalue() == "<4>[WARNING]  loud\n"
    configure_logging("crit", stream=stream)
    logging.getLogger("hypercorn").warning("not now")
    assert stream.getvalue() == "<4>[WARNING]  loud\n"


def test_dates_stand_behind_the_prefix(stream):
    """The prefix must stay at the very start of the line."""
    configure_logging("info", dates=True, stream=stream)
    logging.getLogger("ccstore.x").info("hello")
    assert re.fullmatch(r"<6>\[INFO\]     \d{4}/\d\d/\d\d \d\d:\d\d:\d\d hello\n", stream.getvalue())


def test_every_line_of_a_traceback_has_the_prefix(stream):
    """Otherwise journald files the rest of it under another level."""
    configure_logging("info", stream=stream)
    try:
        1 / 0  # noqa: B018 - for its traceback
    except ZeroDivisionError:
        logging.getLogger("ccstore.x").exception("it failed\nbadly")
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        "<3>[ERROR]    it failed",
        "<3>[ERROR]    badly",
        "<3>[ERROR]    Traceback (most recent call last):",
    ]
    assert all(line.startswith("<3>[ERROR]    ") for line in lines)
    assert lines[-1] == "<3>[ERROR]    ZeroDivisionError: division by zero"


def test_levels_between_the_names_and_empty_messages():
    """A library's own level gets the next lower prefix; an empty message is still a line."""
    record = logging.LogRecord("x", 25, "", 0, "", (), None)
    assert SyslogFormatter().format(record) == "<6>[INFO]     "
