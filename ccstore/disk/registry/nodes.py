"""Nodes and their states in the database: a record for each report, read back, and deleted when it is old.

Each function is one transaction, or a part of the caller's. It takes times as arguments and reads no clock.
Invariant: the newest records of a node are never deleted, so what is known of it stays known.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from ccstore.disk.registry import sql
from ccstore.disk.registry.database import Database
from ccstore.model import (
    Health,
    NodeFilter,
    NodeRecord,
    NodesStored,
    NodeState,
    NodeStatus,
    SkippedNode,
)
from ccstore.wire.nodestates import decode_health, encode_lists

__all__ = ["current_states", "delete_expired", "delete_states", "find_expired", "history", "store_report"]


def store_report(database: Database, cluster: str, time: int, records: Sequence[NodeRecord]) -> NodesStored:
    """Store what a report says of nodes, at one time in seconds; a node that is new gets its subcluster.

    A record without a subcluster is of a node in no node list: it is stored if the node is known already, and
    else skipped, as is one that breaks a rule of the schema.
    """
    skipped, stored = [], 0
    with database.transaction():
        known = {host: (number, subcluster) for host, number, subcluster in _nodes(database, cluster)}
        for record in records:
            try:
                number = _number(database, cluster, record, known)
                if number is None:
                    reason = f"in no node list of cluster {cluster!r}"
                    skipped.append(SkippedNode(record.hostname, reason))
                    continue
                database.execute(sql.INSERT_STATE, (time, *_values(record), number))
                stored += 1
            except (sqlite3.IntegrityError, OverflowError) as error:  # this record alone is at fault
                skipped.append(SkippedNode(record.hostname, f"refused by the database ({error})"))
    return NodesStored(stored, tuple(skipped))


def _nodes(database: Database, cluster: str) -> list[tuple[str, int, str]]:
    return database.execute(sql.NODES_OF_CLUSTER, (cluster,)).fetchall()


def _number(
    database: Database, cluster: str, record: NodeRecord, known: dict[str, tuple[int, str]]
) -> int | None:
    """Return the row of a node, made or moved to its subcluster if need be; None if that is not known."""
    host, subcluster = record.hostname, record.subcluster
    if host in known:
        number, before = known[host]
        if subcluster and subcluster != before:
            database.execute(sql.MOVE_NODE, (subcluster, number))
        return number
    if not subcluster:
        return None
    made = database.execute(sql.INSERT_NODE, (host, cluster, subcluster)).lastrowid
    assert made is not None
    known[host] = made, subcluster
    return made


def _values(record: NodeRecord) -> tuple[Any, ...]:
    return (
        record.state.value,
        record.health.state.value,
        encode_lists(record.health),
        record.cpus_allocated,
        record.memory_allocated,
        record.gpus_allocated,
        record.jobs_running,
    )


def current_states(database: Database, wanted: NodeFilter) -> list[NodeStatus]:
    """Return the newest record of each node, by cluster and host, and since when it has been like that.

    Of several records of the same time the one stored last counts. Runs are unbroken in the order in which
    records were stored.
    """
    lists = {
        "n.cluster": wanted.clusters,
        "n.subcluster": wanted.subclusters,
        "s.node_state": [state.value for state in wanted.states],
        "s.health_state": [health.value for health in wanted.healths],
    }
    given = {column: values for column, values in lists.items() if values}
    text = sql.CURRENT_STATES.format(conditions=sql.where(f"{column} {sql.ANY}" for column in given))
    with database.snapshot():
        rows = database.execute(text, [orjson.dumps(list(values)).decode() for values in given.values()])
        return [NodeStatus(row[0], _record(row), *row[11:]) for row in rows]


def history(
    database: Database, cluster: str, hostname: str, *, start: int, stop: int, limit: int
) -> list[NodeRecord] | None:
    """Return the records of a node with times in [start, stop), newest first; None for an unknown node."""
    with database.snapshot():
        found = database.execute(sql.NODE_ID, (hostname, cluster)).fetchone()
        if found is None:
            return None
        return [_record(row) for row in database.execute(sql.HISTORY, (*found, start, stop, limit))]


def _record(row: Sequence[Any]) -> NodeRecord:
    _, hostname, subcluster, time, state, health, lists, cpus, memory, gpus, jobs = row[:11]
    return NodeRecord(
        hostname,
        subcluster,
        NodeState(state),
        decode_health(Health(health), lists),
        cpus_allocated=cpus,
        memory_allocated=memory,
        gpus_allocated=gpus,
        jobs_running=jobs,
        time=time,
    )


def find_expired(database: Database, before: int, limit: int) -> list[int]:
    """Return rows of records older than a time, node by node; those of a node's newest time never expire."""
    with database.snapshot():
        return [number for (number,) in database.execute(sql.EXPIRED_STATES, (before, limit))]


def delete_states(database: Database, rows: Sequence[int]) -> int:
    """Delete records by row; returns how many there were."""
    with database.transaction():
        return database.execute_many(sql.DELETE_STATE, [(row,) for row in rows])


def delete_expired(database: Database, before: int, limit: int = 2000) -> int:
    """Delete some of the records older than a time; returns how many, less than `limit` when none are left.

    It takes steps so that others who write get their turn.
    """
    with database.transaction():
        return delete_states(database, find_expired(database, before, limit))
