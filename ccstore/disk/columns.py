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
from ccstore.errors import CorruptionError

__all__ = ["MAX_COLUMN", "ColumnReader", "compress", "encode_integers", "encode_texts"]

MAX_COLUMN = MAX_PAYLOAD // 8
"""Numbers in a column."""

RUNS, DELTAS, OFFSETS = range(3)
"""How a column of whole numbers is coded."""

_COLUMN = struct.Struct("<BI")  # coding, bytes
_OFFSETS = struct.Struct("<qB")  # lowest, bits
_WIDEST = 56  # bits of an offset
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max

_LEVEL = 1  # of zstd; 3 makes values 1 % smaller at half the speed
_SMALL = 256  # bytes that are not worth trying
_PROBE = 4096  # values by which a long column is judged
_PIECE = 1024  # values of each piece of a probe
_WORTH = 0.9  # compressed by raw bytes, at most

_contexts = threading.local()  # zstd's: they take 15 us to make, and serve one thread at a time


# --- whole numbers


def encode_integers(values: NDArray[Any]) -> bytes:
    """Encode a column of at most `MAX_COLUMN` signed integers; all of int64 is possible."""
    assert len(values) <= MAX_COLUMN
    coding, data = _encode_shortest(values.astype(np.int64))
    return _COLUMN.pack(coding, len(data)) + data


def _encode_shortest(values: NDArray[np.int64]) -> tuple[int, bytes]:
    if len(values) == 0:
        return DELTAS, b""
    steps = values[1:] - values[:-1]  # modulo 2**64: arrays wrap
    runs = _encode_runs(values, steps)
    if runs is not None and len(runs) <= len(values):
        return RUNS, runs  # the others need a byte each
    found = [(DELTAS, _encode_varints(_zigzag(np.concatenate((values[:1], steps)))))]
    found += [(RUNS, runs)] if runs is not None else []
    offsets = _encode_offsets(values)
    found += [(OFFSETS, offsets)] if offsets is not None else []
    return min(found, key=lambda one: len(one[1]))


def _encode_runs(values: NDArray[np.int64], steps: NDArray[np.int64]) -> bytes | None:
    """Encode stretches in which each number is the one before plus a step; None if they are too short."""
    candidates = {0, 1, *steps[:1].tolist()}
    breaks, step = min((np.count_nonzero(steps != candidate), candidate) for candidate in sorted(candidates))
    if 2 * (breaks + 1) > len(values):
        return None
    bounds = np.empty(breaks + 2, np.int64)
    bounds[0], bounds[1:-1], bounds[-1] = 0, np.flatnonzero(steps != step) + 1, len(values)
    firsts = values[bounds[:-1]]
    numbers = np.empty(1 + 2 * len(firsts), np.int64)
    numbers[0], numbers[1], numbers[3::2] = step, firsts[0], firsts[1:] - firsts[:-1]
    coded = _zigzag(numbers)
    coded[2::2] = bounds[1:] - bounds[:-1]
    return _encode_varints(coded)


def _encode_offsets(values: NDArray[np.int64]) -> bytes | None:
    """Encode how far each number is above the lowest one; None if that is too far."""
    lowest = int(values.min())
    width = (int(values.max()) - lowest).bit_length()
    if width > _WIDEST:
        return None
    packed = np.empty((len(values) * width + 7) // 8, np.uint8)
    packing.pack_bits((values - lowest).view(np.uint64), width, packed)
    return _OFFSETS.pack(lowest, width) + packed.tobytes()


def _encode_varints(numbers: NDArray[np.uint64]) -> bytes:
    room = np.empty(packing.VARINT_BYTES * len(numbers), np.uint8)
    return room[: packing.write_varints(numbers, room)].tobytes()


def _zigzag(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Number the integers 0, -1, 1, -2, 2 ... from 0 on."""
    return ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)


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


def compress(columns: Iterable[bytes], values: NDArray[np.float32]) -> tuple[bytes, bool]:
    """Join columns and the values behind them; returns the payload and whether it is compressed.

    It is compressed if that makes it smaller by a tenth, by the look of a part of the values.
    """
    front = b"".join(columns)
    size = len(front) + values.nbytes
    assert size <= MAX_PAYLOAD
    if size >= _SMALL and (len(values) <= 2 * _PROBE or _is_compressible(values)):
        packed = _compressor().compress(front + _planes(values))
        if len(packed) <= _WORTH * size:
            return packed, True
    return front + values.tobytes(), False


def _is_compressible(values: NDArray[np.float32]) -> bool:
    starts = np.linspace(0, len(values) - _PIECE, _PROBE // _PIECE).astype(np.int64)
    probe = np.concatenate([values[start : start + _PIECE] for start in starts])
    return len(_compressor().compress(_planes(probe))) <= _WORTH * probe.nbytes


def _planes(values: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(values.view(np.uint8).reshape(-1, 4).T).tobytes()


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
        if width <= _WIDEST and len(packed) == (count * width + 7) // 8:
            values = np.empty(count, np.int64) if out is None else out
            packing.read_offsets(packed, lowest, width, values, bounds)
            return values
    return None
