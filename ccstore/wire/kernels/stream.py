"""The kernel that writes the changes of a stream as JSON."""

import numpy as np

from ccstore.jit import kernel, slots_of
from ccstore.wire.kernels.answers import CLOSE_LIST, OPEN_LIST, ROOM, put_fixed, put_integer
from ccstore.wire.kernels.text import COMMA

u1, i8, f8 = slots_of("u1"), slots_of("i8"), slots_of("f8")


@kernel(i8, i8, f8, u1, i8)
def encode_changes(groups, times, values, out, limbs):
    """Write ``[group,[time,...],[value,...]],...`` for columns of changes in the order of their groups.

    Values have three decimals, NaN is null. `limbs` is scratch space, see `put_huge`. Returns the bytes
    written, or -1 if `out` may be too small.
    """
    at, first, count = np.int64(0), 0, len(groups)
    while first < count:
        last = first
        while last < count and groups[last] == groups[first]:
            last += 1
        if at + ROOM + 25 * (last - first) > len(out):
            return np.int64(-1)
        if first > 0:
            out[at] = COMMA
            at += 1
        out[at] = OPEN_LIST
        at = put_integer(out, at + 1, groups[first])
        out[at], out[at + 1] = COMMA, OPEN_LIST
        at += 2
        for k in range(first, last):
            at = put_integer(out, at, times[k])
            out[at] = COMMA
            at += 1
        out[at - 1], out[at], out[at + 1] = CLOSE_LIST, COMMA, OPEN_LIST
        at += 2
        for k in range(first, last):
            if at + ROOM > len(out):
                return np.int64(-1)
            at = put_fixed(out, at, values[k], 3, limbs)
            out[at] = COMMA
            at += 1
        out[at - 1], out[at] = CLOSE_LIST, CLOSE_LIST
        at += 1
        first = last
    return at
