"""Drawing with characters: golden pictures, and what holds for every picture."""

from datetime import UTC, datetime

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccstore.cli.plot import MIN_HEIGHT, MIN_WIDTH, Curve, draw_plot, draw_sparkline, trace

NOON = int(datetime(2026, 11, 2, 12, 0, tzinfo=UTC).timestamp())
MINUTE, HOUR, DAY = 60, 3600, 86400
NAN = np.nan


def curve(*values, start=NOON, step=MINUTE):
    """Make a curve of values `step` seconds apart."""
    return Curve(start + step * np.arange(len(values)), np.array(values, np.float64))


def draw(*curves, start=NOON, stop=NOON + HOUR, width=40, height=8, zone=UTC, **options):
    """Draw a plot and return its lines, without the spaces behind them, as one text."""
    picture = draw_plot(curves, start=start, stop=stop, width=width, height=height, zone=zone, **options)
    return "".join(f"{line.rstrip()}\n" for line in picture.lines)


def test_a_line_with_a_gap_and_a_lonely_value():
    """Neighbours are joined, a missing value is a hole, and a value without neighbours is a dot."""
    values = [*range(21), *[NAN] * 10, 20.0, NAN, NAN, *range(18, 0, -1)]
    assert (
        draw(curve(*values))
        == """\
20 ┤          ⣠⠞⠁     ⠈ ⢤⡀
   │        ⣠⠞⠁          ⠙⢦⡀
10 ┤      ⣠⠞⠁              ⠙⢦⡀
   │   ⢀⡴⠋                   ⠙⢦⡀
   │ ⢀⡴⠋                       ⠙⢦⡀
 0 ┤⡴⠋                           ⠙⠦
   └┬─────────────────┬─────────────────
  12:00             12:30
"""
    )


def test_a_day_has_dates_below():
    """The first mark of each day carries its date."""
    values = 50 + 40 * np.sin(np.arange(DAY // 600) / 12)
    start = NOON - 6 * HOUR
    drawn = draw(curve(*values, start=start, step=600), start=start, stop=start + DAY, width=60, dates=True)
    assert (
        drawn
        == """\
75 ┤  ⢀⣠⠴⠚⠉⠉⠙⠒⠦⣄                    ⣠⠴⠒⠋⠉⠉⠓⠦⣄⡀
   │⢀⡴⠋        ⠈⠳⢤⡀              ⢀⡴⠚⠁        ⠙⢦⡀
50 ┤⠉             ⠙⢦⡀          ⢀⡴⠋             ⠉⠳⣄
25 ┤                ⠉⠳⣄⡀    ⢀⣠⠞⠉                 ⠈⠳⢤⣀     ⣠⠤
 0 ┤                   ⠉⠙⠒⠒⠋⠉                       ⠈⠙⠒⠒⠚⠉⠁
   └┬─────────────┬─────────────┬─────────────┬─────────────
  06:00         12:00         18:00         00:00
2026-11-02                               2026-11-03
"""
    )


def test_values_far_from_zero_get_an_axis_of_their_own():
    """Small changes of large values are to be seen; from zero on they would be flat."""
    assert (
        draw(curve(71.9, 72.0, 72.1, 72.0), stop=NOON + 4 * MINUTE, width=30, height=6)
        == """\
72.10 ┤        ⢀⣠⠖⠛⠲⣄⡀
72.00 ┤     ⢀⣠⠖⠋     ⠙⠲⣄⡀
71.95 ┤  ⢀⡤⠞⠉
71.90 ┤⡤⠞⠉
      └┬──────────────────────
     12:00
"""
    )


def test_a_spike_of_one_sample_in_a_day_is_as_tall_as_it_was():
    """However many values share a column, it reaches from the lowest to the highest of them."""
    values = np.ones(1440)
    values[700] = 9.0
    start = NOON - DAY // 2
    drawn = draw(curve(*values, start=start), start=start, stop=start + DAY, width=30, height=6)
    assert (
        drawn
        == """\
7.5 ┤            ⡇
5.0 ┤            ⡇
2.5 ┤            ⡇
0.0 ┤⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠓⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒
    └┬────────────────────────
2026-11-02
"""
    )


def test_a_plot_of_nothing_has_axes():
    """No values, or none but missing ones: an empty plot of the same size."""
    empty = """\
1.0 ┤
0.5 ┤
    │
0.0 ┤
    └┬────────────────────────
   12:00
"""
    assert draw(width=30, height=6) == draw(curve(), width=30, height=6) == empty
    assert draw(curve(NAN, NAN), width=30, height=6) == empty


def test_marks_belong_to_the_first_curve_that_made_them():
    """Whoever colours a picture finds the owner of each mark, and nobody behind labels and axes."""
    picture = draw_plot(
        [curve(0.0, 0.0, step=30 * MINUTE), curve(8.0, 8.0, step=30 * MINUTE)],
        start=NOON, stop=NOON + HOUR, width=30, height=6, zone=UTC,
    )  # fmt: skip
    owned = [set(owners[owners >= 0].tolist()) for owners in picture.owners]
    assert owned == [{1}, set(), set(), {0}, set(), set()]
    for line, owners in zip(picture.lines, picture.owners, strict=True):
        assert [0x2800 <= ord(mark) < 0x2900 for mark in line] == (owners >= 0).tolist()


def test_sparkline_with_a_gap():
    """One block for each value, blank where it is missing."""
    drawn = draw_sparkline(
        curve(0, 1, 2, NAN, 6, 7), start=NOON, stop=NOON + 6 * MINUTE, low=0, high=7, width=6
    )
    assert drawn == "▁▂▃ ▇█"


def test_a_sparkline_shows_what_lies_far_from_the_middle():
    """A block for several values shows a peak among low values, and a dip among high ones."""
    values = [1, 1, 7, 1, 1, 1, 6, 6, 0, 6, 6, 6]
    drawn = draw_sparkline(curve(*values), start=NOON, stop=NOON + 12 * MINUTE, low=0, high=7, width=6)
    assert drawn == "▂█▂▇▁▇"


def test_a_constant_sparkline_lies_in_the_middle():
    """Without a highest and a lowest value there is no other place for it."""
    assert draw_sparkline(curve(5, 5), start=NOON, stop=NOON + 120, low=5, high=5, width=2) == "▅▅"


floats = st.floats(-1e300, 1e300, allow_subnormal=True) | st.just(NAN)
values = hnp.arrays(np.float64, st.integers(0, 200), elements=floats)
curves = st.builds(
    lambda values, begin, step: curve(*values, start=NOON + begin, step=step),
    values,
    st.integers(-DAY, DAY),
    st.integers(1, HOUR),
)


@given(
    st.lists(curves, max_size=4),
    st.integers(0, DAY),
    st.integers(1, 10 * DAY),
    st.integers(MIN_WIDTH, 250),
    st.integers(MIN_HEIGHT, 60),
    st.booleans(),
)
@example([], 0, 1, MIN_WIDTH, MIN_HEIGHT, True)
@example([curve(1e300, -1e300)], 0, 1, MIN_WIDTH, MIN_HEIGHT, False)
@example([curve(5e-324, 0.0)], 0, 1, MIN_WIDTH, MIN_HEIGHT, False)
@example([curve(1e300, 1e300 * (1 - 2e-9))], 0, 1, MIN_WIDTH, MIN_HEIGHT, False)
def test_a_plot_never_fails_and_has_the_size_that_was_asked_for(curves, begin, length, width, height, dates):
    """Any values, ranges and sizes."""
    start = NOON + begin
    picture = draw_plot(
        curves, start=start, stop=start + length, width=width, height=height, dates=dates, zone=UTC
    )
    assert [len(line) for line in picture.lines] == [width] * height
    assert picture.owners.shape == (height, width)


@given(values.filter(lambda values: not np.isnan(values).all()), st.integers(1, 100), st.integers(2, 50))
def test_the_extremes_are_always_to_be_seen(values, across, down):
    """The lowest value leaves a dot at the bottom and the highest one at the top, each in its column."""
    low, high = np.nanmin(values), np.nanmax(values)
    stop = NOON + MINUTE * len(values)
    dots = trace(curve(*values), start=NOON, stop=stop, low=low, high=high, across=across, down=down)
    assert dots.shape == (down, across)
    for index in range(len(values)):
        column = index * across // len(values)
        if high > low and values[index] == high:
            assert dots[0, column]
        if high > low and values[index] == low:
            assert dots[-1, column]
        assert dots[:, column].any() or np.isnan(values[index])


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_where_values_are_missing_nothing_is_drawn(before, missing, behind):
    """No dot lies between two values with a hole between them, and both sides are drawn up to it."""
    values = [1.0] * before + [NAN] * missing + [2.0] * behind
    stop = NOON + MINUTE * len(values)
    dots = trace(curve(*values), start=NOON, stop=stop, low=0, high=3, across=len(values), down=4)
    drawn = dots.any(axis=0).tolist()
    assert drawn == [True] * before + [False] * missing + [True] * behind


@given(values, st.integers(1, 120))
@example(np.array([5e-324, 0.0]), 1)
@example(np.array([1e300, -1e300]), 2)
def test_a_sparkline_never_fails_and_has_the_width_that_was_asked_for(values, width):
    """Any values; a block for the highest is always full, and missing values alone give blanks."""
    present = values[~np.isnan(values)]
    low, high = (present.min(), present.max()) if len(present) else (0.0, 0.0)
    stop = NOON + MINUTE * max(1, len(values))
    drawn = draw_sparkline(curve(*values), start=NOON, stop=stop, low=low, high=high, width=width)
    assert len(drawn) == width
    assert ("█" in drawn) == (high > low)
    assert drawn.strip() or not len(present)
