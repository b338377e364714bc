"""The columnar log: names and samples as frames of a segment.

This module owns the payloads of a segment's frames. It does no I/O: who writes a segment puts the
results of `encode_head`, `encode_names` and `encode_samples` one behind the other, who reads one
iterates over a `SegmentReader`. Every byte is explained in ``docs/reference/formats.md``.

    segment = head (names names-copy | samples)*

Invariant: a sample that is read was written, for the series that it is read for. One that cannot be read is
counted: in the damage or the tail of the file, or as nameless.

A segment can be read alone: a series is named in it before its first sample. Names are written twice,
because all samples of a series hang on its name, not only those of one frame.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ccstore.disk.columns import ColumnReader, compress, encode_integers
from ccstore.disk.frames import COMPRESSED, COPY, Damage, Data, Frame, FrameReader, Head, Kind, encode_frame
from ccstore.disk.names import MAX_NUMBERS, KnownNames, Position, encode_columns, read_columns
from ccstore.errors import CorruptionError
from ccstore.model import Names, Samples

__all__ = ["FRAME_SAMPLES", "SegmentReader", "empty_samples", "encode_names", "encode_samples"]

FRAME_SAMPLES = 2**18
"""Samples of a frame, at most: what one damaged byte can cost."""

NAMES, SAMPLES = b"N", b"S"

_WORTH = 0.67
"""Of samples compressed by raw bytes, at most. Noise shrinks by a fifth, as exponents are alike, and that
would take as long as all the rest of a frame; a log is gone after two checkpoints."""

_NO_VALUES = np.empty(0, np.float32)
_TIMES = np.iinfo(np.int64)
_LOW_HALF = np.uint64(2**32 - 1)
_HALF = np.uint64(32)


def encode_names(names: Names, *, position: Position) -> bytes:
    """Return frames that name what comes next in a segment.

    names: at most `columns.MAX_COLUMN` of a kind, each name 1 to 255 bytes of UTF-8 without NUL.
    position: what the segment has named before; go on with ``position.after(names)``.
    """
    payload, is_compressed = compress(encode_columns(names, position), _NO_VALUES)
    flags = COMPRESSED * is_compressed
    return encode_frame(NAMES, payload, flags=flags) + encode_frame(NAMES, payload, flags=flags | COPY)


def encode_samples(samples: Samples) -> bytes:
    """Return frames with samples of series that the segment has named.

    Samples of one series keep their order; others need not.
    """
    starts = range(0, max(len(samples.numbers), 1), FRAME_SAMPLES)
    return b"".join([_encode_frame(samples, slice(start, start + FRAME_SAMPLES)) for start in starts])


def _encode_frame(samples: Samples, part: slice) -> bytes:
    series, times = samples.numbers[part], samples.times[part]
    values = np.ascontiguousarray(samples.values[part], np.float32)
    columns = [encode_integers(series), encode_integers(times)]
    if len(columns[0]) > len(series) and np.any(series[1:] < series[:-1]):  # not the usual order
        order = _order(series)
        ordered = [encode_integers(series[order]), encode_integers(times[order])]
        if sum(map(len, ordered)) < sum(map(len, columns)):
            columns, values = ordered, values[order]
    payload, is_compressed = compress(columns, values, worth=_WORTH)
    return encode_frame(SAMPLES, payload, samples=len(series), flags=COMPRESSED * is_compressed)


def _order(series: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return what sorts numbers, with equal ones in their order.

    numpy's stable sort takes 90 ns a number; a plain one of numbers and indexes together 5.
    """
    keys = series.astype(np.uint64) << _HALF
    keys |= np.arange(len(series), dtype=np.uint64)
    keys.sort()
    return (keys & _LOW_HALF).view(np.int64)


def empty_samples(count: int) -> Samples:
    """Return arrays for samples."""
    return Samples(np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.float32))


class SegmentReader:
    """Iterates once over the names and samples of a segment, and then tells what else it found.

    Names and numbers are those of the file as long as no names are lost. If some are, with what hangs on
    them, the rest is numbered without them, so each `Names` continues the ones before in any case.
    Iterating raises CorruptionError if the file is of another version or kind.

    make_room: returns arrays for so many samples, which a frame fills from their beginnings.
    """

    def __init__(self, data: Data, make_room: Callable[[int], Samples] = empty_samples) -> None:
        self.samples = 0
        """How many samples were read."""
        self.nameless = 0
        """How many samples were left out because the names of their series are lost."""
        self._frames = FrameReader(data, Kind.SEGMENT)
        self._known = KnownNames()
        self._make_room = make_room

    @property
    def head(self) -> Head | None:
        """The head of the file; None if it is cut or damaged."""
        return self._frames.head

    @property
    def good(self) -> int:
        """Offset behind the last whole frame: where to cut the file before it is continued."""
        return self._frames.good

    @property
    def damage(self) -> list[Damage]:
        """What cannot be used although whole frames follow."""
        return self._frames.damage

    @property
    def tail(self) -> Damage | None:
        """What cannot be used at the end of the file."""
        return self._frames.tail

    def __iter__(self) -> Iterator[Names | Samples]:
        for frame in self._frames:
            try:
                found = self._read(frame)
            except CorruptionError as error:
                self._frames.reject(frame, str(error))
                continue
            if found is not None:
                yield found

    def _read(self, frame: Frame) -> Names | Samples | None:
        columns = ColumnReader(frame.payload, is_compressed=bool(frame.flags & COMPRESSED))
        if frame.kind == NAMES:
            return self._read_names(columns, is_copy=bool(frame.flags & COPY))
        if frame.kind == SAMPLES:
            return self._read_samples(columns, frame.samples)
        raise CorruptionError(f"frame of kind {frame.kind!r} (wanted {NAMES!r} or {SAMPLES!r})")

    def _read_names(self, columns: ColumnReader, *, is_copy: bool) -> Names | None:
        """Return names; of a copy only if the frame before it was lost."""
        position, names = read_columns(columns)
        columns.finish()
        if is_copy and position.after(names) == self._known.position:
            return None
        return self._known.add(position, names)

    def _read_samples(self, columns: ColumnReader, count: int) -> Samples:
        series = columns.integers(count, "series", low=0, high=MAX_NUMBERS - 1)
        room = self._make_room(count)
        columns.integers(count, "times", low=_TIMES.min, high=_TIMES.max, out=room.times)
        columns.values(count, room.values)
        room.numbers[:] = series
        numbers = self._known.translate(room.numbers)
        known = numbers >= 0
        good = int(np.count_nonzero(known))
        if good < count or numbers is not room.numbers:
            room.times[:good], room.values[:good] = room.times[known], room.values[known]
            room.numbers[:good] = numbers[known]
            self.nameless += count - good
        self.samples += good
        return Samples(room.numbers[:good], room.times[:good], room.values[:good])
