"""Request bodies: pulled by the handler, piece by piece, and never queued.

Owns what arrives of one request after its headers. Never touches the answer. Invariant: who asks
for a piece gets the next bytes in their order, then the end or an error; a body cut in the middle
is never taken for a complete one.

Quart's own `request.body` is a queue without a bound, filled as fast as the network delivers: a
slow handler pays with memory, and the limit looks only at what the client has announced. Here a
handler that does not ask stops Hypercorn from reading, and so the sender, with about 2 MiB on
the way. Blocks are large and have spare bytes behind them because compiled loops read them in
place, eight bytes at a time.
"""

from collections.abc import AsyncIterator

import trio
from attrs import frozen
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent

from ccstore.errors import ProtocolError
from ccstore.server.answers import HttpError

__all__ = ["SPARE_BYTES", "Block", "BodyBlocks", "RequestBody"]

KIB = 1024

SPARE_BYTES = 64
"""Readable bytes behind the end of every block, of any content."""

BLOCK_BYTES = 512 * KIB
"""A block is handed out when it is full: large enough to make its fixed costs small, small
enough to be still in the processor's cache."""

FLUSH_AFTER = 1.0
"""Seconds after which a block that does not fill up is handed out as it is."""

IDLE_LIMIT = 60.0
"""Seconds without a byte after which a sender is given up. Slow is fine, silent is not."""


class RequestBody:
    """The pieces of one request's body.

    Two tasks share it: the handler asks for pieces, and Quart's receiving task (`receive`) waits
    for the client to leave. The latter fetches the first message, to see at once whether there is
    a body at all, and takes over again when the body is complete or the answer has started.
    """

    def __init__(self, receive: ASGIReceiveCallable, announced: int | None) -> None:
        self.announced = announced
        """Content-Length in bytes, or None if the client did not tell."""
        self.received = 0
        """Bytes handed out."""
        self.cut = False
        """Whether the client left before the end."""
        self.detached = False
        """Whether the handler lives on when its client leaves, because it must not stop half way."""
        self._receive = receive
        self._arrived = 0
        self._first = b""
        self._first_arrived = trio.Event()
        self._over = trio.Event()  # nothing more will come: complete or cut
        self._released = trio.Event()  # over, or nobody will ask any more
        self._told_quart = False

    async def receive(self) -> ASGIReceiveEvent:
        """Be the `receive` of Quart: an empty body, and later that the client has left."""
        if not self._told_quart:
            self._told_quart = True
            return {"type": "http.request", "body": b"", "more_body": False}
        self._first = self._take(await self._receive())
        self._first_arrived.set()
        await self._released.wait()
        while not self._over.is_set():
            self._take(await self._receive())
        while not self.cut and (await self._receive())["type"] == "http.request":
            pass  # the end of a body that was complete before
        if self.detached:
            await trio.sleep_forever()
        return {"type": "http.disconnect"}

    async def piece(self) -> bytes:
        """Return the next bytes, b"" after the last. Raises ProtocolError if the client has left."""
        if not self._first_arrived.is_set():  # to wait for what is there would cost a turn of the event loop
            await self._first_arrived.wait()
        piece, self._first = self._first, b""
        while not piece and not self._over.is_set():
            assert not self._released.is_set(), "body read after the answer has started"
            piece = self._take(await self._receive())
        if not piece and self.cut:
            raise ProtocolError(f"request body: cut after {self.received} bytes")
        self.received += len(piece)
        return piece

    def release(self) -> None:
        """Say that nobody will ask any more: from now on, what still comes is thrown away."""
        self._released.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self._over.is_set()

    async def wait_over(self) -> None:
        """Wait until nothing more can come."""
        await self._over.wait()

    def _take(self, message: ASGIReceiveEvent) -> bytes:
        if message["type"] != "http.request":
            self.cut = True
            self._end()
            return b""
        body = message.get("body", b"")
        self._arrived += len(body)
        if not message.get("more_body", False) or self._arrived == self.announced:
            self._end()
        return body

    def _end(self) -> None:
        self._over.set()
        self._released.set()


@frozen
class Block:
    """A part of a body, `data[:size]`; valid until the next block is asked for."""

    data: bytearray
    """At least `size` + SPARE_BYTES long; what stands from `size` on has no meaning."""
    size: int
    """Bytes; 0 only in a last block."""
    last: bool
    """Whether the body ends here."""


class BodyBlocks(AsyncIterator[Block]):
    """A body as blocks of `block_bytes`, copied once, into one buffer that is used again and again.

    A block ends anywhere. What its reader cannot use yet, such as half a line, goes back with
    `keep`, and the next block begins with it. A complete body ends with exactly one last block; of
    a body that is cut, all that came is handed out before the error.

    Raises HttpError: 413 beyond `limit_bytes`, at once if the client has announced it; 408 after
    `idle_limit` seconds without a byte. Raises ProtocolError if the client leaves in the middle.
    """

    def __init__(
        self,
        body: RequestBody,
        *,
        limit_bytes: int,
        block_bytes: int = BLOCK_BYTES,
        idle_limit: float = IDLE_LIMIT,
    ) -> None:
        self._body = body
        self._limit_bytes = limit_bytes
        self._idle_limit = idle_limit
        self._check_limit(body.announced or 0)
        self._capacity = block_bytes if body.announced is None else max(1, min(block_bytes, body.announced))
        self._buffer = bytearray(self._capacity + SPARE_BYTES)
        self._filled = 0  # bytes of the buffer in use
        self._kept = 0  # of these, bytes that an earlier block has shown already
        self._pending = memoryview(b"")  # the part of a piece that did not fit
        self._ended = False  # the last block was handed out

    def __aiter__(self) -> "BodyBlocks":
        return self

    def keep(self, count: int) -> None:
        """Give back the last `count` bytes of the block in hand; of a last block, they are lost.

        The buffer grows if little room is left beside them; it is for the reader to refuse a line
        that has no end.
        """
        assert 0 <= count <= self._filled
        buffer = self._buffer
        if 2 * count > self._capacity:
            self._capacity = 4 * count
            buffer = bytearray(self._capacity + SPARE_BYTES)
        buffer[:count] = self._buffer[self._filled - count : self._filled]
        self._buffer = buffer
        self._kept = count

    async def __anext__(self) -> Block:
        if self._ended:
            raise StopAsyncIteration
        self._filled = self._kept
        while self._fits():
            fresh = self._filled > self._kept
            try:
                with trio.move_on_after(FLUSH_AFTER if fresh else self._idle_limit) as wait:
                    self._pending = memoryview(await self._body.piece())
            except ProtocolError:
                if fresh:
                    break  # asked again, the body raises again
                raise
            if wait.cancelled_caught:
                if fresh:
                    break
                raise HttpError(408, f"request body: nothing came for {self._idle_limit:g} s")
            self._check_limit(self._body.received)
            self._ended = not self._pending
        self._kept = 0
        return Block(self._buffer, self._filled, self._ended)

    def _fits(self) -> bool:
        """Copy what is pending; return whether there is room for more, and more to come."""
        size = min(len(self._pending), self._capacity - self._filled)
        self._buffer[self._filled : self._filled + size] = self._pending[:size]
        self._filled += size
        self._pending = self._pending[size:]
        return not self._pending and not self._ended

    def _check_limit(self, size: int) -> None:
        if size > self._limit_bytes:
            raise HttpError(413, f"request body: too large (got {size} bytes, limit {self._limit_bytes})")
