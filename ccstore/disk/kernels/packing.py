"""Kernels: whole numbers as few bytes, and back.

A varint is the LEB128 of protocol buffers and DWARF: seven bits a byte, the low ones first, the
high bit set on all bytes but the last. Packed bits follow each other from the lowest bit of the first byte.
"""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of

__all__ = [
    "VARINT_BYTES",
    "join_planes",
    "measure_runs",
    "pack_bits",
    "read_deltas",
    "read_offsets",
    "read_runs",
    "write_varints",
]

VARINT_BYTES = 10
"""The longest varint of 64 bits."""

_NUMBERS = slots_of("u8")
_BYTES = slots_of("u1")
_INTEGERS = slots_of("i8")
_WORDS = slots_of("u4")
_READ_NUMBERS = slots_of("u8", writable=False)
_READ_BYTES = slots_of("u1", writable=False)

_SEVEN = np.uint64(7)
_EIGHT = np.uint64(8)
_LOW_SEVEN = np.uint64(0x7F)
_LOW_EIGHT = np.uint64(0xFF)
_MORE = np.uint64(0x80)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@kernel(_READ_NUMBERS, _BYTES)
def write_varints(numbers, out):
    """Write numbers; returns how many bytes that took, at most `VARINT_BYTES` each."""
    at = 0
    for i in range(len(numbers)):
        rest = numbers[i]
        while rest > _LOW_SEVEN:
            out[at] = np.uint8((rest & _LOW_SEVEN) | _MORE)
            rest >>= _SEVEN
            at += 1
        out[at] = np.uint8(rest)
        at += 1
    return at


@inline
def read_varint(data, at):
    """Return the number that begins there, and where it ends; -1 if it is cut or beyond 64 bits."""
    number, shift, size = _ZERO, 0, len(data)
    while at < size and shift <= 63:
        byte = np.uint64(data[at])
        if shift == 63 and byte > _ONE:
            return number, -1
        number |= (byte & _LOW_SEVEN) << np.uint64(shift)
        at += 1
        if byte <= _LOW_SEVEN:
            return number, at
        shift += 7
    return number, -1


@inline
def signed(number):
    """Return the integer that has this number in 0, -1, 1, -2, 2 ..."""
    return np.int64(number >> _ONE) ^ -np.int64(number & _ONE)


@kernel(_READ_BYTES, _INTEGERS, _INTEGERS, returns=types.boolean)
def read_deltas(data, out, bounds):
    """Read integers of which each is coded as its difference from the one before.

    bounds: the lowest and the highest one so far. False if they are not as many as `out` has room for.
    """
    at, last = 0, np.int64(0)
    for k in range(len(out)):
        number, at = read_varint(data, at)
        if at < 0:
            return False
        last += signed(number)
        out[k] = last
        bounds[0], bounds[1] = min(bounds[0], last), max(bounds[1], last)
    return at == len(data)


@kernel(_READ_BYTES, types.int64)
def measure_runs(data, most):
    """Return how many integers some runs are; -1 if they are malformed, or more than `most`."""
    number, at = read_varint(data, 0)
    total = np.int64(0)
    if at < 0 or at == len(data):
        return -1
    while at < len(data):
        number, at = read_varint(data, at)
        if at < 0:
            return -1
        number, at = read_varint(data, at)
        if at < 0 or number < _ONE or number > np.uint64(most - total):
            return -1
        total += np.int64(number)
    return total


@kernel(_READ_BYTES, _INTEGERS, _INTEGERS, returns=types.void)
def read_runs(data, out, bounds):
    """Read the integers of runs, as many as `measure_runs` said."""
    number, at = read_varint(data, 0)
    step, first, k = signed(number), np.int64(0), 0
    while at < len(data):
        number, at = read_varint(data, at)
        first += signed(number)
        number, at = read_varint(data, at)
        value = first
        for _ in range(np.int64(number)):
            out[k] = value
            bounds[0], bounds[1] = min(bounds[0], value), max(bounds[1], value)
            value += step
            k += 1


@kernel(_READ_NUMBERS, types.int64, _BYTES)
def pack_bits(numbers, width, out):
    """Write the low `width` (0 to 56) bits of each number; returns how many bytes that took."""
    at, held, waiting = 0, 0, _ZERO
    for i in range(len(numbers)):
        waiting |= numbers[i] << np.uint64(held)
        held += width
        while held >= 8:
            out[at] = np.uint8(waiting & _LOW_EIGHT)
            waiting >>= _EIGHT
            held -= 8
            at += 1
    if held > 0:
        out[at] = np.uint8(waiting)
        at += 1
    return at


@kernel(_READ_BYTES, types.int64, types.int64, _INTEGERS, _INTEGERS, returns=types.void)
def read_offsets(data, lowest, width, out, bounds):
    """Read integers of `width` (0 to 56) bits above the lowest one; the data is long enough for `out`."""
    at, held, waiting = 0, 0, _ZERO
    mask = (_ONE << np.uint64(width)) - _ONE
    for k in range(len(out)):
        while held < width:
            waiting |= np.uint64(data[at]) << np.uint64(held)
            held += 8
            at += 1
        value = lowest + np.int64(waiting & mask)
        out[k] = value
        bounds[0], bounds[1] = min(bounds[0], value), max(bounds[1], value)
        waiting >>= np.uint64(width)
        held -= width


@kernel(_READ_BYTES, _WORDS, returns=types.void)
def join_planes(data, out):
    """Put the bytes of words together: the lowest one of each comes first, then the second ones ..."""
    count = len(out)
    for k in range(count):
        low = np.uint32(data[k]) | np.uint32(data[count + k]) << np.uint32(8)
        high = np.uint32(data[2 * count + k]) | np.uint32(data[3 * count + k]) << np.uint32(8)
        out[k] = low | high << np.uint32(16)
