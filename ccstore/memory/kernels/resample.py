"""The kernel that thins values."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of

f8, number = slots_of("f8"), types.int64


@inline
def mean_point(values, first, last):
    """Return mean index and mean value of values[first:last + 1]; NaN if it is empty or has a NaN."""
    total, n = 0.0, last - first + 1
    if n < 1:
        return np.nan, np.nan
    for k in range(first, last + 1):
        total += values[k]
    return (first + last) / 2.0, total / n


@kernel(f8, number, f8)
def largest_triangles(values, count, out):
    """Pick `count` of the values by Largest Triangle, Three Buckets; returns how many were picked.

    Selection as in S. Steinarsson, Downsampling Time Series for Visual Representation (2013), 4.2,
    with the bucket bounds of the reference store: the last value but one is a candidate for a count
    of 3 only. A triangle with a NaN wins over all others, the last one of several. Fewer than 3
    values are the first and the last one, two in any case, so `out` has room for two at least.
    """
    n = len(values)
    out[0] = values[0]
    if count <= 2:
        out[1] = values[n - 1]
        return 2
    width = (n - 2) / (count - 2)
    chosen, low, middle = 0, 1, int(width) + 1
    for bucket in range(count - 2):
        high = int((bucket + 2) * width) + 1
        if high >= n - 1:
            high = n - 2
        mean_x, mean_y = mean_point(values, middle, high)
        x, y = float(chosen), values[chosen]
        largest = -1.0
        for k in range(low, middle):
            area = abs((x - k) * (mean_y - y) - (x - mean_x) * (values[k] - y)) / 2.0
            if area > largest or area != area:
                largest, chosen = area, k
        out[bucket + 1] = values[chosen]
        low, middle = middle, high
    out[count - 1] = values[n - 1]
    return count
