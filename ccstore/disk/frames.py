"""The envelope of our own files: a head, then frames with checksums.

This module owns how a file begins and how it is cut into frames, and knows nothing of what is in
them. It does no I/O: bytes go in, values come out. Every byte is explained in
``docs/reference/formats.md``.

    file  = head frame*
    head  = magic kind shard number created crc                              (36 bytes)
    frame = magic kind flags reserved size samples payload-crc crc payload   (24 bytes and the payload)

Invariant: a frame that a reader yields is one that was written, as a whole, and every other byte of
the file is reported: as damage if a whole frame follows it, else as the tail, which is what a crash
leaves behind and what is to be cut off before the file is continued.

A header has a checksum of its own. So a damaged payload costs that frame alone, and it is known where
the next one begins and how many samples are lost; after a damaged header the reader looks
for the next one that is whole.
"""

import enum
import re
import struct
import zlib
from collections.abc import Iterator
from mmap import mmap

from attrs import evolve, frozen

from ccstore.errors import CorruptionError

__all__ = [
    "COMPRESSED",
    "COPY",
    "HEADER_BYTES",
    "HEAD_BYTES",
    "MAX_PAYLOAD",
    "Damage",
    "Data",
    "Frame",
    "FrameReader",
    "Head",
    "Kind",
    "check_head",
    "encode_frame",
    "encode_head",
    "find_frame",
    "read_head",
]

Data = bytes | bytearray | memoryview | mmap
"""A whole file."""

MAX_PAYLOAD = 64 * 1024 * 1024
"""Bytes of a frame's payload, as stored and after decompression."""

COPY = 1
"""Flag of a frame that repeats what the frame before it says."""
COMPRESSED = 2
"""Flag of a payload that is one zstd frame, see `packing`."""

_NAME = b"ccstore"
_VERSION = 1
_FRAME_MAGIC = (
    b"\xccfr\x01"  # the last byte is the version; no UTF-8 text contains the first two in this order
)
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<7sB4sIQq")
_HEADER = struct.Struct("<4scBHIII")
_FIND_HEADER = re.compile(re.escape(_FRAME_MAGIC))

HEAD_BYTES = _HEAD.size + _CRC.size
HEADER_BYTES = _HEADER.size + _CRC.size


class Kind(enum.Enum):
    """What a file holds."""

    SEGMENT = b"sgmt"
    CHECKPOINT = b"ckpt"


@frozen
class Head:
    """The beginning of a file."""

    kind: Kind
    shard: int
    number: int
    """Which file of its kind and shard this is."""
    created: int
    """Seconds since the epoch, for people only: clocks step."""


@frozen
class Damage:
    """Bytes of a file that cannot be used."""

    offset: int
    size: int
    """Bytes."""
    samples: int | None
    """How many samples were lost with them; None if that cannot be known."""
    reason: str

    def __str__(self) -> str:
        lost = "an unknown number of" if self.samples is None else str(self.samples)
        return f"byte {self.offset}: {self.reason} ({self.size} bytes, {lost} samples lost)"


@frozen
class Frame:
    """A whole frame."""

    offset: int
    kind: bytes
    """One letter."""
    flags: int
    samples: int
    payload: memoryview
    """A view of the file."""

    @property
    def size(self) -> int:
        """Bytes of the frame with its header."""
        return HEADER_BYTES + len(self.payload)


def encode_head(head: Head) -> bytes:
    """Return the first `HEAD_BYTES` bytes of a file."""
    raw = _HEAD.pack(_NAME, _VERSION, head.kind.value, head.shard, head.number, head.created)
    return raw + _CRC.pack(zlib.crc32(raw))


def read_head(data: Data) -> Head:
    """Return the head of a file of which at least the first bytes are given.

    Raises CorruptionError if it is cut or damaged, or if the file is none of ours.
    """
    head, problem = _parse_head(memoryview(data))
    if head is None:
        raise CorruptionError(f"head: {problem}")
    return head


def check_head(view: memoryview, kind: Kind) -> tuple[Head | None, str]:
    """Return the head of a file, or None and why it cannot be used.

    Raises CorruptionError if it is whole, but the file is of another kind or version: such a file is
    not damaged and must be left alone.
    """
    head, problem = _parse_head(view)
    if head is not None and head.kind is not kind:
        raise CorruptionError(f"head: a {head.kind.name.lower()} (wanted a {kind.name.lower()})")
    return head, problem


def _parse_head(view: memoryview) -> tuple[Head | None, str]:
    """Return the head, or None and why it cannot be used.

    Raises CorruptionError if it is whole, but of a version or a kind of file that is not known here.
    """
    if len(view) < HEAD_BYTES:
        return None, f"cut (got {len(view)} bytes, wanted {HEAD_BYTES})"
    name, version, kind, shard, number, created = _HEAD.unpack_from(view)
    if name != _NAME:
        return None, f"not a file of ccstore (got {bytes(view[:8])!r})"
    if _CRC.unpack_from(view, _HEAD.size)[0] != zlib.crc32(view[: _HEAD.size]):
        return None, "checksum mismatch"
    if version != _VERSION or kind not in [known.value for known in Kind]:
        raise CorruptionError(f"head: version {version} of {kind!r} (wanted {_VERSION} of a known kind)")
    return Head(Kind(kind), shard, number, created), ""


def encode_frame(kind: bytes, payload: bytes, *, samples: int = 0, flags: int = 0) -> bytes:
    """Return a frame.

    kind: one letter.
    samples: how many are lost if this frame is.
    """
    assert len(payload) <= MAX_PAYLOAD
    header = _HEADER.pack(_FRAME_MAGIC, kind, flags, 0, len(payload), samples, zlib.crc32(payload))
    return b"".join((header, _CRC.pack(zlib.crc32(header)), payload))


class FrameReader:
    """Iterates once over the whole frames of a file, and then tells what else it found.

    A frame is a view of the data: a map cannot be closed while one is held.
    Iterating raises CorruptionError if the file is one of another version or kind: leave it alone.
    """

    def __init__(self, data: Data, kind: Kind) -> None:
        self.head: Head | None = None
        """None if it is cut or damaged; the frames can be read all the same."""
        self.good = 0
        """Where the last whole frame ends, or the head if there is no frame."""
        self.damage: list[Damage] = []
        """What cannot be used although whole frames follow, in the order of offsets."""
        self.tail: Damage | None = None
        """What cannot be used at the end; its offset is `good`."""
        self._data = data
        self._kind = kind
        self._doubtful: Damage | None = None  # from `good` on: damage or tail, depending on what follows

    def __iter__(self) -> Iterator[Frame]:
        view = memoryview(self._data)
        at = self._read_head(view)
        while at < len(view):
            frame = find_frame(view, at)
            if frame is not None:
                self._trust(frame)
                yield frame
                at += frame.size
            else:
                stop, samples, reason = _diagnose(view, at)
                self._doubt(at, stop, samples, reason)
                at = stop
        self.tail = self._doubtful

    def reject(self, frame: Frame, reason: str) -> None:
        """Count the last frame as damage, because its payload is whole but makes no sense."""
        self.damage.append(Damage(frame.offset, frame.size, frame.samples, reason))

    def _read_head(self, view: memoryview) -> int:
        """Return where the frames begin."""
        stop = min(HEAD_BYTES, len(view))
        self.head, problem = check_head(view, self._kind)
        if self.head is not None:
            self.good = stop
        elif stop > 0:
            self._doubt(0, stop, 0, f"head: {problem}")
        return stop

    def _doubt(self, start: int, stop: int, samples: int | None, reason: str) -> None:
        """Take note of bytes that are damage or tail; what touches is one stretch."""
        before = self._doubtful
        if before is None:
            self._doubtful = Damage(start, stop - start, samples, reason)
        else:
            known = None if before.samples is None or samples is None else before.samples + samples
            self._doubtful = evolve(before, size=stop - before.offset, samples=known)

    def _trust(self, frame: Frame) -> None:
        """Take note that a frame is whole, so that all before it is not the tail."""
        if self._doubtful is not None:
            self.damage.append(self._doubtful)
            self._doubtful = None
        self.good = frame.offset + frame.size


def find_frame(view: memoryview, at: int) -> Frame | None:
    """Return the frame that begins there, if it is whole."""
    header = _parse_header(view, at)
    if header is None:
        return None
    kind, flags, size, samples, checksum = header
    payload = view[at + HEADER_BYTES : at + HEADER_BYTES + size]
    is_whole = len(payload) == size and zlib.crc32(payload) == checksum
    return Frame(at, kind, flags, samples, payload) if is_whole else None


def _diagnose(view: memoryview, at: int) -> tuple[int, int | None, str]:
    """Return where to go on behind what is no whole frame, how many samples are lost with it, and why."""
    header = _parse_header(view, at)
    if header is None:
        return _find_header(view, at + 1), None, "no whole header"
    _, _, size, samples, _ = header
    stop = at + HEADER_BYTES + size
    if stop <= len(view):
        return stop, samples, "payload checksum mismatch"
    # Nothing in there is looked at: what is left of a payload can look like a frame.
    return len(view), samples, f"payload cut (got {len(view) - at - HEADER_BYTES} bytes, wanted {size})"


def _parse_header(view: memoryview, at: int) -> tuple[bytes, int, int, int, int] | None:
    """Return kind, flags, size, samples and checksum of the payload; None if there is no whole header."""
    if len(view) - at < HEADER_BYTES:
        return None
    magic, kind, flags, reserved, size, samples, checksum = _HEADER.unpack_from(view, at)
    whole = at + _HEADER.size
    if (
        magic != _FRAME_MAGIC
        or reserved != 0
        or size > MAX_PAYLOAD
        or _CRC.unpack_from(view, whole)[0] != zlib.crc32(view[at:whole])
    ):
        return None
    return kind, flags, size, samples, checksum


def _find_header(view: memoryview, start: int) -> int:
    """Return where the next whole header begins, the end of the data if there is none."""
    while found := _FIND_HEADER.search(view, start):
        if _parse_header(view, found.start()) is not None:
            return found.start()
        start = found.start() + 1
    return len(view)
