"""How long a feed lives, and what it still owes to those who were away, left, or take nothing."""

import json
import socket
import struct
from collections.abc import Sequence

import numpy as np
import pytest
import trio
from apiserver import Point
from attrs import define
from live_tools import live
from numpy.typing import NDArray
from service_tools import fill
from serving import NOW
from test_server_live_ends import QUERY, Reader, reader, write
from trio.testing import MockClock

from ccstore.server.live import feed, hub, routes, session
from ccstore.server.services import Services
from ccstore.wire.stream import Body, SeriesWanted, Subscribe, decode_request


@pytest.fixture
def _short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_QUEUED", 4)
    monkeypatch.setattr(session, "_LITTLE", 1)
    monkeypatch.setattr(session, "_SMALL", 1)  # no two together


async def interrupt(services: Services, client: Reader) -> None:
    """Write more than its queue holds."""
    await write(services, *range(10))
    assert services.hub.statistics.lags >= 1


@pytest.mark.usefixtures("_short_queue")
async def test_the_feed_of_an_interrupted_subscription_stays(autojump_clock: MockClock) -> None:
    """Though nobody listens at the moment, and somebody else has left long ago."""
    async with reader() as (services, client, _):
        await client.ask(op="subscribe", id="other", query=QUERY)
        await client.read_all()
        await client.ask(op="unsubscribe", id="other")
        await client.read_all()
        await client.ask(op="subscribe", id="a", query=QUERY)
        await client.read_all()
        await interrupt(services, client)
        for _ in range(4):
            await trio.sleep(hub._LINGER / 3)
            await client.read()
        assert (await client.read_all())[-3:] == ["lagged", "series", "data"]
        assert sorted(client.told.table.values()) == [5, 6, 7, 8, 9]


@pytest.mark.usefixtures("_short_queue")
async def test_a_bug_ends_an_interrupted_subscription(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """It is told like all others, and its connection goes on."""
    async with reader() as (services, client, ends):
        await client.ask(op="subscribe", id="a", query=QUERY)
        await client.read_all()
        await interrupt(services, client)
        (told,) = services.hub.feeds.values()
        monkeypatch.setattr(told.view, "refresh", lambda: 1 / 0)
        await write(services, 1)
        assert (await client.read_all())[-1] == "error"
        assert client.told.messages[-1]["status"] == 500
        assert (await client.read())["op"] == "heartbeat"
        assert ends == []


@define(eq=False)
class Full:
    """A listener that has room for a snapshot, and none any more when it comes."""

    is_ready: bool = True
    offered: int = 0

    def tell(self, bodies: Sequence[Body]) -> bool:
        self.offered += len(bodies)
        return False

    def interrupt(self) -> None:
        raise AssertionError("it was told nothing that it could miss")

    def lose(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_a_snapshot_that_nobody_took_is_not_told_later(autojump_clock: MockClock) -> None:
    """Who comes after a client that left before it was told anything gets what was stored in between."""
    async with reader() as (services, client, _):
        listener = Full()
        services.hub.subscribe(listener, wanted(), "")
        await trio.sleep(1)
        assert listener.offered == 2, "series and data"
        services.hub.unsubscribe(listener, wanted())
        await write(services, 1, seconds=5)
        await client.ask(op="subscribe", id="a", query=QUERY)
        assert await client.read_all() == ["subscribed", "series", "data"]
        assert list(client.told.table.values()) == [1.0]


def wanted() -> SeriesWanted:
    request = decode_request(json.dumps({"op": "subscribe", "id": "x", "query": QUERY}))
    assert isinstance(request, Subscribe)
    assert isinstance(request.wanted, SeriesWanted)
    return request.wanted


async def test_a_feed_that_goes_takes_no_notice_from_others(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Series of an idle feed that another feed is just finding go on to be watched."""
    async with reader() as (services, client, _):
        streams = services.hub
        await write(services, 1)
        idle = Full()
        streams.subscribe(idle, wanted(), "")
        await trio.sleep(1)
        streams.unsubscribe(idle, wanted())
        watch = streams._marks.watch

        def drop_after(series: NDArray[np.int32]) -> None:
            watch(series)
            monkeypatch.undo()
            assert streams._drop_idle(0.0)  # as the other task may, whenever this one lets it

        monkeypatch.setattr(streams._marks, "watch", drop_after)
        await client.ask(op="subscribe", id="a", query={"cluster": "c", "for-all-nodes": ["x"]}, window=300)
        await client.read_all()
        assert len(streams.feeds) == 1
        await write(services, 2)
        assert await client.read_all() == ["data"]


async def test_a_client_whose_socket_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is gone a while later, whatever waits in it, and it is counted once."""
    monkeypatch.setattr(session, "_PATIENCE", 0.1)
    monkeypatch.setattr(routes, "_LAST_WORDS", 0.1)
    monkeypatch.setattr(hub, "_PULSE", 0.05)
    async with live() as server:
        await server.write(*(str(Point("x", f"host{k}", 1.0, NOW - 60)) for k in range(8000)))
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.connect(("127.0.0.1", server.port))
            plain.sendall(_HANDSHAKE)
            await trio.to_thread.run_sync(plain.recv, 1024)
            for k in range(8):
                query = {"cluster": "c", "for-all-nodes": ["x"] * (k + 1)}
                plain.sendall(_masked(json.dumps({"op": "subscribe", "id": f"{k}", "query": query})))
            live_statistics, traffic = server.services.hub.statistics, server.services.traffic
            with trio.fail_after(10):
                while not live_statistics.closed_slow:
                    await trio.lowlevel.checkpoint()
                while live_statistics.connections or traffic.connections:
                    await trio.lowlevel.checkpoint()
            assert live_statistics.closed_slow == 1


_HANDSHAKE = (
    b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def _masked(text: str) -> bytes:
    """Return a text as a client's frame, masked with zeros; it is padded to a length of two bytes."""
    text = text.ljust(126)
    return struct.pack(">BBH4x", 0x81, 0x80 | 126, len(text)) + text.encode()


async def test_what_is_large_is_told_in_pieces(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Descriptions and values take several messages; the first begins anew, the last has the token."""
    monkeypatch.setattr(feed, "_DESCRIBED", 2)
    monkeypatch.setattr(feed, "_PIECE", 2)
    async with reader() as (services, client, _):
        lines = [str(Point("x", f"h{k}", k, NOW - 60)) for k in range(5)]
        await fill(services, "\n".join(lines).encode())
        await client.ask(op="subscribe", id="a", query={"cluster": "c", "for-all-nodes": ["x"]})
        kinds = await client.read_all()
        assert kinds == ["subscribed", *["series"] * 3, *["data"] * 3]
        told = client.told.messages
        assert [message["reset"] for message in told if message["op"] == "series"] == [True, False, False]
        assert ["token" in message for message in told if message["op"] == "data"] == [False, False, True]
        assert sorted(client.told.series) == [0, 1, 2, 3, 4]
        assert sorted(client.told.table.values()) == [0, 1, 2, 3, 4]
