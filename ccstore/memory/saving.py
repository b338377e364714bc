"""What leaves memory for a checkpoint, and comes back from one: slots of chunks, on their own grid.

What was copied is marked as saved at once, so a sample that comes later is unsaved again and
goes into the next checkpoint; nothing has to stand still meanwhile.

Invariant: a slot is marked as saved only if a file holds it, or a copy is under way that either comes into a
file or is given back (`take_back`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.memory.kernels import save
from ccstore.memory.layout import FRESH, Pool
from ccstore.memory.naming import name_series
from ccstore.memory.store import Store
from ccstore.model import Names, Runs, Samples

__all__ = [
    "Copied",
    "Marks",
    "copies_of_unsaved",
    "count_unsaved",
    "make_room",
    "mark_all_unsaved",
    "restore",
    "samples_of",
    "take_back",
]

_SLOTS_AT_ONCE = 1 << 16
"""Slots that are copied without a break: a millisecond."""
_CHUNKS_AT_ONCE = 1 << 18


@frozen
class Marks:
    """Where a copy was taken from."""

    chunks: NDArray[np.int32]
    firsts: NDArray[np.int32]


@frozen
class Copied:
    """Unsaved slots as they were."""

    names: Names
    """Of the series alone that have runs here."""
    runs: Runs
    marks: Marks


def count_unsaved(store: Store, place: int) -> tuple[int, int]:
    """Return how many runs and slots at and below a place are unsaved; 40 ns a series."""
    totals = np.empty(2, np.int64)
    save.count_unsaved(store.columns, place, totals)
    return int(totals[0]), int(totals[1])


def copies_of_unsaved(store: Store, places: Iterable[int]) -> Iterator[Copied]:
    """Copy what is unsaved below some places, and mark it saved; in pieces of about a millisecond.

    The places do not lie within one another. Between two pieces anything may happen to the store.
    """
    parts: list[_Part] = []
    for place in places:
        runs, slots = count_unsaved(store, place)
        if runs:
            parts.append(_copy(store, place, runs, slots))
        if sum(len(part.values) for part in parts) >= _SLOTS_AT_ONCE:
            yield _join(store, parts)
            parts = []
    if parts:
        yield _join(store, parts)


class _Part(NamedTuple):
    ids: NDArray[np.int32]
    chunks: NDArray[np.int32]
    starts: NDArray[np.int64]
    firsts: NDArray[np.int32]
    counts: NDArray[np.int32]
    values: NDArray[np.float32]


def _copy(store: Store, place: int, runs: int, slots: int) -> _Part:
    ids, chunks, firsts, counts = (np.empty(runs, np.int32) for _ in range(4))
    part = _Part(ids, chunks, np.empty(runs, np.int64), firsts, counts, np.empty(slots, np.float32))
    copied = save.copy_unsaved(store.columns, place, *part)
    assert copied == runs
    return part


def _join(store: Store, parts: Sequence[_Part]) -> Copied:
    columns = zip(*parts, strict=True)
    ids, chunks, starts, firsts, counts, values = (np.concatenate(column) for column in columns)
    begins = np.flatnonzero(np.diff(ids, prepend=-1))  # the runs of a series follow one another
    numbers = np.repeat(np.arange(len(begins), dtype=np.int32), np.diff(begins, append=len(ids)))
    runs = Runs(numbers, starts, firsts, counts, values)
    return Copied(name_series(store, ids[begins]), runs, Marks(chunks, firsts))


def take_back(store: Store, marks: Marks) -> None:
    """Note that a copy came into no file, so that the next checkpoint holds it."""
    save.mark_unsaved(store.columns, marks.chunks, marks.firsts)


def mark_all_unsaved(store: Store) -> Iterator[None]:
    """Note that no file holds anything, in steps of a millisecond."""
    first = 0
    while first < (stop := min(first + _CHUNKS_AT_ONCE, int(store.columns.pools[Pool.CHUNK, FRESH]))):
        chunks = np.arange(first, stop, dtype=np.int32)
        take_back(store, Marks(chunks, np.zeros(len(chunks), np.int32)))
        yield
        first = stop


def restore(store: Store, series: NDArray[np.int32], runs: Runs) -> NDArray[np.bool_]:
    """Put runs of a checkpoint back, as saved slots on their own grid.

    series: id of each run's series, -1 for none. Returns for each run whether all of it is in place. It is
    not if other samples lie in its way, or if memory is full; then its values can be written as samples.
    """
    placed = np.empty(len(series), np.bool_)
    save.restore(store.columns, series, runs.starts, runs.firsts, runs.counts, runs.values, placed)
    return placed


def make_room(store: Store, series: NDArray[np.int32], times: NDArray[np.int64]) -> None:
    """Make a chunk for the first of these samples of each series, where other samples leave room for it.

    For samples that were accepted once and would be late now, because what lay behind them then was freed.
    """
    order = np.lexsort((times, series))
    _, firsts = np.unique(series[order], return_index=True)
    chosen = order[firsts]
    count = len(chosen)
    runs = Runs(
        numbers=np.arange(count, dtype=np.int32),
        starts=times[chosen] - store.frequencies(series[chosen]) // 2,
        firsts=np.zeros(count, np.int32),
        counts=np.ones(count, np.int32),
        values=np.full(count, np.nan, np.float32),
    )
    restore(store, series[chosen], runs)


def samples_of(runs: Runs, before: NDArray[np.int64], now: NDArray[np.int64]) -> Samples:
    """Return the values of runs as samples, for a store in which they have no place as runs.

    before, now: seconds of each run's metric, as it was and as it is. Where a step has become shorter, a
    value covers all the steps that its slot had; where it has become longer, the last value of a step
    counts.
    """
    ends = np.cumsum(runs.counts, dtype=np.int64)
    of_run = np.repeat(np.arange(len(runs.counts)), runs.counts)
    slots = runs.firsts[of_run] + np.arange(len(of_run)) - (ends - runs.counts)[of_run]
    begins = runs.starts[of_run] + before[of_run] * slots
    there = ~np.isnan(runs.values)
    copies = np.where(there, np.maximum(before // now, 1)[of_run], 0)
    of_value = np.repeat(np.arange(len(of_run)), copies)
    step = np.arange(len(of_value)) - (np.cumsum(copies) - copies)[of_value]
    run = of_run[of_value]
    middle = np.minimum(before, now)[run] // 2
    return Samples(runs.numbers[run], begins[of_value] + now[run] * step + middle, runs.values[of_value])
