"""Benchmark of streams: many clients that watch one job, while the whole site sends.

The server, the senders and the clients are processes on the same cores; in life, a thousand clients have
cores of their own, so here they have the lowest priority. Lines come at a rate that a large site has, so what
is asked is whether they still all come in time, and how late they are told. Of that the server keeps a
histogram; what the clients see has their own lateness in it.
"""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

from attrs import evolve

from ccstore.cli.bench.data import CLUSTER, Site, make_site
from ccstore.cli.bench.listeners import clock
from ccstore.cli.bench.report import Row
from ccstore.cli.bench.server import Poster, Server, serve
from ccstore.model import Metric

__all__ = ["measure_streams"]

_RATE = 500_000
"""Lines a second of 2 000 hosts; of fewer hosts, fewer."""
_CLIENTS = 1000
_INTERVALS = 3
_JOB_HOSTS, _JOB_METRICS = 64, 10
_CONNECTIONS = 4
_PIECE = 32
"""Hosts in one body."""
_PROBE_SECONDS = 0.05
_SETTLE_SECONDS = 1.5
"""After the snapshots of all clients, the server rests from its streams for up to a second."""
KIB = 1024


def measure_streams(hosts: int) -> Iterator[Row]:
    """Measure what streams cost and how late they are."""
    site = make_site(hosts)
    rate = _RATE * min(1.0, hosts / 2000)
    clients = min(_CLIENTS, 8 * hosts)
    first = int(time.time()) - 60 * (2 * _INTERVALS + 2)
    probed = evolve(site, metrics=(*site.metrics, Metric("probe", 1)))
    with serve(probed) as server:
        _send(server, site, first, 1, rate=10 * rate)  # series are made, keys are known
        alone = _send(server, site, first + 60, _INTERVALS, rate=rate)
        before, cpu = server.resident_bytes(), server.cpu_seconds()
        with _listening(server, _subscription(site), clients) as listeners:
            opened = (server.cpu_seconds() - cpu) / clients
            memory = (server.resident_bytes() - before) / clients
            time.sleep(_SETTLE_SECONDS)
            cpu, delays = server.cpu_seconds(), _delays(server)
            with _probing(server):
                together = _send(server, site, first + 60 * (_INTERVALS + 1), _INTERVALS, rate=rate)
            used = (server.cpu_seconds() - cpu) * together / (_INTERVALS * len(site.keys))
            delays = _delays(server) - delays
            assert listeners.stdin is not None
            found = json.loads(listeners.communicate()[0])
    what = f"{clients} streams of {min(_JOB_HOSTS, hosts)} hosts x {_JOB_METRICS} metrics"
    yield Row(
        f"ingest at {rate:.0f} lines/s, with {what}, of that without", 100 * together / alone, "%", 85, 97,
        note=f"{alone / 1e6:.3f} M lines/s without; the server uses {100 * used:.0f} % of a core with them",
    )  # fmt: skip
    yield Row(
        "line received to frame sent to the last client, p99, the same load",
        1e3 * _quantile(delays, 0.99), "ms", 500, 50,
        note=f"median {1e3 * _quantile(delays, 0.5):.0f} ms, {sum(delays.values())} messages to each client",
    )  # fmt: skip
    yield Row(
        "line sent to value at a client with lowest priority, p99, the same load", found["p99"], "ms",
        note=f"median {found['p50']} ms, most {found['most']} ms; {found['messages']} messages",
    )  # fmt: skip
    yield Row(
        "memory of the server a connected client", memory, "B", 200 * KIB, 50 * KIB,
        note=f"{1e3 * opened:.1f} ms CPU to connect and subscribe",
    )  # fmt: skip


def _delays(server: Server) -> Counter[float]:
    """Return how often the server took no longer than each bound (s), but longer than the one before."""
    text = server.client.get("/metrics").raise_for_status().text
    found = re.findall(r'^ccstore_stream_delay_seconds_bucket\{le="(.+)"\} (.+)$', text, re.MULTILINE)
    totals = [int(float(total)) for _, total in found]
    counts = [after - before for before, after in pairwise([0, *totals])]
    return Counter(dict(zip([float(bound) for bound, _ in found], counts, strict=True)))


def _quantile(delays: Counter[float], share: float) -> float:
    """Return the time (s) that a share of them does not exceed, between two bounds in proportion."""
    wanted, lower = share * sum(delays.values()), 0.0
    for bound, count in sorted(delays.items()):
        if count >= wanted:
            return lower + (min(bound, 2 * lower) - lower) * wanted / count
        wanted, lower = wanted - count, bound
    return lower


def _subscription(site: Site) -> bytes:
    """Return the subscription to a job, and to the probe behind it."""
    names = [metric.name for metric in site.metrics[:_JOB_METRICS]]
    queries = [{"metric": name, "host": host} for host in site.hosts[:_JOB_HOSTS] for name in names]
    queries.append({"metric": "probe", "host": site.hosts[0]})
    query = {"cluster": CLUSTER, "queries": queries}
    return json.dumps(
        {"op": "subscribe", "id": "b", "query": query, "window": 900, "format": "binary"}
    ).encode()


def _send(server: Server, site: Site, first: int, intervals: int, *, rate: float) -> float:
    """Post some intervals at a rate, or as fast as they are taken; return the rate (lines/s)."""
    posters = [Poster(server.url) for _ in range(_CONNECTIONS)]
    lines = per_piece = 0.0
    pieces: list[bytes] = []
    for k in range(intervals):
        bodies = site.render(first + 60 * k, seed=first + k)
        pieces += [b"".join(bodies[at : at + _PIECE]) for at in range(0, len(bodies), _PIECE)]
        lines += len(site.keys)
    per_piece = lines / len(pieces)
    began = time.perf_counter()

    def post(mine: Sequence[tuple[int, bytes]], poster: Poster) -> None:
        for number, piece in mine:
            time.sleep(max(0.0, began + number * per_piece / rate - time.perf_counter()))
            poster.post(piece)

    numbered = list(enumerate(pieces))
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(post, [numbered[k::_CONNECTIONS] for k in range(_CONNECTIONS)], posters))
    return lines / (time.perf_counter() - began)


@contextmanager
def _listening(server: Server, subscription: bytes, clients: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Run clients in a process of their own; they have their snapshots when the body begins."""
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "ccstore.cli.bench.listeners", port, str(clients)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(subscription + b"\n")
        process.stdin.flush()
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the clients did not get what they subscribed to")
        yield process


@contextmanager
def _probing(server: Server) -> Iterator[None]:
    """Send, again and again, a line whose value is when it was sent."""
    poster, stop = Poster(server.url), threading.Event()

    def probe() -> None:
        while not stop.wait(_PROBE_SECONDS):
            line = f"probe,cluster={CLUSTER},hostname=f0000,type=node value={clock()} {int(time.time())}\n"
            poster.post(line.encode())

    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe)
        try:
            yield
        finally:
            stop.set()
        probing.result()
