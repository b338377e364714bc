"""What a checkpoint file of the reference says, whichever of its two formats it is in.

A file holds one host for one period: a tree of levels, the host and the places below it, each with at most
one entry for a metric, and an entry is values at equal distances. `snapshot` and `jsonfile` turn bytes into
this tree and back; `columns` turns the tree into the columns of ccstore and back.

Owns these nouns and the limits that hold for both formats. Invariant: every `Entry` that was decoded has a
frequency of at least 1 and lies well within 64 bits, so whoever computes with its times need not look.
"""

import numpy as np
from attrs import Factory, define, frozen
from numpy.typing import NDArray

from ccstore.errors import CorruptionError

__all__ = ["INT64", "MAX_DEPTH", "MAX_NAME_BYTES", "Checkpoint", "Entry", "Level"]

MAX_DEPTH = 2
"""Levels below the host: component and subcomponent. Nothing that writes these files has more."""
MAX_FREQUENCY = 2**31 - 1
MAX_NAME_BYTES = 255
"""Of a place: what a log record has room for."""
INT64 = range(-(2**63), 2**63)


@frozen(slots=True)
class Entry:
    """The values of one metric at one level."""

    frequency: int
    """Seconds between two values, at least 1."""
    start: int
    """Seconds; time of the first value, which is the middle of its slot."""
    values: NDArray[np.float32]
    """NaN where nothing was stored."""

    @property
    def stop(self) -> int:
        """Where the next value would be, in seconds."""
        return self.start + len(self.values) * self.frequency


@define
class Level:
    """A host or a place below it."""

    entries: dict[str, Entry] = Factory(dict)
    """By metric."""
    children: dict[str, "Level"] = Factory(dict)
    """By name."""


@frozen
class Checkpoint:
    """A file: what it holds of one host."""

    start: int
    """Seconds; beginning of the period, and the stem of the file's name."""
    stop: int
    """Seconds; end of the period; 0 if the file does not tell."""
    host: Level


def make_entry(frequency: int, start: int, values: NDArray[np.float32], where: str) -> Entry:
    """Return an entry whose times can be computed with. Raises CorruptionError."""
    if not 1 <= frequency <= MAX_FREQUENCY:
        raise CorruptionError(f"{where}: frequency {frequency} (wanted 1 to {MAX_FREQUENCY} s)")
    entry = Entry(frequency, start, values)
    around = MAX_FREQUENCY * 512  # so whoever goes on by a chunk stays within 64 bits as well
    if start - around not in INT64 or entry.stop + around not in INT64:
        raise CorruptionError(
            f"{where}: {len(values)} values from {start} every {frequency} s (wanted 64-bit times)"
        )
    return entry
