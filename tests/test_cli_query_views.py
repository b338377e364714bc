"""Tables and plots of series, as lines on a terminal."""

import math
import time
from datetime import timedelta, timezone

import numpy as np
import pytest
from querying import DAY, HOUR, MINUTE, START, ZONE
from rich.console import Console

from ccstore.cli.series import (
    Place,
    Series,
)
from ccstore.cli.views import COLOURS, Sheet, rank, show_plot, show_table

CET = timezone(timedelta(hours=1), "CET")


@pytest.fixture
def zone(monkeypatch):
    """Let the machine be in Central Europe."""
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def series(host, *values, component="", begin=START, step=MINUTE):
    """Make a series."""
    found = np.array(values, np.float64)
    stats = (
        [float(find(found)) for find in (np.nanmean, np.nanmin, np.nanmax)] if len(values) else [math.nan] * 3
    )
    return Series(Place("m", host, component), "", True, begin, step, found, *stats)


def sheet(*found, unit="", now=START):
    """Make a sheet of an hour."""
    return Sheet("m", unit, "alex", START, START + HOUR, now, found)


def shown(view, width):
    """Return what rich prints, without the spaces at the end of lines."""
    console = Console(width=width, highlight=False, markup=False, color_system=None)
    with console.capture() as capture:
        console.print(view)
    return [line.rstrip() for line in capture.get().splitlines()]


THREE = (series("n10", 1, 5), series("n2", 3, 4), series("n1"), series("n3", 9, math.nan))


@pytest.mark.parametrize(
    ("sort", "hosts"),
    [
        ("host", ["n1", "n2", "n3", "n10"]),
        ("avg", ["n3", "n2", "n10", "n1"]),
        ("max", ["n3", "n10", "n2", "n1"]),
        ("last", ["n3", "n10", "n2", "n1"]),
    ],
)
def test_series_are_sorted(sort, hosts):
    """Numbers in names count as numbers, values fall, and hosts without a value come last."""
    assert [one.place.host for one in rank(sheet(*THREE), sort, None).series] == hosts


def test_the_first_of_many():
    """The rest is counted and told in the title."""
    best = rank(sheet(*THREE), "avg", 2)
    assert [one.place.host for one in best.series] == ["n3", "n2"]
    assert best.hidden == 2
    assert shown(best.title, 200)[0].endswith(", every 60 s, 2 of 4 series")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_fits(zone, width):
    """The sparkline takes what is left, up to one block for each value."""
    rows = [series(f"a{n:04d}", *range(60), component="hwthread0") for n in range(3)]
    lines = shown(show_table(sheet(*rows, unit="GB/s"), width=width), width)
    assert lines[0] == "m in GB/s, alex, 13:00 to 14:00 CET, every 60 s"
    assert lines[1].split() == ["host", "component", "last", "avg", "min", "max", "trend"]
    assert max(map(len, lines)) == min(width, 105)
    assert lines[2].split()[:6] == ["a0000", "hwthread0", "59.00", "29.50", "0.00", "59.00"]
    assert len(lines) == 5


def test_a_table_without_room_has_no_sparkline(zone):
    """Nor has one that cannot show it."""
    one = sheet(series("h", *range(60)))
    assert "trend" in shown(show_table(one, width=80), 80)[1]
    assert "trend" not in shown(show_table(one, width=40), 40)[1]
    assert "trend" not in shown(show_table(one, width=80, trends=False), 80)[1]


def test_a_table_shows_missing_values_as_dashes(zone):
    """And no component where there is none."""
    lines = shown(show_table(sheet(series("h")), width=80), 80)
    assert lines[1].split()[:5] == ["host", "last", "avg", "min", "max"]
    assert lines[2].split() == ["h", "-", "-", "-", "-"]


def test_sparklines_of_a_table_share_one_scale(zone):
    """The noise of an idle host does not look like load."""
    lines = shown(show_table(sheet(series("a", *[0, 1] * 30), series("b", *[99, 100] * 30)), width=120), 120)
    assert set(lines[2].split()[-1]) == {"▁"}
    assert set(lines[3].split()[-1]) == {"█"}


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (200, 24)])
def test_a_plot_fits(zone, width, height):
    """Title, curves, times and a table of the numbers, in the size of the terminal."""
    lines = shown(show_plot(sheet(series("h", *range(60))), width=width, height=height, colours=True), width)
    assert len(lines) == min(height, 23)
    assert max(map(len, lines)) <= width
    assert lines[0] == "m, alex, 13:00 to 14:00 CET, every 60 s"
    assert lines[-2].split() == ["host", "last", "avg", "min", "max"]
    assert lines[-1].split() == ["h", "59.00", "29.50", "0.00", "59.00"]
    assert lines[-3].split()[0] == "13:00"


def test_a_plot_of_another_day_has_its_date(zone):
    """Where it matters."""
    view = show_plot(sheet(series("h", *range(60)), now=START + DAY), width=60, height=20, colours=True)
    assert shown(view, 60)[-3].strip() == "2023-11-02"


def test_without_colours_each_series_has_a_plot(zone):
    """With its name above, because lines of one colour cannot be told apart."""
    both = sheet(series("a", *range(60)), series("b", *range(60), component="socket0"))
    lines = shown(show_plot(both, width=60, height=30, colours=False), 60)
    assert [line for line in lines if line in ("a", "b socket0")] == ["a", "b socket0"]
    assert sum("└" in line for line in lines) == 2
    assert len(lines) <= 30
    coloured = shown(show_plot(both, width=60, height=30, colours=True), 60)
    assert sum("└" in line for line in coloured) == 1
    assert sum(line.startswith("━━") for line in coloured) == 2


def test_a_plot_shows_as_many_as_can_be_told_apart(zone):
    """And says how many there are."""
    many = sheet(*(series(f"h{n}", *range(60)) for n in range(10)))
    lines = shown(show_plot(many, width=80, height=30, colours=True), 80)
    assert lines[0].endswith(f"{len(COLOURS)} of 10 series")
    assert sum(line.startswith("━━") for line in lines) == len(COLOURS)
