"""The reference's files, made one record or level at a time as they are described, and columns by hand."""

import itertools
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from ccstore.disk.reference.checkpoint import MAX_DEPTH, Checkpoint, Entry, Level
from ccstore.model import Names, Runs, Samples

GOLDEN = Path(__file__).parent / "golden" / "reference"
FILE_MAGIC = bytes.fromhex("01a71dcc")
NAN_BITS = 0x7FC00000

Sample = tuple[tuple[str, ...], str, int, float]
"""Places below the host, metric, time, value."""

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
times = st.integers(-(2**63), 2**63 - 1)
values = st.floats(width=32)


def bits_of(value: float) -> int:
    return NAN_BITS if math.isnan(value) else struct.unpack("<I", struct.pack("<f", value))[0]


def framed(payload: bytes) -> bytes:
    return struct.pack("<II", 0xCC1DA7A1, len(payload)) + payload + struct.pack("<I", zlib.crc32(payload))


def identity(places: Sequence[bytes], metric: bytes) -> bytes:
    parts = b"".join(struct.pack("<B", len(place)) + place for place in places)
    return struct.pack("<H", len(metric)) + metric + struct.pack("<B", len(places)) + parts


def record(sample: Sample) -> bytes:
    places, metric, time, value = sample
    middle = identity([place.encode() for place in places], metric.encode())
    return framed(struct.pack("<q", time) + middle + struct.pack("<I", bits_of(value)))


def log_of(samples: Iterable[Sample]) -> bytes:
    return FILE_MAGIC + b"".join(map(record, samples))


def paths_of(names: Names) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
        paths.append((*paths[parent], name) if parent >= 0 else (name,))
    return paths


def series_of(names: Names) -> list[tuple[tuple[str, ...], str, int]]:
    """Return path, metric and frequency of each series."""
    paths, metrics = paths_of(names), list(zip(names.metric_names, names.frequencies.tolist(), strict=True))
    pairs = zip(names.series_places.tolist(), names.series_metrics.tolist(), strict=True)
    return [(paths[place], *metrics[metric]) for place, metric in pairs]


def spell(names: Names, samples: Samples) -> list[Sample]:
    """Return samples by name; NaN is None, so that they can be compared."""
    series = series_of(names)
    columns = (samples.numbers.tolist(), samples.times.tolist(), samples.values.tolist())
    return [
        (series[number][0][2:], series[number][1], time, None if math.isnan(value) else value)
        for number, time, value in zip(*columns, strict=True)
    ]


def plain(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples as `spell` does."""
    return [(*sample[:3], None if math.isnan(sample[3]) else sample[3]) for sample in samples]


def name_all(series: Sequence[tuple[tuple[str, ...], str, int]]) -> Names:
    """Name series given by whole path, metric and frequency."""
    prefixes = {path[:depth] for path, _, _ in series for depth in range(1, len(path) + 1)}
    places = sorted(prefixes, key=lambda path: (len(path), path))
    metrics = sorted({(metric, frequency) for _, metric, frequency in series})
    return Names(
        parents=np.array([places.index(path[:-1]) if len(path) > 1 else -1 for path in places], np.int32),
        place_names=[path[-1] for path in places],
        metric_names=[metric for metric, _ in metrics],
        frequencies=np.array([frequency for _, frequency in metrics], np.int64),
        series_places=np.array([places.index(path) for path, _, _ in series], np.int32),
        series_metrics=np.array([metrics.index(tuple(rest)) for _, *rest in series], np.int32),
    )


def samples_of(rows: Sequence[tuple[int, int, float]]) -> Samples:
    """Make columns of rows of number, time and value."""
    return Samples(
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32),
    )


def runs_of(rows: Sequence[tuple[int, int, int, Sequence[float]]]) -> Runs:
    """Make columns of rows of number, start, first slot and values."""
    return Runs(
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int32),
        np.array([len(row[3]) for row in rows], np.int32),
        np.array(list(itertools.chain.from_iterable(row[3] for row in rows)), np.float32),
    )


# --- checkpoints


def entry(frequency: int, start: int, values: Sequence[float]) -> Entry:
    return Entry(frequency, start, np.array(values, np.float32))


EXAMPLE = Checkpoint(
    900,
    1200,
    Level({"m": entry(60, 1000, [0.25, 1.25, 2.25])}, {"socket0": Level({"n": entry(60, 1060, [7.0])})}),
)
"""The example of the format's description."""


def level_bytes(level: Level) -> bytes:
    parts = [struct.pack("<I", len(level.entries))]
    for name, found in level.entries.items():
        text = name.encode()
        parts += [struct.pack("<H", len(text)), text]
        parts.append(struct.pack("<qqI", found.frequency, found.start, len(found.values)))
        parts += [struct.pack("<I", bits) for bits in found.values.view(np.uint32).tolist()]
    parts.append(struct.pack("<I", len(level.children)))
    for name, child in level.children.items():
        text = name.encode()
        parts += [struct.pack("<H", len(text)), text, level_bytes(child)]
    return b"".join(parts)


def snapshot_bytes(checkpoint: Checkpoint) -> bytes:
    """Return what the reference writes."""
    head = struct.pack("<Iqq", 0xCC5B0001, checkpoint.start, checkpoint.stop)
    return head + level_bytes(checkpoint.host)


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Tell whether two files say the same, whatever the order of names."""
    return comparable(a) == comparable(b)


def comparable(checkpoint: Checkpoint) -> object:
    return checkpoint.start, checkpoint.stop, _level(checkpoint.host)


def _level(level: Level) -> object:
    entries = {
        name: (e.frequency, e.start, [None if math.isnan(v) else v for v in e.values.tolist()])
        for name, e in level.entries.items()
    }
    return entries, {name: _level(child) for name, child in level.children.items()}


def entries(finite: bool) -> st.SearchStrategy[Entry]:
    numbers = st.floats(width=32, allow_infinity=not finite)
    return st.builds(
        entry,
        st.integers(1, 2**31 - 1),
        st.integers(-(2**61), 2**61),
        st.lists(numbers | st.just(math.nan), max_size=20),
    )


def levels(finite: bool, depth: int = MAX_DEPTH) -> st.SearchStrategy[Level]:
    found = st.dictionaries(names, entries(finite), max_size=2)
    if depth == 0:
        return st.builds(Level, found)
    return st.builds(Level, found, st.dictionaries(names, levels(finite, depth - 1), max_size=2))


def checkpoints(*, finite: bool = False) -> st.SearchStrategy[Checkpoint]:
    return st.builds(Checkpoint, times, times, levels(finite))
