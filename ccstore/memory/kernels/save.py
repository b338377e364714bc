"""The kernels that copy out what is not in a checkpoint, and put back what was in one.

A chunk's slots from ``saved`` on are *unsaved*: written since a checkpoint held them. Copying moves
``saved`` to ``used``; a later write to a slot below lowers it again.
"""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.memory.kernels.pools import CHUNK, changed, take, take_row
from ccstore.memory.kernels.tree import following
from ccstore.memory.kernels.write import add_block, row_of
from ccstore.memory.layout import CHUNK_SLOTS, COLUMNS, ROW_SLOTS

i4, i8, f4, marks, number = slots_of("i4"), slots_of("i8"), slots_of("f4"), slots_of("?"), types.int64
i4_in, i8_in = slots_of("i4", writable=False), slots_of("i8", writable=False)
f4_in = slots_of("f4", writable=False)


@kernel(COLUMNS, number, i8, returns=types.void)
def count_unsaved(columns, root, totals):
    """Count the unsaved runs and their slots at and below a place, into totals[0] and totals[1]."""
    places, series, chunks = columns.places, columns.series, columns.chunks
    totals[:] = 0
    place = root
    while place >= 0:
        s = places[place]["series"]
        while s >= 0:
            chunk = series[s]["newest"]
            while chunk >= 0:
                if chunks[chunk]["saved"] < chunks[chunk]["used"]:
                    totals[0] += 1
                    totals[1] += chunks[chunk]["used"] - chunks[chunk]["saved"]
                chunk = chunks[chunk]["older"]
            s = series[s]["next"]
        place = following(places, root, place, True)


@inline
def copy_slots(columns, chunk, first, stop, out, o):
    """Copy slots [first, stop) of a chunk to ``out[o:]``, NaN where a block has no row."""
    slot = first
    while slot < stop:
        block = slot // ROW_SLOTS
        end, row = min(stop, (block + 1) * ROW_SLOTS), row_of(columns, chunk, block)
        at, within = o + slot - first, slot - block * ROW_SLOTS
        if row >= 0:
            for k in range(end - slot):
                out[at + k] = columns.rows[row, within + k]
        else:
            for k in range(end - slot):
                out[at + k] = np.nan
        slot = end


@kernel(COLUMNS, number, i4, i4, i8, i4, i4, f4)
def copy_unsaved(columns, root, ids, at_chunks, starts, firsts, counts, values):
    """Copy the unsaved runs at and below a place and mark them saved; returns how many.

    The arrays have the room that `count_unsaved` told. Runs of one series stand together, oldest first.
    """
    places, series, chunks = columns.places, columns.series, columns.chunks
    runs, o, place = 0, 0, root
    while place >= 0:
        s = places[place]["series"]
        while s >= 0:
            oldest, chunk = -1, series[s]["newest"]
            while chunk >= 0:
                if chunks[chunk]["saved"] < chunks[chunk]["used"]:
                    oldest = chunk
                chunk = chunks[chunk]["older"]
            chunk = oldest
            while chunk >= 0:
                first, stop = chunks[chunk]["saved"], chunks[chunk]["used"]
                if first < stop:
                    ids[runs], at_chunks[runs], starts[runs] = s, chunk, chunks[chunk]["start"]
                    firsts[runs], counts[runs] = first, stop - first
                    copy_slots(columns, chunk, first, stop, values, o)
                    chunks[chunk]["saved"] = stop
                    runs, o = runs + 1, o + stop - first
                chunk = chunks[chunk]["newer"]
            s = series[s]["next"]
        place = following(places, root, place, True)
    return runs


@kernel(COLUMNS, i4_in, i4_in, returns=types.void)
def mark_unsaved(columns, at_chunks, firsts):
    """Take back that slots were saved, as they did not get as far as a file.

    A chunk may have been freed since, and its record taken for another; then more is saved
    once more than has to be.
    """
    chunks = columns.chunks
    for k in range(len(at_chunks)):
        chunk = at_chunks[k]
        if firsts[k] < chunks[chunk]["saved"]:
            chunks[chunk]["saved"] = firsts[k]


@inline
def slots_before(columns, newer, start, f):
    """Return how many slots of a chunk that begins at `start` begin before the next one does (-1: none)."""
    if newer < 0:
        return np.int64(CHUNK_SLOTS)
    return min(np.int64(CHUNK_SLOTS), (columns.chunks[newer]["start"] - start + f - 1) // f)


@inline
def place_run(columns, s, start, f, first):
    """Return the chunk of a series that begins at `start`; it is made if there is room from slot `first` on.

    -1 if other samples lie there, or if memory is full.
    """
    chunks, series = columns.chunks, columns.series
    newer, chunk = -1, series[s]["newest"]
    while chunk >= 0 and chunks[chunk]["start"] > start:
        newer, chunk = chunk, chunks[chunk]["older"]
    if chunk >= 0 and chunks[chunk]["start"] == start:
        return chunk
    # as when it was first written: a chunk may begin within the last slot of the one before
    if chunk >= 0 and chunks[chunk]["start"] + f * (chunks[chunk]["used"] - 1) >= start:
        return -1
    if slots_before(columns, newer, start, f) <= first:
        return -1
    row = take_row(columns)
    if row < 0:
        return -1
    made = take(chunks["older"], columns.pools, CHUNK)
    chunks[made]["start"], chunks[made]["used"], chunks[made]["saved"] = start, 1, first
    chunks[made]["older"], chunks[made]["newer"] = chunk, newer
    chunks[made]["table"], chunks[made]["row"] = -1, row
    if chunk >= 0:
        chunks[chunk]["newer"] = made
    if newer >= 0:
        chunks[newer]["older"] = made
    else:
        if series[s]["newest"] < 0:
            changed(columns, series[s]["place"])
        series[s]["newest"] = made
    return made


@inline
def fill_slots(columns, chunk, first, count, values, o):
    """Write ``values[o:o + count]`` into slots, NaN included; False if memory is full."""
    chunks, rows = columns.chunks, columns.rows
    slot, stop = first, first + count
    while slot < stop:
        block = slot // ROW_SLOTS
        end, row = min(stop, (block + 1) * ROW_SLOTS), row_of(columns, chunk, block)
        at, within = o + slot - first, slot - block * ROW_SLOTS
        some = row >= 0 or end == stop  # the block of the last slot has a row in any case
        k = 0
        while k < end - slot and not some:
            some = values[at + k] == values[at + k]
            k += 1
        if some:
            if row < 0:
                row = add_block(columns, chunk, block)
                if row < 0:
                    return False
            for k in range(end - slot):
                rows[row, within + k] = values[at + k]
            if end > chunks[chunk]["used"]:
                chunks[chunk]["used"], chunks[chunk]["row"] = end, row
        slot = end
    return True


@kernel(COLUMNS, i4_in, i8_in, i4_in, i4_in, f4_in, marks)
def restore(columns, ids, starts, firsts, counts, values, placed):
    """Put runs back that a checkpoint holds, on their own grid, as saved slots.

    What was in these slots is replaced. ``placed[r]`` tells whether all of run r is there: it is not for
    series -1, where memory is full, and where other samples lie in the way. In front of a later chunk
    its first slots are put back then too, as samples in front of all chunks would be refused.
    Returns how many slots were placed.
    """
    chunks, o, total = columns.chunks, 0, 0
    for r in range(len(ids)):
        s, first, count, chunk = ids[r], firsts[r], counts[r], -1
        placed[r] = False
        if s >= 0 and first >= 0 and count >= 1 and first + count <= CHUNK_SLOTS:
            f = columns.frequency[columns.series[s]["metric"]]
            chunk = place_run(columns, s, starts[r], f, first)
        if chunk >= 0:
            room = slots_before(columns, chunks[chunk]["newer"], starts[r], f) - first
            placed[r] = fill_slots(columns, chunk, first, min(room, count), values, o) and room >= count
            saved = chunks[chunk]["saved"]
            if placed[r] and first <= saved < first + count:
                saved = first + count
            chunks[chunk]["saved"] = min(saved, chunks[chunk]["used"])
            total += count if placed[r] else 0
        o += count
    return total
