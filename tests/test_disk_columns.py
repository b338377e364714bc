"""Columns of numbers: whatever goes in comes out, and whatever else is read is refused."""

import struct
import tracemalloc

import numpy as np
import pytest
from disk_columnar import START, float_bits, floats_of, int64s, stretches
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.disk.columns import (
    DELTAS,
    MAX_COLUMN,
    OFFSETS,
    RUNS,
    ColumnReader,
    compress,
    encode_integers,
    encode_texts,
)
from ccstore.errors import CorruptionError

LOW, HIGH = -(2**63), 2**63 - 1


def read_integers(data: bytes, count: int, low: int = LOW, high: int = HIGH) -> list[int]:
    """Read the only column of a payload."""
    columns = ColumnReader(memoryview(data), is_compressed=False)
    numbers: list[int] = columns.integers(count, "numbers", low=low, high=high).tolist()
    columns.finish()
    return numbers


@settings(deadline=None)  # the first call may compile a kernel
@given(stretches() | st.lists(int64s, max_size=50))
def test_integers_round_trip(numbers: list[int]) -> None:
    """All of int64 comes back, however far the numbers lie from each other."""
    assert numbers == read_integers(encode_integers(np.array(numbers, np.int64)), len(numbers))


@pytest.mark.parametrize(
    ("numbers", "coding", "size"),
    [
        ([], DELTAS, 0),
        ([5], DELTAS, 1),
        (range(1000), RUNS, 4),  # step, first, and a length of two bytes
        ([START] * 1000, RUNS, 8),
        (range(START, START + 60_000, 60), RUNS, 8),
        ([*range(100), *range(5000, 5100), *range(100)], RUNS, 9),
        ([START + (k * k) % 61 for k in range(1000)], OFFSETS, 9 + 750),  # below 64: 6 bits each
        ([k * k for k in range(1000)], DELTAS, 1967),  # steps below 64 take one byte, others two
        ([-(2**63), 2**63 - 1] * 20, DELTAS, 49),  # the step of 2**64 - 1 is one of -1
    ],
)
def test_the_shortest_coding_is_used(numbers: list[int], coding: int, size: int) -> None:
    """Runs for what goes on evenly, offsets for what stays near, differences for what grows."""
    data = encode_integers(np.array(numbers, np.int64))
    assert (coding, size) == struct.unpack_from("<BI", data)
    assert list(numbers) == read_integers(data, len(numbers))


@settings(deadline=None)  # the first call may compile a kernel
@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 300), max_size=50), st.integers(1, 40))
def test_integers_of_32_bits_are_coded_like_those_of_64(numbers: list[int], length: int) -> None:
    """How wide the array is does not matter."""
    column = np.repeat(np.array(numbers, np.int64), length)
    assert encode_integers(column.astype(np.int32)) == encode_integers(column)


@settings(deadline=None)  # the first call may compile a kernel
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
        max_size=9,
    )
)
def test_texts_round_trip(texts: list[str]) -> None:
    """Texts come back letter by letter."""
    columns = ColumnReader(memoryview(encode_texts(texts)), is_compressed=False)
    assert texts == columns.texts(len(texts), "texts")
    columns.finish()


@settings(deadline=None)  # the first call may compile a kernel
@given(st.lists(float_bits, max_size=600), st.booleans())
def test_values_keep_their_bits(bits: list[int], repeated: bool) -> None:
    """Values come back to the bit, NaN with its payload, compressed or not."""
    values = floats_of(bits * 20 if repeated else bits)
    payload, is_compressed = compress([b"front"], values)
    columns = ColumnReader(memoryview(payload), is_compressed=is_compressed)
    assert bytes(columns.take(5, "front")) == b"front"
    assert values.view(np.uint32).tolist() == columns.values(len(values)).view(np.uint32).tolist()


def test_values_are_a_copy() -> None:
    """What was read stays when the file is unmapped or its buffer is used again."""
    buffer = bytearray(compress([], np.array([1.5, 2.5], np.float32))[0])
    values = ColumnReader(memoryview(buffer), is_compressed=False).values(2)
    buffer[:] = bytes(len(buffer))
    assert values.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("count", [1000, 100_000])
def test_only_what_shrinks_is_compressed(count: int) -> None:
    """Noise stays as it is, round numbers shrink by more than a tenth."""
    noise = np.random.default_rng(1).integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    assert compress([], noise) == (noise.tobytes(), False)
    payload, is_compressed = compress([], np.arange(count, dtype=np.float32) % 100)
    assert is_compressed
    assert len(payload) < 0.9 * 4 * count


def test_how_much_compression_has_to_save_can_be_told() -> None:
    """Values that shrink by some fifth, as their exponents are alike, are compressed if that is enough."""
    values = np.random.default_rng(1).gamma(2.0, 500.0, 10_000).astype(np.float32)
    payload, is_compressed = compress([], values, worth=0.9)
    assert is_compressed
    assert 0.67 * values.nbytes < len(payload) < 0.9 * values.nbytes
    assert compress([], values, worth=0.67) == (values.tobytes(), False)


def column(coding: int, data: bytes) -> bytes:
    """Return a column as it stands in a payload."""
    return struct.pack("<BI", coding, len(data)) + data


OFFSETS_HEAD = struct.pack("<qB", 0, 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "numbers (got 0 bytes, wanted 5)", id="nothing"),
        pytest.param(column(DELTAS, b"\0\0")[:-1], "numbers (got 1 bytes, wanted 2)", id="cut"),
        pytest.param(column(3, b"\0\0"), "malformed numbers (coding 3)", id="unknown coding"),
        pytest.param(column(DELTAS, b"\0"), "malformed", id="too few deltas"),
        pytest.param(column(DELTAS, b"\0\0\0"), "malformed", id="too many deltas"),
        pytest.param(column(DELTAS, b"\0\x80"), "malformed", id="cut varint"),
        pytest.param(column(DELTAS, b"\0" + b"\xff" * 9 + b"\x02"), "malformed", id="65 bits"),
        pytest.param(column(DELTAS, b"\0" + b"\x80" * 10 + b"\x00"), "malformed", id="eleven bytes"),
        pytest.param(column(RUNS, b""), "malformed", id="no runs"),
        pytest.param(column(RUNS, b"\0\0"), "malformed", id="a run without length"),
        pytest.param(column(RUNS, b"\0\0\0\0\2"), "malformed", id="a run of length 0"),
        pytest.param(column(RUNS, b"\0\0\1"), "malformed", id="too short runs"),
        pytest.param(column(RUNS, b"\0\0\3"), "malformed", id="too long runs"),
        pytest.param(column(RUNS, b"\0\0\1\0\1\0"), "malformed", id="half a run"),
        pytest.param(column(OFFSETS, OFFSETS_HEAD[:-1]), "malformed", id="cut head of offsets"),
        pytest.param(column(OFFSETS, OFFSETS_HEAD + b"\0"), "malformed", id="too few offsets"),
        pytest.param(column(OFFSETS, OFFSETS_HEAD + b"\0\0\0"), "malformed", id="too many offsets"),
        pytest.param(column(OFFSETS, struct.pack("<qB", 0, 57) + bytes(15)), "malformed", id="too wide"),
        pytest.param(
            column(DELTAS, b"\x0a\x02"), "numbers out of range (got 5 to 6, wanted 0 to 5)", id="high"
        ),
        pytest.param(
            column(DELTAS, b"\x0a\x0b"), "numbers out of range (got -1 to 5, wanted 0 to 5)", id="low"
        ),
        pytest.param(column(DELTAS, b"\0\0") + b"\0", "1 more bytes (wanted the end)", id="more"),
    ],
)
def test_malformed_integers_are_refused(data: bytes, reason: str) -> None:
    """What is no column of two numbers from 0 to 5 is an error that says why."""
    with pytest.raises(CorruptionError) as caught:
        read_integers(data, 2, low=0, high=5)
    assert reason in str(caught.value)


@pytest.mark.parametrize("count", [MAX_COLUMN + 1, 2**32 - 1])
def test_a_claim_costs_nothing(count: int) -> None:
    """A column that claims more numbers than there may be is refused before memory is taken for them."""
    data = column(RUNS, b"\0\0\xff\xff\xff\xff\x0f")
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="wanted at most"):
            read_integers(data, count)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\1\1ab"[:3], "texts (got 1 bytes, wanted 2)", id="cut"),
        pytest.param(b"\1", "texts (got 1 bytes, wanted 2)", id="cut sizes"),
        pytest.param(b"\0\1a", "texts empty or with a NUL", id="empty"),
        pytest.param(b"\1\1a\0", "texts empty or with a NUL", id="NUL"),
        pytest.param(b"\1\1\xc3\xa4", "texts not in UTF-8", id="half a letter each"),
        pytest.param(b"\1\3a\xed\xa0\x80", "texts not in UTF-8", id="surrogate"),
    ],
)
def test_malformed_texts_are_refused(data: bytes, reason: str) -> None:
    """What is no column of two texts is an error that says why."""
    with pytest.raises(CorruptionError) as caught:
        ColumnReader(memoryview(data), is_compressed=False).texts(2, "texts")
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 256])
def test_what_could_not_be_read_is_not_written(text: str) -> None:
    """A name that a reader would refuse is our own bug, and not written."""
    with pytest.raises(AssertionError):
        encode_texts([text])
