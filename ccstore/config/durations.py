"""Durations as operators write them, in Go's form, and as the house keeps them, in float seconds.

This module owns the text form of a duration: an optional sign, then one or more of a decimal
number and a unit (``1h30m``, ``1.5h``, ``90s``); a bare ``0`` needs no unit. It never guesses: a
number without a unit and a unit longer than an hour are errors, as they are for the programs
whose configuration files we read. Invariant: ``parse_duration(format_duration(x)) == x`` for
every x that `parse_duration` can return.

The sum is taken in whole nanoseconds, because ``0.1s`` three times must be ``300ms`` and because
the range of a signed 64-bit count of nanoseconds is part of the form.
"""

import re
from fractions import Fraction

__all__ = ["HOURS", "MINUTES", "format_duration", "parse_duration"]

MINUTES = 60.0
HOURS = 3600.0

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_UNITS_FOR_OUTPUT = ("h", "m", "s", "ms", "us", "ns")
_PART = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[^0-9.]+)")
_LIMIT = 1 << 63


def parse_duration(text: str) -> float:
    """Return the seconds that `text` means.

    Digits below a nanosecond are cut off. Raises ValueError with what is wrong: no number, no
    unit, an unknown unit, or more than 2**63 nanoseconds (about 292 years).
    """
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    total, position = 0, 0
    while position < len(rest) or not rest:
        part = _PART.match(rest, position)
        if part is None:
            raise ValueError("a duration needs a unit behind each number" if rest else "not a duration")
        total += _nanoseconds(part)
        position = part.end()
    if total > (_LIMIT if sign < 0 else _LIMIT - 1):
        raise ValueError("a duration is too long")
    return sign * total / 1_000_000_000  # of integers, so rounded once


def _nanoseconds(part: re.Match[str]) -> int:
    whole, fraction, unit = part["whole"], part["fraction"] or "", part["unit"]
    if not whole and not fraction:
        raise ValueError("a duration needs a number before each unit")
    if unit not in _NANOSECONDS:
        raise ValueError(f"unknown unit {unit!r} in a duration")
    scale = _NANOSECONDS[unit]
    below_one: int = int(fraction or "0") * scale // 10 ** len(fraction)
    return int(whole or "0") * scale + below_one


def format_duration(seconds: float) -> str:
    """Return the shortest sum of whole units that means `seconds`: ``48h``, ``1h30m``, ``100ms``."""
    rest = round(abs(Fraction(seconds)) * 1_000_000_000)  # a product of floats would be off by one at times
    if rest == 0:
        return "0s"
    parts = []
    for unit in _UNITS_FOR_OUTPUT:
        count, rest = divmod(rest, _NANOSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if seconds < 0 else "") + "".join(parts)
