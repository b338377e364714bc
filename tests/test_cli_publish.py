"""Publishing: what arrives, what is tried again, and that the count is exact."""

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from nats_broker import open_broker
from quart import request
from serving import make_app, served
from trio.testing import MockClock

from ccstore.cli import publish
from ccstore.cli.publish import Count, open_publisher
from ccstore.cli.site import Message
from ccstore.config import NatsConfig
from ccstore.errors import ConfigError, ProtocolError
from ccstore.server.answers import text_answer
from ccstore.server.http import read_body, route
from ccstore.server.nats import Subscription, open_client

pytestmark = pytest.mark.timeout(60)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def message(text="m value=1\n", *, hosts=1):
    """Make a message."""
    return Message(text.encode(), text.count("\n"), hosts, 0.0)


@asynccontextmanager
async def collecting(status=200, text="", headers=None):
    """Run a server that answers every POST with `status`; yield its port and the list of bodies."""
    app = make_app()
    bodies = []

    @route(app, "/api/write", methods=["POST"], permission=None)
    async def write():
        if headers is not None:
            headers.append(dict(request.headers))
        bodies.append(await read_body(limit_bytes=10**6))
        return text_answer(text, status)

    async with served(app) as port:
        yield port, bodies


@asynccontextmanager
async def scripted(*scripts):
    """Listen on a port and let each connection be served by the next script; yield the port."""
    waiting = list(scripts)

    async def serve(stream):
        await waiting.pop(0)(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_request(stream):
    """Read one request with a body of ten bytes."""
    received = b""
    while not received.endswith(b"\r\n\r\nm value=1\n"):
        chunk = await stream.receive_some()
        assert chunk
        received += chunk


async def slam(stream):
    """Take a request and leave without an answer."""
    await read_request(stream)


async def answer(stream):
    """Be a server that answers 200."""
    await read_request(stream)
    await stream.send_all(OK)
    await stream.receive_some()


async def test_what_is_published_arrives():
    """Each message is the body of one request, and is counted to the byte."""
    texts = [f"m,hostname=h{n} value={n}\n" * n for n in range(1, 30)]
    async with collecting() as (port, bodies), open_publisher(f"http://127.0.0.1:{port}") as publisher:
        for text in texts:
            await publisher.publish(message(text))
        await publisher.settle()
        assert sorted(bodies) == sorted(text.encode() for text in texts)
        expected = Count(29, sum(range(30)), sum(map(len, texts)))
        assert publisher.tally.sent == publisher.tally.acknowledged == expected
        assert publisher.tally.failed == publisher.tally.retries == 0


async def test_closing_waits_for_what_is_under_way():
    """Without `settle`, too, everything has arrived and is counted at the end."""
    async with collecting() as (port, bodies):
        async with open_publisher(f"http://127.0.0.1:{port}/", connections=3) as publisher:
            for _ in range(7):
                await publisher.publish(message())
        assert len(bodies) == publisher.tally.acknowledged.messages == 7


async def test_the_token_is_shown():
    """As a bearer token; and the path may be another than that of the store."""
    seen = []
    async with collecting(headers=seen) as (port, bodies):
        url = f"http://127.0.0.1:{port}/api/write?cluster=c"
        async with open_publisher(url, token="abc.def") as publisher:
            await publisher.publish(message())
        assert len(bodies) == 1
    (headers,) = seen
    assert headers["Authorization"] == "Bearer abc.def"
    assert headers["Content-Type"].startswith("text/plain")


async def test_an_answer_other_than_200_is_final():
    """The message is dropped as a collector drops it, and the server's words are kept."""
    async with collecting(503, "over\nloaded") as (port, bodies):
        async with open_publisher(f"http://127.0.0.1:{port}") as publisher:
            await publisher.publish(message())
            await publisher.publish(message())
        assert len(bodies) == 2
    tally = publisher.tally
    assert (tally.sent.messages, tally.refused.messages, tally.failed, tally.retries) == (2, 2, 2, 0)
    assert tally.last_error == f"http://127.0.0.1:{port}: 503 over loaded"


async def test_a_connection_that_fails_is_tried_again(mock_clock: MockClock):
    """The message is sent again after half a second, and counted once."""
    mock_clock.autojump_threshold = 0.05
    async with scripted(slam, slam, answer) as port, open_publisher(f"http://127.0.0.1:{port}") as publisher:
        began = trio.current_time()
        await publisher.publish(message())
        await publisher.settle()
        assert trio.current_time() - began == pytest.approx(0.5 + 1.0)
        assert publisher.tally.acknowledged == Count(1, 1, 10)
        assert publisher.tally.retries == 2


async def test_after_three_tries_a_message_is_lost(mock_clock: MockClock):
    """The next one begins after a last pause, with three tries of its own."""
    mock_clock.autojump_threshold = 0.05
    async with (
        scripted(slam, slam, slam, answer) as port,
        open_publisher(f"http://127.0.0.1:{port}", connections=1) as publisher,
    ):
        began = trio.current_time()
        await publisher.publish(message())
        await publisher.settle()
        assert trio.current_time() - began == pytest.approx(0.5 + 1.0 + 1.5)
        assert publisher.tally.lost == Count(1, 1, 10)
        await publisher.publish(message())
        await publisher.settle()
        assert publisher.tally.acknowledged == Count(1, 1, 10)
        assert publisher.tally.retries == 2
        assert publisher.tally.last_error.startswith(f"http://127.0.0.1:{port}: ")


async def test_a_server_that_never_answers_is_given_up(mock_clock: MockClock):
    """After five seconds, as a collector does it."""
    mock_clock.autojump_threshold = 0.05

    async def keep_silent(stream):
        await trio.sleep_forever()

    async with scripted(keep_silent, answer) as port, open_publisher(f"http://127.0.0.1:{port}") as publisher:
        began = trio.current_time()
        await publisher.publish(message())
        await publisher.settle()
        assert trio.current_time() - began == pytest.approx(publish.TIMEOUT + 0.5)
        assert publisher.tally.acknowledged.messages == publisher.tally.retries == 1


async def test_closing_does_not_wait_for_ever(mock_clock: MockClock):
    """What is still under way after the grace is counted as lost."""
    mock_clock.autojump_threshold = 0.05

    async def keep_silent(stream):
        await trio.sleep_forever()

    async with scripted(*[keep_silent] * 3) as port:
        async with open_publisher(f"http://127.0.0.1:{port}") as publisher:
            await publisher.publish(message())
            began = trio.current_time()
        assert trio.current_time() - began <= publish.GRACE
        assert publisher.tally.lost == publisher.tally.sent == Count(1, 1, 10)


async def test_what_was_not_taken_is_not_counted(mock_clock: MockClock):
    """A cancelled `publish` leaves no trace, however busy the connections are."""
    mock_clock.autojump_threshold = 0.05

    async def keep_silent(stream):
        await trio.sleep_forever()

    async with (
        scripted(*[keep_silent] * 3) as port,
        open_publisher(f"http://127.0.0.1:{port}", connections=1) as publisher,
    ):
        await publisher.publish(message())
        with trio.move_on_after(1) as scope:
            await publisher.publish(message())
        assert scope.cancelled_caught
        assert publisher.tally.sent.messages == 1


@pytest.mark.parametrize(
    "url", ["store", "http://", "ftp://h", "http://h:port", "nats://", "nats://h:x", "tls://h/x"]
)
async def test_an_address_that_cannot_be_used(url):
    """It is refused before anything is sent, with the form that is wanted."""
    with pytest.raises(ConfigError, match="address"):
        async with open_publisher(url, subject="s"):
            raise AssertionError("opened")


async def test_a_token_that_cannot_be_sent():
    """No request could carry it."""
    with pytest.raises(ConfigError, match="--token"):
        async with open_publisher("http://h", token="schlüssel"):
            raise AssertionError("opened")


async def test_secrets_of_an_address_are_not_shown():
    """Neither in what is printed nor in an error."""
    for url in ("http://user:secret@h:1", "nats://user:secret@h:1", "nats://secret@h:1"):
        async with open_publisher(url, subject="s") as publisher:
            assert "secret" not in publisher.where
            assert "h:1" in publisher.where
    with pytest.raises(ConfigError) as caught:
        async with open_publisher("ftp://user:secret@h"):
            raise AssertionError("opened")
    assert "secret" not in str(caught.value)


async def test_nats_acknowledges_by_a_ping(tmp_path: Path):
    """After `settle`, the broker has everything, in the order in which it was published."""
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as receiver:
        receiver.subscribe(Subscription("site"))
        await receiver.flush()
        texts = [f"m value={n}\n" for n in range(50)]
        async with open_publisher(broker.url, subject="site") as publisher:
            for text in texts:
                await publisher.publish(message(text))
            assert publisher.tally.acknowledged == Count()
            await publisher.settle()
            assert publisher.state == ""
            assert publisher.tally.acknowledged == Count(50, 50, sum(map(len, texts)))
        received = []
        while len(received) < 50:
            received += [bytes(one.payload).decode() for one in await anext(receiver)]
        assert received == texts


async def test_a_broker_that_vanishes_costs_what_was_under_way(tmp_path: Path):
    """It counts as lost, for nobody knows; what comes after the reconnect is acknowledged again."""
    async with open_broker(tmp_path) as broker, open_publisher(broker.url, subject="s") as publisher:
        await publisher.publish(message())
        await publisher.settle()
        await publisher.publish(message())
        await publisher.publish(message())
        await trio.to_thread.run_sync(broker.kill)
        await trio.to_thread.run_sync(broker.start)
        await publisher.settle()
        assert publisher.tally.lost == Count(2, 2, 20)
        assert "connection lost" in publisher.tally.last_error
        await publisher.publish(message())
        await publisher.settle()
        assert publisher.tally.acknowledged == Count(2, 2, 20)


async def test_without_a_broker_a_publisher_waits(mock_clock: MockClock):
    """Nothing is taken, nothing is counted, and it says why."""
    mock_clock.autojump_threshold = 0.05
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        async with open_publisher(f"nats://127.0.0.1:{sock.getsockname()[1]}", subject="s") as publisher:
            with trio.move_on_after(60) as scope:
                await publisher.publish(message())
            assert scope.cancelled_caught
            assert publisher.state == "connecting"
        assert publisher.tally.sent == Count()


async def test_a_message_that_a_broker_would_refuse(tmp_path: Path):
    """It is an error at once, with both sizes, and not counted."""
    async with open_broker(tmp_path, "max_payload: 1000\n") as broker:
        with pytest.RaisesGroup(pytest.RaisesExc(ProtocolError, match="too large")):
            async with open_publisher(broker.url, subject="s") as publisher:
                await publisher.publish(message("m value=1\n" * 101))
        assert publisher.tally.sent == Count()
