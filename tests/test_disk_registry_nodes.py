"""Nodes in the database: reports, current states and since when, history, and what expires."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from disk_registry import NOW, node, open_new, rows
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.disk.registry import sql
from ccstore.disk.registry.nodes import (
    current_states,
    delete_expired,
    delete_states,
    find_expired,
    history,
    store_report,
)
from ccstore.model import Health, NodeFilter, NodeHealth, NodeRecord, NodesStored, NodeState, SkippedNode

FAILED = NodeHealth(Health.FAILED, known=False)
PARTIAL = NodeHealth(Health.PARTIAL, known=True, degraded=("m1",), missing=("m2",))


def test_a_report(tmp_path: Path) -> None:
    """All records of a report have its time, and every field comes back."""
    report = [
        node("h2", NodeState.DOWN, health=NodeHealth(Health.FULL, known=False)),
        NodeRecord("h1", "big", NodeState.MIXED, PARTIAL, 1, 2, 3, 4),
    ]
    with open_new(tmp_path) as database:
        assert store_report(database, "c", NOW, report) == NodesStored(2)
        found = current_states(database, NodeFilter())
        assert [(one.cluster, one.record.hostname, one.since, one.health_since) for one in found] == [
            ("c", "h1", NOW, NOW), ("c", "h2", NOW, NOW),
        ]  # fmt: skip
        assert found[0].record == NodeRecord("h1", "big", NodeState.MIXED, PARTIAL, 1, 2, 3, 4, NOW)
    text = "SELECT health_state, health_metrics FROM node_state ORDER BY id"
    assert rows(database.path, text) == [("full", ""), ("partial", '{"degraded":["m1"],"missing":["m2"]}')]


def test_nodes_of_unknown_subclusters(tmp_path: Path) -> None:
    """One that is new is skipped; one that is known keeps its subcluster; others are stored."""
    with open_new(tmp_path) as database:
        store_report(database, "c", NOW, [node("old")])
        report = [node("old", subcluster=""), node("new", subcluster=""), node("h1")]
        outcome = store_report(database, "c", NOW + 60, report)
        assert outcome == NodesStored(2, (SkippedNode("new", "in no node list of cluster 'c'"),))
        found = {one.record.hostname: one.record for one in current_states(database, NodeFilter())}
        assert {host: (record.subcluster, record.time) for host, record in found.items()} == {
            "old": ("main", NOW + 60), "h1": ("main", NOW + 60),
        }  # fmt: skip


def test_a_node_that_moves_to_another_subcluster(tmp_path: Path) -> None:
    """It is the same node, and its row tells where it is now."""
    with open_new(tmp_path) as database:
        store_report(database, "c", NOW, [node("h1")])
        store_report(database, "c", NOW + 60, [node("h1", subcluster="other")])
        assert rows(database.path, "SELECT id, subcluster FROM node") == [(1, "other")]


def test_the_same_host_in_two_clusters(tmp_path: Path) -> None:
    """They are two nodes."""
    with open_new(tmp_path) as database:
        for cluster in ("b", "a"):
            store_report(database, cluster, NOW, [node("h1")])
        assert [one.cluster for one in current_states(database, NodeFilter())] == ["a", "b"]


def test_one_record_that_breaks_a_rule(tmp_path: Path) -> None:
    """It is skipped with the reason; the others of its report are stored."""
    with open_new(tmp_path) as database:
        report = [node("h1"), node("h2", cpus_allocated=2**64), node("h3")]
        outcome = store_report(database, "c", NOW, report)
        assert outcome.stored == 2
        assert [one.hostname for one in outcome.skipped] == ["h2"]
        assert [one.record.hostname for one in current_states(database, NodeFilter())] == ["h1", "h3"]


@pytest.mark.parametrize(
    ("wanted", "hosts"),
    [
        (NodeFilter(), ["a1", "a2", "b1"]), (NodeFilter(clusters=("a",)), ["a1", "a2"]),
        (NodeFilter(clusters=("a", "b")), ["a1", "a2", "b1"]), (NodeFilter(subclusters=("big",)), ["a2"]),
        (NodeFilter(states=(NodeState.IDLE,)), ["a1"]), (NodeFilter(healths=(Health.FAILED,)), ["a2"]),
        (NodeFilter(states=(NodeState.IDLE, NodeState.DOWN), healths=(Health.FULL,)), ["a1", "b1"]),
        (NodeFilter(clusters=("b",), states=(NodeState.IDLE,)), []), (NodeFilter(clusters=("x' OR 1",)), []),
    ],
    ids=str,
)  # fmt: skip
def test_filters(tmp_path: Path, wanted: NodeFilter, hosts: list[str]) -> None:
    """All conditions must hold, each for any of its values, and only the newest record counts."""
    with open_new(tmp_path) as database:
        store_report(database, "a", NOW, [node("a1", NodeState.DOWN), node("a2", NodeState.IDLE)])
        later = [node("a1"), node("a2", NodeState.MIXED, subcluster="big", health=FAILED)]
        store_report(database, "a", NOW + 60, later)
        store_report(database, "b", NOW, [node("b1", NodeState.DOWN)])
        assert hosts == [one.record.hostname for one in current_states(database, wanted)]


STATES = st.sampled_from([NodeState.IDLE, NodeState.DOWN, NodeState.ALLOCATED])
HEALTHS = st.sampled_from([Health.FULL, Health.FAILED])


@settings(max_examples=max(EXAMPLES // 5, 20), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), STATES, HEALTHS), min_size=1, max_size=25),
    st.integers(0, 40),
)
def test_since_when(reports: list[tuple[int, int, NodeState, Health]], age: int) -> None:
    """State and health hold since the first record of their unbroken run, whatever expired since."""
    time = NOW
    kept: dict[str, list[NodeRecord]] = {}
    with TemporaryDirectory() as directory, open_new(Path(directory)) as database:
        for step, host, state, verdict in reports:
            time += step
            health = NodeHealth(verdict, known=False)
            store_report(database, "c", time, [node(f"h{host}", state, health=health)])
            kept.setdefault(f"h{host}", []).append(node(f"h{host}", state, health=health, time=time))
        while delete_expired(database, time - age, limit=3) == 3:
            pass
        found = {one.record.hostname: one for one in current_states(database, NodeFilter())}
        assert set(found) == set(kept)
        for host, every in kept.items():
            records = [one for one in every if one.time >= time - age or one.time == every[-1].time]
            assert found[host].record == records[-1]
            assert found[host].since == begin_of_run(records, lambda one: one.state)
            assert found[host].health_since == begin_of_run(records, lambda one: one.health.state)
            assert history(database, "c", host, start=0, stop=2**40, limit=99) == records[::-1]


def begin_of_run(records: list[NodeRecord], what: Callable[[NodeRecord], object]) -> int:
    """Return the time of the first record after the last one that differs from the newest."""
    newest = what(records[-1])
    return list(takewhile(lambda one: what(one) == newest, reversed(records)))[-1].time


def test_a_clock_that_went_back(tmp_path: Path) -> None:
    """The record with the largest time is the current one, and it holds since its time."""
    with open_new(tmp_path) as database:
        for time, state in [(100, NodeState.IDLE), (200, NodeState.DOWN), (150, NodeState.IDLE)]:
            store_report(database, "c", time, [node("h1", state)])
        (found,) = current_states(database, NodeFilter())
        assert (found.record.time, found.record.state, found.since) == (200, NodeState.DOWN, 200)


def test_history(tmp_path: Path) -> None:
    """It is newest first, from a time to before another one, as many as are wanted."""
    with open_new(tmp_path) as database:
        for time in range(10):
            store_report(database, "c", time, [node("h1"), node("h2")])

        def times(start: int, stop: int, limit: int) -> list[int]:
            found = history(database, "c", "h1", start=start, stop=stop, limit=limit)
            assert found is not None
            return [one.time for one in found]

        assert times(0, 10, 3) == [9, 8, 7]
        assert times(2, 5, 99) == [4, 3, 2]
        assert times(20, 30, 99) == []
        assert history(database, "c", "h3", start=0, stop=9, limit=9) is None
        assert history(database, "d", "h1", start=0, stop=9, limit=9) is None


def test_what_expires(tmp_path: Path) -> None:
    """Records older than the time do, but never those of a node's newest time, and steps are bounded."""
    with open_new(tmp_path) as database:
        for host, times in {"a": [1, 2, 3, 9], "b": [1, 2, 2], "c": [8, 9], "d": [1]}.items():
            for time in times:
                store_report(database, "c", time, [node(host)])
        expired = find_expired(database, 5, limit=99)
        text = (
            "SELECT n.hostname, s.time_stamp FROM node_state s JOIN node n ON n.id = s.node_id WHERE s.id IN "
        )
        marks = f"({','.join('?' * len(expired))})"
        assert set(rows(database.path, text + marks, *expired)) == {("a", 1), ("a", 2), ("a", 3), ("b", 1)}
        assert expired == find_expired(database, 5, limit=4)
        assert len(find_expired(database, 5, limit=3)) == 3
        assert delete_states(database, [expired[0], 10**6]) == 1
        assert [delete_expired(database, 5, limit=2) for _ in range(3)] == [2, 1, 0]
        assert [delete_expired(database, 2**40) for _ in range(2)] == [1, 0]
        assert {one.record.hostname for one in current_states(database, NodeFilter())} == set("abcd")


@pytest.mark.parametrize(
    ("text", "parameters", "indexes"),
    [
        (sql.CURRENT_STATES.format(conditions="true"), (), [
            "INTEGER PRIMARY KEY (rowid=?)", "nodestates_nodeid_timestamp (node_id=?)",
            "nodestates_nodeid_state (node_id=? AND node_state=? AND rowid>?)",
            "nodestates_nodeid_state (node_id=? AND node_state=?)",
            "nodestates_nodeid_health (node_id=? AND health_state=? AND rowid>?)",
            "nodestates_nodeid_health (node_id=? AND health_state=?)",
        ]),
        (sql.HISTORY, (1, 2, 3, 4),
         ["nodestates_nodeid_timestamp (node_id=? AND time_stamp>? AND time_stamp<?)"]),
        (sql.EXPIRED_STATES, (1, 2), ["nodestates_nodeid_timestamp (node_id=? AND time_stamp<?)",
                                      "nodestates_nodeid_timestamp (node_id=?)"]),
        (sql.NODES_OF_CLUSTER, ("c",), ["nodes_cluster"]),
    ],
    ids=["current", "history", "expired", "nodes"],
)  # fmt: skip
def test_the_plans(tmp_path: Path, text: str, parameters: tuple[object, ...], indexes: list[str]) -> None:
    """No statement walks through all records."""
    with open_new(tmp_path) as database, database.snapshot():
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", parameters)]
    for index in indexes:
        assert any(index in step for step in plan), plan
    assert not any("SCAN" in step and "node_state" in step for step in plan)
    assert not any(step.startswith(("SCAN s", "SCAN f", "SCAN o", "SCAN l", "SCAN m")) for step in plan), plan
