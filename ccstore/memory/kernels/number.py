"""The kernel that gives numbers to the series of a batch and sorts its samples by shard."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.memory.layout import COLUMNS, NUMBER
from ccstore.model import Outcome

OVERWRITTEN = int(Outcome.OVERWRITTEN)  # and STORED is below it

u1, i4, i8, f4 = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("f4")
table_of = slots_of(NUMBER)


@inline
def shard_of(columns, s, file, shards):
    """Return the shard of a series, given the file that it has a number in or had one in last (0: none).

    It follows from the names of its host, so it stays, and files are counted such that they tell it.
    """
    if file > 0:
        return file % shards
    places = columns.places
    return places[places[columns.series[s]["place"]]["host"]]["hash"] % shards


@kernel(
    COLUMNS, table_of, i4, i4, i4, i8, f4, u1, types.int64, i4, i8, f4, i8, i4, i8, returns=types.void
)  # fmt: skip
def number_samples(
    columns, table, files, counts, series, times, values, outcomes, count,
    numbers, out_times, out_values, ends, fresh, fresh_ends,
):  # fmt: skip
    """Copy the samples that were stored, shard by shard, with the number of their series.

    files, counts: of each shard, the file that it writes and how many series that has named. The
    samples of shard k end at ``ends[k]``, the ids of the series that it has to name at
    ``fresh_ends[k]``, in the order of their numbers. The last two arrays come as zeros.
    """
    shards, last, shard, run = len(files), np.int32(-1), np.int64(0), np.int64(0)
    for j in range(count):  # hosts come one after another, so the last shard is often that of the next row
        s = series[j]
        if s < 0 or outcomes[j] > OVERWRITTEN:
            continue
        file = table[s]["file"]
        if file != last:
            ends[shard] += run
            shard, run = np.int64(shard_of(columns, s, file, shards)), np.int64(0)
            last = files[shard]
            if file != last:
                table[s]["file"], table[s]["number"] = last, counts[shard] + fresh_ends[shard]
                fresh_ends[shard] += 1
        run += 1
    ends[shard] += run
    rows, names = 0, 0
    for k in range(shards):
        rows, ends[k] = rows + ends[k], rows
        names, fresh_ends[k] = names + fresh_ends[k], names
    last, shard, o, unnamed = np.int32(-1), np.int64(0), ends[0], counts[0]
    for j in range(count):
        s = series[j]
        if s < 0 or outcomes[j] > OVERWRITTEN:
            continue
        file, n = table[s]["file"], table[s]["number"]
        if file != last:
            ends[shard] = o
            last, shard = file, np.int64(np.uint32(file) % np.uint32(shards))
            o, unnamed = ends[shard], counts[shard]
        numbers[o], out_times[o], out_values[o] = n, times[j], values[j]
        o += 1
        if n == unnamed:  # a series gets its number with its first sample
            fresh[fresh_ends[shard]] = s
            fresh_ends[shard] += 1
            counts[shard] += 1
            unnamed = counts[shard]
    ends[shard] = o
