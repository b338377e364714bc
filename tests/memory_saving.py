"""What tests of checkpoints share: times and values, and the way there and back of a copy."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from memory_oracle import OracleSeries, Path
from memory_tools import AVG, NAN, NONE, SUM, Contents, plain

from ccstore.jit import JIT
from ccstore.memory.naming import Resolver
from ccstore.memory.saving import Copied, restore
from ccstore.memory.store import Store
from ccstore.model import Metric, Names

METRICS = [Metric("m", 60, SUM), Metric("n", 7, AVG), Metric("o", 1, NONE)]
NOW = 10**6
ROOM = 1 << 20
"""Bytes: more than any history here takes."""

EXAMPLES = settings(max_examples=300 if JIT else 60, stateful_step_count=40 if JIT else 25, deadline=None)

Key = tuple[Path, int]
Run = tuple[int, int, tuple[float | None, ...]]
"""S, first slot and values."""

values = st.integers(-1000, 1000).map(float) | st.just(NAN)


def times(frequency: int) -> st.SearchStrategy[int]:
    """Return times near now, near chunk boundaries, and anywhere."""
    slots = (
        st.integers(-3, 70) | st.sampled_from([-513, -512, 511, 512, 513, 1025]) | st.integers(-1100, 1100)
    )
    part = st.sampled_from([0, frequency // 2, frequency - 1])
    return st.builds(lambda slot, within: NOW + slot * frequency + within, slots, part)


def paths_of(names: Names) -> list[Path]:
    """Return the path of each place that a file names."""
    paths: list[Path] = []
    for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), name))
    return paths


def decode(copied: Copied) -> dict[Key, list[Run]]:
    """Return the runs of each series in a copy, by path and metric."""
    names, runs, paths = copied.names, copied.runs, paths_of(copied.names)
    keys = [
        (paths[place], [metric.name for metric in METRICS].index(names.metric_names[metric]))
        for place, metric in zip(names.series_places.tolist(), names.series_metrics.tolist(), strict=True)
    ]
    found: dict[Key, list[Run]] = {key: [] for key in keys}
    assert len(found) == len(keys), "each series is named once"
    ends = np.cumsum(runs.counts).tolist()
    columns = (runs.numbers, runs.starts, runs.firsts, runs.counts)
    for number, start, first, count, end in zip(*(column.tolist() for column in columns), ends, strict=True):
        found[keys[number]].append((start, first, plain(runs.values[end - count : end])))
    return found


def load(store: Store, copied: Copied) -> None:
    """Put a copy into another store, as the recovery does; all of it has a place there."""
    resolver = Resolver(store)
    resolver.take(copied.names)
    assert restore(store, resolver.series[copied.runs.numbers], copied.runs).all()


def expected_contents(series: OracleSeries) -> Contents:
    return [(chunk.start, chunk.saved, plain(chunk.slots)) for chunk in series.chunks]
