"""The reference's binary checkpoint: what is written, what is read, and what is refused."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from disk_reference import (
    EXAMPLE,
    GOLDEN,
    checkpoints,
    comparable,
    entry,
    snapshot_bytes,
    times,
)
from hypothesis import given
from hypothesis import strategies as st

from ccstore.disk.reference.checkpoint import MAX_DEPTH, Checkpoint, Level
from ccstore.disk.reference.snapshot import TRAILER_MAGIC, decode_period, decode_snapshot, encode_snapshot
from ccstore.errors import CorruptionError

EXAMPLE_BYTES = bytes.fromhex("""
    01 00 5b cc 84 03 00 00 00 00 00 00 b0 04 00 00
    00 00 00 00 01 00 00 00 01 00 6d 3c 00 00 00 00
    00 00 00 e8 03 00 00 00 00 00 00 03 00 00 00 00
    00 80 3e 00 00 a0 3f 00 00 10 40 01 00 00 00 07
    00 73 6f 63 6b 65 74 30 01 00 00 00 01 00 6e 3c
    00 00 00 00 00 00 00 24 04 00 00 00 00 00 00 01
    00 00 00 00 00 e0 40 00 00 00 00
""")
TRAILER_BYTES = 8
HEAD = struct.pack("<Iqq", 0xCC5B0001, 900, 1200)
METRIC = struct.pack("<H1s", 1, b"m")


def nested(depth: int) -> bytes:
    """Return a file with so many levels below the host."""
    return HEAD + (struct.pack("<IIH", 0, 1, 1) + b"x") * depth + bytes(8)


def read(data: bytes) -> Checkpoint | str:
    """Return what a file says, or what is wrong with it."""
    try:
        return decode_snapshot(data)
    except CorruptionError as error:
        return str(error)


def test_worked_file() -> None:
    """The file of the description is read, and ours begins with its bytes."""
    assert snapshot_bytes(EXAMPLE) == EXAMPLE_BYTES
    assert comparable(EXAMPLE) == comparable(decode_snapshot(EXAMPLE_BYTES))
    assert encode_snapshot(EXAMPLE)[:-TRAILER_BYTES] == EXAMPLE_BYTES


def test_trailer() -> None:
    """Behind the levels stand a magic number and the checksum of everything before."""
    body = EXAMPLE_BYTES + bytes.fromhex("02005bcc")
    assert encode_snapshot(EXAMPLE) == body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("name", ["reference.bin", "ccstore.bin"])
def test_golden_files(name: str) -> None:
    """The golden files are read, and ours is written again the same."""
    data = (GOLDEN / name).read_bytes()
    assert comparable(EXAMPLE) == comparable(decode_snapshot(data))
    assert data == encode_snapshot(EXAMPLE)[: len(data)]


@given(checkpoints())
def test_round_trip(checkpoint: Checkpoint) -> None:
    """What is written equals what is written level by level but for the trailer, and reads back."""
    data = encode_snapshot(checkpoint)
    assert data[:-TRAILER_BYTES] == snapshot_bytes(checkpoint)
    assert comparable(checkpoint) == comparable(decode_snapshot(data))
    assert (checkpoint.start, checkpoint.stop) == decode_period(data[:20])


def test_values_are_kept_bit_for_bit() -> None:
    """Infinities and every pattern of NaN come back as they were."""
    bits = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 1, 0x80000000], np.uint32)
    found = decode_snapshot(
        encode_snapshot(Checkpoint(0, 0, Level({"m": entry(1, 0, bits.view(np.float32))})))
    )
    assert bits.tolist() == np.array(found.host.entries["m"].values).view(np.uint32).tolist()


def test_a_metric_without_values() -> None:
    """A metric may have no values."""
    checkpoint = Checkpoint(1, 2, Level({"m": entry(60, 5, [])}))
    assert comparable(checkpoint) == comparable(decode_snapshot(snapshot_bytes(checkpoint)))


@given(st.binary(max_size=40))
def test_what_follows_is_ignored(rest: bytes) -> None:
    """As with the reference, bytes behind the levels mean nothing."""
    assert comparable(EXAMPLE) == comparable(decode_snapshot(EXAMPLE_BYTES + rest))


# --- what is refused


def test_a_flipped_bit_at_every_byte() -> None:
    """Damage anywhere is found, but in the trailer's magic number, where it does no harm."""
    data = encode_snapshot(EXAMPLE)
    harmless = range(len(data) - TRAILER_BYTES, len(data) - 4)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            if at in harmless:
                assert comparable(EXAMPLE) == comparable(decode_snapshot(bytes(damaged)))
            else:
                with pytest.raises(CorruptionError):
                    decode_snapshot(bytes(damaged))


def test_cut_at_every_byte() -> None:
    """A file that ends within its levels is refused; without a whole trailer it is as the reference's."""
    data = encode_snapshot(EXAMPLE)
    for cut in range(len(EXAMPLE_BYTES)):
        with pytest.raises(CorruptionError):
            decode_snapshot(data[:cut])
    for cut in range(len(EXAMPLE_BYTES), len(data)):
        assert comparable(EXAMPLE) == comparable(decode_snapshot(data[:cut]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: file ends within its head (0 bytes, wanted 20 or more)"),
        (HEAD[:19], "byte 0: file ends within its head (19 bytes, wanted 20 or more)"),
        (HEAD, "byte 20: file ends within number of metrics (0 bytes, wanted 4)"),
        (bytes(100), "byte 0: no snapshot (got '00000000', wanted '01005bcc')"),
        (HEAD + b"\xff" * 40, "byte 20: 4294967295 metrics in 36 bytes (wanted 22 each or more)"),
        (HEAD + bytes(4) + b"\xff" * 40, "byte 24: 4294967295 children in 36 bytes (wanted 10 each or more)"),
        (
            HEAD + struct.pack("<I", 1) + METRIC + struct.pack("<qqI", 60, 0, 2**32 - 1) + bytes(8),
            "byte 47: file ends within 4294967295 values (8 bytes, wanted 17179869180)",
        ),
        (
            HEAD + struct.pack("<IH", 1, 30) + bytes(29),
            "byte 26: file ends within name of 30 bytes (29 bytes, wanted 30)",
        ),
        (
            HEAD + struct.pack("<I", 1) + METRIC + struct.pack("<qqI", 0, 5, 0) + bytes(4),
            "byte 27: frequency 0 (wanted 1 to 2147483647 s)",
        ),
        (
            HEAD + struct.pack("<I", 1) + METRIC + struct.pack("<qqIf", 60, 2**63 - 100, 1, 1.0) + bytes(4),
            "byte 27: 1 values from 9223372036854775708 every 60 s (wanted 64-bit times)",
        ),
        (
            HEAD + struct.pack("<I", 1) + METRIC + struct.pack("<qqIf", 60, -(2**63) + 59, 1, 1.0) + bytes(4),
            "byte 27: 1 values from -9223372036854775749 every 60 s (wanted 64-bit times)",
        ),
        (
            HEAD + struct.pack("<I", 1) + METRIC + struct.pack("<qqI", 2**31, 5, 0) + bytes(4),
            "byte 27: frequency 2147483648 (wanted 1 to 2147483647 s)",
        ),
        (
            HEAD + struct.pack("<IIH", 0, 1, 256) + bytes(264),
            "byte 28: name of 256 bytes (wanted at most 255)",
        ),
        (nested(MAX_DEPTH + 1), "byte 50: nested deeper (wanted at most 2 levels)"),
        (nested(100_000), "byte 50: nested deeper (wanted at most 2 levels)"),
        (
            encode_snapshot(EXAMPLE)[:-4] + bytes(4),
            "byte 111: checksum mismatch (stored 0x00000000, computed 0xcfb76aa9)",
        ),
    ],
)
def test_bad_files(data: bytes, message: str) -> None:
    """A file that cannot be right is refused with place and reason."""
    with pytest.raises(CorruptionError) as caught:
        decode_snapshot(data)
    assert message == str(caught.value)


def test_nesting_up_to_the_limit() -> None:
    """As many levels as allowed are read."""
    level = decode_snapshot(nested(MAX_DEPTH)).host
    for _ in range(MAX_DEPTH):
        level = level.children["x"]
    assert level == Level()


def test_a_count_of_16_gib_costs_nothing() -> None:
    """A damaged number of values is refused before room is made for them."""
    data = HEAD + struct.pack("<I", 1) + METRIC + struct.pack("<qqI", 60, 0, 2**32 - 1) + bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError):
            decode_snapshot(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), times, times)
def test_garbage(data: bytes, start: int, stop: int) -> None:
    """Whatever follows the head, it is a file or a CorruptionError."""
    found = read(struct.pack("<Iqq", 0xCC5B0001, start, stop) + data)
    if isinstance(found, str):
        assert found.startswith("byte ")
    else:
        assert (start, stop) == (found.start, found.stop)


@given(checkpoints(), st.data())
def test_damaged_files(checkpoint: Checkpoint, data: st.DataObject) -> None:
    """Bytes that are replaced in a file without trailer give a file or a CorruptionError."""
    damaged = bytearray(snapshot_bytes(checkpoint))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    found = read(bytes(damaged))
    assert isinstance(found, Checkpoint) or found.startswith("byte ")


def test_names_that_are_no_text() -> None:
    """Bytes that are no UTF-8 are replaced."""
    data = snapshot_bytes(Checkpoint(1, 2, Level({"ab": entry(60, 5, [1])}))).replace(b"ab", b"a\xff")
    assert list(decode_snapshot(data).host.entries) == ["a�"]


def test_the_trailer_is_looked_for_at_the_end() -> None:
    """Damage that makes the levels end early is found, although what follows them is ignored."""
    data = bytearray(encode_snapshot(EXAMPLE))
    assert data[59] == 1, "the number of children of the host"
    data[59] = 0
    with pytest.raises(CorruptionError, match="checksum mismatch"):
        decode_snapshot(bytes(data))
    assert data[-8:-4] == TRAILER_MAGIC
    assert decode_snapshot(bytes(data[:-8])).host.children == {}
