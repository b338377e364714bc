"""One connection to one NATS server, from the first byte to the last.

Owns a transport, the protocol state that goes with it and the segment being read into. Knows
nothing of other servers, of reconnecting or of who takes the messages. Invariant: whoever holds a
`Link` may close it at any time, and nothing of it is left; until `open_link` returns, it is
closed by `open_link` itself, whatever happens.

Our files (creds, seed, certificates) are read anew for each connection, so that rotating them
needs no restart.
"""

import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
from attrs import define, field

from ccstore import __version__
from ccstore.config import NatsConfig, NatsTlsConfig
from ccstore.errors import ConfigError, ProtocolError
from ccstore.server.nats_backlog import Segment, SegmentPool
from ccstore.server.nats_socket import Buffer, TlsTransport, Transport, open_tcp
from ccstore.wire.nats import PONG, Connection, Info, Ping, Pong, Received, Refusal
from ccstore.wire.nats_auth import Address, Credentials, decode_creds, decode_seed, parse_addresses

__all__ = ["Link", "LinkLostError", "check", "load_addresses", "open_link"]

CLIENT_NAME = "ccstore"
LEAST_READ = 16  # a segment is left when less than this part of it is free
QUEUE_BYTES = 1024 * 1024  # enough for a few large payloads in one call to the kernel
QUEUE_PARTS = 1024  # bounds the time between two turns of the event loop when payloads are tiny


class LinkLostError(Exception):
    """The server ended the connection, or it is of no more use."""


@define(eq=False)
class Link:
    """An open connection, what is being received on it and what is queued to be sent.

    One task calls `receive`, another `write`. Full means that `QUEUE_BYTES` or `QUEUE_PARTS` wait
    to be sent: publishers then wait for room. Our own few commands are never refused.
    """

    address: Address
    transport: Transport
    pool: SegmentPool
    protocol: Connection = field(factory=Connection)
    segment: Segment = field(init=False)
    """What is being read into."""
    heard: float = field(factory=trio.current_time)
    """When the server was heard last."""
    refusal: str = ""
    """The server's latest ``-ERR``; mostly the reason why it then closes the connection."""
    is_lost: bool = False
    is_sending: bool = False
    """Whether a send has begun and not ended; cancelled there, it leaves half a command behind."""
    _start: int = 0
    _stop: int = 0
    _wanted: int = 0
    _queue: list[Buffer] = field(factory=list)
    _queued_bytes: int = 0
    _news: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _room: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _pongs: deque[trio.Event] = field(factory=deque)

    def __attrs_post_init__(self) -> None:
        self.segment = self.pool.take()

    @property
    def info(self) -> Info:
        """The server's latest INFO."""
        assert self.protocol.info is not None
        return self.protocol.info

    @property
    def is_empty(self) -> bool:
        """Whether everything that was read has been decoded."""
        return self._start == self._stop

    @property
    def is_full(self) -> bool:
        """Whether publishers must wait."""
        return self._queued_bytes >= QUEUE_BYTES or len(self._queue) >= QUEUE_PARTS

    async def receive(self) -> Received:
        """Wait for bytes, decode what is complete, answer PING and note PONG.

        Raises OSError, ProtocolError, or LinkLostError at the end of the stream.
        """
        self._make_room()
        count = await self.transport.receive_into(self.segment.view[self._stop : self.segment.capacity])
        if not count:
            raise LinkLostError("closed by the server")
        self.heard = trio.current_time()
        self._stop += count
        received = self.protocol.receive(self.segment.view, self._start, self._stop)
        self._start, self._wanted = received.stop, received.wanted_bytes
        for event in received.events:
            # One PONG answers all PINGs before it, so a flood of them cannot make the queue grow.
            if isinstance(event, Ping) and not (self._queue and self._queue[-1] is PONG):
                self.post(PONG)
            elif isinstance(event, Pong):
                self._pongs.popleft().set()
        return received

    def post(self, *parts: Buffer) -> None:
        """Queue `parts`, which are whole commands, to be sent in order."""
        self._queue += parts
        self._queued_bytes += sum(map(len, parts))
        self._news.unpark()

    def ping(self) -> trio.Event:
        """Queue a PING; return the event of its PONG, which is also set when the link is lost."""
        self.post(self.protocol.ping())
        self._pongs.append(trio.Event())
        return self._pongs[-1]

    async def wait_room(self) -> None:
        """Wait until the queue is taken to be sent, or the link is lost."""
        await self._room.park()

    async def write(self) -> None:
        """Send what is queued, for ever. Raises OSError."""
        while True:
            while not self._queue:
                await self._news.park()
            await self.send_queue()

    async def send_queue(self) -> None:
        """Send what is queued now; one task at a time. Raises OSError."""
        parts, self._queue, self._queued_bytes = self._queue, [], 0
        self._room.unpark_all()
        self.is_sending = True
        await self.transport.send(parts)
        self.is_sending = False  # not in a finally: after a failure or a cancel it stays true

    def close(self) -> None:
        """Close the socket and wake everybody who waits for something."""
        self.is_lost = True
        self.transport.close()
        self._room.unpark_all()
        while self._pongs:
            self._pongs.popleft().set()

    def _make_room(self) -> None:
        """Go on in another segment if this one is nearly full, taking the incomplete rest along."""
        old, size = self.segment, self._stop - self._start
        if self._wanted:
            is_roomy = self._start + self._wanted <= old.capacity
        else:
            is_roomy = old.capacity - self._stop >= old.capacity // LEAST_READ
        if is_roomy:
            return
        if old.is_used or old.capacity != max(self._wanted, self.pool.segment_bytes):
            self.segment = self.pool.take(self._wanted)
        self.segment.view[:size] = old.view[self._start : self._stop]
        self._start, self._stop = 0, size


def check(config: NatsConfig) -> None:
    """Read everything that `config` names; blocking. Raises ConfigError with every mistake."""
    problems: list[str] = []
    reads: list[Callable[[], object]] = [partial(load_addresses, config), partial(load_credentials, config)]
    if config.tls != NatsTlsConfig():
        reads.append(partial(make_tls_context, config.tls))
    for read in reads:
        try:
            read()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def load_addresses(config: NatsConfig) -> tuple[Address, ...]:
    """Return the configured servers. Raises ConfigError."""
    if not config.address:
        raise ConfigError("nats.address: missing (wanted nats://host:port)")
    try:
        return parse_addresses(config.address)
    except ConfigError as error:
        raise ConfigError([f"nats.address: {problem}" for problem in error.problems]) from error


def load_credentials(config: NatsConfig) -> Credentials:
    """Read creds and seed; blocking. Raises ConfigError."""
    jwt, seed = "", b""
    key, path = "creds-file-path", config.creds_file_path
    try:
        if path:
            jwt, seed = decode_creds(Path(path).read_text())
        elif config.nkey_seed_file:
            key, path = "nkey-seed-file", config.nkey_seed_file
            seed = decode_seed(Path(path).read_text())
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(f"nats.{key}: {path}: {error}") from error
    return Credentials(config.username, config.password, config.token, jwt, seed)


def make_tls_context(config: NatsTlsConfig) -> ssl.SSLContext:
    """Return a context that checks certificate and name of a server; blocking. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except OSError as error:
        raise ConfigError(
            f"nats.tls: {error} (got ca-file {config.ca_file!r}, cert-file {config.cert_file!r}, "
            f"key-file {config.key_file!r})"
        ) from error
    return context


async def open_link(address: Address, config: NatsConfig, pool: SegmentPool) -> Link:
    """Connect to `address` and sign in, in at most ``config.connect_timeout`` seconds.

    Raises OSError, ProtocolError, LinkLostError, ConfigError or trio.TooSlowError.
    """
    with trio.fail_after(config.connect_timeout):
        credentials = await _load_credentials(config)
        link = Link(address, await open_tcp(address.host, address.port), pool)
        try:
            if config.tls.first:
                await _start_tls(link, config.tls)
            await _await_info(link)
            if not config.tls.first and _wants_tls(link, config.tls):
                await _start_tls(link, config.tls)
            await _sign_in(link, credentials)
        except BaseException:
            link.close()
            raise
    return link


async def _load_credentials(config: NatsConfig) -> Credentials:
    if config.creds_file_path or config.nkey_seed_file:
        return await trio.to_thread.run_sync(load_credentials, config, abandon_on_cancel=True)
    return load_credentials(config)


async def _await_info(link: Link) -> None:
    while link.protocol.info is None:
        received = await link.receive()
        _raise_refusal(received)
    if len(received.events) > 1 or not link.is_empty:
        # Whatever follows in clear could be slipped in by somebody between us and the server.
        raise ProtocolError("nats: server goes on after INFO without waiting for CONNECT")


def _wants_tls(link: Link, config: NatsTlsConfig) -> bool:
    is_asked_for = link.address.tls or config != NatsTlsConfig()
    if is_asked_for and not (link.info.tls_required or link.info.tls_available):
        raise LinkLostError("server offers no TLS, and the configuration asks for it")
    return is_asked_for or link.info.tls_required


async def _start_tls(link: Link, config: NatsTlsConfig) -> None:
    context = await trio.to_thread.run_sync(make_tls_context, config, abandon_on_cancel=True)
    tls = TlsTransport(link.transport, context, link.address.tls_name or link.address.host)
    link.transport = tls
    await tls.handshake()


async def _sign_in(link: Link, credentials: Credentials) -> None:
    link.post(link.protocol.connect(credentials, link.address, name=CLIENT_NAME, version=__version__))
    pong = link.ping()
    while not pong.is_set():
        await link.send_queue()
        _raise_refusal(await link.receive())


def _raise_refusal(received: Received) -> None:
    for event in received.events:
        if isinstance(event, Refusal):
            raise LinkLostError(event.text)
