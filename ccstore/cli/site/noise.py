"""Noise that needs no memory: a number for each place and time, the same in every process.

Owns a hash and what is made of it. Invariant: a value depends on its key and its time alone, so
any moment can be computed without the moments before it, in any order and by anybody.

The hash is lowbias32 of Chris Wellons' "Hash prospector": two multiplications, with no pattern that a plot
would show.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["make_keys", "noise", "wobble"]

Keys = NDArray[np.uint32]
Floats = NDArray[np.float64]

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def _scramble(x: Keys) -> Keys:
    """Hash in place."""
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    x ^= x >> 16
    return x


def make_keys(*shape: int, seed: int) -> Keys:
    """Return a key for each of `shape` things."""
    start = np.full(1, seed & _MASK, np.uint32)
    order = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(_GOLDEN)
    return _scramble(order ^ _scramble(start)).reshape(shape)


def noise(keys: Keys, time: int) -> Floats:
    """Return a number in [0, 1) for each key; the next time has another one, independent of this."""
    return _scramble(keys ^ np.uint32(time * _GOLDEN & _MASK)).astype(np.float64) * 2.0**-32


def wobble(keys: Keys, time: int, *, period: int) -> Floats:
    """Return a number in [0, 1) for each key that changes smoothly, in about `period` seconds."""
    step, rest = divmod(time, period)
    share = rest / period
    share *= share * (3.0 - 2.0 * share)
    before, after = noise(keys, step), noise(keys, step + 1)
    return before + (after - before) * share
