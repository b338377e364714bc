"""Numbers for ids and ids for numbers: how files name the series of a store.

Ids of the store never leave the process, and are used again for others. A file names things by dense
numbers of its own: the n-th series that it names is its number n, and so for places and metrics
(`Names`). `Numbering` gives out the numbers of logs, where names come as they are needed, one file at
a time for each shard; `name_series` those of a block of a checkpoint, which stands alone. `Resolver`
goes back.

Invariant: within a file a number means one series, for ever. When an id is given to another series
(`Numbering.forget`), it gets a new number.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ccstore.memory.kernels import number
from ccstore.memory.layout import NUMBER
from ccstore.memory.store import Store
from ccstore.model import Batch, Names, Samples

__all__ = ["Numbered", "Numbering", "Resolver", "join_numbered", "name_series"]

_DEEPEST = 4  # cluster, host, component, subcomponent
_PLACES_AT_ONCE = 1024  # a millisecond if they are new
_SERIES_AT_ONCE = 1 << 15  # a millisecond
_SHEET = 1 << 18
"""Samples on the pages of all shards together, 4 MiB: larger ones come new from the system
each time, which costs as much as all that is written to them."""


@frozen
class Numbered:
    """What a batch stored of the hosts of one shard, for the file that its log writes now."""

    shard: int
    page: Samples
    """Where its samples are, between those of other batches; nobody writes there again."""
    start: int
    stop: int
    names: Names | None
    """Of the series that the file did not name yet."""

    @property
    def samples(self) -> Samples:
        """What was stored; views of the page."""
        rows = slice(self.start, self.stop)
        return Samples(self.page.numbers[rows], self.page.times[rows], self.page.values[rows])


def join_numbered(parts: Sequence[Numbered]) -> list[tuple[Names | None, Samples]]:
    """Return what batches stored of one shard, in their order; what is one piece of a page is one."""
    joined: list[Numbered] = []
    for part in parts:
        before = joined[-1] if joined else None
        if (
            before is None
            or part.names is not None
            or part.page is not before.page
            or part.start != before.stop
        ):
            joined.append(part)
        else:
            joined[-1] = Numbered(part.shard, part.page, before.start, part.stop, before.names)
    return [(one.names, one.samples) for one in joined]


class Numbering:
    """Numbers of the series in the files that the shards of a log write now.

    The shard of a series follows from the names of cluster and host, so it is the same at every start.
    It costs 8 bytes a series, and the pages on which samples are put together until they are written.
    """

    def __init__(self, store: Store, shards: int) -> None:
        self._store = store
        self._table = np.zeros(len(store.columns.series), NUMBER)
        self._files = np.arange(shards, dtype=np.int32)  # as many apart, so that a file tells its shard
        self._counts = np.zeros(shards, np.int32)
        self._names = [_FileNames(store) for _ in range(shards)]
        for shard in range(shards):
            self.begin(shard)
        self._ends = np.zeros(shards, np.int64)  # of what the pages hold
        self._turn(0)

    def begin(self, shard: int) -> None:
        """Begin a new file for a shard: nothing has a number in it."""
        self._files[shard] += len(self._files)
        self._counts[shard] = 0
        self._names[shard] = _FileNames(self._store)

    def number(self, batch: Batch) -> list[Numbered]:
        """Return what was stored of a batch, for each shard that has any; in copies of its own."""
        if int(self._ends.max()) + batch.count > len(self._pages[0].numbers):
            self._turn(batch.count)
        begins, fresh = self._ends.tolist(), np.empty(batch.count, np.int32)
        count = number.number_samples(
            self._store.columns, self._table, self._files, self._counts,
            batch.series, batch.times, batch.values, batch.outcomes, batch.count,
            *self._sheet, self._ends, fresh,
        )  # fmt: skip
        found = []
        for shard, (start, stop) in enumerate(zip(begins, self._ends.tolist(), strict=True)):
            if stop > start:
                names = self._name(shard, fresh[:count]) if count else None
                found.append(Numbered(shard, self._pages[shard], start, stop, names))
        return found

    def _turn(self, least: int) -> None:
        """Begin new pages with room for so many samples; the old ones stay as long as somebody has them."""
        shards = len(self._files)
        room = (shards, max(_SHEET // shards, least))
        self._sheet = np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.float32)
        self._pages = [Samples(*columns) for columns in zip(*self._sheet, strict=True)]
        self._ends[:] = 0

    def _name(self, shard: int, fresh: NDArray[np.int32]) -> Names | None:
        """Return names of those series that just got a number in the file of a shard."""
        new = fresh[self._table["file"][fresh] == self._files[shard]]
        return self._names[shard].name(new) if len(new) else None

    def shard_of(self, host: int) -> int:
        """Return the shard of the series of a host, given its place."""
        return int(self._store.columns.places["hash"][host]) % len(self._files)

    def forget(self, series: NDArray[np.bool_], places: Iterable[int]) -> None:
        """Forget series (marked by id) and places whose ids may be used again."""
        self._table["file"][: len(series)][series] = 0
        for place in places:
            for names in self._names:
                names.places.pop(place, None)


def name_series(store: Store, series: NDArray[np.int32]) -> Names:
    """Return names for a file in which the k-th of these series has the number k."""
    return _FileNames(store).name(series)


@define
class _FileNames:
    """The places and metrics that one file has named; numbers follow the order in which they were needed."""

    store: Store
    places: dict[int, int] = field(factory=dict)
    metrics: dict[int, int] = field(factory=dict)
    _next_place: int = 0
    """Not the size of the dictionary: forgotten places keep their numbers."""

    def name(self, series: NDArray[np.int32]) -> Names:
        """Return what the file has to be told so that these series get its next numbers."""
        records = self.store.columns.series[series]
        leaves, leaf_of = np.unique(records["place"], return_inverse=True)
        found, metric_of = np.unique(records["metric"], return_inverse=True)
        parents, place_names = self._name_places(leaves)
        new = [metric for metric in found.tolist() if metric not in self.metrics]
        self.metrics.update(zip(new, range(len(self.metrics), len(self.metrics) + len(new)), strict=True))
        described = [self.store.metrics[metric] for metric in new]
        return Names(
            parents=parents,
            place_names=place_names,
            metric_names=[metric.name for metric in described],
            frequencies=np.array([metric.frequency for metric in described], np.int64),
            series_places=_look_up(self.places, leaves)[leaf_of],
            series_metrics=_look_up(self.metrics, found)[metric_of],
        )

    def _name_places(self, leaves: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[str]]:
        """Number what has none of these places and those above them; return their parents and names."""
        parent_of, known, new = self.store.columns.places["parent"], self.places, set[int]()
        level = leaves
        while len(level):
            missing = [
                place for place in level.tolist() if place > 0 and place not in known and place not in new
            ]
            new.update(missing)
            level = np.unique(parent_of[missing])
        places = np.fromiter(new, np.int32, len(new))
        places = places[np.argsort(_depths(parent_of, places), kind="stable")]  # parents first
        listed = places.tolist()
        known.update(zip(listed, range(self._next_place, self._next_place + len(listed)), strict=True))
        self._next_place += len(listed)
        parents = [known.get(parent, -1) for parent in parent_of[places].tolist()]
        return np.array(parents, np.int32), [self.store.index.name(place) for place in listed]


def _depths(parent_of: NDArray[np.int32], places: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return how many places lie above each one."""
    depths, above = np.zeros(len(places), np.int64), parent_of[places]
    while (above > 0).any():
        depths += above > 0
        above = parent_of[np.maximum(above, 0)]
    return depths


def _look_up(numbers: dict[int, int], ids: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.array([numbers[i] for i in ids.tolist()], np.int32)


class _Column:
    """Numbers that become more; the array behind them grows by doubling."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._room: NDArray[Any] = np.empty(1024, dtype)
        self._count = 0

    def extend(self, numbers: NDArray[Any]) -> None:
        """Add some at the end."""
        start, self._count = self._count, self._count + len(numbers)
        if self._count > len(self._room):
            self._room = np.resize(self._room, 2 * self._count)
        self._room[start : self._count] = numbers

    @property
    def filled(self) -> NDArray[Any]:
        """All of them; a view."""
        return self._room[: self._count]


class Resolver:
    """The series of a store that the numbers of one file mean; they are made as the file names them.

    Metrics that are not configured, and series for which there is no room, are -1.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # by number in the file, but the root stands in front of the places: number -1 is at index 0
        self._places, self._depths = _Column(np.int32), _Column(np.int8)
        self._places.extend(np.array([store.index.root]))
        self._depths.extend(np.zeros(1))
        self._metrics, self._metric_frequencies = _Column(np.int32), _Column(np.int64)
        self._series, self._series_frequencies = _Column(np.int32), _Column(np.int64)

    def take(self, names: Names) -> None:
        """Take the next names of the file."""
        for _ in self.take_in_steps(names):
            pass

    def take_in_steps(self, names: Names) -> Iterator[None]:
        """Take the next names of the file, in steps of a millisecond or two."""
        for start in range(0, len(names.parents), _PLACES_AT_ONCE):
            part = slice(start, start + _PLACES_AT_ONCE)
            self._locate(names.parents[part], names.place_names[part])
            yield
        ids = [self._store.metric_ids.get(name, -1) for name in names.metric_names]
        self._metrics.extend(np.array(ids, np.int32))
        self._metric_frequencies.extend(names.frequencies)
        for start in range(0, len(names.series_places), _SERIES_AT_ONCE):
            part = slice(start, start + _SERIES_AT_ONCE)
            self._enlist(names.series_places[part], names.series_metrics[part])
            yield

    def _locate(self, parents: NDArray[np.int32], names: Sequence[str]) -> None:
        """Find places, or make them: a level at a time, as parents come first, but anywhere before."""
        above, first = parents + 1, len(self._places.filled)
        self._places.extend(np.full(len(parents), -1))
        self._depths.extend(np.full(len(parents), -1))
        places, depths = self._places.filled, self._depths.filled
        for depth in range(1, _DEEPEST + 1):
            rows = np.flatnonzero(depths[above] == depth - 1)
            depths[first + rows] = depth
            wanted = [names[row] for row in rows.tolist()]
            places[first + rows] = self._store.index.all_below(
                places[above[rows]].tolist(), wanted, depth=depth
            )

    def _enlist(self, at_places: NDArray[np.int32], of_metrics: NDArray[np.int32]) -> None:
        places, metrics = self._places.filled[at_places + 1], self._metrics.filled[of_metrics]
        good = (places >= 0) & (metrics >= 0)
        ids = np.full(len(places), -1, np.int32)
        ids[good], _ = self._store.enlist(places[good], metrics[good], allowance=int(good.sum()))
        self._series.extend(ids)
        self._series_frequencies.extend(self._metric_frequencies.filled[of_metrics])

    @property
    def series(self) -> NDArray[np.int32]:
        """int32[n]: id of the n-th series that the file named, -1 for none."""
        return self._series.filled

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """int64[n]: seconds of the n-th series, as they were when the file was written."""
        return self._series_frequencies.filled
