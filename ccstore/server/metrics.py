"""What the server tells about itself: one description for ``/metrics`` and ``/api/stats``.

Each number is described once, with its type and help text; the two endpoints are two ways to write
them down. Counters never go back, and nothing is reset by being read. docs/reference/metrics.md is
held to it by a test.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import frozen
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ccstore import __version__
from ccstore.server.durability import Durability
from ccstore.server.services import Services

__all__ = ["CONTENT_TYPE_LATEST", "Family", "describe", "encode_metrics", "encode_stats"]


@frozen
class Family:
    """One metric with its samples."""

    kind: Literal["counter", "gauge"]
    name: str
    """Without the prefix ``ccstore_``, and without the ``_total`` of a counter."""
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]
    """Labels and value."""


def _gauge(name: str, text: str, value: float) -> Family:
    return Family("gauge", name, text, [({}, value)])


def _counter(name: str, text: str, value: float) -> Family:
    return Family("counter", name, text, [({}, value)])


def describe(services: Services) -> Iterator[Family]:
    """Describe the server as it is now."""
    yield Family("gauge", "info", "Version of the server.", [({"version": __version__}, 1)])
    yield _gauge("ready", "Whether the server is ready.", not services.problems())
    yield _gauge("uptime_seconds", "Time since the start.", services.uptime())
    yield from _ingest(services)
    yield from _memory(services)
    yield from _nats(services)
    yield from _upkeep(services)
    if services.durability is not None:
        yield from _durability(services.durability)
    loop = services.loop
    yield _gauge("loop_hold_seconds_max", "The longest time that a task held the event loop.", loop.longest)
    yield _counter("loop_holds", "Times that a task held the event loop for more than 50 ms.", loop.held)


def _ingest(services: Services) -> Iterator[Family]:
    text = "Lines received, by where they came from and what became of them."
    counts = [
        ({"source": source, "outcome": outcome.name.lower()}, lines)
        for source, outcome, lines in services.ledger
    ]
    yield Family("counter", "lines", text, counts)
    text = "Spellings of a series whose subtype was dropped, so that several senders may share it."
    yield _counter("collapsed_keys", text, services.scanner.collapsed)
    text = "Bodies of requests that were refused: too large, or silent for too long."
    yield _counter("refused_bodies", text, services.intake.refused_bodies)
    yield _counter("cut_bodies", "Bodies whose sender left in the middle.", services.intake.cut_bodies)
    yield _gauge("keys", "Spellings of series that are known.", len(services.keys))


def _memory(services: Services) -> Iterator[Family]:
    store, cap = services.store.statistics(), services.config.metric_store.memory_cap_bytes
    yield _gauge("clusters", "Clusters known.", store.clusters)
    yield _gauge("hosts", "Hosts known.", store.hosts)
    yield _gauge("series", "Series known.", store.series)
    yield _gauge("series_max", "How many series there may be.", store.max_series)
    yield _gauge("chunks", "Chunks of samples.", store.chunks)
    yield _gauge("samples_bytes", "Memory of samples and of what leads to them.", store.bytes_used)
    yield _gauge("samples_max_bytes", "The most memory samples can take.", store.bytes_reserved)
    yield _gauge("keys_bytes", "Memory of the spellings of series.", services.keys.bytes_used)
    yield _gauge("cap_bytes", "The most memory that shall be in use; 0 for no cap.", cap)
    yield _gauge("over_cap", "Whether it is more even after freeing.", services.over_cap)


def _nats(services: Services) -> Iterator[Family]:
    nats = services.nats
    yield _gauge("nats_connected", "Whether there is a connection.", nats.is_connected)
    yield _counter("nats_reconnects", "Connections made after the first.", nats.reconnects)
    yield _counter("nats_failed_connects", "Attempts to connect that failed.", nats.failed_connects)
    yield _gauge("nats_refused_subjects", "Subjects that the broker denies.", len(nats.refused_subjects))
    yield _counter("nats_messages", "Messages received, those dropped included.", nats.messages)
    yield _counter("nats_bytes", "Their payload.", nats.bytes)
    yield _counter("nats_dropped_messages", "Messages received and never stored.", nats.dropped_messages)
    yield _counter("nats_dropped_bytes", "Their payload.", nats.dropped_bytes)
    yield _counter("nats_dropped_lines", "Their lines.", nats.dropped_lines)
    yield _gauge("nats_blocked", "Whether reading rests: the buffer is full.", nats.is_blocked)
    yield _counter("nats_blocked_seconds", "How long reading has rested.", nats.blocked_seconds)
    yield _gauge("nats_queued_messages", "Messages received and not stored yet.", nats.queued_messages)
    yield _gauge("nats_queued_bytes", "Their payload.", nats.queued_bytes)
    yield _gauge("nats_held_bytes", "Memory of the buffer in use.", nats.held_bytes)
    yield _gauge("nats_budget_bytes", "The most memory the buffer may use.", nats.budget_bytes)
    yield _gauge("nats_oldest_queued_seconds", "How long the oldest has waited.", nats.oldest_queued_age())


def _upkeep(services: Services) -> Iterator[Family]:
    yield _counter("freed_chunks", "Chunks freed, for whatever reason.", services.freed_chunks)
    text = "Hosts that the last retention pass left alone because of running jobs."
    yield _gauge("excluded_hosts", text, services.excluded_hosts)
    jobs = [({"job": name}, job) for name, job in services.jobs.items()]
    text = "Runs of a periodic job, failed ones included."
    yield Family("counter", "job_runs", text, [(labels, job.runs) for labels, job in jobs])
    text = "Failed runs of a periodic job."
    yield Family("counter", "job_failures", text, [(labels, job.failures) for labels, job in jobs])
    text = "How long the last run of a periodic job took."
    yield Family("gauge", "job_seconds", text, [(labels, job.last_seconds) for labels, job in jobs])


def _durability(durability: Durability) -> Iterator[Family]:
    shards = durability.wal.shards
    yield _counter("log_appended_samples", "Samples given to the log.", sum(s.appended for s in shards))
    yield _counter("log_durable_samples", "Samples of the log on disk.", sum(s.durable for s in shards))
    yield _counter("log_bytes", "Bytes written to the log.", sum(s.bytes for s in shards))
    yield _counter("log_commits", "Syncs of files of the log.", sum(s.commits for s in shards))
    yield _counter("log_failures", "Failed writes and syncs of the log.", sum(s.failures for s in shards))
    yield _gauge("log_durable", "Whether all that is acknowledged is on disk.", not durability.wal.troubles)
    text = "The longest time that a write to the log took, with its sync."
    yield _gauge("log_commit_seconds_max", text, max(s.longest_commit for s in shards))
    checkpoints, recovery = durability.checkpoints, durability.recovery
    yield _counter("checkpoints", "Checkpoints written, one for each shard.", checkpoints.files)
    yield _counter("checkpoint_values", "Values in them, missing ones included.", checkpoints.slots)
    yield _counter("checkpoint_bytes", "Their size.", checkpoints.bytes)
    text = "Share of the hosts that the checkpoint under way has; 1 if none is."
    yield _gauge("checkpoint_progress", text, checkpoints.progress)
    yield _counter("removed_files", "Files of the log and checkpoints removed.", checkpoints.removed)
    yield _gauge("recovery_progress", "Share of the files read at the start.", durability.progress)
    yield _gauge("recovery_seconds", "How long that took.", recovery.seconds)
    yield _gauge("recovery_values", "Values read from checkpoints.", recovery.slots)
    yield _gauge("recovery_samples", "Samples read from the log.", recovery.samples)
    yield _gauge("recovery_damages", "Places in files that could not be read.", len(recovery.damage))


class _Described(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            name, is_counter = f"ccstore_{family.name}", family.kind == "counter"
            made = (CounterMetricFamily if is_counter else GaugeMetricFamily)(name, family.help)
            for labels, value in family.samples:
                made.add_sample(f"{name}_total" if is_counter else name, dict(labels), value)
            yield made


def encode_metrics(services: Services) -> bytes:
    """Write everything in the text format of Prometheus, and how the process is."""
    registry = CollectorRegistry()
    registry.register(_Described(list(describe(services))))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def encode_stats(services: Services) -> dict[str, Any]:
    """Return everything as a value for JSON, with the ledger added up and what is not a number."""
    numbers = {
        family.name: family.samples[0][1] for family in describe(services) if family.name not in _ELSEWHERE
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
    }


_ELSEWHERE = frozenset({"info", "ready", "lines", "job_runs", "job_failures", "job_seconds"})
"""Families that ``/api/stats`` tells in a form of their own."""
