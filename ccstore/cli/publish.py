"""How a simulated site reaches a store: over HTTP as collectors do, or over NATS.

Owns the connections of a sender and the exact count of what became of its messages. Knows nothing of
what is in them. Invariant: once a publisher is closed, every message that was taken is counted once as
acknowledged, refused or lost, so that the count can be held against the server's own.

Over HTTP a message is tried like a collector tries it: three times if the connection fails, with
growing pauses, and never again once there was an answer, whatever it says. Over NATS nobody
acknowledges a message; it counts as acknowledged when the broker has answered a ping sent behind it.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

import attrs
import httpx
import trio
from attrs import Factory, define

from ccstore.cli.site import Message
from ccstore.config import NatsConfig
from ccstore.config.keys import hide_userinfo
from ccstore.errors import ConfigError
from ccstore.server.nats import Client as NatsClient
from ccstore.server.nats import open_client

__all__ = ["Count", "Publisher", "Tally", "is_nats", "open_publisher"]

KIB = 1024
MIB = 1024 * KIB

PAUSES = (0.5, 1.0, 1.5)
"""Seconds after each failed try; so there are three tries."""
TIMEOUT = 5.0
"""Seconds for a try."""
GRACE = 5.0
"""Seconds for what is under way when a publisher is closed."""


@define
class Count:
    """How much."""

    messages: int = 0
    lines: int = 0
    bytes: int = 0

    def add(self, other: "Count") -> None:
        """Count some more."""
        self.messages += other.messages
        self.lines += other.lines
        self.bytes += other.bytes

    def remove(self, other: "Count") -> None:
        """Take something back."""
        self.messages -= other.messages
        self.lines -= other.lines
        self.bytes -= other.bytes


@define(eq=False)
class Tally:
    """What became of all messages; `sent` is the sum of the others and of what is under way."""

    sent: Count = Factory(Count)
    acknowledged: Count = Factory(Count)
    refused: Count = Factory(Count)
    """Answered, but not with 200; the server may have stored some of the lines."""
    lost: Count = Factory(Count)
    """Without an answer; the server may have stored them or not."""
    retries: int = 0
    """Tries beyond the first ones; a server may have got such a message more than once."""
    last_error: str = ""

    @property
    def under_way(self) -> Count:
        """Taken, and nothing more is known."""
        left = attrs.evolve(self.sent)
        for known in (self.acknowledged, self.refused, self.lost):
            left.remove(known)
        return left

    @property
    def failed(self) -> int:
        """Messages that were refused or lost."""
        return self.refused.messages + self.lost.messages


class Publisher(Protocol):
    """Where messages go."""

    tally: Tally
    where: str
    """The address, without what is secret in it."""
    most_bytes: int
    """The size up to which messages may well be put together."""

    @property
    def state(self) -> str:
        """In a word or two, what keeps it from sending; empty if nothing does."""

    async def publish(self, message: Message) -> None:
        """Take a message; wait while as many are under way as may be. Cancelled, it was not taken."""

    async def settle(self) -> None:
        """Wait until it is known of every message what became of it."""


def is_nats(url: str) -> bool:
    """Return whether `url` is that of a NATS server."""
    return urlsplit(url).scheme in ("nats", "tls")


@asynccontextmanager
async def open_publisher(
    url: str, *, connections: int = 4, token: str = "", subject: str = "", creds: str = ""
) -> AsyncIterator[Publisher]:
    """Open a publisher to an HTTP or a NATS server; the end waits a few seconds for what is under way.

    Over HTTP up to `connections` messages are under way at a time, so the order of two of them is open
    until `settle`; over NATS they stay in order. `token` is for HTTP, `subject` and `creds` are for NATS.
    Opening waits for no server. Raises ConfigError for a url, a file or a token that cannot be used.
    """
    publishing: AbstractAsyncContextManager[Publisher] = (
        _open_nats(NatsConfig(address=url, creds_file_path=creds), subject)
        if is_nats(url)
        else _open_http(url, connections, token)
    )
    async with publishing as publisher:
        yield publisher
    tally = publisher.tally
    tally.lost.add(tally.under_way)


def _count(message: Message) -> Count:
    return Count(1, message.lines, len(message.payload))


@define(eq=False)
class _HttpPublisher:
    """Messages on their way to a few tasks with a connection each; none waits in between."""

    client: httpx.AsyncClient
    url: httpx.URL
    where: str
    messages: trio.MemorySendChannel[Message]
    tally: Tally = Factory(Tally)
    most_bytes: int = 4 * MIB
    _settled: trio.lowlevel.ParkingLot = Factory(trio.lowlevel.ParkingLot)

    @property
    def state(self) -> str:
        return ""

    async def publish(self, message: Message) -> None:
        self.tally.sent.add(_count(message))
        try:
            await self.messages.send(message)
        except BaseException:  # cancelled, or too large: not taken
            self.tally.sent.remove(_count(message))
            raise

    async def settle(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.tally.under_way.messages:
            await self._settled.park()

    async def send_all(self, messages: trio.MemoryReceiveChannel[Message]) -> None:
        """Send one message after the other until there are no more."""
        with messages:
            async for message in messages:
                fate = await self._send(message)
                fate.add(_count(message))
                self._settled.unpark_all()

    async def _send(self, message: Message) -> Count:
        """Send one message, and return where to count it."""
        for number, pause in enumerate(PAUSES):
            self.tally.retries += number > 0
            try:
                answer = await self.client.post(self.url, content=message.payload)
            except httpx.TransportError as error:
                self.tally.last_error = f"{self.where}: {str(error) or type(error).__name__}"
                # Also after the last try, so that a server that is down is not hammered with what comes next.
                await trio.sleep(pause)
                continue
            if answer.status_code == httpx.codes.OK:
                return self.tally.acknowledged
            self.tally.last_error = f"{self.where}: {answer.status_code} {_said(answer)}"
            return self.tally.refused
        return self.tally.lost


def _said(answer: httpx.Response) -> str:
    """Return what a server says of a message that it refuses, on one line."""
    return " ".join(answer.text.split())[:200] or answer.reason_phrase


def _parse_url(url: str) -> httpx.URL:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"--to: not an address ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ConfigError(
            f"--to: not an address (got {hide_userinfo(url)!r}, wanted http://HOST:PORT or nats://HOST:PORT)"
        )
    return parts


@asynccontextmanager
async def _open_http(url: str, connections: int, token: str) -> AsyncIterator[_HttpPublisher]:
    parts = _parse_url(url)
    if not (token.isascii() and token.isprintable()):
        raise ConfigError("--token: not a token (wanted printable ASCII characters)")
    target = parts if parts.path.strip("/") else parts.copy_with(path="/api/write")
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if target.scheme == "https":
        tls.load_default_certs()  # what this machine trusts; takes long enough to be left out otherwise
    async with httpx.AsyncClient(
        headers=headers,
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=connections, keepalive_expiry=None),
        verify=tls,
        trust_env=False,  # a proxy for the world outside is not meant for the store next door
    ) as client:
        sender, receiver = trio.open_memory_channel[Message](0)
        publisher = _HttpPublisher(client, target, f"{target.scheme}://{target.netloc.decode()}", sender)
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(publisher.send_all, receiver.clone())
            receiver.close()
            with sender:
                yield publisher
            nursery.cancel_scope.deadline = trio.current_time() + GRACE


@define(eq=False)
class _NatsPublisher:
    """Messages in the queue of a NATS client."""

    client: NatsClient
    where: str
    subject: str
    tally: Tally = Factory(Tally)
    most_bytes: int = 768 * KIB
    """Servers refuse more than 1 MiB, unless told otherwise."""

    @property
    def state(self) -> str:
        return "" if self.client.statistics.is_connected else self.client.statistics.state

    async def publish(self, message: Message) -> None:
        self.tally.sent.add(_count(message))
        try:
            await self.client.publish(self.subject, message.payload)
        except BaseException:  # cancelled, or too large: not taken
            self.tally.sent.remove(_count(message))
            raise

    async def settle(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.tally.under_way.messages:
            return
        fate = self.tally.acknowledged
        try:
            await self.client.flush()
        except trio.BrokenResourceError as error:
            self.tally.last_error = f"{self.where}: {error}"
            fate = self.tally.lost
        fate.add(self.tally.under_way)


@asynccontextmanager
async def _open_nats(config: NatsConfig, subject: str) -> AsyncIterator[_NatsPublisher]:
    async with open_client(config) as client:
        publisher = _NatsPublisher(client, hide_userinfo(config.address), subject)
        yield publisher
        with trio.move_on_after(GRACE):
            await publisher.settle()
