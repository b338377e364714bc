"""How a key cache lies in memory: its records, and who points to whom.

    bucket --> key --next--> further keys of the bucket
               key --piece--> its bytes, in consecutive pieces of 16 bytes
               key --follower--> the key that came after it the last time

As in the store, all arrays are reserved at their largest size and become resident as they are used,
so nothing is ever moved. -1 means "none" in every index.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from ccstore.jit import slots_of

__all__ = [
    "EVERYWHERE",
    "KEY",
    "KEYS",
    "MAX_KEY_BYTES",
    "MOST_PIECES",
    "NOWHERE",
    "PIECE",
    "Keys",
    "State",
    "clear",
    "reserve",
]

EVERYWHERE = -1
"""The domain of keys that name their cluster."""
NOWHERE = -2
"""A domain of which nothing is remembered."""
MAX_KEY_BYTES = 1024
"""Longer keys are parsed each time."""
PIECE = 16
MOST_PIECES = MAX_KEY_BYTES // PIECE
_AVERAGE_PIECES = 6  # 96 bytes
_FIRST_BUCKETS = 1024

KEY = np.dtype(
    [
        ("piece", "i4"),  # where its bytes begin in the arena, in units of PIECE
        ("tag", "u4"),  # the hash; names the bucket
        ("next", "i4"),  # next key of the bucket; of a free record: next free
        ("number", "i4"),  # what the key means: an id, or something negative; -1 for a free record
        ("follower", "i4"),
        ("length", "i2"),  # bytes; 0 for a free record
        ("domain", "i2"),
    ],
    align=True,
)


class State:
    """Index of `Keys.state`.

    Keys; buckets, and their number at the last doubling; first free and first fresh record; first
    fresh piece; the key that was learned last; then the first free run of pieces for each length in
    pieces.
    """

    COUNT, BUCKETS, WHOLE, FREE, FRESH, FRESH_PIECE, LATEST, FREE_PIECES = range(8)


class Keys(NamedTuple):
    """The arrays of a key cache; one argument for every kernel."""

    records: NDArray[np.void]
    buckets: NDArray[np.int32]
    """First key of each bucket."""
    arena: NDArray[np.uint8]
    """The bytes of the keys, in pieces; a free run of pieces begins with the number of the next one."""
    secrets: NDArray[np.uint64]
    """Parameters of the hash, one for each word of a key."""
    state: NDArray[np.int64]
    """See `State`."""


KEYS: Any = types.NamedTuple(  # type: ignore[no-untyped-call]
    [slots_of(KEY), slots_of("i4"), slots_of("u1"), slots_of("u8"), slots_of("i8")], Keys
)


def reserve(max_keys: int, seed: int) -> Keys:
    """Reserve address space for so many keys of 96 bytes on average."""
    max_keys = min(max_keys, 2**28)
    # one piece more: bytes are read eight at a time, also behind the last key
    pieces = max_keys * _AVERAGE_PIECES + 1
    keys = Keys(
        records=np.zeros(max_keys, KEY),
        buckets=np.zeros(2 * max_keys + _FIRST_BUCKETS, np.int32),
        arena=np.zeros(pieces * PIECE, np.uint8),
        secrets=np.random.default_rng(seed).integers(0, 2**64, MAX_KEY_BYTES // 8, np.uint64),
        state=np.zeros(State.FREE_PIECES + MOST_PIECES + 1, np.int64),
    )
    clear(keys)
    return keys


def clear(keys: Keys) -> None:
    """Make a key cache empty; memory that is resident stays so."""
    keys.records["length"][: keys.state[State.FRESH]] = 0  # as in free records, for who remembers a key
    keys.buckets[:_FIRST_BUCKETS] = -1
    keys.state[:] = 0
    keys.state[State.BUCKETS] = keys.state[State.WHOLE] = _FIRST_BUCKETS
    keys.state[State.FREE] = keys.state[State.LATEST] = -1
    keys.state[State.FREE_PIECES :] = -1
