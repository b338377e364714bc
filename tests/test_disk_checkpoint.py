"""The columnar checkpoint: what is written is read, block by block, and what is lost is counted."""

import struct
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from disk_columnar import (
    BLOCKS,
    CHECKPOINT,
    CHECKPOINT_CONTENT,
    CHECKPOINT_HEAD,
    NAN,
    SEGMENT,
    START,
    SUMMARY,
    blocks,
    common_start,
    make_names,
    make_runs,
    plain,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.disk.checkpoint import (
    BLOCK,
    END,
    END_BYTES,
    CheckpointReader,
    Encoder,
    Summary,
    encode_block,
    encode_end,
    read_summary,
)
from ccstore.disk.frames import COPY, HEAD_BYTES, HEADER_BYTES, encode_frame, encode_head
from ccstore.disk.names import Position
from ccstore.disk.segment import encode_names
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs

HEAD = encode_head(CHECKPOINT_HEAD)
WANTED = [plain(block) for block in CHECKPOINT_CONTENT]
ENDS = list(accumulate([*map(len, BLOCKS), END_BYTES // 2, END_BYTES // 2], initial=HEAD_BYTES))
VALUES = [5, 1]


def read(data: bytes) -> tuple[CheckpointReader, list[Any]]:
    """Return a reader that has read all, and what it found, to compare."""
    reader = CheckpointReader(data)
    return reader, [plain(found) for found in reader]


@settings(deadline=None)
@given(st.lists(blocks(), max_size=4), st.integers(-(2**63), 2**63 - 1))
def test_checkpoints_round_trip(content: list[tuple[Names, Runs]], start: int) -> None:
    """Blocks come back to the bit, each with its own names, and the end tells what there is."""
    data = HEAD + b"".join(encode_block(names, runs) for names, runs in content)
    values = sum(len(runs.values) for _, runs in content)
    summary = Summary(len(content), 1, 2, values, start, start + 1 if start < 2**63 - 1 else start)
    data += encode_end(summary, offset=len(data))
    reader, found = read(data)
    assert list(map(plain, content)) == found
    assert (reader.head, reader.damage, reader.tail) == (CHECKPOINT_HEAD, [], None)
    assert (summary, len(content), values, 0) == (reader.summary, reader.blocks, reader.values, reader.lost)
    assert summary == read_summary(data)


def test_the_example_round_trips() -> None:
    """Two blocks with names of their own, runs up to the end of a chunk, NaN and a negative zero."""
    reader, found = read(CHECKPOINT)
    assert found == WANTED
    assert (reader.summary, reader.blocks, reader.values, reader.lost) == (SUMMARY, 2, 6, 0)


def test_the_encoder_sums_up() -> None:
    """What the end says is what the blocks hold: from the first slot to the end of the last one."""
    encoder = Encoder()
    names = make_names([(-1, "fritz"), (0, "f0101")], [("cpu_load", 60), ("power", 7)], [(1, 0), (1, 1)])
    encoder.encode_block(names, make_runs([]))
    assert Summary(1, 2, 0, 0, 0, 0) == encoder.summary
    encoder.encode_block(names, make_runs([(0, 1000, 3, [1.0] * 4), (1, 1000, 500, [1.0])]))
    assert Summary(2, 4, 2, 5, 1180, 4507) == encoder.summary
    encoder.encode_block(names, make_runs([(1, -1000, 0, [1.0] * 2)]))
    assert Summary(3, 6, 3, 7, -1000, 4507) == encoder.summary


def test_a_checkpoint_of_nothing_is_complete() -> None:
    """A head and an end are a checkpoint."""
    summary = Summary(0, 0, 0, 0, 0, 0)
    reader, found = read(HEAD + encode_end(summary, offset=HEAD_BYTES))
    assert ([], summary, 0) == (found, reader.summary, reader.lost)


@pytest.mark.parametrize("garbage", [b"", bytes(60), BLOCKS[0][:-1], CHECKPOINT[-END_BYTES:]], ids=len)
def test_torn_at_every_byte(garbage: bytes) -> None:
    """Cut anywhere, with or without garbage: whole blocks are read, and it is known to be incomplete."""
    for size in range(len(CHECKPOINT)):
        data = CHECKPOINT[:size] + garbage
        same = common_start(data, CHECKPOINT)
        whole = sum(end <= same for end in ENDS[1:])
        reader, found = read(data)
        assert WANTED[:whole] == found
        assert (SUMMARY if whole > 2 else None) == reader.summary
        assert (0 if whole > 2 else None) == reader.lost
        if data != CHECKPOINT:
            assert reader.tail or reader.damage or whole == same == 0 or ENDS[whole] == len(data)
            assert read_summary(data) in (None, reader.summary)


@pytest.mark.parametrize("frame", range(4))
def test_a_flipped_bit_costs_at_most_its_block(frame: int) -> None:
    """Whichever bit flips, it is found; a block is lost alone and counted, and the end has a copy."""
    wanted = [found for block, found in enumerate(WANTED) if block != frame]
    values = VALUES[frame] if frame < 2 else 0
    for position in range(8 * ENDS[frame], 8 * ENDS[frame + 1]):
        data = bytearray(CHECKPOINT)
        data[position // 8] ^= 1 << position % 8
        reader, found = read(bytes(data))
        assert wanted == found
        lost = [*reader.damage, *([reader.tail] if reader.tail else [])]
        assert [(ENDS[frame], ENDS[frame + 1] - ENDS[frame])] == [(one.offset, one.size) for one in lost]
        assert lost[0].samples == (None if position < 8 * (ENDS[frame] + HEADER_BYTES) else values)
        assert (SUMMARY, values) == (reader.summary, reader.lost)
        assert read_summary(data) == SUMMARY


def test_a_flipped_bit_in_the_head_costs_the_head() -> None:
    """Whichever bit of the head flips: it is found, and all blocks are read."""
    for position in range(8 * HEAD_BYTES):
        data = bytearray(CHECKPOINT)
        data[position // 8] ^= 1 << position % 8
        reader, found = read(bytes(data))
        assert (reader.head, found, reader.summary) == (None, WANTED, SUMMARY)
        assert read_summary(data) == SUMMARY


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_no_checkpoint(garbage: bytes) -> None:
    """Anything may stand in a file: no block is found, and it is incomplete."""
    for data in (garbage, HEAD + garbage):
        reader, found = read(data)
        assert (found, reader.summary, reader.lost) == ([], None, None)
        assert read_summary(data) is None


def test_other_files_are_no_checkpoint() -> None:
    """A segment is an error, in every way of reading."""
    with pytest.raises(CorruptionError, match="head: a segment"):
        read(SEGMENT)
    with pytest.raises(CorruptionError, match="head: a segment"):
        read_summary(SEGMENT)


def test_an_end_belongs_to_its_place() -> None:
    """The end of another file, or with something cut out before it, makes nothing complete."""
    shorter = CHECKPOINT[: ENDS[0]] + CHECKPOINT[ENDS[1] :]
    reader, found = read(shorter)
    assert (WANTED[1:], None) == (found, reader.summary)
    assert f"end for byte {ENDS[2]} (wanted {len(shorter) - END_BYTES})" == reader.damage[0].reason
    assert read_summary(shorter) is None


NAMES, RUNS = CHECKPOINT_CONTENT[1]


def block(runs: Runs) -> bytes:
    """Return a block with the names of the second one, whatever its runs are."""
    return encode_block(NAMES, runs)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(encode_frame(b"?", b""), "frame of kind b'?'", id="kind"),
        pytest.param(encode_frame(END, b""), "frame of kind b'E'", id="short end"),
        pytest.param(encode_frame(BLOCK, b"", samples=7), "counts of names", id="empty"),
        pytest.param(
            encode_frame(BLOCK, BLOCKS[1][HEADER_BYTES:-1]), "values (got 3 bytes, wanted 4)", id="cut"
        ),
        pytest.param(encode_frame(BLOCK, BLOCKS[1][HEADER_BYTES:] + b"\0"), "values (got 5 bytes", id="more"),
        pytest.param(block(make_runs([(1, 0, 0, [1.0])])), "series out of range", id="series"),
        pytest.param(block(make_runs([(-1, 0, 0, [1.0])])), "series out of range", id="series -1"),
        pytest.param(block(make_runs([(0, 0, -1, [1.0])])), "first slots out of range", id="slot -1"),
        pytest.param(block(make_runs([(0, 0, 512, [1.0])])), "first slots out of range", id="slot 512"),
        pytest.param(
            block(make_runs([(0, 0, 0, []), (0, 0, 0, [1.0] * 20)])),
            "counts of slots out",
            id="no slots of two",
        ),
        pytest.param(block(make_runs([(0, 0, 0, [1.0] * 513)])), "counts of slots out", id="513 slots"),
        pytest.param(
            block(make_runs([(0, 0, 511, [1.0, 2.0])])), "a run beyond slot 512", id="beyond its chunk"
        ),
        pytest.param(
            encode_frame(BLOCK, encode_names(make_names(), position=Position(1))[HEADER_BYTES:]),
            "a block with names from",
            id="names of another",
        ),
        pytest.param(
            encode_frame(
                BLOCK,
                BLOCKS[1][HEADER_BYTES:].replace(
                    struct.pack("<IBI", 1, 1, 1), struct.pack("<IBI", 2**32 - 1, 1, 1)
                ),
            ),
            "runs (wanted at most",
            id="four billion runs",
        ),
    ],
)
def test_senseless_blocks_are_refused(frame: bytes, reason: str) -> None:
    """What no writer can have meant is damage with a reason, whatever its checksums; others are read."""
    reader, found = read(HEAD + frame + BLOCKS[0])
    assert WANTED[:1] == found
    assert [(HEAD_BYTES, len(frame))] == [(lost.offset, lost.size) for lost in reader.damage]
    assert reason in reader.damage[0].reason


def test_a_block_behind_the_end_is_refused() -> None:
    """A complete checkpoint does not go on."""
    reader, found = read(CHECKPOINT + BLOCKS[0])
    assert (found, reader.summary) == (WANTED, SUMMARY)
    assert [lost.reason for lost in reader.damage] == ["a block behind the end"]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=5),
    st.integers(0, 3),
    st.binary(max_size=9),
)
def test_anything_with_right_checksums_is_read_or_refused(
    changes: list[tuple[int, int]], flags: int, behind: bytes
) -> None:
    """Whatever a block holds, reading it ends in runs that fit its names, or in damage."""
    payload = bytearray(BLOCKS[0][HEADER_BYTES:] + behind)
    for byte, value in changes:
        payload[byte % len(payload)] = value
    reader = CheckpointReader(HEAD + encode_frame(BLOCK, bytes(payload), samples=5, flags=flags))
    found = list(reader)
    assert len(found) + len(reader.damage) == 1
    for names, runs in found:
        assert all(0 <= number < len(names.series_places) for number in runs.numbers.tolist())
        assert len(runs.numbers) == len(runs.starts) == len(runs.firsts) == len(runs.counts)
        assert len(runs.values) == runs.counts.sum()
        assert np.all(runs.firsts + runs.counts <= 512)


def test_a_usual_block_takes_few_bytes() -> None:
    """An hour of a sample a minute for 1000 hosts with 10 series each takes the values and 1 % more."""
    places = [(-1, "fritz"), *[(0, f"f{host:04d}") for host in range(1000)]]
    series = [(1 + number // 10, number % 10) for number in range(10_000)]
    names = make_names(places, [(f"metric_{number}", 60) for number in range(10)], series)
    values = np.random.default_rng(1).integers(0, 2**32, 600_000, dtype=np.uint32).view(np.float32)
    numbers = np.arange(10_000, dtype=np.int32)
    starts = START - np.repeat(np.random.default_rng(2).integers(0, 60, 1000), 10)
    runs = Runs(numbers, starts, np.full(10_000, 60, np.int32), np.full(10_000, 60, np.int32), values)
    assert len(encode_block(names, runs)) <= 1.01 * values.nbytes
    values[:] = np.repeat(np.arange(10_000), 60) % 100  # what does not change takes next to nothing
    assert len(encode_block(names, runs)) <= 0.02 * values.nbytes


def test_missing_values_stay_missing() -> None:
    """A run of nothing but NaN comes back as such."""
    runs = make_runs([(0, -(2**40), 100, [NAN] * 400)])
    data = HEAD + encode_block(NAMES, runs)
    assert [plain((NAMES, runs))] == read(data)[1]


def test_an_end_has_a_copy() -> None:
    """Both copies of the end are the same but for the flag and the checksum of the header."""
    first, copy = CHECKPOINT[-END_BYTES : -END_BYTES // 2], CHECKPOINT[-END_BYTES // 2 :]
    assert (first[HEADER_BYTES:], first[5], copy[5]) == (copy[HEADER_BYTES:], 0, COPY)
