"""The store against the oracle: whatever is written, freed, pruned and read, in whatever order."""

import itertools
from random import Random

import numpy as np
import pytest
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory_oracle import Oracle, OracleSeries, combine, statistics
from memory_tools import (
    AVG,
    FOREVER,
    NAN,
    NONE,
    SUM,
    Point,
    Read,
    batch_of,
    check_accounts,
    groups_of,
    make_store,
    plain,
    read,
    steps,
    write,
)

from ccstore.jit import JIT
from ccstore.memory.query import Reader
from ccstore.memory.store import Store
from ccstore.model import ANY, Aggregation, Health, Metric, Outcome, Selector, Status

METRICS = [Metric("m", 60, SUM), Metric("n", 7, AVG), Metric("o", 1, NONE)]
PATHS = [
    ("a", "h1"), ("a", "h1", "cpu0"), ("a", "h1", "cpu1"), ("a", "h1", "cpu2"), ("a", "h2", "cpu0"),
    ("a", "h2", "socket0", "mem0"), ("a", "h2", "socket0", "mem1"), ("b", "h1"), ("b", "h1", "cpu0", "x"),
]  # fmt: skip
PLACES = sorted({path[:depth] for path in PATHS for depth in range(5)})
NOW = 10**6

# Hypothesis generates; compiled kernels make an example cheap, plain Python ones do not
SETTINGS = settings(
    max_examples=2 * EXAMPLES if JIT else 60, stateful_step_count=40 if JIT else 30, deadline=None
)

values = st.integers(-1000, 1000).map(float)


def times(frequency: int) -> st.SearchStrategy[int]:
    """Return times near now, near chunk boundaries, and anywhere, in slots and parts of them."""
    slots = (
        st.integers(-3, 20)
        | st.builds(int.__add__, st.sampled_from([-1024, -512, 511, 512, 1023, 1024]), st.integers(-2, 2))
        | st.integers(-1100, 1100)
    )
    parts = st.sampled_from([0, frequency // 2, frequency - 1]) | st.integers(0, frequency - 1)
    return st.builds(lambda slot, part: NOW + slot * frequency + part, slots, parts)


TIMES = [times(metric.frequency) for metric in METRICS]

# a range is two times of the metric in any order, or all of them
SPANS = [
    st.tuples(near, near).map(sorted)
    | st.just([NOW - 3000 * metric.frequency, NOW + 3000 * metric.frequency])
    for metric, near in zip(METRICS, TIMES, strict=True)
]

# path, metric, time and value
samples = st.one_of(
    st.tuples(st.sampled_from(PATHS), st.just(metric), near, values | st.just(NAN))
    for metric, near in enumerate(TIMES)
)

selectors: st.SearchStrategy[Selector] = st.sampled_from(PLACES) | st.lists(
    st.just(ANY)
    | st.sampled_from(["a", "h1", "h2", "cpu0", ""])
    | st.lists(
        st.sampled_from(["a", "b", "h1", "h2", "cpu0", "cpu1", "socket0", "mem0", "x"]), max_size=4
    ).map(tuple),
    max_size=4,
).map(tuple)


class StoreMachine(RuleBasedStateMachine):
    """A store with its oracle, and with someone who remembers series by id as the key cache does."""

    @initialize(max_series=st.sampled_from([3, 100]), max_bytes=st.sampled_from([0, 1 << 18]))
    def open(self, max_series: int, max_bytes: int) -> None:
        self.store = Store(METRICS, max_series=max_series, max_bytes=max_bytes)
        self.oracle = Oracle(METRICS, len(self.store.columns.rows))
        self.max_places = len(self.store.columns.places)
        self.places: set[tuple[str, ...]] = {()}
        self.enlisted: set[tuple[tuple[str, ...], int]] = set()
        self.keys: dict[tuple[tuple[str, ...], int], int] = {}
        self.dead: np.ndarray | None = None

    # --- what the ingest does

    def find(self, path: tuple[str, ...], metric: int) -> int:
        """Return the id of a series as it is remembered, or else learn it."""
        if (path, metric) in self.keys:
            return self.keys[path, metric]
        place = self.store.locate(path)
        room = len(self.enlisted) < self.store.statistics().max_series
        for depth in range(1, len(path) + 1):
            if path[:depth] not in self.places and len(self.places) < self.max_places and room:
                self.places.add(path[:depth])
        assert (place >= 0) == (path in self.places)
        if place < 0:
            return -1
        ids, made = self.store.enlist(np.array([place], np.int32), np.array([metric], np.int32), allowance=9)
        series = int(ids[0])
        if (path, metric) not in self.enlisted:
            assert (made == 1) == (series >= 0) == room
            if not room:
                return -1
            self.enlisted.add((path, metric))
        assert series not in self.keys.values()
        self.keys[path, metric] = series
        if self.dead is not None and series < len(self.dead):
            self.dead[series] = False
        return series

    @rule(batch=st.lists(samples, min_size=1, max_size=20), ahead=st.just(FOREVER) | st.integers(-50, 50))
    def append(self, batch: list[tuple[tuple[str, ...], int, int, float]], ahead: int) -> None:
        found = [self.find(path, metric) for path, metric, _, _ in batch]
        columns = batch_of(found, [(time, value) for _, _, time, value in batch])
        self.store.append(columns, latest=NOW + ahead)
        for (path, metric, time, value), series, outcome in zip(batch, found, columns.outcomes, strict=True):
            if series >= 0:
                assert outcome == self.oracle.write(path, metric, time, value, latest=NOW + ahead)
            else:
                assert outcome == 255, "left as it was"

    @rule(
        path=st.sampled_from(PATHS), metric=st.integers(0, 2), first=st.integers(-3, 3),
        jumps=st.lists(st.sampled_from([40, 511, 512, 513, 600]), min_size=2, max_size=5),
        part=st.integers(0, 2),
    )  # fmt: skip
    def append_long(
        self, path: tuple[str, ...], metric: int, first: int, jumps: list[int], part: int
    ) -> None:
        """Write one series over several chunks."""
        slots = [512 * first, *itertools.accumulate(jumps, initial=512 * first)]
        f = METRICS[metric].frequency
        self.append([(path, metric, NOW + slot * f + part, float(slot)) for slot in slots], 5000 * f)

    # --- what the upkeep does

    @rule(
        path=st.sampled_from(PLACES),
        metric=st.integers(0, 2),
        slots=st.integers(-600, 2600),
        which=st.integers(0, 99),
    )
    def free(self, path: tuple[str, ...], metric: int, slots: int, which: int) -> None:
        """Free up to some time, which often is the very end of a chunk."""
        ends = sorted(
            {end + more for key in self.oracle.series.values() for end in key.ends() for more in (0, 1)}
        )
        cutoff = NOW + slots * METRICS[metric].frequency
        if which % 3 and ends:
            cutoff = ends[which % len(ends)]
        place = self.store.locate(path, create=False)
        assert (place >= 0) == (path in self.places)
        freed = self.oracle.free(path, cutoff)
        assert freed == (self.store.free(place, cutoff) if place >= 0 else 0)

    @precondition(lambda self: self.dead is None)
    @rule(path=st.sampled_from(PLACES), all_of_it=st.booleans())
    def begin_forgetting(self, path: tuple[str, ...], all_of_it: bool) -> None:
        place = self.store.locate(path, create=False)
        if all_of_it and place >= 0:
            assert self.oracle.free(path, FOREVER) == self.store.free(place, FOREVER)
        self.dead = self.store.dormant()

    @precondition(lambda self: self.dead is not None)
    @rule(which=st.integers(1, 3))
    def forget_some(self, which: int) -> None:
        for number, (key, series) in enumerate(list(self.keys.items())):
            if self.is_dead(series) and number % which == 0:
                del self.keys[key]

    @precondition(lambda self: self.dead is not None)
    @rule(path=st.just(()) | st.sampled_from(PLACES), again=st.booleans())
    def prune(self, path: tuple[str, ...], again: bool) -> None:
        assert self.dead is not None
        self.keys = {key: series for key, series in self.keys.items() if not self.is_dead(series)}
        place = self.store.locate(path, create=False)
        if place >= 0:
            kept = set(self.keys) | set(self.oracle.series)
            gone = {
                key for key, series in self.ids().items()
                if key[0][: len(path)] == path and key not in kept and self.is_dead(series)
            }  # fmt: skip
            self.store.prune(place, self.dead)
            self.enlisted -= gone
            self.drop_empty(path)
        if not again:  # else others run, and another place is pruned in the same pass
            self.dead = None

    @precondition(lambda self: self.dead is None)
    @rule(path=st.sampled_from(PLACES))
    def sweep(self, path: tuple[str, ...]) -> None:
        """Remove all that is below a path, as one pass of the upkeep."""
        self.begin_forgetting(path, all_of_it=True)
        self.prune(path, again=False)

    def is_dead(self, series: int) -> bool:
        assert self.dead is not None
        return series < len(self.dead) and bool(self.dead[series])

    def ids(self) -> dict[tuple[tuple[str, ...], int], int]:
        """Return the ids of all series that were made, by asking again."""
        return {
            (path, metric): int(
                self.store.enlist(
                    np.array([self.store.locate(path, create=False)], np.int32), np.array([metric], np.int32),
                    allowance=0,
                )[0][0]
            )
            for path, metric in self.enlisted
        }  # fmt: skip

    def drop_empty(self, path: tuple[str, ...]) -> None:
        """Drop places without series and children: at and below a path, and above it."""
        below = {place for place in self.places if place[: len(path)] == path}
        above = {path[:depth] for depth in range(1, len(path))}
        for place in sorted(below, key=len, reverse=True) + sorted(above, key=len, reverse=True):
            used = any(where == place for where, _ in self.enlisted)
            parent = any(other[:-1] == place for other in self.places if other)
            if place and not used and not parent:
                self.places.discard(place)

    # --- what clients do

    @rule(
        selector=selectors, strict=st.booleans(), which=st.integers(0, 99),
        what=st.one_of(st.tuples(st.just(metric), span) for metric, span in enumerate(SPANS)),
    )  # fmt: skip
    def read(self, selector: Selector, strict: bool, which: int, what: tuple[int, list[int]]) -> None:
        """Read some range, which often ends at the very beginning of a chunk."""
        metric, (start, stop) = what
        begins = sorted({chunk.start for series in self.oracle.series.values() for chunk in series.chunks})
        if which % 3 == 0 and begins:
            stop = max(start, begins[which % len(begins)])
        expected = self.oracle.read(selector, metric, start, stop, strict=strict)
        got = read(self.store, selector, start, stop, METRICS[metric].name, strict=strict)
        assert expected.status is got.status
        if expected.status is Status.GOOD:
            end = expected.start + len(expected.values) * METRICS[metric].frequency
            assert Read(plain(expected.values), expected.start, end) == got

    @rule(host=st.sampled_from([("a", "h1"), ("a", "h2"), ("b", "h1")]), now=TIMES[0])
    def check_health(self, host: tuple[str, str], now: int) -> None:
        got = self.store.check_health(*host, ["o", "x", "m", "n"], now=now)
        expected = self.oracle.health(host, [2, 0, 1], now=now)
        assert got.known is (expected is not None)
        if expected is None:
            assert (got.state, got.degraded, got.missing) == (Health.FAILED, (), ())
            return
        degraded, missing = ([METRICS[k].name for k in names] for names in expected)
        missing.insert(missing.index("o") + 1 if "o" in missing else 0, "x")
        assert (degraded, missing) == (list(got.degraded), list(got.missing))
        healthy = 3 - len(degraded) - (len(missing) - 1)
        assert (Health.PARTIAL if healthy else Health.FAILED) is got.state

    # --- what holds all the time

    @invariant()
    def accounts(self) -> None:
        check_accounts(self.store)
        got = self.store.statistics()
        assert got.chunks == sum(len(one.chunks) for one in self.oracle.series.values())
        assert got.series == len(self.enlisted)
        assert {len(path) for path in self.places if path} <= {1, 2, 3, 4}
        assert got.clusters == sum(len(path) == 1 for path in self.places)
        assert got.hosts == sum(len(path) == 2 for path in self.places)
        for cluster in ("a", "b"):
            assert self.oracle.children((cluster,)) == self.store.hosts(cluster)

    @invariant()
    def selections(self) -> None:
        """What a host means is right at any time, remembered or not."""
        paths = {self.store.locate(path, create=False): path for path in self.places}
        for host, metric in itertools.product([("a", "h1"), ("a", "h2"), ("b", "h1")], range(3)):
            ids = self.store.select(host, metric)
            assert {metric} >= set(self.store.columns.series["metric"][ids].tolist())
            got = [paths[place] for place in self.store.columns.series["place"][ids].tolist()]
            assert sorted(self.oracle.select(host, metric)) == sorted(got)

    def teardown(self) -> None:
        """Free everything: all pools are empty then."""
        if not hasattr(self, "store"):
            return
        self.store.free(self.store.index.root, FOREVER)
        self.store.prune(self.store.index.root, self.store.dormant())
        assert self.store.columns.pools[:, 2].tolist() == [0, 1, 0, 0, 0]
        check_accounts(self.store)


StoreMachine.TestCase.settings = SETTINGS


@pytest.mark.timeout(600)
class TestStore(StoreMachine.TestCase):  # type: ignore[misc]
    """Any history of a store leaves it as the oracle says."""


@SETTINGS
@given(
    st.lists(st.tuples(TIMES[0], values), min_size=1, max_size=60),
    st.integers(1, 10),
    st.lists(SPANS[0], min_size=5, max_size=5),
)
def test_the_order_of_batches_makes_no_difference(
    points: list[Point], size: int, spans: list[list[int]]
) -> None:
    """Points of one series in batches of any size are the points one by one."""
    store, series = make_store(), OracleSeries(60)
    expected = [series.write(time, value, may_grow=True) for time, value in points]
    got: list[Outcome] = []
    for k in range(0, len(points), size):
        got += write(store, ("c", "h"), points[k : k + size])
    assert expected == got
    for start, stop in spans:
        first = series.read(start, stop)
        window = read(store, ("c", "h"), start, stop)
        assert (plain(first[0]), first[1]) == (window.values, window.start)


# components of one host mostly begin together, and often have no values at all
beginnings = st.sampled_from([NOW, NOW, NOW, NOW + 30, NOW + 60, NOW + 180]) | TIMES[0]
stretches = st.tuples(
    st.sampled_from([0, 0, 3, 40, 509, 512, 600]),
    st.lists(values, max_size=6) | st.lists(values, min_size=3, max_size=3) | st.just([NAN] * 3),
)


@st.composite
def components(draw: st.DrawFn) -> list[Point]:
    """Return points of one series: stretches of values with gaps before them."""
    time, points = draw(beginnings), []
    for gap, held in draw(st.lists(stretches, min_size=1, max_size=3)):
        time += 60 * gap
        for value in held or [0.0]:
            points.append((time, value))
            time += 60
    return points


alike = (st.lists(values, min_size=3, max_size=3) | st.just([NAN] * 3)).map(lambda held: steps(NOW, held))
hosts = st.lists(components(), min_size=1, max_size=6) | st.lists(alike, min_size=1, max_size=6)


@SETTINGS
@given(
    hosts,
    st.sampled_from([SUM, AVG]),
    st.booleans(),
    st.randoms(),
    SPANS[0],
)
def test_components_combine_as_the_oracle_says(
    parts: list[list[Point]], aggregation: Aggregation, strict: bool, random: Random, span: list[int]
) -> None:
    """In any order, with values and statistics, also together with other groups in one window."""
    store = make_store(Metric("m", 60, aggregation))
    series = []
    for k, points in enumerate(parts):
        write(store, ("c", "h", f"cpu{k}"), points)
        one = OracleSeries(60)
        for time, value in points:
            one.write(time, value, may_grow=True)
        series.append(one)
    names = [f"cpu{k}" for k in range(len(parts))]
    random.shuffle(names)
    start, stop = span
    expected = combine(series, aggregation, start, stop, strict=strict)
    chosen: list[Selector] = [("c", "h"), ("c", "h", tuple(names)), ("c", "h", "cpu0"), ("c", "nobody")]
    ((_, window),) = Reader(store.columns, strict=strict).windows(groups_of(store, chosen), start, stop)
    begin = 0
    for g in range(2):
        end = int(window.ends[g])
        assert expected.status == window.statuses[g]
        assert plain(expected.values) == plain(window.values[begin:end])
        if expected.status is Status.GOOD:
            assert expected.start == window.begins[g]
        assert statistics(expected.values) == pytest.approx(tuple(window.stats[g]), nan_ok=True, rel=1e-12)
        begin = end
