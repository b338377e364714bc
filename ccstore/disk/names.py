"""What the numbers of a file stand for, as bytes, and what a reader knows of them.

A file names places, metrics and series by dense numbers of its own: the n-th one named in it has the
number n. This module owns the columns of `Names` and the checks of what is read. It does no I/O.

Invariant: what `KnownNames.add` returns can be taken without another look: parents come before their
children, clusters are the only places without a parent, nothing lies deeper than a subcomponent, series
are at hosts or below, and every number continues those returned before without a gap.

A names frame says how many names come before it. So when one is lost, the others keep their meaning: its
numbers, and what hangs on them, are left out and everything behind is renumbered.
"""

import itertools
import struct
from typing import TypeVar

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.disk.columns import MAX_COLUMN, ColumnReader, encode_integers, encode_texts
from ccstore.errors import CorruptionError
from ccstore.model import Names

__all__ = ["MAX_NUMBERS", "KnownNames", "Position", "encode_columns", "read_columns"]

MAX_NUMBERS = 2**26
"""Places, metrics or series of one file."""

_COUNTS = struct.Struct("<6I")
_MAX_FREQUENCY = 2**31 - 1
_DEEPEST = 4  # cluster, host, component, subcomponent
_HOST = 2

_Number = TypeVar("_Number", np.int32, np.uint8)


@frozen
class Position:
    """How many places, metrics and series of a file are named before something."""

    places: int = 0
    metrics: int = 0
    series: int = 0

    def after(self, names: Names) -> "Position":
        """Return the position behind more names."""
        return Position(
            self.places + len(names.parents),
            self.metrics + len(names.frequencies),
            self.series + len(names.series_places),
        )


def encode_columns(names: Names, position: Position) -> list[bytes]:
    """Encode names; at most `MAX_COLUMN` of a kind, and `MAX_NUMBERS` in a file."""
    after = position.after(names)
    assert max(after.places, after.metrics, after.series) <= MAX_NUMBERS
    counts = (len(names.parents), len(names.frequencies), len(names.series_places))
    assert max(counts) <= MAX_COLUMN
    return [
        _COUNTS.pack(position.places, position.metrics, position.series, *counts),
        encode_integers(names.parents),
        encode_texts(names.place_names),
        encode_integers(names.frequencies),
        encode_texts(names.metric_names),
        encode_integers(names.series_places),
        encode_integers(names.series_metrics),
    ]


def read_columns(columns: ColumnReader) -> tuple[Position, Names]:
    """Read what `encode_columns` wrote. Raises CorruptionError if it makes no sense by itself."""
    *before, places, metrics, series = columns.unpack(_COUNTS, "counts of names")
    position = Position(*before)
    after = [start + count for start, count in zip(before, (places, metrics, series), strict=True)]
    if max(after) > MAX_NUMBERS:
        raise CorruptionError(f"number {max(after)} of a file (wanted at most {MAX_NUMBERS})")
    names = Names(
        parents=columns.integers(places, "parents", low=-1, high=after[0] - 1).astype(np.int32),
        place_names=columns.texts(places, "names of places"),
        frequencies=columns.integers(metrics, "frequencies", low=1, high=_MAX_FREQUENCY),
        metric_names=columns.texts(metrics, "names of metrics"),
        series_places=columns.integers(series, "places of series", low=0, high=after[0] - 1).astype(np.int32),
        series_metrics=columns.integers(series, "metrics of series", low=0, high=after[1] - 1).astype(
            np.int32
        ),
    )
    if np.any(names.parents >= np.arange(position.places, after[0])):
        raise CorruptionError("a place named before its parent")
    return position, names


class _Renumbering:
    """The numbers of one kind: as they are in the file, and without those that were lost."""

    def __init__(self) -> None:
        self.end = 0
        """The file's next number."""
        self._count = 0  # of those that were not lost
        self._table = np.empty(0, np.int32)  # new number by number of the file, -1 where lost

    def add(self, first: int, kept: NDArray[np.bool_]) -> None:
        """Go on with numbers from `first` on; what is left out before them was lost."""
        stop = first + len(kept)
        self._table = _grow(self._table, stop)
        self._table[self.end : first] = -1
        self._table[first:stop] = np.where(kept, np.cumsum(kept) + (self._count - 1), -1)
        self._count += int(np.count_nonzero(kept))
        self.end = stop

    def translate(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return new numbers, -1 for what was lost or never named; the same array if nothing was."""
        if self._count == self.end and (len(numbers) == 0 or numbers.max() < self.end):
            return numbers
        new = np.full(len(numbers), -1, np.int32)
        known = numbers < self.end
        new[known] = self._table[numbers[known]]
        return new


class KnownNames:
    """What a reader of a file knows of its names so far."""

    def __init__(self) -> None:
        self._places = _Renumbering()
        self._metrics = _Renumbering()
        self._series = _Renumbering()
        self._depths = np.empty(0, np.uint8)  # of each place of the file, 1 for a cluster; 0 if it was lost

    @property
    def position(self) -> Position:
        """How far the file's numbers are known."""
        return Position(self._places.end, self._metrics.end, self._series.end)

    def add(self, position: Position, names: Names) -> Names:
        """Take note of names; returns those that can be used, numbered without gaps.

        What hangs on a name that was lost is left out. Raises CorruptionError, and takes note of
        nothing, if numbers are taken already or if something is where it cannot be.
        """
        end = self.position
        if position.places < end.places or position.metrics < end.metrics or position.series < end.series:
            raise CorruptionError(f"names from {position} on (wanted none before {end})")
        depths = self._find_depths(position.places, names)
        series_depths = depths[names.series_places]
        if np.any((series_depths > 0) & (series_depths < _HOST)):
            raise CorruptionError("a series of a cluster (wanted a host or below)")
        places_kept = depths[position.places :] > 0
        self._places.add(position.places, places_kept)
        self._metrics.add(position.metrics, np.ones(len(names.frequencies), np.bool_))
        series_metrics = self._metrics.translate(names.series_metrics)
        series_kept = (series_depths > 0) & (series_metrics >= 0)
        self._series.add(position.series, series_kept)
        parents = self._places.translate(np.maximum(names.parents, 0))
        return Names(
            parents=np.where(names.parents < 0, np.int32(-1), parents)[places_kept],
            place_names=list(itertools.compress(names.place_names, places_kept.tolist())),
            metric_names=names.metric_names,
            frequencies=names.frequencies,
            series_places=self._places.translate(names.series_places[series_kept]),
            series_metrics=series_metrics[series_kept],
        )

    def translate(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the new numbers of series, -1 for those whose names were lost."""
        return self._series.translate(numbers)

    def _find_depths(self, first: int, names: Names) -> NDArray[np.uint8]:
        """Return the depths of all places with the new ones, which only count once `_places` has them."""
        stop, parents = first + len(names.parents), names.parents
        self._depths = _grow(self._depths, stop)
        depths = self._depths[:stop]
        depths[self._places.end :] = 0
        new = depths[first:]
        new[parents < 0] = 1
        above = np.maximum(parents, 0)
        for depth in range(2, _DEEPEST + 2):  # parents come first, so each round finds a whole level
            new[(parents >= 0) & (depths[above] == depth - 1)] = depth
        if np.any(new > _DEEPEST):
            raise CorruptionError("a place below a subcomponent")
        for name in itertools.compress(names.place_names, ((new > 0) & (new <= _HOST)).tolist()):
            if "/" in name or name in (".", ".."):
                raise CorruptionError(f"cluster or host {name!r} (wanted no '/', '.' and '..')")
        return depths


def _grow(table: NDArray[_Number], size: int) -> NDArray[_Number]:
    """Return a table of at least this size that begins with another one."""
    if size <= len(table):
        return table
    grown = np.empty(max(size, 2 * len(table)), table.dtype)
    grown[: len(table)] = table
    return grown
