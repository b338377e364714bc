"""What clients do, and what they may not do to others."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
from quart import Response
from serving import (
    MIB,
    Client,
    Endless,
    ask,
    ask_for,
    connected,
    h2_client,
    h2_headers,
    h2_status,
    make_app,
    make_sample_app,
    served,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.server.answers import text_answer
from ccstore.server.http import App, body_blocks, route


@pytest.fixture
def endless() -> Endless:
    return Endless()


@pytest.fixture
def app(endless: Endless) -> App:
    return make_sample_app(endless)


async def test_client_that_does_not_read_is_given_up_by_the_kernel(app: App, endless: Endless) -> None:
    """TCP_USER_TIMEOUT ends a connection whose client leaves its window shut."""
    async with served(app, user_timeout=0.3) as port, connected(port) as client:
        await client.send_head("GET", "/endless")
        await endless.ended.wait()
        assert (await ask(port, "GET", "/hello")).status == 200


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_client_that_does_not_read_holds_up_nobody(app: App, endless: Endless, version: str) -> None:
    """While one client does not read, its answer waits instead of filling memory, and others get theirs."""
    async with served(app) as port, connected(port) as client:
        await ask_for("/endless", version, client)
        await wait_all_tasks_blocked(0.05)
        pieces = endless.pieces
        assert (await ask(port, "GET", "/hello")).status == 200
        await wait_all_tasks_blocked(0.05)
        assert endless.pieces == pieces
        assert pieces < 100


async def test_client_that_leaves_ends_its_handler(app: App, endless: Endless) -> None:
    """An answer whose client has left is not computed to its end."""
    async with served(app) as port:
        async with connected(port) as client:
            await client.send_head("GET", "/endless")
            await client.event()
        await endless.ended.wait()


async def test_client_of_http2_that_loses_interest_ends_its_handler(app: App, endless: Endless) -> None:
    """The same for one answer of several on a connection, which goes on."""
    async with served(app) as port, connected(port) as client:
        connection = h2_client(b"GET", b"/endless", end=True)
        await client.stream.send_all(connection.data_to_send())
        await wait_all_tasks_blocked(0.01)
        connection.receive_data(await client.stream.receive_some())
        connection.reset_stream(1)
        connection.increment_flow_control_window(MIB)
        connection.send_headers(3, h2_headers(b"GET", b"/hello"), end_stream=True)
        await client.stream.send_all(connection.data_to_send())
        await endless.ended.wait()
        assert await h2_status(connection, client) == "200"


def scope_of(path: str) -> Any:
    """Make what Hypercorn would call an application with."""
    scope = {"type": "http", "http_version": "2", "method": "GET", "scheme": "http", "headers": []}
    return scope | {"path": path, "raw_path": path.encode(), "query_string": b"", "client": None}


async def test_client_that_leaves_just_when_its_answer_is_ready() -> None:
    """A handler that is done when the news comes, too late to be cancelled, raises nothing."""
    app = make_app()
    go_on = trio.Event()
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    @route(app, "/wait", methods=["GET"], permission=None)
    async def wait() -> Response:
        await go_on.wait()
        return text_answer("")

    async def receive() -> Any:
        if message := next(messages, None):
            return message
        await wait_all_tasks_blocked()
        go_on.set()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    await app(scope_of("/wait"), receive, send)
    assert go_on.is_set()


async def test_sending_to_nobody_does_not_keep_the_event_loop(app: App, endless: Endless) -> None:
    """A handler whose sends go nowhere, and so never wait, is still cancelled."""
    sent = trio.Event()
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        if message := next(messages, None):
            return message
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:  # as Hypercorn's, when the stream of HTTP/2 is gone
        sent.set()

    await app(scope_of("/endless"), receive, send)
    assert endless.ended.is_set()


async def test_client_that_leaves_does_not_end_a_handler_that_changes_the_store() -> None:
    """A handler that must not stop half way goes on when its client leaves."""
    app = make_app()
    entered, go_on, done = trio.Event(), trio.Event(), trio.Event()

    @route(app, "/write", methods=["POST"], permission=None, changes_store=True)
    async def write() -> Response:
        async for _ in body_blocks(limit_bytes=MIB):
            pass
        entered.set()
        await go_on.wait()
        await trio.lowlevel.checkpoint()
        done.set()
        return text_answer("")

    async with served(app) as port:
        async with connected(port) as client:
            await client.stream.send_all(b"POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            await entered.wait()
        await wait_all_tasks_blocked(0.01)
        go_on.set()
        await done.wait()


async def not_ascii(client: Client) -> None:
    await client.stream.send_all(h2_client(b"GET", b"/\xff", end=True).data_to_send())
    await client.wait_closed()


async def no_path(client: Client) -> None:
    connection = h2_client(b"CONNECT", b"/", end=False)
    connection.clear_outbound_data_buffer()
    connection.send_headers(3, [(b":method", b"CONNECT"), (b":authority", b"x")])
    await client.stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + connection.data_to_send())
    await client.wait_closed()


async def late_frame(client: Client) -> None:
    connection = h2_client(b"POST", b"/hello", end=False)
    await client.stream.send_all(connection.data_to_send())
    status = await h2_status(connection, client)  # after the server has waited for the rest
    assert status == "200"
    connection.send_data(1, b"late")
    await client.stream.send_all(connection.data_to_send())
    await client.wait_closed()


async def leave_in_the_middle(client: Client) -> None:
    await client.stream.send_all(b"GET /endless HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    await client.event()
    assert isinstance(client.stream, trio.SocketStream)
    await client.stream.send_eof()
    await client.wait_closed()


async def garbage(client: Client) -> None:
    await client.stream.send_all(b"\x16\x03\x01 garbage\r\n\r\n")
    await client.wait_closed()


@pytest.mark.parametrize("provoke", [not_ascii, no_path, late_frame, leave_in_the_middle, garbage])
async def test_whatever_a_client_provokes_ends_its_connection_alone(
    app: App, mock_clock: MockClock, provoke: Callable[[Client], object], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in one connection does not reach the others, and is told in one line."""
    async with served(app) as port, connected(port) as client, connected(port) as other:
        assert (await other.request("GET", "/hello")).status == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provoke, client)
            await wait_all_tasks_blocked(0.01)
            mock_clock.jump(6)  # past the wait for the rest of a body
        assert (await other.request("GET", "/hello")).status == 200
        assert (await ask(port, "GET", "/hello")).status == 200
    assert all(record.levelno == logging.WARNING and not record.exc_info for record in caplog.records)
