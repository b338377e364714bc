"""What ``nodes`` and ``jobs`` share: options, the way of showing something once or again, words for times.

Owns the frame of a list on the terminal and knows nothing of what is in it. Invariant: a list that is watched
is never longer than the terminal, and says how much of it is hidden.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import click
import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ccstore.cli.client import Client, ServerError
from ccstore.cli.times import DAY, HOUR, MINUTE, parse_seconds
from ccstore.errors import CcstoreError

__all__ = ["Draw", "age", "choices", "fetch", "list_options", "make_console", "named", "show", "table"]

F = TypeVar("F", bound=Callable[..., Any])

Draw = Callable[[Any, int], RenderableType]
"""Draws an answer with at most so many rows."""

_WATCH_SECONDS = "10"
_PIPED_WIDTH = 200
_AROUND = 4
"""Lines of a picture that are no rows: the title, the head, what is hidden, and one below."""


def _seconds(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


def _split(_ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(filter(None, names)))


def named(option: str, what: str) -> Callable[[F], F]:
    """Add an option that may be repeated, or have several values with commas between them."""
    text = f"Only {what}; repeat it, or use commas."
    return click.option(option, metavar="NAME", multiple=True, callback=_split, help=text)


def choices(option: str, what: str, known: Sequence[str]) -> Callable[[F], F]:
    """Add an option whose values are some of those that are known."""

    def read(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
        chosen = tuple(name.lower() for name in _split(ctx, parameter, texts))
        for name in chosen:
            if name not in known:
                raise click.BadParameter(f"{name!r} (wanted some of {', '.join(known)})", ctx, parameter)
        return chosen

    text = f"Only {what}: {', '.join(known)}."
    return click.option(option, metavar="NAME", multiple=True, callback=read, help=text)


def list_options(command: F) -> F:
    """Add ``--json`` and ``--watch``; the parameters are ``as_json: bool`` and ``watch: int | None``."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print what the server answers.")
    watch = click.option(
        "--watch",
        metavar="[SECONDS]",
        callback=_seconds,
        is_flag=False,
        flag_value=_WATCH_SECONDS,
        help=f"Show it again and again (default: every {_WATCH_SECONDS} s).",
    )
    return as_json(watch(command))


def make_console() -> Console:
    """Make a console as wide as the terminal, and wide without one."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def fetch(client: Client, path: str, parameters: Mapping[str, Any]) -> Any:
    """Return what a route answers; an empty parameter is left out, one with several values is repeated."""
    query = urlencode({key: value for key, value in parameters.items() if value}, doseq=True)
    return client.get_json(f"{path}?{query}" if query else path)


def show(ctx: click.Context, ask: Callable[[], Any], draw: Draw, *, as_json: bool, watch: int | None) -> None:
    """Show what `ask` returns: as JSON, as a picture, or as one that is drawn again every `watch` seconds."""
    console = make_console()
    if watch is not None and (as_json or not console.is_terminal):
        ctx.fail("--watch with --json, or without a terminal (wanted one as the output)")
    if as_json:
        click.echo(orjson.dumps(ask(), option=orjson.OPT_INDENT_2))
    elif watch is None:
        console.print(_drawn(draw, ask(), 10**9))
    else:
        _watch(console, ask, draw, watch)


def _drawn(draw: Draw, answer: Any, rows: int) -> RenderableType:
    try:
        return draw(answer, rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the answer is not one of ccstore ({error!r})") from error


def _watch(console: Console, ask: Callable[[], Any], draw: Draw, seconds: int) -> None:
    """Ask and show until Ctrl-C; what goes wrong after the first time is shown below what was found last."""
    answer, trouble = ask(), ""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            notes = [Text(trouble, "bold red", no_wrap=True, overflow="ellipsis")] if trouble else []
            rows = max(1, console.height - _AROUND - len(notes))
            live.update(Group(_drawn(draw, answer, rows), *notes), refresh=True)
            time.sleep(seconds)
            try:
                answer, trouble = ask(), ""
            except CcstoreError as error:
                trouble = str(error)


def table(title: str, columns: Mapping[str, str], rows: Sequence[Sequence[str | Text]], limit: int) -> Group:
    """Draw a title and at most `limit` rows; the columns map heads to ``left`` or ``right``.

    A column without any text is left out.
    """
    used = [k for k in range(len(columns)) if any(str(row[k]) for row in rows)]
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for k, (name, side) in enumerate(columns.items()):
        if k in used:
            grid.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows[:limit]:
        grid.add_row(*(row[k] for k in used))
    hidden = [Text(f"and {len(rows) - limit} more", "dim")] if len(rows) > limit else []
    return Group(Text(title, "bold"), *([grid] if rows else []), *hidden)


def age(seconds: int) -> str:
    """Return a duration for a reader, in its two largest units: ``45s``, ``3m20s``, ``2h05m``, ``3d04h``."""
    seconds = max(0, seconds)
    if seconds < MINUTE:
        return f"{seconds}s"
    if seconds < HOUR:
        return f"{seconds // MINUTE}m{seconds % MINUTE:02d}s"
    if seconds < DAY:
        return f"{seconds // HOUR}h{seconds % HOUR // MINUTE:02d}m"
    return f"{seconds // DAY}d{seconds % DAY // HOUR:02d}h"
