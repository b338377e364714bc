"""How streams end, and what slow, silent and unwanted clients see."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import apiserver
import jwt
import pytest
import trio
from apiserver import Point
from attrs import define, field
from live_tools import Told, connected, live, messages_in
from service_tools import fill
from serving import NOW
from test_server_api_permissions import PRIVATE_KEY, PUBLIC_KEY
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionRejected

from ccstore.server.live import session
from ccstore.server.services import Services, make_services

QUERY = {"cluster": "c", "queries": [{"metric": "x", "host": "h"}]}


def point(value: float, ago: int, host: str = "h") -> str:
    """Write a line of some seconds ago."""
    return str(Point("x", host, value, NOW - ago))


def token(**claims: Any) -> str:
    return jwt.encode(claims, PRIVATE_KEY, algorithm="EdDSA")


async def rejected(port: int, **options: Any) -> tuple[int, str]:
    """Try to open a stream, and return why that is refused."""
    refusals: list[ConnectionRejected] = []
    try:
        async with connected(port, **options):
            pass
    except* ConnectionRejected as group:
        refusals += group.exceptions  # type: ignore[arg-type]
    (refusal,) = refusals
    return refusal.status_code, json.loads(refusal.body or b"{}")["error"]


async def test_a_token_is_shown_in_a_header_or_as_a_subprotocol() -> None:
    """Who has none, or one without a role, is refused before the websocket is one."""
    async with live(jwt_public_key=PUBLIC_KEY) as server:
        good, useless = token(roles=["user"]), token(roles=["nobody"])
        async with connected(server.port, extra_headers=[("X-Auth-Token", good)]) as client:
            await client.subscribe("a", QUERY)
            await client.until("data")
        names = ["ccstore.stream", f"ccstore.token.{good}"]
        async with connected(server.port, subprotocols=names) as client:
            assert client.socket.subprotocol == "ccstore.stream"
            await client.subscribe("a", QUERY)
            await client.until("data")
        status, text = await rejected(server.port)
        assert (status, text.partition(" ")[0]) == (401, "token:")
        status, text = await rejected(server.port, subprotocols=[f"ccstore.token.{useless}"])
        assert (status, text) == (403, "token of '': no role that permits read")


async def test_a_page_of_another_site_is_refused() -> None:
    """A browser shows whose page asks; that of the server itself may."""
    async with live() as server:
        evil = [("Origin", "https://evil.example")]
        assert await rejected(server.port, extra_headers=evil) == (
            403,
            "request: sent by a page of another site",
        )
        async with connected(server.port, extra_headers=[("Origin", f"http://127.0.0.1:{server.port}")]):
            pass


async def test_a_request_that_is_no_websocket() -> None:
    """It is told what the route wants."""
    async with live() as server:
        answer = await server.ask("GET", "/api/stream/")
    assert (answer.status, answer["Upgrade"]) == (426, "websocket")


async def test_a_token_that_expires_ends_the_stream() -> None:
    """It is looked at every second, and its end is told as a violation of the policy."""
    shown = token(roles=["user"], exp=NOW + 5, sub="ann")
    headers = [("X-Auth-Token", shown)]
    async with (
        live(jwt_public_key=PUBLIC_KEY) as server,
        connected(server.port, extra_headers=headers) as client,
    ):
        await client.subscribe("a", QUERY)
        await client.until("data")
        server.clock.now += 5
        assert await client.closed() == (1008, "token of 'ann': expired")


async def test_a_stop_is_told_as_going_away() -> None:
    """Whatever is subscribed."""
    async with live() as server, connected(server.port) as client:
        await client.subscribe("a", QUERY)
        await client.until("data")
        server.services.stopping.set()
        assert (await client.closed())[0] == 1001


async def test_a_message_that_is_too_large_ends_its_connection_alone() -> None:
    """With the code for that; others go on."""
    async with live() as server, connected(server.port) as client, connected(server.port) as other:
        await client.socket.send_message("x" * (1 << 20) + "y")
        assert (await client.closed())[0] == 1009
        await other.subscribe("a", QUERY)
        await other.until("data")


async def test_a_large_message() -> None:
    """Thousands of queries in one subscription are decoded beside the event loop."""
    queries = [{"metric": "x", "host": f"host{k}"} for k in range(3000)]
    async with live() as server, connected(server.port) as client:
        await client.subscribe("a", {"cluster": "c", "queries": queries})
        await client.until("data")
        assert len(client.told["a"].series) == 3000
        await server.write(point(1, 60, "host2999"))
        await client.until("data")
        assert client.told["a"].table == {(2999, NOW - 60): 1.0}


async def test_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing happens, a message says so."""
    monkeypatch.setattr(session, "_HEARTBEAT", 0.5)
    async with live() as server, connected(server.port) as client:
        assert await client.receive() == {"op": "heartbeat", "time": NOW}
        assert server.services.hub.statistics.connections == 1


async def test_who_leaves_is_forgotten() -> None:
    """Its subscriptions end at once; what they were about is kept up for a while, and then forgotten too."""
    async with live() as server:
        hub = server.services.hub
        async with connected(server.port) as client:
            await client.subscribe("a", QUERY)
            await client.send(op="subscribe", id="s", server={})
            await client.until("server")
        with trio.fail_after(5):
            while hub.statistics.connections:
                await trio.lowlevel.checkpoint()
        (feed,) = hub.feeds.values()
        assert not feed.is_wanted
        assert (hub.pulses, hub.server_feeds) == (set(), {})
        assert hub._drop_idle(0.0)
        assert hub.feeds == {}
        await server.write(point(1, 60))  # and nobody watches


@define
class Reader:
    """A client of a session whose connection holds no message: each waits until it is read."""

    session: session.Session
    requests: "trio.MemorySendChannel[str]"
    offered: "trio.MemoryReceiveChannel[Any]"
    told: Told = field(factory=Told)

    async def ask(self, **message: Any) -> None:
        await self.requests.send(json.dumps(message))
        await wait_all_tasks_blocked()

    async def read(self) -> dict[str, Any]:
        """Take one message."""
        message: dict[str, Any] = json.loads(await self.offered.receive())
        self.told.take(message)
        return message

    async def read_all(self) -> list[str]:
        """Take messages until none comes for some seconds; return their kinds."""
        kinds = []
        with trio.move_on_after(5):
            while True:
                kinds.append((await self.read())["op"])
        return kinds


@asynccontextmanager
async def reader(**settings: Any) -> AsyncIterator[tuple[Services, Reader, list[session.Closing | None]]]:
    """Run a hub, and a session without a socket; yield them, and what the session returns when it ends."""
    apiserver.warm_up()
    services, ends = make_services(apiserver.make_config(**settings), now=lambda: NOW), []
    send, offered = trio.open_memory_channel[Any](0)
    requests, wanted = trio.open_memory_channel[str](0)

    async def take(frames: bytes) -> None:
        for message in messages_in(frames):
            await send.send(message)

    made = session.Session(services.hub, lambda: NOW, take, lambda _: False, wanted.receive, lambda: None)

    async def run() -> None:
        ends.append(await made.run())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(services.hub.run)
        nursery.start_soon(run)
        yield services, Reader(made, requests, offered), ends
        nursery.cancel_scope.cancel()


@pytest.fixture
def short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a session queue four messages."""
    monkeypatch.setattr(session, "MAX_QUEUED", 4)
    monkeypatch.setattr(session, "_LITTLE", 1)
    monkeypatch.setattr(session, "_SMALL", 1)  # no two together


async def write(services: Services, *values: float, seconds: float = 0.1) -> None:
    """Write values one after the other, so far apart that each is told by itself."""
    for value in values:
        line = str(Point("x", "h", value, NOW - 320 + int(value) % 5 * 60))
        await fill(services, line.encode())
        await trio.sleep(seconds)


async def test_a_client_that_is_too_slow_misses_something_and_gets_everything(
    short_queue: None, autojump_clock: MockClock
) -> None:
    """Its subscription is interrupted, it is told of that, and what it has in the end is right."""
    async with reader() as (services, client, _):
        await client.ask(op="subscribe", id="a", query=QUERY)
        assert await client.read_all() == ["subscribed", "series", "data"]
        await write(services, *range(10))
        live = services.hub.statistics
        assert live.lags == 1
        assert await client.read_all() == ["data"] * 4 + ["lagged", "series", "data"]
        assert client.told.messages[-3] == {"id": "a", "op": "lagged", "from": NOW, "to": NOW}
        assert sorted(client.told.table.values()) == [5, 6, 7, 8, 9]
        await write(services, 14)
        assert await client.read_all() == ["data"]
        assert sorted(client.told.table.values()) == [5, 6, 7, 8, 14]


async def test_a_client_that_goes_on_to_be_too_slow_is_closed(
    short_queue: None, autojump_clock: MockClock
) -> None:
    """Half a minute of interruptions, however often it catches up."""
    async with reader() as (services, client, ends):
        await client.ask(op="subscribe", id="a", query=QUERY)
        await client.read_all()
        rounds = 0
        while not ends:
            await write(services, *range(10))
            with trio.move_on_after(5):
                await client.read_all()
            rounds += 1
        assert ends == [session.Closing(1013, "too slow: more was to tell than was read")]
        assert 4 <= rounds <= 8
        assert services.hub.statistics.closed_slow == 1


async def test_a_client_that_reads_nothing_is_closed(autojump_clock: MockClock) -> None:
    """After half a minute, even if there is little to tell."""
    async with reader() as (_, client, ends):
        await client.ask(op="subscribe", id="a", query=QUERY)
        began = trio.current_time()
        while not ends:  # noqa: ASYNC110 -- the clock jumps
            await trio.sleep(1)
        assert 30 <= trio.current_time() - began <= 33
        assert ends[0] is not None
        assert ends[0].code == 1013


async def test_a_silent_client_that_reads_is_kept(autojump_clock: MockClock) -> None:
    """It gets its heartbeats for as long as it likes."""
    async with reader() as (_, client, ends):
        for _ in range(20):
            assert (await client.read())["op"] == "heartbeat"
        assert ends == []


async def test_a_bug_ends_one_subscription(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Its client is told, the log has the traceback, all others go on."""
    async with reader() as (services, client, _):
        await client.ask(op="subscribe", id="a", query=QUERY)
        await client.read_all()
        (feed,) = services.hub.feeds.values()
        monkeypatch.setattr(feed.view, "refresh", lambda: 1 / 0)
        await write(services, 1)
        assert await client.read_all() == ["error"]
        assert client.told.messages[-1]["status"] == 500
        assert "ZeroDivisionError" in caplog.text
        await client.ask(op="subscribe", id="a", query=QUERY)
        assert await client.read_all() == ["subscribed", "series", "data"]
        assert client.told.table == {(0, NOW - 260): 1.0}


async def test_the_window_moves_on(autojump_clock: MockClock) -> None:
    """What leaves it is forgotten without a word but `from`."""
    async with reader() as (services, client, _):
        services.hub._now = lambda: NOW + int(trio.current_time())
        await client.ask(op="subscribe", id="a", query=QUERY, window=300)
        await write(services, 4)
        await client.read_all()
        assert len(client.told.table) == 1
        start = client.told.start
        while client.told.table:
            message = await client.read()
            assert (message["op"], message.get("values", [])) in (("data", []), ("heartbeat", []))
        assert client.told.start > NOW - 80 > start
        await write(services, 4)
        assert await client.read_all() in ([], ["data"]), "too old to be told"
        assert client.told.table == {}


async def test_numbers_of_the_server_are_skipped_for_who_does_not_read(autojump_clock: MockClock) -> None:
    """They are never late: who has no room for one gets the next one."""
    async with reader() as (services, client, _):
        await client.ask(op="subscribe", id="s", server={"interval": 1})
        for _ in range(5):
            await client.read()
        await client.ask(op="unsubscribe", id="s")
        assert (await client.read_all())[-1] == "unsubscribed"
        assert services.hub.server_feeds == {}
