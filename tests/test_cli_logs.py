"""Log lines: prefixes, dates, levels."""

import ast
import io
import json
import logging
import re
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ccstore.server import logs
from ccstore.server.logs import BURST, LEVELS, PERIOD, RESERVED, SyslogFormatter, configure_logging


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


def test_what_would_move_a_cursor_is_escaped(stream):
    """Names from outside are in log lines, and these are shown on terminals."""
    configure_logging("info", stream=stream)
    logging.getLogger("ccstore.x").info("host %(host)s", {"host": "a\x1b[2Jb\x07"})
    assert stream.getvalue() == "<6>[INFO]     host a\\x1b[2Jb\\x07\n"


# JSON


def test_a_line_in_json_has_the_fields(stream):
    """What all lines have, then the fields of this one, as numbers where they are."""
    configure_logging("info", form="json", stream=stream)
    fields = {
        "shard": 3,
        "error": OSError(28, "No space left on device"),
        "level": "no field",
        "name": "\udc80",
    }
    logging.getLogger("ccstore.x").warning("log: shard %(shard)d: %(error)s", fields)
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning", "logger": "ccstore.x",
        "message": "log: shard 3: [Errno 28] No space left on device",
        "shard": 3, "error": "[Errno 28] No space left on device", "name": "\udc80",
    }  # fmt: skip


def test_a_traceback_in_json_is_one_line(stream):
    """Whatever a record is, its line is one object."""
    configure_logging("info", form="json", stream=stream)
    try:
        1 / 0  # noqa: B018 - for its traceback
    except ZeroDivisionError:
        logging.getLogger("ccstore.x").exception("it failed\nbadly")
    logging.getLogger("hypercorn").warning("%s and %d", "text", 1)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["exception"].startswith("Traceback (most recent call last):\n")
    assert second["message"] == "text and 1"


# How many


def record(created, line, *, level=logging.ERROR):
    """Make a record of the call in a line of a file, at a time."""
    made = logging.LogRecord("ccstore.x", level, "x.py", line, "bad %(n)d", ({"n": line},), None)
    made.created = created
    return made


def test_a_noisy_call_is_limited():
    """So many at once, then one in each period, which tells how many were kept back; others are free."""
    limiter = logs.Limiter()
    assert [limiter.filter(record(100.0, 1)) for _ in range(BURST + 5)] == [True] * BURST + [False] * 5
    assert limiter.filter(record(100.0, 2))
    late = record(100.0 + PERIOD, 1)
    assert limiter.filter(late)
    assert late.unlogged == 5
    assert not limiter.filter(record(100.0 + 1.5 * PERIOD, 1))
    later = record(100.0 + 2 * PERIOD, 1)
    assert limiter.filter(later)
    assert later.unlogged == 1


def test_after_a_while_a_call_may_burst_again():
    """But no more than at first, however long it was silent, and not when a clock is set back."""
    limiter = logs.Limiter()
    for start in (0.0, 1e6, 1e6 + (BURST + 1) * PERIOD):
        passed = sum(limiter.filter(record(start, 1)) for _ in range(3 * BURST))
        assert passed == BURST
    assert not limiter.filter(record(0.0, 1))
    assert limiter.filter(record(PERIOD, 1))


def test_the_number_is_in_the_line(stream):
    """In both formats."""
    for form in ("text", "json"):
        configure_logging("info", form=form, stream=stream)
        (limiter,) = logging.getLogger().handlers[0].filters
        for _ in range(BURST + 3):
            logging.getLogger().handle(record(0.0, 1))
        logging.getLogger().handle(record(PERIOD, 1))
        assert limiter.take_unlogged(1e9) == []
    lines = stream.getvalue().splitlines()
    assert lines[BURST] == "<3>[ERROR]    bad 1 (3 such lines before this one were not logged)"
    assert json.loads(lines[-1])["unlogged"] == 3
    assert len(lines) == 2 * (BURST + 1)


async def test_what_was_kept_back_of_a_silent_call_is_told(stream, mock_clock):
    """Else nobody would know of lines after which no other came."""
    configure_logging("info", stream=stream)
    for _ in range(BURST + 3):
        logging.getLogger().handle(record(0.0, 1))
    before = len(stream.getvalue().splitlines())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logs.tell_unlogged)
        for _ in range(2):
            await wait_all_tasks_blocked()
            mock_clock.jump(PERIOD)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    told = stream.getvalue().splitlines()[before:]
    assert told == ["<3>[ERROR]    3 lines like this one were not logged: bad 1"]


# What is logged


def calls():
    """Yield (where, call) of each call of a logger in the server."""
    for path in sorted((Path(logs.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr != "isEnabledFor"
            ):
                yield f"{path.name}:{node.lineno}", node


def test_every_line_has_a_constant_text_and_its_values_as_fields():
    """Programs sort lines by their fields: log.info("shard %(shard)d", {"shard": 1}), never "shard %d", 1."""
    found = dict(calls())
    assert len(found) > 30
    for where, call in found.items():
        template, *values = call.args[call.func.attr == "log" :]
        assert isinstance(template, ast.Constant), where
        assert len(values) <= 1, where
        wanted = set(re.findall(r"%\((\w+)\)", template.value))
        assert len(re.sub("%%", "", template.value).split("%")) - 1 == len(
            re.findall(r"%\((\w+)\)", template.value)
        ), where
        assert bool(wanted) == bool(values), where
        assert not wanted & RESERVED, where


def test_the_guide_tells_what_to_do_about_every_error():
    """Each line of this level has its row, and no other has one."""
    guide = (Path(__file__).parents[1] / "docs" / "how-to" / "monitor.md").read_text(encoding="utf-8")
    section = guide.partition("What to do about the lines of the level error:\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(.+?)` \| \S", section, re.MULTILINE)
    templates = {
        call.args[0].value for _, call in calls() if call.func.attr in ("error", "exception", "critical")
    }
    assert sorted(explained) == sorted(re.sub(r"%\(\w+\)[\d.]*[a-z]", "...", text) for text in templates)
