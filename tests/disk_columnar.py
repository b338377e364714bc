"""What the tests of the columnar files share: a small example of everything, and strategies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ccstore.disk.checkpoint import Encoder, Summary
from ccstore.disk.frames import Head, Kind, encode_head
from ccstore.disk.names import Position
from ccstore.disk.segment import encode_names, encode_samples
from ccstore.model import Names, Runs, Samples

GOLDEN = Path(__file__).parent / "golden" / "columnar"

NAN = float("nan")
START = 1_700_000_000


def make_names(
    places: Sequence[tuple[int, str]] = (),
    metrics: Sequence[tuple[str, int]] = (),
    series: Sequence[tuple[int, int]] = (),
) -> Names:
    """Return names from (parent, name), (name, frequency) and (place, metric)."""
    return Names(
        parents=np.array([parent for parent, _ in places], np.int32),
        place_names=[name for _, name in places],
        metric_names=[name for name, _ in metrics],
        frequencies=np.array([frequency for _, frequency in metrics], np.int64),
        series_places=np.array([place for place, _ in series], np.int32),
        series_metrics=np.array([metric for _, metric in series], np.int32),
    )


def make_samples(rows: Sequence[tuple[int, int, float]]) -> Samples:
    """Return samples from (number, time, value)."""
    return Samples(
        numbers=np.array([number for number, _, _ in rows], np.int32),
        times=np.array([time for _, time, _ in rows], np.int64),
        values=np.array([value for _, _, value in rows], np.float32),
    )


def make_runs(rows: Sequence[tuple[int, int, int, Sequence[float]]]) -> Runs:
    """Return runs from (number, start, first, values)."""
    return Runs(
        numbers=np.array([row[0] for row in rows], np.int32),
        starts=np.array([row[1] for row in rows], np.int64),
        firsts=np.array([row[2] for row in rows], np.int32),
        counts=np.array([len(row[3]) for row in rows], np.int32),
        values=np.array([value for row in rows for value in row[3]], np.float32),
    )


def common_start(first: bytes, second: bytes) -> int:
    """Return how many bytes two files have in common from their beginning on."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def plain(found: Any) -> Any:
    """Return names, samples, runs or tuples of them as something that compares, values by their bits."""
    if isinstance(found, tuple):
        return tuple(map(plain, found))
    columns: dict[str, Any] = {}
    for name in (field.name for field in attrs.fields(type(found))):
        column = getattr(found, name)
        if isinstance(column, np.ndarray):
            bits = column.view(np.uint32) if column.dtype == np.float32 else column
            columns[name] = column.dtype.str, bits.tolist()
        else:
            columns[name] = list(column)
    return type(found).__name__, columns


def columns_of(samples: Samples) -> list[NDArray[Any]]:
    """Return the three columns of samples."""
    return [samples.numbers, samples.times, samples.values]


# --- the example of docs/reference/formats.md and of the golden files

FIRST_NAMES = make_names(
    places=[(-1, "fritz"), (0, "f0101"), (1, "socket0")],
    metrics=[("cpu_load", 60), ("power", 30)],
    series=[(1, 0), (2, 1)],
)
MORE_NAMES = make_names(places=[(0, "f0102")], series=[(3, 0)])
FIRST_SAMPLES = make_samples(
    [(0, START, 1.5), (1, START, 90.25), (0, START + 60, NAN), (1, START + 60, -0.0)]
)
MORE_SAMPLES = make_samples([(2, START + 61, 0.5)])

SEGMENT_HEAD = Head(Kind.SEGMENT, shard=3, number=17, created=START)
SEGMENT_FRAMES = [
    encode_names(FIRST_NAMES, position=Position()),
    encode_samples(FIRST_SAMPLES),
    encode_names(MORE_NAMES, position=Position(3, 2, 2)),
    encode_samples(MORE_SAMPLES),
]
SEGMENT_CONTENT: list[Names | Samples] = [FIRST_NAMES, FIRST_SAMPLES, MORE_NAMES, MORE_SAMPLES]
SEGMENT = encode_head(SEGMENT_HEAD) + b"".join(SEGMENT_FRAMES)

CHECKPOINT_HEAD = Head(Kind.CHECKPOINT, shard=3, number=18, created=START + 3600)
CHECKPOINT_CONTENT = [
    (FIRST_NAMES, make_runs([(0, START - 30, 0, [1.5, NAN, 2.5]), (1, START - 15, 510, [90.25, -0.0])])),
    (
        make_names([(-1, "fritz"), (0, "f0102")], [("cpu_load", 60)], [(1, 0)]),
        make_runs([(0, START - 30, 1, [0.5])]),
    ),
]
_ENCODER = Encoder()
BLOCKS = [_ENCODER.encode_block(names, runs) for names, runs in CHECKPOINT_CONTENT]
SUMMARY = Summary(blocks=2, series=3, runs=3, values=6, start=START - 30, stop=START + 15_345)
CHECKPOINT = encode_head(CHECKPOINT_HEAD) + b"".join(BLOCKS) + _ENCODER.encode_end()


# golden files alone: what is compressed is read for ever, but another zstd may write it in other bytes
COMPRESSED_SAMPLES = Samples(
    numbers=np.arange(600, dtype=np.int32) % 2,
    times=START + np.arange(600) // 2 * 60,
    values=np.arange(600).astype(np.float32) % 7,
)
COMPRESSED_BLOCK = (
    FIRST_NAMES,
    make_runs([(0, START, 5, [*map(float, range(500))]), (1, START, 0, [NAN] * 512)]),
)


# --- strategies

int64s = st.integers(-(2**63), 2**63 - 1)
float_bits = st.integers(0, 2**32 - 1) | st.sampled_from(
    [0x7FC00000, 0xFFC00001, 0x7F800001, 0x80000000, 0x7F800000]
)
texts = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda text: len(text.encode()) <= 255 and text not in (".", ".."))


def floats_of(bits: Sequence[int]) -> Any:
    """Return float32 values with these bits."""
    return np.array(bits, np.uint32).view(np.float32)


@st.composite
def stretches(draw: Any) -> list[int]:
    """Draw whole numbers as files hold them: runs of steps, repeats, small differences, anything."""
    numbers: list[int] = []
    for _ in range(draw(st.integers(0, 6))):
        first = draw(st.integers(-1000, 1000) | st.integers(START, START + 4000) | int64s)
        step = draw(st.sampled_from([0, 1, -1, 60]) | st.integers(-300, 300))
        count = draw(st.integers(1, 40))
        numbers += [(first + k * step + 2**63) % 2**64 - 2**63 for k in range(count)]
    return numbers


def _draw_names(draw: Any, depths: list[int], before: Position) -> Names:
    """Draw names that can stand behind others, and add the depths of their places."""
    places = []
    for _ in range(draw(st.integers(0, 6))):
        parent = draw(st.sampled_from([-1, *[number for number, depth in enumerate(depths) if depth < 4]]))
        depths.append(1 if parent < 0 else depths[parent] + 1)
        places.append((parent, draw(texts)))
    metrics = draw(st.lists(st.tuples(texts, st.integers(1, 2**31 - 1)), max_size=4))
    hosts = [number for number, depth in enumerate(depths) if depth >= 2]
    known = before.metrics + len(metrics)
    series: list[tuple[int, int]] = []
    if hosts and known:
        series = draw(st.lists(st.tuples(st.sampled_from(hosts), st.integers(0, known - 1)), max_size=20))
    return make_names(places, metrics, series)


def _draw_samples(draw: Any, series: int) -> Samples:
    """Draw samples of so many series."""
    size = draw(st.integers(0, 60)) if series else 0

    def column(of: st.SearchStrategy[int]) -> list[int]:
        found: list[int] = draw(st.lists(of, min_size=size, max_size=size))
        return found

    times = draw(stretches())
    return Samples(
        numbers=np.array(column(st.integers(0, max(series - 1, 0))), np.int32),
        times=np.array((times * size)[:size] if times else column(int64s), np.int64),
        values=floats_of(column(float_bits)),
    )


@st.composite
def contents(draw: Any) -> list[Names | Samples]:
    """Draw what a segment can hold."""
    found: list[Names | Samples] = []
    depths: list[int] = []
    position = Position()
    for is_names in draw(st.lists(st.booleans(), max_size=6)):
        if is_names:
            found.append(names := _draw_names(draw, depths, position))
            position = position.after(names)
        else:
            found.append(_draw_samples(draw, position.series))
    return found


@st.composite
def blocks(draw: Any) -> tuple[Names, Runs]:
    """Draw what a block of a checkpoint can hold."""
    names = _draw_names(draw, [], Position())
    rows: list[tuple[int, int, int, Sequence[float]]] = []
    if len(names.series_places):
        for number in draw(st.lists(st.integers(0, len(names.series_places) - 1), max_size=8)):
            first = draw(st.integers(0, 511))
            bits = draw(st.lists(float_bits, min_size=1, max_size=min(20, 512 - first)))
            rows.append((number, draw(int64s), first, floats_of(bits).tolist()))
    return names, make_runs(rows)


def write_segment(content: Sequence[Names | Samples]) -> list[bytes]:
    """Return the head and the frames of a segment, one item for each noun."""
    parts, position = [encode_head(SEGMENT_HEAD)], Position()
    for found in content:
        if isinstance(found, Names):
            parts.append(encode_names(found, position=position))
            position = position.after(found)
        else:
            parts.append(encode_samples(found))
    return parts
