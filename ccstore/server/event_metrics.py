"""What the server tells about events and their database, for ``/metrics`` and ``/api/stats``."""

from collections.abc import Iterator
from typing import Any

from ccstore.server.events import Events
from ccstore.server.family import Family, counter, gauge
from ccstore.server.registry import Registry

__all__ = ["count_events", "describe_events", "describe_registry"]


def describe_events(events: Events) -> Iterator[Family]:
    """Describe the lines of events, and where they come from."""
    text = "Events of jobs and nodes, by where they came from and what became of them."
    counts = [
        ({"source": source, "kind": kind, "outcome": outcome.value}, number)
        for (source, kind, outcome), number in sorted(events.counts.items(), key=str)
    ]
    yield Family("counter", "events", text, counts)
    lines = [({"kind": kind}, turns) for kind, turns in events.turns.items()]
    text = "Events that wait for their turn or have it."
    yield Family("gauge", "events_queued", text, [(labels, len(turns)) for labels, turns in lines])
    text = "How long the oldest of them has waited."
    ages = [(labels, turns.oldest_age()) for labels, turns in lines]
    yield Family("gauge", "events_oldest_seconds", text, ages)
    yield gauge("early_stops", "Stops of jobs that wait for their start.", len(events.early))
    yield counter("event_empty_messages", "Messages without any line.", events.empty_messages)
    nats = events.nats
    yield gauge("event_connected", "Whether there is a connection for events.", nats.is_connected)
    yield counter("event_reconnects", "Connections for events made after the first.", nats.reconnects)
    yield counter("event_messages", "Messages with events received.", nats.messages)
    yield gauge("event_waiting_messages", "Those of them not in line yet.", nats.queued_messages)
    yield gauge("event_blocked", "Whether reading rests: there is no room.", nats.is_blocked)
    yield counter("event_blocked_seconds", "How long reading has rested.", nats.blocked_seconds)


def describe_registry(registry: Registry) -> Iterator[Family]:
    """Describe the database of nodes and jobs."""
    yield gauge("registry_waiting", "What waits for the database, or is being done.", len(registry))
    yield gauge("registry_working", "Whether the database can be used.", not registry.trouble)
    yield counter("registry_commits", "Transactions that stored something.", registry.commits)
    yield counter("registry_failures", "Transactions that the database would not have.", registry.failures)
    yield gauge("registry_seconds_max", "The longest transaction.", registry.longest)


def count_events(events: Events) -> dict[str, Any]:
    """Return for each line how long it is, and what became of events by where they came from."""
    found: dict[str, Any] = {
        kind: {"queued": len(turns), "oldest_seconds": turns.oldest_age(), "by_source": {}}
        for kind, turns in events.turns.items()
    }
    for (source, kind, outcome), number in events.counts.items():
        found[kind]["by_source"].setdefault(source, {})[outcome.value] = number
    return found
