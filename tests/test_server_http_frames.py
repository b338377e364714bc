"""Frames that are encoded already, sent over a websocket without a turn of any task."""

import ssl
from collections.abc import Callable

import pytest
import trio
import trustme
import wsproto
from quart import websocket
from serving import make_app, served
from test_server_http_tls import make_certificate, tls_client  # noqa: F401 -- a fixture
from test_server_http_websocket import Client, connected, opened
from wsproto import events

from ccstore.server import asgi
from ccstore.server.hosting import Websocket, tls_context
from ccstore.server.http import App
from ccstore.wire.stream import encode_frame

KIB = 1024


def make_socket_app(use: Callable[[Websocket], object]) -> App:
    """Make an application that hands the frames of its one websocket to `use`."""
    app = make_app()

    @app.websocket("/frames")
    async def frames() -> None:
        await websocket.accept()
        use(asgi.websocket_frames())
        while True:
            await asgi.websocket_frames().send_frames(encode_frame("", await websocket.receive()))

    return app


async def texts(client: Client, last: str) -> list[str]:
    """Read whole messages up to a last one; what else comes is no message."""
    found = [""]
    while found[-1] != last:
        event = await client.event()
        if isinstance(event, events.TextMessage):
            found[-1] += event.data
            if event.message_finished:
                found.append("")
                if found[-2] == last:
                    break
        else:
            assert isinstance(event, events.Pong)
    return found[:-1]


@pytest.mark.parametrize("size", [100, 124, 125, 65534, 65535, 100_000])
@pytest.mark.parametrize("name", ["", "né"])
async def test_a_frame_is_what_wsproto_reads(size: int, name: str) -> None:
    """Whatever its length, text and bytes."""
    connection = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
    connection.receive_data(encode_frame(name, "x" * size) + encode_frame(name, b"x" * size))
    text, data = connection.events()
    assert text == events.TextMessage(data=('{"id":"né",' if name else "{") + "x" * size)
    assert data == events.BytesMessage(data=bytearray(b"x" * size + name.encode()))


async def test_what_the_kernel_does_not_take_stays_in_order() -> None:
    """A frame that is taken in part is completed before anything else is sent, also by Hypercorn itself."""
    taken: list[bool] = []
    filled = trio.Event()

    def fill(frames: Websocket) -> None:
        while not taken or taken[-1]:
            taken.append(frames.send_nowait(encode_frame("", f"{len(taken)}" + "." * 100 * KIB)))
        filled.set()

    async with served(make_socket_app(fill)) as port, opened(port, "/frames") as client:
        await filled.wait()
        await client.send(events.Ping(b"between"))
        await client.send(events.TextMessage("end"))
        with trio.fail_after(20):
            found = await texts(client, "{end")
    assert len(taken) > 1
    assert [text.rstrip(".") for text in found] == [*(f"{{{k}" for k in range(len(taken) - 1)), "{end"]


async def test_nothing_is_sent_behind_the_close() -> None:
    """Neither at once nor with a wait: once the server has said that it stops, frames go nowhere."""
    used: list[Websocket] = []
    app = make_socket_app(used.append)
    async with served(app) as port, opened(port, "/frames") as client:
        await client.send(events.TextMessage("one"))
        assert (await client.event()).data == "{one"
        app.stopping.set()
        assert await client.close_code() == 1001
        assert not used[0].send_nowait(encode_frame("", "two"))
        await used[0].send_frames(encode_frame("", "two"))
        assert client._protocol.state == wsproto.connection.ConnectionState.REMOTE_CLOSING
        assert not client._events


async def test_a_client_that_has_gone() -> None:
    """What is sent to it meanwhile is an error for nobody."""
    used: list[Websocket] = []
    async with served(make_socket_app(used.append)) as port:
        async with connected(port, "/frames") as client:
            assert isinstance(await client.event(), events.AcceptConnection)
            await client.send(events.TextMessage("one"))
            await client.event()
        with trio.fail_after(5):
            while used[0].send_nowait(encode_frame("", "more")):
                await trio.lowlevel.checkpoint()
        await used[0].send_frames(encode_frame("", "more"))


async def test_over_tls_frames_take_the_usual_way(certificate: tuple[trustme.CA, str, str]) -> None:
    """An encrypted connection takes nothing at once, and everything with a wait."""
    authority, *files = certificate
    tls, context = tls_context(*files), ssl.create_default_context()
    authority.configure_trust(context)
    taken: list[bool] = []
    app = make_socket_app(lambda frames: taken.append(frames.send_nowait(b"never")))
    async with served(app, tls=tls) as port, await tls_client(port, context) as stream:
        client = Client(stream)
        await client.send(events.Request(host="localhost", target="/frames"))
        assert isinstance(await client.event(), events.AcceptConnection)
        await client.send(events.TextMessage("one"))
        assert (await client.event()).data == "{one"
    assert taken == [False]
