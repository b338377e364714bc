"""The command line: one module for each command, and what all of them share.

This package owns the words on the terminal. It decides nothing about data. Invariant: importing
it, or `ccstore.cli.main`, loads neither numpy nor trio, so that help and usage errors come at
once; a command's module is imported when the command is used.

`ExitCode` and the options below are shared, so that every command spells them alike. A command
module offers one click command under the name ``command``; it returns None or an exit code and
reports what the operator must know by raising a `CcstoreError`.
"""

import enum
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["ExitCode", "config_option", "log_options"]

F = TypeVar("F", bound=Callable[..., Any])


class ExitCode(enum.IntEnum):
    """What a command tells its caller; documented in docs/reference/cli.md."""

    OK = 0
    FAILED = 1
    """It did not work: a mistake in the configuration, a server that does not answer, a failed check."""
    USAGE = 2
    """The command line makes no sense."""
    INTERRUPTED = 130
    """Ended by Ctrl-C."""


def config_option(command: F) -> F:
    """Add ``--config PATH``; the parameter is ``config: str | None``."""
    return click.option(
        "--config", metavar="PATH", help="Configuration file (default: ./config.json if it exists)."
    )(command)


def log_options(command: F) -> F:
    """Add ``--loglevel``, ``--logdate`` and ``--logformat``.

    The parameters are ``loglevel: str``, ``logdate: bool`` and ``logformat``, "text" or "json".
    """
    # Any text is taken: an unknown level is reported and means debug, as service files rely on it.
    level = click.option(
        "--loglevel",
        metavar="LEVEL",
        default="warn",
        show_default=True,
        help="Log from this level on: debug, info, warn, err, crit.",
    )
    date = click.option("--logdate", is_flag=True, help="Put date and time into log lines.")
    form = click.option(
        "--logformat",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Log lines for people and journald, or a JSON object each.",
    )
    return level(date(form(command)))
