"""How files name series: numbers of their own, and the way back, whatever becomes of the store's ids."""

import numpy as np
import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memory_oracle import Path
from memory_tools import AVG, FOREVER, NONE, SUM, batch_of, enlist, make_store

from ccstore.jit import JIT
from ccstore.memory.layout import USED, Pool
from ccstore.memory.naming import Numbered, Numbering, Resolver, join_numbered, name_series
from ccstore.memory.store import Store
from ccstore.model import Metric, Names, Outcome

METRICS = [Metric("m", 60, SUM), Metric("n", 7, AVG), Metric("o", 1, NONE)]
PATHS = [
    ("a", "h1"), ("a", "h1", "cpu0"), ("a", "h1", "cpu1"), ("a", "h2", "socket0", "mem0"),
    ("b", "h1", "cpu0"), ("b", "h2"), ("b", "h3", "cpu0", "x"),
]  # fmt: skip
PLACES = sorted({path[:depth] for path in PATHS for depth in range(5)})
NOW = 10**6

EXAMPLES = settings(max_examples=200 if JIT else 60, stateful_step_count=30, deadline=None)

Key = tuple[Path, int]


@define
class File:
    """What a reader knows of a file, and what the writer should think that it knows."""

    names: list[Names] = field(factory=list)
    places: list[Path] = field(factory=list)
    metrics: list[str] = field(factory=list)
    series: list[tuple[Path, str]] = field(factory=list)
    numbers: dict[Key, int] = field(factory=dict)
    """Of the series that the writer has not forgotten."""
    known: set[Path] = field(factory=set)
    """Places that the writer has not forgotten."""

    def take(self, names: Names) -> None:
        """Read names; each place and metric of them is new, and is needed for a new series."""
        self.names.append(names)
        used, first = set[Path](), len(self.places)
        for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
            assert parent < len(self.places), "parents come first"
            self.places.append((*(self.places[parent] if parent >= 0 else ()), name))
        new_metrics = len(self.metrics)
        self.metrics += names.metric_names
        assert names.frequencies.tolist() == [
            next(metric.frequency for metric in METRICS if metric.name == name) for name in names.metric_names
        ]
        pairs = list(zip(names.series_places.tolist(), names.series_metrics.tolist(), strict=True))
        self.series += [(self.places[place], self.metrics[metric]) for place, metric in pairs]
        assert len(set(self.metrics)) == len(self.metrics), "a metric is named once"
        assert set(range(new_metrics, len(self.metrics))) <= {metric for _, metric in pairs}
        for place, _ in pairs:
            path = self.places[place]
            used |= {path[:depth] for depth in range(1, len(path) + 1)}
        added = self.places[first:]
        assert len(set(added)) == len(added)
        assert set(added) == used - self.known
        self.known |= used


class NumberingMachine(RuleBasedStateMachine):
    """A store, and the files of a few shards that hold what it stored."""

    @initialize(shards=st.integers(1, 3))
    def open(self, shards: int) -> None:
        self.store = Store(METRICS, max_series=12, max_bytes=1 << 20)
        self.numbering = Numbering(self.store, shards)
        self.files = [File() for _ in range(shards)]
        self.ids: dict[Key, int] = {}

    @rule(
        rows=st.lists(
            st.tuples(
                st.sampled_from(PATHS), st.integers(0, 2), st.integers(NOW - 99, NOW + 99), st.booleans()
            ),
            max_size=12,
        )
    )
    def append(self, rows: list[tuple[Path, int, int, bool]]) -> None:
        """Store a batch, in which some rows mean no series, and others are refused."""
        ids = [-1 if lost else enlist(self.store, path, metric) for path, metric, _, lost in rows]
        batch = batch_of(ids, [(time, float(k)) for k, (_, _, time, _) in enumerate(rows)])
        batch.outcomes[:] = Outcome.STORED  # as a scan leaves it where it has no say
        self.store.append(batch, latest=NOW + 50)
        expected: dict[int, list[tuple[Key, int, float]]] = {}
        for k, ((path, metric, time, _), series) in enumerate(zip(rows, ids, strict=True)):
            if series >= 0 and batch.outcomes[k] <= Outcome.OVERWRITTEN:
                self.ids[path, metric] = series
                shard = self.numbering.shard_of(self.store.locate(path[:2], create=False))
                expected.setdefault(shard, []).append(((path, metric), time, float(k)))
        found = self.numbering.number(batch)
        batch.times[:], batch.values[:] = 0, 0  # the next scan writes over it
        assert sorted(expected) == [numbered.shard for numbered in found]
        for numbered in found:
            self.check(numbered, expected[numbered.shard])

    def check(self, numbered: Numbered, expected: list[tuple[Key, int, float]]) -> None:
        file, before = self.files[numbered.shard], len(self.files[numbered.shard].series)
        if numbered.names is not None:
            file.take(numbered.names)
        keys = list(dict.fromkeys(key for key, _, _ in expected))
        new = [key for key in keys if key not in file.numbers]
        assert file.series[before:] == [(path, METRICS[metric].name) for path, metric in new]
        file.numbers.update(zip(new, range(before, len(file.series)), strict=True))
        rows = [(file.numbers[key], time, value) for key, time, value in expected]
        samples = numbered.samples
        columns = (samples.numbers, samples.times, samples.values)
        assert rows == list(zip(*(column.tolist() for column in columns), strict=True))

    @rule(which=st.integers(0, 2))
    def begin(self, which: int) -> None:
        """Begin a new file for one shard; the others go on."""
        shard = which % len(self.files)
        self.numbering.begin(shard)
        self.files[shard] = File()

    @rule(path=st.sampled_from(PLACES))
    def sweep(self, path: Path) -> None:
        """Remove what is at and below a place; its ids go to others."""
        place = self.store.locate(path, create=False)
        if place < 0:
            return
        self.store.free(place, FOREVER)
        dead = self.store.dormant()
        removed = self.store.prune(place, dead)
        self.numbering.forget(dead, removed.tolist())
        self.ids = {key: series for key, series in self.ids.items() if not dead[series]}
        for file in self.files:
            file.numbers = {key: number for key, number in file.numbers.items() if key in self.ids}
            file.known = {path for path in file.known if self.store.locate(path, create=False) >= 0}

    @rule(max_series=st.integers(1, 12), metrics=st.lists(st.sampled_from(METRICS), min_size=1, unique=True))
    def resolve(self, max_series: int, metrics: list[Metric]) -> None:
        """Read all files into another store, in which there may be other metrics and less room."""
        store = Store([*metrics, Metric("p", 5)], max_series=max_series, max_bytes=0)
        for file in self.files:
            resolver = Resolver(store)
            for names in file.names:
                resolver.take(names)
            for (path, name), series, frequency in zip(
                file.series, resolver.series.tolist(), resolver.frequencies.tolist(), strict=True
            ):
                assert {metric.frequency for metric in METRICS if metric.name == name} == {frequency}
                if name not in store.metric_ids:
                    assert series == -1
                elif series < 0:
                    used = store.columns.pools[:, USED]
                    full = used[Pool.PLACE] == len(store.columns.places)  # places come for all metrics
                    assert full or used[Pool.SERIES] == max_series, "there is room"
                else:
                    assert enlist(store, path, store.metric_ids[name]) == series

    @invariant()
    def alone(self) -> None:
        """Each series is in one file, and is there under its last number."""
        numbered = [key for file in self.files for key in file.numbers]
        assert len(set(numbered)) == len(numbered)
        for file in self.files:
            for (path, metric), number in file.numbers.items():
                assert file.series[number] == (path, METRICS[metric].name)


NumberingMachine.TestCase.settings = EXAMPLES


@pytest.mark.timeout(600)
class TestNumbering(NumberingMachine.TestCase):  # type: ignore[misc]
    """A reader of the files finds what was stored, and under the names it was stored."""


def test_the_series_of_a_block_are_numbered_in_its_order() -> None:
    """With the places above them, parents first, and each metric once."""
    store = Store(METRICS, max_series=10, max_bytes=0)
    series = [
        enlist(store, path, metric)
        for path, metric in [(PATHS[3], 2), (PATHS[1], 0), (PATHS[0], 0), (PATHS[3], 0)]
    ]
    names = name_series(store, np.array(series, np.int32))
    file = File()
    file.take(names)
    assert file.series == [(PATHS[3], "o"), (PATHS[1], "m"), (PATHS[0], "m"), (PATHS[3], "m")]
    assert sorted(file.places) == sorted({path[:k] for path in PATHS[:4] for k in (1, 2, 3, 4)} - {PATHS[2]})
    assert dict(zip(names.metric_names, names.frequencies.tolist(), strict=True)) == {"m": 60, "o": 1}


def test_nothing_stored_is_nothing_numbered() -> None:
    """An empty batch, and one of which nothing was stored, have nothing for any shard."""
    store = make_store()
    numbering = Numbering(store, 4)
    assert numbering.number(batch_of([], [])) == []
    batch = batch_of([-1, enlist(store, ("c", "h"))], [(NOW, 1.0), (NOW + 9999, 2.0)])
    store.append(batch, latest=NOW)
    assert batch.outcomes.tolist() == [255, Outcome.FUTURE]
    assert numbering.number(batch) == []


def test_batches_that_follow_one_another_are_joined() -> None:
    """In their order, behind the names that they need, whatever page they are on."""
    store = Store(METRICS, max_series=10, max_bytes=0)
    first, second = enlist(store, ("c", "h")), enlist(store, ("c", "h"), 1)
    numbering = Numbering(store, 1)
    parts, expected = [], []
    for k in range(200):
        count = 3000 + k
        ids = [first] * (count - 1) + [second if k > 100 else first]
        batch = batch_of(ids, [(NOW, float(k))] * count)
        batch.outcomes[:] = Outcome.STORED
        parts += numbering.number(batch)
        expected += [float(k)] * count
    joined = join_numbered(parts)
    assert [names is not None for names, _ in joined].count(True) == 2
    assert np.concatenate([samples.values for _, samples in joined]).tolist() == expected
    numbers = np.concatenate([samples.numbers for _, samples in joined])
    assert np.count_nonzero(numbers) == 99
    assert len(joined) < 10


def test_hosts_spread_over_the_shards() -> None:
    """No shard has much more than its part, and the same host is in the same shard of any store."""
    shards = []
    for order in (1, -1):
        store = make_store(max_series=2000)
        numbering = Numbering(store, 8)
        hosts = [store.locate(("c", f"node{k:04}")) for k in range(800)[::order]][::order]
        shards.append([numbering.shard_of(host) for host in hosts])
    assert shards[0] == shards[1]
    assert max(np.bincount(shards[0], minlength=8)) < 150
    assert min(np.bincount(shards[0], minlength=8)) > 50


def test_a_place_without_room_takes_what_is_below_it_along() -> None:
    """Series that cannot be made are -1, and those of the same file that can be are found."""
    store = Store(METRICS, max_series=4, max_bytes=0)
    series = np.array([enlist(store, path, 0) for path in PATHS[:4]], np.int32)
    names = [name_series(store, series[:2]), name_series(store, series[2:])]
    small = Store(METRICS, max_series=2, max_bytes=0)
    resolved = []
    for part in names:
        resolver = Resolver(small)
        resolver.take(part)
        resolved.append(resolver.series.tolist())
    assert resolved == [[0, 1], [-1, -1]]
    assert small.locate(PATHS[3], create=False) == -1
