"""Parts that kernels share: take records from the pools, give them back, note what changed."""

import numpy as np

from ccstore.jit import inline
from ccstore.memory.layout import FREE, FRESH, ROW_SLOTS, USED, Pool

SERIES, PLACE, CHUNK, TABLE, ROW = Pool.SERIES, Pool.PLACE, Pool.CHUNK, Pool.TABLE, Pool.ROW


@inline
def take(links, pools, which):
    """Take a record: a freed one, else the next never used one; -1 if there is none left."""
    index = pools[which, FREE]
    if index >= 0:
        pools[which, FREE] = links[index]
    else:
        index = pools[which, FRESH]
        if index >= len(links):
            return -1
        pools[which, FRESH] = index + 1
    pools[which, USED] += 1
    return index


@inline
def give(links, pools, which, index):
    """Give a record back."""
    links[index] = pools[which, FREE]
    pools[which, FREE] = index
    pools[which, USED] -= 1


@inline
def take_row(columns):
    """Take a row and fill it with NaN; -1 if there is none left."""
    row = take(columns.row_links, columns.pools, ROW)
    if row >= 0:
        for slot in range(ROW_SLOTS):
            columns.rows[row, slot] = np.nan
    return row


@inline
def free_chunk(columns, chunk):
    """Give back a chunk with its table and rows; nothing may point to it any more."""
    chunks, tables = columns.chunks, columns.tables
    table = chunks[chunk]["table"]
    if table >= 0:
        for block in range(tables.shape[1]):
            if tables[table, block] >= 0:
                give(columns.row_links, columns.pools, ROW, tables[table, block])
        give(tables[:, 0], columns.pools, TABLE, table)
    else:
        give(columns.row_links, columns.pools, ROW, chunks[chunk]["row"])
    give(chunks["older"], columns.pools, CHUNK, chunk)


@inline
def changed(columns, place):
    """Note that a series of a place appeared or vanished."""
    columns.epoch[0] += 1
    host = columns.places[place]["host"]
    if host >= 0:
        columns.places[host]["version"] = columns.epoch[0]
