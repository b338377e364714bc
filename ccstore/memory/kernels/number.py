"""The kernel that gives numbers to the series of a batch and sorts its samples by shard."""

from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.memory.layout import COLUMNS, NUMBER
from ccstore.model import Outcome

OVERWRITTEN = int(Outcome.OVERWRITTEN)  # and STORED is below it

u1, i4, i8, f4 = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("f4")
table_of = slots_of(NUMBER)


@inline
def shard_of(places, host, shards):
    """Return the shard of a host, given its place: it follows from its names, so it stays."""
    return places[host]["hash"] % shards


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
    shards, places = len(files), columns.places
    for j in range(count):
        s = series[j]
        if s < 0 or outcomes[j] > OVERWRITTEN:
            continue
        shard = shard_of(places, places[columns.series[s]["place"]]["host"], shards)
        ends[shard] += 1
        if table[s]["file"] != files[shard]:
            table[s]["file"], table[s]["number"] = files[shard], counts[shard] + fresh_ends[shard]
            fresh_ends[shard] += 1
    rows, names = 0, 0
    for shard in range(shards):
        rows, ends[shard] = rows + ends[shard], rows
        names, fresh_ends[shard] = names + fresh_ends[shard], names
    for j in range(count):
        s = series[j]
        if s < 0 or outcomes[j] > OVERWRITTEN:
            continue
        shard = shard_of(places, places[columns.series[s]["place"]]["host"], shards)
        n, o = table[s]["number"], ends[shard]
        numbers[o], out_times[o], out_values[o] = n, times[j], values[j]
        ends[shard] = o + 1
        if n == counts[shard]:  # a series gets its number with its first sample
            fresh[fresh_ends[shard]] = s
            fresh_ends[shard] += 1
            counts[shard] += 1
