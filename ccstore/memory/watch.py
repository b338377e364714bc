"""What changed: which series a batch touched, and how the answer to a query differs from the one before.

`Marks` is told of every batch and remembers, for series that somebody watches, when they last got a sample.
A `View` is a query with a beginning and, mostly, no end. It remembers the answer it gave last; `refresh`
reads again what may have changed, and tells what is different.

Invariant: all changes of a view, applied one after the other to a table of values by (group, time), make
the table that the query answers, from the view's beginning on. So nothing has to be known about how a
change comes about: late, overwritten and freed samples, components that begin to take part in a sum,
a grid that moved are all the same to it. What it costs is a read of the whole range of each group that
was touched; so ranges are short, and a group that was not touched costs the look at its stamps.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from attrs import define, evolve, frozen
from numpy.typing import NDArray

from ccstore.memory.kernels.watch import mark, tell
from ccstore.memory.query import Groups, Reader, plan
from ccstore.memory.store import Store
from ccstore.model import Batch, QueryRequest, Status, Window

__all__ = ["Changes", "Marks", "View"]

_END = 2**60
"""s; behind every sample."""
_SELECT = 30_000
"""Series that are found at once; about a millisecond."""
_ROOM = 1 << 16
"""Changes in one piece; a group with more has a piece of its own."""
_MORE = 8
"""Values for which a group gets room beyond what it has or is expected to have."""


class Marks:
    """When each watched series last got a sample, on a clock that `advance` moves.

    max_series: how many series there may be; address space is reserved for them.
    """

    def __init__(self, max_series: int) -> None:
        self._stamps = np.zeros(max_series, np.int64)
        self._tick = 1

    def note(self, batch: Batch) -> bool:
        """Stamp the series of a batch that was just appended; tell whether anybody watches one of them."""
        return bool(mark(batch.series, batch.outcomes, batch.count, self._stamps, self._tick))

    def advance(self) -> int:
        """Move the clock; return a stamp that is later than all that were made so far."""
        self._tick += 1
        return self._tick

    def watch(self, series: NDArray[np.int32]) -> None:
        """Watch series from now on."""
        self._stamps[series] = np.maximum(self._stamps[series], 1)

    def unwatch(self, series: NDArray[np.int32], others: Sequence[NDArray[np.int32]]) -> None:
        """Watch series no more unless they are among those of others."""
        wanted = np.zeros(len(self._stamps), np.bool_)
        for kept in others:
            wanted[kept] = True
        self._stamps[series[~wanted[series]]] = 0

    def since(self, series: NDArray[np.int32], stamp: int) -> NDArray[np.bool_]:
        """Tell of each series whether it was stamped at or after a moment."""
        return np.asarray(self._stamps[series] >= stamp)


@frozen
class Changes:
    """Columns of changes, in ascending order of the groups and then in no order of the times."""

    groups: NDArray[np.int64]
    times: NDArray[np.int64]
    """Seconds, at or after the beginning of the view."""
    values: NDArray[np.float64]
    """NaN if there is no value any more."""


@define
class _Told:
    """What was told of each group: equidistant values, with some room behind them."""

    values: NDArray[np.float64]
    at: NDArray[np.int64]
    """int64[groups + 1]: where each group begins."""
    begins: NDArray[np.int64]
    steps: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def nothing(cls) -> "_Told":
        none = np.empty(0, np.int64)
        return cls(np.empty(0), np.zeros(1, np.int64), none, none.copy(), none.copy())

    def resize(self, rooms: NDArray[np.int64]) -> None:
        """Give each group room for so many values; there may be more groups than before."""
        more = len(rooms) - len(self.counts)
        from_ = _slots(self.at[:-1], self.counts)
        at = np.concatenate([[0], np.cumsum(rooms)])
        values = np.full(int(at[-1]), np.nan)
        values[_slots(at[: len(self.counts)], self.counts)] = self.values[from_]
        self.values, self.at = values, at
        self.counts = np.append(self.counts, np.zeros(more, np.int64))
        self.begins = np.append(self.begins, np.zeros(more, np.int64))
        self.steps = np.append(self.steps, np.ones(more, np.int64))


class View:
    """A query from `start` on, up to `stop` if it was ended, and what was told of it.

    marks: where to see what got samples.
    reader: reads the groups; views may share one as long as one at a time is refreshed.
    span: seconds for which there will be values, about; a group gets room for so many.
    """

    def __init__(
        self, store: Store, marks: Marks, reader: Reader, request: QueryRequest, *, start: int, span: int
    ) -> None:
        self.start = start
        """Seconds; moved by `advance`."""
        self.stop = _END
        """Seconds; set by `end`."""
        self._span = span
        self.hosts: list[str] = []
        """For which of the cluster's hosts the metrics for all nodes are read, in the order they came."""
        self.statuses = np.empty(0, np.int8)
        """`Status` of each group when it was last read."""
        self._store = store
        self._marks = marks
        self._reader = reader
        self._request = request
        self._groups: list[Groups] = []
        self._firsts = [0]
        self._members: list[NDArray[np.int32]] = []
        self._series = np.empty(0, np.int32)
        self._group_of = np.empty(0, np.int64)
        self._epoch = -1
        self._seen = 0
        self._dirty = np.empty(0, np.bool_)
        self._told = _Told.nothing()

    def __len__(self) -> int:
        """Return how many groups there are. They become more as hosts appear, never fewer."""
        return len(self._dirty)

    @property
    def series(self) -> NDArray[np.int32]:
        """Return the ids of what is watched; right for the moment of the last refresh."""
        return self._series

    def touch(self) -> None:
        """Let the next refresh read everything: something was freed."""
        self._dirty[:] = True

    def advance(self, start: int) -> None:
        """Let the view begin later (s). What was told before that is forgotten without a change."""
        if start > self.start:
            self.start = start
            self.touch()  # whether a component takes part in a sum depends on the range

    def end(self, stop: int) -> None:
        """Let the view end at a time (s); what was told of later times is taken back by the next refresh."""
        stop = max(stop, self.start)
        if stop != self.stop:
            self.stop = stop
            self.touch()

    def refresh(self) -> Iterator[Changes | None]:
        """Read what may have changed; yield changes, or None where others may run as well.

        Between two of them anything may happen to the store. What happens is found at the latest by the
        next refresh. The view is not to be used otherwise before the end.
        """
        epoch = self._store.index.epoch
        if epoch != self._epoch:
            yield from self._select()
            self._epoch = epoch
        stamp = self._marks.advance()
        self._dirty[self._group_of[self._marks.since(self._series, self._seen)]] = True
        self._seen = stamp
        numbers = np.flatnonzero(self._dirty)
        self._dirty[:] = False
        for (first, last), part in zip(itertools.pairwise(self._firsts), self._groups, strict=True):
            mine = numbers[np.searchsorted(numbers, first) : np.searchsorted(numbers, last)]
            if len(mine):
                yield from self._read(part if len(mine) == last - first else _pick(part, mine - first), mine)

    def everything(self) -> Iterator[Changes]:
        """Yield all values that were told, in pieces: what somebody needs who has been told nothing."""
        told = self._told
        sizes, first = np.cumsum(told.counts), 0
        while first < len(self):
            reached = sizes[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(sizes, reached + _ROOM, "right")))
            yield self._values_of(first, last)
            first = last

    def _values_of(self, first: int, last: int) -> Changes:
        told, counts = self._told, self._told.counts[first:last]
        groups = np.repeat(np.arange(first, last), counts)
        slots = _slots(told.at[first:last], counts)
        times = told.begins[groups] + (slots - told.at[groups]) * told.steps[groups]
        values = told.values[slots]
        there = (values == values) & (times >= self.start)
        return Changes(groups[there], times[there], values[there])

    def _add(self, part: Groups) -> None:
        """Add groups behind those that there are."""
        more = len(part.selectors)
        self._groups.append(part)
        self._firsts.append(self._firsts[-1] + more)
        self._dirty = np.append(self._dirty, np.ones(more, np.bool_))
        self.statuses = np.append(self.statuses, np.full(more, Status.NOTHING, np.int8))
        self._told.resize(np.append(np.diff(self._told.at), self._span // part.frequencies + _MORE))

    def _add_new(self) -> Iterator[None]:
        """Add the queries, at first, and the hosts that have appeared since."""
        store, request = self._store, self._request
        if not self._groups:
            for part in plan(store, evolve(request, for_all_nodes=()), []):
                self._add(part)
                yield
        if request.for_all_nodes:
            known = set(self.hosts)
            new = [host for host in store.hosts(request.cluster) if host not in known]
            yield
            for part in plan(store, evolve(request, queries=()), new):
                self._add(part)
                yield
            self.hosts += new

    def _select(self) -> Iterator[None]:
        """Find the hosts and series anew; groups whose series differ are dirty.

        An epoch that changes meanwhile brings us here again. Until then some of the ids may be those of
        others, which costs a read that finds nothing.
        """
        yield from self._add_new()
        index = self._store.index
        members: list[NDArray[np.int32]] = []
        for part in self._groups:
            done = 0
            while done < len(part.selectors):
                found = index.select(part.selectors[done:], part.metric_ids[done:], room=_SELECT)
                self._marks.watch(np.concatenate(found))
                members += found
                done += len(found)
                yield
        lengths = np.fromiter(map(len, members), np.int64, len(members))
        series = np.concatenate([np.empty(0, np.int32), *members])
        if not np.array_equal(series, self._series) or [*map(len, self._members)] != lengths.tolist():
            for g, ids in enumerate(members):
                if g >= len(self._members) or not np.array_equal(ids, self._members[g]):
                    self._dirty[g] = True
        self._members, self._series = members, series
        self._group_of = np.repeat(np.arange(len(members)), lengths)

    def _read(self, groups: Groups, numbers: NDArray[np.int64]) -> Iterator[Changes]:
        for part, window in self._reader.windows(groups, self.start, self.stop):
            mine = numbers[part]
            self.statuses[mine] = window.statuses
            yield from self._compare(mine, window)

    def _compare(self, numbers: NDArray[np.int64], window: Window) -> Iterator[Changes]:
        """Tell what is different in a window, and remember the window."""
        told, lengths = self._told, np.diff(window.ends, prepend=0)
        if (lengths > np.diff(told.at)[numbers]).any():
            rooms = np.diff(told.at)
            rooms[numbers] = np.maximum(rooms[numbers], lengths + lengths // 4 + _MORE)
            told.resize(rooms)
        most = int((lengths + told.counts[numbers]).max())
        room = max(most, min(_ROOM, int(len(window.values) + told.counts[numbers].sum())))
        out, count = (
            Changes(np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)),
            np.zeros(1, np.int64),
        )
        done, first = 0, 0
        while done < len(numbers):
            count[0] = 0
            fitted: int = tell(
                window.values[first:], window.ends[done:] - first, window.begins[done:],
                window.resolutions[done:], numbers[done:], self.start,
                told.values, told.at, told.begins, told.steps, told.counts,
                out.groups, out.times, out.values, count,
            )  # fmt: skip
            done += fitted
            first = int(window.ends[done - 1])
            n = int(count[0])
            # a copy: what is told is kept for a while, and mostly little of the room is needed
            yield Changes(out.groups[:n].copy(), out.times[:n].copy(), out.values[:n].copy())


def _pick(groups: Groups, numbers: NDArray[np.int64]) -> Groups:
    """Return some of the groups."""
    some = numbers.tolist()
    return Groups(
        groups.index,
        [groups.selectors[g] for g in some],
        [groups.metrics[g] for g in some],
        [groups.metric_ids[g] for g in some],
        groups.frequencies[numbers],
        groups.resolutions[numbers],
        groups.factors[numbers],
        groups.queries[numbers],
        groups.placeholders[numbers],
    )


def _slots(firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions firsts[g], firsts[g] + 1, ..., counts[g] of them for each g."""
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(firsts, counts) + within)
