"""What goes into checkpoints and comes back from them, against the oracle and against naive loops."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory_oracle import Oracle, OracleChunk, OracleSeries, Path
from memory_saving import (
    EXAMPLES,
    METRICS,
    NOW,
    ROOM,
    Key,
    decode,
    expected_contents,
    load,
    times,
    values,
)
from memory_tools import (
    FOREVER,
    NAN,
    Contents,
    batch_of,
    check_accounts,
    contents,
    enlist,
    plain,
    read,
)

from ccstore.memory import saving
from ccstore.memory.naming import Resolver
from ccstore.memory.saving import Copied, copies_of_unsaved, count_unsaved, restore, take_back
from ccstore.memory.store import Store
from ccstore.model import Outcome

HOSTS = [("a", "h1"), ("a", "h2"), ("b", "h1")]
PATHS = [("a", "h1"), ("a", "h1", "cpu0"), ("a", "h2", "socket0", "mem0"), ("b", "h1", "cpu0")]

samples = st.one_of(
    st.tuples(st.sampled_from(PATHS), st.just(k), times(metric.frequency), values)
    for k, metric in enumerate(METRICS)
)


@define
class Copying:
    """A checkpoint under way."""

    pieces: Iterator[Copied]
    cut: int
    """Samples in the log before it."""
    whole: bool
    """Whether it is of all hosts."""
    there: list[OracleChunk]
    """What chunks there were when it began, and came to be until its last piece."""
    done: list[Copied] = field(factory=list)
    marked: list[tuple[OracleChunk, int]] = field(factory=list)


class SavingMachine(RuleBasedStateMachine):
    """A store with checkpoints and a log, which starts again from them at any time.

    What was freed is not written again: then a store that starts again has what this one has, slot for
    slot, and maybe some of what was freed.
    """

    @initialize(max_bytes=st.sampled_from([0, ROOM]))
    def open(self, max_bytes: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(saving, "_SLOTS_AT_ONCE", 1)  # a piece for each host
        self.store = Store(METRICS, max_series=100, max_bytes=max_bytes)
        self.oracle = Oracle(METRICS, len(self.store.columns.rows))
        self.files: list[Copied] = []
        self.log: list[tuple[Path, int, int, float]] = []
        self.covered = 0
        self.copying: Copying | None = None
        self.freed: dict[Key, int] = {}

    # --- what the ingest does

    @rule(batch=st.lists(samples, min_size=1, max_size=20))
    def append(self, batch: list[tuple[Path, int, int, float]]) -> None:
        batch = [row for row in batch if row[2] >= self.freed.get(row[:2], -FOREVER)]
        ids = [enlist(self.store, path, metric) for path, metric, _, _ in batch]
        columns = batch_of(ids, [row[2:] for row in batch])
        self.store.append(columns, latest=FOREVER)
        for row, outcome in zip(batch, columns.outcomes.tolist(), strict=True):
            assert outcome == self.oracle.write(*row, latest=FOREVER)
            if outcome <= Outcome.OVERWRITTEN:
                self.log.append(row)

    @rule(
        path=st.sampled_from(PATHS), metric=st.integers(0, 2),
        first=st.integers(-2, 2), part=st.integers(0, 2),
        jumps=st.lists(st.sampled_from([1, 31, 32, 40, 511, 512, 513, 600]), min_size=2, max_size=6),
    )  # fmt: skip
    def append_long(self, path: Path, metric: int, first: int, part: int, jumps: list[int]) -> None:
        """Write one series over several blocks and chunks."""
        f = METRICS[metric].frequency
        slots = itertools.accumulate(jumps, initial=300 * first)
        self.append([(path, metric, NOW + slot * f + part, float(slot)) for slot in slots])

    # --- what the upkeep does

    @rule(path=st.sampled_from([(), *HOSTS, *PATHS]), which=st.integers(0, 99), saved_only=st.booleans())
    def free(self, path: Path, which: int, saved_only: bool) -> None:
        """Free up to the very end of a chunk."""
        ends = sorted(
            {end + more for one in self.oracle.series.values() for end in one.ends() for more in (0, 1)}
        )
        cutoff = ends[which % len(ends)] if ends else NOW
        before = {key: list(one.chunks) for key, one in self.oracle.series.items()}
        place = self.store.locate(path, create=False)
        expected = self.oracle.free(path, cutoff, saved_only=saved_only)
        assert expected == (self.store.free(place, cutoff, saved_only=saved_only) if place >= 0 else 0)
        for key, held in before.items():
            kept = self.oracle.series[key].chunks if key in self.oracle.series else []
            for gone in held[: len(held) - len(kept)]:
                assert not saved_only or gone.saved == len(gone.slots)
                end = gone.start + 512 * METRICS[key[1]].frequency
                self.freed[key] = max(end, self.freed.get(key, end))

    @rule()
    def prune(self) -> None:
        """Give the ids of all that is empty to others."""
        self.store.prune(self.store.index.root, self.store.dormant())

    @precondition(lambda self: self.copying is None)
    @rule(hosts=st.just(HOSTS) | st.lists(st.sampled_from(HOSTS), unique=True), at_once=st.booleans())
    def begin_copy(self, hosts: list[Path], at_once: bool) -> None:
        places = [place for host in hosts if (place := self.store.locate(host, create=False)) >= 0]
        pieces = copies_of_unsaved(self.store, places)
        self.copying = Copying(pieces, len(self.log), len(hosts) == len(HOSTS), self.chunks())
        while at_once and self.copying is not None:
            self.copy_on()

    @precondition(lambda self: self.copying is not None)
    @rule()
    def copy_on(self) -> None:
        """Copy another host, or complete the file."""
        copying = self.copying
        assert copying is not None
        piece = next(copying.pieces, None)
        if piece is None:
            self.files += copying.done
            self.covered = copying.cut if copying.whole else self.covered
            self.copying = None
            return
        copying.there += self.chunks()
        copying.done.append(piece)
        for key, runs in decode(piece).items():
            expected = self.oracle.series[key].copy_unsaved()
            assert expected
            assert [(chunk.start, first, plain(held)) for chunk, first, held in expected] == runs
            copying.marked += [(chunk, first) for chunk, first, _ in expected]

    @precondition(lambda self: self.copying is not None)
    @rule()
    def take_back(self) -> None:
        """The disk fails: all that was copied is unsaved again; of chunks made since, more may be."""
        copying, self.copying = self.copying, None
        assert copying is not None
        for piece in copying.done:
            take_back(self.store, piece.marks)
        for chunk, first in copying.marked:
            chunk.saved = min(chunk.saved, first)
        for key, series in self.oracle.series.items():
            for chunk, (_, saved, _) in zip(series.chunks, self.contents(key), strict=True):
                was_there = any(chunk is other for other in copying.there)
                assert saved == chunk.saved if was_there else saved <= chunk.saved
                chunk.saved = saved

    # --- what happens

    @rule(all_of_it=st.booleans())
    def start_again(self, all_of_it: bool) -> None:
        """Go on with a store that has the files and the log, from the beginning or as far as it has to be."""
        store = Store(METRICS, max_series=100, max_bytes=ROOM)
        for copied in self.files:
            load(store, copied)
        log = self.log[0 if all_of_it else self.covered :]
        ids = [enlist(store, path, metric) for path, metric, _, _ in log]
        store.append(batch_of(ids, [row[2:] for row in log]), latest=FOREVER)
        first, self.store, self.copying = self.oracle, store, None
        self.oracle = Oracle(METRICS, len(store.columns.rows))
        for path, metric in itertools.product(PATHS, range(3)):
            self.adopt((path, metric))
        for key, series in first.series.items():
            self.check_same(key, series)

    def adopt(self, key: Key) -> None:
        """Let the oracle have what the new store has."""
        held, f = self.contents(key), METRICS[key[1]].frequency
        if held:
            self.oracle.series[key] = OracleSeries(f)
        for start, saved, slots in held:
            known = [NAN if value is None else value for value in slots]
            place = self.store.locate(key[0], create=False)
            record = self.record(place, key[1], start)
            blocks = {0} if record["table"] < 0 else {
                block for block, row in enumerate(self.store.columns.tables[record["table"]]) if row >= 0
            }  # fmt: skip
            self.oracle.series[key].chunks.append(OracleChunk(start, known, blocks, saved))

    def record(self, place: int, metric: int, start: int) -> np.void:
        columns = self.store.columns
        chunk = columns.series["newest"][dict(self.store.series_at(place))[METRICS[metric].name]]
        while columns.chunks["start"][chunk] != start:
            chunk = columns.chunks["older"][chunk]
        record: np.void = columns.chunks[chunk]
        return record

    def check_same(self, key: Key, series: OracleSeries) -> None:
        """What the store had and had never freed is there again, on the same grid, and reads the same."""
        path, metric = key
        f = series.frequency
        oldest = max(series.chunks[0].start, self.freed.get(key, -FOREVER) - f // 2)
        kept = [(chunk.start, plain(chunk.slots)) for chunk in series.chunks if chunk.start >= oldest]
        assert kept == [(start, held) for start, _, held in self.contents(key) if start >= oldest]
        if not kept:
            return
        start, stop = kept[0][0] + f // 2, list(series.ends())[-1] + 3 * f
        expected, begin = series.read(start, stop)
        window = read(self.store, path, start, stop, METRICS[metric].name)
        if len(self.store.select(path, metric)) == 1:
            assert (plain(expected), begin) == (window.values, window.start)

    # --- what holds all the time

    def chunks(self) -> list[OracleChunk]:
        return [chunk for one in self.oracle.series.values() for chunk in one.chunks]

    def contents(self, key: Key) -> Contents:
        place = self.store.locate(key[0], create=False)
        series = dict(self.store.series_at(place)) if place >= 0 else {}
        name = METRICS[key[1]].name
        return contents(self.store, series[name]) if name in series else []

    @invariant()
    def same(self) -> None:
        check_accounts(self.store)
        totals = np.zeros(2, np.int64)
        for key in itertools.product(PATHS, range(3)):
            series = self.oracle.series.get(key)
            assert (expected_contents(series) if series else []) == self.contents(key)
        for chunk in self.chunks():
            unsaved = len(chunk.slots) - chunk.saved
            totals += [unsaved > 0, unsaved]
        assert tuple(totals.tolist()) == count_unsaved(self.store, self.store.index.root)

    def teardown(self) -> None:
        """A store without memory for all of it is whole as well."""
        if not hasattr(self, "store"):
            return
        self.start_again(all_of_it=False)
        small = Store(METRICS, max_series=5, max_bytes=0)
        for copied in self.files:
            resolver = Resolver(small)
            resolver.take(copied.names)
            restore(small, resolver.series[copied.runs.numbers], copied.runs)
            check_accounts(small)
        self.patch.undo()


SavingMachine.TestCase.settings = EXAMPLES


@pytest.mark.timeout(600)
class TestSaving(SavingMachine.TestCase):  # type: ignore[misc]
    """Whatever happened, checkpoints and the log since give back what there was."""
