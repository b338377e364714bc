"""What tests of the NATS client need beside a real broker: a scripted server, and ways to wait."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio

from ccstore.config import NatsConfig
from ccstore.server.nats import Messages, NatsStatistics, Subscription, receive

Script = Callable[["FakePeer"], Awaitable[None]]
LOGGER = "ccstore.nats"


def info(**fields: Any) -> bytes:
    """Return an INFO."""
    return (
        b"INFO "
        + json.dumps({"server_id": "FAKE", "max_payload": 1 << 20, "headers": True} | fields).encode()
    )


class FakePeer:
    """The server's side of one connection, for a script to play."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._unread = b""

    async def send(self, *lines: bytes) -> None:
        """Send each line with its CRLF."""
        await self.stream.send_all(b"".join(line + b"\r\n" for line in lines))

    async def read_line(self) -> bytes:
        """Return the next line without its CRLF; empty at the end."""
        while b"\r\n" not in self._unread:
            chunk = await self.stream.receive_some()
            if not chunk:
                return b""
            self._unread += chunk
        line, self._unread = self._unread.split(b"\r\n", 1)
        return line

    async def greet(self, **fields: Any) -> dict[str, Any]:
        """Play the part up to the first PONG; return what CONNECT said."""
        await self.send(info(**fields))
        line = await self.read_line()
        if not line:
            raise trio.BrokenResourceError("the client left before it signed in")
        assert line.startswith(b"CONNECT ")
        assert await self.read_line() == b"PING"
        await self.send(b"PONG")
        return dict(json.loads(line[8:]))

    async def read_until(self, expected: bytes) -> list[bytes]:
        """Answer every PING and return the lines before `expected`, or all up to the end."""
        lines: list[bytes] = []
        while (line := await self.read_line()) not in (expected, b""):
            lines.append(line)
            if line == b"PING":
                await self.send(b"PONG")
        return lines

    async def serve(self) -> list[bytes]:
        """Answer every PING until the client leaves; return what else it sent."""
        return [line for line in await self.read_until(b"\0") if line != b"PING"]


class FakeServer:
    """Listens on loopback; the n-th connection gets the n-th script, the last one for all after."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.changed = trio.lowlevel.ParkingLot()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def wait_connections(self, count: int) -> None:
        while self.connections < count:
            await self.changed.park()


@asynccontextmanager
async def open_fake(*scripts: Script) -> AsyncIterator[FakeServer]:
    """Run scripted servers on one port while the context is open."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = FakeServer(listener.socket.getsockname()[1])

    async def handle(stream: trio.SocketStream) -> None:
        script = scripts[min(server.connections, len(scripts) - 1)]
        server.connections += 1
        server.changed.unpark_all()
        async with stream:
            with suppress(trio.BrokenResourceError):  # the client left in the middle of the script
                await script(FakePeer(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, [listener]))
        yield server
        nursery.cancel_scope.cancel()


class LogWatch(logging.Handler):
    """Lets a test wait for what the client logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []
        self._seen = 0
        self._changed = trio.lowlevel.ParkingLot()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))
        self._changed.unpark_all()

    async def wait(self, text: str) -> str:
        """Return the first line that holds `text`, after those returned before."""
        while True:
            while self._seen < len(self.lines):
                self._seen += 1
                if text in self.lines[self._seen - 1][1]:
                    return self.lines[self._seen - 1][1]
            await self._changed.park()

    def at(self, level: int) -> list[str]:
        return [line for number, line in self.lines if number == level]


class Collector:
    """A store that keeps everything, as slowly as the test wants."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.clusters: list[str] = []
        self.may_go_on = trio.Event()
        self.may_go_on.set()
        self.is_waiting = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    def pause(self) -> None:
        self.may_go_on = trio.Event()
        self.is_waiting = trio.Event()

    async def deliver(self, messages: Messages) -> None:
        self.is_waiting.set()
        await self.may_go_on.wait()
        self.messages += [(message.subject, bytes(message.payload)) for message in messages]
        self.clusters += [message.subscription.default_cluster for message in messages]
        self._changed.unpark_all()

    async def wait(self, count: int) -> list[bytes]:
        """Return the payloads once there are `count` of them."""
        while len(self.messages) < count:
            await self._changed.park()
        return self.payloads

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.messages]


class Receiver:
    """A running `receive` and what came of it."""

    def __init__(self, log: LogWatch) -> None:
        self.store = Collector()
        self.statistics = NatsStatistics()
        self.log = log
        self.intake = trio.CancelScope()


@asynccontextmanager
async def watch_log() -> AsyncIterator[LogWatch]:
    """Watch the client's log while the context is open."""
    watch, logger = LogWatch(), logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(watch)
    logger.setLevel(logging.DEBUG)
    try:
        yield watch
    finally:
        logger.removeHandler(watch)
        logger.setLevel(level)


@asynccontextmanager
async def open_receiver(
    config: NatsConfig, *subscriptions: Subscription | str, **options: Any
) -> AsyncIterator[Receiver]:
    """Run `receive` while the context is open, end it softly, and check that it did end."""
    wanted = [s if isinstance(s, Subscription) else Subscription(s) for s in subscriptions]
    async with watch_log() as log:
        receiver = Receiver(log)
        async with trio.open_nursery() as nursery:
            run = partial(
                receive, config, wanted, receiver.store.deliver, statistics=receiver.statistics, **options
            )
            receiver.intake = await nursery.start(lambda task_status: run(task_status=task_status))
            yield receiver
            receiver.store.may_go_on.set()
            receiver.intake.cancel()
        statistics = receiver.statistics
        assert statistics.state == "closed"
        assert (
            statistics.queued_messages,
            statistics.queued_bytes,
            statistics.held_bytes,
            statistics.oldest_queued,
        ) == (0, 0, 0, None)
        assert len(receiver.store.messages) + statistics.dropped_messages == statistics.messages
