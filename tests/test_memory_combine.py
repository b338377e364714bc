"""Several series read as one: sums, averages, and what does not line up."""

import itertools
from collections.abc import Sequence

import pytest
from memory_tools import AVG, NAN, NONE, SUM, Read, make_store, read, steps, write

from ccstore.memory.store import Store
from ccstore.model import Aggregation, Metric, Status

HOST = ("c", "h")


def store_of(components: dict[str, list[tuple[int, float]]], aggregation: Aggregation = SUM) -> Store:
    """Return a store with components of one host; a name may have two parts."""
    store = make_store(Metric("m", 60, aggregation))
    for name, points in components.items():
        write(store, (*HOST, *name.split("/")), points)
    return store


# --- sums and averages

SHIFTED = {"cpu0": steps(1000, [1, 2, 3, 4]), "cpu1": [(1010, 10), (1070, 20), (1190, 40)]}
SOCKETS = {
    "socket0/mem0": steps(1000, [1, 1]),
    "socket0/mem1": steps(1000, [3, 3]),
    "socket1/mem0": steps(1000, [8, 8]),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("aggregation", "values"), [(SUM, (11.0, 22.0, None, 44.0)), (AVG, (5.5, 11.0, None, 22.0))]
)
def test_components_of_different_phase_combine(
    aggregation: Aggregation, values: tuple[float | None, ...], strict: bool
) -> None:
    """The latest beginning is the phase of all; one missing value makes the sum missing."""
    store = store_of(SHIFTED, aggregation)
    assert Read(values, 1010, 1250) == read(store, HOST, 900, 1300, strict=strict)


@pytest.mark.parametrize(
    ("selector", "total", "count"),
    [
        (HOST, 12.0, 3),
        ((*HOST, "socket0"), 4.0, 2),
        ((*HOST, ("socket0", "socket1"), "mem0"), 9.0, 2),
        ((*HOST, ("socket0", "socket1"), ("mem0", "mem1")), 12.0, 3),
        ((*HOST, ("socket1", "socket1")), 16.0, 2),
    ],
)
def test_all_series_count_alike(
    selector: tuple[str | tuple[str, ...], ...], total: float, count: int
) -> None:
    """The shape of the tree plays no part in an average."""
    assert (total, total) == read(store_of(SOCKETS), selector, 900, 1300).values
    assert (total / count,) * 2 == read(store_of(SOCKETS, AVG), selector, 900, 1300).values


@pytest.mark.parametrize("components", [SHIFTED, SOCKETS])
def test_a_metric_without_aggregation_does_not_combine(
    components: dict[str, list[tuple[int, float]]],
) -> None:
    """Several series are an error; one alone is read above its level (D-53)."""
    store = store_of(components, NONE)
    assert read(store, HOST, 900, 1300).status is Status.NO_AGGREGATION
    alone = store_of({"cpu0": steps(1000, [1, 2])}, NONE)
    assert Read((1.0, 2.0), 1000, 1120) == read(alone, HOST, 900, 1300)


# --- alignment

OFFSETS = {
    "cpu0": steps(1000, [1] * 10),
    "cpu1": steps(1180, [1] * 7),
    "cpu2": steps(1000, [1] * 7),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("names", "start", "stop", "begin", "front", "values", "behind"),
    [
        (("cpu0", "cpu1"), 900, 2000, 1180, 3, [2] * 7, 0),
        (("cpu0", "cpu2"), 900, 2000, 1000, 0, [2] * 7, 3),
        (("cpu0", "cpu1", "cpu2"), 1180, 1420, 1180, 0, [3] * 4, 0),
        (("cpu0", "cpu1", "cpu2"), 900, 2000, 1180, 3, [3] * 4, 3),
        (("cpu1", "cpu2"), 900, 2000, 1180, 3, [2] * 4, 3),
    ],
)
def test_what_does_not_line_up_combines_where_it_does(
    names: Sequence[str],
    start: int,
    stop: int,
    begin: int,
    front: int,
    values: list[float],
    behind: int,
    strict: bool,
) -> None:
    """The common range, in any order (D-25); unless strict, with missing values around it (D-26)."""
    store = store_of(OFFSETS)
    common = tuple(map(float, values))
    if strict:
        expected = Read(common, begin, begin + 60 * len(common))
    else:
        begin -= 60 * front
        around = (*[None] * front, *common, *[None] * behind)
        expected = Read(around, begin, begin + 60 * len(around))
    for order in itertools.permutations(names):
        assert expected == read(store, (*HOST, order), start, stop, strict=strict)
    if len(names) == len(OFFSETS):
        assert expected == read(store, HOST, start, stop, strict=strict)


def test_the_union_keeps_the_phase_of_the_latest_beginning() -> None:
    """In front of it are as many steps as begin with or behind the earliest one."""
    store = store_of({"cpu0": steps(1000, [1] * 5), "cpu1": steps(1130, [1] * 3)})
    assert Read((None, None, 2.0, 2.0, 2.0), 1010, 1310) == read(store, HOST, 900, 2000)


SILENT: dict[str, list[tuple[int, float]]] = {
    "beginning later": [(5000, 1)],
    "ended before": [(-5000, 1)],
    "without values": steps(1000, [NAN] * 3),
    "with a gap there": [(500, 1), (500 + 60 * 600, 2)],
    "with a gap there inside a chunk": [(500 - 60 * 40, 1), (500 + 60 * 400, 2)],
}


@pytest.mark.parametrize("points", SILENT.values(), ids=SILENT)
def test_a_component_without_values_is_left_out(points: list[tuple[int, float]]) -> None:
    """It neither shortens nor blanks the sum of the others, and an average does not count it."""
    others = {"cpu1": steps(1000, [1, 2, 3]), "cpu2": steps(1000, [3, 4, 5])}
    for store, values in (
        (store_of({"cpu0": points} | others), (4.0, 6.0, 8.0)),
        (store_of(others | {"cpu0": points}), (4.0, 6.0, 8.0)),
        (store_of({"cpu0": points} | others, AVG), (2.0, 3.0, 4.0)),
    ):
        assert Read(values, 1000, 1180) == read(store, HOST, 900, 1180)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (SILENT["beginning later"], Read((), 0, 0, Status.NOT_ALIGNED)),
        (SILENT["ended before"], Read((), 0, 0, Status.NOT_ALIGNED)),
        (SILENT["without values"], Read((None, None, None), 1000, 1180)),
    ],
)
def test_strict_mode_leaves_nothing_out(points: list[tuple[int, float]], expected: Read) -> None:
    """A silent component is an error, one that reports missing values blanks the sum."""
    store = store_of({"cpu0": points, "cpu1": steps(1000, [1, 2, 3]), "cpu2": steps(1000, [3, 4, 5])})
    assert expected == read(store, HOST, 900, 1180, strict=True)


@pytest.mark.parametrize(
    ("components", "start", "stop", "expected"),
    [
        # nobody has a slot there: as for one series, the beginning that comes last, and no values
        ({"cpu0": steps(1000, [1]), "cpu1": steps(1030, [1])}, 5000, 6000, Read((), 5000, 5000)),
        ({"cpu0": steps(1000, [1]), "cpu1": steps(1030, [1])}, 500, 600, Read((), 1030, 1030)),
        # all have slots, without a value: the sum has them too
        (
            {"cpu0": steps(1000, [NAN] * 2), "cpu1": steps(1060, [NAN] * 2)},
            900,
            2000,
            Read((None, None, None), 1000, 1180),
        ),
        # one has slots, without a value, and the other none
        (
            {"cpu0": steps(1000, [NAN] * 2), "cpu1": steps(5000, [1])},
            900,
            2000,
            Read((None, None), 1000, 1120),
        ),
    ],
)
def test_no_values_at_all_is_a_success(
    components: dict[str, list[tuple[int, float]]], start: int, stop: int, expected: Read
) -> None:
    """What is returned is what one such component would give."""
    assert expected == read(store_of(components), HOST, start, stop)


def test_components_combine_across_chunks() -> None:
    """Each component has its own grid, and its chunks begin where they may."""
    store = store_of(
        {
            "cpu0": steps(1000, [1] * 600),
            "cpu1": steps(1000 + 60 * 100, [2] * 600),
            "cpu2": [(1000, 4), (39940, 5)],
        }
    )
    assert Read((3.0,) * 20, 30000, 31200) == read(store, (*HOST, ("cpu0", "cpu1")), 30000, 31200)
    got = read(store, HOST, 30000, 40000)
    assert list(got.values[:100]) == [None] * 100
    assert got == read(store, (*HOST, ("cpu2", "cpu1", "cpu0")), 30000, 40000)


def test_a_sum_of_many_components_has_their_precision() -> None:
    """Values are float32, sums are float64."""
    store = store_of({f"cpu{k}": [(1000, 2**24 + 2 * k)] for k in range(100)})
    assert (float(sum(2**24 + 2 * k for k in range(100))),) == read(store, HOST, 900, 1300).values
