"""The envelope: whole frames come out, every other byte is reported."""

import mmap
import struct
import tempfile
import zlib

import pytest
from disk_columnar import START, common_start
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.disk.frames import (
    COPY,
    HEAD_BYTES,
    HEADER_BYTES,
    MAX_PAYLOAD,
    Damage,
    FrameReader,
    Head,
    Kind,
    encode_frame,
    encode_head,
    read_head,
)
from ccstore.errors import CorruptionError

HEAD = Head(Kind.SEGMENT, shard=7, number=2**40, created=-START)
START_OF_FILE = encode_head(HEAD)
FRAMES = [
    encode_frame(b"a", b"one", samples=1),
    encode_frame(b"b", b"", samples=2, flags=COPY),
    encode_frame(b"c", b"three" * 5, samples=3),
    encode_frame(b"d", encode_frame(b"x", b"inside", samples=100), samples=4),
]
CONTENT = [
    (b"a", 0, 1, b"one"),
    (b"b", COPY, 2, b""),
    (b"c", 0, 3, b"three" * 5),
    (b"d", 0, 4, FRAMES[3][HEADER_BYTES:]),
]
FILE = START_OF_FILE + b"".join(FRAMES)
ENDS = [len(START_OF_FILE) + sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
"""Where each number of frames ends."""


def read(data: bytes) -> tuple[FrameReader, list[tuple[bytes, int, int, bytes]]]:
    """Return a reader that has read all, and the frames."""
    reader = FrameReader(data, Kind.SEGMENT)
    return reader, [(frame.kind, frame.flags, frame.samples, bytes(frame.payload)) for frame in reader]


def with_crc(raw: bytes) -> bytes:
    """Append the checksum of heads and headers."""
    return raw + struct.pack("<I", zlib.crc32(raw))


@settings(deadline=None)
@given(
    st.builds(
        Head,
        st.sampled_from(Kind),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(-(2**63), 2**63 - 1),
    ),
    st.binary(max_size=9),
)
def test_heads_round_trip(head: Head, rest: bytes) -> None:
    """A head comes back, whatever follows it."""
    assert head == read_head(encode_head(head) + rest)
    assert len(encode_head(head)) == HEAD_BYTES


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=1),
            st.integers(0, 255),
            st.integers(0, 2**32 - 1),
            st.binary(max_size=99),
        )
    )
)
def test_frames_round_trip(content: list[tuple[bytes, int, int, bytes]]) -> None:
    """Frames come back in their order, and nothing else is found."""
    frames = [
        encode_frame(kind, payload, samples=samples, flags=flags) for kind, flags, samples, payload in content
    ]
    reader, found = read(START_OF_FILE + b"".join(frames))
    assert content == found
    assert (reader.head, reader.damage, reader.tail) == (HEAD, [], None)
    assert HEAD_BYTES + sum(map(len, frames)) == reader.good


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"", id="cut"),
        pytest.param(bytes(60), id="zeros"),
        pytest.param(b"\xff" * 200, id="ones"),
        pytest.param(FRAMES[2][:4] * 9, id="magic"),
        pytest.param(FRAMES[2][:-1], id="frame without its last byte"),
        pytest.param(START_OF_FILE, id="head"),
    ],
)
def test_a_torn_file_keeps_its_whole_frames(garbage: bytes) -> None:
    """Cut at any byte, with anything but frames behind it: what is whole is read, the rest is the tail."""
    for size in range(len(FILE)):
        data = FILE[:size] + garbage
        same = common_start(data, FILE)  # garbage can go on as the file did
        whole = [0, *[end for end in ENDS if end <= same]]
        reader, found = read(data)
        assert CONTENT[: max(len(whole) - 2, 0)] == found
        assert ([], whole[-1]) == (reader.damage, reader.good)
        assert (len(data) - whole[-1] or None) == (reader.tail.size if reader.tail else None)


def test_a_torn_file_can_be_continued() -> None:
    """Cut at any byte, truncated to what is good and continued: all whole frames are read."""
    for size in range(HEAD_BYTES, len(FILE) + 1):
        reader, found = read(FILE[:size])
        again, all_found = read(FILE[: reader.good] + FRAMES[2] + FRAMES[0])
        assert [*found, CONTENT[2], CONTENT[0]] == all_found
        assert (again.damage, again.tail) == ([], None)


def test_the_tail_tells_how_many_samples_it_had() -> None:
    """As long as the header of a torn frame is whole it is known what is lost."""
    for size in range(ENDS[2] + 1, ENDS[3]):
        tail = read(FILE[:size])[0].tail
        assert tail is not None
        assert (3 if size >= ENDS[2] + HEADER_BYTES else None) == tail.samples


@pytest.mark.parametrize("byte", range(HEAD_BYTES, len(FILE)))
def test_a_flipped_bit_costs_one_frame(byte: int) -> None:
    """Whichever bit flips: it is found, the frame it is in is lost, and no other."""
    hit = sum(end <= byte for end in ENDS) - 1
    in_payload = byte >= ENDS[hit] + HEADER_BYTES
    for bit in range(8):
        data = bytearray(FILE)
        data[byte] ^= 1 << bit
        reader, found = read(bytes(data))
        if hit == 3 and not in_payload:  # its payload is a whole frame: nobody can know that it was none
            assert [*CONTENT[:3], (b"x", 0, 100, b"inside")] == found
            continue
        assert CONTENT[:hit] + CONTENT[hit + 1 :] == found
        lost = reader.tail if hit == 3 else reader.damage[0]
        assert lost is not None
        assert (ENDS[hit], ENDS[hit + 1] - ENDS[hit]) == (lost.offset, lost.size)
        assert (hit + 1 if in_payload else None) == lost.samples
        assert (hit == 3) == (reader.damage == [])
        assert (reader.tail is None) == (hit != 3)


def test_a_flipped_bit_in_the_head_costs_the_head() -> None:
    """Whichever bit of the head flips: it is found, and all frames are read."""
    for position in range(8 * HEAD_BYTES):
        data = bytearray(FILE)
        data[position // 8] ^= 1 << position % 8
        reader, found = read(bytes(data))
        assert (reader.head, found) == (None, CONTENT)
        assert [(lost.offset, lost.size, lost.samples) for lost in reader.damage] == [(0, HEAD_BYTES, 0)]


@pytest.mark.parametrize("size", range(1, 2 * HEADER_BYTES))
def test_frames_are_found_behind_anything(size: int) -> None:
    """However many bytes of garbage there are, the next frame begins right behind them."""
    reader, found = read(START_OF_FILE + FRAMES[0] + FRAMES[1][:size].ljust(size, b"\xcc")[::-1] + FRAMES[2])
    assert found == [CONTENT[0], CONTENT[2]]
    assert [(lost.offset, lost.size) for lost in reader.damage] == [(ENDS[1], size)]


def test_damage_that_touches_is_one_stretch() -> None:
    """Two damaged frames in a row are reported as one stretch with the samples of both."""
    data = bytearray(FILE)
    data[ENDS[1] - 1] ^= 1  # the last byte of the first frame
    data[ENDS[2] - 1] ^= 1  # and the checksum of the second one's header
    assert [Damage(ENDS[0], ENDS[2] - ENDS[0], None, "payload checksum mismatch")] == read(bytes(data))[
        0
    ].damage
    data[ENDS[2] - 1] ^= 1
    data[ENDS[3] - 1] ^= 1
    assert [(ENDS[0], 1), (ENDS[2], 3)] == [
        (lost.offset, lost.samples) for lost in read(bytes(data))[0].damage
    ]


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_garbage_has_no_frames(garbage: bytes, has_head: bool) -> None:
    """Anything may stand in a file: no frame is found, and all of it is the tail."""
    data = (START_OF_FILE if has_head else b"") + garbage
    reader, found = read(data)
    assert found == []
    assert HEAD_BYTES * has_head == reader.good
    assert (len(data) - reader.good or None) == (reader.tail.size if reader.tail else None)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        pytest.param(with_crc(b"ccstore\x02" + START_OF_FILE[8:32]), "head: version 2", id="version"),
        pytest.param(
            with_crc(b"ccstore\x01????" + START_OF_FILE[12:32]), "head: version 1 of b'????'", id="kind"
        ),
        pytest.param(
            encode_head(Head(Kind.CHECKPOINT, 0, 0, 0)), "head: a checkpoint (wanted a segment)", id="other"
        ),
    ],
)
def test_files_of_others_are_left_alone(head: bytes, reason: str) -> None:
    """A whole head of another version or kind is an error, not damage: such a file must not be cut."""
    with pytest.raises(CorruptionError) as caught:
        read(head + FILE[HEAD_BYTES:])
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "head: cut (got 0 bytes, wanted 36)"),
        (START_OF_FILE[:-1], "head: cut (got 35 bytes, wanted 36)"),
        (b"x" + START_OF_FILE[1:], "head: not a file of ccstore (got b'xcstore\\x01')"),
        (START_OF_FILE[:-1] + b"\0", "head: checksum mismatch"),
    ],
)
def test_a_damaged_head_is_an_error_by_itself(data: bytes, reason: str) -> None:
    """Who asks for the head alone gets it or an error."""
    with pytest.raises(CorruptionError) as caught:
        read_head(data)
    assert reason == str(caught.value)


@pytest.mark.parametrize("size", [MAX_PAYLOAD + 1, 2**32 - 1])
def test_a_header_may_not_claim_more_than_the_limit(size: int) -> None:
    """A header with too large a size is none, even with a right checksum."""
    header = with_crc(struct.pack("<4scBHIII", b"\xccfr\x01", b"a", 0, 0, size, 5, 0))
    reader, found = read(START_OF_FILE + header + FRAMES[0])
    assert [CONTENT[0]] == found
    assert [(lost.offset, lost.size, lost.samples) for lost in reader.damage] == [
        (HEAD_BYTES, HEADER_BYTES, None)
    ]


def test_a_payload_may_not_be_larger_than_the_limit() -> None:
    """What could not be read is not written."""
    with pytest.raises(AssertionError):
        encode_frame(b"a", bytes(MAX_PAYLOAD + 1))


def test_a_rejected_frame_is_damage() -> None:
    """Who cannot use a payload says so, and it is counted where it stands."""
    data = bytearray(FILE)
    data[ENDS[1] - 1] ^= 1
    reader = FrameReader(bytes(data), Kind.SEGMENT)
    for frame in reader:
        if frame.kind == b"c":
            reader.reject(frame, "no sense")
    assert reader.damage[1] == Damage(ENDS[2], len(FRAMES[2]), 3, "no sense")
    assert (len(FILE), None) == (reader.good, reader.tail)


def test_a_map_can_be_closed_after_reading() -> None:
    """A reader that has read all holds no view of the data any more."""
    with tempfile.TemporaryFile() as file:
        file.write(FILE)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = FrameReader(data, Kind.SEGMENT)
            assert len(FRAMES) == sum(1 for _ in reader)
        assert data.closed
