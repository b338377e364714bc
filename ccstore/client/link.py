"""One subscription of a program: a websocket that is opened again whenever it is lost.

Owns one connection at a time. What messages mean is known by those that inherit from it. Invariant: whoever
takes all that `__anext__` returns misses nothing, for each connection begins where the last one broke off.
"""

import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

import orjson
import trio
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from ccstore.client.errors import ServerError
from ccstore.client.nursery import open_plain_nursery

__all__ = ["Subscription"]

T = TypeVar("T")

MIB = 1024 * 1024

_SILENCE = 45.0
"""Seconds without a message, heartbeats included, after which a connection counts as lost."""
_CONNECT = 10.0
"""Seconds for a connection and its handshake."""
_PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Seconds to wait before each further attempt to connect; the last holds for all that follow."""
_FINAL = frozenset({400, 401, 403, 404, 426, 500})
"""Refusals that another attempt would meet again."""
_TOKEN_EXPIRED = 1008
_NAME = "s"
_UNAVAILABLE = 503


class Subscription(ABC, Generic[T]):
    """What a program is told, one after the other.

    Raises ServerError when the store refuses it or its token, or shows a certificate that is not trusted; a
    store that cannot be reached, or cannot answer now, is asked again for ever.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        verify: ssl.SSLContext | None,
        nursery: trio.Nursery,
        wanted: Mapping[str, Any],
    ) -> None:
        self.reconnects = 0
        """Connections after the first."""
        self._url, self._headers, self._verify = f"{url}/api/stream", headers, verify
        self._nursery = nursery
        self._wanted = wanted
        self._token = ""
        self._is_over = False
        self._connection = trio.CancelScope()
        self._socket: WebSocketConnection | None = None
        self._attempts = 0

    @abstractmethod
    def _take(self, message: Mapping[str, Any]) -> T | None:
        """Take a message; return what it completes."""

    def _take_binary(self, frame: bytes) -> T | None:
        """Take a binary message in the same way. Raises ServerError."""
        raise ServerError(f"{self._url}: {len(frame)} bytes (wanted text)")

    def _drop_pending(self) -> None:
        """Forget what a lost connection left unfinished."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._is_over:
            socket = self._socket or await self._connect()
            try:
                update = await self._receive(socket)
            except ConnectionClosed as closed:
                self._lose(closed.reason)
            except trio.TooSlowError:
                self._lose(None)
            else:
                if update is not None:
                    return update
        self._hang_up()
        raise StopAsyncIteration

    # --- the connection

    async def _connect(self) -> WebSocketConnection:
        """Connect and subscribe, as often as it takes. Raises ServerError if the server does not want us."""
        while True:
            self._hang_up()
            await trio.sleep(_PAUSES[min(self._attempts, len(_PAUSES) - 1)])
            self._attempts += 1
            try:
                with trio.fail_after(_CONNECT):
                    socket, self._connection = await self._nursery.start(self._hold)
                    resume = {"resume": self._token} if self._token else {}
                    wanted = {"op": "subscribe", "id": _NAME, **self._wanted, **resume}
                    await socket.send_message(orjson.dumps(wanted).decode())
            except ConnectionRejected as refusal:
                if refusal.status_code in _FINAL:
                    raise _refused(self._url, refusal) from refusal
            except trio.BrokenResourceError as error:
                if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                    raise ServerError(f"{self._url}: {error.__cause__}") from error
            except (OSError, HandshakeError, ConnectionClosed, trio.TooSlowError):
                pass  # there may be a server in a while
            else:
                self._socket = socket
                return self._socket

    def _hang_up(self) -> None:
        """Close the connection, if there is one."""
        self._socket = None
        self._drop_pending()
        self._connection.cancel()

    async def _hold(
        self, *, task_status: trio.TaskStatus[tuple[WebSocketConnection, trio.CancelScope]]
    ) -> None:
        """Open a connection, and close it when it is cancelled.

        In a nursery of its own, for trio-websocket ends the nursery of a connection that is refused; with a
        transport of our own, for it leaves that open where the server closes first.
        """
        url = urlsplit(self._url)
        is_tls, host = url.scheme == "https", url.hostname or ""
        plain = await trio.open_tcp_stream(host, url.port or (443 if is_tls else 80))
        transport: trio.SocketStream | trio.SSLStream[trio.SocketStream] = plain
        try:
            if is_tls:
                context = self._verify or ssl.create_default_context()
                secure = trio.SSLStream(plain, context, server_hostname=host, https_compatible=True)
                await secure.do_handshake()  # here, or trio-websocket keeps to itself what is wrong
                transport = secure
            async with open_plain_nursery() as nursery:
                socket = await wrap_client_stream(
                    nursery,
                    transport,
                    url.netloc.rpartition("@")[2],
                    url.path,
                    extra_headers=[(name.encode(), value.encode()) for name, value in self._headers.items()],
                    max_message_size=256 * MIB,
                )
                task_status.started((socket, nursery.cancel_scope))
                await trio.sleep_forever()
        finally:
            await trio.aclose_forcefully(plain)

    def _lose(self, reason: CloseReason | None) -> None:
        """Forget a connection; raise ServerError if there is no use in another one."""
        self._hang_up()
        self.reconnects += 1
        if reason is not None and reason.code == _TOKEN_EXPIRED:
            raise ServerError(f"{self._url}: {reason.reason or 'closed'}", status=401)

    async def _receive(self, socket: WebSocketConnection) -> T | None:
        """Wait for a message and take it."""
        with trio.fail_after(_SILENCE):
            frame = await socket.get_message()
        if isinstance(frame, bytes):
            return self._take_binary(frame)
        message = orjson.loads(frame)
        if message["op"] != "error":
            self._attempts = 0
            return self._take(message)
        if message["status"] == _UNAVAILABLE:
            self._lose(None)
            return None
        raise ServerError(f"{self._url}: {message['status']} {message['error']}", status=message["status"])


def _refused(url: str, refusal: ConnectionRejected) -> ServerError:
    try:
        text = orjson.loads(refusal.body or b"")["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = "refused"
    return ServerError(f"{url}: {refusal.status_code} {text}", status=refusal.status_code)
