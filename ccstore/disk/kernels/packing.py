"""Kernels: whole numbers as few bytes, and back.

A varint is the LEB128 of protocol buffers and DWARF: seven bits a byte, the low ones first, the
high bit set on all bytes but the last. Packed bits follow each other from the lowest bit of the first byte.
"""

import numpy as np
from numba import types

from ccstore.jit import kernel, slots_of

__all__ = ["pack_bits", "read_varints", "unpack_bits", "write_varints"]

VARINT_BYTES = 10
"""The longest varint of 64 bits."""

_NUMBERS = slots_of("u8")
_BYTES = slots_of("u1")
_READ_NUMBERS = slots_of("u8", writable=False)
_READ_BYTES = slots_of("u1", writable=False)

_SEVEN = np.uint64(7)
_EIGHT = np.uint64(8)
_LOW_SEVEN = np.uint64(0x7F)
_LOW_EIGHT = np.uint64(0xFF)
_MORE = np.uint64(0x80)
_ZERO = np.uint64(0)


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


@kernel(_READ_BYTES, _NUMBERS)
def read_varints(data, out):
    """Read all numbers; returns how many, -1 if one is cut or beyond 64 bits, or if there are too many."""
    count, at = 0, 0
    while at < len(data):
        if count == len(out):
            return -1
        number, shift = _ZERO, 0
        while True:
            if at == len(data) or shift > 63:
                return -1
            byte = np.uint64(data[at])
            if shift == 63 and byte > np.uint64(1):
                return -1
            number |= (byte & _LOW_SEVEN) << np.uint64(shift)
            shift += 7
            at += 1
            if byte <= _LOW_SEVEN:
                break
        out[count] = number
        count += 1
    return count


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


@kernel(_READ_BYTES, types.int64, _NUMBERS)
def unpack_bits(data, width, out):
    """Read numbers of `width` (0 to 56) bits until `out` is full; the data must be long enough for that."""
    at, held, waiting = 0, 0, _ZERO
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    for i in range(len(out)):
        while held < width:
            waiting |= np.uint64(data[at]) << np.uint64(held)
            held += 8
            at += 1
        out[i] = waiting & mask
        waiting >>= np.uint64(width)
        held -= width
    return at
