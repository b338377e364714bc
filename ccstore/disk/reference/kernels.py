"""The compiled loops of the reference's log: encode records, decode records.

What names a series in a record, its *identity*, lies between the time and the value: the length of the
metric's name, the name, the number of places below the host, and each of these with its length. It is the
same bytes in each record of a series, so it is copied and compared eight bytes at a time and never taken
apart here. A record has eight bytes behind its identity, so whole words may be read and written up to the
last byte of it.

Owns the order of bytes within a record and the checksum. Invariant: no byte outside of a record is written,
and none behind the end of the data is read, whatever they hold.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from ccstore.disk.reference.checkpoint import MAX_DEPTH
from ccstore.jit import inline, kernel, load_u64, slots_of

AROUND = 24
"""Bytes of a record in front of its identity (magic, length, time) and behind it (value, checksum)."""
SMALLEST, LARGEST = 15, 1 << 20
"""Bytes of payload: of an empty name without places, and what readers accept."""
MAGIC = 0xCC1DA7A1
NAN = 0x7FC00000

DONE, GROW, BAD_MAGIC, BAD_LENGTH, SHORT, BAD_CHECKSUM, BAD_SHAPE = range(7)
"""Why `decode` stopped: nothing is left, more room is needed, or what is wrong with the record."""


def _tables() -> NDArray[np.uint32]:
    """Return uint32[8, 256]: what a byte adds to the checksum, by how many bytes follow it in its word."""
    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = np.where(first & 1, (first >> 1) ^ np.uint32(0xEDB88320), first >> 1)
    tables = [first]
    for _ in range(7):
        tables.append(first[tables[-1] & 255] ^ (tables[-1] >> 8))
    return np.array(tables, np.uint32)


TABLES = _tables()
MASKS = np.array([2 ** (8 * k) - 1 for k in range(8)], np.uint64)
BYTE, HALF, ALL = np.uint64(255), np.uint64(2**32 - 1), np.uint32(2**32 - 1)
u64 = np.uint64

bytes_in, i4_in, i8_in = (slots_of(t, writable=False) for t in ("u1", "i4", "i8"))
u4_in = slots_of("u4", writable=False)
u1, i4, i8, u4, number = slots_of("u1"), slots_of("i4"), slots_of("i8"), slots_of("u4"), types.int64


@inline
def add_word(crc, word):
    """Go on with a checksum over eight bytes (slicing by 8, M. Kounavis and F. Berry 2005)."""
    word = word ^ u64(crc)
    return (
        TABLES[7, word & BYTE]
        ^ TABLES[6, (word >> u64(8)) & BYTE]
        ^ TABLES[5, (word >> u64(16)) & BYTE]
        ^ TABLES[4, (word >> u64(24)) & BYTE]
        ^ TABLES[3, (word >> u64(32)) & BYTE]
        ^ TABLES[2, (word >> u64(40)) & BYTE]
        ^ TABLES[1, (word >> u64(48)) & BYTE]
        ^ TABLES[0, word >> u64(56)]
    )


@inline
def add_half(crc, word):
    """Go on with a checksum over four bytes."""
    word = (word ^ u64(crc)) & HALF
    return (
        TABLES[3, word & BYTE]
        ^ TABLES[2, (word >> u64(8)) & BYTE]
        ^ TABLES[1, (word >> u64(16)) & BYTE]
        ^ TABLES[0, word >> u64(24)]
    )


@inline
def add_bytes(crc, word, count):
    """Go on with a checksum over the first `count` bytes of a word, at most 7."""
    if count >= 4:
        crc = add_half(crc, word)
        word, count = word >> u64(32), count - 4
    for _ in range(count):
        crc = TABLES[0, (u64(crc) ^ word) & BYTE] ^ (crc >> np.uint32(8))
        word = word >> u64(8)
    return crc


@inline
def checksum(data, start, stop):
    """Return the CRC-32 of data[start:stop], which goes on for at least 4 bytes behind."""
    crc, i = ALL, start
    while i + 8 <= stop:
        crc = add_word(crc, load_u64(data, i))
        i += 8
    if i + 4 <= stop:
        crc = add_half(crc, load_u64(data, i))
        i += 4
    while i < stop:
        crc = TABLES[0, (u64(crc) ^ u64(data[i])) & BYTE] ^ (crc >> np.uint32(8))
        i += 1
    return crc ^ ALL


@inline
def put_word(out, at, word):
    """Write eight bytes; the compiler makes one store of these."""
    for k in range(8):
        out[u64(at) + u64(k)] = np.uint8((word >> u64(8 * k)) & BYTE)


@inline
def one_nan(bits):
    """Return the bits of a value, the same ones for every NaN."""
    return u64(NAN) if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) else u64(bits)


@inline
def put_record(out, at, arena, start, size, time, bits):
    """Write the record of a sample whose series has the identity arena[start:start + size]."""
    put_word(out, at, u64(MAGIC) | (u64(size + 12) << u64(32)))
    put_word(out, at + 8, time)
    crc = add_word(ALL, time)
    at, i = at + 16, 0
    while i + 8 <= size:
        word = load_u64(arena, start + i)
        put_word(out, at + i, word)
        crc = add_word(crc, word)
        i += 8
    word = load_u64(arena, start + i)
    put_word(out, at + i, word)  # what is too much lies where value and checksum go
    crc = add_half(add_bytes(crc, word, size - i), bits) ^ ALL
    put_word(out, at + size, bits | (u64(crc) << u64(32)))


@kernel(i4_in, i4_in, i4_in, i8, returns=types.void)
def measure(numbers, sizes, hosts, room):
    """Add the bytes of the record of each sample to its host's `room`.

    numbers: int32[samples]; sizes, hosts: int32[series], bytes of the identity and host of a series.
    """
    for s in numbers:
        room[hosts[s]] += sizes[s] + AROUND


@kernel(i4_in, i8_in, u4_in, bytes_in, i8_in, i4_in, i4_in, i8, u1, returns=types.void)
def encode(numbers, times, bits, arena, starts, sizes, hosts, ends, out):
    """Write the record of each sample behind what its host has.

    numbers, times, bits (of the values): one for each sample; arena: the identities of all series, which goes
    on for 8 bytes behind the last one; starts, sizes, hosts: of each series; ends: int64[hosts], where the
    host's next record goes, moved on here.
    """
    for j in range(len(numbers)):
        s = numbers[j]
        at, size = ends[hosts[s]], np.int64(sizes[s])
        put_record(out, at, arena, starts[s], size, u64(times[j]), one_nan(bits[j]))
        ends[hosts[s]] = at + size + AROUND


class State:
    """Index of the state of `decode`: next byte, samples and series so far, series of the latest sample."""

    AT, SAMPLES, SERIES, LATEST = range(4)


AT, SAMPLES, SERIES, LATEST = State.AT, State.SAMPLES, State.SERIES, State.LATEST


@inline
def same_bytes(data, a, b, size):
    """Tell whether two identities in the data are equal."""
    i = 0
    while i + 8 <= size:
        if load_u64(data, a + i) != load_u64(data, b + i):
            return False
        i += 8
    return ((load_u64(data, a + i) ^ load_u64(data, b + i)) & MASKS[size - i]) == u64(0)


@inline
def has_shape(data, start, size):
    """Tell whether an identity is what its lengths say, to the byte, and not too deep."""
    at = 2 + np.int64(data[start]) + (np.int64(data[start + 1]) << 8)
    if at >= size:
        return False
    parts = data[start + at]
    if parts > MAX_DEPTH:
        return False
    at += 1
    for _ in range(parts):
        if at >= size:
            return False
        at += 1 + np.int64(data[start + at])
    return at == size


@inline
def bucket_of(table, tag):
    """Return the bucket where the search for a tag begins."""
    return np.int64(tag) & (len(table) - 1)


@inline
def find(data, start, size, tag, table, starts, sizes, tags):
    """Return the bucket of the series with this identity, or the free one where it belongs."""
    bucket = bucket_of(table, tag)
    while table[bucket] >= 0:
        s = table[bucket]
        if tags[s] == tag and sizes[s] == size and same_bytes(data, starts[s], start, size):
            break
        bucket = (bucket + 1) & (len(table) - 1)
    return bucket


@inline
def check(data, at):
    """Return what is wrong with the record at data[at], DONE if nothing is."""
    left = len(data) - at
    if left < 12 + SMALLEST:
        return SHORT if left < 4 or (load_u32(data, at) == u64(MAGIC)) else BAD_MAGIC
    if load_u32(data, at) != u64(MAGIC):
        return BAD_MAGIC
    size = np.int64(load_u32(data, at + 4))
    if size < SMALLEST or size > LARGEST:
        return BAD_LENGTH
    if left < size + 12:
        return SHORT
    if u64(checksum(data, at + 8, at + 8 + size)) != load_u32(data, at + 8 + size):
        return BAD_CHECKSUM
    return DONE


@inline
def load_u32(data, at):
    """Return four bytes as a number."""
    word = u64(data[at]) | (u64(data[at + 1]) << u64(8)) | (u64(data[at + 2]) << u64(16))
    return word | (u64(data[at + 3]) << u64(24))


@kernel(bytes_in, i4, i8, i4, u4, i4, i4, i8, u4, i8)
def decode(data, table, starts, sizes, tags, followers, numbers, times, bits, state):
    """Read records from data[state[AT]] on, and give each new identity the next number.

    table: int32[power of two], a hash table of series with open addressing, -1 where free; starts, sizes,
    tags, followers: of each series, where its identity first stood, its bytes, its checksum, and the series
    that came after it the last time; numbers, times, bits: room for all samples that the data may hold.

    Returns why it stopped. After GROW it goes on once there is more room for series.
    """
    while state[AT] < len(data):
        at = state[AT]
        wrong = check(data, at)
        if wrong != DONE:
            return wrong
        start, size = at + 16, np.int64(load_u32(data, at + 4)) - 12
        latest = state[LATEST]
        s = np.int64(followers[latest]) if latest >= 0 else np.int64(-1)
        if s < 0 or sizes[s] != size or not same_bytes(data, starts[s], start, size):
            tag = checksum(data, start, start + size)
            bucket = find(data, start, size, tag, table, starts, sizes, tags)
            s = np.int64(table[bucket])
            if s < 0:
                if not has_shape(data, start, size):
                    return BAD_SHAPE
                s = state[SERIES]
                if s == len(starts):
                    return GROW
                starts[s], sizes[s], tags[s], followers[s] = start, size, tag, -1
                table[bucket] = s
                state[SERIES] = s + 1
            if latest >= 0:
                followers[latest] = s
        k = state[SAMPLES]
        numbers[k] = s
        times[k] = np.int64(load_u64(data, at + 8))
        bits[k] = np.uint32(load_u32(data, start + size))
        state[SAMPLES], state[LATEST], state[AT] = k + 1, s, start + size + 8
    return DONE


@kernel(i4, u4_in, number, returns=types.void)
def fill_table(table, tags, count):
    """Enter the first `count` series into a table that is free."""
    for s in range(count):
        bucket = bucket_of(table, tags[s])
        while table[bucket] >= 0:
            bucket = (bucket + 1) & (len(table) - 1)
        table[bucket] = s
