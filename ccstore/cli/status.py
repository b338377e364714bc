"""The command ``status``: how a running store is, on one screen.

Owns the options and the order of things: look, wait, look again, show. What is shown is in
`status_view`. Invariant: the exit code tells whether the store is ready, whatever form the answer has, so
that a script needs nothing but it.
"""

import time
from typing import Any

import click
import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ccstore.cli import ExitCode
from ccstore.cli.client import Client, ServerError, server_options
from ccstore.cli.status_view import Look, draw, rates
from ccstore.cli.times import parse_seconds
from ccstore.errors import CcstoreError

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore status                            what it does, and what is wrong
  ccstore status --watch                    again every 2 s, until Ctrl-C
  ccstore status --json                     the same for programs
  ccstore status >/dev/null && echo ready

Exit codes: 0 ready, 1 not ready or no answer.
"""
_BETWEEN = 1.0
"""Seconds between the two looks that rates are computed from."""
_WATCH_SECONDS = "2"
_PIPED_WIDTH = 100


def _seconds(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


@click.command("status", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print all numbers, and rates, as JSON.")
@click.option(
    "--watch",
    metavar="[SECONDS]",
    callback=_seconds,
    is_flag=False,
    flag_value=_WATCH_SECONDS,
    help=f"Show it again and again (default: every {_WATCH_SECONDS} s).",
)
@server_options
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, watch: int | None, url: str, token: str) -> ExitCode:
    """Show how a running store is: what comes in, what is kept, what is wrong and what to do about it."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    if watch is not None and (as_json or not console.is_terminal):
        ctx.fail("--watch with --json, or without a terminal (wanted one as the output)")
    with Client(url, token=token) as client:
        before = _look(client)
        if watch is not None:
            _watch(client, console, before, watch)
        time.sleep(_BETWEEN)
        look = _look(client)
    if as_json:
        click.echo(orjson.dumps({**look.stats, "rates": rates(before, look)}, option=orjson.OPT_INDENT_2))
    else:
        console.print(draw(before, look, url=client.url, width=console.width))
    return ExitCode.OK if look.is_ready else ExitCode.FAILED


def _look(client: Client) -> Look:
    stats: Any = client.get_json("/api/stats")
    try:
        return Look(stats)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{client.url}/api/stats: no answer of this store ({error!r})") from error


def _watch(client: Client, console: Console, before: Look, seconds: int) -> None:
    """Look and show until Ctrl-C; what goes wrong is shown below what was seen last."""
    look, trouble = before, ""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            notes = [Text(trouble, "bold red", no_wrap=True, overflow="ellipsis")] if trouble else []
            live.update(Group(*notes, draw(before, look, url=client.url, width=console.width)), refresh=True)
            time.sleep(seconds)
            try:
                before, look, trouble = look, _look(client), ""
            except CcstoreError as error:
                trouble = str(error)
