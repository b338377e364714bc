"""How samples lie in memory: the records, their sizes, and who points to whom.

Everything is a column of fixed-size records, addressed by int32 index, so that a million
series are a handful of arrays and no Python objects:

    place  --series-->  series  --next-->  further series of the same place
    series --newest-->  chunk   --older--> chunk --older--> ...          (and back: newer)
    chunk  --row-->     row of 32 float32                                (of its last used slot)
           --table-->   16 row indices                                   (from its second row on)

A chunk spans 512 slots but owns rows only for the blocks of 32 slots that something was
written to, so a series with a few samples costs one row and a block without samples costs nothing.
All arrays are reserved at their largest size from the start and become resident as they are
used: nothing is ever moved or copied when the store grows, hence no pause.

-1 means "none" in every index. Missing values are NaN; a row is filled with NaN when it is taken.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from ccstore.jit import slots_of

__all__ = [
    "CHUNK",
    "CHUNK_SLOTS",
    "COLUMNS",
    "DORMANT",
    "FREE",
    "FRESH",
    "NUMBER",
    "PLACE",
    "ROW_SLOTS",
    "SERIES",
    "TABLE_ROWS",
    "UNUSED",
    "USED",
    "Columns",
    "Pool",
    "reserve",
]

CHUNK_SLOTS = 512
ROW_SLOTS = 32
TABLE_ROWS = CHUNK_SLOTS // ROW_SLOTS

DORMANT = -1
"""A series' newest chunk when nothing is stored of it: it is invisible, but its id is still taken."""
UNUSED = -2
"""A series' newest chunk when the record is free."""

SERIES = np.dtype(
    [
        ("newest", "i4"),  # chunk, DORMANT or UNUSED
        ("metric", "i4"),
        ("place", "i4"),
        ("next", "i4"),  # next series of the place; of a free record: next free
    ],
    align=True,
)

PLACE = np.dtype(
    [
        ("parent", "i4"),
        ("child", "i4"),  # first child
        ("sibling", "i4"),  # next child of the parent; of a free record: next free
        ("before", "i4"),  # previous child of the parent
        ("series", "i4"),  # first series
        ("host", "i4"),  # the host this place belongs to, itself for a host, -1 above
        ("version", "i8"),  # of a host: the epoch in which a series below last appeared or vanished
        ("hash", "i8"),  # of a host: of its names, 0 to 2**32 - 1, the same at every start
    ],
    align=True,
)

CHUNK = np.dtype(
    [
        ("start", "i8"),  # s, beginning of slot 0
        ("used", "i4"),  # slots up to the last one written, 1 to CHUNK_SLOTS
        ("older", "i4"),  # of a free record: next free
        ("newer", "i4"),
        ("table", "i4"),  # -1: only block 0 has a row, and `row` is it
        ("row", "i4"),  # row of the block of the last used slot
        ("saved", "i4"),  # slots below this one are in a checkpoint, 0 to used
    ],
    align=True,
)


NUMBER = np.dtype([("file", "i4"), ("number", "i4")], align=True)
"""The number of a series in a file of the log; of the file 0, which there is not, if it has none."""


class Pool:
    """First index of `Columns.pools`: which kind of record."""

    SERIES, PLACE, CHUNK, TABLE, ROW = range(5)


FREE, FRESH, USED = range(3)
"""Second index of `Columns.pools`: first free record, first never used one, records in use."""


class Columns(NamedTuple):
    """All arrays of a store; one argument for every kernel."""

    series: NDArray[np.void]
    places: NDArray[np.void]
    chunks: NDArray[np.void]
    tables: NDArray[np.int32]
    """int32[tables, 16]: row of each block of a chunk, -1 where nothing was written."""
    rows: NDArray[np.float32]
    """float32[rows, 32]."""
    row_links: NDArray[np.int32]
    """The first element of each row as int32: links the free rows."""
    pools: NDArray[np.int64]
    """int64[5, 3], see `Pool` and `FREE`."""
    epoch: NDArray[np.int64]
    """int64[1]: how often a series appeared or vanished. Never used twice, so what was derived from
    the series of a host holds as long as the host's version is not later."""
    frequency: NDArray[np.int64]
    """int64[metrics], seconds."""
    aggregation: NDArray[np.int8]
    """int8[metrics]: 0 none, 1 sum, 2 avg."""


COLUMNS: Any = types.NamedTuple(  # type: ignore[no-untyped-call]
    [
        slots_of(SERIES),
        slots_of(PLACE),
        slots_of(CHUNK),
        slots_of("i4", dimensions=2),
        slots_of("f4", dimensions=2),
        slots_of("i4", contiguous=False),
        slots_of("i8", dimensions=2),
        slots_of("i8"),
        slots_of("i8"),
        slots_of("i1"),
    ],
    Columns,
)

_MOST = 2**31 - 1  # records that an int32 can tell apart


def reserve(
    *, frequency: NDArray[np.int64], aggregation: NDArray[np.int8], series: int, rows: int
) -> Columns:
    """Reserve address space for so many series and rows; memory is taken as it is used.

    Raises MemoryError if the system refuses to promise that much.
    """
    rows, series = min(rows, _MOST), min(series, _MOST)
    data = np.zeros((rows, ROW_SLOTS), np.float32)
    pools = np.zeros((5, 3), np.int64)
    pools[:, FREE] = -1
    return Columns(
        series=np.zeros(series, SERIES),
        # a series comes with at most a cluster, a host, a component and a subcomponent of its own
        places=np.zeros(min(4 * series + 2, _MOST), PLACE),
        # a chunk has a row and a table has two, so where there is a row there is one of these for it
        chunks=np.zeros(rows, CHUNK),
        tables=np.zeros((rows // 2 + 1, TABLE_ROWS), np.int32),
        rows=data,
        row_links=data.view(np.int32)[:, 0],
        pools=pools,
        epoch=np.zeros(1, np.int64),
        frequency=np.ascontiguousarray(frequency, np.int64),
        aggregation=np.ascontiguousarray(aggregation, np.int8),
    )
