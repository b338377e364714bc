"""A real server on loopback for tests, and a client that sees every byte of it."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import h2.config
import h2.connection
import h11
import trio
from attrs import define, field, frozen
from quart import Response

from ccstore.server import http, process
from ccstore.server.answers import text_answer
from ccstore.server.auth import Authenticator
from ccstore.server.http import body_blocks, route

MIB = 1024 * 1024

NOW = 1_700_000_000


def make_app(authenticator: Authenticator | None = None) -> http.App:
    """Make an application without routes that lets everybody in, unless told otherwise."""
    return http.create_app(authenticator or Authenticator(b""), now=lambda: NOW, stopping=trio.Event())


@asynccontextmanager
async def served(
    app: http.App,
    *,
    tls: ssl.SSLContext | None = None,
    graceful_timeout: float = 3.0,
    user_timeout: float = process.USER_TIMEOUT,
) -> AsyncIterator[int]:
    """Serve `app`, yield the port; at the end stop softly and wait until nothing is left."""
    sockets = process.listen("127.0.0.1", 0, user_timeout=user_timeout)
    async with trio.open_nursery() as nursery:
        serve = partial(http.serve, app, sockets, tls=tls, graceful_timeout=graceful_timeout)
        (url,) = await nursery.start(serve)
        yield int(url.rpartition(":")[2])
        app.stopping.set()


@frozen
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


@define
class Client:
    """A connection of HTTP/1.1 that reads answers with h11 and writes what it is given."""

    stream: trio.abc.Stream
    _h11: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))

    async def request(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes | None = None
    ) -> Answer:
        """Send a request with Content-Length if there is a body, and return the answer."""
        length = [("Content-Length", str(len(body)))] if body is not None else []
        await self.send_head(method, target, [*headers, *length])
        if body:
            await self.stream.send_all(self._h11.send(h11.Data(data=body)))
        self._h11.send(h11.EndOfMessage())
        return await self.answer()

    async def send_head(self, method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send the request line and the headers alone."""
        head = h11.Request(method=method, target=target, headers=[("Host", "localhost"), *headers])
        await self.stream.send_all(self._h11.send(head))

    async def answer(self) -> Answer:
        """Read a whole answer; h11.RemoteProtocolError if it is cut."""
        head = await self.event()
        while isinstance(head, h11.InformationalResponse):
            head = await self.event()
        assert isinstance(head, h11.Response)
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        headers = [(name.decode(), value.decode()) for name, value in head.headers]
        return Answer(head.status_code, headers, body)

    async def event(self) -> h11.Event:
        """Read the next event of h11."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self.stream.receive_some())
        return event

    def expect_answer(self, method: str) -> None:
        """Get ready for the answer to a request that was written to `stream` as bytes."""
        self._h11.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))

    async def wait_closed(self) -> None:
        """Wait until the server has closed the connection, and throw away what it still sent."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """Open a connection to the server on `port` of loopback."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Client(stream)


async def ask(
    port: int,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> Answer:
    """Send one request over a connection of its own."""
    async with connected(port) as client:
        return await client.request(method, target, headers, body)


class Endless:
    """A handler whose answer has no end, and that tells how far it got and that it was ended."""

    def __init__(self) -> None:
        self.pieces = 0
        self.ended = trio.Event()

    async def __call__(self) -> Response:
        return Response(self._stream())

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(256 * 1024)
                self.pieces += 1
        finally:
            self.ended.set()


def make_sample_app(endless: Endless) -> http.App:
    """Make an application with an answer of each size, and a body that is read."""
    app = make_app()
    route(app, "/endless", methods=["GET"], permission=None)(endless)

    @route(app, "/hello", methods=["GET", "POST"], permission=None)
    async def hello() -> Response:
        return text_answer("hello\n")

    @route(app, "/large", methods=["GET"], permission=None)
    async def large() -> Response:
        return Response(bytes(20 * MIB))

    @route(app, "/count", methods=["POST"], permission=None)
    async def count() -> Response:
        return text_answer(str(sum([block.size async for block in body_blocks(limit_bytes=MIB)])))

    return app


def h2_client(method: bytes, path: bytes, *, end: bool) -> h2.connection.H2Connection:
    """Make a client of HTTP/2 that checks nothing of what it sends, with one request written."""
    config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    connection.send_headers(1, h2_headers(method, path), end_stream=end)
    return connection


def h2_headers(method: bytes, path: bytes) -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"x"), (b":path", path)]


async def h2_status(connection: h2.connection.H2Connection, client: Client) -> str:
    """Read up to the end of the first answer, and return its status."""
    status = ""
    while True:
        for event in connection.receive_data(await client.stream.receive_some()):
            match type(event).__name__:
                case "ResponseReceived":
                    status = dict(event.headers)[b":status"].decode()
                case "StreamEnded":
                    return status


async def ask_for(path: str, version: str, client: Client) -> None:
    """Send a request of either version of HTTP, and read nothing."""
    if version == "2":
        await client.stream.send_all(h2_client(b"GET", path.encode(), end=True).data_to_send())
    else:
        await client.send_head("GET", path)
