"""The client for programs, against a real server: what it writes, asks and is told, and how it comes back."""

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import jwt
import numpy as np
import pytest
import trio
import trustme
from apiserver import Point, Server
from live_tools import live
from serving import NOW
from test_server_api_permissions import PRIVATE_KEY, PUBLIC_KEY

from ccstore.client import Client, Query, Series, ServerError, Stream
from ccstore.client.messages import decode_data, decode_results

QUERIES = [Query("x", "h"), Query("plain", "h", type="core", type_ids=("0", "1"))]


def point(metric: str, host: str, value: float, ago: int, **more: str) -> str:
    """Write a line of some seconds ago."""
    return str(Point(metric, host, value, NOW - ago, **more))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Run a server that everybody may use."""
    async with live() as running:
        yield running


def client_of(server: Server, **options: str) -> Client:
    return Client(f"http://127.0.0.1:{server.port}/", **options)


async def first(stream: Stream, count: int = 1) -> None:
    """Take some updates."""
    for _ in range(count):
        await anext(stream)


async def test_a_certificate_that_is_not_trusted(nursery: trio.Nursery) -> None:
    """Trying again would not help, and nobody would learn of it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def shake_hands(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()

    listen = partial(trio.serve_ssl_over_tcp, shake_hands, 0, context, host="127.0.0.1")
    (listener,) = await nursery.start(listen)
    port = listener.transport_listener.socket.getsockname()[1]
    async with (
        Client(f"https://127.0.0.1:{port}") as client,
        client.stream("c", QUERIES) as stream,
    ):
        with trio.fail_after(5), pytest.raises(ServerError, match="certificate verify failed"):
            await anext(stream)


async def test_write_and_query(server: Server) -> None:
    """Samples go in as lines and come out as arrays."""
    async with client_of(server) as client:
        await client.write([point("x", "h", k, 320 - 60 * k) for k in (0, 1, 3)])
        await client.write(f"x,hostname=h value=7 {NOW - 20}\n", cluster="c")
        (x,), cores = await client.query("c", QUERIES, start=NOW - 600, stop=NOW)
        assert x.values.tolist()[:2] == [0, 1]
        assert math.isnan(x.values[2])
        assert x.times.tolist() == [NOW - 320 + 60 * k for k in range(6)]
        assert (x.resolution, x.stop, x.min, x.max, x.error) == (60, NOW + 40, 0, 7, "")
        assert [len(core.values) for core in cores] == [0, 0]
        assert math.isnan(cores[0].avg)
        ((all_of_it,),) = await client.query("c", start=NOW - 600, stop=NOW, for_all_nodes=["x"])
        assert np.array_equal(x.values, all_of_it.values, equal_nan=True)
        assert (await client.get("/api/clusters"))["clusters"] == [{"name": "c", "hosts": 1}]
        ((nothing,),) = await client.query("c", [Query("nope", "h")], start=0, stop=1)
        assert nothing.error == "unknown metric: nope"


async def test_what_is_refused(server: Server) -> None:
    """It is one kind of error, with the status and what the server tells of it."""
    async with client_of(server) as client:
        with pytest.raises(ServerError, match="/api/write: 400 line 1") as bad:
            await client.write(["nonsense", point("x", "h", 1, 60)])
        assert (bad.value.status, bad.value.details["stored"]) == (400, 1)
        with pytest.raises(ServerError, match="/api/nope: 404 "):
            await client.get("/api/nope")
        with pytest.raises(ServerError, match="wanted at most 2000000 values") as much:
            async with client.stream(
                "c", [Query("x", "h", type="t", type_ids=("0",) * 300)], window=604800
            ) as stream:
                await first(stream)
        assert much.value.status == 400
    async with Client("http://127.0.0.1:1") as nobody:
        with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:1/api/stats: ") as refused:
            await nobody.get("/api/stats")
        assert refused.value.status == 0


async def test_a_stream(server: Server) -> None:
    """First what is stored, then what comes; the stream keeps what it adds up to."""
    async with client_of(server) as client:
        await client.write([point("x", "h", k, 320 - 60 * k) for k in range(3)])
        async with client.stream("c", QUERIES) as stream:
            update = await anext(stream)
            assert update.reset
            ((series, times, values),) = [(c.series, c.times, c.values) for c in update.changes]
            assert (series.metric, times.tolist(), values.tolist()) == (
                "x",
                [NOW - 320, NOW - 260, NOW - 200],
                [0, 1, 2],
            )
            assert [(one.metric, one.component) for one in stream.series.values()] == [
                ("x", ""), ("plain", "core0"), ("plain", "core1"),
            ]  # fmt: skip
            await client.write(
                [point("plain", "h", 5, 10, component="type=core,type-id=1"), point("x", "h", 9, 260)]
            )
            while stream.latest(2) is None:
                assert not (await anext(stream)).reset
            assert stream.latest(2) == (NOW - 10, 5.0)
            assert stream.values(0)[1].tolist() == [0, 9, 2]
            assert stream.latest(1) is None
            assert stream.start == update.start


async def test_hosts_that_appear(server: Server) -> None:
    """They are in `series` when the first update about them comes."""
    async with client_of(server) as client, client.stream("c", for_all_nodes=["x"]) as stream:
        await first(stream)
        for number in range(3):
            await client.write(point("x", f"h{number}", number, 60))
            update = await anext(stream)
            assert [change.series.host for change in update.changes] == [f"h{number}"]
        assert len(stream.series) == 3


async def test_a_lost_connection_is_made_again(server: Server) -> None:
    """The stream goes on where it was; nothing is told twice and nothing is missing."""
    async with client_of(server) as client, client.stream("c", QUERIES[:1]) as stream:
        await client.write(point("x", "h", 1, 200))
        await first(stream)
        assert stream._socket is not None
        await stream._socket._stream.aclose()
        await client.write(point("x", "h", 2, 140))
        update = await anext(stream)
        assert (update.reset, [change.values.tolist() for change in update.changes]) == (False, [[2.0]])
        assert stream.reconnects == 1
        assert stream.values(0)[1].tolist() == [1, 2]


async def test_a_server_that_has_forgotten_the_stream(server: Server) -> None:
    """Everything is told anew; what is gone meanwhile is gone."""
    hub = server.services.hub
    async with client_of(server) as client, client.stream("c", QUERIES[:1]) as stream:
        await client.write([point("x", "h", k, 320 - 60 * k) for k in range(3)])
        while len(stream.values(0)[0]) < 3:
            await first(stream)
        (feed,) = hub.feeds.values()
        feed.name = "of another life"
        (session,) = {call.__self__ for call in hub.pulses}
        server.services.store.free(server.services.store.index.root, 2**40)
        await client.write(point("x", "h", 7, 60))
        session.close(1011, "")
        while not (await anext(stream)).reset:
            pass
        assert stream.values(0)[1].tolist() == [7]


async def test_a_server_that_is_not_there_yet() -> None:
    """It is tried until it is there, and has room."""
    async with live() as server, client_of(server) as client, client.stream("c", QUERIES) as stream:
        statistics = server.services.hub.statistics
        statistics.connections = 10_000  # it answers 429
        with trio.move_on_after(1):
            await first(stream)
        assert stream._attempts >= 2
        statistics.connections = 0
        await first(stream)
        assert stream.reconnects == 0


async def test_a_token_that_expires() -> None:
    """There is no use in coming back with it."""
    token = jwt.encode({"exp": NOW + 3}, PRIVATE_KEY, algorithm="EdDSA")
    async with live(jwt_public_key=PUBLIC_KEY) as server, client_of(server, token=token) as client:
        async with client.stream("c", QUERIES) as stream:
            await first(stream)
            server.clock.now += 3
            with pytest.raises(ServerError, match="expired") as expired:
                await first(stream)
        assert expired.value.status == 401
        with pytest.raises(ServerError, match="/api/stream: 401 token of '': expired"):
            async with client.stream("c", QUERIES) as stream:
                await first(stream)


async def test_cancelling_loses_nothing(server: Server) -> None:
    """Who waits for a while and then waits again gets all that came."""
    async with client_of(server) as client, client.stream("c", QUERIES[:1]) as stream:
        await first(stream)
        for k in range(5):
            with trio.move_on_after(0.001 * k):
                await anext(stream)
            await client.write(point("x", "h", k, 320 - 60 * k))
        while len(stream.values(0)[0]) < 5:
            await anext(stream)
        assert stream.reconnects == 0


async def test_an_error_in_the_body_is_raised_as_it_is(server: Server) -> None:
    """Without a group around it."""

    async def fail(client: Client) -> None:
        async with client.stream("c", QUERIES) as stream:
            await first(stream)
            raise ZeroDivisionError

    async with client_of(server) as client:
        with pytest.raises(ZeroDivisionError):
            await fail(client)


def test_messages_that_are_none() -> None:
    """Whoever answers is not a store."""
    for frame in (b"", b"CCS1", b"XXXX" + bytes(20), b"CCS1" + b"\1\1\1\1" * 5):
        with pytest.raises(ServerError, match="stream: a message that is none"):
            decode_data(frame)
    for answer in (b"", b"{}", b'{"results":5}', b'{"results":[[{}]]}', b"[]"):
        with pytest.raises(ServerError, match="query: an answer that is none"):
            decode_results(answer)


def test_a_description_of_a_later_version() -> None:
    """Keys that are not known yet are passed over."""
    described = {
        "index": 1,
        "cluster": "c",
        "host": "h",
        "metric": "m",
        "subtype": "s",
        "subtype-ids": ["1", "2"],
        "type": "t",
        "type-ids": ["0"],
        "new": 5,
    }
    assert Series.of(described).component == "t0/s1,2"
