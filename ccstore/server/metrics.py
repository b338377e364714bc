"""What the server tells about itself: one description for ``/metrics`` and ``/api/stats``.

Each number is described once, with its type and help text; the two endpoints are two ways to write
them down. Counters never go back, and nothing is reset by being read.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import trio
from attrs import field, frozen
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ccstore import __version__
from ccstore.server.services import Services

__all__ = ["CONTENT_TYPE_LATEST", "Family", "describe", "encode_metrics", "encode_stats"]


@frozen
class Family:
    """One metric with its samples."""

    name: str
    """Without ``_total``, which the text form of a counter adds."""
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...] = field(converter=tuple)
    """Labels and value."""


def _one(value: float) -> list[tuple[Mapping[str, str], float]]:
    return [({}, value)]


def describe(services: Services) -> Iterator[Family]:
    """Describe the server as it is now."""
    yield Family("ccstore_info", "gauge", "Version of the server.", [({"version": __version__}, 1.0)])
    yield Family(
        "ccstore_ready", "gauge", "Whether the server is ready (1) or not (0).", _one(not services.problems())
    )
    yield Family("ccstore_uptime_seconds", "gauge", "Time since the start.", _one(services.uptime()))
    yield from _ingest(services)
    yield from _memory(services)
    yield from _nats(services)
    yield from _upkeep(services)
    yield Family(
        "ccstore_loop_hold_seconds_max",
        "gauge",
        "The longest time that one task kept the event loop to itself.",
        _one(services.loop.longest),
    )
    yield Family(
        "ccstore_loop_holds", "counter", "Times that a task kept the event loop for more than 50 ms.",
        _one(services.loop.held),
    )  # fmt: skip


def _ingest(services: Services) -> Iterator[Family]:
    yield Family(
        "ccstore_lines", "counter",
        "Lines received, by where they came from and what became of them. Every line is counted once.",
        [({"source": source, "outcome": outcome.name.lower()}, n) for source, outcome, n in services.ledger],
    )  # fmt: skip
    yield Family(
        "ccstore_collapsed_keys", "counter",
        "Spellings of a series whose subtype was dropped, so that several senders may share the series.",
        _one(services.scanner.collapsed),
    )  # fmt: skip
    yield Family("ccstore_keys", "gauge", "Spellings of series that are known.", _one(len(services.keys)))


def _memory(services: Services) -> Iterator[Family]:
    statistics = services.store.statistics()
    for name, text, value in (
        ("clusters", "Clusters with data.", statistics.clusters),
        ("hosts", "Hosts with data.", statistics.hosts),
        ("series", "Series with data.", statistics.series),
        ("series_max", "How many series there may be.", statistics.max_series),
        ("chunks", "Chunks of samples.", statistics.chunks),
        ("samples_bytes", "Memory of samples and of what leads to them.", statistics.bytes_used),
        ("keys_bytes", "Memory of the spellings of series.", services.keys.bytes_used),
        ("cap_bytes", "The most memory samples shall take; 0 for no cap.",
         services.config.metric_store.memory_cap_bytes),
    ):  # fmt: skip
        yield Family(f"ccstore_{name}", "gauge", text, _one(value))


def _nats(services: Services) -> Iterator[Family]:
    nats = services.nats
    for name, text, value in (
        ("messages", "Messages received, those dropped included.", nats.messages),
        ("bytes", "Payload received, in bytes.", nats.bytes),
        (
            "dropped_messages",
            "Messages dropped because the store took less than came.",
            nats.dropped_messages,
        ),
        ("dropped_bytes", "Payload dropped, in bytes.", nats.dropped_bytes),
        ("dropped_lines", "Lines dropped.", nats.dropped_lines),
        ("reconnects", "Connections made after the first.", nats.reconnects),
    ):
        yield Family(f"ccstore_nats_{name}", "counter", text, _one(value))
    for name, text, number in (
        ("connected", "Whether there is a connection (1) or not (0).", nats.is_connected),
        ("queued_messages", "Messages received and not yet taken.", nats.queued_messages),
        ("queued_bytes", "Their payload.", nats.queued_bytes),
        ("held_bytes", "Memory that keeps them.", nats.held_bytes),
        ("budget_bytes", "The most memory that may keep them.", nats.budget_bytes),
        ("oldest_queued_seconds", "How long the oldest of them has waited.", nats.oldest_queued_age()),
    ):
        yield Family(f"ccstore_nats_{name}", "gauge", text, _one(number))


def _upkeep(services: Services) -> Iterator[Family]:
    yield Family("ccstore_freed_chunks", "counter", "Chunks freed.", _one(services.freed_chunks))
    yield Family(
        "ccstore_excluded_hosts", "gauge", "Hosts that retention keeps because of running jobs.",
        _one(services.excluded_hosts),
    )  # fmt: skip
    for name, kind, text, attribute in (
        ("job_runs", "counter", "Runs of periodic jobs.", "runs"),
        ("job_failures", "counter", "Failed runs of periodic jobs.", "failures"),
        ("job_seconds", "gauge", "How long the last run of a periodic job took.", "last_seconds"),
    ):
        samples = [({"job": job}, getattr(stats, attribute)) for job, stats in services.jobs.items()]
        yield Family(f"ccstore_{name}", kind, text, samples)  # type: ignore[arg-type]


class _Described(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            cls = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            made = cls(family.name, family.help)
            for labels, value in family.samples:
                made.add_sample(
                    f"{family.name}_total" if family.kind == "counter" else family.name, dict(labels), value
                )
            yield made


def encode_metrics(services: Services) -> bytes:
    """Write everything in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Described(list(describe(services))))
    return generate_latest(registry)


def encode_stats(services: Services) -> dict[str, Any]:
    """Return everything as a value for JSON, with the ledger added up and the reasons for not being ready."""
    numbers: dict[str, Any] = {}
    for family in describe(services):
        name = family.name.removeprefix("ccstore_")
        if name in ("info", "lines", "ready"):
            continue
        if name.startswith("job_"):
            jobs = numbers.setdefault("jobs", {})
            for labels, value in family.samples:
                jobs.setdefault(labels["job"], {})[name.removeprefix("job_")] = value
        else:
            numbers[name] = family.samples[0][1]
    sources: dict[str, dict[str, int]] = {}
    for source, outcome, lines in services.ledger:
        sources.setdefault(source, {})[outcome.name.lower()] = lines
    nats = {key.removeprefix("nats_"): numbers.pop(key) for key in list(numbers) if key.startswith("nats_")}
    return {
        "version": __version__,
        "ready": not services.problems(),
        "problems": services.problems(),
        "lines": {**services.ledger.total(), "by_source": sources},
        **numbers,
        "loop_hold_task": services.loop.longest_name,
        "nats": {
            **nats,
            "state": services.nats.state,
            "server": services.nats.server,
            "last_error": services.nats.last_error,
        },
    }
