"""Between the trees of the reference's checkpoint files and the columns of ccstore.

The reference has one entry for a metric and level in a file, on one grid; ccstore has chunks, each on a grid
of its own, and writes what is new of each of them. So columns become one file as long as what belongs to a
series fits onto the grid of its oldest part, and further files with later names where it does not.

Owns this fit, and the numbers that files' names get. Invariant: no value that goes in is left out or put onto
another one, whatever the runs are; from file to file the times of a series do not decrease, for then the
reference refuses to start; and no array is longer than what was stored, but for gaps of up to a chunk.

A value keeps its slot but not its time: the reference says where a slot's middle is, ccstore where it begins,
so half a frequency lies between the two. The reference forgets this when it loads; that is why its times
creep.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.disk.reference.checkpoint import Checkpoint, Entry, Level
from ccstore.model import Names, Runs

__all__ = ["Naming", "arrange", "earliest_begin", "flatten", "revise"]

CHUNK_SLOTS = 512
"""Values of a run at most, and the longest gap that is filled up with missing values."""


class Naming:
    """Gives numbers to what one host's file names: place 0 is the cluster, place 1 the host."""

    def __init__(self, cluster: str, host: str) -> None:
        self._places: dict[tuple[int, str], int] = {(-1, cluster): 0, (0, host): 1}
        self._metrics: dict[tuple[str, int], int] = {}
        self._series_places: list[int] = []
        self._series_metrics: list[int] = []

    def place(self, path: Sequence[str]) -> int:
        """Return the number of the place with this path below the host."""
        place = 1
        for name in path:
            place = self._places.setdefault((place, name), len(self._places))
        return place

    def add_series(self, place: int, metric: str, frequency: int) -> None:
        """Give the next number to a series."""
        self._series_places.append(place)
        self._series_metrics.append(self._metrics.setdefault((metric, frequency), len(self._metrics)))

    def names(self) -> Names:
        """Return all names."""
        return Names(
            parents=np.array([parent for parent, _ in self._places], np.int32),
            place_names=[name for _, name in self._places],
            metric_names=[name for name, _ in self._metrics],
            frequencies=np.array([frequency for _, frequency in self._metrics], np.int64),
            series_places=np.array(self._series_places, np.int32),
            series_metrics=np.array(self._series_metrics, np.int32),
        )


# --- a tree to columns


def flatten(checkpoint: Checkpoint, *, cluster: str, host: str) -> tuple[Names, Runs]:
    """Return what a file holds as columns; each entry becomes chunks one behind the other on one grid."""
    naming = Naming(cluster, host)
    entries: list[Entry] = []
    for path, level in _levels(checkpoint.host):
        place = naming.place(path)
        for metric, entry in level.entries.items():
            naming.add_series(place, metric, entry.frequency)
            entries.append(entry)
    return naming.names(), _cut(entries)


def _levels(level: Level, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Level]]:
    yield path, level
    for name, child in level.children.items():
        yield from _levels(child, (*path, name))


def _cut(entries: list[Entry]) -> Runs:
    """Cut each entry into runs of a chunk."""
    lengths = np.fromiter((len(entry.values) for entry in entries), np.int64, len(entries))
    frequencies = np.fromiter((entry.frequency for entry in entries), np.int64, len(entries))
    starts = np.fromiter((entry.start for entry in entries), np.int64, len(entries)) - frequencies // 2
    pieces = -(-lengths // CHUNK_SLOTS)
    numbers = np.repeat(np.arange(len(entries)), pieces)
    slots = (np.arange(len(numbers)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * CHUNK_SLOTS
    return Runs(
        numbers=numbers.astype(np.int32),
        starts=starts[numbers] + slots * frequencies[numbers],
        firsts=np.zeros(len(numbers), np.int32),
        counts=np.minimum(lengths[numbers] - slots, CHUNK_SLOTS).astype(np.int32),
        values=np.concatenate([np.empty(0, np.float32), *(entry.values for entry in entries)]),
    )


# --- columns to trees


_Key = tuple[tuple[str, ...], str]
"""A series: the path of its place below the host, and its metric."""


@frozen(slots=True)
class _Run:
    """Values of consecutive slots."""

    begin: int
    """Where the first slot begins, in seconds."""
    frequency: int
    index: int
    """Its place among all runs: of two values for one slot, that of the later run counts."""
    values: NDArray[np.float32]


class _Part:
    """What goes into one entry: runs on the grid of the first one."""

    def __init__(self, run: _Run) -> None:
        self.first = run
        self._last = run
        self._used = len(run.values)
        self._pieces = [(run.index, 0, run.values)]

    def take(self, run: _Run) -> bool:
        """Add a run that begins no earlier than those before; return False if it does not fit."""
        first, f = self.first, self.first.frequency
        if run.frequency != f:
            return False
        # a slot of another grid goes where a read that continues on this one finds it
        slot = -((first.begin + f // 2 - run.begin) // f)
        same_grid = (run.begin - self._last.begin) % f == 0
        if slot - self._used > CHUNK_SLOTS or (slot < self._used and not same_grid):
            return False
        self._used = max(self._used, slot + len(run.values))
        self._pieces.append((run.index, slot, run.values))
        self._last = run
        return True

    def entry(self) -> Entry:
        """Return all of it as one entry."""
        f, values = self.first.frequency, self.first.values
        if len(self._pieces) > 1:
            values = np.full(self._used, np.nan, np.float32)
            for _, slot, piece in sorted(self._pieces, key=itemgetter(0)):
                _lay_over(values[slot : slot + len(piece)], piece)
        return Entry(f, self.first.begin + f // 2, values)


def arrange(names: Names, runs: Runs, *, start: int, stop: int) -> list[Checkpoint]:
    """Return the files that hold all runs of one host, to be written in this order.

    start: of the period, the stem of the first file; a further file begins where the first of its values do.
    stop: end of the period; a file that holds later values says so. Where runs of one grid overlap, the later
    one counts, but no missing value replaces a stored one. Without runs there is a file without values.
    """
    sheets: list[dict[_Key, _Part]] = [{}]
    latest: dict[_Key, int] = {}
    for key, run in _by_time(names, runs):
        sheet = latest.setdefault(key, 0)
        part = sheets[sheet].get(key)
        if part is not None and part.take(run):
            continue
        if part is not None:
            sheet = latest[key] = sheet + 1
            if sheet == len(sheets):
                sheets.append({})
        sheets[sheet][key] = _Part(run)
    files: list[Checkpoint] = []
    for parts in sheets:
        if files:
            start = max(files[-1].start + 1, min(part.first.begin for part in parts.values()))
        files.append(_make_file({key: part.entry() for key, part in parts.items()}, start, stop))
    return files


def _by_time(names: Names, runs: Runs) -> Iterator[tuple[_Key, _Run]]:
    """Yield the runs in the order of their beginning."""
    paths = _paths_below_host(names)
    keys = [
        (paths[place], names.metric_names[metric])
        for place, metric in zip(names.series_places.tolist(), names.series_metrics.tolist(), strict=True)
    ]
    frequencies = names.frequencies[names.series_metrics[runs.numbers]]
    begins = runs.starts + runs.firsts * frequencies
    stops = np.cumsum(runs.counts, dtype=np.int64)
    columns = (runs.numbers, begins, frequencies, stops - runs.counts, stops)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    for index in np.argsort(begins, kind="stable").tolist():
        number, begin, frequency, first, last = rows[index]
        yield keys[number], _Run(begin, frequency, index, runs.values[first:last])


def _paths_below_host(names: Names) -> list[tuple[str, ...]]:
    """Return the path of each place below the host."""
    depths: list[int] = []
    paths: list[tuple[str, ...]] = []
    for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
        depths.append(0 if parent < 0 else depths[parent] + 1)
        paths.append((*paths[parent], name) if depths[-1] > 1 else ())
    assert depths.count(1) == 1, "one file is of one host"
    assert all(depths[place] > 0 for place in names.series_places.tolist()), (
        "nothing above a host is in a file"
    )
    return paths


def _make_file(entries: dict[_Key, Entry], start: int, stop: int) -> Checkpoint:
    """Return a file, with all names sorted, whose period does not end before its values."""
    root = Level()
    for (path, metric), entry in sorted(entries.items(), key=itemgetter(0)):
        level = root
        for name in path:
            level = level.children.setdefault(name, Level())
        level.entries[metric] = entry
        stop = max(stop, entry.stop - entry.frequency + 1)
    return Checkpoint(start, max(start, stop), root)


# --- late values


def revise(files: Sequence[Checkpoint], newer: Checkpoint) -> list[Checkpoint]:
    """Move the values of a newer file that files on disk already cover, or should, into these.

    Values come late, and the reference wants the times of a series to begin in no file earlier than in the
    file before. So a value that lies before the end of what is on disk of its series goes into the entry that
    it lies in or behind, or before the first one.

    files: those that `directory.plan_revise` chooses, in their order. Returns them and the newer file, the
    same objects where nothing changed. Only what has another frequency, or is more than a chunk away from all
    entries, stays where it is.
    """
    on_disk = [_entries(file) for file in files]
    moved: list[dict[_Key, Entry]] = [{} for _ in files]
    kept: dict[_Key, Entry] = {}
    for key, entry in _entries(newer).items():
        known = [(k, found[key]) for k, found in enumerate(on_disk) if key in found]
        same = [(k, before) for k, before in known if before.frequency == entry.frequency]
        ends = [behind.start for _, behind in same[1:]] + [before.stop for _, before in same[-1:]]
        for (k, before), until in zip(same, ends, strict=True):
            late = _count_late(before, entry, until)
            if late > 0:
                moved[k][key] = _merge(before, entry.values[:late], entry.start)
                start = entry.start + late * entry.frequency
                entry = Entry(entry.frequency, start, entry.values[late:])
        if len(entry.values) > 0:
            kept[key] = entry
    if not any(moved):
        return [*files, newer]
    revised = [
        _make_file(found | new, file.start, file.stop) if new else file
        for file, found, new in zip(files, on_disk, moved, strict=True)
    ]
    return [*revised, _make_file(kept, newer.start, newer.stop)]


def earliest_begin(checkpoint: Checkpoint) -> int:
    """Return a time, in seconds, before which no chunk of a file's values begins.

    Without values that is the beginning of the file.
    """
    begins = (entry.start - CHUNK_SLOTS * entry.frequency for entry in _entries(checkpoint).values())
    return min(begins, default=checkpoint.start)


def _entries(checkpoint: Checkpoint) -> dict[_Key, Entry]:
    return {
        (path, metric): entry
        for path, level in _levels(checkpoint.host)
        for metric, entry in level.entries.items()
    }


def _slot_in(entry: Entry, time: int) -> int:
    return (time - entry.start + entry.frequency // 2) // entry.frequency


def _count_late(before: Entry, entry: Entry, until: int) -> int:
    """Return how many of the first values belong into an entry that may grow until a time."""
    slot = _slot_in(before, entry.start)
    late = min(max(_slot_in(before, until) - slot, 0), len(entry.values))
    near = -CHUNK_SLOTS - late <= slot <= len(before.values) + CHUNK_SLOTS
    return late if near else 0


def _merge(before: Entry, values: NDArray[np.float32], start: int) -> Entry:
    """Return an entry with values laid over it, longer at both ends if need be."""
    slot = _slot_in(before, start)
    ahead = max(-slot, 0)
    merged = np.full(ahead + max(len(before.values), slot + len(values)), np.nan, np.float32)
    merged[ahead : ahead + len(before.values)] = before.values
    _lay_over(merged[slot + ahead : slot + ahead + len(values)], values)
    return Entry(before.frequency, before.start - ahead * before.frequency, merged)


def _lay_over(below: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    """Write values where they are not missing."""
    np.copyto(below, values, where=~np.isnan(values))
