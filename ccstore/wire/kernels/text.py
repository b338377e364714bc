"""Parts of kernels: bytes, eight at a time.

Nothing here looks at how far an array goes: it goes on for at least 8 bytes behind what is looked
at.
"""

import numpy as np

from ccstore.jit import inline, load_u64, trailing_zeros

NEWLINE, RETURN, SPACE, QUOTE, HASH, COMMA, MINUS, PLUS, DOT, ZERO, BACKSLASH = (
    10, 13, 32, 34, 35, 44, 45, 43, 46, 48, 92,
)  # fmt: skip
MASKS = np.array([2 ** (8 * k) - 1 for k in range(8)] + [2**64 - 1], np.uint64)
"""MASKS[k] keeps the first k bytes of a word."""
ONES, TOPS, HALF = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080), np.uint64(2**32 - 1)
ODD = np.uint64(0x9E3779B97F4A7C15)  # any number with as many ones as zeros in no order
u64 = np.uint64


@inline
def put_word(out, at, word):
    """Write eight bytes; the compiler makes one store of these."""
    for k in range(8):
        out[u64(at) + u64(k)] = np.uint8((word >> u64(8 * k)) & u64(255))


@inline
def same_bytes(a, a_start, b, b_start, length):
    """Tell whether two pieces of bytes are equal."""
    i = 0
    while i + 8 <= length:
        if load_u64(a, a_start + i) != load_u64(b, b_start + i):
            return False
        i += 8
    rest = (load_u64(a, a_start + i) ^ load_u64(b, b_start + i)) & MASKS[length - i]
    return rest == u64(0)


@inline
def product_of(word, secret):
    """Return what one word adds to the hash."""
    low = ((word & HALF) + (secret & HALF)) & HALF
    high = ((word >> u64(32)) + (secret >> u64(32))) & HALF
    return low * high


@inline
def hash_of(data, start, length, secrets):
    """Return 32 bits that depend on all bytes, at most eight for each of the secrets.

    NH (J. Black and others: UMAC, 1999): for any two texts, hardly any choice of secrets gives both
    the same hash, so nobody can make up keys that all fall into one bucket. The words do not wait
    for each other.
    """
    total, i, k = u64(length), 0, 0
    while i + 8 <= length:
        total += product_of(load_u64(data, start + i), secrets[k])
        i, k = i + 8, k + 1
    if i < length:
        total += product_of(load_u64(data, start + i) & MASKS[length - i], secrets[k])
    total = (total ^ (total >> u64(32))) * ODD
    return np.uint32(total >> u64(32))


@inline
def matches(word, byte):
    """Return a word whose lowest set bit is the highest one of the first byte that equals `byte`.

    It is 0 if none does.
    """
    differs = word ^ (u64(byte) * ONES)
    return (differs - ONES) & ~differs & TOPS


@inline
def end_of_key(data, start, stop):
    """Return where the key ends: at the first space that is not escaped, or with the line."""
    i = start
    while i < stop:
        word = load_u64(data, i)
        found = matches(word, SPACE) | matches(word, NEWLINE)
        if found == u64(0):
            i += 8
            continue
        i += np.int64(trailing_zeros(found) >> u64(3))
        if i >= stop or data[i] == NEWLINE or i == start or data[i - 1] != BACKSLASH:
            break
        i += 1
    return min(i, stop)


@inline
def end_of_line(data, start, stop):
    """Return where the line at data[start] ends: at its newline, or at `stop`."""
    i = start
    while i < stop:
        found = matches(load_u64(data, i), NEWLINE)
        if found != u64(0):
            return min(i + np.int64(trailing_zeros(found) >> u64(3)), stop)
        i += 8
    return stop


@inline
def is_plain(data, start, stop):
    """Tell whether there is only printable ASCII other than space and backslash."""
    for i in range(start, stop):
        if data[i] <= SPACE or data[i] >= 127 or data[i] == BACKSLASH:
            return False
    return True


@inline
def has_quote(data, start, stop):
    """Tell whether there is a quote."""
    for i in range(start, stop):
        if data[i] == QUOTE:
            return True
    return False
