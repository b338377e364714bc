"""Columns of runs and samples: choose rows, join columns, and make runs of samples.

Functions from arrays to arrays. Invariant of `fold`: every stored sample is in a slot that contains its time,
or a later one is in its place.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ccstore.model import Names, Runs, Samples

__all__ = [
    "cut_by_period",
    "fold",
    "join_blocks",
    "join_names",
    "join_runs",
    "join_samples",
    "pick_runs",
    "pick_samples",
    "slots_of",
]

_CHUNK_SLOTS = 512
_NO_RUNS = Runs(
    np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32),
    np.empty(0, np.float32),
)  # fmt: skip
_NO_SAMPLES = Samples(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float32))
_NO_NAMES = Names(
    np.empty(0, np.int32), [], [], np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32)
)


def pick_samples(samples: Samples, rows: NDArray[np.int64]) -> Samples:
    """Return some samples, in the order of `rows`; copies."""
    return Samples(samples.numbers[rows], samples.times[rows], samples.values[rows])


def pick_runs(runs: Runs, rows: NDArray[np.int64]) -> Runs:
    """Return some runs with their values, in the order of `rows`; copies."""
    counts = runs.counts[rows]
    begins = (np.cumsum(runs.counts, dtype=np.int64) - runs.counts)[rows]
    shifts = begins - (np.cumsum(counts, dtype=np.int64) - counts)
    values = runs.values[np.arange(int(counts.sum())) + np.repeat(shifts, counts)]
    return Runs(runs.numbers[rows], runs.starts[rows], runs.firsts[rows], counts, values)


def join_runs(parts: Sequence[Runs]) -> Runs:
    """Return runs one after the other."""
    columns = zip(
        *((p.numbers, p.starts, p.firsts, p.counts, p.values) for p in (_NO_RUNS, *parts)), strict=True
    )
    return Runs(*map(np.concatenate, columns))


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Return samples one after the other; those of a single part as they are."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*((p.numbers, p.times, p.values) for p in (_NO_SAMPLES, *parts)), strict=True)
    return Samples(*map(np.concatenate, columns))


def join_names(parts: Sequence[Names]) -> Names:
    """Return names that continue one another as one; those of a single part as they are."""
    if len(parts) == 1:
        return parts[0]
    parts = [_NO_NAMES, *parts]
    return Names(
        parents=np.concatenate([part.parents for part in parts]),
        place_names=[name for part in parts for name in part.place_names],
        metric_names=[name for part in parts for name in part.metric_names],
        frequencies=np.concatenate([part.frequencies for part in parts]),
        series_places=np.concatenate([part.series_places for part in parts]),
        series_metrics=np.concatenate([part.series_metrics for part in parts]),
    )


def join_blocks(blocks: Sequence[tuple[Names, Runs]]) -> tuple[Names, Runs]:
    """Return blocks, each of which numbers its own names from 0 on, as one that does."""
    if len(blocks) == 1:
        return blocks[0]
    all_names, all_runs = list[Names](), list[Runs]()
    places = metrics = series = np.int32(0)
    for names, runs in blocks:
        parents = np.where(names.parents < 0, np.int32(-1), names.parents + places)
        at_places, of_metrics = names.series_places + places, names.series_metrics + metrics
        all_names.append(evolve(names, parents=parents, series_places=at_places, series_metrics=of_metrics))
        all_runs.append(evolve(runs, numbers=runs.numbers + series))
        places += np.int32(len(names.parents))
        metrics += np.int32(len(names.frequencies))
        series += np.int32(len(names.series_places))
    return join_names(all_names), join_runs(all_runs)


def slots_of(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each value its run and its slot in the chunk."""
    of_run = np.repeat(np.arange(len(runs.counts), dtype=np.int64), runs.counts)
    begins = np.cumsum(runs.counts, dtype=np.int64) - runs.counts
    slots: NDArray[np.int64] = np.arange(len(of_run), dtype=np.int64) + (runs.firsts - begins)[of_run]
    return of_run, slots


def fold(samples: Samples, runs: Runs, frequencies: NDArray[np.int64]) -> Runs:
    """Return the stored samples as runs that count behind others, in the slots that a server would choose.

    That is a slot of the latest chunk that begins before a sample, or of a new chunk if it lies behind the
    newest one; it is in the middle of that slot then. What a server refuses as late goes on the grid of the
    chunk before, or of the first one.

    runs: of the same series. frequencies: seconds, by number of the series.
    """
    samples = pick_samples(samples, np.flatnonzero(~np.isnan(samples.values)))
    if not len(samples.numbers):
        return _NO_RUNS
    steps = frequencies[samples.numbers]
    grids = _find_grids(samples, runs, steps)
    begins = grids + (samples.times - grids) // steps * steps
    order = np.lexsort((begins, samples.numbers))  # it keeps the order of equal ones
    numbers, begins = samples.numbers[order], begins[order]
    is_last = np.append((numbers[1:] != numbers[:-1]) | (begins[1:] != begins[:-1]), True)
    rows = order[is_last]
    return _cut(numbers[is_last], begins[is_last], samples.values[rows], steps[rows])


def _find_grids(samples: Samples, runs: Runs, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each sample the beginning of the chunk on whose grid it goes."""
    found, firsts = np.unique(samples.numbers, return_index=True)
    bare = firsts[~np.isin(found, runs.numbers)]  # first samples of series without chunks: they begin one
    numbers = np.concatenate([runs.numbers, samples.numbers[bare], samples.numbers])
    starts = np.concatenate([runs.starts, samples.times[bare] - steps[bare] // 2, samples.times])
    chunks = len(numbers) - len(samples.numbers)
    order = np.lexsort((np.arange(len(numbers)) >= chunks, starts, numbers))
    numbers, starts, is_chunk = numbers[order], starts[order], order < chunks
    rows = np.arange(len(order))
    before = np.maximum.accumulate(np.where(is_chunk, rows, -1))
    after = np.minimum.accumulate(np.where(is_chunk, rows, len(rows) - 1)[::-1])[::-1]
    chosen = np.where((before >= 0) & (numbers[before] == numbers), before, after)
    grids = np.empty(len(order), np.int64)
    grids[order] = starts[chosen]
    return _begin_chunks(samples, grids[chunks:], steps, _newest(numbers[is_chunk], starts[is_chunk]))


def _newest(numbers: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the beginning of the newest chunk by number of the series; chunks are sorted by both."""
    newest = np.full(int(numbers.max()) + 1, np.iinfo(np.int64).min)
    newest[numbers] = starts  # of several the last one stays
    return newest


def _begin_chunks(
    samples: Samples, grids: NDArray[np.int64], steps: NDArray[np.int64], newest: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give chunks of their own to samples behind the newest chunk of their series.

    A round begins the next chunk of all series that need one, at the first sample that does; from then on
    whatever is in reach goes there. A chunk begins half a slot before its first sample, and so may reach
    into the last slot of the one before.
    """
    times, middle = samples.times, samples.times - steps // 2
    rows = np.argsort(samples.numbers, kind="stable")
    rows = rows[grids[rows] == newest[samples.numbers[rows]]]
    while True:
        slots = (times[rows] - grids[rows]) // steps[rows]
        rows, slots = rows[slots >= _CHUNK_SLOTS - 1], slots[slots >= _CHUNK_SLOTS - 1]
        behind = np.flatnonzero(slots >= _CHUNK_SLOTS)
        if not len(behind):
            return grids
        found, index = np.unique(samples.numbers[rows[behind]], return_index=True)
        leads = behind[index]
        of_row = np.minimum(np.searchsorted(found, samples.numbers[rows]), len(found) - 1)
        starts = middle[rows[leads]][of_row]
        is_led = (found[of_row] == samples.numbers[rows]) & (np.arange(len(rows)) >= leads[of_row])
        reached = is_led & (times[rows] >= starts)
        rows = rows[reached]
        grids[rows] = starts[reached]


def _cut(
    numbers: NDArray[np.int32], begins: NDArray[np.int64], values: NDArray[np.float32],
    steps: NDArray[np.int64],
) -> Runs:  # fmt: skip
    """Return slots, sorted by series and by the time at which they begin, as runs of at most a chunk."""
    rows = np.arange(len(numbers))
    follows = np.zeros(len(numbers), np.bool_)
    follows[1:] = (numbers[1:] == numbers[:-1]) & (begins[1:] - begins[:-1] == steps[1:])
    stretch = np.maximum.accumulate(np.where(follows, 0, rows))
    firsts = np.flatnonzero((rows - stretch) % _CHUNK_SLOTS == 0)
    counts = np.diff(firsts, append=len(rows)).astype(np.int32)
    return Runs(numbers[firsts], begins[firsts], np.zeros(len(firsts), np.int32), counts, values)


def cut_by_period(runs: Runs, frequencies: NDArray[np.int64], period: int) -> Iterator[Runs]:
    """Yield for each period of so many seconds the slots that begin in it, in ascending order of periods.

    frequencies: seconds, by number of the series. Runs keep their order and their grids.
    """
    if not len(runs.numbers):
        return
    of_run, slots = slots_of(runs)
    steps = frequencies[runs.numbers]
    periods = (runs.starts[of_run] + slots * steps[of_run]) // period
    begins = np.flatnonzero((np.diff(of_run, prepend=-1) != 0) | (np.diff(periods, prepend=periods[0]) != 0))
    rows = of_run[begins]
    pieces = Runs(
        runs.numbers[rows],
        runs.starts[rows],
        slots[begins].astype(np.int32),
        np.diff(begins, append=len(of_run)).astype(np.int32),
        runs.values,
    )
    of_piece = periods[begins]
    for one in np.unique(of_piece).tolist():
        yield pick_runs(pieces, np.flatnonzero(of_piece == one))
