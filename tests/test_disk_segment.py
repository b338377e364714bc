"""The columnar log: what is written is read, names included, in few bytes."""

import mmap
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from disk_columnar import (
    CHECKPOINT,
    FIRST_SAMPLES,
    SEGMENT,
    SEGMENT_CONTENT,
    SEGMENT_HEAD,
    START,
    columns_of,
    contents,
    make_names,
    make_samples,
    plain,
    write_segment,
)
from hypothesis import given, settings
from numpy.typing import NDArray

from ccstore.disk.frames import HEADER_BYTES
from ccstore.disk.names import Position
from ccstore.disk.segment import FRAME_SAMPLES, SegmentReader, encode_names, encode_samples
from ccstore.errors import CorruptionError
from ccstore.model import Names, Samples

RANDOM = np.random.default_rng(1)


def in_order(found: Names | Samples) -> Names | Samples:
    """Return samples sorted by series, which is all of their order that is kept; names as they are."""
    if isinstance(found, Names):
        return found
    order = np.argsort(found.numbers, kind="stable")
    return Samples(found.numbers[order], found.times[order], found.values[order])


def read(data: bytes) -> tuple[SegmentReader, list[Names | Samples]]:
    """Return a reader that has read all, and what it found."""
    reader = SegmentReader(data)
    return reader, list(reader)


@settings(deadline=None)
@given(contents())
def test_segments_round_trip(content: list[Names | Samples]) -> None:
    """Names and samples come back to the bit, each series' samples in their order."""
    reader, found = read(b"".join(write_segment(content)))
    wanted = [plain(in_order(one)) for one in content if not is_empty(one)]
    assert wanted == [plain(in_order(one)) for one in found if not is_empty(one)]
    assert (reader.head, reader.damage, reader.tail, reader.nameless) == (SEGMENT_HEAD, [], None, 0)


def is_empty(found: Names | Samples) -> bool:
    """Tell whether there is nothing in there."""
    return plain(found) in (plain(make_names()), plain(make_samples([])))


def test_the_example_round_trips() -> None:
    """A segment with two generations of names, one time, two times, NaN and a negative zero."""
    reader, found = read(SEGMENT)
    assert list(map(plain, SEGMENT_CONTENT)) == list(map(plain, found))
    assert (5, 0, len(SEGMENT)) == (reader.samples, reader.nameless, reader.good)


@pytest.mark.parametrize(
    "content", [[], [make_names()], [make_samples([])], [make_names(), make_samples([])]]
)
def test_nothing_is_legal(content: Sequence[Names | Samples]) -> None:
    """Empty names and samples are written and read without ado."""
    reader, found = read(b"".join(write_segment(content)))
    assert all(map(is_empty, found))
    assert (reader.damage, reader.tail, reader.samples) == ([], None, 0)


def usual(count: int, hosts: int = 1845, each: int = 72) -> Samples:
    """Return samples as collectors send them: host by host, a host's series one after another, one time."""
    first = RANDOM.permutation(hosts)[: count // each + 1, np.newaxis] * each
    numbers = (first + np.arange(each)).ravel()[:count].astype(np.int32)
    return Samples(numbers, np.full(count, START), noise(count))


def scattered(count: int, series: int = 1_000_000) -> Samples:
    """Return samples of any series at any time of a minute."""
    return Samples(
        RANDOM.integers(0, series, count).astype(np.int32),
        START + RANDOM.integers(0, 60, count),
        noise(count),
    )


def noise(count: int) -> NDArray[np.float32]:
    """Return values that nothing compresses."""
    return RANDOM.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize("count", [400, 5000, 100_000])
@pytest.mark.parametrize(("make", "most"), [(usual, 4.2), (scattered, 7)])
def test_samples_take_few_bytes(make: Callable[..., Samples], most: float, count: int) -> None:
    """Samples of noise take 4.2 bytes each in the usual order and 7 in none, with all around them."""
    assert len(encode_samples(make(count))) / count <= most


def test_values_of_every_day_take_less() -> None:
    """Percentages with one decimal, from 0 to 100, take 2.5 bytes each."""
    samples = usual(50_000)
    values = RANDOM.integers(0, 1000, 50_000).astype(np.float32) / np.float32(10)
    assert len(encode_samples(Samples(samples.numbers, samples.times, values))) / 50_000 <= 2.5


def test_names_take_few_bytes() -> None:
    """The names of 72 series each of 1000 hosts take less than half a byte a series, written twice."""
    places = [(-1, "fritz"), *[(0, f"f{host:04d}") for host in range(1000)]]
    series = [(1 + number // 72, number % 72) for number in range(72_000)]
    names = make_names(places, [(f"metric_{number}", 60) for number in range(72)], series)
    data = encode_names(names, position=Position())
    assert len(data) / 72_000 <= 0.5


@pytest.mark.parametrize("make", [usual, scattered])
def test_many_samples_are_several_frames(make: Callable[..., Samples]) -> None:
    """What one damaged byte can cost is bounded: a long column is cut into frames."""
    samples = make(FRAME_SAMPLES + 5) if make is scattered else usual(FRAME_SAMPLES + 5, hosts=4000)
    names = make_names(
        [(-1, "fritz"), (0, "f0101")], [("cpu_load", 60)], [(1, 0)] * (int(samples.numbers.max()) + 1)
    )
    reader, (_, *found) = read(b"".join(write_segment([names, samples])))
    parts = [one for one in found if isinstance(one, Samples)]
    assert [len(part.numbers) for part in parts] == [FRAME_SAMPLES, 5]
    whole = Samples(*map(np.concatenate, zip(*map(columns_of, parts), strict=True)))
    assert plain(in_order(samples)) == plain(in_order(whole))
    assert reader.samples == FRAME_SAMPLES + 5


def test_a_long_history_of_one_series_takes_few_bytes() -> None:
    """What is sent late, one series with all its times, is one run of numbers and one of times."""
    history = Samples(np.zeros(10_000, np.int32), START + 60 * np.arange(10_000), noise(10_000))
    assert len(encode_samples(history)) <= 40_000 + HEADER_BYTES + 30


def test_a_map_can_be_closed_after_reading() -> None:
    """What was read stays when the file is unmapped."""
    with tempfile.TemporaryFile() as file:
        file.write(SEGMENT)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = SegmentReader(data)
            found = list(reader)
    assert list(map(plain, SEGMENT_CONTENT)) == list(map(plain, found))


def test_a_checkpoint_is_no_segment() -> None:
    """A file of another kind is an error, so that nobody cuts it."""
    with pytest.raises(CorruptionError, match="head: a checkpoint"):
        read(CHECKPOINT)


def test_the_arrays_are_the_callers() -> None:
    """Encoding changes nothing, and takes columns that cannot be written and lie apart in memory."""
    before = plain(FIRST_SAMPLES)
    apart = Samples(*(np.repeat(column, 2)[::2] for column in columns_of(FIRST_SAMPLES)))
    for column in columns_of(apart):
        column.flags.writeable = False
    assert encode_samples(FIRST_SAMPLES) == encode_samples(apart)
    assert before == plain(FIRST_SAMPLES)
