"""The kernel that reads series, alone or several combined."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, prefetch, slots_of
from ccstore.memory.kernels.write import row_of
from ccstore.memory.layout import CHUNK_SLOTS, COLUMNS, ROW_SLOTS
from ccstore.model import Status

GOOD, NOTHING = int(Status.GOOD), int(Status.NOTHING)
NO_AGGREGATION, NOT_ALIGNED = int(Status.NO_AGGREGATION), int(Status.NOT_ALIGNED)
TOO_LONG = int(Status.TOO_LONG)
SUM, AVG = 1, 2

SILENT, BLANK, SPEAKING = 0, 1, 2
"""What a component has in the range: no slots, slots without values, values."""

i1, i4, i8, f8 = slots_of("i1"), slots_of("i4"), slots_of("i8"), slots_of("f8")
f8_rows, number, flag = slots_of("f8", dimensions=2), types.int64, types.boolean


# --- one series


@inline
def frequency_of(columns, s):
    """Return the seconds between two samples of a series."""
    return columns.frequency[columns.series[s]["metric"]]


@inline
def steps(start, stop, f):
    """Return how many times start, start + f, ... lie before stop; start < stop."""
    return (stop - start + f - 1) // f


@inline
def first_chunk(columns, s, f, start):
    """Return the chunk that a read from `start` begins in, and the time it begins at."""
    chunks, half = columns.chunks, f // 2
    chunk = columns.series[s]["newest"]
    while start < chunks[chunk]["start"] + half:
        if chunks[chunk]["older"] < 0:
            return chunk, chunks[chunk]["start"] + half
        chunk = chunks[chunk]["older"]
    return chunk, start


@inline
def stretch(columns, chunk, t, stop, f):
    """Return what a read goes on with at time t < stop: a chunk, a slot of it, and a number of steps.

    So many slots follow each other there; with slot -1 so many values are missing. 0 steps end
    the read. A chunk without a slot for t is passed over when the next one has begun by then.
    """
    chunks = columns.chunks
    while True:
        begin, used, newer = chunks[chunk]["start"], chunks[chunk]["used"], chunks[chunk]["newer"]
        if t < begin:  # a gap in front of this chunk
            return chunk, np.int64(-1), steps(t, min(stop, begin), f)
        slot = (t - begin) // f
        if slot < used:
            if t + (used - slot - 1) * f < stop:  # spares a division: reads go mostly to the end
                return chunk, slot, used - slot
            return chunk, slot, steps(t, stop, f)
        if newer < 0:
            return chunk, np.int64(-1), np.int64(0)
        next_begin = chunks[newer]["start"]
        if slot < CHUNK_SLOTS and t < next_begin:  # a gap behind the last used slot
            if stop <= next_begin:
                return chunk, np.int64(-1), np.int64(0)
            return chunk, np.int64(-1), steps(t, next_begin, f)
        chunk = newer


@inline
def extent(columns, s, f, start, stop):
    """Return the time of the first value that a read of [start, stop) gives, and how many it gives."""
    chunk, first = first_chunk(columns, s, f, start)
    t, n = first, np.int64(0)
    while t < stop:
        chunk, _, m = stretch(columns, chunk, t, stop, f)
        if m == 0:
            break
        t += m * f
        n += m
    return first, n


@inline
def add(columns, s, f, start, stop, count, out, at):
    """Add the first `count` values of a read of [start, stop) to ``out[at:]``; so many there are.

    Returns whether any of them is not NaN.
    """
    chunk, t = first_chunk(columns, s, f, start)
    seen, end = False, at + count
    while at < end:
        # with the stop of the whole read: what a gap gives depends on whether anything follows it
        chunk, slot, m = stretch(columns, chunk, t, stop, f)
        m = min(m, end - at)
        if slot < 0:
            out[at : at + m] = np.nan
        else:
            seen = add_slots(columns, chunk, slot, m, out, at) or seen
        t += m * f
        at += m
    return seen


@inline
def add_slots(columns, chunk, slot, count, out, at):
    """Add slots of a chunk to ``out[at:]``; returns whether any of them is not NaN."""
    seen, stop = False, slot + count
    while slot < stop:
        block, first = slot // ROW_SLOTS, slot % ROW_SLOTS
        length = min(stop - slot, ROW_SLOTS - first)
        row = row_of(columns, chunk, block)
        if row < 0:
            out[at : at + length] = np.nan
        else:
            for k in range(length):
                value = columns.rows[row, first + k]
                seen |= value == value
                out[at + k] += value
        slot += length
        at += length
    return seen


@inline
def has_value(columns, s, f, start, stop):
    """Tell whether a read of [start, stop) gives any value that is not NaN."""
    chunk, t = first_chunk(columns, s, f, start)
    while t < stop:
        chunk, slot, m = stretch(columns, chunk, t, stop, f)
        if m == 0:
            break
        for k in range(m if slot >= 0 else 0):
            row = row_of(columns, chunk, (slot + k) // ROW_SLOTS)
            if row >= 0:
                value = columns.rows[row, (slot + k) % ROW_SLOTS]
                if value == value:
                    return True
        t += m * f
    return False


# --- several series as one


@inline
def touch_ahead(columns, ids, j):
    """Ask for the memory that the series behind ids[j] need, as in `write`."""
    if j + 24 < len(ids):
        prefetch(columns.series, ids[j + 24])
    if j + 16 < len(ids):
        prefetch(columns.chunks, columns.series[ids[j + 16]]["newest"])
    if j + 8 < len(ids):
        chunk = columns.series[ids[j + 8]]["newest"]
        row, slot = columns.chunks[chunk]["row"], columns.chunks[chunk]["used"] - 1
        prefetch(columns.rows, np.int64(row) * ROW_SLOTS + slot % ROW_SLOTS)


@inline
def only_stretch(columns, s, f, start, stop):
    """Return the time of the first value of a read, and the chunk, the slot and the number of values.

    The number is -1 if there is no value, or if the values are not all in a row in one chunk.
    """
    chunk, first = first_chunk(columns, s, f, start)
    slot, n = np.int64(0), np.int64(-1)
    if first < stop:
        chunk, slot, n = stretch(columns, chunk, first, stop, f)
        if slot < 0 or (first + n * f < stop and columns.chunks[chunk]["newer"] >= 0):
            n = np.int64(-1)
    return first, chunk, slot, n


@inline
def combine_alike(columns, ids, g_start, g_stop, start, stop, strict, out, at):
    """Add up ids[g_start:g_stop] if all begin and end together and all take part: the usual case.

    Returns the time of the first value and the number of values, -1 if it is not the usual case.
    """
    f = frequency_of(columns, ids[g_start])
    begin, _, _, n = only_stretch(columns, ids[g_start], f, start, stop)
    if n < 0 or at + n > len(out):
        return begin, np.int64(-1)
    out[at : at + n] = -0.0
    for j in range(g_start, g_stop):
        touch_ahead(columns, ids, j)
        first, chunk, slot, m = only_stretch(columns, ids[j], f, start, stop)
        if first != begin or m != n:
            return begin, np.int64(-1)
        if not add_slots(columns, chunk, slot, n, out, at) and not strict:
            return begin, np.int64(-1)
    return begin, n


@inline
def choose(columns, members, start, stop, strict, kinds):
    """Mark in `kinds` what each component has in the range; return the kind that takes part.

    Components with values leave out those without; where none has values, those with slots leave
    out those without. In strict mode all take part, as SILENT.
    """
    f, best = frequency_of(columns, members[0]), SILENT
    for k in range(len(members)):
        kinds[k] = SILENT
        if not strict:
            if has_value(columns, members[k], f, start, stop):
                kinds[k] = SPEAKING
            elif extent(columns, members[k], f, start, stop)[1] > 0:
                kinds[k] = BLANK
        best = max(best, kinds[k])
    return best


@inline
def align(columns, members, start, stop, kinds, kind):
    """Find the grid of the components of a kind: its first common time, and what lies around it.

    Returns that time, the steps of the union before it, and the fewest and the most values that
    a component has from there on.
    """
    f = frequency_of(columns, members[0])
    common, earliest, found = np.int64(0), np.int64(0), False
    for k in range(len(members)):
        if kinds[k] == kind:
            first = first_chunk(columns, members[k], f, start)[1]
            common = max(common, first) if found else first
            earliest = min(earliest, first) if found else first
            found = True
    fewest, most = np.int64(-1), np.int64(0)
    for k in range(len(members)):
        if kinds[k] == kind:
            n = extent(columns, members[k], f, common, stop)[1]
            fewest = min(fewest, n) if fewest >= 0 else n
            most = max(most, n)
    return common, (common - earliest) // f, fewest, most


@inline
def combine(columns, members, start, stop, strict, out, at, kinds):
    """Add up several series, whatever they have in the range.

    Returns status, first time, number of values (even if they do not fit), and how many took part.
    """
    kind = choose(columns, members, start, stop, strict, kinds)
    common, front, fewest, most = align(columns, members, start, stop, kinds, kind)
    if strict:
        if fewest < 1:
            return NOT_ALIGNED, np.int64(0), np.int64(0), 1
        most = fewest
    if kind == SILENT:
        front = np.int64(0)
    f = frequency_of(columns, members[0])
    begin, n, parts = common - front * f, front + most, 0
    if at + n > len(out):
        return TOO_LONG, begin, n, 1
    out[at : at + n] = np.nan
    out[at + front : at + front + fewest] = -0.0
    for k in range(len(members)):
        if kinds[k] == kind:
            parts += 1
            add(columns, members[k], f, common, stop, fewest, out, at + front)
    return GOOD, begin, n, parts


@inline
def read_alone(columns, s, start, stop, out, at):
    """Read one series: return status, first time, number of values (even if they do not fit)."""
    f = frequency_of(columns, s)
    begin, n = extent(columns, s, f, start, stop)
    if at + n > len(out):
        return TOO_LONG, begin, n
    out[at : at + n] = -0.0
    add(columns, s, f, start, stop, n, out, at)
    return GOOD, begin, n


@inline
def read_group(columns, ids, g_start, g_stop, start, stop, strict, out, at, kinds):
    """Read the series ids[g_start:g_stop] as one: return what `read_alone` does."""
    parts = g_stop - g_start
    if parts == 0:
        return NOTHING, np.int64(0), np.int64(0)
    if parts == 1:
        touch_ahead(columns, ids, g_start)
        return read_alone(columns, ids[g_start], start, stop, out, at)
    aggregation = columns.aggregation[columns.series[ids[g_start]]["metric"]]
    if aggregation != SUM and aggregation != AVG:
        return NO_AGGREGATION, np.int64(0), np.int64(0)
    status = GOOD
    begin, n = combine_alike(columns, ids, g_start, g_stop, start, stop, strict, out, at)
    if n < 0:
        members = ids[g_start:g_stop]
        status, begin, n, parts = combine(columns, members, start, stop, strict, out, at, kinds)
    if aggregation == AVG and status == GOOD:
        for k in range(n):
            out[at + k] *= 1.0 / parts
    return status, begin, n


@inline
def summarize(values, start, stop, stats):
    """Write average, minimum and maximum of the values that are not NaN; NaN if there is none."""
    total, low, high, n = 0.0, np.inf, -np.inf, 0
    for k in range(start, stop):
        x = values[k]
        if x == x:
            total += x
            low = min(low, x)
            high = max(high, x)
            n += 1
    stats[0] = total / n if n else np.nan
    stats[1] = low if n else np.nan
    stats[2] = high if n else np.nan


@kernel(COLUMNS, i4, i8, number, number, flag, number, f8, i1, i8, i8, i1, f8_rows)
def read_groups(
    columns,
    ids,
    group_ends,
    start,
    stop,
    strict,
    budget,
    out,
    kinds,
    ends,
    begins,
    statuses,
    stats,
):
    """Read groups of series until the budget is spent or `out` is full; returns how many.

    Group g is ``ids[group_ends[g - 1]:group_ends[g]]`` (from 0 for the first), combined into one. Its
    values end at ``out[ends[g]]`` and begin where those of the group before it end; begins[g] is
    its first time, stats[g] average, minimum, maximum. A single group that does not fit into
    `out` is TOO_LONG. A unit of the budget is about 30 ns. `kinds` is scratch space for the largest group.
    """
    g_start, at = np.int64(0), np.int64(0)
    for g in range(len(group_ends)):
        g_stop = group_ends[g]
        status, begin, n = read_group(columns, ids, g_start, g_stop, start, stop, strict, out, at, kinds)
        if status == TOO_LONG and n <= len(out):
            return g  # it fits into an empty `out`
        if status != GOOD:
            n = np.int64(0)
        summarize(out, at, at + n, stats[g])
        at += n
        ends[g], begins[g], statuses[g] = at, begin, status
        budget -= 2 + (g_stop - g_start) * (1 + n // ROW_SLOTS) + n // 2
        g_start = g_stop
        if budget <= 0:
            return g + 1
    return len(group_ends)
