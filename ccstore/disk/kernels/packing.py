"""Kernels: whole numbers as few bytes, and back.

A varint is the LEB128 of protocol buffers and DWARF: seven bits a byte, the low ones first, the
high bit set on all bytes but the last. Packed bits follow each other from the lowest bit of the first byte.
"""

import numpy as np
from numba import types

from ccstore.jit import inline, kernel, slots_of

__all__ = [
    "DELTAS",
    "OFFSETS",
    "RUNS",
    "VARINT_BYTES",
    "WIDEST",
    "join_planes",
    "measure_runs",
    "read_deltas",
    "read_offsets",
    "read_runs",
    "split_planes",
    "write_long",
    "write_short",
]

RUNS, DELTAS, OFFSETS = range(3)
"""How a column of whole numbers is coded."""
WIDEST = 56
"""Bits of an offset."""
VARINT_BYTES = 10
"""The longest varint of 64 bits."""

_LOWEST_BYTES = 9  # in front of offsets: the lowest number and a width

_BYTES = slots_of("u1")
_INTEGERS = slots_of("i8")
_WORDS = slots_of("u4")
_READ_BYTES = slots_of("u1", writable=False)
_READ_SHORTS = slots_of("i4", writable=False)
_READ_INTEGERS = slots_of("i8", writable=False)
_READ_WORDS = slots_of("u4", writable=False)

_SEVEN = np.uint64(7)
_EIGHT = np.uint64(8)
_LOW_SEVEN = np.uint64(0x7F)
_LOW_EIGHT = np.uint64(0xFF)
_BYTE = np.uint32(0xFF)
_MORE = np.uint64(0x80)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


# --- writing


@inline
def numbered(integer):
    """Return the number of an integer in 0, -1, 1, -2, 2 ..."""
    return np.uint64((integer << 1) ^ (integer >> 63))


@inline
def write_varint(number, out, at):
    """Write a number; returns where it ends."""
    while number > _LOW_SEVEN:
        out[at] = np.uint8((number & _LOW_SEVEN) | _MORE)
        number >>= _SEVEN
        at += 1
    out[at] = np.uint8(number)
    return at + 1


@inline
def varint_size(number):
    """Return the bytes of a varint."""
    size = 1
    while number > _LOW_SEVEN:
        number >>= _SEVEN
        size += 1
    return size


@inline
def find_step(values):
    """Return the step that is most often that from an integer to the next, and how often it is not.

    Of 0, 1 and the first one; the smallest one of several.
    """
    first = np.int64(values[1]) - np.int64(values[0]) if len(values) > 1 else np.int64(0)
    changes, gaps, others = 0, 0, 0
    for k in range(len(values) - 1):
        step = np.int64(values[k + 1]) - np.int64(values[k])
        changes += step != 0
        gaps += step != 1
        others += step != first
    best, breaks = np.int64(0), changes
    if gaps < breaks:
        best, breaks = np.int64(1), gaps
    if others < breaks or (others == breaks and first < best):
        best, breaks = first, others
    return best, breaks


@inline
def write_runs(values, step, out, at):
    """Write stretches in which each integer is the one before plus the step; returns where they end."""
    at = write_varint(numbered(step), out, at)
    begin, before = 0, np.int64(0)
    for k in range(len(values)):
        if k + 1 == len(values) or np.int64(values[k + 1]) - np.int64(values[k]) != step:
            first = np.int64(values[begin])
            at = write_varint(numbered(first - before), out, at)
            at = write_varint(np.uint64(k + 1 - begin), out, at)
            begin, before = k + 1, first
    return at


@inline
def measure_deltas(values):
    """Return how many bytes `write_deltas` would write."""
    size, before = 0, np.int64(0)
    for k in range(len(values)):
        size += varint_size(numbered(np.int64(values[k]) - before))
        before = np.int64(values[k])
    return size


@inline
def write_deltas(values, out, at):
    """Write the difference of each integer from the one before; returns where they end."""
    before = np.int64(0)
    for k in range(len(values)):
        at = write_varint(numbered(np.int64(values[k]) - before), out, at)
        before = np.int64(values[k])
    return at


@inline
def find_offsets(values):
    """Return the lowest integer, and the bits that the highest one needs above it."""
    lowest, highest = np.int64(values[0]), np.int64(values[0])
    for k in range(len(values)):
        lowest, highest = min(lowest, np.int64(values[k])), max(highest, np.int64(values[k]))
    width, rest = 0, np.uint64(highest - lowest)
    while rest > _ZERO:
        rest >>= _ONE
        width += 1
    return lowest, width


@inline
def write_offsets(values, lowest, width, out, at):
    """Write how far each integer is above the lowest one; returns where they end."""
    number = np.uint64(lowest)
    for _ in range(8):
        out[at] = np.uint8(number & _LOW_EIGHT)
        number >>= _EIGHT
        at += 1
    out[at] = np.uint8(width)
    at += 1
    held, waiting = 0, _ZERO
    for k in range(len(values)):
        waiting |= np.uint64(np.int64(values[k]) - lowest) << np.uint64(held)
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


@inline
def write_shortest(values, out, ends):
    """Write integers in the shortest coding and note where they end; returns the coding."""
    ends[0] = 0
    if len(values) == 0:
        return DELTAS
    step, breaks = find_step(values)
    has_runs = 2 * (breaks + 1) <= len(values)
    if has_runs:
        ends[0] = write_runs(values, step, out, 0)
        if ends[0] <= len(values):
            return RUNS  # the others need a byte each, or find nothing to tell
    deltas = measure_deltas(values)
    lowest, width = find_offsets(values)
    offsets = _LOWEST_BYTES + (len(values) * width + 7) // 8
    has_offsets = width <= WIDEST
    if not (has_runs and ends[0] < deltas) and not (has_offsets and offsets < deltas):
        ends[0] = write_deltas(values, out, 0)
        return DELTAS
    if has_offsets and not (has_runs and ends[0] <= offsets):
        ends[0] = write_offsets(values, lowest, width, out, 0)
        return OFFSETS
    return RUNS


@kernel(_READ_INTEGERS, _BYTES, _INTEGERS)
def write_long(values, out, ends):
    """Write integers of 64 bits in the shortest coding; returns the coding, and in ends[0] how many bytes.

    out: `VARINT_BYTES` for each, and as many more.
    """
    return write_shortest(values, out, ends)


@kernel(_READ_SHORTS, _BYTES, _INTEGERS)
def write_short(values, out, ends):
    """Write integers of 32 bits, see `write_long`."""
    return write_shortest(values, out, ends)


@kernel(_READ_WORDS, _BYTES, returns=types.void)
def split_planes(words, out):
    """Write the lowest byte of each word, then the second ones ..."""
    count = len(words)
    for k in range(count):
        word = words[k]
        out[k] = np.uint8(word & _BYTE)
        out[count + k] = np.uint8((word >> np.uint32(8)) & _BYTE)
        out[2 * count + k] = np.uint8((word >> np.uint32(16)) & _BYTE)
        out[3 * count + k] = np.uint8(word >> np.uint32(24))


# --- reading


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
