"""A damaged segment: what is whole is read, what is lost is counted, and never is a value wrong."""

import itertools
import struct
from typing import Any

import numpy as np
import pytest
from disk_columnar import (
    FIRST_SAMPLES,
    MORE_SAMPLES,
    SEGMENT,
    SEGMENT_CONTENT,
    SEGMENT_FRAMES,
    SEGMENT_HEAD,
    START,
    common_start,
    make_names,
    make_samples,
    plain,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.disk.frames import COMPRESSED, COPY, HEAD_BYTES, HEADER_BYTES, encode_frame, encode_head
from ccstore.disk.names import MAX_NUMBERS, Position
from ccstore.disk.segment import NAMES, SAMPLES, SegmentReader, encode_names, encode_samples
from ccstore.model import Names

HEAD = encode_head(SEGMENT_HEAD)
WANTED = [plain(found) for found in SEGMENT_CONTENT]

# names are written twice: where the whole frames of the example end
_SIZES = [
    size
    for part, found in zip(SEGMENT_FRAMES, SEGMENT_CONTENT, strict=True)
    for size in ([len(part) // 2] * 2 if isinstance(found, Names) else [len(part)])
]
ENDS = list(itertools.accumulate(_SIZES, initial=HEAD_BYTES))
ITEM = [0, 0, 1, 2, 2, 3]
"""What each frame holds a part of."""


def read(data: bytes) -> tuple[SegmentReader, list[Any]]:
    """Return a reader that has read all, and what it found, to compare."""
    reader = SegmentReader(data)
    return reader, [plain(found) for found in reader]


def items_of(frames: int) -> list[Any]:
    """Return what is read of so many whole frames."""
    return [WANTED[item] for item in sorted(set(ITEM[:frames]))]


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"", id="cut"),
        pytest.param(bytes(60), id="zeros"),
        pytest.param(SEGMENT_FRAMES[0][:4] * 20, id="magic"),
        pytest.param(SEGMENT_FRAMES[1][:-1], id="frame without its last byte"),
    ],
)
def test_torn_at_every_byte(garbage: bytes) -> None:
    """Cut anywhere, with or without garbage: all whole frames are read, and those of a restart."""
    for size in range(len(SEGMENT)):
        data = SEGMENT[:size] + garbage
        same = common_start(data, SEGMENT)
        good = max([end for end in ENDS if end <= same], default=0)
        frames = sum(end <= same for end in ENDS[1:])
        reader, found = read(data)
        assert items_of(frames) == found
        assert ([], good, 0) == (reader.damage, reader.good, reader.nameless)
        assert (len(data) - good or None) == (reader.tail.size if reader.tail else None)
        if frames:
            again, found = read(data[:good] + SEGMENT_FRAMES[1])
            assert [*items_of(frames), WANTED[1]] == found
            assert (again.damage, again.tail) == ([], None)


@pytest.mark.parametrize("frame", range(len(ITEM)))
def test_a_flipped_bit_costs_at_most_its_frame(frame: int) -> None:
    """Whichever bit flips, it is found; names have a copy, of samples one frame is lost."""
    is_names = ITEM[frame] in (0, 2)
    wanted = [found for item, found in enumerate(WANTED) if is_names or item != ITEM[frame]]
    content = SEGMENT_CONTENT[ITEM[frame]]
    samples = 0 if isinstance(content, Names) else len(content.numbers)
    for position in range(8 * ENDS[frame], 8 * ENDS[frame + 1]):
        data = bytearray(SEGMENT)
        data[position // 8] ^= 1 << position % 8
        reader, found = read(bytes(data))
        assert wanted == found
        lost = [*reader.damage, *([reader.tail] if reader.tail else [])]
        assert [(ENDS[frame], ENDS[frame + 1] - ENDS[frame])] == [(one.offset, one.size) for one in lost]
        assert lost[0].samples == (None if position < 8 * (ENDS[frame] + HEADER_BYTES) else samples)
        assert (0, 5 - samples) == (reader.nameless, reader.samples)


def test_a_flipped_bit_in_the_head_costs_the_head() -> None:
    """Whichever bit of the head flips: it is found, and everything is read."""
    for position in range(8 * HEAD_BYTES):
        data = bytearray(SEGMENT)
        data[position // 8] ^= 1 << position % 8
        reader, found = read(bytes(data))
        assert (reader.head, found) == (None, WANTED)
        assert [(one.offset, one.size) for one in reader.damage] == [(0, HEAD_BYTES)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SEGMENT) - 1), st.integers(0, 255)), max_size=40))
def test_whatever_is_damaged_no_value_is_wrong(changes: list[tuple[int, int]]) -> None:
    """Any bytes may change: what is read of a series was written for it."""
    data = bytearray(SEGMENT)
    for byte, value in changes:
        data[byte] = value
    names: list[tuple[str, str]] = []
    places: list[str] = []
    metrics: list[str] = []
    found = set()
    for one in SegmentReader(bytes(data)):
        if isinstance(one, Names):
            for parent, name in zip(one.parents.tolist(), one.place_names, strict=True):
                places.append(name if parent < 0 else f"{places[parent]}/{name}")
            metrics += one.metric_names
            pairs = zip(one.series_places.tolist(), one.series_metrics.tolist(), strict=True)
            names += [(places[place], metrics[metric]) for place, metric in pairs]
        else:
            columns = (one.numbers.tolist(), one.times.tolist(), one.values.view(np.uint32).tolist())
            found |= {(*names[number], time, bits) for number, time, bits in zip(*columns, strict=True)}
    assert found <= {
        ("fritz/f0101", "cpu_load", START, 0x3FC00000),
        ("fritz/f0101/socket0", "power", START, 0x42B48000),
        ("fritz/f0101", "cpu_load", START + 60, 0x7FC00000),
        ("fritz/f0101/socket0", "power", START + 60, 0x80000000),
        ("fritz/f0102", "cpu_load", START + 61, 0x3F000000),
    }


# --- names that are lost with their copy


def segment(*parts: bytes) -> bytes:
    """Return a segment."""
    return HEAD + b"".join(parts)


def test_lost_names_shift_nothing() -> None:
    """If names are lost twice their samples are counted, and later names and samples keep their meaning."""
    alone = make_names([(-1, "alex"), (4, "a0001")], [("temp", 10)], [(5, 2), (1, 2), (5, 0)])
    mixed = make_samples([(0, 1, 1.0), (3, 2, 2.0), (1, 3, 3.0), (4, 4, 4.0), (5, 5, 5.0), (9, 6, 6.0)])
    reader, found = read(
        segment(
            SEGMENT_FRAMES[1],  # samples, but the names before them are missing
            SEGMENT_FRAMES[2],  # a host of a cluster that is lost, and a series of it
            encode_names(alone, position=Position(4, 2, 3)),
            encode_samples(mixed),
        )
    )
    nothing = make_samples([])
    wanted = [
        nothing,
        make_names(),
        make_names(
            [(-1, "alex"), (0, "a0001")], [("temp", 10)], [(1, 0)]
        ),  # of three, one has place and metric
        make_samples([(0, 2, 2.0)]),
    ]
    assert list(map(plain, wanted)) == found
    assert (reader.damage, reader.tail, reader.nameless, reader.samples) == ([], None, 4 + 5, 1)


def test_names_behind_a_gap_go_on_where_the_known_ones_end() -> None:
    """After a gap the numbers that a reader gives continue those before the gap."""
    reader, found = read(
        segment(
            SEGMENT_FRAMES[0],
            encode_names(
                make_names([(0, "f0199")], [("flops", 60)], [(13, 3)]), position=Position(13, 3, 12)
            ),
            encode_samples(make_samples([(12, START, 1.0), (1, START, 2.0), (7, START, 3.0)])),
        )
    )
    assert [
        WANTED[0],
        plain(make_names([(0, "f0199")], [("flops", 60)], [(3, 2)])),
        plain(make_samples([(2, START, 1.0), (1, START, 2.0)])),
    ] == found
    assert reader.nameless == 1


def test_names_that_were_refused_are_lost() -> None:
    """What hangs on names that made no sense is left out, like what hangs on names that are missing."""
    reader, found = read(
        segment(
            SEGMENT_FRAMES[0],
            names_frame(make_names([(0, "f0198"), (0, "..")]), NEXT),
            names_frame(make_names([(3, "socket0"), (0, "f0199")], [], [(5, 0), (6, 0)]), Position(5, 2, 2)),
        )
    )
    assert [WANTED[0], plain(make_names([(0, "f0199")], [], [(3, 0)]))] == found
    assert [lost.reason for lost in reader.damage] == ["cluster or host '..' (wanted no '/', '.' and '..')"]


# --- payloads with right checksums that make no sense


def rejected(frame: bytes) -> str:
    """Return why the frame behind the first names is refused; everything around it must be read."""
    reader, found = read(segment(*SEGMENT_FRAMES[:1], frame, *SEGMENT_FRAMES[1:]))
    assert found == WANTED
    offset = HEAD_BYTES + len(SEGMENT_FRAMES[0])
    assert [(offset, len(frame))] == [(lost.offset, lost.size) for lost in reader.damage]
    return reader.damage[0].reason


def names_frame(names: Names, position: Position, *, flags: int = 0) -> bytes:
    """Return one frame with names, without its copy."""
    data = encode_names(names, position=position)
    return encode_frame(NAMES, data[HEADER_BYTES : len(data) // 2], flags=flags)


NEXT = Position(3, 2, 2)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(encode_frame(b"?", b""), "frame of kind b'?'", id="kind"),
        pytest.param(encode_frame(NAMES, b""), "counts of names (got 0 bytes", id="no counts"),
        pytest.param(
            names_frame(make_names([(4, "a"), (0, "b")]), NEXT),
            "a place named before its parent",
            id="parent",
        ),
        pytest.param(
            names_frame(make_names([(3, "a")]), NEXT), "a place named before its parent", id="own parent"
        ),
        pytest.param(names_frame(make_names([(-2, "a")]), NEXT), "parents out of range", id="below -1"),
        pytest.param(
            names_frame(make_names([(2, "a"), (3, "b")]), NEXT), "a place below a subcomponent", id="deep"
        ),
        pytest.param(
            names_frame(make_names([(-1, "a/b")]), NEXT), "cluster or host 'a/b'", id="cluster with /"
        ),
        pytest.param(names_frame(make_names([(0, "..")]), NEXT), "cluster or host '..'", id="host .."),
        pytest.param(
            names_frame(make_names([], [("m", 0)]), NEXT), "frequencies out of range", id="frequency 0"
        ),
        pytest.param(
            names_frame(make_names([], [], [(3, 0)]), NEXT), "places of series out of range", id="place"
        ),
        pytest.param(
            names_frame(make_names([], [], [(1, 2)]), NEXT), "metrics of series out of range", id="metric"
        ),
        pytest.param(
            names_frame(make_names([], [], [(0, 0)]), NEXT), "a series of a cluster", id="at a cluster"
        ),
        pytest.param(
            names_frame(make_names([(0, "f")]), Position(2, 2, 2)), "wanted none before", id="place taken"
        ),
        pytest.param(
            names_frame(make_names([], [], [(1, 0)]), Position(3, 2, 1)), "wanted none before", id="taken"
        ),
        pytest.param(
            names_frame(make_names(), Position(3, 1, 2), flags=COPY), "wanted none before", id="copy"
        ),
        pytest.param(
            encode_frame(NAMES, struct.pack("<6I", MAX_NUMBERS, 0, 0, 1, 0, 0)),
            "of a file (wanted at most",
            id="many",
        ),
        pytest.param(
            encode_frame(NAMES, struct.pack("<6I", *[2**32 - 1] * 6)),
            "of a file (wanted at most",
            id="far too many",
        ),
        pytest.param(encode_frame(NAMES, b"12345", flags=COMPRESSED), "compressed payload", id="no zstd"),
        pytest.param(
            encode_frame(NAMES, b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\x7f", flags=COMPRESSED),
            "compressed payload of 2147483647 bytes",
            id="zstd of 2 GiB",
        ),
        pytest.param(
            encode_frame(SAMPLES, encode_samples(FIRST_SAMPLES)[HEADER_BYTES:], samples=5),
            "malformed series",
            id="count",
        ),
        pytest.param(
            encode_frame(SAMPLES, encode_samples(MORE_SAMPLES)[HEADER_BYTES:] + b"\0", samples=1),
            "values (got 5 bytes, wanted 4)",
            id="more",
        ),
        pytest.param(encode_samples(make_samples([(-1, 0, 0.0)])), "series out of range", id="series -1"),
        pytest.param(
            encode_samples(make_samples([(MAX_NUMBERS, 0, 0.0)])), "series out of range", id="large series"
        ),
    ],
)
def test_senseless_payloads_are_refused(frame: bytes, reason: str) -> None:
    """A payload that no writer can have meant is damage with a reason, even with right checksums."""
    assert reason in rejected(frame)


def payload_of(frame: bytes, size: int) -> bytes:
    """Return the payload of a frame of so many bytes, which others may follow."""
    return frame[HEADER_BYTES:size]


PAYLOADS = [
    (NAMES, payload_of(SEGMENT_FRAMES[0], _SIZES[0]), 0),
    (NAMES, payload_of(SEGMENT_FRAMES[2], _SIZES[3]), 0),
    (SAMPLES, payload_of(SEGMENT_FRAMES[1], _SIZES[2]), 4),
]


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(range(len(PAYLOADS))),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.integers(0, 3),
    st.integers(-2, 2) | st.integers(0, 2**32 - 5),
    st.binary(max_size=9),
)
def test_anything_with_right_checksums_is_read_or_refused(
    which: int, changes: list[tuple[int, int]], flags: int, more: int, behind: bytes
) -> None:
    """Whatever a payload holds, reading it ends in values that fit each other, or in damage."""
    kind, whole, samples = PAYLOADS[which]
    payload = bytearray(whole + behind)
    for byte, value in changes:
        payload[byte % len(payload)] = value
    frame = encode_frame(kind, bytes(payload), samples=max(samples + more, 0), flags=flags)
    reader = SegmentReader(segment(SEGMENT_FRAMES[0], frame))
    series = 0
    for found in reader:
        if isinstance(found, Names):
            assert len(found.parents) == len(found.place_names)
            assert len(found.frequencies) == len(found.metric_names)
            assert len(found.series_places) == len(found.series_metrics)
            series += len(found.series_places)
        else:
            assert len(found.numbers) == len(found.times) == len(found.values)
            assert all(0 <= number < series for number in found.numbers.tolist())
    assert len(reader.damage) <= 1
