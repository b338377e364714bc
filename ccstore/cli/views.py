"""What ``query`` shows: tables and plots of the series of one metric.

Functions from values to what rich prints. They ask nobody, read no clock and print nothing; width, height
and whether there are colours are arguments. Invariant: a missing value is a dash in a table and a gap in a
drawing, never a zero.

All sparklines of a table have one scale, from the lowest to the highest value in it. A scale for each
would blow up the noise of an idle host into the load of a busy one.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ccstore.cli.plot import MIN_HEIGHT, MIN_WIDTH, Curve, Picture, draw_plot, draw_sparkline
from ccstore.cli.series import Series
from ccstore.cli.times import describe_range, is_today
from ccstore.cli.units import Scale, choose_scale
from ccstore.model import Metric

__all__ = ["COLOURS", "SORTS", "Sheet", "rank", "show_overview", "show_plot", "show_table"]

COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue")
"""Of the curves in one plot; more could not be told apart."""

SORTS = ("avg", "max", "last", "host")

_GAP = 2
_TREND = range(8, 61)
"""Characters of a sparkline: what is worth drawing, and what is enough."""
_MAX_HEIGHT = 20
_NUMBERS = ("last", "avg", "min", "max")


@frozen(eq=False)
class Sheet:
    """The series of one metric that are shown together."""

    metric: str
    unit: str
    """Empty if it has none, or if it is not known."""
    cluster: str
    start: int
    """Seconds; the range is [start, stop)."""
    stop: int
    now: int
    series: Sequence[Series]
    hidden: int = 0
    """How many more there are."""

    @property
    def has_values(self) -> bool:
        """Whether any value is there."""
        return not all(math.isnan(one.lowest) for one in self.series)

    @property
    def scale(self) -> Scale:
        """The scale that fits all values."""
        found = [abs(end) for one in self.series for end in (one.lowest, one.highest) if not math.isnan(end)]
        return choose_scale(self.unit, max(found, default=0.0))

    @property
    def range(self) -> str:
        """The range for a reader."""
        return describe_range(self.start, self.stop, now=self.now)

    @property
    def title(self) -> Text:
        """One line on what is shown."""
        unit = self.scale.unit
        steps = sorted({one.step for one in self.series})
        facts = [
            self.cluster,
            self.range,
            "every " + " or ".join(f"{step} s" for step in steps),
            *([f"{len(self.series)} of {len(self.series) + self.hidden} series"] if self.hidden else []),
        ]
        return Text.assemble(
            (self.metric, "bold"), f" in {unit}" if unit else "", *(f", {fact}" for fact in facts)
        )


def rank(sheet: Sheet, sort: str, limit: int | None) -> Sheet:
    """Return a sheet with its series in the order of `sort`, and only the first `limit` of them.

    Numbers are sorted from the largest down, missing ones last; hosts by name, and numbers in it by value.
    """
    keys: Mapping[str, Callable[[Series], Any]] = {
        "avg": lambda one: _falling(one.average),
        "max": lambda one: _falling(one.highest),
        "last": lambda one: _falling(one.last),
        "host": lambda one: _natural(one.place.host),
    }
    ordered = sorted(sheet.series, key=keys[sort])
    kept = ordered[:limit]
    return evolve(sheet, series=kept, hidden=sheet.hidden + len(ordered) - len(kept))


def show_table(sheet: Sheet, *, width: int, trends: bool = True) -> RenderableType:
    """Show a line for each series, with a sparkline (`trends`) if `width` leaves room for it."""
    cells = _cells(sheet)
    used = sum(max(map(len, column)) + _GAP for column in cells.values())
    steps = (sheet.stop - sheet.start) // max((one.step for one in sheet.series), default=1)
    room = min(width - used, steps, _TREND[-1])
    if trends and room >= _TREND[0]:
        cells["trend"] = ["trend", *_sparklines(sheet, room)]
    return Group(sheet.title, _table(cells))


def show_plot(sheet: Sheet, *, width: int, height: int, colours: bool) -> RenderableType:
    """Show the series as curves, and a table of their numbers.

    At most as many as there are `COLOURS`; the title says if there are more. Without colours each
    has a plot of its own. `height` in characters is kept if it leaves room for the smallest plots.
    """
    kept = sheet.series[: len(COLOURS)]
    sheet = evolve(sheet, series=kept, hidden=sheet.hidden + len(sheet.series) - len(kept))
    factor = sheet.scale.factor
    curves = [Curve(one.times, one.values * factor) for one in kept]
    cells = _cells(sheet)
    plots = [curves] if colours else [[curve] for curve in curves]
    heads = [] if len(plots) == 1 else [f"{one.place.host} {one.place.component}".rstrip() for one in kept]
    title_lines = -(-len(sheet.title) // width)
    room = (height - title_lines - len(kept) - 1) // len(plots) - bool(heads)
    pictures = [
        draw_plot(
            plot,
            start=sheet.start,
            stop=sheet.stop,
            width=max(MIN_WIDTH, width),
            height=max(MIN_HEIGHT, min(room, _MAX_HEIGHT)),
            dates=not is_today(sheet.start, sheet.stop, now=sheet.now),
        )
        for plot in plots
    ]
    parts: list[RenderableType] = [sheet.title]
    for number, picture in enumerate(pictures):
        parts += [Text(heads[number], "bold")] if heads else []
        parts.append(_colour(picture))
    return Group(*parts, _table(cells, marks=colours and len(kept) > 1))


def show_overview(clusters: Mapping[str, int], metrics: Iterable[Metric]) -> RenderableType:
    """Show what a server has: its clusters with their number of hosts, and the metrics that it stores."""
    stored = {"cluster": ["cluster", *clusters], "hosts": ["hosts", *map(str, clusters.values())]}
    columns = [("metric", "every", "combined", "unit")]
    columns += [
        (one.name, f"{one.frequency} s", one.aggregation.value or "-", one.unit or "-") for one in metrics
    ]
    return Group(
        _table(stored),
        Text(),
        _table({name: [name, *column] for name, *column in zip(*columns, strict=True)}),
    )


def _cells(sheet: Sheet) -> dict[str, list[str]]:
    """Return the columns of a table, each with its head; the components only if there are any."""
    scale, series = sheet.scale, sheet.series
    numbers = {
        "last": [one.last for one in series],
        "avg": [one.average for one in series],
        "min": [one.lowest for one in series],
        "max": [one.highest for one in series],
    }
    cells = {"host": [one.place.host for one in series]}
    if any(one.place.component for one in series):
        cells["component"] = [one.place.component or "-" for one in series]
    cells |= {name: [scale.format(value) for value in values] for name, values in numbers.items()}
    return {name: [name, *column] for name, column in cells.items()}


def _table(cells: Mapping[str, Sequence[str]], *, marks: bool = False) -> Table:
    """Make a table of columns; `marks` puts the colour of its curve before each row."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    if marks:
        table.add_column("")
    for name, (head, *_) in cells.items():
        right = name in _NUMBERS or name in ("hosts", "every")
        table.add_column(
            head, justify="right" if right else "left", no_wrap=right or name == "trend", overflow="fold"
        )
    for number, row in enumerate(zip(*(column[1:] for column in cells.values()), strict=True)):
        mark = [Text("━━", COLOURS[number])] if marks else []
        table.add_row(*mark, *map(Text, row))
    return table


def _sparklines(sheet: Sheet, width: int) -> list[str]:
    low = min((one.lowest for one in sheet.series if not math.isnan(one.lowest)), default=0.0)
    high = max((one.highest for one in sheet.series if not math.isnan(one.highest)), default=0.0)
    return [
        draw_sparkline(
            Curve(one.times, one.values), start=sheet.start, stop=sheet.stop, low=low, high=high, width=width
        )
        for one in sheet.series
    ]


def _colour(picture: Picture) -> Text:
    """Return a picture as text, each mark in the colour of its curve."""
    lines = []
    for line, owners in zip(picture.lines, picture.owners, strict=True):
        text = Text(line)
        ends = [*(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(line)]
        for begin, end in zip([0, *ends], ends, strict=False):
            if owners[begin] >= 0:
                text.stylize(COLOURS[owners[begin]], begin, end)
        lines.append(text)
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _falling(value: float) -> float:
    return math.inf if math.isnan(value) else -value


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts n2 before n10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]+)", name)]
