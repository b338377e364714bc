"""Streams over a real socket: what a client is told is what the query answers."""

import json
from typing import Any

import pytest
from apiserver import Point
from live_tools import answered, connected, live, quiet
from serving import NOW

QUERY = {"cluster": "c", "queries": [{"metric": "x", "host": "h"}, {"metric": "plain", "host": "h"}]}
ALL = {"cluster": "c", "for-all-nodes": ["x", "load"]}


def point(metric: str, host: str, value: float, ago: int, **more: str) -> str:
    """Write a line of some seconds ago."""
    return str(Point(metric, host, value, NOW - ago, **more))


@pytest.mark.parametrize("form", ["json", "binary"])
async def test_first_the_window_then_what_comes(form: str) -> None:
    """A subscription begins with what is stored, and goes on with what is written."""
    async with live() as server, connected(server.port) as client:
        await server.write(*(point("x", "h", k, 300 - 60 * k) for k in range(5)), point("x", "h", 9, 5000))
        await client.subscribe("a", QUERY, format=form)
        told = client.told["a"]
        assert await client.receive() == {"id": "a", "op": "subscribed", "resumed": False}
        described = await client.receive()
        assert (described["op"], described["reset"]) == ("series", True)
        assert told.series == {
            0: {
                "index": 0,
                "cluster": "c",
                "host": "h",
                "metric": "x",
                "unit": "",
                "frequency": 60,
                "query": 0,
            },
            1: {
                "index": 1,
                "cluster": "c",
                "host": "h",
                "metric": "plain",
                "unit": "",
                "frequency": 10,
                "query": 1,
            },
        }
        assert (await client.receive())["op"] == "data"
        assert told.table == await answered(server, QUERY, told.start)
        assert len(told.table) == 5
        await server.write(point("plain", "h", 1.5, 20), point("x", "h", 7.25, 0))
        data = await client.receive()
        assert [row[0] for row in data["values"]] == [0, 1]
        assert told.table == await answered(server, QUERY, told.start)


async def test_a_late_and_an_overwritten_sample() -> None:
    """They are told like any other: what was said of that time before is replaced."""
    async with live() as server, connected(server.port) as client:
        await server.write(*(point("x", "h", k, 300 - 60 * k) for k in (0, 1, 3)))
        await client.subscribe("a", QUERY)
        await client.until("data")
        await server.write(point("x", "h", 2, 180), point("x", "h", 10, 240))
        data = await client.until("data")
        assert [sorted(row[2]) for row in data["values"]] == [[2, 10]]
        told = client.told["a"]
        assert told.table == await answered(server, QUERY, told.start)


async def test_hosts_that_appear() -> None:
    """A subscription for all nodes gets new hosts as new series, behind those that it has."""
    async with live() as server, connected(server.port) as client:
        await server.write(point("x", "h2", 1, 60))
        await client.subscribe("a", ALL)
        await client.until("data")
        told = client.told["a"]
        assert [(one["host"], one["metric"]) for one in told.series.values()] == [("h2", "x"), ("h2", "load")]
        await server.write(point("load", "h1", 4, 60, component="type=hwthread,type-id=0"))
        assert not (await client.until("series"))["reset"]
        await client.until("data")
        assert [told.series[k]["host"] for k in (2, 3)] == ["h1", "h1"]
        assert {key[0]: value for key, value in told.table.items()} == {0: 1.0, 3: 4.0}


async def test_many_clients_share_one_feed() -> None:
    """The same subscription is read and encoded once, whatever its clients call it."""
    async with live() as server, connected(server.port) as one, connected(server.port) as other:
        await server.write(point("x", "h", 1, 60))
        await one.subscribe("a", QUERY)
        await other.subscribe("b", {**QUERY, "from": 5})
        await other.subscribe("c", QUERY, format="binary")
        for client, name in ((one, "a"), (other, "b"), (other, "c")):
            await quiet(client, lambda told=client.told[name]: len(told.table) == 1)
        assert len(server.services.hub.feeds) == 2
        await server.write(point("x", "h", 2, 0))
        for client, name in ((one, "a"), (other, "b"), (other, "c")):
            await quiet(client, lambda told=client.told[name]: len(told.table) == 2)
        assert one.told["a"].token == other.told["b"].token


async def test_unsubscribe() -> None:
    """Afterwards nothing is told of it any more; the name is free."""
    async with live() as server, connected(server.port) as client:
        await client.subscribe("a", QUERY)
        await client.until("data")
        await client.send(op="unsubscribe", id="a")
        assert await client.receive() == {"id": "a", "op": "unsubscribed"}
        await server.write(point("x", "h", 1, 60))
        await client.send(op="unsubscribe", id="a")
        assert await client.receive() == {
            "id": "a", "op": "error", "status": 400, "error": "id: 'a' is not subscribed",
        }  # fmt: skip
        await client.subscribe("a", QUERY)
        await client.until("data")
        assert list(client.told["a"].table.values()) == [1.0]


async def test_resume_goes_on_where_it_stopped() -> None:
    """A client that comes back with its token gets what it missed and nothing twice."""
    async with live() as server:
        await server.write(point("x", "h", 1, 180))
        async with connected(server.port) as client:
            await client.subscribe("a", QUERY)
            await client.until("data")
            told = client.told["a"]
        async with connected(server.port) as watcher:  # sees when it was told
            await watcher.subscribe("a", QUERY)
            await watcher.until("data")
            for k in (1, 2):
                await server.write(point("x", "h", 1 + k, 180 - 60 * k))
                await watcher.until("data")
        async with connected(server.port) as client:
            client.told["a"] = told
            seen = len(told.messages)
            await client.subscribe("a", QUERY, resume=told.token)
            assert (await client.receive())["resumed"]
            for k in (2, 3):
                assert [row[2] for row in (await client.receive())["values"]] == [[k]]
            await server.write(point("x", "h", 4, 0))
            await client.receive()
        assert [message["op"] for message in told.messages[seen:]] == ["subscribed", "data", "data", "data"]
        assert told.table == await answered(server, QUERY, told.start)


@pytest.mark.parametrize("token", ["x", "x.1", "{name}.99", "{name}.-1", "{name}.", "{name}." + "9" * 60])
async def test_resume_with_a_token_that_says_nothing(token: str) -> None:
    """What is not known any more, or never was, begins anew."""
    async with live() as server, connected(server.port) as client:
        await client.subscribe("a", QUERY)
        await client.until("data")
        (feed,) = server.services.hub.feeds.values()
        await client.send(op="subscribe", id="b", query=QUERY, resume=token.format(name=feed.name))
        assert not (await client.receive())["resumed"]
        assert (await client.receive())["reset"]


BAD: list[tuple[Any, str]] = [
    ({"op": "subscribe"}, "message.id: wanted a string of 1 to 64 characters"),
    ({"op": "subscribe", "id": ""}, "message.id: wanted a string of 1 to 64 characters"),
    ({"op": "unsubscribe", "id": "\ud800"}, "message.id: wanted a string of 1 to 64 characters"),
    ({"op": "dance", "id": "z"}, 'message.op: wanted "subscribe" or "unsubscribe"'),
    ({"op": "subscribe", "id": "z"}, "message: wanted one of query, job, nodes, server"),
    (
        {"op": "subscribe", "id": "z", "query": {}, "server": {}},
        "message: wanted one of query, job, nodes, server",
    ),
    ({"op": "subscribe", "id": "z", "query": 5}, "body: 5 (wanted an object)"),
    ({"op": "subscribe", "id": "z", "query": {"cluster": 5}}, "body.cluster: 5 (wanted a string)"),
    ({"op": "subscribe", "id": "z", "query": {}, "windw": 5}, "message: unknown key 'windw'"),
    (
        {"op": "subscribe", "id": "z", "query": {}, "window": 0},
        "message.window: wanted an integer from 1 to 604800",
    ),
    (
        {"op": "subscribe", "id": "z", "query": {}, "format": "xml"},
        'message.format: wanted "json" or "binary"',
    ),
    (
        {"op": "subscribe", "id": "z", "query": {}, "resume": 5},
        "message.resume: wanted the token of a message",
    ),
    (
        {"op": "subscribe", "id": "z", "server": {"interval": 0}},
        "message.interval: wanted an integer from 1 to 3600",
    ),
    ({"op": "subscribe", "id": "z", "server": 5}, "message.server: wanted an object"),
    ([], 'message: wanted an object with "op"'),
]


async def test_bad_messages_are_answered() -> None:
    """Each gets an error with the name it was sent with, and the connection goes on."""
    async with live() as server, connected(server.port) as client:
        await client.subscribe("a", QUERY)
        await client.until("data")
        for message, text in BAD:
            await client.socket.send_message(json.dumps(message))
            answer = await client.until("error")
            name = {"id": "z"} if isinstance(message, dict) and message.get("id") == "z" else {}
            assert answer == {**name, "op": "error", "status": 400, "error": text}
        for frame in (
            "",
            "{",
            "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
            b"\0",
            b"",
        ):
            await client.socket.send_message(frame)
            assert (await client.until("error"))["status"] == 400
        await server.write(point("x", "h", 1, 60))
        await client.until("data")
        assert len(client.told["a"].table) == 1


async def test_a_thousand_subscriptions() -> None:
    """Beyond the limit each is refused, and the others go on."""
    async with live() as server, connected(server.port) as client:
        refused = 0
        for k in range(1000):
            await client.subscribe(f"{k}", {"cluster": "c", "queries": [{"metric": "x", "host": f"h{k}"}]})
        for _ in range(64 + 936):
            message = await client.receive()
            while message["op"] not in ("subscribed", "error"):
                message = await client.receive()
            if message["op"] == "error":
                assert (message["status"], message["error"]) == (
                    429, "stream: 64 subscriptions on this connection already",
                )  # fmt: skip
                refused += 1
        assert refused == 936
        await server.write(point("x", "h63", 1, 60))
        await quiet(client, lambda: len(client.told["63"].table) == 1)


async def test_too_much_is_refused() -> None:
    """What would take too much memory or time, with what would be taken."""
    async with live(max_query_selectors=3) as server, connected(server.port) as client:
        four = {"cluster": "c", "queries": [{"metric": "x", "host": f"h{k}"} for k in range(4)]}
        await client.subscribe("a", four)
        assert (await client.receive())["error"] == "query: more series than 3 (wanted fewer)"
    async with live() as server, connected(server.port) as client:
        ids = [str(k) for k in range(200)]
        query = {"cluster": "c", "queries": [{"metric": "x", "host": "h", "type": "t", "type-ids": ids}]}
        await client.subscribe("a", query, window=604800)
        assert (await client.receive())["error"].startswith("window: 604800 s of 200 series (wanted at most")


async def test_what_cannot_be_read_has_an_error() -> None:
    """It is in the description of the series, and goes when it can be read."""
    query = {"cluster": "c", "queries": [{"metric": "nope", "host": "h"}, {"metric": "plain", "host": "h"}]}
    async with live() as server, connected(server.port) as client:
        threads = [f"type=hwthread,type-id={k}" for k in (0, 1)]
        await server.write(*(point("plain", "h", 1, 60, component=thread) for thread in threads))
        await client.subscribe("a", query)
        await client.until("data")
        told = client.told["a"]
        assert told.series[0]["error"] == "unknown metric: nope"
        assert told.series[1]["error"].startswith("several components, and the metric has no aggregation")
        await server.write(point("plain", "h", 5, 60))  # of the host itself
        await client.until("data")
        assert "error" not in told.series[1]
        assert list(told.table.values()) == [5.0]


async def test_the_servers_own_numbers() -> None:
    """They come at once, and then every interval."""
    async with live() as server, connected(server.port) as client:
        await client.send(op="subscribe", id="s", server={"interval": 1})
        assert await client.receive() == {"id": "s", "op": "subscribed", "resumed": False}
        first = await client.receive()
        assert (first["op"], first["time"], first["stats"]["lines"]["received"]) == ("server", NOW, 0)
        await server.write(point("x", "h", 1, 60))
        while (await client.receive())["stats"]["lines"]["received"] != 1:
            pass


async def test_freed_samples_are_taken_back() -> None:
    """Also where the newest ones stay, and nothing else tells that anything has happened."""
    query = {"cluster": "c", "queries": [{"metric": "plain", "host": "h"}]}
    async with live() as server, connected(server.port) as client:
        await server.write(*(point("plain", "h", k, 7000 - 10 * k) for k in range(600)))
        await client.subscribe("a", query, window=7200)
        await client.until("data")
        told = client.told["a"]
        assert len(told.table) == 600
        answer = await server.ask("POST", f"/api/free?to={NOW - 1800}", [["c", "h"]])
        assert answer.body == b"buffers freed: 1\n"
        await quiet(client, lambda: len(told.table) < 600)
        assert told.table == await answered(server, query, told.start)
        assert len(told.table) == 600 - 512
