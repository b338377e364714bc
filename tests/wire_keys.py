"""What tests do with a key cache: learn, find, forget, and look at how it lies in memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from ccstore.wire.kernels import keycache
from ccstore.wire.keys import KeyCache
from ccstore.wire.layout import MOST_PIECES, PIECE, State

Learned = tuple[bytes, int, int]
"""Bytes, number, domain."""


def learn(cache: KeyCache, learned: Sequence[Learned], junk: bytes = b"\xff" * 8) -> None:
    """Learn keys that lie in one buffer with junk between them."""
    data = b"".join(junk + key for key, _, _ in learned) + junk
    sizes = np.array([len(key) for key, _, _ in learned], np.int64)
    stops = np.cumsum(sizes + len(junk))
    numbers = np.array([number for _, number, _ in learned], np.int32)
    domains = np.array([domain for _, _, domain in learned], np.int32)
    cache.learn(np.frombuffer(data, np.uint8), stops - sizes, stops, numbers, domains)


def find(cache: KeyCache, key: bytes, domain: int = 0) -> int | None:
    """Return what a key means in a domain, as a line would find it."""
    data = np.frombuffer(b"abc" + key + b"\xee" * 8, np.uint8)
    found = keycache.look_up(cache.columns, data, 3, 3 + len(key), domain)
    return None if found < 0 else int(cache.columns.records[found]["number"])


def forget(cache: KeyCache, dead: np.ndarray) -> None:
    """Forget all keys of some ids."""
    with cache.forgetting(dead) as forgetting:
        while not forgetting.step():
            pass


def chain(follow: Callable[[int], int], first: int) -> Iterator[int]:
    """Follow links to the end; a loop is an error."""
    seen = set()
    while first >= 0:
        assert first not in seen
        seen.add(first)
        yield first
        first = int(follow(first))


def check_structure(cache: KeyCache) -> None:
    """Check that every record and piece is in one place, and every key in its bucket."""
    columns = cache.columns
    state, records = columns.state, columns.records
    live = []
    for bucket in range(int(state[State.BUCKETS])):
        for key in chain(records["next"].item, int(columns.buckets[bucket])):
            assert bucket == keycache.bucket_of(columns, records[key]["tag"])
            live.append(key)
    free = list(chain(records["next"].item, int(state[State.FREE])))
    assert sorted(live + free) == list(range(int(state[State.FRESH])))
    assert len(live) == len(cache)
    assert all(records[key]["length"] == 0 for key in free)
    pieces = []
    for key in live:
        first, size = int(records[key]["piece"]), -(-int(records[key]["length"]) // PIECE)
        pieces += range(first, first + size)
    for size in range(1, MOST_PIECES + 1):
        for first in chain(partial(keycache.next_run, columns), int(state[State.FREE_PIECES + size])):
            pieces += range(first, first + size)
    assert sorted(pieces) == list(range(int(state[State.FRESH_PIECE])))
