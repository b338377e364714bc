"""The command ``tail``: what comes in, as it comes, as lines or as a table or a plot that moves.

Owns the options and the picture. The stream is `ccstore.client`, the tables and plots are those of ``query``.
Invariant: what is shown is what the store answers to a query at that moment; after a lost connection it is
again, and the gap is not hidden: it is filled.
"""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import click
import numpy as np
import trio
from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ccstore.cli.catalogue import Catalogue
from ccstore.cli.client import Client as Asker
from ccstore.cli.client import server_options
from ccstore.cli.series import Place, Series
from ccstore.cli.times import parse_seconds
from ccstore.cli.views import COLOURS, SORTS, Sheet, rank, show_plot, show_table
from ccstore.client import Client, Query, Stream, Update
from ccstore.errors import QueryError

__all__ = ["command", "make_sheets"]

_EPILOG = """
\b
Examples:
  ccstore tail cpu_load                          all hosts, a table that moves
  ccstore tail mem_bw flops_any --host a0329     two plots
  ccstore tail cpu_load --lines | grep a0329     metric,host,time,value, as they come
  ccstore tail flops_any --job 1001              the hosts of a job, until it ends

Without a terminal as its output, and with --lines, it prints a line for each value.
"""
_LAST = 600
"""Seconds back at which a stream of hosts begins."""
_DRAW_SECONDS = 0.5
"""Between two pictures at least."""
_PLOT_HEIGHT = 10
_AROUND_TABLE = 3
"""Lines of a table that are no rows: its title, its head, and one below."""


def _names(_ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(filter(None, names)))


def _duration(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


@click.command("tail", epilog=_EPILOG)
@click.argument("metrics", metavar="METRIC...", nargs=-1, required=True, callback=_names)
@click.option(
    "--host", "hosts", metavar="HOST", multiple=True, callback=_names,
    help="Of these hosts; repeat it, or use commas (default: all hosts).",
)  # fmt: skip
@click.option(
    "--job", "job_id", metavar="ID", type=click.IntRange(min=1),
    help="Of the hosts of this job, from its start to its end.",
)  # fmt: skip
@click.option("--cluster", metavar="NAME", help="Of this cluster (default: the only one there is).")
@click.option(
    "--last", metavar="DURATION", callback=_duration, show_default="10m, or the start of the job",
    help="How far back it begins.",
)  # fmt: skip
@click.option("--for", "seconds", metavar="DURATION", callback=_duration, help="End after so long.")
@click.option("--lines", is_flag=True, help="Print a line for each value: metric,host,time,value.")
@click.option(
    "--sort", type=click.Choice(SORTS), default="host", show_default=True, help="Order of the rows."
)
@server_options
def command(
    metrics: tuple[str, ...],
    hosts: tuple[str, ...],
    job_id: int | None,
    cluster: str | None,
    last: int | None,
    seconds: int | None,
    lines: bool,
    sort: str,
    url: str,
    token: str,
) -> None:
    """Show metrics of a running store as they come in."""
    if job_id and hosts:
        raise click.UsageError("--job and --host: a job has its own hosts")
    with Asker(url, token=token) as asker:
        catalogue = Catalogue(asker)
        catalogue.check_metrics(metrics)
        cluster = catalogue.find_cluster(cluster)
        if catalogue.clusters is not None and cluster not in catalogue.clusters:
            raise QueryError(catalogue.explain_cluster(cluster))
    console = Console(highlight=False, markup=False, emoji=False)
    picture = None if lines or not console.is_terminal else _Picture(console, cluster, last or 0, sort)
    client = Client(url, token=token)
    if job_id:
        opened = client.stream_job(cluster, job_id, metrics, window=last or 0)
    else:
        queries = [Query(metric, host) for metric in metrics for host in hosts]
        everywhere = () if hosts else metrics
        opened = client.stream(cluster, queries, for_all_nodes=everywhere, window=last or _LAST)
    trio.run(_follow, client, opened, seconds or math.inf, picture)


async def _follow(
    client: Client, opened: AbstractAsyncContextManager[Stream], seconds: float, picture: "_Picture | None"
) -> None:
    """Show what comes, for so long, or until the job ends."""
    with trio.move_on_after(seconds):
        async with client, opened as stream:
            if picture is None:
                async for update in stream:
                    _print(update)
            else:
                await picture.follow(stream)
            if stream.ended is not None:
                click.echo(f"job {stream.job['jobId']}: {stream.ended.state}", err=True)


def _print(update: Update) -> None:
    """Print a line for each value."""
    for change in update.changes:
        place = f"{change.series.metric},{change.series.host}"
        for time_, value in zip(change.times.tolist(), change.values.tolist(), strict=True):
            if not math.isnan(value):
                sys.stdout.write(f"{place},{time_},{value:.6g}\n")
    sys.stdout.flush()


def make_sheets(stream: Stream, cluster: str, *, start: int, now: int) -> list[Sheet]:
    """Return a sheet for each metric of which a value is known."""
    found: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for index, described in stream.series.items():
        times, values = stream.values(index)
        if len(times):
            # slots lie on a grid, but for a series whose grid has just moved
            step = max(1, described.frequency)
            slots = (times - times[0]) // step
            grid = np.full(int(slots[-1]) + 1, np.nan)
            grid[slots] = values
            stats = [float(find(values)) for find in (np.mean, np.min, np.max)]
            place = Place(described.metric, described.host, described.component)
            series = Series(place, "", True, int(times[0]), step, grid, *stats)
            found[described.metric, described.unit].append(series)
    return [Sheet(metric, unit, cluster, start, now, now, series) for (metric, unit), series in found.items()]


@frozen
class _Picture:
    """A picture that is drawn again and again, never larger than the terminal."""

    console: Console
    cluster: str
    last: int
    """Seconds; 0: what the stream has."""
    sort: str

    async def follow(self, stream: Stream) -> None:
        """Draw what is known, at most twice a second."""
        with Live(console=self.console, auto_refresh=False, vertical_overflow="crop") as live:
            async for _ in stream:
                live.update(self._draw(stream), refresh=True)
                await trio.sleep(_DRAW_SECONDS)

    def _draw(self, stream: Stream) -> RenderableType:
        now = int(time.time())
        start = now - self.last if self.last else stream.start
        sheets = make_sheets(stream, self.cluster, start=start, now=now)
        if not sheets:
            return Text("nothing yet")
        height = (self.console.height - 1) // len(sheets)
        few = sum(len(sheet.series) for sheet in sheets) <= len(COLOURS)
        if few and height >= _PLOT_HEIGHT and not self.console.options.ascii_only:
            colours = self.console.color_system is not None and not self.console.no_color
            return Group(
                *[show_plot(one, width=self.console.width, height=height, colours=colours) for one in sheets]
            )
        ranked = [rank(sheet, self.sort, max(1, height - _AROUND_TABLE)) for sheet in sheets]
        trends = not self.console.options.ascii_only
        return Group(*[show_table(sheet, width=self.console.width, trends=trends) for sheet in ranked])
