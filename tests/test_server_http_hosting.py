"""Connections: how they end when they are done with, and how when the server stops."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from quart import Response
from serving import MIB, Endless, ask_for, connected, h2_client, h2_status, make_app, make_sample_app, served
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.server.answers import text_answer
from ccstore.server.http import App, route


@pytest.fixture
def endless() -> Endless:
    return Endless()


@pytest.fixture
def app(endless: Endless) -> App:
    return make_sample_app(endless)


async def test_connection_close_closes(app: App) -> None:
    """After ``Connection: close`` the server closes; without the cure the socket leaks."""
    async with served(app) as port, connected(port) as client:
        assert (await client.request("GET", "/hello", [("Connection", "close")])).status == 200
        await client.wait_closed()


async def test_idle_connection_is_closed(app: App, mock_clock: MockClock) -> None:
    """A connection without a request is closed after the keep-alive time, and not before."""
    async with served(app) as port, connected(port) as client:
        assert (await client.request("GET", "/hello")).status == 200
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(149)
        assert (await client.request("GET", "/hello")).status == 200
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(151)
        await client.wait_closed()


async def test_idle_http2_connection_is_closed(app: App, mock_clock: MockClock) -> None:
    """The same for HTTP/2, whose streams end in another way."""
    async with served(app) as port, connected(port) as client:
        connection = h2_client(b"GET", b"/hello", end=True)
        await client.stream.send_all(connection.data_to_send())
        await h2_status(connection, client)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(151)
        await client.wait_closed()


async def test_keep_alive(app: App) -> None:
    """One connection serves many requests, with bodies and without, read and unread."""
    async with served(app) as port, connected(port) as client:
        for _ in range(3):
            assert (await client.request("POST", "/count", body=b"x" * 1000)).body == b"1000"
            assert (await client.request("POST", "/hello", body=b"x" * 1000)).body == b"hello\n"
            assert (await client.request("GET", "/hello")).body == b"hello\n"


@pytest.mark.parametrize("length", [("Content-Length", str(8 * MIB)), ("Transfer-Encoding", "chunked")])
async def test_early_answer_is_seen_by_a_client_that_still_sends(app: App, length: tuple[str, str]) -> None:
    """A client sees the refusal of its body, even if it sends all of it before it looks."""
    async with served(app) as port, connected(port) as client:
        await client.send_head("POST", "/count", [length])
        body = b"100000\r\n" + bytes(MIB) + b"\r\n" if "chunked" in length else bytes(MIB)
        for _ in range(8):
            await client.stream.send_all(body)
        if "chunked" in length:
            await client.stream.send_all(b"0\r\n\r\n")
        assert (await client.answer()).status == 413


async def test_unfinished_body_after_the_answer_is_not_awaited_for_ever(
    app: App, mock_clock: MockClock
) -> None:
    """An answered client that neither sends the rest of its body nor leaves is closed."""
    async with served(app) as port, connected(port) as client:
        await client.send_head("POST", "/hello", [("Content-Length", "10")])
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(6)
        assert (await client.answer()).status == 200
        await client.wait_closed()


async def test_long_answers_are_not_cut(mock_clock: MockClock) -> None:
    """An answer may take as long as it takes to compute and to read."""
    app = make_app()
    go_on = trio.Event()

    @route(app, "/slow", methods=["GET"], permission=None)
    async def slow() -> Response:
        async def stream() -> AsyncIterator[bytes]:
            yield b"first "
            await go_on.wait()
            yield b"last"

        return Response(stream())

    async with served(app) as port, connected(port) as client:
        await client.send_head("GET", "/slow")
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(10_000)
        await wait_all_tasks_blocked(0.01)
        go_on.set()
        assert (await client.answer()).body == b"first last"


# The stop


async def test_stop_closes_idle_connections_at_once(app: App, mock_clock: MockClock) -> None:
    """Clients that wait between requests do not use up the grace."""
    async with served(app) as port, connected(port) as client, connected(port) as other:
        assert (await client.request("GET", "/hello")).status == 200
        app.stopping.set()
        await client.wait_closed()
        await other.wait_closed()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_stop_lets_a_running_request_finish(mock_clock: MockClock) -> None:
    """A request that runs when the server stops gets its answer within the grace."""
    app = make_app()
    entered, go_on = trio.Event(), trio.Event()

    @route(app, "/slow", methods=["GET"], permission=None)
    async def slow() -> Response:
        entered.set()
        await go_on.wait()
        return text_answer("done\n")

    async with served(app) as port, connected(port) as client:
        await client.send_head("GET", "/slow")
        await entered.wait()
        app.stopping.set()
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(2)
        go_on.set()
        assert (await client.answer()).body == b"done\n"
        await client.wait_closed()


async def test_stop_insists(mock_clock: MockClock) -> None:
    """A request that is not done within the grace is cancelled."""
    app = make_app()
    entered = trio.Event()

    @route(app, "/slow", methods=["GET"], permission=None)
    async def slow() -> Response:
        entered.set()
        await trio.sleep_forever()
        raise AssertionError

    async with served(app) as port, connected(port) as client:
        await client.send_head("GET", "/slow")
        await entered.wait()
        app.stopping.set()
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(3.1)
        await client.wait_closed()


@pytest.mark.parametrize("path", ["/endless", "/large"])
@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("softly", [True, False])
async def test_client_that_does_not_read_cannot_hold_up_the_end(
    app: App, endless: Endless, mock_clock: MockClock, version: str, softly: bool, path: str
) -> None:
    """A send that Hypercorn shields ends with the grace of a stop, and at once when cancelled."""
    async with AsyncExitStack() as clients:  # they outlive the server
        with trio.CancelScope() as scope:
            async with served(app) as port:
                client = await clients.enter_async_context(connected(port))
                await ask_for(path, version, client)
                await wait_all_tasks_blocked(0.05)
                if softly:
                    app.stopping.set()
                    await wait_all_tasks_blocked(0.05)
                    assert not endless.ended.is_set()
                    mock_clock.jump(3.1)
                else:
                    scope.cancel()
    assert endless.ended.is_set() == (path == "/endless")


async def test_client_of_http2_that_vanishes_at_the_end_of_its_answer(
    app: App, mock_clock: MockClock
) -> None:
    """A task that waits for a window that nobody can open any more ends after a while."""
    async with served(app) as port:
        before = trio.lowlevel.current_statistics().tasks_living
        async with connected(port) as client:
            await ask_for("/large", "2", client)
            await wait_all_tasks_blocked(0.05)
        await wait_all_tasks_blocked(0.05)
        mock_clock.jump(21)
        await wait_all_tasks_blocked(0.05)
        assert trio.lowlevel.current_statistics().tasks_living == before
