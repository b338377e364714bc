"""Reports of node states: what a scheduler says of hosts, and what the store sees of them, put together.

One function, whichever way a report came. It waits for the store's event loop and for the registry, and
decides nothing about either: states are read by `ccstore.wire.nodestates`, health by `Store.check_health`.
Invariant: a node of a report is stored, or is in the answer with a reason; and all that are stored are in
one transaction, with one time.
"""

import logging
from collections.abc import Sequence

import trio
from attrs import evolve

from ccstore.config.clusters import Clusters
from ccstore.disk.registry import nodes
from ccstore.memory.store import Store
from ccstore.model import (
    Health,
    NodeHealth,
    NodeRecord,
    NodeReport,
    NodesStored,
    NodeState,
    ReportedNode,
    SkippedNode,
)
from ccstore.server.registry import Registry
from ccstore.wire.nodestates import classify_states, unique_nodes

__all__ = ["delete_old", "store_report"]

log = logging.getLogger("ccstore.events")

_STEP = 0.001
"""Seconds for which hosts are checked before others run; one host takes some ten microseconds."""
_LONGEST_NAME = 255
"""Bytes; a longer name is no host of the store either."""

_DELETED_AT_ONCE = 2000
"""States in one transaction; others who store something come in between."""

_TOLD = 10
"""Lines in the log for the nodes of one report: a whole cluster may be missing in the node lists."""

_DOWN = NodeHealth(Health.FULL, known=False)
"""The health of a node that is down: nothing is expected of it."""
_UNCHECKED = NodeHealth(Health.FAILED, known=False)
"""The health of a node of which nobody knows what to expect."""


async def store_report(
    report: NodeReport, *, store: Store, clusters: Clusters, registry: Registry, now: int
) -> NodesStored:
    """Store what a report says, with the health of each node; return what became of them."""
    unique, repeated = unique_nodes(report)
    records, stop = [], trio.current_time() + _STEP
    for node in unique.nodes:
        records.append(_judge(report.cluster, node, store, clusters, now))
        if trio.current_time() >= stop:
            await trio.lowlevel.checkpoint()
            stop = trio.current_time() + _STEP
    good = [record for record in records if isinstance(record, NodeRecord)]
    stored = NodesStored(0)
    if good:
        stored = await registry.write(nodes.store_report, report.cluster, now, good)
    bad = [record for record in records if isinstance(record, SkippedNode)]
    stored = evolve(stored, skipped=(*repeated, *bad, *stored.skipped))
    _tell_skipped(report.cluster, stored.skipped)
    return stored


def _tell_skipped(cluster: str, skipped: Sequence[SkippedNode]) -> None:
    for node in skipped[:_TOLD]:
        fields = {"cluster": cluster, "host": node.hostname, "reason": node.reason}
        log.error("node %(host)r of cluster %(cluster)r skipped: %(reason)s", fields)
    if more := len(skipped[_TOLD:]):
        log.error("%(nodes)d more nodes of cluster %(cluster)r skipped", {"nodes": more, "cluster": cluster})


async def delete_old(registry: Registry, before: int) -> None:
    """Delete the states that are older than a time (s), but for the newest of each node, step by step."""
    deleted, number = 0, _DELETED_AT_ONCE
    while number == _DELETED_AT_ONCE:
        number = await registry.write(nodes.delete_expired, before, _DELETED_AT_ONCE)
        deleted += number
    log.info("node states: %(states)d before %(cutoff)d deleted", {"states": deleted, "cutoff": before})


def _judge(
    cluster: str, node: ReportedNode, store: Store, clusters: Clusters, now: int
) -> NodeRecord | SkippedNode:
    """Return what is to be kept of a node, or why it is not."""
    name = node.hostname
    if not 1 <= (size := len(name.encode())) <= _LONGEST_NAME:
        return SkippedNode(name, f"hostname of {size} bytes (wanted 1 to {_LONGEST_NAME})")
    subcluster = clusters.find_subcluster(cluster, name)
    state = classify_states(node.states)
    if state is NodeState.DOWN:
        health = _DOWN
    elif subcluster is None:
        health = _UNCHECKED
    else:
        health = store.check_health(cluster, name, subcluster.expected, now=now)
    return NodeRecord(
        name, "" if subcluster is None else subcluster.name, state, health,
        cpus_allocated=node.cpus_allocated, memory_allocated=node.memory_allocated,
        gpus_allocated=node.gpus_allocated, jobs_running=node.jobs_running,
    )  # fmt: skip
