"""Reports of node states over HTTP and NATS: states, health from the store, what is stored and skipped."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from scheduler_tools import TRANSPORTS, report, rows, scheduling, with_clusters
from service_tools import NOW, fill, jump, make_config, post, wait_until
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.config.sections import NodestateRetention
from ccstore.disk.registry import nodes as on_disk
from ccstore.model import Health, NodeHealth, NodeRecord, NodeState
from ccstore.server import upkeep
from ccstore.server.nodes import delete_old
from ccstore.server.services import make_services

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Every test runs over both."""
    return str(request.param)


def samples(metric: str, *hosts: str, cluster: str = "c", time: int = NOW) -> bytes:
    """Write a line for each host."""
    return b"".join(f"{metric},cluster={cluster},hostname={h} value=1 {time}\n".encode() for h in hosts)


STATES = [
    (["allocated"], "allocated"),
    (["down", "ALLOCATED"], "allocated"),
    (["idle", "Reserved", "down"], "reserved"),
    (["IDLE", "DOWN"], "down"),
    (["mixed", "idle"], "idle"),
    (["mixed", "down"], "down"),
    (["mixed"], "mixed"),
    (["drain"], "unknown"),
    ([], "unknown"),
]


async def test_states(transport: str, tmp_path: Path) -> None:
    """The first rule that fits decides, whatever the case and the order of the words."""
    nodes = [(f"n{number}", words) for number, (words, _) in enumerate(STATES, 1)]
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("nodestate", report(*nodes)) == "done"
        assert [row[2] for row in scheduler.states()] == [state for _, state in STATES]
        assert {state for _, state in STATES} == {state.value for state in NodeState}


async def test_health(transport: str, tmp_path: Path) -> None:
    """Both ways ask the store (D-100): down is full, what arrives counts for others, a stranger failed."""
    async with scheduling(transport, tmp_path) as scheduler:
        await fill(scheduler.server.services, samples("cpu_load", "n1", "n2") + samples("mem_used", "n1"))
        await fill(scheduler.server.services, samples("mem_used", "n2", time=NOW - 400))
        nodes = [(host, ["idle"]) for host in ("n1", "n2", "n3", "g1")] + [("n4", ["down"])]
        assert await scheduler.send("nodestate", report(*nodes)) == "done"
        assert scheduler.states() == [
            ("n1", "main", "idle", "full", '{"degraded":[],"missing":[]}'),
            ("n2", "main", "idle", "partial", '{"degraded":["mem_used"],"missing":[]}'),
            ("n3", "main", "idle", "failed", ""),
            ("g1", "gpu", "idle", "failed", ""),
            ("n4", "main", "down", "full", ""),
        ]


async def test_what_is_skipped(transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nodes in no list, without a name, or listed again are not stored, which is told; the others are."""
    nodes = [
        ("n1", ["down"]),
        ("x1", ["idle"]),
        ("n2", ["idle"]),
        ("n1", ["idle"]),
        ("", []),
        ("n" * 256, []),
    ]
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("nodestate", report(*nodes)) == "done"
        assert sorted((row[0], row[2]) for row in scheduler.states()) == [("n1", "idle"), ("n2", "idle")]
        if scheduler.answer is not None:
            answer = json.loads(scheduler.answer.body)
            assert (answer["msg"], answer["stored"]) == ("success", 2)
            assert sorted(node["hostname"] for node in answer["skipped"]) == ["", "n1", "n" * 256, "x1"]
            assert all(node["reason"] for node in answer["skipped"])
    skipped = [r for r in caplog.records if r.name == "ccstore.events" and "skipped" in r.getMessage()]
    assert [record.levelname for record in skipped] == ["ERROR"] * 4


@pytest.mark.parametrize("cluster", ["d", ""])
async def test_a_cluster_that_is_not_configured(transport: str, tmp_path: Path, cluster: str) -> None:
    """The report is accepted, and each of its nodes is skipped."""
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("nodestate", report(("n1", ["idle"]), cluster=cluster)) == "done"
        assert await scheduler.send("nodestate", report(cluster=cluster)) == "done"
        assert scheduler.states() == []


async def test_many_strangers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who asked is told of each; the log has some of them, and how many more there are."""
    async with scheduling("http", tmp_path) as scheduler:
        nodes = [(f"stranger{number}", ["idle"]) for number in range(100)]
        assert await scheduler.send("nodestate", report(*nodes)) == "done"
        assert scheduler.answer is not None
        assert len(json.loads(scheduler.answer.body)["skipped"]) == 100
        lines = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
        assert len(lines) == 11
        assert lines[-1] == "90 more nodes of cluster 'c' skipped"


async def test_a_cluster_whose_hosts_are_not_listed(transport: str, tmp_path: Path) -> None:
    """The wildcard of a node list is one for node states as well (D-122)."""
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("nodestate", report(("any-1", ["idle"]), cluster="wild")) == "done"
        assert [row[:3] for row in scheduler.states()] == [("any-1", "all", "idle")]


BAD: dict[str, Any] = {
    "empty": "",
    "not JSON": "{",
    "a list": [],
    "unknown key": report(("n1", [])) | {"color": "red"},
    "unknown key of a node": report({"hostname": "n1", "color": "red"}),
    "states as a text": report({"hostname": "n1", "states": "idle"}),
    "fraction": report({"hostname": "n1", "cpusAllocated": 1.5}),
    "number beyond 64 bits": report({"hostname": "n1", "memoryAllocated": 2**63}),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_bad_reports(transport: str, tmp_path: Path) -> None:
    """Each is refused as a whole."""
    async with scheduling(transport, tmp_path) as scheduler:
        for name, event in BAD.items():
            assert (name, await scheduler.send("nodestate", event)) == (name, "refused")
            if scheduler.answer is not None:
                assert (name, scheduler.answer.status) == (name, 400)
        assert scheduler.states() == []


async def test_numbers_and_time(transport: str, tmp_path: Path) -> None:
    """What is in use is kept as it was sent, keys match in any case, and the time is the server's."""
    node = {
        "HostName": "n1",
        "states": ["mixed"],
        "cpusAllocated": 8,
        "memoryAllocated": 16000,
        "jobsRunning": 2,
    }
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("nodestate", report(node)) == "done"
        columns = "time_stamp, cpus_allocated, memory_allocated, gpus_allocated, jobs_running"
        assert scheduler.rows(f"SELECT {columns} FROM node_state") == [(NOW, 8, 16000, 0, 2)]


@pytest.mark.parametrize("path", ["/api/nodestate", "/api/nodestats", "/api/healthcheck"])
async def test_aliases(path: str, tmp_path: Path) -> None:
    """Each of them, with a slash and without, does the same; PUT too, but for the last."""
    async with scheduling("http", tmp_path) as scheduler:
        body = json.dumps(report(("n1", ["idle"]))).encode()
        for target in (path, f"{path}/"):
            answer = await post(scheduler.server, target, body)
            assert (answer.status, json.loads(answer.body)["stored"]) == (200, 1)
        assert len(scheduler.states()) == 2


async def test_old_states_go(tmp_path: Path) -> None:
    """With the policy "delete" those beyond the age are deleted, but for the newest of each node."""
    record = NodeRecord("n1", "main", NodeState.IDLE, NodeHealth(Health.FULL, known=False))
    async with scheduling("http", tmp_path) as scheduler:
        registry = scheduler.server.services.registry
        for time in (NOW - 300, NOW - 200, NOW - 100):
            await registry.write(on_disk.store_report, "c", time, [record])
        await delete_old(registry, NOW - 150)
        assert scheduler.rows("SELECT time_stamp FROM node_state") == [(NOW - 100,)]
        await delete_old(registry, NOW)
        assert scheduler.rows("SELECT time_stamp FROM node_state") == [(NOW - 100,)]


async def test_what_a_server_has_missed(tmp_path: Path, mock_clock: MockClock) -> None:
    """Old states go a minute after the start, for it may have been down for days (D-125), and then hourly."""
    record = NodeRecord("n1", "main", NodeState.IDLE, NodeHealth(Health.FULL, known=False))
    main = {"db": str(tmp_path / "job.db"), "nodestate_retention": NodestateRetention(age=100.0)}
    services = make_services(with_clusters(make_config(), **main), now=lambda: NOW)
    async with trio.open_nursery() as nursery:
        with services.registry.held():
            nursery.start_soon(services.registry.run)
            for time in (NOW - 300, NOW - 200, NOW - 50):
                await services.registry.write(on_disk.store_report, "c", time, [record])
            upkeep.start(nursery, services)
            for runs, seconds in enumerate((60, 3600, 3600), 1):
                await jump(mock_clock, seconds - 1)
                await wait_all_tasks_blocked()
                assert services.jobs["node_states"].runs == runs - 1
                await jump(mock_clock, 1)
                await wait_until(lambda wanted=runs: services.jobs["node_states"].runs == wanted)
            assert rows(tmp_path / "job.db", "SELECT time_stamp FROM node_state") == [(NOW - 50,)]
        nursery.cancel_scope.cancel()
