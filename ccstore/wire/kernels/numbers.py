"""Parts of kernels: numbers as lines hold them.

A number of at most 19 digits is an integer times or divided by a power of ten. The result is within
two units in the last place of the double; what is kept is a float32, so it is exact unless it lies
next to the middle between two of them, and then (once in 10**7) it is not sure and left to Python.
"""

import numpy as np

from ccstore.jit import inline, load_u64
from ccstore.wire.kernels.text import DOT, MASKS, MINUS, NEWLINE, PLUS, RETURN, SPACE, ZERO, u64

CLEARLY_FLOAT32 = 3.402823466385e38  # a little below the largest one
POWERS = np.array([10.0**k for k in range(23)])
SECONDS_MAX = np.array([(2**63 - 1) // 10**k for k in (9, 6, 3, 0)], np.uint64)
UNITS = np.array([1, 10**3, 10**6, 10**9], np.uint64)
VALUE_IS = np.uint64(int.from_bytes(b" value=", "little"))


@inline
def digits_of(data, start, stop):
    """Return the number that the digits from `start` on spell, and where they end; wraps beyond 64 bits."""
    total, i = u64(0), start
    while i < stop:
        digit = data[i] - np.uint8(ZERO)
        if digit > 9:
            break
        total = total * u64(10) + u64(digit)
        i += 1
    return total, i


@inline
def to_float32(digits, exponent):
    """Return digits * 10**exponent, and whether it is sure to be the nearest float32."""
    exact = float(digits)
    value = exact * POWERS[exponent] if exponent >= 0 else exact / POWERS[-exponent]
    if value > CLEARLY_FLOAT32:
        return np.float32(0.0), False
    near = np.float32(value)
    if exponent == 0 or digits <= u64(1 << 53):
        # the double is the nearest one (W. Clinger 1990), so rounding it again is what Python does
        return near, True
    # The distance to the middle is half the gap to the neighbour minus the distance to the nearest one.
    other = np.nextafter(near, np.float32(np.inf) if value > float(near) else np.float32(-np.inf))
    gap = abs(float(other) - float(near)) / 2 - abs(value - float(near))
    return near, gap > value * 1e-15


@inline
def parse_value(data, start, stop):
    """Return the number at data[start], where it ends, and whether this is sure."""
    i = start
    negative = i < stop and data[i] == MINUS
    if negative:
        i += 1
    first = i
    digits, i = digits_of(data, i, stop)
    seen, exponent = i - first, np.int64(0)
    whole = seen
    if i < stop and data[i] == DOT:
        whole = np.int64(-1)
        first = i + 1
        i = first
        while i < stop:
            digit = data[i] - np.uint8(ZERO)
            if digit > 9:
                break
            digits = digits * u64(10) + u64(digit)
            i += 1
        exponent = first - i
        seen -= exponent
    if i < stop and (data[i] == 101 or data[i] == 69):  # e E
        whole = np.int64(-1)
        i += 1
        down = i < stop and data[i] == MINUS
        if i < stop and (down or data[i] == PLUS):
            i += 1
        first = i
        power, i = digits_of(data, i, stop)
        if i == first or i > first + 3:
            return np.float32(0.0), i, False
        exponent += -np.int64(power) if down else np.int64(power)
    if seen < 1 or seen > 19 or exponent < -22 or exponent > 22:
        return np.float32(0.0), i, False
    value, sure = to_float32(digits, exponent)
    if i < stop and (data[i] == 105 or data[i] == 117):  # i u
        # 18 digits are in range for both kinds
        sure = sure and whole > 0 and whole <= 18 and not (negative and data[i] == 117)
        i += 1
        return (-value if negative and digits > u64(0) else value), i, sure
    return (-value if negative else value), i, sure


@inline
def parse_tail(data, start, stop, now):
    """Parse what follows a key: return value, time, where the next line begins, and whether this is sure."""
    if start + 8 > stop or (load_u64(data, start) & MASKS[7]) != VALUE_IS:
        return np.float32(0.0), now, start, False
    value, i, sure = parse_value(data, start + 7, stop)
    time = now
    if sure and i < stop and data[i] == SPACE:
        first = i + 1
        stamp, i = digits_of(data, first, stop)
        unit = 0
        while unit < 3 and stamp > SECONDS_MAX[unit]:
            unit += 1
        sure = first < i <= first + 19 and stamp <= SECONDS_MAX[3]
        time = np.int64(stamp // UNITS[unit])
    if i < stop and data[i] == RETURN:
        i += 1
    if i < stop and data[i] != NEWLINE:
        sure = False
    return value, time, i + 1, sure
