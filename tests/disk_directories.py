"""Whole directories of checkpoints, made of plain values, and what they hold as plain values again."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from disk_columnar import make_names, make_runs, make_samples
from disk_reference import log_of, snapshot_bytes

from ccstore.disk import layout
from ccstore.disk.checkpoint import CheckpointReader
from ccstore.disk.files import OsDisk
from ccstore.disk.reference.checkpoint import Checkpoint, Entry, Level
from ccstore.disk.reference.jsonfile import encode_json
from ccstore.disk.writing import CheckpointFile, Segment
from ccstore.model import Names

START = 1_700_000_010
"""Seconds; the middle of a slot, of metrics with any of the frequencies below."""
FREQUENCIES = {"load": 60, "power": 20}

Path_ = tuple[str, ...]
Key = tuple[Path_, str, int]
"""Place, metric, and the time that is the middle of a slot."""
Values = Mapping[Key, float]

ROOM = "columnar"
_SLOTS = 512


def names_of(series: Sequence[tuple[Path_, str]], frequencies: Mapping[str, int] = FREQUENCIES) -> Names:
    """Name series by numbers in their order."""
    places: list[Path_] = []
    for path, _ in series:
        places += [path[:depth] for depth in range(1, len(path) + 1) if path[:depth] not in places]
    metrics = sorted({metric for _, metric in series})
    return make_names(
        [(places.index(path[:-1]) if len(path) > 1 else -1, path[-1]) for path in places],
        [(metric, frequencies[metric]) for metric in metrics],
        [(places.index(path), metrics.index(metric)) for path, metric in series],
    )


def series_in(values: Values) -> list[tuple[Path_, str]]:
    """Return the series of values, in order."""
    return sorted({(path, metric) for path, metric, _ in values})


# --- our own format


def write_checkpoint(directory: Path, number: int, blocks: Sequence[Values], *, shard: int = 0) -> Path:
    """Write a checkpoint with one run for each value, and the blocks as they are given."""
    below = layout.shard_directory(directory, shard)
    below.mkdir(parents=True, exist_ok=True)
    path = layout.checkpoint_path(below, number)
    file = CheckpointFile(OsDisk(), path, shard=shard, number=number, created=START)
    for values in blocks:
        series = series_in(values)
        rows = []
        for (place, metric, time), value in values.items():
            frequency = FREQUENCIES[metric]
            chunk, slot = divmod((time - START) // frequency, _SLOTS)
            start = START - frequency // 2 + chunk * _SLOTS * frequency
            rows.append((series.index((place, metric)), start, slot, [value]))
        file.add_block(names_of(series), make_runs(rows))
    file.finish()
    return path


def write_segment(
    directory: Path, number: int, commits: Sequence[Sequence[tuple[Key, float]]], *, shard: int = 0
) -> Path:
    """Write a segment; all series are named first."""
    below = layout.shard_directory(directory, shard)
    below.mkdir(parents=True, exist_ok=True)
    segment = Segment(OsDisk(), below, shard=shard, number=number, now=lambda: START)
    series = sorted({key[:2] for commit in commits for key, _ in commit})
    names: Names | None = names_of(series)
    for commit in commits:
        rows = [(series.index(key[:2]), key[2], value) for key, value in commit]
        segment.commit([(names, make_samples(rows))])
        names = None
    segment.close()
    return layout.segment_path(below, number)


# --- the reference's formats


def write_reference(
    directory: Path, number: int, values: Values, suffix: str = ".bin", *, stop: int = 0
) -> list[Path]:
    """Write a checkpoint of each host, as the reference does; an entry reaches from first to last value."""
    paths = []
    for host in sorted({path[:2] for path, _, _ in values}):
        root = Level()
        for path, metric in series_in({key: 0.0 for key in values if key[0][:2] == host}):
            level = root
            for name in path[2:]:
                level = level.children.setdefault(name, Level())
            of_series = {time: v for (p, m, time), v in values.items() if (p, m) == (path, metric)}
            times = range(min(of_series), max(of_series) + 1, FREQUENCIES[metric])
            numbers = [of_series.get(time, math.nan) for time in times]
            level.entries[metric] = Entry(FREQUENCIES[metric], min(of_series), np.array(numbers, np.float32))
        checkpoint = Checkpoint(number, stop, root)
        below = directory.joinpath(*host)
        below.mkdir(parents=True, exist_ok=True)
        path_ = below / f"{number}{suffix}"
        path_.write_bytes(encode_json(checkpoint) if suffix == ".json" else snapshot_bytes(checkpoint))
        paths.append(path_)
    return paths


def write_log(directory: Path, samples: Sequence[tuple[Key, float]], name: str = "current.wal") -> list[Path]:
    """Write the log of each host, record by record."""
    paths = []
    for host in sorted({key[0][:2] for key, _ in samples}):
        below = directory.joinpath(*host)
        below.mkdir(parents=True, exist_ok=True)
        records = [(path[2:], metric, time, v) for (path, metric, time), v in samples if path[:2] == host]
        (below / name).write_bytes(log_of(records))
        paths.append(below / name)
    return paths


# --- what a directory holds


def read_all(directory: Path) -> dict[Key, float]:
    """Return every stored value of a directory's checkpoints, by the middle of its slot."""
    found: dict[Key, float] = {}
    for path in sorted((directory / ROOM).rglob("*.ckpt")):
        _read_columnar(path, found)
    for path in sorted(directory.glob("*/*/*.*")):
        if path.suffix == ".json":
            _walk_json(json.loads(path.read_bytes()), path.parts[-3:-1], found)
        elif path.suffix == ".bin":
            data = path.read_bytes()
            assert _walk_snapshot(data, 20, path.parts[-3:-1], found) == len(data) - 8
    return found


def _put(found: dict[Key, float], key: Key, value: float) -> None:
    assert key not in found, f"{key} is in two places"
    found[key] = value


def _read_columnar(path: Path, found: dict[Key, float]) -> None:
    for names, runs in CheckpointReader(path.read_bytes()):
        places: list[Path_] = []
        for parent, name in zip(names.parents, names.place_names, strict=True):
            places.append((*(places[parent] if parent >= 0 else ()), name))
        at = 0
        for number, start, first, count in zip(
            runs.numbers, runs.starts, runs.firsts, runs.counts, strict=True
        ):
            metric = names.series_metrics[number]
            frequency = int(names.frequencies[metric])
            for k in range(count):
                value = float(runs.values[at + k])
                middle = int(start) + (int(first) + k) * frequency + frequency // 2
                if not math.isnan(value):
                    key = (places[names.series_places[number]], names.metric_names[metric], middle)
                    found[key] = value  # a later run of the same slot counts
            at += count


def _walk_json(level: dict, path: Path_, found: dict[Key, float]) -> None:
    for metric, entry in level["metrics"].items():
        for k, value in enumerate(entry["data"]):
            if value is not None:
                time = entry["start"] + k * entry["frequency"]
                _put(found, (path, metric, time), float(np.float32(value)))
    for name, child in level["children"].items():
        _walk_json(child, (*path, name), found)


def _walk_snapshot(data: bytes, at: int, path: Path_, found: dict[Key, float]) -> int:
    def text() -> str:
        nonlocal at
        (size,) = struct.unpack_from("<H", data, at)
        at += 2 + size
        return data[at - size : at].decode()

    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    for _ in range(count):
        metric = text()
        frequency, start, size = struct.unpack_from("<qqI", data, at)
        for k, value in enumerate(struct.unpack_from(f"<{size}f", data, at + 20)):
            if not math.isnan(value):
                _put(found, (path, metric, start + k * frequency), value)
        at += 20 + 4 * size
    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    for _ in range(count):
        name = text()
        at = _walk_snapshot(data, at, (*path, name), found)
    return at
