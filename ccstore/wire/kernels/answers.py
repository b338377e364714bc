"""The kernel that writes the rows of answers as JSON.

Eight digits are made at once, side by side in a word, and written with one store: no loop, no
table, and no branch that depends on how many digits a number has.
"""

import math

import numpy as np

from ccstore.jit import inline, kernel, slots_of, trailing_zeros
from ccstore.wire.kernels.text import COMMA, DOT, MASKS, MINUS, put_word, u64

OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = 123, 125, 91, 93
DATA = np.frombuffer(b'"data":[', np.uint64)[0]
NULL = np.frombuffer(b"null,\0\0\0", np.uint64)[0]
NAME_TEXTS = (b'"from":', b',"to":', b',"resolution":', b',"avg":', b',"min":', b',"max":')
NAMES = np.frombuffer(b"".join(name.ljust(16) for name in NAME_TEXTS), np.uint64).reshape(-1, 2).copy()
NAME_LENGTHS = np.array([len(name) for name in NAME_TEXTS])
ZEROS = np.uint64(0x3030303030303030)
EIGHT = np.uint64(10**8)
LIMBS = 40
"""Room for the digits of any float64, eight each."""
ROOM = 1600
"""A value with its comma, or the end of a row, never needs more bytes than this."""

u1, i8, f8, text = slots_of("u1"), slots_of("i8"), slots_of("f8"), slots_of("u1", writable=False)
i8_rows, f8_rows = slots_of("i8", dimensions=2), slots_of("f8", dimensions=2)


@inline
def eight_digits(number):
    """Return the digits of a number below 10**8 as bytes 0 to 9, the first one lowest.

    Each step splits all parts in two: a multiplication and a shift divide by 100 or by 10.
    """
    high = number // u64(10_000)
    fours = high | ((number - high * u64(10_000)) << u64(32))
    high = ((fours * u64(10_486)) >> u64(20)) & u64(0x0000007F0000007F)
    twos = high | ((fours - high * u64(100)) << u64(16))
    high = ((twos * u64(103)) >> u64(10)) & u64(0x000F000F000F000F)
    return high | ((twos - high * u64(10)) << u64(8))


@inline
def put_short(out, at, number):
    """Write a number below 10**8; return where it ends, as all of these do."""
    digits = eight_digits(number)
    skipped = trailing_zeros(digits | u64(1 << 56)) & u64(0x38)  # bits of leading zeros, the last digit stays
    put_word(out, at, (digits + ZEROS) >> skipped)
    return at + 8 - np.int64(skipped >> u64(3))


@inline
def put_eight(out, at, number):
    """Write a number below 10**8 with leading zeros."""
    put_word(out, at, eight_digits(number) + ZEROS)
    return at + 8


@inline
def put_whole(out, at, whole):
    """Write a uint64."""
    if whole < EIGHT:
        return put_short(out, at, whole)
    high = whole // EIGHT
    if high < EIGHT:
        at = put_short(out, at, high)
    else:
        at = put_short(out, at, high // EIGHT)
        at = put_eight(out, at, high % EIGHT)
    return put_eight(out, at, whole % EIGHT)


@inline
def put_integer(out, at, value):
    """Write an int64."""
    if value < 0:
        out[at] = MINUS
        return put_whole(out, at + 1, u64(-value))
    return put_whole(out, at, u64(value))


@inline
def put_huge(out, at, value, limbs):
    """Write a whole number of 2**63 or more, exactly; `limbs` has room for its digits, eight each."""
    mantissa, exponent = math.frexp(value)
    rest, shift, used = u64(mantissa * 2.0**53), exponent - 53, 0
    while rest > u64(0):
        limbs[used] = np.int64(rest % EIGHT)
        rest, used = rest // EIGHT, used + 1
    while shift > 0:
        bits = min(shift, 32)
        carry = u64(0)
        for k in range(used):
            carry += u64(limbs[k]) << u64(bits)
            limbs[k] = np.int64(carry % EIGHT)
            carry //= EIGHT
        while carry > u64(0):
            limbs[used] = np.int64(carry % EIGHT)
            carry, used = carry // EIGHT, used + 1
        shift -= bits
    at = put_short(out, at, u64(limbs[used - 1]))
    for k in range(used - 2, -1, -1):
        at = put_eight(out, at, u64(limbs[k]))
    return at


@inline
def fraction_of(part, scale):
    """Return part * scale, for a part below 1, as a whole number: the exact product rounded, ties to even."""
    near = part * scale
    whole = np.int64(near)
    rest = near - float(whole)
    up = rest > 0.5
    if rest == 0.5:
        # what `near` is off by, as T. Dekker (1971) splits a product
        high = 134217729.0 * part
        high = high - (high - part)
        off = (high * scale - near) + (part - high) * scale
        up = off > 0.0 or (off == 0.0 and whole % 2 == 1)
    return u64(whole) + u64(up)


@inline
def put_fixed(out, at, value, decimals, limbs):
    """Write a number with so many decimals: the exact value rounded, ties to even. NaN is null."""
    if not abs(value) < np.inf:
        put_word(out, at, NULL)
        return at + 4
    scale = 1000.0 if decimals == 3 else 100.0
    out[at] = MINUS
    at += np.int64(np.signbit(value))
    value = abs(value)
    whole, fraction = u64(0), u64(0)
    if value < 9223372036854775808.0:
        whole = u64(np.int64(value))
        fraction = fraction_of(value - float(whole), scale)
        number = whole * u64(scale) + fraction
        if whole < u64(99_999):  # all digits at once
            digits, bits = eight_digits(number), u64(8 * (8 - decimals))
            head = digits & MASKS[8 - decimals]
            skipped = trailing_zeros(head | (u64(1) << (bits - u64(8)))) & u64(0x38)
            head = (head + (ZEROS & MASKS[8 - decimals])) | (u64(DOT) << bits)
            put_word(out, at, head >> skipped)
            at += 9 - decimals - np.int64(skipped >> u64(3))
            put_word(out, at, (digits + ZEROS) >> bits)
            return at + decimals
        if fraction == u64(scale):
            whole, fraction = whole + u64(1), u64(0)
        at = put_whole(out, at, whole)
    else:
        at = put_huge(out, at, value, limbs)
    out[at] = DOT
    put_word(out, at + 1, (eight_digits(fraction) + ZEROS) >> u64(8 * (8 - decimals)))
    return at + 1 + decimals


@inline
def put_name(out, at, k):
    """Write the name of a number of a row."""
    put_word(out, at, NAMES[k, 0])
    put_word(out, at + 8, NAMES[k, 1])
    return at + NAME_LENGTHS[k]


@inline
def put_row(out, at, note, values, pad, integers, stats, limbs):
    """Write one result object: the note, `pad` nulls and the values, then the six numbers.

    Returns -1 if `out` may be too small.
    """
    limit = len(out) - ROOM
    if at + len(note) + pad * 5 > limit:
        return np.int64(-1)
    out[at] = OPEN
    at += 1
    for byte in note:
        out[at] = byte
        at += 1
    if pad + len(values) > 0:
        put_word(out, at, DATA)
        at += 8
        for _ in range(pad):
            put_word(out, at, NULL)
            at += 5
        for value in values:
            if at > limit:
                return np.int64(-1)
            at = put_fixed(out, at, value, 3, limbs)
            out[at] = COMMA
            at += 1
        out[at - 1], out[at] = CLOSE_LIST, COMMA
        at += 1
    if at > limit:
        return np.int64(-1)
    for k in range(3):
        at = put_integer(out, put_name(out, at, k), integers[k])
    for k in range(3):
        at = put_fixed(out, put_name(out, at, 3 + k), stats[k], 2, limbs)
    out[at] = CLOSE
    return at + 1


@kernel(f8, i8, i8_rows, f8_rows, i8, i8, text, i8, u1, i8, i8)
def encode_rows(values, ends, integers, stats, pads, queries, notes, note_ends, out, limbs, progress):
    """Write result objects as JSON into their lists, one list for each query.

    Row g has values[ends[g - 1]:ends[g]], pads[g] nulls in front of them, from, to and resolution
    in integers[g], average, minimum and maximum in stats[g], and belongs into the list of query
    queries[g]. If it has a note, notes[note_ends[g - 1]:note_ends[g]], that comes first and instead
    of values. With pads[g] == -1 it has no object. `progress` is the list that is open (-1: none
    yet) and whether it has an object; it goes on with the next rows. `limbs` is scratch space.

    Returns the bytes written, or -1 and `progress` as it was if `out` may be too small.
    """
    at = first = note_first = 0
    opened, filled = progress[0], progress[1]
    for g in range(len(ends)):
        if at + 3 * (queries[g] - opened) + ROOM > len(out):
            return -1
        while opened < queries[g]:
            if opened >= 0:
                out[at], out[at + 1] = CLOSE_LIST, COMMA
                at += 2
            out[at] = OPEN_LIST
            at, opened, filled = at + 1, opened + 1, 0
        if pads[g] >= 0:
            if filled:
                out[at] = COMMA
                at += 1
            filled = 1
            note, part, pad = notes[note_first : note_ends[g]], values[first : ends[g]], pads[g]
            if len(note) > 0:
                part, pad = values[first:first], np.int64(0)
            at = put_row(out, at, note, part, pad, integers[g], stats[g], limbs)
            if at < 0:
                return -1
        first, note_first = ends[g], note_ends[g]
    progress[0], progress[1] = opened, filled
    return at
