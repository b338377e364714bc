"""What a read of one series returns: ranges, several chunks, gaps, statistics."""

import numpy as np
import pytest
from memory_tools import FOREVER, NAN, SUM, Read, groups_of, make_store, plain, read, steps, write

from ccstore.memory.query import Reader
from ccstore.memory.store import Store
from ccstore.model import Metric, Status

HOST = ("c", "h")
FIVE = steps(1000, [1, 2, 3, 4, 5])


def filled(*points: tuple[int, float], frequency: int = 60) -> Store:
    """Return a store with points of one series."""
    store = make_store(Metric("m", frequency, SUM))
    write(store, HOST, points)
    return store


@pytest.mark.parametrize(
    ("start", "stop", "values", "first", "end"),
    [
        (1000, 1300, [1, 2, 3, 4, 5], 1000, 1300),
        (900, 1300, [1, 2, 3, 4, 5], 1000, 1300),
        (970, 1300, [1, 2, 3, 4, 5], 1000, 1300),
        (999, 1300, [1, 2, 3, 4, 5], 1000, 1300),
        (1001, 1300, [1, 2, 3, 4, 5], 1001, 1301),
        (1029, 1300, [1, 2, 3, 4, 5], 1029, 1329),
        (1030, 1300, [2, 3, 4, 5], 1030, 1270),
        (1000, 1299, [1, 2, 3, 4, 5], 1000, 1300),
        (1000, 1241, [1, 2, 3, 4, 5], 1000, 1300),
        (1000, 1240, [1, 2, 3, 4], 1000, 1240),
        (1000, 2000, [1, 2, 3, 4, 5], 1000, 1300),
        (1269, 1400, [5], 1269, 1329),
        (1270, 1400, [], 1270, 1270),
        (1300, 1400, [], 1300, 1300),
        (5000, 6000, [], 5000, 5000),
        (500, 600, [], 1000, 1000),
        (900, 1000, [], 1000, 1000),
        (1000, 1000, [], 1000, 1000),
        (-(2**60), 2**60, [1, 2, 3, 4, 5], 1000, 1300),
        (2**60, 2**60, [], 2**60, 2**60),
    ],
)
def test_a_range_of_one_chunk(start: int, stop: int, values: list[float], first: int, end: int) -> None:
    """Times follow the phase of the request; an empty range is a success without values."""
    assert Read(tuple(values), first, end) == read(filled(*FIVE), HOST, start, stop)


def test_a_range_that_ends_before_it_starts() -> None:
    """It is an error, also where nothing is stored."""
    store = filled(*FIVE)
    for selector in (HOST, ("c", "nobody")):
        assert read(store, selector, 2000, 1000).status is Status.BAD_RANGE


@pytest.mark.parametrize(
    ("start", "values", "end"),
    [
        (90570, [509, 510, 511, -2], 90810),
        (90599, [509, 510, 511, -2], 90839),
        (90600, [510, 511, None, -2], 90840),
        (90667, [511, -2], 90787),
    ],
)
def test_a_range_over_two_chunks(start: int, values: list[float | None], end: int) -> None:
    """The slot that covers a time may lie between the chunks' grids: then the value is missing."""
    store = filled(*steps(60030, range(512)), (90757, -2))
    assert Read(tuple(values), start, end) == read(store, HOST, start, 90930)


def test_a_wide_gap_is_missing_values() -> None:
    """Each slot of it is one."""
    store = filled((1000, 1), (601000, 2))
    got = read(store, HOST, 900, 601120)
    assert (1.0, *[None] * 9999, 2.0) == got.values
    assert (got.start, got.stop) == (1000, 1000 + 10001 * 60)


@pytest.mark.parametrize(
    ("stop", "count"), [(1060, 1), (300000, 1), (600970, 1), (600971, 10000), (601030, 10001)]
)
def test_a_range_that_ends_in_a_gap(stop: int, count: int) -> None:
    """Nothing is returned of the gap behind a chunk that is not full, unless values follow."""
    store = filled((1000, 1), (601000, 2))
    assert count == len(read(store, HOST, 1000, stop).values)


def test_a_range_that_begins_in_a_gap() -> None:
    """It begins where it was asked to, with missing values."""
    store = filled((1000, 1), (601000, 2))
    assert Read((None, None, 2.0), 600880, 601060) == read(store, HOST, 600880, 601060)
    assert Read((None,) * 10, 300000, 300600) == read(store, HOST, 300000, 300600)


@pytest.mark.parametrize("chunks", [2, 3, 6])
def test_short_chunks_cost_no_value(chunks: int) -> None:
    """Chunks that do not cover a time are passed over all at once (D-34)."""
    times = [1000 + k * 512 * 60 for k in range(chunks)]
    store = filled(*((time, k) for k, time in enumerate(times)))
    values = [None] * (512 * (chunks - 1) + 1)
    values[::512] = list(map(float, range(chunks)))
    assert tuple(values) == read(store, HOST, 0, FOREVER).values
    for k, time in enumerate(times):
        assert (float(k),) == read(store, HOST, time, time + 1).values


def test_a_chunk_that_no_step_meets_costs_no_other_value() -> None:
    """A read in steps of the frequency can pass over a slot, but not lose step by it."""
    store = filled((60030, 1), (90720, 2), (90780, 3))
    # 90700 is in the overlap: the older chunk ends there, the newer one began at 90690
    assert Read((2.0, 3.0), 90700, 90820) == read(store, HOST, 90700, 91000)
    write(store, HOST, [(90689, 511)])
    assert Read((511.0, 3.0), 90700, 90820) == read(store, HOST, 90700, 91000)


def test_work_is_bounded_by_what_is_stored() -> None:
    """A range of all times, or a gap of an age, neither takes memory nor time (D-32)."""
    store = filled(*FIVE, frequency=1)
    assert (1.0, *[None] * 59, 2.0) == read(store, HOST, -(2**60), 2**60).values[:61]
    write(store, HOST, [(2**45, 6)])
    assert read(store, HOST, -(2**60), 2**60) == Read((), 1000, 1000, Status.TOO_LONG)
    assert read(store, HOST, 2**45, 2**60).values == (6.0,)


def test_a_group_that_is_too_long_harms_no_other() -> None:
    """It is empty; those before and behind it are read."""
    store = make_store()
    write(store, ("c", "a"), FIVE)
    write(store, ("c", "b"), [(1000, 1), (1000 + 60 * 3000, 2)])
    reader = Reader(store.columns, max_values=1000)
    groups = groups_of(store, [("c", "a"), ("c", "b"), ("c", "a")])
    ((part, window),) = reader.windows(groups, 0, FOREVER)
    assert slice(0, 3) == part
    assert window.statuses.tolist() == [Status.GOOD, Status.TOO_LONG, Status.GOOD]
    assert window.ends.tolist() == [5, 5, 10]
    assert window.values.tolist() == [1, 2, 3, 4, 5] * 2


def test_a_sum_that_is_too_long() -> None:
    """Its length is that of all components together, wherever each of them lies."""
    store = make_store()
    write(store, ("c", "h", "cpu0"), [(1000, 1)])
    write(store, ("c", "h", "cpu1"), [(10**12, 1)])
    assert read(store, ("c", "h"), 0, 2**60).status is Status.TOO_LONG
    assert read(store, ("c", "h"), 0, 10**12).values == (1.0,)
    groups = groups_of(store, [("c", "h", "cpu0"), ("c", "h"), ("c", "h", "cpu1")])
    ((_, window),) = Reader(store.columns).windows(groups, 0, 2**60)
    assert window.statuses.tolist() == [Status.GOOD, Status.TOO_LONG, Status.GOOD]


def test_a_sum_that_does_not_fit_waits_for_the_next_window() -> None:
    """Also when its components do not line up."""
    store = make_store()
    for k in range(2):
        write(store, ("c", "h", f"cpu{k}"), steps(1000 + 60 * k, range(40)))
    groups = groups_of(store, [("c", "h")] * 5)
    windows = [
        (part, window.ends.tolist())
        for part, window in Reader(store.columns, max_values=100).windows(groups, 0, FOREVER)
    ]
    assert windows == [(slice(0, 2), [41, 82]), (slice(2, 4), [41, 82]), (slice(4, 5), [41])]


def test_a_group_that_does_not_fit_waits_for_the_next_window() -> None:
    """Groups that are together too long for one window come in several."""
    store = filled(*steps(1000, range(40)))
    reader = Reader(store.columns, max_values=100)
    windows = [
        (part, window.values.tolist())
        for part, window in reader.windows(groups_of(store, [HOST] * 5), 0, FOREVER)
    ]
    assert [slice(0, 2), slice(2, 4), slice(4, 5)] == [part for part, _ in windows]
    assert [float(k) for k in range(40)] * 5 == [value for _, values in windows for value in values]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], (2.0, 1.0, 3.0)),
        ([NAN, 4, NAN], (4.0, 4.0, 4.0)),
        ([-1, NAN, -5], (-3.0, -5.0, -1.0)),
        ([NAN, NAN], (None, None, None)),
        ([], (None, None, None)),
        ([3e38, 3e38], (float(np.float32(3e38)),) * 3),
    ],
)
def test_statistics_are_of_the_values_that_are_there(
    values: list[float], expected: tuple[float | None, ...]
) -> None:
    """Average, minimum and maximum leave missing values out; without any they are missing."""
    store = filled((-(10**6), 0), *steps(1000, values))
    ((_, window),) = Reader(store.columns).windows(groups_of(store, [HOST]), 1000, FOREVER)
    assert expected == plain(window.stats[0])


def test_a_read_sees_what_was_written_before_it() -> None:
    """There is no delay between an append and a read."""
    store = filled(*FIVE)
    write(store, HOST, [(1300, 6)])
    assert read(store, HOST, 1300, 1360).values == (6.0,)
