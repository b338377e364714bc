"""How log lines look, and how many there may be.

This module owns the handler of the root logger, its two formats and its limiter, and nothing that is
logged. Invariant: in the format ``text`` every line on the stream starts with ``<n>[LEVEL]``, also each line
of a traceback, so that journald knows the level of each; in the format ``json`` every line is one object.

Whoever logs gives a constant template and a dict of fields, as the standard library allows:
``log.error("log: shard %(shard)d: %(error)s", {"shard": 3, "error": error})``. The text is for people, the
fields are for programs, and nothing has to be said twice. A test reads all calls of the server.

One noisy site must not fill the disk of another service: each call in the code may log so many lines at
once, and then one now and again, which says how many were kept back (`Limiter`). Nobody else counts or waits.

The level that the operator names is for our own loggers (``ccstore.*``). Libraries are heard from
WARNING on: at DEBUG, compiling a hot loop alone logs some hundred thousand lines.
"""

import datetime as dt
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import trio
from attrs import define

from ccstore.server.clock import wall_clock

__all__ = [
    "LEVELS",
    "RESERVED",
    "JsonFormatter",
    "Limiter",
    "SyslogFormatter",
    "configure_logging",
    "tell_unlogged",
]

log = logging.getLogger("ccstore.logs")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "err": logging.ERROR,
    "fatal": logging.ERROR,
    "crit": logging.CRITICAL,
}
"""The names of the option ``--loglevel``."""

RESERVED = frozenset({"time", "level", "logger", "message", "unlogged", "exception"})
"""Keys of a line in JSON that are not fields."""

BURST = 10
"""Lines that one call in the code may log at once."""
PERIOD = 10.0
"""Seconds after which it may log another one."""

_PREFIXES = (
    (logging.CRITICAL, "<2>[CRITICAL]"),
    (logging.ERROR, "<3>[ERROR]"),
    (logging.WARNING, "<4>[WARNING]"),
    (logging.INFO, "<6>[INFO]"),
    (logging.NOTSET, "<7>[DEBUG]"),
)
_WIDTH = max(len(prefix) for _, prefix in _PREFIXES) + 1


class SyslogFormatter(logging.Formatter):
    """Puts ``<n>[LEVEL]`` before every line of a record, and date and time before the first if asked to."""

    def __init__(self, *, dates: bool = False) -> None:
        super().__init__("%(asctime)s %(message)s" if dates else "%(message)s", "%Y/%m/%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of `record`, without a line end behind the last one."""
        prefix = next(prefix for level, prefix in _PREFIXES if record.levelno >= level)
        lines = super().format(record).splitlines() or [""]
        if unlogged := getattr(record, "unlogged", 0):
            lines[0] += f" ({unlogged} such lines before this one were not logged)"
        return "\n".join(f"{prefix:{_WIDTH}}{_printable(line)}" for line in lines)


def _printable(line: str) -> str:
    """Escape what would let a sender's name move the cursor of a terminal."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: what all lines have, then the fields of this one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object; a value that JSON does not know is its text."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.args, Mapping):
            line |= {str(key): value for key, value in record.args.items() if key not in RESERVED}
        if unlogged := getattr(record, "unlogged", 0):
            line["unlogged"] = unlogged
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII, which takes half of a surrogate pair as well


@define(eq=False)
class _Site:
    """One call in the code: how many lines it may log, and what was kept back."""

    left: float
    since: float
    unlogged: int = 0
    level: int = 0
    latest: tuple[object, Any] = ("", ())
    """Template and values, which are put together only if somebody asks."""


class Limiter(logging.Filter):
    """Lets `BURST` lines of one call pass at once, and then one in `PERIOD` seconds.

    The next line that passes gets the number of those that did not, as its attribute ``unlogged``. Where
    none passes any more, `take_unlogged` tells. Time is that of the records. There are as many counts as
    calls that log, so nothing grows with what senders invent. Threads may log as well: a count may then be
    one too low, and no line is lost by that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sites: dict[tuple[str, int], _Site] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record passes."""
        where = (record.pathname, record.lineno)
        site = self._sites.get(where) or self._sites.setdefault(where, _Site(BURST, record.created))
        waited = max(0.0, record.created - site.since)  # a clock that is set back gives nothing
        site.left = min(BURST, site.left + waited / PERIOD)
        site.since = record.created
        if site.left < 1:
            site.unlogged += 1
            site.level, site.latest = record.levelno, (record.msg, record.args)
            return False
        site.left -= 1
        if site.unlogged:
            record.unlogged, site.unlogged = site.unlogged, 0
        return True

    def take_unlogged(self, now: float) -> list[tuple[int, int, str]]:
        """Return level, number and latest text of what was kept back where nothing came for a period."""
        silent = [s for s in self._sites.values() if s.unlogged and now - s.since >= PERIOD]
        told = [(site.level, site.unlogged, _message(*site.latest)) for site in silent]
        for site in silent:
            site.unlogged = 0
        return told


def _message(template: object, values: Any) -> str:
    return str(template) % values if values else str(template)  # as LogRecord.getMessage does


async def tell_unlogged() -> None:
    """Log how many lines were kept back of calls that have gone silent, for ever."""
    limiters = [
        f for handler in logging.getLogger().handlers for f in handler.filters if isinstance(f, Limiter)
    ]
    while True:
        await trio.sleep(PERIOD)
        for limiter in limiters:
            for level, count, latest in limiter.take_unlogged(wall_clock()):
                fields = {"lines": count, "latest": latest}
                log.log(level, "%(lines)d lines like this one were not logged: %(latest)s", fields)


def configure_logging(
    level: str = "warn",
    *,
    dates: bool = False,
    form: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
) -> None:
    """Log from `level` on to `stream` (stderr by default); an unknown level is reported and taken as debug.

    Replaces whatever handlers the root logger had, so that no line appears twice.
    """
    number = LEVELS.get(level, logging.DEBUG)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else SyslogFormatter(dates=dates))
    handler.addFilter(Limiter())
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("ccstore").setLevel(number)
    if level not in LEVELS:
        log.warning(
            "--loglevel: unknown level, so debug is used (got %(got)r, wanted %(wanted)s)",
            {"got": level, "wanted": ", ".join(LEVELS)},
        )
