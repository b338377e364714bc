"""Kernels of the key cache: find, learn, forget."""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, load_u64, prefetch, slots_of
from ccstore.wire.kernels.text import hash_of, put_word, same_bytes, u64
from ccstore.wire.layout import EVERYWHERE, KEYS, MAX_KEY_BYTES, MOST_PIECES, PIECE, State

COUNT, BUCKETS, WHOLE, FREE, FRESH = State.COUNT, State.BUCKETS, State.WHOLE, State.FREE, State.FRESH
FRESH_PIECE, LATEST, FREE_PIECES = State.FRESH_PIECE, State.LATEST, State.FREE_PIECES

text, tags_type = slots_of("u1", writable=False), slots_of("u4")
i4, i8, marks, number = slots_of("i4"), slots_of("i8"), slots_of("?"), types.int64


@inline
def bucket_of(keys, tag):
    """Return the bucket of a tag: for buckets that have been split already, one more bit counts."""
    whole = keys.state[WHOLE]
    bucket = np.int64(tag) & (2 * whole - 1)
    return bucket if bucket < keys.state[BUCKETS] else bucket - whole


@inline
def find(keys, data, start, length, tag, domain):
    """Return the key with these bytes that counts in the domain, -1 if there is none."""
    records = keys.records
    key = np.int64(keys.buckets[bucket_of(keys, tag)])
    while key >= 0:
        if records[key]["tag"] == tag and records[key]["length"] == length:
            of = records[key]["domain"]
            if (of == domain or of == EVERYWHERE) and same_bytes(
                data, start, keys.arena, np.int64(records[key]["piece"]) * PIECE, length
            ):
                return key
        key = np.int64(records[key]["next"])
    return np.int64(-1)


@inline
def look_up(keys, data, start, stop, domain):
    """Return the key data[start:stop] as `find` does; -1 also if it is empty or too long to be remembered."""
    length = stop - start
    if length < 1 or length > MAX_KEY_BYTES:
        return np.int64(-1)
    return find(keys, data, start, length, hash_of(data, start, length, keys.secrets), domain)


@inline
def split_bucket(keys):
    """Add one bucket and move to it what belongs there from the bucket it was split from."""
    records, buckets = keys.records, keys.buckets
    new, whole = keys.state[BUCKETS], keys.state[WHOLE]
    old = new - whole
    keys.state[BUCKETS] = new + 1
    key, buckets[old], buckets[new] = buckets[old], np.int32(-1), np.int32(-1)
    while key >= 0:
        after = records[key]["next"]
        bucket = bucket_of(keys, records[key]["tag"])
        records[key]["next"], buckets[bucket] = buckets[bucket], key
        key = after
    if new + 1 == 2 * whole:
        keys.state[WHOLE] = 2 * whole


@inline
def give_pieces(keys, piece, pieces):
    """Give back a run of pieces."""
    put_word(keys.arena, piece * PIECE, u64(keys.state[FREE_PIECES + pieces] + 1))
    keys.state[FREE_PIECES + pieces] = piece


@inline
def next_run(keys, piece):
    """Return the free run that follows one of the same length, -1 if it is the last."""
    return np.int64(load_u64(keys.arena, piece * PIECE)) - 1


@inline
def take_pieces(keys, pieces):
    """Take a run of pieces: a freed one, a fresh one, or a part of a longer freed one; -1 if none is left."""
    state, length = keys.state, pieces
    if state[FREE_PIECES + pieces] < 0:
        # the last piece stays: bytes are read eight at a time, also behind the last key
        if (state[FRESH_PIECE] + pieces) * PIECE < len(keys.arena):
            state[FRESH_PIECE] += pieces
            return state[FRESH_PIECE] - pieces
        while state[FREE_PIECES + length] < 0:
            length += 1
            if length > MOST_PIECES:
                return np.int64(-1)
    piece = state[FREE_PIECES + length]
    state[FREE_PIECES + length] = next_run(keys, piece)
    if length > pieces:
        give_pieces(keys, piece + pieces, length - pieces)
    return piece


@inline
def take_record(keys):
    """Take a record: a freed one, else a fresh one; -1 if none is left."""
    state = keys.state
    key = state[FREE]
    if key >= 0:
        state[FREE] = keys.records[key]["next"]
    elif state[FRESH] < len(keys.records):
        key = state[FRESH]
        state[FRESH] += 1
    return key


@inline
def give_record(keys, key):
    """Give a record back. A key whose follower it was finds length 0 there, which no line has."""
    record = keys.records[key]
    record["number"], record["length"], record["follower"] = -1, 0, -1
    record["next"], keys.state[FREE] = keys.state[FREE], key


@inline
def add_key(keys, data, start, length, tag, number, domain):
    """Add a key that is not there yet; returns it, -1 if there is no room."""
    key = take_record(keys)
    if key < 0:
        return key
    piece = take_pieces(keys, (length + PIECE - 1) // PIECE)
    if piece < 0:
        give_record(keys, key)
        return piece
    for i in range(0, length, 8):  # pieces are whole words
        put_word(keys.arena, piece * PIECE + i, load_u64(data, start + i))
    record = keys.records[key]
    record["piece"], record["tag"], record["length"], record["domain"] = piece, tag, length, domain
    record["number"], record["follower"] = number, -1
    bucket = bucket_of(keys, tag)
    record["next"], keys.buckets[bucket] = keys.buckets[bucket], key
    keys.state[COUNT] += 1
    return key


@kernel(KEYS, text, i8, i8, i4, i4, tags_type)
def learn(keys, data, starts, stops, numbers, domains, tags):
    """Add the keys data[start:stop] that are not there yet; returns for how many there was no room.

    numbers: what each key means, domains: where. `tags` is scratch space. Keys are expected to come
    back in this order.
    """
    state, buckets, records, missed = keys.state, keys.buckets, keys.records, 0
    for k in range(len(starts)):
        tags[k] = hash_of(data, starts[k], min(stops[k] - starts[k], MAX_KEY_BYTES), keys.secrets)
        prefetch(buckets, bucket_of(keys, tags[k]))
    latest = state[LATEST]
    for k in range(len(starts)):
        if k + 8 < len(starts):
            prefetch(records, max(buckets[bucket_of(keys, tags[k + 8])], 0))
        start, length = starts[k], stops[k] - starts[k]
        if length < 1 or length > MAX_KEY_BYTES or domains[k] < EVERYWHERE:
            continue
        if find(keys, data, start, length, tags[k], domains[k]) >= 0:
            continue
        key = add_key(keys, data, start, length, tags[k], numbers[k], domains[k])
        if key < 0:
            missed += 1
            continue
        if latest >= 0:
            records[latest]["follower"] = key
        latest = key
        # 4 buckets for 3 keys: a lookup meets 1.4 keys on average
        while state[BUCKETS] * 3 < state[COUNT] * 4 and state[BUCKETS] < len(buckets):
            prefetch(records, max(buckets[state[BUCKETS] - state[WHOLE] + 8], 0))
            split_bucket(keys)
    state[LATEST] = latest
    return missed


@kernel(KEYS, marks, number, number)
def forget(keys, dead, first, stop):
    """Remove keys first to stop - 1 whose id is marked in `dead`; returns how many were removed."""
    records, removed = keys.records, 0
    for key in range(first, stop):
        record = records[key]
        if record["number"] < 0 or record["number"] >= len(dead) or not dead[record["number"]]:
            continue
        bucket = bucket_of(keys, record["tag"])
        before = keys.buckets[bucket]
        if before == key:
            keys.buckets[bucket] = record["next"]
        else:
            while records[before]["next"] != key:
                before = records[before]["next"]
            records[before]["next"] = record["next"]
        give_pieces(keys, np.int64(record["piece"]), (np.int64(record["length"]) + PIECE - 1) // PIECE)
        give_record(keys, key)
        keys.state[COUNT] -= 1
        removed += 1
    return removed
