"""How log lines look: the prefixes of syslog, so that journald knows the level of every line.

This module owns the handler of the root logger and the levels, and nothing that is logged.
Invariant: every line on the stream starts with ``<n>[LEVEL]``, also each line of a traceback.
Lines carry no time by default, because journald adds its own.

The level that the operator names is for our own loggers (``ccstore.*``). Libraries are heard from
WARNING on: at DEBUG, compiling a hot loop alone logs some hundred thousand lines.
"""

import logging
import sys
from typing import TextIO

__all__ = ["LEVELS", "SyslogFormatter", "configure_logging"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "err": logging.ERROR,
    "fatal": logging.ERROR,
    "crit": logging.CRITICAL,
}
"""The names of the option ``--loglevel``."""

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
        return "\n".join(f"{prefix:{_WIDTH}}{line}" for line in lines)


def configure_logging(level: str = "warn", *, dates: bool = False, stream: TextIO | None = None) -> None:
    """Log from `level` on to `stream` (stderr by default); an unknown level is reported and taken as debug.

    Replaces whatever handlers the root logger had, so that no line appears twice.
    """
    number = LEVELS.get(level, logging.DEBUG)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(SyslogFormatter(dates=dates))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("ccstore").setLevel(number)
    if level not in LEVELS:
        logging.getLogger(__name__).warning(
            "--loglevel: unknown level, so debug is used (got %r, wanted %s)", level, ", ".join(LEVELS)
        )
