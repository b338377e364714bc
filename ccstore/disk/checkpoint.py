"""The columnar checkpoint: runs of values, in blocks that can be read one without the other.

This module owns the payloads of a checkpoint's frames. It does no I/O: who writes one puts the results of
`encode_head` and of an `Encoder` one behind the other. Every byte is
explained in ``docs/reference/formats.md``.

    checkpoint = head block* end end-copy

Invariant: a checkpoint with an end is complete; without one its writer did not finish, or the end of the
file is damaged. Either way each block that is read is whole, and its numbers mean what its own names say.

The end has a fixed size, so what a checkpoint holds is known without reading it (`read_summary`).
"""

import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from attrs import astuple, evolve, frozen

from ccstore.disk.columns import ColumnReader, compress, encode_integers
from ccstore.disk.frames import (
    COMPRESSED,
    COPY,
    HEAD_BYTES,
    HEADER_BYTES,
    Damage,
    Data,
    Frame,
    FrameReader,
    Head,
    Kind,
    check_head,
    encode_frame,
    find_frame,
)
from ccstore.disk.names import KnownNames, Position, encode_columns, read_columns
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs

__all__ = [
    "END_BYTES",
    "CheckpointReader",
    "Encoder",
    "Summary",
    "encode_block",
    "encode_end",
    "read_ends",
    "read_summary",
]

BLOCK, END = b"B", b"E"

SLOTS = 512
"""Slots of a chunk: a run ends in the chunk it begins in."""

_COUNT = struct.Struct("<I")
_END = struct.Struct("<QQQQQqq")
_TIMES = np.iinfo(np.int64)

END_BYTES = 2 * (HEADER_BYTES + _END.size)
"""Size of the end of a complete checkpoint, with its copy."""


@frozen
class Summary:
    """What a checkpoint holds."""

    blocks: int
    series: int
    """Those that each block names; one can be in several."""
    runs: int
    values: int
    """With the missing ones in between."""
    start: int
    """Seconds; all values are of [start, stop)."""
    stop: int


def encode_block(names: Names, runs: Runs) -> bytes:
    """Return a frame with runs and the names of their series, which are numbered from 0 on in each block.

    Some MiB are right: larger blocks cost more when one is damaged, and names occur again in each.
    """
    values = np.ascontiguousarray(runs.values, np.float32)
    columns = [
        *encode_columns(names, Position()),
        _COUNT.pack(len(runs.numbers)),
        encode_integers(runs.numbers),
        encode_integers(runs.starts),
        encode_integers(runs.firsts),
        encode_integers(runs.counts),
    ]
    payload, is_compressed = compress(columns, values)
    return encode_frame(BLOCK, payload, samples=len(values), flags=COMPRESSED * is_compressed)


def encode_end(summary: Summary, *, offset: int) -> bytes:
    """Return the `END_BYTES` bytes that make a checkpoint complete.

    offset: where they begin in the file.
    """
    payload = _END.pack(offset, *astuple(summary))
    return encode_frame(END, payload) + encode_frame(END, payload, flags=COPY)


class Encoder:
    """Encodes the blocks of one checkpoint, which follow its head, and then the end that sums them up."""

    def __init__(self) -> None:
        self.summary = Summary(blocks=0, series=0, runs=0, values=0, start=0, stop=0)
        """Of the blocks so far."""
        self._offset = HEAD_BYTES

    def encode_block(self, names: Names, runs: Runs) -> bytes:
        """Return what `encode_block` does, and count it."""
        data = encode_block(names, runs)
        self._offset += len(data)
        before = self.summary
        start, stop = _range_of(names, runs)
        self.summary = Summary(
            blocks=before.blocks + 1,
            series=before.series + len(names.series_places),
            runs=before.runs + len(runs.numbers),
            values=before.values + len(runs.values),
            start=min(start, before.start) if before.values else start,
            stop=max(stop, before.stop) if before.values else stop,
        )
        return data

    def encode_end(self) -> bytes:
        """Return the end of the file."""
        return encode_end(self.summary, offset=self._offset)


def _range_of(names: Names, runs: Runs) -> tuple[int, int]:
    """Return the times [start, stop) of the slots of runs; (0, 0) if there are none."""
    if len(runs.numbers) == 0:
        return 0, 0
    steps = names.frequencies[names.series_metrics[runs.numbers]]
    starts = runs.starts + runs.firsts * steps
    return int(starts.min()), int((starts + runs.counts * steps).max())


def read_summary(data: Data) -> Summary | None:
    """Return what a checkpoint holds without reading it; None if it is incomplete or its end damaged.

    data: the whole file; only its head and its last `END_BYTES` bytes are looked at.
    Raises CorruptionError if the file is of another version or kind.
    """
    view = memoryview(data)
    return read_ends(view[:HEAD_BYTES], view[-END_BYTES:], len(view))


def read_ends(first: Data, last: Data, size: int) -> Summary | None:
    """Do what `read_summary` does with the first `HEAD_BYTES` and the last `END_BYTES` of so many bytes."""
    check_head(memoryview(first), Kind.CHECKPOINT)
    begin = size - END_BYTES
    for at in (0, END_BYTES // 2):
        frame = find_frame(memoryview(last), at) if begin >= HEAD_BYTES else None
        if frame is not None:
            with suppress(CorruptionError):
                return _read_end(evolve(frame, offset=begin + frame.offset))
    return None


def _read_end(frame: Frame) -> Summary:
    if frame.kind != END or len(frame.payload) != _END.size:
        raise CorruptionError(
            f"frame of kind {frame.kind!r} (wanted {BLOCK!r}, or {END!r} of {_END.size} bytes)"
        )
    offset, *fields = _END.unpack(frame.payload)
    begin = frame.offset - END_BYTES // 2 if frame.flags & COPY else frame.offset
    if offset != begin:
        raise CorruptionError(f"end for byte {offset} (wanted {begin})")
    return Summary(*fields)


class CheckpointReader:
    """Iterates once over the blocks of a checkpoint, and then tells what else it found.

    Iterating raises CorruptionError if the file is of another version or kind.
    """

    def __init__(self, data: Data) -> None:
        self.summary: Summary | None = None
        """What the end says; None if the checkpoint is incomplete."""
        self.blocks = 0
        """How many blocks were read."""
        self.values = 0
        """How many values were read, with the missing ones in between."""
        self._frames = FrameReader(data, Kind.CHECKPOINT)

    @property
    def head(self) -> Head | None:
        """The head of the file; None if it is cut or damaged."""
        return self._frames.head

    @property
    def lost(self) -> int | None:
        """How many values were written and not read; None if the checkpoint is incomplete."""
        return None if self.summary is None else self.summary.values - self.values

    @property
    def damage(self) -> list[Damage]:
        """What cannot be used although whole frames follow."""
        return self._frames.damage

    @property
    def tail(self) -> Damage | None:
        """What cannot be used at the end of the file."""
        return self._frames.tail

    def __iter__(self) -> Iterator[tuple[Names, Runs]]:
        for frame in self._frames:
            try:
                block = self._read(frame)
            except CorruptionError as error:
                self._frames.reject(frame, str(error))
                continue
            if block is not None:
                self.blocks += 1
                self.values += len(block[1].values)
                yield block

    def _read(self, frame: Frame) -> tuple[Names, Runs] | None:
        if frame.kind != BLOCK:
            self.summary = _read_end(frame)
            return None
        if self.summary is not None:
            raise CorruptionError("a block behind the end")
        return _read_block(frame)


def _read_block(frame: Frame) -> tuple[Names, Runs]:
    columns = ColumnReader(frame.payload, is_compressed=bool(frame.flags & COMPRESSED))
    position, names = read_columns(columns)
    if position != Position():
        raise CorruptionError(f"a block with names from {position} on (wanted its own)")
    names = KnownNames().add(position, names)
    (count,) = columns.unpack(_COUNT, "count of runs")
    if count > columns.left // 4:
        raise CorruptionError(f"{count} runs (wanted at most {columns.left // 4}, the values that are left)")
    last = len(names.series_places) - 1
    numbers = columns.integers(count, "series", low=0, high=last)
    starts = columns.integers(count, "starts", low=_TIMES.min, high=_TIMES.max)
    firsts = columns.integers(count, "first slots", low=0, high=SLOTS - 1)
    counts = columns.integers(count, "counts of slots", low=1, high=SLOTS)
    if np.any(firsts + counts > SLOTS):
        raise CorruptionError(f"a run beyond slot {SLOTS}, the end of its chunk")
    values = columns.values(int(counts.sum()))
    return names, Runs(
        numbers=numbers.astype(np.int32),
        starts=starts,
        firsts=firsts.astype(np.int32),
        counts=counts.astype(np.int32),
        values=values,
    )
