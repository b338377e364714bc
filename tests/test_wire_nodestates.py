"""Node states: the rule for a scheduler's words, reports as JSON, and what clients read."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ProtocolError
from ccstore.model import (
    Health,
    NodeHealth,
    NodeRecord,
    NodeReport,
    NodeState,
    NodeStatus,
    ReportedNode,
    SkippedNode,
)
from ccstore.wire.nodestates import (
    classify_states,
    decode_health,
    decode_report,
    encode_history,
    encode_lists,
    encode_nodes,
    unique_nodes,
)

WORDS = ["allocated", "reserved", "idle", "mixed", "down", "drain"]


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["allocated"], "allocated"), (["allocated", "reserved", "idle", "down", "mixed"], "allocated"),
        (["reserved"], "reserved"), (["reserved", "idle", "down", "mixed"], "reserved"),
        (["idle", "down"], "down"), (["idle", "down", "mixed"], "down"), (["idle"], "idle"),
        (["IDLE", "DOWN"], "down"), (["mixed", "idle"], "idle"), (["mixed", "down"], "down"),
        (["allocated", "down"], "allocated"), (["Mixed", "drain"], "mixed"), (["down"], "down"),
        (["drain"], "unknown"), ([], "unknown"), (["idle*", " idle", ""], "unknown"),
    ],
    ids=str,
)  # fmt: skip
def test_the_state_of_a_node(words: list[str], state: str) -> None:
    """The first rule that applies decides, whatever the order of the words."""
    assert {classify_states(order) for order in permutations(words)} == {NodeState(state)}


def by_the_table(words: set[str]) -> str:
    """Return the state by the rules as they are written."""
    for wanted, state in [
        ({"allocated"}, "allocated"), ({"reserved"}, "reserved"), ({"idle", "down"}, "down"),
        ({"idle"}, "idle"), ({"down"}, "down"), ({"mixed"}, "mixed"),
    ]:  # fmt: skip
        if wanted <= words:
            return state
    return "unknown"


@given(
    st.lists(st.sampled_from([case(word) for word in WORDS for case in (str.lower, str.upper, str.title)]))
)
def test_any_words(words: list[str]) -> None:
    """The rules hold for every list of words."""
    assert by_the_table({word.lower() for word in words}) == classify_states(words).value


def test_a_report_with_everything() -> None:
    """Every key fills its field."""
    node = {
        "hostname": "h1", "states": ["IDLE"], "cpusAllocated": 1, "memoryAllocated": 2, "gpusAllocated": 3,
        "jobsRunning": 4,
    }  # fmt: skip
    expected = NodeReport("c", (ReportedNode("h1", ("IDLE",), 1, 2, 3, 4),))
    assert expected == decode_report(json.dumps({"cluster": "c", "nodes": [node]}).encode())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, NodeReport()), ({"nodes": []}, NodeReport()), ({"nodes": None, "cluster": None}, NodeReport()),
        ({"nodes": [{}, None]}, NodeReport("", (ReportedNode(), ReportedNode()))),
        ({"CLUSTER": "c", "Nodes": [{"HostName": "h", "STATES": [], "cpusallocated": 7}]},
         NodeReport("c", (ReportedNode("h", (), 7),))),
        ({"nodes": [{"hostname": "h", "states": None, "jobsRunning": None}]},
         NodeReport("", (ReportedNode("h"),))),
    ],
    ids=str,
)  # fmt: skip
def test_reports(body: dict[str, Any], expected: NodeReport) -> None:
    """What is missing is empty or 0, and keys match whatever their case."""
    assert expected == decode_report(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "body: empty (wanted JSON)"),
        ("[]", "body: a list (wanted an object)"),
        ('{"cluster":"c","node":[]}', 'body: unknown key "node"'),
        ('{"nodes":[{"hostname":"h"},{"host":"h"}]}', 'body.nodes[1]: unknown key "host"'),
        ('{"nodes":{}}', "body.nodes: an object (wanted a list of objects)"),
        ('{"nodes":["h"]}', 'body.nodes[0]: "h" (wanted an object)'),
        ('{"nodes":[{"hostname":5}]}', "body.nodes[0].hostname: 5 (wanted a string)"),
        ('{"nodes":[{"states":"idle"}]}', 'body.nodes[0].states: "idle" (wanted a list of strings)'),
        ('{"nodes":[{"states":[1]}]}', "body.nodes[0].states[0]: 1 (wanted a string)"),
        ('{"nodes":[{"cpusAllocated":1.5}]}', "body.nodes[0].cpusAllocated: 1.5 (wanted an integer)"),
        ('{"nodes":[{"memoryAllocated":"1"}]}', 'body.nodes[0].memoryAllocated: "1" (wanted an integer)'),
        ('{"nodes":[{"gpusAllocated":true}]}', "body.nodes[0].gpusAllocated: true (wanted an integer)"),
        ('{"nodes":[{"jobsRunning":[]}]}', "body.nodes[0].jobsRunning: a list (wanted an integer)"),
    ],
)
def test_reports_that_are_refused(body: str, message: str) -> None:
    """Unknown keys and wrong types are named with their place."""
    with pytest.raises(ProtocolError) as caught:
        decode_report(body.encode())
    assert message == str(caught.value)


def test_a_host_twice() -> None:
    """The last entry of a host counts, the others are named."""
    first, other, last = ReportedNode("a", ("idle",)), ReportedNode("b"), ReportedNode("a", ("down",))
    report, skipped = unique_nodes(NodeReport("c", (first, other, last)))
    assert {node.hostname: node for node in report.nodes} == {"a": last, "b": other}
    assert skipped == (SkippedNode("a", "more than once in the report (the last one counts)"),)
    assert unique_nodes(report) == (report, ())


@pytest.mark.parametrize(
    ("health", "text"),
    [
        (NodeHealth(Health.FULL, known=False), ""),
        (NodeHealth(Health.FAILED, known=False), ""),
        (NodeHealth(Health.FULL, known=True), '{"degraded":[],"missing":[]}'),
        (NodeHealth(Health.PARTIAL, known=True, degraded=("m1",), missing=("m2", "m3")),
         '{"degraded":["m1"],"missing":["m2","m3"]}'),
    ],
    ids=["down", "not checked", "full", "partial"],
)  # fmt: skip
def test_the_text_of_a_health(health: NodeHealth, text: str) -> None:
    """Both lists are there where a check ran, in their order, and the way back gives the same."""
    assert text == encode_lists(health)
    assert health == decode_health(health.state, text)


@pytest.mark.parametrize(
    ("text", "known", "degraded"),
    [
        (None, False, ()), ("", False, ()), ("nonsense", False, ()), ("[]", False, ()), ('["m"]', False, ()),
        ("{}", True, ()), ('{"degraded":null}', True, ()), ('{"degraded":["m",1],"other":2}', True, ("m",)),
    ],
)  # fmt: skip
def test_the_text_of_somebody_else(text: str | None, known: bool, degraded: tuple[str, ...]) -> None:
    """What another program stored is read as far as it can be read."""
    assert NodeHealth(Health.PARTIAL, known, degraded, ()) == decode_health(Health.PARTIAL, text)


def record(host: str, time: int) -> NodeRecord:
    """Return a record with something in every field."""
    health = NodeHealth(Health.PARTIAL, known=True, degraded=("a",), missing=("b",))
    return NodeRecord(host, "main", NodeState.MIXED, health, 1, 2, 3, 4, time)


STATE = {
    "state": "mixed", "health": "partial", "degraded": ["a"], "missing": ["b"], "jobsRunning": 4,
    "cpusAllocated": 1, "memoryAllocated": 2, "gpusAllocated": 3,
}  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nodes_as_clients_read_them(count: int) -> None:
    """There is an object for each node."""
    nodes = [NodeStatus("c", record(f"h{k}", 100 + k), 50 + k, 70 + k) for k in range(count)]
    expected = [
        {"cluster": "c", "subcluster": "main", "hostname": f"h{k}", "reported": 100 + k, "since": 50 + k,
         "healthSince": 70 + k, **STATE}
        for k in range(count)
    ]  # fmt: skip
    assert {"nodes": expected} == json.loads(b"".join(encode_nodes(nodes)))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_history_of_a_node(count: int) -> None:
    """The node is named once, and there is an object for each time."""
    text = b"".join(encode_history("c", "main", "h", [record("h", 9 - k) for k in range(count)]))
    states = [{"time": 9 - k, **STATE} for k in range(count)]
    assert {"cluster": "c", "subcluster": "main", "hostname": "h", "states": states} == json.loads(text)
