"""How a simulation is shown while it runs, and what it says at the end.

Owns words and numbers on the terminal. Changes nothing of what it looks at. Invariant: a terminal gets
a picture that is redrawn in place, everything else a line for each interval; both go to stderr, so
that the count at the end is all that stdout has.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import click
import trio
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ccstore.cli.player import Player
from ccstore.cli.publish import Count, Tally

__all__ = ["describe_tally", "grouped", "picture", "show_progress"]

_REDRAW = 0.25
"""Seconds."""
_WIDEST = 100
"""Columns; a longer bar tells no more."""
_MARGIN = 2
"""Columns left free, for the ``^C`` that a terminal shows would begin a new line that nobody knows of."""


def grouped(number: float) -> str:
    """Return a whole number with its digits in groups: ``12 345``."""
    return f"{number:,.0f}".replace(",", " ")


@asynccontextmanager
async def show_progress(player: Player, console: Console) -> AsyncIterator[Callable[[], None]]:
    """Show what a player does while the context is open; yields what it is to call after each interval."""
    if not console.is_terminal:
        yield lambda: click.echo(_line(player), err=True)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_redraw, live, player)
            yield lambda: None
            nursery.cancel_scope.cancel()


async def _redraw(live: Live, player: Player) -> None:
    while True:
        live.update(picture(player, min(live.console.width - _MARGIN, _WIDEST)), refresh=True)
        await trio.sleep(_REDRAW)


def picture(player: Player, width: int) -> RenderableType:
    """Draw what a player does, `width` columns wide."""
    sent, hosts = player.publisher.tally.sent, player.site.hosts
    if player.in_past:
        done, total = player.time - player.begin, max(player.now() - player.begin, 1.0)
        what = f"{_clock(player.time)}   filling in the past"
    else:
        done, total = player.hosts_done, hosts
        left = player.time - player.now()
        next_time = f"   next at {_clock(player.time)}, in {left:.0f} s" if left > 0 else ""
        what = f"{_clock(player.now())}   {grouped(done)} of {grouped(hosts)} hosts{next_time}"
    lines: list[Text | ProgressBar] = [
        Text(what),
        ProgressBar(total=total, completed=min(done, total), width=width),
        Text(f"{grouped(sent.lines)} lines   {_megabytes(sent)}   {_pace(player)}"),
    ]
    if troubles := _troubles(player):
        lines.append(Text(troubles, style="bold red"))
    grid = Table.grid()
    grid.add_column(no_wrap=True, overflow="ellipsis", width=width)
    for line in lines:
        grid.add_row(line)
    return grid


def _line(player: Player) -> str:
    """Describe what has just been done on one line."""
    hosts = player.hosts_done
    what = f"{grouped(hosts)} hosts" if hosts else f"{player.intervals} intervals of the past"
    troubles = _troubles(player)
    return f"{_clock(player.time)}  {what}  {grouped(player.lines_done)} lines  {_pace(player)}" + (
        f"  {troubles}" if troubles else ""
    )


def _pace(player: Player) -> str:
    pace = player.lines_done / player.seconds_spent if player.seconds_spent else 0.0
    late = f"{player.lag:.1f} s late" if player.lag >= 0.05 else "in time"
    return f"{grouped(pace)} lines/s" + (f"   {late}" if player.hosts_done else "")


def _troubles(player: Player) -> str:
    """Tell what is wrong; nothing if nothing is."""
    tally = player.publisher.tally
    parts = [
        f"{grouped(number)} {what}"
        for number, what in (
            (tally.retries, "retried"),
            (tally.refused.messages, "refused"),
            (tally.lost.messages, "lost"),
        )
        if number
    ]
    if state := player.publisher.state:
        parts.append(state)
    return ", ".join(parts) + (f": {tally.last_error}" if tally.last_error and parts else "")


def _clock(time_: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time_))


def _megabytes(count: Count) -> str:
    return f"{count.bytes / 1e6:,.1f} MB".replace(",", " ")


def describe_tally(tally: Tally) -> str:
    """Return the count of what was sent as a small table."""
    lines = [f"{'':<14}{'messages':>12}{'lines':>16}{'MB':>12}"]
    for name in ("sent", "acknowledged", "refused", "lost"):
        count: Count = getattr(tally, name)
        megabytes = f"{count.bytes / 1e6:,.1f}".replace(",", " ")
        lines.append(f"{name:<14}{grouped(count.messages):>12}{grouped(count.lines):>16}{megabytes:>12}")
    return "\n".join([*lines, f"{'retried':<14}{grouped(tally.retries):>12}"])
