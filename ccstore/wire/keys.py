"""The key cache: raw bytes -> an id, learned once for each spelling.

A collector repeats the same few hundred keys, that is bytes of measurement and tags, every
interval. They are parsed, checked and given an id when they are seen for the first time; from then
on one comparison of bytes finds the id. Two spellings of one series are two keys with one id. A key
without a cluster tag means another series for each default cluster, so it belongs to a *domain*;
all other keys are `EVERYWHERE`.

The cache is a hash table with chained records that grows by one bucket at a time (linear hashing,
W. Litwin 1980), so no line ever waits for a table to be rebuilt. It has no lock and one owner.
Invariant: whatever it does not know (it is full, a key is too long, the domains are too many) is
parsed again, so nothing but speed depends on it.

The same structure serves parts of keys: the names of metrics, and the tags of lines, see `scan`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ccstore.wire.kernels import keycache
from ccstore.wire.layout import EVERYWHERE, KEY, NOWHERE, PIECE, State, clear, reserve

__all__ = ["EVERYWHERE", "NOWHERE", "Forgetting", "KeyCache"]

_MAX_DOMAINS = 1000
_FORGET_STEP = 65536


class KeyCache:
    """All keys that were learned.

    max_keys: beyond so many (or less, if they are longer than 96 bytes on average), keys are not
    learned.
    seed: a number that senders cannot know, against keys made to collide.
    """

    def __init__(self, *, max_keys: int = 12_000_000, seed: int = 0) -> None:
        self.max_keys = max_keys
        self.seed = seed
        self.columns = reserve(max_keys, seed)
        self._domains: dict[str, int] = {}
        self._forgetting: Forgetting | None = None

    def __len__(self) -> int:
        return int(self.columns.state[State.COUNT])

    @property
    def bytes_used(self) -> int:
        """Bytes of memory in use, free records and pieces included."""
        state = self.columns.state
        used = state[State.FRESH] * KEY.itemsize + state[State.BUCKETS] * 4 + state[State.FRESH_PIECE] * PIECE
        return int(used)

    def domain(self, default_cluster: str) -> int:
        """Return the domain of a default cluster: NOWHERE if there are too many of them."""
        known = self._domains.get(default_cluster)
        if known is None:
            if len(self._domains) >= _MAX_DOMAINS:
                return NOWHERE
            known = self._domains[default_cluster] = len(self._domains)
        return known

    def learn(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        numbers: NDArray[np.int32],
        domains: NDArray[np.int32],
    ) -> bool:
        """Remember that the bytes data[start:stop] mean a number in a domain: an id, or something negative.

        Nothing happens for a key that is known, empty, too long, or of the domain NOWHERE. Returns
        whether there was room for all the others. `data` goes on for at least 8 bytes behind each
        key.
        """
        if self._forgetting is not None:
            self._forgetting.spare(numbers)
        tags = np.empty(len(starts), np.uint32)
        return bool(keycache.learn(self.columns, data, starts, stops, numbers, domains, tags) == 0)

    def clear(self) -> None:
        """Forget all keys."""
        assert self._forgetting is None, "a pass is under way"
        clear(self.columns)

    @contextmanager
    def forgetting(self, dead: NDArray[np.bool_]) -> Iterator["Forgetting"]:
        """Forget all keys of the ids marked in `dead`, while lines are being scanned.

        dead: bool[one for each id there is]; newer ids are not touched. An id whose key is learned
        anew before the context ends is unmarked: whoever frees the ids that are still marked within
        the context leaves no key behind.
        """
        assert self._forgetting is None, "one pass at a time"
        self._forgetting = Forgetting(self, dead)
        try:
            yield self._forgetting
        finally:
            self._forgetting = None


class Forgetting:
    """A pass over all keys, in steps of a fraction of a millisecond."""

    def __init__(self, keys: KeyCache, dead: NDArray[np.bool_]) -> None:
        self.dead = dead
        self._columns = keys.columns
        self._next = 0

    def step(self) -> bool:
        """Go on for a while; return whether the pass is done."""
        fresh = int(self._columns.state[State.FRESH])
        stop = min(self._next + _FORGET_STEP, fresh)
        keycache.forget(self._columns, self.dead, self._next, stop)
        self._next = stop
        return stop == fresh

    def spare(self, ids: NDArray[np.int32]) -> None:
        """Unmark ids that a key was just learned for."""
        known = ids[(ids >= 0) & (ids < len(self.dead))]
        self.dead[known] = False
