"""What tests of the memory room share: write points, read them back, count every record."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.memory.layout import CHUNK_SLOTS, FREE, FRESH, ROW_SLOTS, UNUSED, USED, Pool
from ccstore.memory.query import Groups, Reader
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Batch, Metric, Outcome, Selector, Status

NAN = math.nan
FOREVER = 2**50
SUM, AVG, NONE = Aggregation.SUM, Aggregation.AVG, Aggregation.NONE

Point = tuple[int, float]


def make_store(*metrics: Metric, max_series: int = 1000, max_bytes: int = 1 << 20) -> Store:
    """Return a small store; by default for the metric ``m``, every 60 s, a sum."""
    return Store(metrics or (Metric("m", 60, SUM),), max_series=max_series, max_bytes=max_bytes)


def batch_of(series: Sequence[int], points: Sequence[Point]) -> Batch:
    """Return points as a batch; the outcome of each is one that no store returns."""
    return Batch(
        len(points),
        np.array(series, np.int32),
        np.array([time for time, _ in points], np.int64),
        np.array([value for _, value in points], np.float32),
        np.full(len(points), 255, np.uint8),
    )


def enlist(store: Store, path: tuple[str, ...], metric: int = 0) -> int:
    """Return the id of a series, which is made if there is room for it, else -1."""
    place = store.locate(path)
    if place < 0:
        return -1
    ids, _ = store.enlist(np.array([place], np.int32), np.array([metric], np.int32), allowance=1)
    return int(ids[0])


def write(
    store: Store, path: tuple[str, ...], points: Sequence[Point], metric: str = "m", latest: int = FOREVER
) -> list[Outcome]:
    """Write points of one series, and return what became of them."""
    batch = batch_of([enlist(store, path, store.metric_ids[metric])] * len(points), points)
    store.append(batch, latest=latest)
    return [Outcome(outcome) for outcome in batch.outcomes.tolist()]


def steps(start: int, values: Iterable[float], frequency: int = 60) -> list[Point]:
    """Return values as points, one frequency apart."""
    return [(start + k * frequency, value) for k, value in enumerate(values)]


@frozen
class Read:
    """A window of one group. Compares NaN as equal."""

    values: tuple[float | None, ...]
    """None where the window has NaN."""
    start: int
    stop: int
    status: Status = Status.GOOD


def plain(values: NDArray[np.float64] | Sequence[float]) -> tuple[float | None, ...]:
    """Return values with None for NaN, so that they can be compared."""
    return tuple(None if math.isnan(value) else float(value) for value in values)


def groups_of(
    store: Store,
    selectors: Sequence[Selector],
    metric: str = "m",
    *,
    resolution: int = 0,
    factor: float = 1.0,
) -> Groups:
    """Return selectors of one metric as groups."""
    number, count = store.metric_ids.get(metric, -1), len(selectors)
    return Groups(
        index=store.index,
        selectors=selectors,
        metrics=[metric] * count,
        metric_ids=[number] * count,
        frequencies=np.full(count, store.metrics[number].frequency if number >= 0 else 1),
        resolutions=np.full(count, resolution),
        factors=np.full(count, factor),
        queries=np.arange(count),
        placeholders=np.zeros(count, np.bool_),
    )


def read(
    store: Store, selector: Selector, start: int, stop: int, metric: str = "m", *, strict: bool = False
) -> Read:
    """Read one selector."""
    ((_, window),) = Reader(store.columns, strict=strict, max_values=20_000).windows(
        groups_of(store, [selector], metric), start, stop
    )
    return Read(
        plain(window.values), int(window.begins[0]), int(window.stops[0]), Status(int(window.statuses[0]))
    )


def chunks(store: Store, path: tuple[str, ...], metric: str = "m") -> list[tuple[int, int]]:
    """Return (S, n) of each chunk of a series, oldest first; empty if it is not stored."""
    series = dict(store.series_at(store.locate(path, create=False))) if path else {}
    return [(c.start, c.used) for c in store.chunks(series[metric])] if metric in series else []


Contents = list[tuple[int, int, tuple[float | None, ...]]]
"""S, saved and values of each chunk of a series, oldest first."""


def contents(store: Store, series: int) -> Contents:
    """Return all that is stored of a series, slot by slot."""
    columns, found, chunk = store.columns, [], int(store.columns.series["newest"][series])
    while chunk >= 0:
        record = columns.chunks[chunk]
        rows = columns.tables[record["table"]].tolist() if record["table"] >= 0 else [int(record["row"])]
        values = [columns.rows[row] if row >= 0 else np.full(ROW_SLOTS, NAN) for row in rows]
        held = plain(np.concatenate(values)[: record["used"]])
        found.append((int(record["start"]), int(record["saved"]), held))
        chunk = int(record["older"])
    return found[::-1]


# --- accounting


def check_accounts(store: Store, *, restored: bool = False) -> None:
    """Walk over everything that can be reached, and compare with what the pools say.

    restored: whether chunks of checkpoints may have come between others.
    """
    columns, found = store.columns, {pool: [] for pool in range(5)}
    _walk_place(store, store.index.root, found)
    if not restored:
        _check_distances(store, found[Pool.SERIES])
    for pool, links in (
        (Pool.SERIES, columns.series["next"]),
        (Pool.PLACE, columns.places["sibling"]),
        (Pool.CHUNK, columns.chunks["older"]),
        (Pool.TABLE, columns.tables[:, 0]),
        (Pool.ROW, columns.row_links),
    ):
        fresh, used = int(columns.pools[pool, FRESH]), int(columns.pools[pool, USED])
        free, index = [], int(columns.pools[pool, FREE])
        while index >= 0:
            free.append(index)
            index = int(links[index])
        assert used == len(found[pool]), f"pool {pool}: in use"
        assert sorted(found[pool] + free) == list(range(fresh)), f"pool {pool}: used once or free"
        if pool == Pool.SERIES:
            assert all(columns.series["newest"][index] == UNUSED for index in free)


def _walk_place(store: Store, place: int, found: dict[int, list[int]]) -> None:
    places, series = store.columns.places, store.columns.series
    found[Pool.PLACE].append(place)
    number, metrics = int(places["series"][place]), []
    while number >= 0:
        assert series["place"][number] == place
        metrics.append(int(series["metric"][number]))
        found[Pool.SERIES].append(number)
        _walk_chunks(store, number, found)
        number = int(series["next"][number])
    assert len(metrics) == len(set(metrics)), "one series for each metric"
    names, child, before = dict(store.index.children(place)), int(places["child"][place]), -1
    children = []
    while child >= 0:
        assert places["parent"][child] == place
        assert places["before"][child] == before
        children.append(child)
        _walk_place(store, child, found)
        before, child = child, int(places["sibling"][child])
    assert sorted(names.values()) == sorted(children), "the index names each place"
    assert all(store.index.name(number) == name for name, number in names.items())


def _walk_chunks(store: Store, number: int, found: dict[int, list[int]]) -> None:
    columns = store.columns
    f = int(columns.frequency[columns.series["metric"][number]])
    chunk, newer, begins = int(columns.series["newest"][number]), -1, math.inf
    while chunk >= 0:
        record = columns.chunks[chunk]
        assert record["newer"] == newer
        assert 1 <= record["used"] <= CHUNK_SLOTS
        assert 0 <= record["saved"] <= record["used"]
        assert record["start"] + f * (int(record["used"]) - 1) < begins, "the next chunk begins behind"
        found[Pool.CHUNK].append(chunk)
        last = (int(record["used"]) - 1) // ROW_SLOTS
        if record["table"] >= 0:
            table = columns.tables[record["table"]].tolist()
            found[Pool.TABLE].append(int(record["table"]))
            assert table[last] == record["row"]
            assert not any(row >= 0 for row in table[last + 1 :])
            found[Pool.ROW] += [row for row in table if row >= 0]
        else:
            assert last == 0
            found[Pool.ROW].append(int(record["row"]))
        begins, newer, chunk = int(record["start"]), chunk, int(record["older"])


def _check_distances(store: Store, numbers: Iterable[int]) -> None:
    for number in numbers:
        f = int(store.columns.frequency[store.columns.series["metric"][number]])
        for one, following in pairwise(store.chunks(number)):
            assert one.start + CHUNK_SLOTS * f - f // 2 <= following.start
