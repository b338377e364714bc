"""How the server listens: Hypercorn's connections in a nursery of ours.

Owns the listening sockets from `serve` on, TLS, the accepted connections and the way they stop.
Never touches what is served: any ASGI application will do. Invariant: when `serve` returns, no
socket of it is open and no task of it is left, whatever its clients did or did not do.

Hypercorn speaks HTTP here, but its own loop, `hypercorn.trio.serve`, is not used. There an
exception in one connection ends the server, and a client provokes one by vanishing at the wrong
moment, by a path that is not ASCII, or by a late frame of HTTP/2. And its sends are shielded from
cancellation, so one client that never reads keeps the process from ending. Both cures need a hand
on each connection, which that loop does not give.
"""

import logging
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Data
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState, WebsocketAcceptEvent
from hypercorn.utils import repr_socket_addr
from wsproto.connection import ConnectionState as WebsocketState

from ccstore.errors import ConfigError
from ccstore.server.traffic import Traffic

__all__ = ["ABORT", "FRAMES", "Websocket", "serve", "tls_context"]

log = logging.getLogger("ccstore.http")

KIB = 1024
MIB = 1024 * KIB

READ_BYTES = 512 * KIB
"""Asked of the kernel at once; Hypercorn's 64 KiB cost four times the CPU a byte. It pays only with
`process.keep_freed_memory`: without, the C library maps and clears fresh pages for every read."""

UNSENT_BYTES = 256 * KIB
"""How much may wait in the kernel for a reader. Trio's 16 KiB suit chatter; a large answer would
take a turn of the event loop for each of them."""

ABORT = "ccstore.abort"
"""Key in the state of an ASGI scope: what closes the connection under whoever uses it."""
FRAMES = "ccstore.frames"
"""Key in the state of the ASGI scope of a websocket that is accepted: the `Websocket`."""
_SEND_NOWAIT = "ccstore.send_nowait"
"""Key in the state of an ASGI scope: `_Connection.send_nowait`."""

CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
"""For TLS 1.2; the suites of TLS 1.3 need no choice."""


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    *,
    stopping: trio.Event,
    tls: ssl.SSLContext | None = None,
    graceful_timeout: float = 3.0,
    keep_alive_timeout: float = 150.0,
    traffic: Traffic | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on listening `sockets` until `stopping` is set; `started` gets their URLs.

    Owns and closes `sockets`. Once `stopping` is set nothing is accepted, idle connections
    close at once and running requests get `graceful_timeout` seconds; after that, or when
    cancelled, sockets are closed under whoever uses them. `keep_alive_timeout`, in seconds, is how
    long a connection may be idle, or take to send a head: by default longer than two intervals
    of a collector that posts each minute. What goes over the connections is entered in `traffic`.
    """
    context = WorkerContext(max_requests=None)
    server = partial(
        _Connection,
        ASGIWrapper(app),
        _hypercorn_config(keep_alive_timeout),
        context,
        ConnectionState(LifespanState({})),
    )
    urls = [_url(sock, tls) for sock in sockets]
    live: set[_Transport] = set()
    counts = traffic or Traffic()
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = [_Listener(sock, live, counts) for sock in sockets]
    if tls is not None:
        listeners = [trio.SSLListener(listener, tls, https_compatible=True) for listener in listeners]
    async with trio.open_nursery() as guard:
        async with trio.open_nursery() as connections:
            guard.start_soon(_insist, stopping, graceful_timeout, live, connections.cancel_scope)
            async with trio.open_nursery() as accepting:
                await accepting.start(
                    partial(trio.serve_listeners, handler_nursery=connections),
                    partial(_serve_connection, server),
                    listeners,
                )
                task_status.started(urls)
                await stopping.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
        guard.cancel_scope.cancel()


def tls_context(cert_file: str, key_file: str) -> ssl.SSLContext:
    """Load certificate chain and key (PEM) for a server that speaks TLS 1.2 or newer.

    Raises ConfigError if they cannot be read, do not belong together, or the key is encrypted.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        # With an empty password an encrypted key is an error; with none, OpenSSL asks the terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"main.https-cert-file: cannot use {cert_file!r} with key {key_file!r}: {reason}"
        ) from error
    return context


class _Connection(TCPServer):
    """One connection; of Hypercorn but for the time that it may be idle, and for what is cheaper here.

    Hypercorn starts a task at the end of each request, which closes the connection if no other
    request follows, and which outlives a client that connects, asks nothing and leaves. Here one task
    looks after the whole life of the connection, and ends with it.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        stream: Any = self.stream
        transport: _Transport = getattr(stream, "transport_stream", stream)  # of TLS, or itself
        self._plain = transport if transport is stream else None
        """The connection, if it is not encrypted."""
        own = {ABORT: transport.abort, _SEND_NOWAIT: self.send_nowait}
        self.state = LifespanState({**self.state, **own})
        self._idle = trio.Event()
        self._idle.set()
        self._idle_since = trio.current_time()
        self._reading = trio.CancelScope()

    async def protocol_send(self, event: Event) -> None:
        """Take an event from the protocol."""
        match event:
            case Updated(idle=True):
                self._idle_since = trio.current_time()
                self._idle.set()
            case Updated():
                self._idle = trio.Event()
            case RawData(data=b""):
                pass  # the end of an answer whose length was announced
            case Closed():
                await super().protocol_send(event)
                # Hypercorn's reader may have begun to wait for the end of an answer that has ended.
                self._reading.cancel()
            case _:
                await super().protocol_send(event)

    def send_nowait(self, data: bytes) -> bool:
        """Send bytes, if none wait before them and the kernel takes some; a task sends the rest.

        Returns False if nothing is sent.
        """
        plain = self._plain
        if plain is None or self.send_lock.locked() or not plain.send_nowait(data):
            return False
        if plain.rest:
            self._task_group.spawn(super().protocol_send, RawData(b""))  # which goes behind the rest
        return True

    async def _idle_timeout(self) -> None:
        """Close the connection when it was idle for long, or is idle and the server stops."""
        timeout, stopped = self.config.keep_alive_timeout, self.context.terminated
        while not (self._idle.is_set() and (stopped.is_set() or self._idle_for() >= timeout)):
            if stopped.is_set():
                await self._idle.wait()
            else:
                with trio.move_on_after(timeout - self._idle_for()):
                    await stopped.wait()
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    def _idle_for(self) -> float:
        return trio.current_time() - self._idle_since if self._idle.is_set() else 0.0

    async def _read_data(self) -> None:
        """Hand on what comes; Hypercorn's own keeps each message until the next one, if there is one."""
        with self._reading, suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            while await self._read_some():
                pass
        if not self._reading.cancelled_caught:
            await self.protocol.handle(Closed())
        await self.idle_task.stop()  # nobody is left to wait for

    async def _read_some(self) -> bool:
        data = await self.stream.receive_some(READ_BYTES)
        await self.protocol.handle(RawData(bytes(data)))
        return bool(data)


class _Transport(trio.abc.Stream):
    """An accepted TCP connection: reads in larger pieces, and can be closed under its users.

    Not a HalfCloseableStream on purpose: Hypercorn would send an EOF just before it closes, and a
    send that runs into this EOF raises an error that nobody handles.
    """

    def __init__(self, stream: trio.SocketStream, live: "set[_Transport]", traffic: Traffic) -> None:
        self.socket = stream.socket
        self.rest = b""
        """What `send_nowait` has left over; it goes ahead of whatever is sent next."""
        self._stream = stream
        self._live = live
        self._traffic = traffic
        live.add(self)
        traffic.accepted += 1
        traffic.connections = len(live)
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.rest:
            await self._stream.send_all(self.rest)
            self.rest = b""
        await self._stream.send_all(data)
        self._traffic.sent_bytes += len(data)

    def send_nowait(self, data: bytes) -> bool:
        """Hand bytes to the kernel, while nobody else sends, and keep a rest; False if it takes none."""
        if self.rest:
            return False
        try:
            taken = os.write(self.socket.fileno(), data)
        except OSError:  # full, or gone: who waits until it takes them will learn which
            return False
        self.rest = data[taken:]
        self._traffic.sent_bytes += len(data)
        return True

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive more than `max_bytes` if there is more; SSLStream takes what comes."""
        data = await self._stream.receive_some(max(max_bytes or 0, READ_BYTES))
        self._traffic.received_bytes += len(data)
        return data

    async def aclose(self) -> None:
        self._live.discard(self)
        self._traffic.connections = len(self._live)
        await self._stream.aclose()

    def abort(self) -> None:
        """Close the socket; who waits for it gets trio.ClosedResourceError, shielded or not."""
        self.socket.close()


class _Listener(trio.abc.Listener[_Transport]):
    """A listening socket whose connections are `_Transport`s, kept in `live` until they close."""

    def __init__(self, sock: socket.socket, live: set[_Transport], traffic: Traffic) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._live = live
        self._traffic = traffic

    async def accept(self) -> _Transport:
        return _Transport(await self._listener.accept(), self._live, self._traffic)

    async def aclose(self) -> None:
        await self._listener.aclose()


class _StreamBuffer(h2.StreamBuffer):
    """What waits to be sent on a stream of HTTP/2, bounded also while its client takes nothing.

    Hypercorn's own lets the application go on after each attempt to send, even one that sends
    nothing, so the whole answer piles up in memory while the window is shut.
    """

    async def pop(self, max_length: int) -> bytes:
        if max_length == 0 and self.buffer:
            return b""
        return await super().pop(max_length)


class Websocket(WSStream):
    """A websocket that also takes frames that are encoded already, for these may be the same for many.

    Without compression, though browsers offer it. Each would take hundreds of kilobytes for its own state,
    and compress what is the same for all of them.
    """

    async def send_frames(self, frames: bytes) -> None:
        """Send whole frames of messages; nobody gets them once the websocket is being closed."""
        if self._is_open():
            await self.send(Data(stream_id=self.stream_id, data=frames))
        else:
            await trio.lowlevel.checkpoint()

    def send_nowait(self, frames: bytes) -> bool:
        """Send them at once, by no task; False if that cannot be: with HTTP/2, TLS or a full connection."""
        if self.handshake.http_version != "1.1" or not self._is_open():
            return False
        sent: bool = self.scope["state"][_SEND_NOWAIT](frames)
        return sent

    def _is_open(self) -> bool:
        return not self.closed and self.connection.state is WebsocketState.OPEN

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        self.handshake.extensions = None
        await super()._accept(message)
        self.scope["state"][FRAMES] = self


h2.StreamBuffer = _StreamBuffer  # type: ignore[misc]  # there is no other way to hand these over
h2.WSStream = Websocket  # type: ignore[attr-defined]
h11.WSStream = Websocket  # type: ignore[attr-defined]


async def _insist(
    stopping: trio.Event, graceful_timeout: float, live: set[_Transport], connections: trio.CancelScope
) -> None:
    """End the connections that a stop leaves over, also the ones that cannot be cancelled."""
    try:
        await stopping.wait()
        await trio.sleep(graceful_timeout)
    finally:
        # Hypercorn shields its sends, so cancelling alone would wait for clients that never read.
        for transport in tuple(live):
            transport.abort()
        connections.cancel()


async def _serve_connection(server: "partial[_Connection]", stream: trio.abc.Stream) -> None:
    """Run one connection; whatever its client provokes in the protocol libraries ends it alone.

    Exceptions of handlers do not come this way: Hypercorn has logged and answered them.
    """
    try:
        await server(stream)
    except* Exception as errors:
        fields = {"error": _leaves(errors)}
        log.warning("http: connection ended by %(error)s", fields, exc_info=log.isEnabledFor(logging.DEBUG))


def _leaves(errors: BaseException) -> str:
    if isinstance(errors, BaseExceptionGroup):
        return "; ".join(_leaves(error) for error in errors.exceptions)
    return repr(errors)


def _hypercorn_config(keep_alive_timeout: float) -> HypercornConfig:
    config = HypercornConfig()
    config.errorlog = log
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = keep_alive_timeout
    # Closing after the default of 1000 requests protects from nothing and races with the next one.
    config.keep_alive_max_requests = 1_000_000
    # The only buffer between a sender and a slow handler, in pieces of up to READ_BYTES.
    config.max_app_queue_size = 1
    config.websocket_max_message_size = MIB
    return config


def _url(sock: socket.socket, tls: ssl.SSLContext | None) -> str:
    return f"{'https' if tls else 'http'}://{repr_socket_addr(sock.family, sock.getsockname())}"
