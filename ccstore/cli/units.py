"""Numbers for readers: one scale for all values that are looked at together.

Owns the choice of a power of ten and of a number of decimals. Invariant: it never shows digits that
the server did not send, and all values of one scale have the same unit and decimal places, so that
their columns can be compared at a glance.
"""

import math

from attrs import frozen

__all__ = ["Scale", "choose_scale"]

_PREFIXES = {"k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "": 0}
_SYMBOLS = {power: prefix for prefix, power in _PREFIXES.items()}
_BASES = ("B", "B/s", "b/s", "F", "F/s", "Flops", "Flops/s", "Hz", "J", "W", "packets/s")
"""Units that take a prefix; before any other, such as %, it would read odd."""

_DECIMALS = 3
"""How many the server sends."""
_DIGITS = 4
"""How many of the largest value are shown."""
_PLAIN = 6
"""Other values are written out up to this power of ten."""


@frozen
class Scale:
    """How the values of one metric are shown."""

    power: int
    """A value is divided by ten to this power."""
    unit: str
    """Of what is shown."""
    decimals: int

    @property
    def factor(self) -> float:
        """What a value is multiplied with."""
        return 10.0**-self.power

    def format(self, value: float) -> str:
        """Return the text that is shown for a value; ``-`` if it is missing."""
        return "-" if math.isnan(value) else f"{value * self.factor:.{self.decimals}f}"


def choose_scale(unit: str, largest: float) -> Scale:
    """Choose the scale for values with a unit, the largest of which has this magnitude."""
    magnitude = math.floor(math.log10(largest)) if largest > 0 else 0
    power = 3 * (magnitude // 3) if magnitude >= _PLAIN else 0
    prefix = _prefix_of(unit)
    if prefix is not None:
        own = _PREFIXES[prefix]
        power = max(0, min(3 * ((magnitude + own) // 3), max(_SYMBOLS))) - own
        unit = _SYMBOLS[own + power] + unit.removeprefix(prefix)
    elif power:
        unit = f"10^{power} {unit}".rstrip()
    digits = _DIGITS - 1 - (magnitude - power)
    return Scale(power, unit, max(0, min(digits, _DECIMALS + power, _DECIMALS)))


def _prefix_of(unit: str) -> str | None:
    """Return the prefix that a unit has, perhaps none; None for a unit that takes no prefix."""
    fits = (prefix for prefix in _PREFIXES if unit.startswith(prefix) and unit.removeprefix(prefix) in _BASES)
    return next(fits, None)
