"""Benchmarks of the rooms without a server: scan, append, memory, queries. One process, one core."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import trio
from numpy.typing import NDArray

from ccstore.cli.bench.data import CLUSTER, THREADS, Site, as_buffer, make_site
from ccstore.cli.bench.report import Row
from ccstore.config import Config
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Batch, Metric, QueryRequest
from ccstore.server.api import answer_pieces
from ccstore.server.services import make_services
from ccstore.wire.keys import KeyCache
from ccstore.wire.scan import Scan, Scanner

__all__ = ["measure_ingest", "measure_queries"]

_FIRST = 1_740_000_000
_FAR = 2**40
_INTERVALS = 8


class _Ingest:
    """A store and a scanner, and how long each takes."""

    def __init__(self, site: Site) -> None:
        self.store = Store(site.metrics, max_bytes=4 << 30)
        self.scanner = Scanner(KeyCache(seed=1), self.store)

    def take(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> tuple[float, float, float]:
        """Take messages; return the seconds for scan and for append, and the longest step of both."""
        scan = Scan(self.scanner, data, starts, stops, now=_FIRST)
        scanning = appending = longest = 0.0
        while not scan.done:
            began = time.perf_counter()
            batch, _ = scan.step(allowance=2**31)
            scanned = time.perf_counter()
            self.store.append(batch, latest=_FAR)
            ended = time.perf_counter()
            scanning += scanned - began
            appending += ended - scanned
            longest = max(longest, ended - began)
        return scanning, appending, longest


def measure_ingest(hosts: int) -> Iterator[Row]:
    """Measure scan, append and memory with a site of so many hosts."""
    site = make_site(hosts)
    lines = len(site.keys)
    data, starts, stops = as_buffer(site.render(_FIRST))
    times = _Times(data)
    before = _resident_bytes()
    ingest = _Ingest(site)
    scanning, appending, _ = ingest.take(times.data, starts, stops)
    yield Row("first interval, every key new", lines / (scanning + appending) / 1e6, "M lines/s", 0.15, 0.5)
    usual = []
    for k in range(1, _INTERVALS):
        times.set(_FIRST + 60 * k)
        usual.append(ingest.take(times.data, starts, stops))
    scan = min(scanning for scanning, _, _ in usual[1:])
    append = min(appending for _, appending, _ in usual[1:])
    yield Row("scan, keys known, usual order", lines / scan / 1e6, "M lines/s", 8, 20)
    yield Row("scan, second interval", lines / usual[0][0] / 1e6, "M lines/s")
    held = ingest.store.statistics().bytes_used + ingest.scanner.keys.bytes_used
    yield Row(
        f"memory a series, {_INTERVALS} samples, resident",
        (_resident_bytes() - before) / lines,
        "B",
        700,
        350,
    )
    yield Row(f"memory a series, {_INTERVALS} samples, in use", held / lines, "B")
    yield Row("append, usual order", lines / append / 1e6, "M samples/s", 10, 25)
    yield from _measure_orders(site, ingest)


def _measure_orders(site: Site, ingest: _Ingest) -> Iterator[Row]:
    lines, random = len(site.keys), np.random.default_rng(7)
    took = []
    for k in range(3):
        body = site.render(_FIRST + 60 * (_INTERVALS + k), order=random.permutation(lines))
        took.append(ingest.take(*as_buffer(body)))
    yield Row("scan, keys known, random order", lines / min(t[0] for t in took) / 1e6, "M lines/s", 2, 4)
    yield Row("append, random order", lines / min(t[1] for t in took) / 1e6, "M samples/s")
    body = site.render(_FIRST + 60 * (_INTERVALS + 4), digits=17)
    ingest.take(*as_buffer(body))
    scanning, _, _ = ingest.take(*as_buffer(site.render(_FIRST + 60 * (_INTERVALS + 5), digits=17)))
    yield Row("scan, usual order, values of 17 digits", lines / scanning / 1e6, "M lines/s")


class _Times:
    """A rendered interval whose times can be set, so that its memory is the same for all intervals."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data.copy()
        ends = np.flatnonzero(self.data == ord("\n"))
        self._digits = ends[:, np.newaxis] - np.arange(10, 0, -1)

    def set(self, seconds: int) -> None:
        """Write a time of ten digits into every line."""
        self.data[self._digits] = np.frombuffer(b"%d" % seconds, np.uint8)


def measure_queries(hosts: int) -> Iterator[Row]:
    """Measure answers about so many hosts, from request to JSON."""
    yield from trio.run(_measure_queries, hosts)


async def _measure_queries(hosts: int) -> list[Row]:
    metrics = {name: Metric(name, 60, Aggregation.SUM) for name in ("of_threads", "of_node")}
    services = make_services(Config(metrics=metrics))
    _fill(services.store, hosts)
    rows = []
    for text, metric, minutes, least, aim in (
        (f"sum of {THREADS} series on each of {hosts} hosts, 6 values each", "of_threads", 6, 60, 10),
        (f"answer of {hosts} hosts x 1 metric x 1440 values, JSON", "of_node", 1440, 300, 80),
    ):
        request = QueryRequest(CLUSTER, _FIRST, _FIRST + 60 * minutes, for_all_nodes=(metric,))
        took = []
        for _ in range(4):
            began = time.perf_counter()
            size = sum([len(piece) async for piece in answer_pieces(services, request)])
            took.append((time.perf_counter() - began) * 1e3)
        rows.append(
            Row(
                text,
                min(took[1:]),
                "ms",
                least,
                aim,
                note=f"first time {took[0]:.0f} ms, {size / 1e6:.1f} MB",
            )
        )
    return rows


def _fill(store: Store, hosts: int) -> None:
    """Put 6 values into a metric of each thread, and 1440 into one of each node."""
    for metric, minutes in (("of_threads", 6), ("of_node", 1440)):
        names = [f"hwthread{k}" for k in range(THREADS)] if metric == "of_threads" else [""]
        places = [
            store.locate((CLUSTER, f"f{host:04d}", name) if name else (CLUSTER, f"f{host:04d}"))
            for host in range(hosts)
            for name in names
        ]
        ids, _ = store.enlist(
            np.array(places, np.int32),
            np.full(len(places), store.metric_ids[metric], np.int32),
            allowance=len(places),
        )
        random, outcomes = np.random.default_rng(3), np.empty(len(ids), np.uint8)
        for minute in range(minutes):
            times = np.full(len(ids), _FIRST + 60 * minute, np.int64)
            values = random.gamma(2.0, 500.0, len(ids)).astype(np.float32)
            store.append(Batch(len(ids), ids, times, values, outcomes), latest=_FAR)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
