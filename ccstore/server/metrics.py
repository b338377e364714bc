"""What the server tells about itself: one description for ``/metrics`` and ``/api/stats``.

Each number is described once, with its type and help text; the two endpoints are two ways to write
them down. Counters never go back, and nothing is reset by being read. docs/reference/metrics.md is
held to it by a test.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import trio
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ccstore import __version__
from ccstore.server.durability import Durability
from ccstore.server.event_metrics import count_events, describe_events, describe_registry
from ccstore.server.family import Family, counter, gauge
from ccstore.server.histogram import Histogram
from ccstore.server.loopwatch import LoopWatch
from ccstore.server.services import Services
from ccstore.server.traffic import Traffic

__all__ = ["CONTENT_TYPE_LATEST", "Family", "describe", "encode_metrics", "encode_stats"]


def describe(services: Services) -> Iterator[Family]:
    """Describe the server as it is now."""
    yield Family("gauge", "info", "Version of the server.", [({"version": __version__}, 1)])
    yield gauge("ready", "Whether the server is ready.", not services.problems())
    yield gauge("uptime_seconds", "Time since the start.", services.uptime())
    yield from _ingest(services)
    yield from _memory(services)
    yield from _nats(services)
    yield from _streams(services)
    yield from describe_events(services.events)
    yield from describe_registry(services.registry)
    yield from _upkeep(services)
    yield from _traffic(services.traffic)
    if services.durability is not None:
        yield from _durability(services.durability)
    yield from _process(services.loop)


def _process(loop: LoopWatch) -> Iterator[Family]:
    yield counter("loop_busy_seconds", "Time in which tasks ran on the event loop.", loop.busy)
    yield gauge("loop_hold_seconds_max", "The longest time that a task held the event loop.", loop.longest)
    yield counter("loop_holds", "Times that a task held the event loop for more than 50 ms.", loop.held)
    yield gauge("tasks", "Tasks of the event loop.", trio.lowlevel.current_statistics().tasks_living)
    threads = trio.to_thread.current_default_thread_limiter()
    yield gauge("threads_busy", "Worker threads that have work.", threads.borrowed_tokens)
    yield gauge("threads_max", "How many may have work at the same time.", threads.total_tokens)


def _traffic(traffic: Traffic) -> Iterator[Family]:
    yield gauge("http_connections", "Open connections of HTTP.", traffic.connections)
    yield counter("http_accepted_connections", "Connections accepted.", traffic.accepted)
    yield counter("http_received_bytes", "Bytes read from them.", traffic.received_bytes)
    yield counter("http_sent_bytes", "Bytes written to them.", traffic.sent_bytes)
    yield gauge("http_running_requests", "Requests that are being answered.", traffic.running)
    counts = [
        ({"route": path, "status": str(status)}, count)
        for (path, status), count in sorted(traffic.requests.items())
    ]
    yield Family("counter", "http_requests", "Requests by route and status.", counts)
    text = "Time from the head of a request to the end of its answer, by route."
    seconds = [({"route": path}, seconds) for path, seconds in sorted(traffic.seconds.items())]
    yield Family("histogram", "http_request_seconds", text, seconds)


def _ingest(services: Services) -> Iterator[Family]:
    text = "Lines received, by where they came from and what became of them."
    counts = [
        ({"source": source, "outcome": outcome.name.lower()}, lines)
        for source, outcome, lines in services.ledger
    ]
    yield Family("counter", "lines", text, counts)
    text = "Spellings of a series whose subtype was dropped, so that several senders may share it."
    yield counter("collapsed_keys", text, services.scanner.collapsed)
    text = "Bodies of requests that were refused: too large, or silent for too long."
    yield counter("refused_bodies", text, services.intake.refused_bodies)
    yield counter("cut_bodies", "Bodies whose sender left in the middle.", services.intake.cut_bodies)
    yield gauge("keys", "Spellings of series that are known.", len(services.keys))


def _memory(services: Services) -> Iterator[Family]:
    store, cap = services.store.statistics(), services.config.metric_store.memory_cap_bytes
    yield gauge("clusters", "Clusters known.", store.clusters)
    yield gauge("hosts", "Hosts known.", store.hosts)
    yield gauge("series", "Series known.", store.series)
    yield gauge("series_max", "How many series there may be.", store.max_series)
    yield gauge("chunks", "Chunks of samples.", store.chunks)
    yield gauge("samples_bytes", "Memory of samples and of what leads to them.", store.bytes_used)
    yield gauge("samples_max_bytes", "The most memory samples can take.", store.bytes_reserved)
    yield gauge("keys_bytes", "Memory of the spellings of series.", services.keys.bytes_used)
    yield gauge("cap_bytes", "The most memory that shall be in use; 0 for no cap.", cap)
    yield gauge("over_cap", "Whether it is more even after freeing.", services.over_cap)


def _nats(services: Services) -> Iterator[Family]:
    nats = services.nats
    yield gauge("nats_connected", "Whether there is a connection.", nats.is_connected)
    yield counter("nats_reconnects", "Connections made after the first.", nats.reconnects)
    yield counter("nats_failed_connects", "Attempts to connect that failed.", nats.failed_connects)
    yield gauge("nats_refused_subjects", "Subjects that the broker denies.", len(nats.refused_subjects))
    yield counter("nats_messages", "Messages received, those dropped included.", nats.messages)
    yield counter("nats_bytes", "Their payload.", nats.bytes)
    yield counter("nats_dropped_messages", "Messages received and never stored.", nats.dropped_messages)
    yield counter("nats_dropped_bytes", "Their payload.", nats.dropped_bytes)
    yield counter("nats_dropped_lines", "Their lines.", nats.dropped_lines)
    yield gauge("nats_blocked", "Whether reading rests: the buffer is full.", nats.is_blocked)
    yield counter("nats_blocked_seconds", "How long reading has rested.", nats.blocked_seconds)
    yield gauge("nats_queued_messages", "Messages received and not stored yet.", nats.queued_messages)
    yield gauge("nats_queued_bytes", "Their payload.", nats.queued_bytes)
    yield gauge("nats_held_bytes", "Memory of the buffer in use.", nats.held_bytes)
    yield gauge("nats_budget_bytes", "The most memory the buffer may use.", nats.budget_bytes)
    yield gauge("nats_oldest_queued_seconds", "How long the oldest has waited.", nats.oldest_queued_age())


def _streams(services: Services) -> Iterator[Family]:
    hub = services.hub
    live = hub.statistics
    yield gauge("stream_connections", "Open websockets.", live.connections)
    feeds = len(hub.feeds) + len(hub.server_feeds) + len(hub.nodes.feeds)
    yield gauge("stream_feeds", "Different subscriptions, however many clients each has.", feeds)
    yield counter("stream_messages", "Messages sent to clients.", live.sent_messages)
    yield counter("stream_bytes", "Their size.", live.sent_bytes)
    yield counter("stream_errors", "Messages of clients that were answered with an error.", live.refused)
    yield counter("stream_lags", "Times that a subscription was interrupted for a slow client.", live.lags)
    yield counter("stream_closed_slow", "Connections closed for slow clients.", live.closed_slow)
    text = "The longest time from a sample to the end of its hand-over to all who are told of it."
    yield gauge("stream_delay_seconds_max", text, live.delay_seconds_max)
    text = "That time, of each message of each subscription, up to the last client."
    yield Family("histogram", "stream_delay_seconds", text, [({}, live.delays)])


def _upkeep(services: Services) -> Iterator[Family]:
    yield counter("freed_chunks", "Chunks freed, for whatever reason.", services.freed_chunks)
    text = "Hosts that the last retention pass left alone because of running jobs."
    yield gauge("excluded_hosts", text, services.excluded_hosts)
    jobs = [({"job": name}, job) for name, job in services.jobs.items()]
    text = "Runs of a periodic job, failed ones included."
    yield Family("counter", "job_runs", text, [(labels, job.runs) for labels, job in jobs])
    text = "Failed runs of a periodic job."
    yield Family("counter", "job_failures", text, [(labels, job.failures) for labels, job in jobs])
    text = "How long the last run of a periodic job took."
    yield Family("gauge", "job_seconds", text, [(labels, job.last_seconds) for labels, job in jobs])


def _durability(durability: Durability) -> Iterator[Family]:
    shards = durability.wal.shards
    yield counter("log_appended_samples", "Samples given to the log.", sum(s.appended for s in shards))
    yield counter("log_durable_samples", "Samples of the log on disk.", sum(s.durable for s in shards))
    yield counter("log_bytes", "Bytes written to the log.", sum(s.bytes for s in shards))
    yield counter("log_commits", "Syncs of files of the log.", sum(s.commits for s in shards))
    yield counter("log_failures", "Failed writes and syncs of the log.", sum(s.failures for s in shards))
    yield gauge("log_durable", "Whether all that is acknowledged is on disk.", not durability.wal.troubles)
    text = "The longest time that a write to the log took, with its sync."
    yield gauge("log_commit_seconds_max", text, max(s.longest_commit for s in shards))
    text = "How long a write to the log took, with its sync."
    yield Family("histogram", "log_commit_seconds", text, [({}, durability.wal.commit_seconds)])
    checkpoints, recovery = durability.checkpoints, durability.recovery
    text = "Time since all of a shard was in checkpoints."
    ages = [({"shard": str(shard.number)}, checkpoints.age(shard)) for shard in shards]
    yield Family("gauge", "checkpoint_age_seconds", text, ages)
    yield counter("checkpoints", "Checkpoints written, one for each shard.", checkpoints.files)
    yield counter("checkpoint_values", "Values in them, missing ones included.", checkpoints.slots)
    yield counter("checkpoint_bytes", "Their size.", checkpoints.bytes)
    text = "Share of the hosts that the checkpoint under way has; 1 if none is."
    yield gauge("checkpoint_progress", text, checkpoints.progress)
    yield counter("removed_files", "Files of the log and checkpoints removed.", checkpoints.removed)
    yield gauge("recovery_progress", "Share of the files read at the start.", durability.progress)
    yield gauge("recovery_seconds", "How long that took.", recovery.seconds)
    yield gauge("recovery_values", "Values read from checkpoints.", recovery.slots)
    yield gauge("recovery_samples", "Samples read from the log.", recovery.samples)
    yield gauge("recovery_damages", "Places in files that could not be read.", len(recovery.damage))


class _Described(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            made = Metric(f"ccstore_{family.name}", family.help, family.kind)
            for labels, value in family.samples:
                if isinstance(value, Histogram):
                    _add_histogram(made, labels, value)
                else:
                    made.add_sample(f"{made.name}{_SUFFIXES[family.kind]}", dict(labels), value)
            yield made


_SUFFIXES = {"counter": "_total", "gauge": ""}


def _add_histogram(made: Metric, labels: Mapping[str, str], histogram: Histogram) -> None:
    for bound, count in histogram.cumulated():
        made.add_sample(f"{made.name}_bucket", {**labels, "le": f"{bound:g}".replace("inf", "+Inf")}, count)
    made.add_sample(f"{made.name}_count", dict(labels), histogram.count)
    made.add_sample(f"{made.name}_sum", dict(labels), histogram.sum)


def encode_metrics(services: Services) -> bytes:
    """Write everything in the text format of Prometheus, and how the process is."""
    registry = CollectorRegistry()
    registry.register(_Described(list(describe(services))))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


def encode_stats(services: Services) -> dict[str, Any]:
    """Return everything as a value for JSON, with the ledger added up and what is not a number."""
    numbers = {
        family.name: family.number
        for family in describe(services)
        if family.number is not None and family.name not in _ELSEWHERE
    }
    nats = {name: numbers.pop(name) for name in list(numbers) if name.startswith("nats_")}
    sources: dict[str, dict[str, int]] = {}
    for source, outcome, lines in services.ledger:
        sources.setdefault(source, {})[outcome.name.lower()] = lines
    return {
        "version": __version__,
        "ready": not services.problems(),
        "problems": services.problems(),
        "lines": {**services.ledger.total(), "by_source": sources},
        **numbers,
        "unknown_metrics": list(services.intake.unknown_metrics),
        "events": count_events(services.events),
        "registry_trouble": services.registry.trouble,
        "loop_hold_task": services.loop.longest_name,
        "nats": {
            "state": services.nats.state,
            "server": services.nats.server,
            "last_error": services.nats.last_error,
            **{name.removeprefix("nats_"): value for name, value in nats.items()},
            "refused_subjects": services.nats.refused_subjects,
        },
        "jobs": {
            name: {
                "runs": job.runs,
                "failures": job.failures,
                "seconds": job.last_seconds,
                "last_error": job.last_error,
            }
            for name, job in services.jobs.items()
        },
        "routes": _routes(services.traffic),
        "shards": {} if services.durability is None else _shards(services.durability),
    }


def _routes(traffic: Traffic) -> dict[str, Any]:
    errors = Counter[str]()
    for (path, status), count in traffic.requests.items():
        errors[path] += count * (status >= 400)
    return {
        path: {"requests": seconds.count, "errors": errors[path], "seconds": seconds.sum}
        for path, seconds in sorted(traffic.seconds.items())
    }


def _shards(durability: Durability) -> dict[str, Any]:
    return {
        str(shard.number): {
            "trouble": shard.trouble,
            "waiting_samples": shard.appended - shard.durable,
            "checkpoint_age_seconds": durability.checkpoints.age(shard),
        }
        for shard in durability.wal.shards
    }


_ELSEWHERE = frozenset({"ready"})
"""Numbers that ``/api/stats`` tells in a form of their own."""
