"""Websockets: how they end, and what their clients see of it."""

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import wsproto
import wsproto.extensions
from attrs import define, field
from quart import websocket
from serving import make_app, served
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto import events

from ccstore.errors import BusyError, QueryError
from ccstore.server.http import App


@define
class Client:
    """A websocket that reads only when it is asked to."""

    stream: trio.SocketStream
    _protocol: wsproto.WSConnection = field(
        factory=lambda: wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    )
    _events: deque[events.Event] = field(factory=deque)

    async def send(self, event: events.Event) -> None:
        await self.stream.send_all(self._protocol.send(event))

    async def event(self) -> events.Event:
        """Read the next event; pings are answered."""
        while not self._events:
            self._protocol.receive_data(await self.stream.receive_some() or None)
            self._events.extend(self._protocol.events())
        return self._events.popleft()

    async def close_code(self) -> int:
        """Read until the server closes, and return the code."""
        while not isinstance(event := await self.event(), events.CloseConnection):
            pass
        return event.code


@asynccontextmanager
async def connected(port: int, path: str) -> AsyncIterator[Client]:
    """Connect, ask for a websocket, and do not wait for the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Client(stream)
        await client.send(events.Request(host="localhost", target=path))
        yield client


@asynccontextmanager
async def opened(port: int, path: str) -> AsyncIterator[Client]:
    """Open a websocket."""
    async with connected(port, path) as client:
        assert isinstance(await client.event(), events.AcceptConnection)
        yield client


@define
class Handlers:
    """How often the handlers below were entered and left."""

    entered: int = 0
    left: int = 0


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def app(handlers: Handlers) -> App:
    """An application whose websockets wait, echo, write for ever, and fail in each way."""
    app = make_app()

    @app.websocket("/wait")
    async def wait() -> None:
        await websocket.accept()
        await trio.sleep_forever()

    @app.websocket("/echo")
    async def echo() -> None:
        await websocket.accept()
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/flood")
    async def flood() -> None:
        handlers.entered += 1
        try:
            while True:
                await websocket.send(bytes(100_000))
        finally:
            handlers.left += 1

    @app.websocket("/once")
    async def once() -> None:
        await websocket.send("one")

    @app.websocket("/bug")
    async def bug() -> None:
        await websocket.accept()
        raise ZeroDivisionError("of ours")

    @app.websocket("/refuse-late")
    async def refuse_late() -> None:
        await websocket.accept()
        raise QueryError("no such metric")

    @app.websocket("/refuse")
    async def refuse() -> None:
        raise BusyError("too many streams")

    return app


async def test_messages_both_ways(app: App) -> None:
    """Text and bytes pass as they are."""
    async with served(app) as port, opened(port, "/echo") as client:
        await client.send(events.TextMessage("text"))
        assert (await client.event()).data == "text"
        await client.send(events.BytesMessage(b"bytes"))
        assert (await client.event()).data == b"bytes"


async def test_messages_are_not_compressed(app: App) -> None:
    """A browser offers it, and is not taken up on it: each connection would cost its own compression."""
    async with served(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Client(stream)
        deflate = wsproto.extensions.PerMessageDeflate()
        await client.send(events.Request(host="localhost", target="/echo", extensions=[deflate]))
        accepted = await client.event()
        assert isinstance(accepted, events.AcceptConnection)
        assert accepted.extensions == []
        await client.send(events.TextMessage("text"))
        assert (await client.event()).data == "text"


@pytest.mark.parametrize("path", ["/wait", "/echo"])
async def test_stop_is_told_as_going_away(app: App, mock_clock: MockClock, path: str) -> None:
    """A stop closes with 1001, without help from the handler and without using any of the grace."""
    async with served(app) as port, opened(port, path) as client:
        app.stopping.set()
        assert await client.close_code() == 1001


async def test_stop_while_messages_flow(app: App, mock_clock: MockClock) -> None:
    """The close comes behind the messages that are on the way already."""
    async with served(app) as port, opened(port, "/flood") as client:
        await client.event()
        app.stopping.set()
        assert await client.close_code() == 1001


async def test_stop_does_not_wait_for_a_client_that_does_not_read(
    app: App, handlers: Handlers, mock_clock: MockClock
) -> None:
    """The close cannot overtake messages that a client does not take; the grace ends that."""
    async with AsyncExitStack() as clients, served(app) as port:  # the clients outlive the server
        await clients.enter_async_context(opened(port, "/flood"))
        await wait_all_tasks_blocked(0.02)
        app.stopping.set()
        await wait_all_tasks_blocked(0.02)
        mock_clock.jump(3.1)
    assert (handlers.entered, handlers.left) == (1, 1)


async def test_handler_that_returns_closes_normally(app: App) -> None:
    """The end of a handler is the normal end of its websocket."""
    async with served(app) as port, opened(port, "/once") as client:
        assert (await client.event()).data == "one"
        assert await client.close_code() == 1000


@pytest.mark.parametrize("path", ["/wait", "/echo", "/flood"])
@pytest.mark.parametrize("politely", [True, False])
async def test_client_that_leaves_ends_the_handler_quietly(
    app: App, handlers: Handlers, caplog: pytest.LogCaptureFixture, path: str, politely: bool
) -> None:
    """The ordinary end of a websocket is not an error, whether its handler waits, reads or writes."""
    async with served(app) as port:
        async with opened(port, path) as client:
            if politely:
                await client.send(events.CloseConnection(1000))
                assert await client.close_code() == 1000
        await wait_all_tasks_blocked(0.01)
        assert handlers.entered == handlers.left
    assert caplog.records == []


async def test_bug_closes_with_1011(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a handler is logged, and its client sees an internal error instead of a normal end."""
    async with served(app) as port, opened(port, "/bug") as client:
        assert await client.close_code() == 1011
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "ZeroDivisionError: of ours" in caplog.text


async def test_refusal_after_accepting_closes_with_1008(app: App) -> None:
    """What a client has to act upon is a policy violation once only a code can tell it."""
    async with served(app) as port, opened(port, "/refuse-late") as client:
        assert await client.close_code() == 1008


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/refuse", 429, b'{"status":"Too Many Requests","error":"too many streams"}\n'),
        ("/nope", 404, b"404 page not found\n"),
    ],
)
async def test_refusal_before_accepting_is_an_ordinary_answer(
    app: App, path: str, status: int, body: bytes
) -> None:
    """Before a websocket is accepted, errors are answered as everywhere."""
    async with served(app) as port, connected(port, path) as client:
        rejected = await client.event()
        assert isinstance(rejected, events.RejectConnection)
        received = b""
        while isinstance(event := await client.event(), events.RejectData):
            received += event.data
            if event.body_finished:
                break
    assert (rejected.status_code, received) == (status, body)
