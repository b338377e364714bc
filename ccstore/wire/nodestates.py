"""Node states as a scheduler reports them and as clients read them: JSON <-> model.

Owns the rule that makes one state of a scheduler's words, and the text in which the metrics that are late or
missing are kept. It knows neither the store that checks them nor the database that keeps them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ccstore.model import (
    Health,
    NodeHealth,
    NodeRecord,
    NodeReport,
    NodeState,
    NodeStatus,
    SkippedNode,
)
from ccstore.wire.jsonvalue import decode_value, structure

__all__ = [
    "classify_states",
    "decode_health",
    "decode_report",
    "encode_history",
    "encode_lists",
    "encode_node",
    "encode_nodes",
    "unique_nodes",
]


def decode_report(text: bytes) -> NodeReport:
    """Return what a scheduler says of nodes; unknown keys are refused. Raises ProtocolError."""
    return structure(decode_value(text), NodeReport, strict=True)


def unique_nodes(report: NodeReport) -> tuple[NodeReport, tuple[SkippedNode, ...]]:
    """Return the report with the last entry of each host, and the entries that gave way."""
    last = {node.hostname: node for node in report.nodes}
    if len(last) == len(report.nodes):
        return report, ()
    skipped = tuple(
        SkippedNode(node.hostname, "more than once in the report (the last one counts)")
        for node in report.nodes
        if last[node.hostname] is not node
    )
    return NodeReport(report.cluster, tuple(last.values())), skipped


def classify_states(words: Iterable[str]) -> NodeState:
    """Return the state that a scheduler's words stand for; neither case nor order matters.

    A node that drains is idle and down at once, and no job can begin on it: so it is down.
    """
    known = {word.lower() for word in words}
    for state in (NodeState.ALLOCATED, NodeState.RESERVED):
        if state.value in known:
            return state
    if "idle" in known:
        return NodeState.DOWN if "down" in known else NodeState.IDLE
    for state in (NodeState.DOWN, NodeState.MIXED):
        if state.value in known:
            return state
    return NodeState.UNKNOWN


def encode_lists(health: NodeHealth) -> str:
    """Write which metrics of a node are degraded or missing; "" where nothing could be checked."""
    if not health.known:
        return ""
    return orjson.dumps({"degraded": list(health.degraded), "missing": list(health.missing)}).decode()


def decode_health(state: Health, lists: str | None) -> NodeHealth:
    """Return the health that was kept as a state and a text; a text that nobody can read counts as none."""
    try:
        value = orjson.loads(lists) if lists else None
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        return NodeHealth(state, known=False)
    degraded, missing = (_names(value.get(key)) for key in ("degraded", "missing"))
    return NodeHealth(state, known=True, degraded=degraded, missing=missing)


def _names(value: Any) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def encode_nodes(nodes: Iterable[NodeStatus]) -> Iterator[bytes]:
    """Write the states of nodes, a piece for each."""
    separator = b'{"nodes":['
    for node in nodes:
        yield separator + encode_node(node)
        separator = b","
    yield b'{"nodes":[]}\n' if separator != b"," else b"]}\n"


def encode_node(node: NodeStatus) -> bytes:
    """Write the state of a node as an object."""
    record = node.record
    entry = {
        "cluster": node.cluster,
        "subcluster": record.subcluster,
        "hostname": record.hostname,
        **_health(record),
        "reported": record.time,
        "since": node.since,
        "healthSince": node.health_since,
        **_numbers(record),
    }
    return orjson.dumps(entry)


def encode_history(
    cluster: str, subcluster: str, hostname: str, records: Iterable[NodeRecord]
) -> Iterator[bytes]:
    """Write what was kept of one node, a piece for each time."""
    head = {"cluster": cluster, "subcluster": subcluster, "hostname": hostname}
    yield orjson.dumps(head)[:-1] + b',"states":['
    separator = b""
    for record in records:
        yield separator + orjson.dumps({"time": record.time, **_health(record), **_numbers(record)})
        separator = b","
    yield b"]}\n"


def _health(record: NodeRecord) -> dict[str, Any]:
    return {
        "state": record.state.value,
        "health": record.health.state.value,
        "degraded": list(record.health.degraded),
        "missing": list(record.health.missing),
    }


def _numbers(record: NodeRecord) -> dict[str, int]:
    return {
        "jobsRunning": record.jobs_running,
        "cpusAllocated": record.cpus_allocated,
        "memoryAllocated": record.memory_allocated,
        "gpusAllocated": record.gpus_allocated,
    }
