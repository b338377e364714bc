"""What a file holds, in figures: of the file as a whole, and of each series.

Owns the counting. It reads through `contents` and changes nothing; words and tables are the command line's.
Invariant: every value that can be read is counted once, as stored or as missing; what cannot be read is in
the damage, the tail or among the nameless.
"""

from collections.abc import Callable, Iterator

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.disk.contents import Content, Series
from ccstore.disk.folding import slots_of
from ccstore.disk.frames import Damage
from ccstore.model import Runs, Samples

__all__ = ["Inspection", "SeriesCount", "inspect_file", "values_of"]


@frozen
class SeriesCount:
    """What a file holds of one series."""

    series: Series
    values: int
    """Stored ones."""
    missing: int
    start: int
    """Seconds; time of the first value, which in checkpoints is the middle of its slot."""
    stop: int
    """Seconds; time of the last value."""


@frozen
class Inspection:
    """What a file holds."""

    content: Content
    """The file, read to its end."""
    series: list[SeriesCount]
    """In the order in which the file names them; without those it has no value of."""
    hosts: int
    metrics: int

    @property
    def values(self) -> int:
        """Stored values of all series."""
        return sum(one.values for one in self.series)

    @property
    def missing(self) -> int:
        """Missing values of all series."""
        return sum(one.missing for one in self.series)

    @property
    def span(self) -> tuple[int, int] | None:
        """Times of the first and the last value, in seconds; None without any."""
        if not self.series:
            return None
        return min(one.start for one in self.series), max(one.stop for one in self.series)

    @property
    def bytes_per_value(self) -> float | None:
        """Bytes of the file for each of its values, with the missing ones; None without any."""
        count = self.values + self.missing
        return self.content.size / count if count else None

    @property
    def damage(self) -> list[Damage]:
        """What cannot be used although it should."""
        return self.content.damage

    @property
    def is_good(self) -> bool:
        """Whether nothing is damaged; a tail that a crash left is no damage."""
        return not self.damage and not self.content.nameless


def inspect_file(content: Content, *, see: Callable[[Runs | Samples], None] | None = None) -> Inspection:
    """Read a file to its end and count.

    see: called with each part, after the series it is of are known.
    Raises CorruptionError if the file is of a version that is not known here.
    """
    counts = _Counts()
    for part in content.parts():
        counts.add(len(content.series), *_rows_of(part, content))
        if see is not None:
            see(part)
    found = list(counts.of(content.series))
    return Inspection(
        content,
        found,
        hosts=len({one.series.path[:2] for one in found}),
        metrics=len({one.series.metric for one in found}),
    )


def _rows_of(
    part: Runs | Samples, content: Content
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return of each run or sample its series, first and last time, values and how many are missing."""
    gaps = np.isnan(part.values).astype(np.int64)
    if isinstance(part, Samples):
        return part.numbers, part.times, part.times, np.ones(len(part.times), np.int64), gaps
    frequencies = content.frequencies[part.numbers]
    begins = part.starts + part.firsts * frequencies + frequencies // 2
    counts = part.counts.astype(np.int64)
    totals = np.concatenate([[0], np.cumsum(gaps)])
    ends = np.cumsum(counts)
    return (
        part.numbers,
        begins,
        begins + (counts - 1) * frequencies,
        counts,
        totals[ends] - totals[ends - counts],
    )


class _Counts:
    """Counts by number of the series."""

    def __init__(self) -> None:
        limits = np.iinfo(np.int64)
        self._empty = np.array([[0], [0], [limits.max], [limits.min]])
        self._table = self._empty[:, :0]

    def add(
        self, series: int, numbers: NDArray[np.int32], firsts: NDArray[np.int64], lasts: NDArray[np.int64],
        counts: NDArray[np.int64], missing: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Count some more rows; so many series are known by now."""
        if series > self._table.shape[1]:
            more = np.repeat(
                self._empty, max(series, 2 * self._table.shape[1]) - self._table.shape[1], axis=1
            )
            self._table = np.concatenate([self._table, more], axis=1)
        values, gaps, starts, stops = self._table
        np.add.at(values, numbers, counts - missing)
        np.add.at(gaps, numbers, missing)
        np.minimum.at(starts, numbers, firsts)
        np.maximum.at(stops, numbers, lasts)

    def of(self, series: list[Series]) -> Iterator[SeriesCount]:
        """Yield what was counted of each series that has any value."""
        for one, row in zip(series, self._table.T[: len(series)].tolist(), strict=False):
            if row[0] + row[1]:
                yield SeriesCount(one, *row)


def values_of(part: Runs | Samples, content: Content) -> Samples:
    """Return a part as samples in its order, missing ones as well; a slot's time is its middle."""
    if isinstance(part, Samples):
        return part
    of_run, slots = slots_of(part)
    steps: NDArray[np.int64] = content.frequencies[part.numbers][of_run]
    times = part.starts[of_run] + slots * steps + steps // 2
    return Samples(part.numbers[of_run], times, part.values)
