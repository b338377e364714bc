"""Benchmarks of what a scheduler sends: node states with the health of a whole site, and many job events.

The server is a process of its own. What is measured ends on disk: a report counts when its 200 has come,
a job when its end can be read in the database, as another program would.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from ccstore.cli.bench.data import CLUSTER, Site, make_site
from ccstore.cli.bench.report import Row
from ccstore.cli.bench.server import SUBJECT, Server, broker, publish, serve

__all__ = ["measure_nodes"]

_EXPECTED = 30
"""Metrics that a healthy host sends."""
_REPORTS = 7
_JOBS, _STATES = "bench-jobs", "bench-states"
_EVENTS_PER_SECOND, _LINES_PER_SECOND = 1100, 550_000
"""Sent, a little more than what has to be reached, for the last ones have to be committed as well."""
_STEP = 0.02
"""Seconds between two messages of lines."""
_PATIENCE = 60.0
"""Seconds for which the end of the last job is waited for."""


def measure_nodes(hosts: int, *, seconds: int = 5) -> Iterator[Row]:
    """Measure reports of all hosts, then job events for some seconds beside lines, over a real broker."""
    site = make_site(hosts)
    where: list[Path] = []

    def extra(directory: Path) -> Mapping[str, Any]:
        where.append(directory / "job.db")
        _write_cluster(site, directory / "archive")
        subjects = {"subject-job-event": _JOBS, "subject-node-state": _STATES}
        return {
            "main": {"db": str(where[0]), "api-subjects": subjects},
            "archive": {"kind": "file", "path": str(directory / "archive")},
        }

    with broker() as address, serve(site, nats=address, extra=extra) as server:
        yield _measure_reports(server, site, address)
        yield from _measure_events(server, site, address, where[0], seconds)


def _write_cluster(site: Site, directory: Path) -> None:
    """Write the file of a cluster whose hosts are expected to send most of the metrics."""
    (directory / CLUSTER).mkdir(parents=True)
    (directory / "version.txt").write_text("3\n")
    metrics = [
        {"name": m.name, "timestep": m.frequency, "aggregation": "sum"} for m in site.metrics[-_EXPECTED:]
    ]
    subcluster = {"name": "main", "nodes": ",".join(site.hosts)}
    cluster = {"name": CLUSTER, "metricConfig": metrics, "subClusters": [subcluster]}
    (directory / CLUSTER / "cluster.json").write_text(json.dumps(cluster))


def _measure_reports(server: Server, site: Site, address: str) -> Row:
    """Report the states of all hosts when all series have a fresh value."""
    publish(address, SUBJECT, site.render(int(time.time())))
    server.wait_for_lines(len(site.keys))
    states = ["IDLE"]
    nodes = [{"hostname": host, "states": states, "cpusAllocated": 0} for host in site.hosts]
    body, took = json.dumps({"cluster": CLUSTER, "nodes": nodes}).encode(), []
    for _ in range(_REPORTS):
        began = time.perf_counter()
        answer = server.client.post("/api/nodestate/", content=body).raise_for_status()
        took.append(time.perf_counter() - began)
        if answer.json()["stored"] != len(site.hosts):
            raise RuntimeError(f"the server answered {answer.text[:200]}")
    return Row(
        f"report of {len(nodes)} nodes, {_EXPECTED} metrics each, to commit", min(took) * 1e3, "ms", 400, 100,
        note=f"{len(site.keys)} series; slowest of {_REPORTS}: {max(took) * 1e3:.0f} ms",
    )  # fmt: skip


def _measure_events(server: Server, site: Site, address: str, database: Path, seconds: int) -> Iterator[Row]:
    """Start and stop jobs, each stop right behind its start, while lines come in."""
    before, first = server.stats()["lines"]["received"], int(time.time())
    jobs = seconds * _EVENTS_PER_SECOND // 2
    events = [event for number in range(jobs) for event in _job(site, number, first)]
    lines = _spread(site.render(first), int(_LINES_PER_SECOND * _STEP))
    intervals = max(1, round(seconds * _LINES_PER_SECOND / len(site.keys)))
    pause = seconds / (intervals * len(lines))
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        sent = [
            pool.submit(publish, address, SUBJECT, lines * intervals, pause=pause),
            pool.submit(publish, address, _JOBS, events, pause=seconds / len(events)),
        ]
        for one in sent:
            one.result()
    wanted = [(jobs, _duration(jobs))]
    ended = _wait_for(lambda: _ended(database), wanted)
    took = time.perf_counter() - began
    server.wait_for_lines(before + intervals * len(site.keys))
    rate = intervals * len(site.keys) / (time.perf_counter() - began)
    if ended != wanted:
        raise RuntimeError(f"jobs ended and their seconds: {ended} (wanted {wanted})")
    yield Row(
        f"job events over NATS, for {seconds} s, to commit", len(events) / took, "events/s", 1000,
        note=f"{jobs} jobs started and stopped in order, none lost",
    )  # fmt: skip
    yield Row("lines over NATS beside them", rate / 1e6, "M lines/s", 0.5)


def _job(site: Site, number: int, first: int) -> Iterator[bytes]:
    """Yield start and stop of a job as messages."""
    host, key = site.hosts[number % len(site.hosts)], {"cluster": CLUSTER, "jobId": number + 1}
    start = key | {
        "startTime": first,
        "user": f"u{number % 100}",
        "numNodes": 1,
        "resources": [{"hostname": host}],
    }
    stop = key | {"stopTime": first + number % 1000, "jobState": "completed"}
    for function, event in (("start_job", start), ("stop_job", stop)):
        text = orjson.dumps(event).decode().replace("\\", "\\\\").replace('"', '\\"')
        yield f'job,function={function} event="{text}" {first}\n'.encode()


def _duration(jobs: int) -> int:
    """Return the seconds of so many jobs together."""
    return sum(number % 1000 for number in range(jobs))


def _spread(bodies: Sequence[bytes], lines: int) -> list[bytes]:
    """Put bodies of some hundred lines together to messages of about so many lines."""
    each = max(1, lines * len(bodies) // sum(body.count(b"\n") for body in bodies))
    return [b"".join(bodies[k : k + each]) for k in range(0, len(bodies), each)]


def _ended(database: Path) -> list[tuple[int, int]]:
    """Return how many jobs have ended and their seconds, as another program reads it."""
    connection = sqlite3.connect(database)
    try:
        text = "SELECT count(*), coalesce(sum(duration), 0) FROM job WHERE job_state = 'completed'"
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def _wait_for(
    read: Callable[[], list[tuple[int, int]]], wanted: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Read until it is what is wanted, or for as long as is reasonable."""
    until = time.monotonic() + _PATIENCE
    while (found := read()) != wanted and time.monotonic() < until:
        time.sleep(0.05)
    return found
