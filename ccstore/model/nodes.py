"""The nouns of nodes: what a scheduler says of hosts, and what is kept of it.

A node is a host in the words of a scheduler. Its state is what the scheduler says, its health what the
store sees of it (`NodeHealth`).
"""

import enum
from collections.abc import Sequence

from attrs import frozen

from ccstore.model.samples import Health, NodeHealth

__all__ = [
    "NodeFilter",
    "NodeRecord",
    "NodeReport",
    "NodeState",
    "NodeStatus",
    "NodesStored",
    "ReportedNode",
    "SkippedNode",
]


class NodeState(enum.Enum):
    """What a scheduler says of a node, in one word."""

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    IDLE = "idle"
    MIXED = "mixed"
    DOWN = "down"
    UNKNOWN = "unknown"


@frozen
class ReportedNode:
    """A node in a report, as the scheduler spells it."""

    hostname: str = ""
    states: tuple[str, ...] = ()
    """Any number of words in any case and order; `ccstore.wire.nodestates.classify_states` reads them."""
    cpus_allocated: int = 0
    memory_allocated: int = 0
    """Megabytes."""
    gpus_allocated: int = 0
    jobs_running: int = 0


@frozen
class NodeReport:
    """One request: what a scheduler says of some nodes of a cluster."""

    cluster: str = ""
    nodes: tuple[ReportedNode, ...] = ()


@frozen
class NodeRecord:
    """What is kept of one node at one time."""

    hostname: str
    subcluster: str
    state: NodeState
    health: NodeHealth
    """Its lists are kept only where `known`: where a check ran and there was something to check."""
    cpus_allocated: int = 0
    memory_allocated: int = 0
    """Megabytes."""
    gpus_allocated: int = 0
    jobs_running: int = 0
    time: int = 0
    """Seconds since the epoch; given when it is stored."""


@frozen
class SkippedNode:
    """A node of a report that was not stored, and why."""

    hostname: str
    reason: str


@frozen
class NodesStored:
    """What became of the nodes of a report."""

    stored: int
    skipped: Sequence[SkippedNode] = ()


@frozen
class NodeStatus:
    """The newest record of a node, and since when it has been like that."""

    cluster: str
    record: NodeRecord
    since: int
    """Seconds since the epoch; time of the first record of the unbroken run of its state."""
    health_since: int
    """The same for its health."""


@frozen
class NodeFilter:
    """Which nodes are meant; every condition that is given must hold."""

    clusters: tuple[str, ...] = ()
    """Any of these; empty: any at all. So for the others."""
    subclusters: tuple[str, ...] = ()
    states: tuple[NodeState, ...] = ()
    healths: tuple[Health, ...] = ()
