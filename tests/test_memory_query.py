"""Queries: from a request to groups, and from groups to windows, while the store changes."""

import pytest
from memory_tools import AVG, FOREVER, NONE, SUM, enlist, groups_of, make_store, plain, steps, write

from ccstore.memory import query
from ccstore.memory.query import Reader, count_selectors, plan
from ccstore.memory.store import Store
from ccstore.model import Metric, Query, QueryRequest, Selector, Status

ONE_TWO = ("1", "2")


@pytest.mark.parametrize(
    ("asked", "selectors", "placeholder"),
    [
        (Query("m", "h"), [("c", "h")], False),
        (Query("m", "h", aggregate=True), [("c", "h")], False),
        (Query("m", "h", type="cpu", type_ids=ONE_TWO), [("c", "h", "cpu1"), ("c", "h", "cpu2")], True),
        (Query("m", "h", type="cpu", type_ids=("7",)), [("c", "h", "cpu7")], False),
        (Query("m", "h", type="cpu"), [], False),
        (
            Query("m", "h", type="cpu", type_ids=ONE_TWO, aggregate=True),
            [("c", "h", ("cpu1", "cpu2"))],
            False,
        ),
        (Query("m", "h", type="cpu", aggregate=True), [("c", "h", ())], False),
        (
            Query("m", "h", type="s", type_ids=ONE_TWO, subtype="d", subtype_ids=("x", "y")),
            [("c", "h", "s1", "dx"), ("c", "h", "s1", "dy"), ("c", "h", "s2", "dx"), ("c", "h", "s2", "dy")],
            True,
        ),
        (
            Query("m", "h", type="s", type_ids=("1",), subtype="d", subtype_ids=("x",)),
            [("c", "h", "s1", "dx")],
            False,
        ),
        (
            Query("m", "h", type="s", type_ids=ONE_TWO, subtype="d", subtype_ids=("x",), aggregate=True),
            [("c", "h", ("s1", "s2"), ("dx",))],
            False,
        ),
        (Query("m", "h", type="s", type_ids=ONE_TWO, subtype="d"), [], False),
    ],
)
def test_a_query_becomes_selectors(asked: Query, selectors: list[Selector], placeholder: bool) -> None:
    """One, or one for each component and subcomponent in the order of the ids."""
    store, request = make_store(), QueryRequest("c", queries=(asked,))
    assert len(selectors) == count_selectors(store, request)
    groups = list(plan(store, request, []))
    assert selectors == [selector for part in groups for selector in part.selectors]
    assert {placeholder} >= {bool(mark) for part in groups for mark in part.placeholders}


def test_queries_for_all_nodes_follow_host_by_host() -> None:
    """Each pair of a host and a metric is a query of its own, behind the explicit ones."""
    store = make_store(Metric("m", 60), Metric("n", 10))
    for host in ("h2", "h1"):
        write(store, ("c", host), [(1000, 1)])
    request = QueryRequest(
        "c", queries=(Query("n", "h9", 30, scale_by=2.0), Query("?", "h1")), for_all_nodes=("m", "n")
    )
    assert count_selectors(store, request) == 6
    (groups,) = plan(store, request, store.hosts("c"))
    hosts = [selector[1] for selector in groups.selectors]
    assert hosts == ["h9", "h1", "h1", "h1", "h2", "h2"]
    assert list(groups.metrics) == ["n", "?", "m", "n", "m", "n"]
    assert list(groups.metric_ids) == [1, -1, 0, 1, 0, 1]
    assert groups.frequencies.tolist() == [10, 1, 60, 10, 60, 10]
    assert groups.resolutions.tolist() == [30, 0, 0, 0, 0, 0]
    assert groups.factors.tolist() == [2, 1, 1, 1, 1, 1]
    assert groups.queries.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_short_request_can_mean_many_groups() -> None:
    """They are counted, and planned a part at a time, without being made all at once."""
    store, ids = make_store(), tuple(map(str, range(10**5)))
    asked = Query("m", "h", type="cpu", type_ids=ids, subtype="x", subtype_ids=ids)
    request = QueryRequest("c", queries=(asked,))
    assert count_selectors(store, request) == 10**10
    groups = next(plan(store, request, []))
    assert groups.selectors[-1] == ("c", "h", "cpu0", f"x{len(groups.selectors) - 1}")


def test_numbers_of_any_size_are_understood(example: Store) -> None:
    """A resolution beyond all times is a resolution."""
    huge = 2**64 - 2**64 % 60
    ((status, values, _),) = answer(example, Query("m", "h", resolution=huge))
    assert status is Status.BAD_RESOLUTION
    ((status, values, _),) = answer(example, Query("m", "h", resolution=60 * 2**55))
    assert (status, values) == (Status.GOOD, (0.0, 11.0, 22.0, 33.0, 44.0))


def test_an_empty_request_has_no_groups() -> None:
    """Neither queries nor hosts."""
    store = make_store()
    assert list(plan(store, QueryRequest(), [])) == []
    assert list(plan(store, QueryRequest("c", for_all_nodes=("m",)), [])) == []
    assert count_selectors(store, QueryRequest("c", for_all_nodes=("m",))) == 0


@pytest.fixture
def example() -> Store:
    """Return the store of the contract's examples: x on host h, m on two of its sockets."""
    store = make_store(Metric("x", 60, SUM), Metric("m", 60, SUM))
    write(store, ("c", "h"), steps(1000, [k + 0.126 for k in range(5)]), metric="x")
    for socket, factor in (("socket0", 1), ("socket2", 10)):
        write(store, ("c", "h", socket), steps(1000, [k * factor for k in range(5)]), metric="m")
    return store


def answer(store: Store, *queries: Query, start: int = 900, stop: int = 1300) -> list[tuple[object, ...]]:
    """Return (status, values, statistics) of each group."""
    found: list[tuple[object, ...]] = []
    request = QueryRequest("c", start, stop, queries=queries)
    for groups in plan(store, request, []):
        for part, window in Reader(store.columns).windows(groups, start, stop):
            assert len(found) == part.start
            begin = 0
            for g, end in enumerate(window.ends.tolist()):
                values = plain(window.values[begin:end].round(3))
                found.append((Status(int(window.statuses[g])), values, plain(window.stats[g].round(2))))
                begin = end
    return found


def test_the_examples_of_the_contract(example: Store) -> None:
    """Values, sums of components, and what is missing."""
    nothing: tuple[object, ...] = ((), (None, None, None))
    x = (0.126, 1.126, 2.126, 3.126, 4.126)
    sockets = {"type": "socket", "type_ids": ("0", "1", "2")}
    expected = [
        (Status.GOOD, x, (2.13, 0.13, 4.13)),
        (Status.GOOD, tuple(round(2 * value, 3) for value in x), (4.25, 0.25, 8.25)),
        (Status.GOOD, (0.0, 11.0, 22.0, 33.0, 44.0), (22.0, 0.0, 44.0)),
        (Status.GOOD, (0.0, 1.0, 2.0, 3.0, 4.0), (2.0, 0.0, 4.0)),
        (Status.NOTHING, *nothing),
        (Status.GOOD, (0.0, 10.0, 20.0, 30.0, 40.0), (20.0, 0.0, 40.0)),
        (Status.UNKNOWN_METRIC, *nothing),
        (Status.NOTHING, *nothing),
        (Status.NOTHING, *nothing),
    ]
    assert expected == answer(
        example,
        Query("x", "h"),
        Query("x", "h", scale_by=2),
        Query("m", "h", aggregate=True, **sockets),  # type: ignore[arg-type]
        Query("m", "h", **sockets),  # type: ignore[arg-type]
        Query("nope", "h"),
        Query("x", "q"),
        Query("x", ""),
    )
    assert [(Status.GOOD, *nothing)] == answer(example, Query("x", "h"), start=5000, stop=6000)
    assert [(Status.BAD_RANGE, *nothing)] == answer(example, Query("x", "h"), start=2, stop=1)


def test_scaling_is_of_values_and_statistics(example: Store) -> None:
    """Each query has its factor; without one, and with 1, nothing changes."""
    got = answer(example, *(Query("m", "h", scale_by=factor) for factor in (0, -1, 1, 0.5)), start=1240)
    values = [values[0] for _, values, _ in got]  # type: ignore[index]
    assert values == [44.0, -44.0, 44.0, 22.0]
    assert [stats for _, _, stats in got] == [(44.0,) * 3, (-44.0,) * 3, (44.0,) * 3, (22.0,) * 3]


# --- many groups


def many_hosts(count: int) -> Store:
    """Return a store in which host k has two components whose sum is 2k and 2k + 2."""
    store = make_store(Metric("m", 60, SUM), Metric("o", 60, NONE), max_series=10**5)
    for k in range(count):
        for component in ("cpu0", "cpu1"):
            write(store, ("c", f"h{k:04}", component), steps(1000, [k, k + 1]))
    return store


@pytest.mark.parametrize(
    ("size", "budget", "least", "most"),
    [(512, 30_000, 2, 2), (512, 200, 18, 30), (100, 10**9, 7, 7), (3, 1, 700, 700)],
)
def test_a_long_request_comes_in_parts_and_windows(
    monkeypatch: pytest.MonkeyPatch, size: int, budget: int, least: int, most: int
) -> None:
    """All groups, each once, in their order, whatever a part or a step may hold."""
    store = many_hosts(700)
    request = QueryRequest("c", 0, 2000, for_all_nodes=("m",))
    monkeypatch.setattr(query, "_PART", size)
    monkeypatch.setattr(query, "_STEP", budget)
    reader, values, numbers, windows = Reader(store.columns), [], [], 0
    for groups in plan(store, request, store.hosts("c")):
        assert len(groups.selectors) <= size
        for part, window in reader.windows(groups, 0, 2000):
            windows += 1
            values += window.values.tolist()
            numbers += groups.queries[part].tolist()
            assert [1000] * len(window.ends) == window.begins.tolist()
            assert [1120] * len(window.ends) == window.stops.tolist()
    assert list(range(700)) == numbers
    assert [float(2 * k + j) for k in range(700) for j in (0, 2)] == values
    assert least <= windows <= most


def test_a_budget_is_spent_on_series_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """One group at least is read; few long ones take as much as many short ones."""
    store = make_store()
    for k in range(40):
        write(store, ("c", f"h{k:02}"), steps(1000, range(500)))
    monkeypatch.setattr(query, "_STEP", 1000)
    groups = groups_of(store, [("c", host) for host in store.hosts("c")])
    long = [part.stop - part.start for part, _ in Reader(store.columns).windows(groups, 0, FOREVER)]
    short = [part.stop - part.start for part, _ in Reader(store.columns).windows(groups, 0, 1060)]
    assert long == [4] * 10
    assert short == [40]


# --- a store that changes between two windows


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each window hold one group."""
    monkeypatch.setattr(query, "_STEP", 1)


@pytest.mark.usefixtures("stepwise")
def test_series_that_vanish_are_not_read() -> None:
    """What was freed after the request began is missing from the answer, not garbage."""
    store = many_hosts(3)
    groups = groups_of(store, [("c", host) for host in store.hosts("c")])
    statuses = []
    for part, window in Reader(store.columns).windows(groups, 0, 2000):
        statuses.append(Status(int(window.statuses[0])))
        if part.start == 0:
            store.free(store.locate(("c", "h0001")), FOREVER)
    assert statuses == [Status.GOOD, Status.NOTHING, Status.GOOD]


@pytest.mark.usefixtures("stepwise")
def test_ids_that_are_used_again_are_not_mixed_up() -> None:
    """Nor when the ids of freed series and places name others by now."""
    store = many_hosts(3)
    groups = groups_of(store, [("c", host) for host in store.hosts("c")])
    before = [enlist(store, ("c", "h0001", name)) for name in ("cpu0", "cpu1")]
    got = []
    for part, window in Reader(store.columns).windows(groups, 0, 2000):
        got.append((Status(int(window.statuses[0])), window.values.tolist()))
        if part.start == 0:
            place = store.locate(("c", "h0001"))
            store.free(place, FOREVER)
            store.prune(place, store.dormant())
            for name in ("cpu0", "cpu1"):
                write(store, ("d", "other", name), steps(1000, [1000, 1000]))
    after = [enlist(store, ("d", "other", name)) for name in ("cpu0", "cpu1")]
    assert sorted(before) == sorted(after)
    assert got == [(Status.GOOD, [0.0, 2.0]), (Status.NOTHING, []), (Status.GOOD, [4.0, 6.0])]


@pytest.mark.usefixtures("stepwise")
def test_series_that_appear_are_read() -> None:
    """A group is what it is at the moment when it is read."""
    store = many_hosts(3)
    groups = groups_of(store, [("c", host) for host in store.hosts("c")])
    values = []
    for part, window in Reader(store.columns).windows(groups, 0, 2000):
        values.append(window.values.tolist())
        if part.start == 0:
            write(store, ("c", "h0002", "cpu2"), steps(1000, [100, 100]))
    assert values == [[0.0, 2.0], [2.0, 4.0], [104.0, 106.0]]


def test_the_average_of_one_component_is_its_value() -> None:
    """A single series is not touched, whatever its metric's aggregation."""
    store = make_store(Metric("m", 60, AVG))
    write(store, ("c", "h", "cpu0"), [(1000, 0.1)])
    (got,) = answer(store, Query("m", "h"))
    assert got[1] == (0.1,)
