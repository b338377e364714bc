"""Benchmarks of the log, the checkpoints and recovery: a store with a real directory, in one process.

Samples go the way from line protocol to the acknowledgement; only the network is left out.
"""

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import trio

from ccstore.cli.bench.data import Site, as_buffer, make_site
from ccstore.cli.bench.report import Row
from ccstore.config import CheckpointsConfig, Config, MetricStoreConfig
from ccstore.disk.files import OsDisk
from ccstore.disk.reference.wal import LogEncoder
from ccstore.memory.naming import name_series
from ccstore.model import Batch, Samples
from ccstore.server.durability import Durability
from ccstore.server.services import Services, make_services

__all__ = ["measure_log"]

_FIRST = 1_740_000_000
_MINUTES, _HOURS = 60, 4
_ROWS = 16384
_GB = 1 << 30
_STREAM = 4  # intervals


def measure_log(hosts: int) -> Iterator[Row]:
    """Measure what it costs to lose nothing, for a site of so many hosts."""
    site = make_site(hosts)
    with tempfile.TemporaryDirectory(prefix="ccstore-bench-") as directory:
        yield from trio.run(_measure, site, Path(directory))


async def _measure(site: Site, directory: Path) -> list[Row]:
    rows = []
    async with _logging(site, directory) as (services, durability):
        rows += await _compare(make_services(_config(site, directory), now=_now), services, site)
        shards = durability.wal.shards
        size = sum(shard.bytes for shard in shards) / sum(shard.appended for shard in shards)
        rows.append(Row("log, a sample", size, "B", 8, 5))
        rows.append(_encode_reference(services, len(site.keys)))
        await _fill(services, len(site.keys), 10)
    async with _logging(site, directory) as (services, durability):
        rows.append(_recovery(durability, durability.recovery.samples, "from the log alone", 20, 4))
        for hour in range(1, _HOURS):
            await durability.checkpoints.save_all()
            await _fill(services, len(site.keys), 10 + hour * _MINUTES)
        rows += await _burst(services, durability, site)
        began = time.perf_counter()
        await durability.checkpoints.save_all()
        took = time.perf_counter() - began
        rows.append(Row(f"last checkpoint of a stop, {len(site.keys)} series", took, "s", 10, 2))
    async with _logging(site, directory) as (_, durability):
        rows.append(_recovery(durability, durability.recovery.slots, "from checkpoints", 5, 1.5))
    return rows


def _encode_reference(services: Services, series: int) -> Row:
    """Encode an interval as records of the reference store's log, checksums included, a batch at a time."""
    encoder, random = LogEncoder(), np.random.default_rng(5)
    encoder.learn(name_series(services.store, np.arange(series, dtype=np.int32)))
    values = random.gamma(2.0, 500.0, series).astype(np.float32)
    parts = [slice(start, start + _ROWS) for start in range(0, series, _ROWS)]
    batches = [
        Samples(np.arange(series, dtype=np.int32)[p], np.full(series, _FIRST, np.int64)[p], values[p])
        for p in parts
    ]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        for batch in batches:
            encoder.encode(batch)
        seconds.append(time.perf_counter() - began)
    rate = series / min(seconds) / 1e6
    return Row("records of the reference's log, with checksums, encoded", rate, "M/s", 5, 10)


def _now() -> int:
    return _FIRST


def _config(site: Site, directory: Path) -> Config:
    store = MetricStoreConfig(retention_in_memory=0, checkpoints=CheckpointsConfig(directory=str(directory)))
    return Config(metrics={metric.name: metric for metric in site.metrics}, metric_store=store)


@asynccontextmanager
async def _logging(site: Site, directory: Path) -> AsyncIterator[tuple[Services, Durability]]:
    """Make the parts of a server with what the directory has, and run its log."""
    services = make_services(_config(site, directory), now=_now, disk=OsDisk())
    durability = services.durability
    assert durability is not None
    await durability.recover()
    async with trio.open_nursery() as nursery:
        with durability.wal.held():
            for shard in durability.wal.shards:
                nursery.start_soon(durability.wal.write, shard)
            yield services, durability


async def _compare(plain: Services, logging: Services, site: Site) -> list[Row]:
    """Compare what two stores take, one of which has a log."""
    what, rows = "ingest with the log on, against off", []
    await _ingest(plain, site, 0, 1)  # every key is new
    await _ingest(logging, site, 0, 1)
    without, stream = await _ingest(plain, site, 1, _STREAM), await _ingest(logging, site, 1, _STREAM)
    rows.append(Row(what, without / stream, "x", 0.7, 0.9, note=f"{_STREAM} intervals, then all is on disk"))
    alone = min([await _ingest(logging, site, 1 + _STREAM + k, 1) for k in range(3)])
    rows.append(Row(f"{what}, waiting for the disk after each interval", without / _STREAM / alone, "x"))
    return rows


async def _ingest(services: Services, site: Site, first: int, count: int) -> float:
    """Take some intervals, a message each; return the seconds until all is on disk, if there is a log."""
    times = [_FIRST + 60 * k for k in range(first, first + count)]
    messages = [as_buffer(site.render(now)) for now in times]
    reached: list[int] = []
    began = time.perf_counter()
    for message, now in zip(messages, times, strict=True):
        written = await services.intake.write(*message, source="nats", default_cluster="", now=now)
        assert written.stored == len(site.keys)
        reached = written.reached
    if services.wal is not None:
        await services.wal.durable(reached)
    return time.perf_counter() - began


async def _fill(services: Services, series: int, first: int) -> None:
    """Put an hour of samples into every series and into the log, without line protocol."""
    ids, random, wal = np.arange(series, dtype=np.int32), np.random.default_rng(5), services.wal
    assert wal is not None
    reached = [0] * len(wal.shards)
    for minute in range(first, first + _MINUTES):
        times = np.full(series, _FIRST + 60 * minute, np.int64)
        values = random.gamma(2.0, 500.0, series).astype(np.float32)
        for start in range(0, series, _ROWS):
            part = slice(start, start + _ROWS)
            outcomes = np.empty(len(ids[part]), np.uint8)
            batch = Batch(len(outcomes), ids[part], times[part], values[part], outcomes)
            await wal.room()
            services.store.append(batch, latest=_FIRST * 2)
            wal.put(batch, reached)
    await wal.durable(reached)


async def _burst(services: Services, durability: Durability, site: Site) -> list[Row]:
    """Write a checkpoint of everything, while two intervals come in, host by host, and are acknowledged."""
    minute = 10 + _HOURS * _MINUTES
    bodies = [as_buffer([body]) for k in (0, 1) for body in site.render(_FIRST + 60 * (minute + k))]
    checkpoint = slowest = 0.0

    async def save() -> None:
        nonlocal checkpoint
        began = time.perf_counter()
        await durability.checkpoints.save_all()
        checkpoint = time.perf_counter() - began

    async def send(part: list[tuple[Any, Any, Any]]) -> None:
        nonlocal slowest
        for body in part:
            began = time.perf_counter()
            written = await services.intake.write(
                *body, source="http", default_cluster="", now=_FIRST + 60 * minute
            )
            await durability.wal.durable(written.reached)
            slowest = max(slowest, time.perf_counter() - began)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(save)
        async with trio.open_nursery() as senders:
            for k in range(16):
                senders.start_soon(send, bodies[k::16])
        burst = time.perf_counter() - began
    lost = sum(shard.appended - shard.durable for shard in durability.wal.shards)
    assert lost == 0
    return [
        Row(f"checkpoint of {len(site.keys)} series x {_MINUTES} values, beside it", checkpoint, "s", 20, 4),
        Row(
            "slowest acknowledgement meanwhile", slowest, "s", 2, 0.3,
            note=f"{2 * len(site.keys)} samples in {len(bodies)} bodies within {burst:.1f} s, none lost",
        ),
    ]  # fmt: skip


def _recovery(durability: Durability, values: int, text: str, least: float, aim: float) -> Row:
    seconds = durability.recovery.seconds
    return Row(f"recovery of 1 GB {text}", seconds * _GB / (4 * values), "s", least, aim,
               note=f"{values} values in {seconds:.1f} s")  # fmt: skip
