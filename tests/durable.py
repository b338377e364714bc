"""What the tests of the log share: a store with its log and checkpoints, and a journal of what it was told.

The journal knows, of each slot, every value that was ever appended, and which of them was
acknowledged last. So after any crash it can tell whether something is lost, older than it may be, or made up.
"""

import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from attrs import define, field
from trio._core import _run

from ccstore.disk.files import Disk
from ccstore.disk.formats import Columnar, Format
from ccstore.disk.leftover import Leftover
from ccstore.disk.reference.writing import Reference
from ccstore.memory import saving
from ccstore.memory.layout import CHUNK_SLOTS, ROW_SLOTS
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Batch, Metric, Outcome
from ccstore.server.changeover import make_newest
from ccstore.server.checkpoints import Checkpoints
from ccstore.server.recovery import Recovery, recover
from ccstore.server.wal import Log, NotDurableError

DIRECTORY = Path("/data")
START = 1_700_000_000
METRICS = (Metric("load", 10, Aggregation.NONE), Metric("power", 60, Aggregation.SUM))

Path_ = tuple[str, ...]
Key = tuple[Path_, str, int]
"""Place, metric and time of a slot. Times are such that each has a slot of its own."""


# --- what was said


@define
class Journal:
    """Everything that was appended, acknowledged and freed, in this order."""

    events: list[tuple[str, Any]] = field(factory=list)
    appended: int = 0

    def append(self, points: Iterable[tuple[Key, float]]) -> list[int]:
        """Note points that memory took; returns their numbers, which are positions in the journal."""
        first = len(self.events)
        self.events += [("append", point) for point in points]
        return list(range(first, len(self.events)))

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Note that points are said to be durable."""
        self.events.append(("acknowledge", tuple(numbers)))

    def free(self, host: Path_) -> None:
        """Note that what was appended of a host so far may be gone."""
        self.events.append(("free", host))

    def cut(self, length: int) -> "Journal":
        """Return the journal as it was when it had so many events."""
        return Journal(self.events[:length])

    def problems(self, contents: dict[Key, float]) -> list[str]:
        """Tell what is wrong with what a store has."""
        history, required = self._digest()
        found = []
        for key, number in required.items():
            if key not in contents:
                found.append(f"lost: {key}, acknowledged with {history[key][number]}")
        for key, value in contents.items():
            numbers = [number for number, known in history.get(key, {}).items() if known == value]
            if not numbers:
                found.append(f"made up: {key} is {value}")
            elif max(numbers) < required.get(key, -1):
                found.append(f"old: {key} is {value}, acknowledged with {history[key][required[key]]}")
        return found

    def latest(self) -> dict[Key, float]:
        """Return what memory has if nothing was freed."""
        return dict(event[1] for event in self.events if event[0] == "append")

    def _digest(self) -> tuple[dict[Key, dict[int, float]], dict[Key, int]]:
        history: dict[Key, dict[int, float]] = {}
        required: dict[Key, int] = {}
        freed: dict[Path_, int] = {}
        for position, (what, value) in enumerate(self.events):
            if what == "append":
                history.setdefault(value[0], {})[position] = value[1]
            elif what == "free":
                freed[value] = position
                required = {key: number for key, number in required.items() if key[0][:2] != value}
            else:
                for number in value:
                    key = self.events[number][1][0]
                    if number > freed.get(key[0][:2], -1):
                        required[key] = max(number, required.get(key, -1))
        return history, required


# --- what a store has


def make_store(metrics: Sequence[Metric] = METRICS) -> Store:
    """Return a small store."""
    return Store(metrics, max_series=500, max_bytes=1 << 20)


def contents(store: Store) -> dict[Key, float]:
    """Return every value of a store."""
    found: dict[Key, float] = {}
    for cluster, host, place in store.index.hosts():
        _collect(store, place, (cluster, host), found)
    return found


def _collect(store: Store, place: int, path: Path_, found: dict[Key, float]) -> None:
    for metric, series in store.series_at(place):
        frequency = store.metrics[store.metric_ids[metric]].frequency
        chunk = int(store.columns.series["newest"][series])
        while chunk >= 0:
            record = store.columns.chunks[chunk]
            values = _values(store, record)
            for slot in np.flatnonzero(~np.isnan(values)).tolist():
                time = int(record["start"]) + frequency // 2 + frequency * slot
                found[path, metric, time] = float(values[slot])
            chunk = int(record["older"])
    for name, child in store.index.children(place).items():
        _collect(store, child, (*path, name), found)


def _values(store: Store, chunk: np.void) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.full(CHUNK_SLOTS, np.nan, np.float32)
    rows = [int(chunk["row"])] if chunk["table"] < 0 else store.columns.tables[chunk["table"]].tolist()
    for block, row in enumerate(rows):
        if row >= 0:
            values[block * ROW_SLOTS : (block + 1) * ROW_SLOTS] = store.columns.rows[row]
    return values


# --- a store that keeps what it is told


@define(eq=False)
class Server:
    """A store with its log and checkpoints, put together as the service does."""

    store: Store
    disk: Disk
    directory: Path
    wal: Log
    checkpoints: Checkpoints
    leftover: Leftover
    report: Recovery
    journal: Journal

    async def append(self, points: Sequence[tuple[Key, float]]) -> tuple[list[int], list[int]]:
        """Append points; return their numbers in the journal, and what to wait for."""
        await self.wal.room()
        batch = make_batch(self.store, points)
        self.store.append(batch, latest=2**50)
        reached = [0] * len(self.wal.shards)
        self.wal.put(batch, reached)
        taken = [
            point
            for point, outcome in zip(points, batch.outcomes, strict=True)
            if outcome <= Outcome.OVERWRITTEN
        ]
        return self.journal.append(taken), reached

    async def acknowledge(self, numbers: Sequence[int], reached: Sequence[int]) -> bool:
        """Wait until points are on disk and note it; tell whether they are."""
        try:
            await self.wal.durable(reached)
        except NotDurableError:
            return False
        self.journal.acknowledge(numbers)
        return True

    async def keep(self, points: Sequence[tuple[Key, float]]) -> bool:
        """Append points and wait until they are on disk; tell whether they are."""
        return await self.acknowledge(*await self.append(points))

    async def save_all(self, task_status: trio.TaskStatus[None]) -> None:
        """Write checkpoints in a task of their own."""
        with self.wal.held():
            task_status.started()
            await self.checkpoints.save_all()

    def free(self, host: Path_) -> None:
        """Free what there is of a host and remove it, so that others get its ids."""
        place = self.store.locate(host, create=False)
        if place < 0:
            return
        self.store.free(place, 2**50)
        dead = self.store.dormant()
        self.wal.forget(dead, ())
        self.wal.forget(np.zeros(0, np.bool_), self.store.prune(place, dead).tolist())
        self.journal.free(host)

    @property
    def waiting(self) -> int:
        """Samples that are not on disk."""
        return sum(shard.appended - shard.durable for shard in self.wal.shards)


def make_batch(store: Store, points: Sequence[tuple[Key, float]]) -> Batch:
    """Return points as a batch for a store."""
    places = np.array([store.locate(path) for (path, _, _), _ in points], np.int32)
    metrics = np.array([store.metric_ids[metric] for (_, metric, _), _ in points], np.int32)
    series, _ = store.enlist(places, metrics, allowance=len(points))
    return Batch(
        len(points),
        series,
        np.array([time for (_, _, time), _ in points], np.int64),
        np.array([value for _, value in points], np.float32),
        np.zeros(len(points), np.uint8),
    )


def make_format(disk: Disk, kind: str, *, directory: Path = DIRECTORY, max_wal_bytes: int = 0) -> Format:
    """Return a format by its name in the configuration."""
    if kind == "columnar":
        return Columnar(disk, directory)
    suffix = ".json" if kind == "json" else ".bin"
    return Reference(disk, directory, suffix, max_wal_bytes)


async def recovered(
    disk: Disk,
    *,
    kind: str = "columnar",
    directory: Path = DIRECTORY,
    since: int = 0,
    metrics: Sequence[Metric] = METRICS,
) -> tuple[Store, Recovery, int]:
    """Recover a store; return it with the report and the number to go on from."""
    store, report = make_store(metrics), Recovery()
    last = await recover(store, disk, directory, report, since=since, by_hosts=kind != "columnar")
    return store, report, last


async def make_server(
    disk: Disk,
    *,
    shards: int = 1,
    kind: str = "columnar",
    journal: Journal | None = None,
    directory: Path = DIRECTORY,
    max_delay: float = 0.1,
    max_wal_bytes: int = 0,
) -> Server:
    """Recover a store and open its log; nobody writes it yet."""
    store, report, last = await recovered(disk, kind=kind, directory=directory)
    numbers = itertools.count(last + 1)
    files = make_format(disk, kind, directory=directory, max_wal_bytes=max_wal_bytes)
    files.prepare(shards)
    wal = Log(store, files, partial(next, numbers), shards=shards, max_delay=max_delay, now=lambda: START)
    checkpoints = Checkpoints(store, wal, files, lambda: START)
    leftover = Leftover(disk, directory, kind != "columnar", report.is_whole)
    journal = Journal() if journal is None else journal
    return Server(store, disk, directory, wal, checkpoints, leftover, report, journal)


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[trio.Nursery]:
    """Let the writers of a server run; at the end they write what waits, and end."""
    async with trio.open_nursery() as nursery:
        with server.wal.held():
            for shard in server.wal.shards:
                nursery.start_soon(server.wal.write, shard)
            await make_newest(server.checkpoints, server.disk, server.directory)
            server.checkpoints.leftover = server.leftover
            yield nursery


# --- chance


@define
class Points:
    """Random points of a few hosts, as time goes on; each value occurs once."""

    chance: random.Random
    hosts: int = 4
    step: int = 0
    value: int = 0
    floors: dict[Path_, int] = field(factory=dict)
    """Steps before which nothing is sent of a host."""

    def some(self, most: int = 8) -> list[tuple[Key, float]]:
        """Return some points: mostly new, some late, some for a slot that has a value."""
        self.step += self.chance.random() < 0.4
        return [self._one() for _ in range(self.chance.randint(1, most))]

    def _one(self) -> tuple[Key, float]:
        host = ("c", f"h{self.chance.randrange(self.hosts)}")
        path = self.chance.choice([host, (*host, "core0"), (*host, "core1", "mem0")])
        metric = self.chance.choice(METRICS)
        step = max(self.step - int(self.chance.expovariate(0.7)), self.floors.get(host, 0))
        self.value += 1
        return (path, metric.name, START + metric.frequency * step), float(self.value)


def schedule_by_seed(monkeypatch: pytest.MonkeyPatch, seed: int) -> random.Random:
    """Let everything from here on follow from a seed: the order of tasks, and the time that threads take.

    What belongs into a worker thread runs in this one, after and before a few steps of the other tasks. As
    in a thread, it begins with a look for cancellation and cannot be cancelled afterwards. So thousands of
    schedules take no longer than a hundred with threads, and each can be had again.
    """
    chance = random.Random(seed)
    monkeypatch.setattr(saving, "_SLOTS_AT_ONCE", 8)  # so that a checkpoint has several pieces
    monkeypatch.setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    _run._r.seed(seed)

    async def run_sync(function: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            for _ in range(chance.randrange(3)):
                await trio.lowlevel.checkpoint()
            try:
                return function(*args)
            finally:
                for _ in range(chance.randrange(3)):
                    await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return chance
