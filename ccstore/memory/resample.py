"""Thinning of values for display: from a metric's own frequency to a coarser resolution.

Functions on arrays; nothing here knows series or chunks.
"""

import numpy as np
from numpy.typing import NDArray

from ccstore.memory.kernels.resample import largest_triangles

__all__ = ["MINIMUM_POINTS", "resample"]

MINIMUM_POINTS = 1000
"""Fewer values are not thinned: a plot shows them all."""


def resample(
    values: NDArray[np.float64], frequency: int, resolution: int, *, minimum: int = MINIMUM_POINTS
) -> tuple[NDArray[np.float64], int]:
    """Thin values that are `frequency` seconds apart; return them and how far apart they are now.

    The caller has checked that a coarser resolution is a multiple of the frequency. Too few values,
    a resolution not coarser than the frequency, and one so coarse that nothing would be left return
    the values themselves. Times of picked values are lost: they are taken as equidistant, as in the
    reference store.
    """
    if resolution <= frequency:
        return values, frequency
    count = len(values) * frequency // resolution
    if count == 0 or len(values) < minimum or count >= len(values):
        return values, frequency
    out = np.empty(max(count, 2), np.float64)
    picked = largest_triangles(values, count, out)
    return out[:picked], resolution
