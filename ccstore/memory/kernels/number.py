"""The kernel that numbers the series of a batch and copies its samples to the pages of their shards."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.memory.layout import COLUMNS, NUMBER
from ccstore.model import Outcome

OVERWRITTEN = int(Outcome.OVERWRITTEN)  # and STORED is below it

u1, i4, i8, f4 = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("f4")
i4_pages, i8_pages, f4_pages = [slots_of(dtype, dimensions=2) for dtype in ("i4", "i8", "f4")]
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
    COLUMNS, table_of, i4, i4, i4, i8, f4, u1, types.int64, i4_pages, i8_pages, f4_pages, i8, i4
)  # fmt: skip
def number_samples(
    columns, table, files, counts, series, times, values, outcomes, count,
    numbers, out_times, out_values, ends, fresh,
):  # fmt: skip
    """Copy the samples that were stored to the page of their shard, with the number of their series.

    files, counts: of each shard, the file that it writes and how many series that has named. Shard k has
    the pages ``numbers[k]``, ``out_times[k]`` and ``out_values[k]``, used up to ``ends[k]``, with room for
    the whole batch behind that. Returns how many series got a number, whose ids are in `fresh`.
    """
    shards, found = len(files), 0
    last, shard, o = np.int32(-1), np.int64(0), ends[0]
    for j in range(count):
        s = series[j]
        if s < 0 or outcomes[j] > OVERWRITTEN:
            continue
        file = table[s]["file"]
        if file != last:  # rarely: hosts come one after another
            ends[shard] = o
            shard = np.int64(shard_of(columns, s, file, shards))
            last, o = files[shard], ends[shard]
            if file != last:  # a series gets its number with its first sample
                table[s]["file"], table[s]["number"] = last, counts[shard]
                counts[shard] += 1
                fresh[found] = s
                found += 1
        numbers[shard, o], out_times[shard, o] = table[s]["number"], times[j]
        out_values[shard, o] = values[j]
        o += 1
    ends[shard] = o
    return found
