"""Views: what they tell, put together, is what a query answers, whatever becomes of the store meanwhile."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from effort import EXAMPLES
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memory_tools import AVG, FOREVER, NAN, NONE, SUM, batch_of, enlist, steps, write

from ccstore.jit import JIT
from ccstore.memory.query import Reader, plan
from ccstore.memory.store import Store
from ccstore.memory.watch import Changes, Marks, View
from ccstore.model import Metric, Query, QueryRequest

METRICS = [Metric("m", 60, SUM), Metric("n", 7, AVG), Metric("o", 1, NONE)]
PATHS = [
    ("a", "h1"), ("a", "h1", "cpu0"), ("a", "h1", "cpu1"), ("a", "h2", "cpu0"), ("a", "h2", "cpu1", "x0"),
    ("a", "h3"), ("b", "h1"),
]  # fmt: skip
NOW = 10**6
REQUESTS = [
    QueryRequest("a", queries=(Query("m", "h1"), Query("m", "h3"), Query("none", "h1"), Query("o", "h2"))),
    QueryRequest("a", queries=(Query("n", "h1", type="cpu", type_ids=("0", "1"), aggregate=True),)),
    QueryRequest("a", queries=(Query("m", "h1", type="cpu", type_ids=("0", "1", "7"), scale_by=3.0),)),
    QueryRequest("a", queries=(Query("m", "h1", resolution=240), Query("n", "h2", resolution=5))),
    QueryRequest("a", queries=(Query("m", "h2"),), for_all_nodes=("m", "n")),
    QueryRequest("b", for_all_nodes=("o",)),
]
SETTINGS = settings(max_examples=EXAMPLES if JIT else 40, stateful_step_count=30, deadline=None)

Table = dict[tuple[int, int], float]


def make_reader(store: Store, *, strict: bool = False) -> Reader:
    """Return a reader that thins out few values already."""
    return Reader(store.columns, strict=strict, max_values=20_000, minimum_points=4)


def answer(store: Store, reader: Reader, request: QueryRequest, hosts: Sequence[str], start: int) -> Table:
    """Read all that a request means from a time on, as a query does."""
    table, first = {}, 0
    for parts in (
        plan(store, evolve(request, for_all_nodes=()), []),
        plan(store, evolve(request, queries=()), hosts),
    ):
        for groups in parts:
            for part, window in reader.windows(groups, start, 2**60):
                begin = 0
                for g, end in enumerate(window.ends.tolist(), part.start):
                    step, at = int(window.resolutions[g - part.start]), int(window.begins[g - part.start])
                    for k, value in enumerate(window.values[begin:end].tolist()):
                        if not math.isnan(value):
                            table[first + g, at + k * step] = value
                    begin = end
            first += len(groups.selectors)
    return table


def apply(table: Table, changes: Iterable[Changes | None], between: Callable[[], Any] = lambda: None) -> int:
    """Apply changes to a table as a client does; return how many there were."""
    count = 0
    for change in changes:
        if change is not None:
            keys = zip(change.groups.tolist(), change.times.tolist(), strict=True)
            for key, value in zip(keys, change.values.tolist(), strict=True):
                count += 1
                if math.isnan(value):
                    del table[key]  # nobody is told of the end of what was not there
                else:
                    table[key] = value
        between()
    return count


def forget_before(table: Table, start: int) -> None:
    """Drop what lies before a time, as a client does."""
    for key in [key for key in table if key[1] < start]:
        del table[key]


values = st.integers(-1000, 1000).map(float) | st.just(NAN)
times = st.integers(-30, 30).map(lambda slot: NOW + 47 * slot) | st.integers(-2000, 2000).map(NOW.__add__)
samples = st.tuples(st.sampled_from(PATHS), st.integers(0, 2), times, values)
batches = st.lists(samples, min_size=1, max_size=12)
cutoffs = st.integers(-2000, 2500).map(NOW.__add__) | st.just(FOREVER)


class WatchMachine(RuleBasedStateMachine):
    """A store, views on it, and for each the table of somebody who was told all that the view told."""

    @initialize(max_series=st.sampled_from([4, 30]), strict=st.booleans())
    def open(self, max_series: int, strict: bool) -> None:
        self.store = Store(METRICS, max_series=max_series, max_bytes=1 << 18)
        self.marks = Marks(max_series)
        self.reader = make_reader(self.store, strict=strict)
        self.views: list[View] = []
        self.tables: list[Table] = []
        self.freed = 0

    @rule(request=st.sampled_from(REQUESTS), ago=st.integers(0, 1500))
    def subscribe(self, request: QueryRequest, ago: int) -> None:
        if len(self.views) < 4:
            start = NOW - ago
            self.views.append(View(self.store, self.marks, self.reader, request, start=start, span=60))
            self.tables.append({})

    @rule(which=st.integers(0, 3))
    def unsubscribe(self, which: int) -> None:
        if which < len(self.views):
            gone = self.views.pop(which)
            del self.tables[which]
            self.marks.unwatch(gone.series, [view.series for view in self.views])

    @rule(batch=batches)
    def append(self, batch: list[tuple[tuple[str, ...], int, int, float]]) -> None:
        series = [enlist(self.store, path, metric) for path, metric, _, _ in batch]
        columns = batch_of(series, [(time, value) for _, _, time, value in batch])
        self.store.append(columns, latest=FOREVER)
        self.marks.note(columns)

    @rule(path=st.sampled_from([(), ("a",), *PATHS]), cutoff=cutoffs, prune=st.booleans())
    def free(self, path: tuple[str, ...], cutoff: int, prune: bool) -> None:
        place = self.store.locate(path, create=False)
        if place >= 0:
            self.store.free(place, cutoff)
            if prune:
                self.store.prune(place, self.store.dormant())

    @rule(which=st.integers(0, 3), seconds=st.integers(0, 500))
    def advance(self, which: int, seconds: int) -> None:
        if which < len(self.views):
            self.views[which].advance(self.views[which].start + seconds)

    @rule(batches=st.lists(batches, max_size=6), cutoff=cutoffs)
    def refresh(self, batches: list[Any], cutoff: int) -> None:
        """Refresh all views, while others write and free between the steps."""
        acts = [lambda batch=batch: self.append(batch) for batch in batches]
        acts.append(lambda: self.free(("a", "h1"), cutoff, True))

        def act() -> None:
            if acts:
                acts.pop(0)()

        self.look(act)

    def look(self, between: Callable[[], Any] = lambda: None) -> None:
        """Do what the hub does when it wakes."""
        if self.store.freed != self.freed:
            self.freed = self.store.freed
            for view in self.views:
                view.touch()
        for view, table in zip(self.views, self.tables, strict=True):
            forget_before(table, view.start)
            apply(table, view.refresh(), between)

    @invariant()
    def quiet(self) -> None:
        """Once nothing happens any more, the tables are what the queries answer: nothing is left to tell."""
        if not hasattr(self, "views"):
            return
        self.look()
        for view, table in zip(self.views, self.tables, strict=True):
            request = view._request
            assert answer(self.store, self.reader, request, view.hosts, view.start) == table
            everything: Table = {}
            apply(everything, view.everything())
            assert table == everything
            assert apply(table, view.refresh()) == 0


WatchMachine.TestCase.settings = SETTINGS


@pytest.mark.timeout(600)
class TestWatch(WatchMachine.TestCase):  # type: ignore[misc]
    """Any history of a store is told completely."""


def test_only_what_was_touched_is_read() -> None:
    """A sample of one series costs the others nothing, and one of a series nobody watches nothing at all."""
    store, request = Store(METRICS, max_series=30), REQUESTS[0]
    marks = Marks(30)
    for path in (("a", "h1"), ("a", "h3")):
        write(store, path, steps(NOW, [1.0, 2.0]))
    view = View(store, marks, make_reader(store), request, start=NOW - 600, span=600)
    table: Table = {}
    assert apply(table, view.refresh()) == 4
    batch = batch_of([enlist(store, ("a", "h3"))], [(NOW + 120, 3.0)])
    store.append(batch, latest=FOREVER)
    assert marks.note(batch)
    (change,) = [change for change in view.refresh() if change is not None]
    assert (change.groups.tolist(), change.times.tolist(), change.values.tolist()) == (
        [1],
        [NOW + 120],
        [3.0],
    )
    other = batch_of([enlist(store, ("a", "h3"), 1)], [(NOW, 3.0)])
    store.append(other, latest=FOREVER)
    assert not marks.note(other)
    refused = batch_of([enlist(store, ("a", "h3"))], [(0, 3.0)])
    store.append(refused, latest=FOREVER)
    assert not marks.note(refused), "too late"


def test_watching_ends() -> None:
    """Who leaves takes along only what nobody else watches."""
    marks = Marks(4)
    batch = batch_of([1, 2], [(NOW, 1.0)] * 2)
    batch.outcomes[:] = 0
    marks.watch(np.array([1, 2], np.int32))
    marks.unwatch(np.array([1, 2], np.int32), [np.array([2], np.int32)])
    stamp = marks.advance()
    assert marks.note(batch)
    assert marks.since(np.array([1, 2, 3], np.int32), stamp).tolist() == [False, True, False]
    marks.unwatch(np.array([2], np.int32), [])
    assert not marks.note(batch)
