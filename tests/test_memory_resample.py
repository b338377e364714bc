"""Thinning of values: the vectors of the contract, and a second implementation in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_tools import NAN, SUM, groups_of, make_store, plain, steps, write

from ccstore.memory.kernels.resample import largest_triangles
from ccstore.memory.query import Reader
from ccstore.memory.resample import resample
from ccstore.model import Metric, Status


def squares(count: int, **changes: float) -> list[float]:
    """Return (i * i) mod 97, some values changed: by index, ``_5``."""
    values = [float(i * i % 97) for i in range(count)]
    for index, value in changes.items():
        values[int(index[1:])] = value
    return values


GAP = {f"_{i}": NAN for i in range(300, 320)}
LINE = list(map(float, range(1500)))


@pytest.mark.parametrize(
    ("values", "resolution", "expected"),
    [
        (squares(1000), 6000, "0 95 8 96 0 96 6 96 96 65"),
        (squares(1003), 6000, "0 95 6 96 0 96 6 96 2 54"),
        (squares(1000, **GAP), 6000, "0 95 18 NaN 2 95 6 96 96 65"),
        (squares(1000, _450=NAN), 6000, "0 95 8 2 NaN 32 96 2 96 65"),
        (squares(1000, _0=NAN), 6000, "NaN 50 0 96 0 96 6 96 96 65"),
        (squares(1000, _998=1e6), 6000, "0 95 8 96 0 96 6 0 50 65"),
        (squares(1000, _997=1e6), 6000, "0 95 8 96 0 96 6 0 1000000 65"),
        (LINE[:1000], 6000, "0 1 125 250 375 500 624 749 874 999"),
        (squares(1000), 19980, "0 8 65"),
        (squares(1000), 30000, "0 65"),
        (squares(1000), 60000, "0 65"),
        (LINE, 30000, "0 1498 1499"),
        (LINE, 22500, "0 1 750 1499"),
    ],
)
def test_the_vectors_of_the_contract(values: list[float], resolution: int, expected: str) -> None:
    """Which values are picked is part of the wire format."""
    got, step = resample(np.array(values), 60, resolution)
    assert resolution == step
    assert plain([float(word) for word in expected.split()]) == plain(got)


@pytest.mark.parametrize(
    ("resolution", "count", "head", "tail", "total"),
    [
        (420, 142, "0 49 2 95 8 88 11 93 6 86", "", 474751),
        (120, 500, "0 4 16 36 64 3 47 2 62 95", "96 43 94 65", 5950740),
    ],
)
def test_the_long_vectors_of_the_contract(
    resolution: int, count: int, head: str, tail: str, total: int
) -> None:
    """The sum of position times value stands for the middle."""
    got, step = resample(np.array(squares(1000)), 60, resolution)
    assert (resolution, count) == (step, len(got))
    assert head == " ".join(str(int(value)) for value in got[:10])
    assert tail == " ".join(str(int(value)) for value in got[count - len(tail.split()) :])
    assert total == sum(position * value for position, value in enumerate(got, 1))


@pytest.mark.parametrize(
    ("count", "resolution"),
    [(1000, 60060), (999, 120), (1000, 60), (1000, 30), (1000, 45), (1000, 0), (1000, -60)],
)
def test_what_is_not_thinned(count: int, resolution: int) -> None:
    """Too few values, nothing left, or nothing coarser asked for."""
    values = np.array(squares(count))
    got, step = resample(values, 60, resolution)
    assert got is values
    assert step == 60


def test_fewer_points_can_be_asked_for() -> None:
    """The number below which nothing is thinned is configurable, and results have two values at least."""
    values = np.arange(10.0)
    assert ((got := resample(values, 60, 600, minimum=10))[0].tolist(), got[1]) == ([0.0, 9.0], 600)
    assert resample(values, 60, 600, minimum=11)[0] is values
    assert resample(np.empty(0), 60, 600, minimum=0)[1] == 60


def naive_triangles(values: list[float], count: int) -> list[float]:
    """Pick values as the contract says, word for word."""
    n = len(values)
    if count <= 2:
        return [values[0], values[-1]]
    w = (n - 2) / (count - 2)
    out, a = [values[0]], 0
    low, middle = 1, math.floor(w) + 1
    for j in range(count - 2):
        high = math.floor((j + 2) * w) + 1
        high = n - 2 if high >= n - 1 else high
        around = values[middle : high + 1]
        xc = sum(range(middle, high + 1)) / len(around) if around else NAN
        yc = sum(around) / len(around) if around else NAN
        best, area = None, -1.0
        for i in range(low, middle):
            size = abs((a - i) * (yc - values[a]) - (a - xc) * (values[i] - values[a])) / 2
            if math.isnan(size) or (not math.isnan(area) and size > area):
                best, area = i, size
        assert best is not None
        a = best
        out.append(values[a])
        low, middle = middle, high
    return [*out, values[-1]]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(-1000, 1000).map(float) | st.just(NAN), min_size=3, max_size=200), st.data())
def test_it_picks_what_the_plain_version_picks(values: list[float], data: st.DataObject) -> None:
    """For any number of values, whatever is missing among them."""
    count = data.draw(st.integers(1, len(values) - 1))
    out = np.empty(max(count, 2))
    picked = largest_triangles(np.array(values), count, out)
    assert plain(naive_triangles(values, count)) == plain(out[:picked])


# --- in a query


@pytest.mark.parametrize(
    ("resolution", "count", "step", "status"),
    [
        (0, 1000, 60, Status.GOOD),
        (120, 500, 120, Status.GOOD),
        (60060, 1000, 60, Status.GOOD),
        (90, 0, 60, Status.BAD_RESOLUTION),
        (-7, 1000, 60, Status.GOOD),
        (45, 1000, 60, Status.GOOD),
    ],
)
def test_a_query_thins_each_group(resolution: int, count: int, step: int, status: Status) -> None:
    """Statistics, beginning and end are those of all values (D-29)."""
    store = make_store(Metric("m", 60, SUM))
    values = squares(1000, _7=5e5)
    write(store, ("c", "long"), steps(1000, values))
    write(store, ("c", "short"), steps(1000, values[:10]))
    selectors = [("c", "short"), ("c", "long"), ("c", "nobody")]
    ((_, window),) = Reader(store.columns).windows(
        groups_of(store, selectors, resolution=resolution), 0, 10**6
    )
    assert [status, status, Status.NOTHING] == window.statuses.tolist()
    if status is Status.GOOD:
        assert [10, 10 + count, 10 + count] == window.ends.tolist()
        assert [60, step, 60] == window.resolutions.tolist()
        assert values[:10] == window.values[:10].tolist()
        assert resample(np.array(values), 60, resolution)[0].tolist() == window.values[10:].tolist()
    assert window.stops.tolist() == [1600, 61000, 0]
    assert (sum(values) / 1000, 0.0, 5e5) == tuple(window.stats[1])


def test_fewer_points_in_a_query() -> None:
    """The reader takes the configured number."""
    store = make_store()
    write(store, ("c", "h"), steps(1000, range(20)))
    reader = Reader(store.columns, minimum_points=20)
    ((_, window),) = reader.windows(groups_of(store, [("c", "h")], resolution=600), 0, 10**6)
    assert window.values.tolist() == [0.0, 19.0]
    assert window.resolutions.tolist() == [600]
