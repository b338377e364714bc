"""The command ``query``: metrics from a running server, as a table or a plot in the terminal.

Owns the options and the order of things: find out what the server has, ask, show, say what is missing.
The words of the request are in `series`, the pictures in `views`, the connection in `client`. Invariant: what
the server sent is either shown or reported, so that an empty picture never looks like a quiet cluster.
"""

import csv
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ccstore.cli.catalogue import Catalogue
from ccstore.cli.client import Client, server_options
from ccstore.cli.inquiry import Findings, Inquiry
from ccstore.cli.series import Components, Ids, Question, parse_ids
from ccstore.cli.times import HOUR, Moment, Span, parse_moment, parse_seconds
from ccstore.cli.views import COLOURS, SORTS, Sheet, rank, show_overview, show_plot, show_table
from ccstore.errors import CcstoreError, QueryError

__all__ = ["command"]

_EPILOG = """
\b
Examples:
  ccstore query                                 what there is
  ccstore query cpu_load                        all hosts, the last hour
  ccstore query mem_bw --top 10 --last 15m      the ten hosts with most of it
  ccstore query flops_any mem_bw --host a0329 --last 6h
  ccstore query clock --host a0329 --type hwthread --ids 0-3
  ccstore query cpu_load --top 20 --watch       again every 10 s, until Ctrl-C
  ccstore query cpu_load --from 2026-11-02T08:00 --to 2026-11-02T12:00 --csv

A TIME is a date and time (local, unless it has a zone), seconds since the epoch, -2h, or now.
A LIST has commas, and ranges of numbers: 0,1 or 0-71.
"""
_TYPES = ("socket", "memoryDomain", "core", "hwthread", "accelerator")
_PIPED_WIDTH = 100
"""Characters of what is not shown on a terminal; tables may become wider, but not for the sparklines."""
_UNLIMITED = 10_000
_PLOT_HEIGHT = 10
"""Lines for each plot, below which tables tell more."""
_WATCH_SECONDS = "10"
_AROUND_TABLE = 3
"""Lines of a table that are no rows: its title, its head, and one below."""


def _now() -> int:
    return int(time.time())


def _parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a callback for an option whose text is read by a function that raises ValueError."""

    def read(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from error

    return read


def _split(_ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    """Split lists of names at commas, and drop what was said before."""
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(filter(None, names)))


@click.command("query", epilog=_EPILOG)
@click.argument("metrics", metavar="[METRIC]...", nargs=-1, callback=_split)
@click.option(
    "--host",
    "hosts",
    metavar="HOST",
    multiple=True,
    callback=_split,
    help="Of these hosts; repeat it, or use commas (default: all hosts).",
)
@click.option("--cluster", metavar="NAME", help="Of this cluster (default: the only one there is).")
@click.option(
    "--type",
    "type_",
    metavar="TYPE",
    type=click.Choice(_TYPES, case_sensitive=False),
    help=f"Of components of the hosts: {', '.join(_TYPES)}.",
)
@click.option("--ids", metavar="LIST", callback=_parsed(parse_ids), help="Which components of the type.")
@click.option("--subtype", metavar="NAME", help="Of what lies below the components.")
@click.option("--subids", metavar="LIST", callback=_parsed(parse_ids), help="Which of the subtype.")
@click.option(
    "--sum",
    "combined",
    is_flag=True,
    help="Combine the components of a host into one, as the metric's aggregation says.",
)
@click.option(
    "--last", metavar="DURATION", callback=_parsed(parse_seconds), help="How far to look back (default: 1h)."
)
@click.option("--from", "begin", metavar="TIME", callback=_parsed(parse_moment), help="From this time on.")
@click.option(
    "--to",
    "end",
    metavar="TIME",
    callback=_parsed(parse_moment),
    default="now",
    help="Up to this time (default: now).",
)
@click.option(
    "--resolution",
    metavar="DURATION",
    callback=_parsed(parse_seconds),
    help="Let the server thin out values to one for each of these.",
)
@server_options
@click.option(
    "--plot", "form", flag_value="plot", help="Draw curves (default on a terminal, if they are few)."
)
@click.option("--table", "form", flag_value="table", help="Show a line for each series.")
@click.option("--json", "form", flag_value="json", help="Print what the server answers.")
@click.option(
    "--csv", "form", flag_value="csv", help="Print a line for each value: metric,host,component,time,value."
)
@click.option(
    "--sort", type=click.Choice(SORTS), help="Order of the series (default: host, with --top: avg)."
)
@click.option(
    "--top", metavar="N", type=click.IntRange(min=1), help="Only the first N series of each metric."
)
@click.option(
    "--watch",
    metavar="[SECONDS]",
    callback=_parsed(parse_seconds),
    is_flag=False,
    flag_value=_WATCH_SECONDS,
    help=f"Show it again and again (default: every {_WATCH_SECONDS} s).",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    metrics: tuple[str, ...],
    hosts: tuple[str, ...],
    cluster: str | None,
    resolution: int | None,
    url: str,
    token: str,
    form: str | None,
    sort: str | None,
    top: int | None,
    watch: int | None,
    **rest: Any,
) -> None:
    """Ask a running store for metrics; show a table or a plot.

    Without METRIC, show what there is to ask for.
    """
    components, span = _components(ctx, **rest), _span(ctx, **rest)
    _check_form(
        ctx, form, is_overview=not metrics, is_watched=watch is not None, is_ordered=bool(sort or top)
    )
    display = _Display(_make_console(), form, sort or ("avg" if top else "host"), top)
    if watch is not None and not display.console.is_terminal:
        ctx.fail("--watch without a terminal (wanted one as the output)")
    with Client(url, token=token) as client:
        catalogue = Catalogue(client)
        if not metrics:
            _show_catalogue(ctx, catalogue, display.console)
            return
        catalogue.check_metrics(metrics)
        question = Question(catalogue.find_cluster(cluster), metrics, hosts, components, resolution or 0)
        inquiry = Inquiry(client, catalogue, question, span)
        if watch is None:
            display.show(inquiry.look(_now()))
        else:
            display.watch(inquiry, watch)


def _check_form(
    ctx: click.Context, form: str | None, *, is_overview: bool, is_watched: bool, is_ordered: bool
) -> None:
    """Tell which options do not go together."""
    if form in ("json", "csv") and is_watched:
        ctx.fail(f"--watch with --{form} (wanted a table or a plot)")
    if form == "json" and is_ordered:
        ctx.fail("--json with --sort or --top (the server's answer is printed as it is)")
    if is_overview and form not in (None, "table"):
        ctx.fail(f"--{form} without a metric (wanted METRIC)")


def _components(
    ctx: click.Context,
    *,
    type_: str | None,
    ids: Ids | None,
    subtype: str | None,
    subids: Ids | None,
    combined: bool,
    **_rest: Any,
) -> Components | None:
    """Put the options about components together, or tell which one is missing."""
    if type_ is None:
        for option, value in (
            ("--ids", ids),
            ("--subtype", subtype),
            ("--subids", subids),
            ("--sum", combined),
        ):
            if value:
                ctx.fail(f"{option} without --type (wanted --type {'|'.join(_TYPES)})")
        return None
    if ids is None:
        ctx.fail(f"--type {type_} without --ids (wanted --ids LIST, such as 0,1 or 0-71)")
    if (subtype is None) != (subids is None):
        ctx.fail("one of --subtype and --subids without the other (wanted both or none)")
    return Components(type_, ids, subtype or "", subids or Ids("", ()), combined)


def _span(ctx: click.Context, *, begin: Moment | None, end: Moment, last: int | None, **_rest: Any) -> Span:
    """Put the options about time together, or tell what is wrong with them."""
    if begin is not None and last is not None:
        ctx.fail("--last with --from (wanted one of them)")
    span = Span(begin, end, last or HOUR)
    start, stop = span.at(_now())
    if start >= stop:
        ctx.fail(f"--from is not before --to (got {start} and {stop} in seconds since the epoch)")
    return span


def _show_catalogue(ctx: click.Context, catalogue: Catalogue, console: Console) -> None:
    if catalogue.metrics is None or catalogue.clusters is None:
        ctx.fail("no METRIC, and this server does not tell which it has")
    console.print(show_overview(catalogue.clusters, catalogue.metrics.values()))


def _make_console() -> Console:
    """Make a console as wide as the terminal; without one, lines may have any length."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    return console


@frozen
class _Display:
    """Where findings are shown, and how."""

    console: Console
    form: str | None
    """None for a plot or a table, whichever fits."""
    sort: str
    top: int | None

    def show(self, found: Findings) -> None:
        """Show findings, then raise QueryError for what is missing."""
        sheets = self._rank(found.sheets, self.top)
        if self.form == "json":
            click.echo(found.body)
        elif self.form == "csv":
            _write_csv(sheets)
        elif sheets:
            height = self.console.height - 1  # the shell's prompt comes below
            plots = self._chooses_plots(sheets, height)
            self.console.print(self._draw_plots(sheets, height) if plots else self._draw_tables(sheets))
        if found.problems:
            raise QueryError("\n".join(found.problems))

    def watch(self, inquiry: Inquiry, seconds: int) -> None:
        """Ask and show again and again, in place and never more than fits on the terminal.

        What goes wrong after the first time is shown below what was found last, and asked again.
        """
        found = inquiry.look(_now())
        if not found.sheets:
            raise QueryError("\n".join(found.problems))
        problems = found.problems
        with Live(console=self.console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                notes = [Text(problem, "red", no_wrap=True, overflow="ellipsis") for problem in problems]
                picture = self._fit(found.sheets, self.console.height - len(notes) - 1)
                live.update(Group(picture, *notes), refresh=True)
                time.sleep(seconds)
                try:
                    again = inquiry.look(_now())
                    found, problems = again if again.sheets else found, again.problems
                except CcstoreError as error:
                    problems = str(error).splitlines()

    def _fit(self, sheets: Sequence[Sheet], height: int) -> RenderableType:
        """Draw what fits into a number of lines."""
        ranked = self._rank(sheets, self.top)
        if self._chooses_plots(ranked, height):
            return self._draw_plots(ranked, height)
        rows = max(1, height // len(sheets) - _AROUND_TABLE)
        return self._draw_tables(self._rank(sheets, min(self.top or rows, rows)))

    def _rank(self, sheets: Sequence[Sheet], limit: int | None) -> Sequence[Sheet]:
        return [rank(sheet, self.sort, limit) for sheet in sheets]

    def _chooses_plots(self, sheets: Sequence[Sheet], height: int) -> bool:
        """Tell whether to draw plots; QueryError if they are wanted and not possible."""
        ascii_only = self.console.options.ascii_only
        if self.form == "plot" and ascii_only:
            raise QueryError(f"query: --plot: the output is {self.console.encoding} (wanted UTF-8)")
        few = sum(len(sheet.series) for sheet in sheets) <= len(COLOURS)
        fit = height // len(sheets) >= _PLOT_HEIGHT
        return self.form == "plot" or (
            self.form is None and self.console.is_terminal and few and fit and not ascii_only
        )

    def _draw_plots(self, sheets: Sequence[Sheet], height: int) -> RenderableType:
        """Draw a plot for each sheet, together about `height` lines."""
        colours = self.console.color_system is not None and not self.console.no_color
        each = (height + 1) // len(sheets) - 1
        return _stack([show_plot(sheet, width=self._width, height=each, colours=colours) for sheet in sheets])

    def _draw_tables(self, sheets: Sequence[Sheet]) -> RenderableType:
        trends = not self.console.options.ascii_only
        return _stack([show_table(sheet, width=self._width, trends=trends) for sheet in sheets])

    @property
    def _width(self) -> int:
        return self.console.width if self.console.is_terminal else _PIPED_WIDTH


def _stack(parts: Sequence[RenderableType]) -> RenderableType:
    """Put parts below each other, with an empty line between."""
    return Group(*[line for part in parts for line in (part, Text())][:-1])


def _write_csv(sheets: Sequence[Sheet]) -> None:
    """Write a line for each value that is there."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("metric", "host", "component", "time", "value"))
    for sheet in sheets:
        for one in sheet.series:
            place = (sheet.metric, one.place.host, one.place.component)
            pairs = zip(one.times.tolist(), one.values.tolist(), strict=True)
            writer.writerows((*place, moment, value) for moment, value in pairs if not math.isnan(value))
    sys.stdout.flush()
