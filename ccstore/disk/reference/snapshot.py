"""The reference's binary checkpoint, ``<from>.bin``: bytes <-> tree.

    magic, from, to, level
    level   number of metrics, metrics, number of children, each with its name and a level
    metric  name, frequency, time of the first value, number of values, values

Owns these bytes; reads no file. Invariant: no count is believed before it is compared with the bytes that are
left, so a damaged file costs no more memory than it is long, and no depth of nesting more than `MAX_DEPTH`
calls.

The format has no checksum, but its readers stop behind the host and ignore what follows. There ccstore puts
one: a magic number and the CRC-32 of everything before, always the last eight bytes. It is looked for at the
end and not where the levels end, so that damage which makes the levels end early is found as well.
"""

import struct
import zlib

import numpy as np

from ccstore.disk.reference.checkpoint import MAX_DEPTH, MAX_NAME_BYTES, Checkpoint, Entry, Level, make_entry
from ccstore.errors import CorruptionError

__all__ = ["HEAD_BYTES", "MAGIC", "TRAILER_MAGIC", "decode_period", "decode_snapshot", "encode_snapshot"]

MAGIC = bytes.fromhex("01005bcc")
TRAILER_MAGIC = bytes.fromhex("02005bcc")
_HEAD = struct.Struct("<4sqq")
HEAD_BYTES = _HEAD.size
"""What has to be read of a file to learn its period."""
_NUMBERS = struct.Struct("<qqI")  # frequency, start, number of values
_TRAILER = struct.Struct("<4sI")
_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<H")
_SMALLEST_METRIC = _LENGTH.size + _NUMBERS.size
_SMALLEST_CHILD = _LENGTH.size + 2 * _COUNT.size


def decode_period(data: memoryview | bytes) -> tuple[int, int]:
    """Return (from, to) of a file that begins with these bytes. Raises CorruptionError."""
    if len(data) < HEAD_BYTES:
        raise CorruptionError(
            f"byte 0: file ends within its head ({len(data)} bytes, wanted {HEAD_BYTES} or more)"
        )
    magic, start, stop = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise CorruptionError(f"byte 0: no snapshot (got {magic.hex()!r}, wanted {MAGIC.hex()!r})")
    return start, stop


def decode_snapshot(data: memoryview | bytes) -> Checkpoint:
    """Read a whole file; its values are views of the data. Raises CorruptionError."""
    start, stop = decode_period(data)
    view = memoryview(data)
    if len(view) >= HEAD_BYTES + _TRAILER.size:
        magic, stored = _TRAILER.unpack_from(view, len(view) - _TRAILER.size)
        if magic == TRAILER_MAGIC and stored != (computed := zlib.crc32(view[: -_COUNT.size])):
            raise CorruptionError(
                f"byte {len(view) - 4}: checksum mismatch (stored {stored:#010x}, computed {computed:#010x})"
            )
    return Checkpoint(start, stop, _Reader(view).read_level(0))


class _Reader:
    """Reads levels one behind the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = HEAD_BYTES

    def read_level(self, depth: int) -> Level:
        level = Level()
        for _ in range(self._read_count(_SMALLEST_METRIC, "metrics")):
            name = self._read_name(2**16)
            level.entries[name] = self._read_entry()
        for _ in range(self._read_count(_SMALLEST_CHILD, "children")):
            if depth == MAX_DEPTH:
                raise CorruptionError(f"byte {self._at}: nested deeper (wanted at most {MAX_DEPTH} levels)")
            name = self._read_name(MAX_NAME_BYTES)
            level.children[name] = self.read_level(depth + 1)
        return level

    def _read_entry(self) -> Entry:
        at = self._take(_NUMBERS.size, "numbers of a metric")
        frequency, start, count = _NUMBERS.unpack_from(self._data, at)
        first = self._take(4 * count, f"{count} values")
        values = np.frombuffer(self._data, "<f4", count, first)
        return make_entry(frequency, start, values, f"byte {at}")

    def _read_count(self, smallest: int, what: str) -> int:
        at = self._take(_COUNT.size, f"number of {what}")
        count: int = _COUNT.unpack_from(self._data, at)[0]
        left = len(self._data) - self._at
        if count * smallest > left:
            raise CorruptionError(
                f"byte {at}: {count} {what} in {left} bytes (wanted {smallest} each or more)"
            )
        return count

    def _read_name(self, most: int) -> str:
        at = self._take(_LENGTH.size, "length of a name")
        size: int = _LENGTH.unpack_from(self._data, at)[0]
        if size > most:
            raise CorruptionError(f"byte {at}: name of {size} bytes (wanted at most {most})")
        first = self._take(size, f"name of {size} bytes")
        return str(self._data[first : first + size], "utf-8", "replace")

    def _take(self, size: int, what: str) -> int:
        """Return where the next bytes are, and go on behind them."""
        at = self._at
        if size > len(self._data) - at:
            raise CorruptionError(
                f"byte {at}: file ends within {what} ({len(self._data) - at} bytes, wanted {size})"
            )
        self._at = at + size
        return at


def encode_snapshot(checkpoint: Checkpoint) -> bytes:
    """Write a whole file, with the checksum behind it."""
    pieces = [_HEAD.pack(MAGIC, checkpoint.start, checkpoint.stop)]
    _put_level(checkpoint.host, pieces)
    pieces.append(TRAILER_MAGIC)
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return b"".join([*pieces, _COUNT.pack(crc)])


def _put_level(level: Level, pieces: list[bytes]) -> None:
    pieces.append(_COUNT.pack(len(level.entries)))
    for name, entry in level.entries.items():
        numbers = _NUMBERS.pack(entry.frequency, entry.start, len(entry.values))
        pieces += (_pack_name(name), numbers, entry.values.astype("<f4", copy=False).tobytes())
    pieces.append(_COUNT.pack(len(level.children)))
    for name, child in level.children.items():
        pieces.append(_pack_name(name))
        _put_level(child, pieces)


def _pack_name(name: str) -> bytes:
    text = name.encode()
    return _LENGTH.pack(len(text)) + text
