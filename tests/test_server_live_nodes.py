"""Nodes over streams: all of a cluster, and then those of which something new was reported."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from apiserver import Server
from live_tools import Client, connected, live
from scheduler_tools import CLUSTERS, PATHS, locked, report
from serving import NOW
from test_server_live_ends import reader, short_queue

from ccstore.model import NodeReport, ReportedNode
from ccstore.server.live import nodes

__all__ = ["short_queue"]  # a fixture


@asynccontextmanager
async def watching(tmp_path: Path) -> AsyncIterator[tuple[Server, Client]]:
    """Run a server that knows two clusters, and connect to it."""
    async with (
        live(clusters=CLUSTERS, db=f"{tmp_path}/nodes.db") as server,
        connected(server.port) as client,
    ):
        yield server, client


async def tell(server: Server, *hosts: tuple[str, Sequence[str]], cluster: str = "c") -> None:
    """Report states of nodes, as a scheduler does."""
    answer = await server.ask("POST", PATHS["nodestate"], report(*hosts, cluster=cluster))
    assert answer.status == 200, answer.body


async def stored(server: Server) -> list[dict[str, Any]]:
    """Return what `GET /api/nodes` answers for the cluster."""
    answer = await server.ask("GET", "/api/nodes?cluster=c")
    found: list[dict[str, Any]] = json.loads(answer.body)["nodes"]
    return found


async def ask(client: Client, name: str = "n", cluster: str = "c") -> None:
    await client.send(op="subscribe", id=name, nodes={"cluster": cluster})


async def test_all_nodes_and_then_what_changes(tmp_path: Path) -> None:
    """The objects of `/api/nodes`; a report that says the same costs no message."""
    async with watching(tmp_path) as (server, client):
        await tell(server, ("n1", ["idle"]), ("n2", ["idle"]))
        await tell(server, ("w1", ["idle"]), cluster="wild")
        await ask(client)
        assert await client.receive() == {"id": "n", "op": "subscribed", "resumed": False}
        told = await client.receive()
        assert told == {"id": "n", "op": "nodes", "reset": True, "nodes": await stored(server)}
        assert [one["hostname"] for one in told["nodes"]] == ["n1", "n2"]
        server.clock.now += 60
        await tell(server, ("n1", ["idle"]), ("n2", ["idle"]))  # nothing new
        await tell(server, ("w1", ["down"]), cluster="wild")  # nothing of this cluster
        await tell(server, ("n1", ["idle"]), ("n2", ["allocated"]), ("n3", ["idle"]))
        told = await client.receive()
        assert told == {"id": "n", "op": "nodes", "reset": False, "nodes": (await stored(server))[1:]}
        assert [(one["hostname"], one["state"], one["reported"]) for one in told["nodes"]] == [
            ("n2", "allocated", NOW + 60), ("n3", "idle", NOW + 60),
        ]  # fmt: skip
        async with connected(server.port) as late:
            await ask(late)
            assert (await late.until("nodes"))["nodes"] == await stored(server)


async def test_numbers_and_health_count_as_news(tmp_path: Path) -> None:
    """Whatever of the object is different, but for the time of the report."""
    async with watching(tmp_path) as (server, client):
        await tell(server, ("n1", ["allocated"]))
        await ask(client)
        await client.until("nodes")
        body = report({"hostname": "n1", "states": ["allocated"], "jobsRunning": 2})
        await server.ask("POST", PATHS["nodestate"], body)
        assert [one["jobsRunning"] for one in (await client.receive())["nodes"]] == [2]


async def test_a_cluster_that_nobody_knows(tmp_path: Path) -> None:
    """It has no nodes yet; who leaves is forgotten with it."""
    async with watching(tmp_path) as (server, client):
        await ask(client, cluster="wild")
        assert (await client.until("nodes"))["nodes"] == []
        await tell(server, ("w1", ["idle"]), cluster="wild")
        assert [one["hostname"] for one in (await client.receive())["nodes"]] == ["w1"]
        await client.send(op="unsubscribe", id="n")
        await client.until("unsubscribed")
        assert server.services.hub.nodes.feeds == {}


async def test_one_read_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many listen; reports that come while one read is under way are read together."""
    async with watching(tmp_path) as (server, client), connected(server.port) as other:
        registry, reads, gate = server.services.registry, [], trio.Event()
        gate.set()
        read = registry.read

        async def counted(function: Any, *args: Any) -> Any:
            reads.append(function)
            await gate.wait()
            return await read(function, *args)

        monkeypatch.setattr(registry, "read", counted)
        await ask(client)
        await client.until("nodes")
        for name in "nm":
            await ask(other, name)
            await other.until("nodes")
        assert len(reads) == 1, "who comes later gets what was read"
        gate = trio.Event()
        await tell(server, ("n1", ["idle"]))
        with trio.fail_after(5):
            while len(reads) < 2:
                await trio.lowlevel.checkpoint()
        for k in range(2, 6):
            await tell(server, (f"n{k}", ["idle"]))
        gate.set()
        hosts: list[str] = []
        while len(hosts) < 5:
            hosts += [one["hostname"] for one in (await client.receive())["nodes"]]
        assert hosts == [f"n{k}" for k in range(1, 6)]
        assert len(reads) <= 3


async def test_a_node_that_is_gone(tmp_path: Path) -> None:
    """Another program may delete one; then all nodes are told anew."""
    async with watching(tmp_path) as (server, client):
        await tell(server, ("n1", ["idle"]), ("n2", ["idle"]))
        await ask(client)
        await client.until("nodes")
        await server.services.registry.write(_delete, "n1")
        await tell(server, ("n2", ["idle"]))
        told = await client.receive()
        assert (told["reset"], [one["hostname"] for one in told["nodes"]]) == (True, ["n2"])


def _delete(database: Any, host: str) -> None:
    database.execute(
        "DELETE FROM node_state WHERE node_id = (SELECT id FROM node WHERE hostname = ?)", (host,)
    )
    database.execute("DELETE FROM node WHERE hostname = ?", (host,))


async def test_a_registry_that_does_not_answer_delays_this_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else goes on, and the nodes come when they can be read."""
    async with watching(tmp_path) as (server, client):
        registry, gate = server.services.registry, trio.Event()
        read = registry.read

        async def late(function: Any, *args: Any) -> Any:
            await gate.wait()
            return await read(function, *args)

        await read(lambda _: None)  # it is open
        with locked(f"{tmp_path}/nodes.db"):
            await ask(client)
            assert (await client.until("nodes"))["nodes"] == [], "a locked database can be read"
        monkeypatch.setattr(registry, "read", late)
        await ask(client, "m", "wild")
        await client.subscribe("a", {"cluster": "c", "for-all-nodes": ["x"]})
        await client.until("data")
        gate.set()
        assert (await client.until("nodes"))["id"] == "m"


async def test_a_bug_ends_the_subscriptions_of_that_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its clients are told, others go on, and who asks again is served."""
    async with watching(tmp_path) as (_, client):
        with monkeypatch.context() as patch:
            patch.setattr(nodes.nodes, "current_states", lambda *_: 1 / 0)
            await ask(client)
            assert (await client.until("error"))["status"] == 500
        assert "ZeroDivisionError" in caplog.text
        await ask(client)
        assert (await client.until("nodes"))["reset"]


BAD: list[tuple[Any, str]] = [
    (5, "message.nodes: wanted an object"),
    ({}, "message.nodes.cluster: wanted a name of 1 to 255 characters"),
    ({"cluster": ""}, "message.nodes.cluster: wanted a name of 1 to 255 characters"),
    ({"cluster": "c", "state": "idle"}, "message: unknown key 'state'"),
]


@pytest.mark.parametrize(("wanted", "text"), BAD, ids=[json.dumps(wanted) for wanted, _ in BAD])
async def test_what_is_refused(tmp_path: Path, wanted: Any, text: str) -> None:
    """It is an error of the message."""
    async with watching(tmp_path) as (_, client):
        await client.send(op="subscribe", id="n", nodes=wanted)
        assert await client.receive() == {"id": "n", "op": "error", "status": 400, "error": text}


async def test_too_many_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may name one that there is not, but not for ever."""
    monkeypatch.setattr(nodes, "MAX_CLUSTERS", 1)
    async with watching(tmp_path) as (_, client):
        await ask(client)
        await ask(client, "m", "wild")
        assert (await client.until("error"))["error"] == "stream: 1 clusters are listened to already"


@pytest.mark.usefixtures("short_queue")
async def test_a_client_that_is_too_slow(tmp_path: Path) -> None:
    """It is interrupted, and when it has read what was queued, it gets all nodes anew."""
    async with (
        trio.open_nursery() as nursery,
        reader(clusters=CLUSTERS, db=f"{tmp_path}/nodes.db") as (services, client, _),
    ):
        with services.registry.held(), trio.fail_after(10):
            nursery.start_soon(services.registry.run)
            await client.ask(op="subscribe", id="n", nodes={"cluster": "c"})
            assert [(await client.read())["op"] for _ in range(2)] == ["subscribed", "nodes"]
            told = 0
            while not services.hub.statistics.lags:
                told += 1
                node = ReportedNode("n1", ("idle",), jobs_running=told)
                await services.events.store_report(NodeReport("c", (node,)))
            while (message := await client.read())["op"] != "lagged":
                assert (message["op"], message["reset"]) == ("nodes", False)
            message = await client.read()
            while message["nodes"][0]["jobsRunning"] != told:
                message = await client.read()
            resets = [one["reset"] for one in client.told.messages if one["op"] == "nodes"]
            assert resets.count(True) == 2
