"""Request bodies: what arrives, what is refused, and how much of it waits where."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import orjson
import pytest
import trio
from hypercorn.typing import ASGIReceiveEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import Response
from serving import connected, make_app, served
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.errors import ProtocolError
from ccstore.server.answers import HttpError, json_answer, text_answer
from ccstore.server.body import SPARE_BYTES, Block, BodyBlocks, RequestBody
from ccstore.server.http import App, body_blocks, route

MIB = 1024 * 1024
DISCONNECT: ASGIReceiveEvent = {"type": "http.disconnect"}


def data(piece: bytes, *, more: bool = True) -> ASGIReceiveEvent:
    return {"type": "http.request", "body": piece, "more_body": more}


END = data(b"", more=False)


def scripted(
    messages: Sequence[ASGIReceiveEvent], nursery: trio.Nursery, announced: int | None
) -> RequestBody:
    """Make a body that receives `messages` and then nothing."""
    send, receive = trio.open_memory_channel[ASGIReceiveEvent](len(messages) + 1)
    for message in messages:
        send.send_nowait(message)
    return reading(receive, nursery, announced)


def reading(
    receive: trio.MemoryReceiveChannel[ASGIReceiveEvent], nursery: trio.Nursery, announced: int | None = None
) -> RequestBody:
    """Make a body that receives from a channel, with the task of Quart that always runs beside it."""
    body = RequestBody(receive.receive, announced)

    async def be_quart() -> None:
        while (await body.receive())["type"] != "http.disconnect":
            pass

    nursery.start_soon(be_quart)
    return body


async def collect(
    blocks: BodyBlocks, keep: Callable[[Block], int] = lambda block: 0
) -> tuple[bytes, list[Block]]:
    """Read to the end; return what was not kept, put together, and the blocks."""
    whole, seen = b"", []
    async for block in blocks:
        kept = 0 if block.last else keep(block)
        whole += bytes(block.data[: block.size - kept])
        seen.append(block)
        blocks.keep(kept)
    return whole, seen


@settings(max_examples=200)
@given(st.data())
def test_blocks_put_together_are_the_body(draw: st.DataObject) -> None:
    """However a body is cut into pieces, blocks and kept tails, its bytes come once and in order."""
    pieces = draw.draw(st.lists(st.binary(max_size=40), max_size=12))
    block_bytes = draw.draw(st.integers(1, 64))
    sent = b"".join(pieces)
    announced = draw.draw(st.sampled_from([None, len(sent)]))
    end_with_data = draw.draw(st.booleans()) and bool(pieces)
    messages = [data(piece) for piece in pieces]
    if end_with_data:
        messages[-1] = data(pieces[-1], more=False)
    else:
        messages.append(END)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            body = scripted(messages, nursery, announced)
            blocks = BodyBlocks(body, limit_bytes=len(sent), block_bytes=block_bytes)
            whole, seen = await collect(blocks, lambda block: draw.draw(st.integers(0, block.size)))
            assert whole == sent
            assert [block.last for block in seen] == [False] * (len(seen) - 1) + [True]
            assert all(len(block.data) >= block.size + SPARE_BYTES for block in seen)
            assert body.received == len(sent)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_one_block_for_a_small_body(nursery: trio.Nursery) -> None:
    """A body of announced length that fits is handed out at once, as one block that is the last."""
    body = scripted([data(b"ab"), data(b"cd"), END], nursery, 4)
    whole, blocks = await collect(BodyBlocks(body, limit_bytes=4))
    assert (whole, len(blocks)) == (b"abcd", 1)


async def test_empty_body(nursery: trio.Nursery) -> None:
    """A body of no bytes is one empty last block."""
    whole, blocks = await collect(BodyBlocks(scripted([END], nursery, None), limit_bytes=0))
    assert (whole, len(blocks)) == (b"", 1)


async def test_large_body_comes_in_full_blocks(nursery: trio.Nursery) -> None:
    """Blocks are handed out when they are full, not piece by piece."""
    body = scripted([*[data(b"x" * 30)] * 20, END], nursery, None)
    _, blocks = await collect(BodyBlocks(body, limit_bytes=600, block_bytes=100))
    assert [block.size for block in blocks] == [100] * 6


async def test_kept_tail_that_fills_the_block(nursery: trio.Nursery) -> None:
    """A reader that keeps everything gets a larger block instead of the same one for ever."""
    body = scripted([data(bytes(range(10)) * 10), END], nursery, None)
    blocks = BodyBlocks(body, limit_bytes=100, block_bytes=10)
    whole, seen = await collect(blocks, lambda block: block.size)
    assert whole == bytes(range(10)) * 10
    assert len(seen) <= 4


async def test_cut_body_is_handed_out_and_then_an_error(nursery: trio.Nursery) -> None:
    """What came before the client vanished is handed out, not as the last block, and then it raises."""
    body = scripted([data(b"line 1\nlin"), DISCONNECT], nursery, 100)
    blocks = BodyBlocks(body, limit_bytes=100)
    block = await anext(blocks)
    assert (bytes(block.data[: block.size]), block.last) == (b"line 1\nlin", False)
    blocks.keep(3)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="cut after 10 bytes"):
            await anext(blocks)


async def test_announced_too_much(nursery: trio.Nursery) -> None:
    """A Content-Length beyond the limit is refused before a byte is read."""
    body = scripted([], nursery, 11)
    with pytest.raises(HttpError, match="too large") as error:
        BodyBlocks(body, limit_bytes=10)
    assert error.value.status == 413


async def test_chunked_too_much(nursery: trio.Nursery) -> None:
    """Bytes are counted, whatever was announced."""
    body = scripted([data(b"x" * 10), data(b"x"), END], nursery, None)
    with pytest.raises(HttpError, match="too large") as error:
        await collect(BodyBlocks(body, limit_bytes=10))
    assert error.value.status == 413


async def test_limit_is_inclusive(nursery: trio.Nursery) -> None:
    """A body of exactly the limit is accepted."""
    body = scripted([data(b"x" * 10), END], nursery, None)
    assert (await collect(BodyBlocks(body, limit_bytes=10)))[0] == b"x" * 10


async def test_slow_is_fine_and_silent_is_not(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A body may take hours if bytes keep coming, and is given up after a silent minute."""
    send, receive = trio.open_memory_channel[ASGIReceiveEvent](0)
    blocks = BodyBlocks(reading(receive, nursery), limit_bytes=MIB)

    async def trickle() -> None:
        for _ in range(100):
            await trio.sleep(59)
            await send.send(data(b"x"))

    nursery.start_soon(trickle)
    for _ in range(100):
        assert (await anext(blocks)).size == 1
    start = trio.current_time()
    with pytest.raises(HttpError, match="nothing came for 60 s") as error:
        await anext(blocks)
    assert error.value.status == 408
    assert trio.current_time() - start == pytest.approx(60)


async def test_block_that_does_not_fill_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What has come is handed out after a second without more, while the sender is still connected."""
    send, receive = trio.open_memory_channel[ASGIReceiveEvent](1)
    blocks = BodyBlocks(reading(receive, nursery), limit_bytes=MIB)
    send.send_nowait(data(b"line\n"))
    block = await anext(blocks)
    assert (block.size, block.last, trio.current_time()) == (5, False, pytest.approx(1))
    send.send_nowait(END)
    assert (await anext(blocks)).last


@pytest.fixture
def app() -> App:
    """An application with one route that counts, and answers what it has counted."""
    app = make_app()

    @route(app, "/count", methods=["POST"], permission=None)
    async def count() -> Response:
        sizes = [block.size async for block in body_blocks(limit_bytes=1024 * MIB)]
        return json_answer({"size": sum(sizes), "blocks": len(sizes)})

    return app


async def test_chunked_over_the_network(app: App) -> None:
    """A chunked body arrives as it was, chunk headers taken out."""
    async with served(app) as port, connected(port) as client:
        await client.stream.send_all(
            b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        client.expect_answer("POST")
        assert orjson.loads((await client.answer()).body) == {"size": 5, "blocks": 1}


async def test_expect_100_continue(app: App) -> None:
    """A client that asks first is told to go on, and sends its body then."""
    async with served(app) as port, connected(port) as client:
        await client.send_head("POST", "/count", [("Content-Length", "5"), ("Expect", "100-continue")])
        assert (await client.event()).status_code == 100
        await client.stream.send_all(b"hello")
        assert orjson.loads((await client.answer()).body)["size"] == 5


async def test_body_over_http2(app: App) -> None:
    """A body larger than the windows of HTTP/2 arrives, and so does the answer."""
    async with served(app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        connection.send_headers(
            1, [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/count")]
        )
        left, answer, ended = 300_000, b"", False
        while not ended:
            while left and (size := min(left, connection.local_flow_control_window(1), 16_384)):
                left -= size
                connection.send_data(1, b"x" * size, end_stream=not left)
            await stream.send_all(connection.data_to_send())
            for event in connection.receive_data(await stream.receive_some()):
                if isinstance(event, h2.events.DataReceived):
                    answer += event.data
                ended = ended or isinstance(event, h2.events.StreamEnded)
    assert orjson.loads(answer)["size"] == 300_000


async def test_vanished_client_is_not_the_end_of_a_body() -> None:
    """A client that closes, or resets, in the middle is told from one that has sent everything."""
    app = make_app()
    send, outcomes = trio.open_memory_channel[tuple[bytes, str]](1)

    @route(app, "/write", methods=["POST"], permission=None, changes_store=True)
    async def write() -> Response:
        whole, blocks = b"", body_blocks(limit_bytes=MIB)
        try:
            async for block in blocks:
                whole += bytes(block.data[: block.size])
        except ProtocolError as error:
            await send.send((whole, str(error)))
            raise
        return text_answer("")

    linger_zero = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, 0 s: close() sends a reset
    async with served(app) as port:
        for options in (None, linger_zero):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            if options:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, options)
            await stream.send_all(b"POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            await wait_all_tasks_blocked(0.01)
            await stream.aclose()
            received, error = await outcomes.receive()
            assert error == f"request body: cut after {len(received)} bytes"
            assert received == b"abc" or options  # a reset may overtake what was sent before it


async def test_slow_handler_stops_its_sender() -> None:
    """A sender far ahead of a handler waits in its own socket, and costs the server no memory."""
    app = make_app()
    go_on, size = trio.Event(), 500 * MIB

    @route(app, "/wait", methods=["POST"], permission=None)
    async def wait() -> Response:
        await go_on.wait()
        return json_answer(sum([block.size async for block in body_blocks(limit_bytes=size)]))

    async with served(app) as port, connected(port) as client, trio.open_nursery() as nursery:
        await client.send_head("POST", "/wait", [("Content-Length", str(size))])
        sent = 0

        async def push() -> None:
            nonlocal sent
            piece = bytes(64 * 1024)
            while sent < size:
                await client.stream.send_all(piece)
                sent += len(piece)

        before = resident_bytes()
        nursery.start_soon(push)
        await wait_all_tasks_blocked(0.1)
        assert 0 < sent < size
        assert resident_bytes() - before < 32 * MIB
        go_on.set()
        assert orjson.loads((await client.answer()).body) == size
        assert resident_bytes() - before < 64 * MIB


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
