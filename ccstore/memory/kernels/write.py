"""The kernel that writes samples."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, prefetch, slots_of
from ccstore.memory.kernels.pools import CHUNK, TABLE, changed, take, take_row
from ccstore.memory.layout import CHUNK_SLOTS, COLUMNS, ROW_SLOTS
from ccstore.model import Outcome

STORED, OVERWRITTEN = int(Outcome.STORED), int(Outcome.OVERWRITTEN)
LATE, FUTURE, LIMIT = int(Outcome.LATE), int(Outcome.FUTURE), int(Outcome.LIMIT)

u1, i4, i8, f4, number = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("f4"), types.int64


@inline
def open_chunk(columns, older, start):
    """Link a new chunk of one empty slot behind `older` (-1: none); -1 if memory is full."""
    chunks = columns.chunks
    row = take_row(columns)
    if row < 0:
        return -1
    chunk = take(chunks["older"], columns.pools, CHUNK)  # there is one for every row
    chunks[chunk]["start"] = start
    chunks[chunk]["used"] = 1
    chunks[chunk]["older"] = older
    chunks[chunk]["newer"] = -1
    chunks[chunk]["table"] = -1
    chunks[chunk]["row"] = row
    chunks[chunk]["saved"] = 0
    if older >= 0:
        chunks[older]["newer"] = chunk
    return chunk


@inline
def add_block(columns, chunk, block):
    """Give a block of a chunk its row; -1 if memory is full."""
    chunks, tables = columns.chunks, columns.tables
    row = take_row(columns)
    if row < 0:
        return -1
    table = chunks[chunk]["table"]
    if table < 0:
        table = take(tables[:, 0], columns.pools, TABLE)  # there is one for every second row
        tables[table, :] = -1
        tables[table, 0] = chunks[chunk]["row"]
        chunks[chunk]["table"] = table
    tables[table, block] = row
    return row


@inline
def row_of(columns, chunk, block):
    """Return the row of a block, -1 if nothing was ever written to it."""
    table = columns.chunks[chunk]["table"]
    if table >= 0:
        return columns.tables[table, block]
    return columns.chunks[chunk]["row"] if block == 0 else -1


@inline
def put(columns, chunk, slot, value):
    """Write one slot of a chunk and return the outcome."""
    chunks, rows = columns.chunks, columns.rows
    block, used = slot // ROW_SLOTS, chunks[chunk]["used"]
    if block == (used - 1) // ROW_SLOTS:
        row = chunks[chunk]["row"]
    else:
        row = row_of(columns, chunk, block)
        if row < 0:
            row = add_block(columns, chunk, block)
            if row < 0:
                return LIMIT
    if slot >= used:
        chunks[chunk]["used"] = slot + 1
        chunks[chunk]["row"] = row
    if slot < chunks[chunk]["saved"]:
        chunks[chunk]["saved"] = slot
    before = rows[row, slot % ROW_SLOTS]
    rows[row, slot % ROW_SLOTS] = value
    return OVERWRITTEN if before == before else STORED


@inline
def touch_ahead(columns, series, j, count):
    """Ask for the memory of later samples: their record, nearer ones' chunk, the nearest ones' row.

    Each of them is a cache miss where series come in random order. Nothing depends on it.
    """
    if j + 24 < count:
        prefetch(columns.series, max(series[j + 24], 0))
    if j + 16 < count:
        prefetch(columns.chunks, max(columns.series[max(series[j + 16], 0)]["newest"], 0))
    if j + 8 < count:
        chunk = columns.series[max(series[j + 8], 0)]["newest"]
        if chunk >= 0:
            row, slot = columns.chunks[chunk]["row"], columns.chunks[chunk]["used"]
            prefetch(columns.rows, np.int64(row) * ROW_SLOTS + slot % ROW_SLOTS)


@kernel(COLUMNS, i4, i8, f4, u1, number, number, returns=types.void)
def append(columns, series, times, values, outcomes, count, latest):
    """Write samples in order; series -1 is passed over, its outcome stands already.

    series: int32[>= count], times: int64, values: float32, outcomes: uint8, written here.
    A time beyond `latest` + 2 frequencies is in the future.
    """
    records, chunks = columns.series, columns.chunks
    for j in range(count):
        touch_ahead(columns, series, j, count)
        s = series[j]
        if s < 0:
            continue
        t, f = times[j], columns.frequency[records[s]["metric"]]
        if t > latest + 2 * f:
            outcomes[j] = FUTURE
            continue
        head = records[s]["newest"]
        chunk = head
        while chunk >= 0 and t < chunks[chunk]["start"]:
            chunk = chunks[chunk]["older"]
        if chunk < 0 and head >= 0:
            outcomes[j] = LATE
            continue
        slot = np.int64(CHUNK_SLOTS)
        if chunk >= 0:
            slot = np.int64(chunks[chunk]["used"])
            ahead = t - chunks[chunk]["start"] - slot * f
            if (
                ahead < 0 or ahead >= f
            ):  # not the next slot, as usual: a division takes longer than all the rest
                slot = (t - chunks[chunk]["start"]) // f
        if slot < CHUNK_SLOTS:
            outcomes[j] = put(columns, chunk, slot, values[j])
            continue
        if chunk != head:
            outcomes[j] = LATE  # between the last slot of an older chunk and the next one
            continue
        chunk = open_chunk(columns, head, t - f // 2)
        if chunk < 0:
            outcomes[j] = LIMIT
            continue
        records[s]["newest"] = chunk
        outcomes[j] = put(columns, chunk, 0, values[j])
        if head < 0:
            changed(columns, records[s]["place"])
