"""The kernels behind live streams: which series a batch touched, and what differs from what was told."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of
from ccstore.model import Outcome

STORED, OVERWRITTEN = int(Outcome.STORED), int(Outcome.OVERWRITTEN)

u1, i4, i8, f8, number = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("f8"), types.int64


@kernel(i4, u1, number, i8, number)
def mark(series, outcomes, count, stamps, tick):
    """Stamp the watched series of a batch that got a sample with the tick; returns how many samples.

    series: int32[>= count], outcomes: uint8; stamps: int64 for each series, 0 if nobody watches it.
    """
    found = 0
    for j in range(count):
        s = series[j]
        if s >= 0 and stamps[s] > 0 and (outcomes[j] == STORED or outcomes[j] == OVERWRITTEN):
            stamps[s] = tick
            found += 1
    return found


@inline
def value_at(values, first, begin, step, count, t):
    """Return the value that a row of equidistant values has at a time, NaN if none."""
    slot = (t - begin) // step
    if t < begin or slot >= count or (t - begin) % step != 0:
        return np.nan
    return values[first + slot]


@inline
def emit(out_groups, out_times, out_values, at, group, t, value):
    """Write one change; return where the next one goes."""
    out_groups[at], out_times[at], out_values[at] = group, t, value
    return at + 1


@kernel(f8, i8, i8, i8, i8, number, f8, i8, i8, i8, i8, i8, i8, f8, i8)
def tell(
    values, ends, begins, steps, groups, start,
    told, told_at, told_begins, told_steps, told_counts,
    out_groups, out_times, out_values, out_count,
):  # fmt: skip
    """Find what differs between rows that were read and what was told of them, and remember the former.

    Row g of the read is values[ends[g - 1]:ends[g]], from begins[g] on, steps[g] seconds apart, and belongs
    to the group groups[g]. Of that group, told_counts values are remembered in `told` from told_at[group]
    on, with room up to told_at[group + 1]. A change is a time, at or after `start`, and the value there,
    NaN if there is none any more; they are added behind the out_count[0] changes in the out arrays.
    Returns for how many rows there was room in `told` and in the out arrays.
    """
    first = np.int64(0)
    for g in range(len(ends)):
        group, n, begin, step = groups[g], ends[g] - first, begins[g], steps[g]
        base, n0, begin0, step0 = told_at[group], told_counts[group], told_begins[group], told_steps[group]
        at = out_count[0]
        if n > told_at[group + 1] - base or at + n + n0 > len(out_times):
            return g
        for k in range(n0):  # what is gone, or now lies between the values
            t = begin0 + k * step0
            if t >= start and told[base + k] == told[base + k]:
                now = value_at(values, first, begin, step, n, t)
                if now != now:
                    at = emit(out_groups, out_times, out_values, at, group, t, np.nan)
        for k in range(n):
            now = values[first + k]
            if now == now and now != value_at(told, base, begin0, step0, n0, begin + k * step):
                at = emit(out_groups, out_times, out_values, at, group, begin + k * step, now)
        for k in range(n):
            told[base + k] = values[first + k]
        told_begins[group], told_steps[group], told_counts[group] = begin, step, n
        out_count[0] = at
        first = ends[g]
    return len(ends)
