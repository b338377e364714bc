"""The kernels of queries in PromQL: find series, sample them at steps of time, combine them.

A sample has the time of its slot's middle, as everywhere. Steps and windows are in milliseconds; a window is
open at its beginning, closed at its end: (t - window, t]. Samples are compared with it in whole
seconds, rounded down, which is the same since they lie on whole seconds.
"""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.memory.kernels.read import frequency_of
from ccstore.memory.kernels.tree import following
from ccstore.memory.kernels.write import row_of
from ccstore.memory.layout import COLUMNS, ROW_SLOTS

LOOKBACK = 2
"""For how many frequencies a sample counts as the latest one."""

SUM, AVG, MIN, MAX, COUNT = range(5)

i4, i8, f8, marks, f8_rows = (
    slots_of("i4"),
    slots_of("i8"),
    slots_of("f8"),
    slots_of("?"),
    slots_of("f8", dimensions=2),
)
number = types.int64


@kernel(COLUMNS, i4, marks, i4, i8)
def find_series(columns, roots, wanted, ids, ends):
    """Find all live series of wanted metrics at places and below; returns for how many places they fit.

    The series below roots[k] end at ``ids[ends[k]]``. Unlike in `collect`, none hides another one.
    """
    places, series, found = columns.places, columns.series, 0
    for k in range(len(roots)):
        place = roots[k]
        while place >= 0:
            s = places[place]["series"]
            while s >= 0:
                if series[s]["newest"] >= 0 and wanted[series[s]["metric"]]:
                    if found == len(ids):
                        return k
                    ids[found] = s
                    found += 1
                s = series[s]["next"]
            place = following(places, roots[k], place, True)
        ends[k] = found
    return len(roots)


@inline
def middle(columns, chunk, f):
    """Return the time of the first sample of a chunk."""
    return columns.chunks[chunk]["start"] + f // 2


@inline
def value_at(columns, chunk, slot):
    """Return the value of a used slot, NaN if there is none."""
    row = row_of(columns, chunk, slot // ROW_SLOTS)
    return np.float64(columns.rows[row, slot % ROW_SLOTS]) if row >= 0 else np.nan


@inline
def chunk_at(columns, s, f, t):
    """Return the newest chunk whose first sample is not after t, else the oldest one."""
    chunks, chunk = columns.chunks, columns.series[s]["newest"]
    while middle(columns, chunk, f) > t and chunks[chunk]["older"] >= 0:
        chunk = chunks[chunk]["older"]
    return chunk


@inline
def latest(columns, chunk, f, t, after):
    """Return the latest value at or before t that is later than `after`; NaN if there is none."""
    chunks, slot = columns.chunks, (t - middle(columns, chunk, f)) // f
    while True:
        slot = min(slot, chunks[chunk]["used"] - 1)
        while slot >= 0:
            if middle(columns, chunk, f) + slot * f <= after:
                return np.nan
            value = value_at(columns, chunk, slot)
            if value == value:
                return value
            slot -= 1
        chunk = chunks[chunk]["older"]
        if chunk < 0:
            return np.nan
        slot = np.int64(chunks[chunk]["used"]) - 1


@kernel(COLUMNS, i4, number, number, f8_rows)
def sample(columns, ids, start, step, out):
    """Write the latest value of each series at each step, NaN where there is none.

    out: float64[series, steps]; step k is at the time start + k * step (ms).
    """
    for j in range(len(ids)):
        f = frequency_of(columns, ids[j])
        chunk = chunk_at(columns, ids[j], f, start // 1000)
        for k in range(out.shape[1]):
            t = start + k * step
            newer = columns.chunks[chunk]["newer"]
            while newer >= 0 and middle(columns, newer, f) <= t // 1000:
                chunk = newer
                newer = columns.chunks[chunk]["newer"]
            out[j, k] = latest(columns, chunk, f, t // 1000, (t - 1000 * LOOKBACK * f) // 1000)
    return 0


# --- rates


@inline
def advance(columns, chunk, slot):
    """Return chunk and slot of the next sample; slot -1 behind the last one."""
    chunks = columns.chunks
    slot += 1
    while True:
        while slot >= chunks[chunk]["used"]:
            if chunks[chunk]["newer"] < 0:
                return chunk, np.int64(-1)
            chunk = chunks[chunk]["newer"]
            slot = np.int64(0)
        row = row_of(columns, chunk, slot // ROW_SLOTS)
        if row < 0:
            slot = (slot // ROW_SLOTS + 1) * ROW_SLOTS
            continue
        value = columns.rows[row, slot % ROW_SLOTS]
        if value == value:
            return chunk, slot
        slot += 1


@inline
def first_after(columns, s, f, t):
    """Return chunk and slot of the first sample that is later than t; slot -1 if there is none."""
    chunk = chunk_at(columns, s, f, t)
    begin = middle(columns, chunk, f)
    slot = (t - begin) // f if t >= begin else np.int64(-1)
    return advance(columns, chunk, slot)


@inline
def add_exactly(high, low, value):
    """Add to a sum of two parts, the second of which holds what the first has no digits for."""
    total = high + value
    part = total - high
    return total, low + ((high - (total - part)) + (value - part))


@inline
def extrapolate(increase, first, count, to_start, between, to_end):
    """Return the increase over a whole window, as Prometheus guesses it (`extrapolatedRate`).

    increase: over the samples; first: value of the first of `count` >= 2 samples. The other three are
    seconds: from the beginning of the window to the first sample, to the last one, to the end.
    A side that is longer than 1.1 times the usual distance counts as half of that distance, because the
    series seems to begin or end there. It is not continued to where the counter would be below 0.
    """
    average = between / (count - 1)
    limit = average * 1.1
    if to_start >= limit:
        to_start = average / 2
    if increase > 0 and first >= 0:
        to_start = min(to_start, between * (first / increase))
    if to_end >= limit:
        to_end = average / 2
    return increase * ((between + to_start + to_end) / between)


@kernel(COLUMNS, i4, number, number, number, f8_rows)
def rate(columns, ids, start, step, window, out):
    """Write the increase per second of each series over the window before each step, NaN where there is none.

    out: as in `sample`; there is a rate where the window has two samples. A value below the one before it
    means that the counter began at 0 again. Two pointers follow the ends of the window, each with the sum
    of the values before such resets up to it: the difference of the sums is that of the window.
    """
    for j in range(len(ids)):
        f = frequency_of(columns, ids[j])
        tail, tail_slot = first_after(columns, ids[j], f, (start - window) // 1000)
        head, head_slot = tail, tail_slot  # the first sample that was not taken in
        count, tail_high, tail_low, head_high, head_low = 0, 0.0, 0.0, 0.0, 0.0
        last, last_time = 0.0, np.int64(0)
        for k in range(out.shape[1]):
            t = start + k * step
            stop, begin = t // 1000, (t - window) // 1000
            while head_slot >= 0 and middle(columns, head, f) + head_slot * f <= stop:
                value = value_at(columns, head, head_slot)
                if count > 0 and value < last:
                    head_high, head_low = add_exactly(head_high, head_low, last)
                last, last_time = value, middle(columns, head, f) + head_slot * f
                head, head_slot = advance(columns, head, head_slot)
                count += 1
            while count > 0 and middle(columns, tail, f) + tail_slot * f <= begin:
                value = value_at(columns, tail, tail_slot)
                tail, tail_slot = advance(columns, tail, tail_slot)
                count -= 1
                if count > 0 and value_at(columns, tail, tail_slot) < value:
                    tail_high, tail_low = add_exactly(tail_high, tail_low, value)
            out[j, k] = np.nan
            if count > 1:
                first, first_time = (
                    value_at(columns, tail, tail_slot),
                    middle(columns, tail, f) + tail_slot * f,
                )
                resets = (head_high - tail_high) + (head_low - tail_low)
                increase = extrapolate(
                    last - first + resets,
                    first,
                    count,
                    (1000 * (first_time - begin) - (t - window) % 1000) / 1000.0,
                    np.float64(last_time - first_time),
                    (1000 * (stop - last_time) + t % 1000) / 1000.0,
                )
                out[j, k] = increase / (window / 1000.0)
    return 0


# --- combination


@kernel(f8_rows, slots_of("?", dimensions=2), i8, number, f8_rows, slots_of("i8", dimensions=2))
def combine(values, present, groups, function, totals, counts):
    """Add vectors to the groups they belong to.

    values, present: [series, steps]; groups: int64[series]; totals: float64, counts: int64[groups, steps],
    where a count of 0 means that the total is not set yet. As in Prometheus, NaN is neither the least
    nor the greatest while there is a number.
    """
    for j in range(len(groups)):
        g = groups[j]
        for k in range(values.shape[1]):
            if not present[j, k]:
                continue
            value, total = values[j, k], totals[g, k]
            if counts[g, k] == 0:
                total = value
            elif function == SUM or function == AVG:
                total += value
            elif function == MIN:
                if value < total or total != total:
                    total = value
            elif function == MAX and (value > total or total != total):
                total = value
            totals[g, k] = total
            counts[g, k] += 1
    return 0
