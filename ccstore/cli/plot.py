"""Drawing with characters: lines in braille dots, and sparklines in blocks.

Functions from arrays to text of the size that was asked for. They know no terminal, no colour, no
metric and no clock. Invariant: a value that is there leaves a mark at its own height and in its own column,
so the largest and the smallest are always to be seen; where values are missing nothing is drawn.

A column of dots covers a stretch of time and shows everything that the line does in it, from its lowest
to its highest point: a spike of one sample in a day is as tall as it was. That makes the work one pass
over the samples and one over the dots, however many there are of either.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import tzinfo

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.cli.times import Tick, place_ticks

__all__ = ["MIN_HEIGHT", "MIN_WIDTH", "Curve", "Picture", "draw_plot", "draw_sparkline", "trace"]

MIN_WIDTH, MIN_HEIGHT = 24, 4
"""Characters of the smallest plot: below it the labels would leave no room."""

_ACROSS, _DOWN = 2, 4
_BRAILLE = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Which bit of a braille character is which of its dots."""
_JUST_BEFORE = 1e-3
"""Seconds; a value at the very end of a column of dots belongs to the next one alone."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_ROWS_PER_TICK = 5
_COLUMNS_PER_TICK = 9
"""At least; what still touches its neighbour is left out."""
_SAME = 1e-9
"""Values that differ by less than this part of them are drawn as one."""
_LARGE, _MAX_DECIMALS = 1e7, 6
"""Labels of larger values, or with more decimals, are written with an exponent."""
_MAX_TICKS = 10
_ROUNDING = 1e-6
"""A label may lie outside by this part of a step, lest 0.1 be above 0.1."""


@frozen(eq=False)
class Curve:
    """Values in the order of their times."""

    times: NDArray[np.int64]
    """Seconds, ascending."""
    values: NDArray[np.float64]
    """NaN where there is none; none is beyond 1e300."""


@frozen(eq=False)
class Picture:
    """A plot: lines of text, and whose the marks in them are."""

    lines: Sequence[str]
    owners: NDArray[np.int16]
    """int16[lines, characters]: the first curve that left a mark in a character; -1 for none."""


def draw_plot(
    curves: Sequence[Curve],
    *,
    start: int,
    stop: int,
    width: int,
    height: int,
    dates: bool = False,
    zone: tzinfo | None = None,
) -> Picture:
    """Draw curves over [start, stop), with an axis on the left and one below.

    The size is in characters and at least `MIN_WIDTH` by `MIN_HEIGHT`. `dates` adds a line with the
    date below the times, which are those of `zone`.
    """
    assert start < stop
    assert width >= MIN_WIDTH
    assert height >= MIN_HEIGHT
    rows = height - (3 if dates else 2)
    low, high = _choose_limits(curves)
    labels = _label_rows(low, high, rows)
    margin = max(map(len, labels.values()))
    columns = width - margin - 2
    cells = np.zeros((rows, columns), np.int64)
    owners = np.full((height, width), -1, np.int16)
    canvas = owners[:rows, margin + 2 :]
    for number, curve in enumerate(curves):
        size = {"across": columns * _ACROSS, "down": rows * _DOWN}
        marks = _as_braille(trace(curve, start=start, stop=stop, low=low, high=high, **size))
        canvas[(marks > 0) & (canvas < 0)] = number
        cells |= marks
    lines = [
        f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}{_as_text(cells[row])}"
        for row in range(rows)
    ]
    ticks = place_ticks(start, stop, columns // _COLUMNS_PER_TICK, zone=zone)
    below = {(tick.time - start) * columns // (stop - start): tick for tick in ticks}
    lines += _draw_time_axis(below, margin, columns, dates=dates)
    return Picture(lines, owners)


def draw_sparkline(curve: Curve, *, start: int, stop: int, low: float, high: float, width: int) -> str:
    """Draw a curve over [start, stop) as `width` blocks, as tall as its values lie between low and high.

    A block that stands for several values shows the one that is farthest from the middle of the scale.
    """
    lowest, highest = _envelope(curve.times, _heights(curve.values, low, high), start, stop, width)
    farthest = np.where(highest - 0.5 >= 0.5 - lowest, highest, lowest)
    levels = np.rint(np.clip(farthest, 0.0, 1.0) * (len(_BLOCKS) - 1))
    return "".join(" " if math.isnan(level) else _BLOCKS[int(level)] for level in levels.tolist())


def trace(
    curve: Curve, *, start: int, stop: int, low: float, high: float, across: int, down: int
) -> NDArray[np.bool_]:
    """Return the dots of a curve: bool[down, across], the highest value on top.

    Neighbouring values are joined by a line unless one of them is missing.
    """
    heights = _heights(curve.values, low, high) * (down - 1)
    lowest, highest = _envelope(curve.times, heights, start, stop, across)
    if len(curve.times):
        edges = np.linspace(start, stop, across + 1)
        for moments in (edges[:-1], edges[1:] - _JUST_BEFORE):
            line = np.interp(moments, curve.times, heights, left=np.nan, right=np.nan)
            lowest, highest = np.fmin(lowest, line), np.fmax(highest, line)
    dots = np.arange(down - 1, -1, -1)[:, np.newaxis]
    drawn: NDArray[np.bool_] = (dots >= np.rint(lowest)) & (dots <= np.rint(highest))
    return drawn


def _heights(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return where values lie between low (0.0) and high (1.0); the middle if these are the same."""
    if not high > low:
        return np.where(np.isnan(values), np.nan, 0.5)
    return np.asarray((values - low) / (high - low))


def _envelope(
    times: NDArray[np.int64], heights: NDArray[np.float64], start: int, stop: int, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest value in each of the columns that [start, stop) is divided into."""
    lowest, highest = np.full(columns, np.nan), np.full(columns, np.nan)
    inside = (times >= start) & (times < stop)
    column = (times[inside] - start) * columns // max(1, stop - start)
    np.fmin.at(lowest, column, heights[inside])
    np.fmax.at(highest, column, heights[inside])
    return lowest, highest


def _choose_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the values at the bottom and at the top: the extremes, or zero where that is near.

    An axis from zero lets heights be compared; one from the lowest value lets small changes be seen.
    """
    values = np.concatenate([*(curve.values[~np.isnan(curve.values)] for curve in curves), np.empty(0)])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if size < 1e-300:
        return 0.0, 1.0
    if high - low <= _SAME * size:
        return low - size / 10, high + size / 10
    if 0 < low <= high / 2:
        return 0.0, high
    if low / 2 <= high < 0:
        return low, 0.0
    return low, high


def _label_rows(low: float, high: float, rows: int) -> dict[int, str]:
    """Return the labels of the left axis by their row: the round numbers from low to high."""
    rough = (high - low) / min(max(2, rows // _ROWS_PER_TICK), _MAX_TICKS)
    power = math.floor(math.log10(rough))
    factor = next(factor for factor in (5.0, 2.5, 2.0, 1.0) if factor * 10.0**power <= rough or factor == 1)
    step, last = factor * 10.0**power, power - (factor == 2.5)
    size = max(abs(low), abs(high))
    if size < _LARGE and last >= -_MAX_DECIMALS:
        form = f".{max(0, -last)}f"
    else:
        form = f".{max(0, math.floor(math.log10(size)) - last)}e"
    labels: dict[int, str] = {}
    for count in range(math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING) + 1):
        height = (count * step - low) / (high - low)
        row = rows - 1 - min(max(0, round(height * (rows * _DOWN - 1)) // _DOWN), rows - 1)
        labels.setdefault(row, f"{count * step:{form}}")
    return labels


def _draw_time_axis(ticks: Mapping[int, Tick], margin: int, columns: int, *, dates: bool) -> Sequence[str]:
    """Return the lines below a plot, for ticks by their column in it."""
    axis = "".join("┬" if column in ticks else "─" for column in range(columns))
    width = margin + 2 + columns
    clocks = {margin + 2 + column: tick.clock for column, tick in ticks.items()}
    days = {margin + 2 + column: tick.date for column, tick in ticks.items() if tick.date}
    lines = [f"{'':{margin}} └{axis}", _write_below(clocks, width)]
    return [*lines, _write_below(days, width)] if dates else lines


def _write_below(labels: Mapping[int, str], width: int) -> str:
    """Return a line with labels centred below their columns, without those that would touch another."""
    line = ""
    for column, label in labels.items():
        begin = min(max(0, column - len(label) // 2), width - len(label))
        if not line or begin > len(line):
            line = line.ljust(begin) + label
    return line.ljust(width)


def _as_braille(drawn: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the bits of the characters that show these dots: int64[rows, columns]."""
    down, across = drawn.shape
    dots = drawn.reshape(down // _DOWN, _DOWN, across // _ACROSS, _ACROSS)
    bits: NDArray[np.int64] = (dots * _BITS[:, np.newaxis, :]).sum(axis=(1, 3))
    return bits


def _as_text(marks: NDArray[np.int64]) -> str:
    return "".join(chr(_BRAILLE + mark) if mark else " " for mark in marks.tolist())
