"""Columns as bytes: whole numbers in as few as they need, float32 as they are, short texts.

This module owns what the payload of a frame is made of, and how it is compressed. It does no I/O.
Every byte is explained in ``docs/reference/formats.md``.

Invariant: what was written is read to the bit, NaN included; whatever else is read either is a column of
the wanted length and range or raises CorruptionError, before more than that is allocated.

Numbers of series come as runs (a host's series one after another), times hardly change: most
columns of whole numbers end as a few bytes. Values do not, and where zstd makes something of them it
makes more of their bytes in planes: the first byte of each value, then the second ...: exponents are alike.
"""

import itertools
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from ccstore.disk.frames import MAX_PAYLOAD
from ccstore.disk.kernels import packing
from ccstore.disk.kernels.packing import DELTAS, OFFSETS, RUNS, WIDEST
from ccstore.errors import CorruptionError

__all__ = ["MAX_COLUMN", "ColumnReader", "compress", "encode_integers", "encode_texts"]

MAX_COLUMN = MAX_PAYLOAD // 8
"""Numbers in a column."""

_COLUMN = struct.Struct("<BI")  # coding, bytes
_OFFSETS = struct.Struct("<qB")  # lowest, bits
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max

_LEVEL = 1  # of zstd; 3 makes values 1 % smaller at half the speed
_SMALL = 256  # bytes that are not worth trying
_PIECES, _PIECE = 4, 1024  # values by which a long column is judged
_WORTH = 0.9  # compressed by raw bytes, at most

_contexts = threading.local()  # zstd's: they take 15 us to make, and serve one thread at a time


# --- whole numbers


def encode_integers(values: NDArray[Any]) -> bytes:
    """Encode a column of at most `MAX_COLUMN` signed integers; all of int64 is possible."""
    assert len(values) <= MAX_COLUMN
    room, ends = np.empty(packing.VARINT_BYTES * (len(values) + 1), np.uint8), np.empty(1, np.int64)
    if values.dtype == np.int32:
        coding = packing.write_short(np.ascontiguousarray(values), room, ends)
    else:
        coding = packing.write_long(np.ascontiguousarray(values, np.int64), room, ends)
    return _COLUMN.pack(coding, ends[0]) + room[: ends[0]].tobytes()


# --- texts


def encode_texts(texts: Sequence[str]) -> bytes:
    """Encode a column of texts of 1 to 255 bytes in UTF-8, without NUL."""
    parts = [text.encode() for text in texts]
    sizes = [len(part) for part in parts]
    joined = b"".join(parts)
    assert all(0 < size < 256 for size in sizes)
    assert 0 not in joined
    return bytes(sizes) + joined


# --- payloads


def compress(
    columns: Iterable[bytes], values: NDArray[np.float32], *, worth: float = _WORTH
) -> tuple[bytes, bool]:
    """Join columns and the values behind them; returns the payload and whether it is compressed.

    It is compressed if it takes no more than `worth` of its bytes then, by the look of a part of the values.
    """
    front = b"".join(columns)
    size = len(front) + values.nbytes
    assert size <= MAX_PAYLOAD
    if size >= _SMALL and (len(values) <= 2 * _PIECES * _PIECE or _is_compressible(values, worth)):
        packed = _compressor().compress(b"".join((front, _planes(values))))
        if len(packed) <= worth * size:
            return packed, True
    return b"".join((front, values.data)), False


def _is_compressible(values: NDArray[np.float32], worth: float) -> bool:
    last = len(values) - _PIECE
    starts = [last * k // (_PIECES - 1) for k in range(_PIECES)]
    probe = np.concatenate([values[start : start + _PIECE] for start in starts])
    return len(_compressor().compress(_planes(probe))) <= worth * probe.nbytes


def _planes(values: NDArray[np.float32]) -> memoryview:
    planes = np.empty(values.nbytes, np.uint8)
    packing.split_planes(values.view(np.uint32), planes)
    return planes.data


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_contexts, "compressor"):
        _contexts.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    compressor: zstandard.ZstdCompressor = _contexts.compressor
    return compressor


def _decompress(payload: memoryview) -> bytes:
    if not hasattr(_contexts, "decompressor"):
        _contexts.decompressor = zstandard.ZstdDecompressor()
    try:
        size = zstandard.frame_content_size(payload)  # looked at first: it is trusted below
        if not 0 <= size <= MAX_PAYLOAD:
            raise CorruptionError(f"compressed payload of {size} bytes (wanted at most {MAX_PAYLOAD})")
        raw: bytes = _contexts.decompressor.decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptionError(f"compressed payload: {error}") from error
    return raw


class ColumnReader:
    """Reads the columns of a payload one after the other; every method raises CorruptionError."""

    def __init__(self, payload: memoryview, *, is_compressed: bool) -> None:
        self._data = memoryview(_decompress(payload)) if is_compressed else payload
        self._in_planes = is_compressed
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._at

    def take(self, size: int, what: str) -> memoryview:
        """Return the next bytes."""
        if size > self.left:
            raise CorruptionError(f"byte {self._at}: {what} (got {self.left} bytes, wanted {size})")
        self._at += size
        return self._data[self._at - size : self._at]

    def unpack(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        """Return the fields of a record."""
        return layout.unpack(self.take(layout.size, what))

    def finish(self) -> None:
        """Check that everything was read."""
        if self.left:
            raise CorruptionError(f"byte {self._at}: {self.left} more bytes (wanted the end)")

    def integers(
        self, count: int, what: str, *, low: int, high: int, out: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Return a column of so many numbers, all of them low to high; in `out`, or in a new array."""
        if count > MAX_COLUMN:
            raise CorruptionError(f"byte {self._at}: {count} {what} (wanted at most {MAX_COLUMN})")
        coding, size = self.unpack(_COLUMN, what)
        data = np.frombuffer(self.take(size, what), np.uint8)
        bounds = np.array([_HIGHEST, _LOWEST])
        values = _decode(coding, data, count, bounds, out)
        if values is None:
            raise CorruptionError(f"byte {self._at}: malformed {what} (coding {coding})")
        if count and not (low <= bounds[0] and bounds[1] <= high):
            got = f"{bounds[0]} to {bounds[1]}"
            raise CorruptionError(f"byte {self._at}: {what} out of range (got {got}, wanted {low} to {high})")
        return values

    def texts(self, count: int, what: str) -> list[str]:
        """Return a column of so many texts."""
        sizes = self.take(count, what)
        raw = self.take(sum(sizes), what)
        if 0 in bytes(sizes) or 0 in bytes(raw):
            raise CorruptionError(f"byte {self._at}: {what} empty or with a NUL")
        ends = [0, *itertools.accumulate(sizes)]
        try:
            joined = str(raw, "utf-8")
            if len(joined) == len(raw):  # nothing but ASCII: a character is a byte
                return [joined[start:stop] for start, stop in itertools.pairwise(ends)]
            return [str(raw[start:stop], "utf-8") for start, stop in itertools.pairwise(ends)]
        except UnicodeDecodeError as error:
            raise CorruptionError(f"byte {self._at}: {what} not in UTF-8") from error

    def values(self, count: int, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the values, which end the payload; in `out`, or in a new array."""
        if self.left != 4 * count:
            raise CorruptionError(f"byte {self._at}: values (got {self.left} bytes, wanted {4 * count})")
        raw = np.frombuffer(self.take(4 * count, "values"), np.uint8)
        values = np.empty(count, np.float32) if out is None else out
        if self._in_planes:
            packing.join_planes(raw, values.view(np.uint32))
        else:
            values.view(np.uint8)[:] = raw
        return values


def _decode(
    coding: int, data: NDArray[np.uint8], count: int, bounds: NDArray[np.int64], out: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """Return so many integers, and note the lowest and the highest; None if they are malformed.

    Room is made only for what is there.
    """
    if coding == DELTAS and count <= len(data):
        values = np.empty(count, np.int64) if out is None else out
        return values if packing.read_deltas(data, values, bounds) else None
    if coding == RUNS and packing.measure_runs(data, count) == count:
        values = np.empty(count, np.int64) if out is None else out
        packing.read_runs(data, values, bounds)
        return values
    if coding == OFFSETS and len(data) >= _OFFSETS.size:
        lowest, width = _OFFSETS.unpack(data[: _OFFSETS.size].tobytes())
        packed = data[_OFFSETS.size :]
        if width <= WIDEST and len(packed) == (count * width + 7) // 8:
            values = np.empty(count, np.int64) if out is None else out
            packing.read_offsets(packed, lowest, width, values, bounds)
            return values
    return None
