"""A stream as a program sees it: updates one after the other, and what they add up to.

Owns one websocket at a time, opens another one when it is lost, and goes on where the lost one was.
Invariant: between two updates, `Stream.values` is what the query answered when the latest of them was made,
whatever became of connections meanwhile. Cancelling the wait for an update loses nothing.
"""

import math
import ssl
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import orjson
import trio
from numpy.typing import NDArray
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from ccstore.client.errors import ServerError
from ccstore.client.messages import Change, Data, Series, Update, decode_data
from ccstore.client.nursery import open_plain_nursery

__all__ = ["Stream"]

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


class Stream:
    """Values of a query from some time ago on, as long as one likes; made by `Client.stream`.

    ``async for update in stream`` waits for what is new. The first update holds what is stored. Raises
    ServerError when the store refuses the stream or its token, or shows a certificate that is not trusted;
    a store that cannot be reached is tried again for ever.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        verify: ssl.SSLContext | None,
        nursery: trio.Nursery,
        wanted: Mapping[str, Any],
    ) -> None:
        self.series: dict[int, Series] = {}
        """What values are told of, by index."""
        self.start = 0
        """Seconds since the epoch: what was before is forgotten."""
        self.reconnects = 0
        """Connections after the first."""
        self._url, self._headers, self._verify = f"{url}/api/stream", headers, verify
        self._nursery = nursery
        self._wanted = wanted
        self._values: dict[int, dict[int, float]] = {}
        self._token = ""
        self._connection = trio.CancelScope()
        self._socket: WebSocketConnection | None = None
        self._pending: list[Data] = []
        self._reset = False
        self._attempts = 0

    def values(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return times and values of a series, in the order of the times."""
        pairs = sorted(self._values.get(index, {}).items())
        return np.array([t for t, _ in pairs], np.int64), np.array([value for _, value in pairs], np.float64)

    def latest(self, index: int) -> tuple[int, float] | None:
        """Return time and value of the newest sample of a series, None if there is none."""
        values = self._values.get(index)
        return (newest := max(values), values[newest]) if values else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        while True:
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
        self._pending.clear()
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

    # --- what comes

    async def _receive(self, socket: WebSocketConnection) -> Update | None:
        """Wait for a message; return an update if it completes one."""
        with trio.fail_after(_SILENCE):
            frame = await socket.get_message()
        self._attempts = 0
        if isinstance(frame, bytes):
            self._pending.append(decode_data(frame))
            return self._complete() if self._pending[-1].token else None
        message = orjson.loads(frame)
        match message["op"]:
            case "series":
                self._describe(message)
            case "error":
                raise ServerError(
                    f"{self._url}: {message['status']} {message['error']}", status=message["status"]
                )
        return None

    def _describe(self, message: Mapping[str, Any]) -> None:
        if message["reset"]:
            self._reset = True
            self._token = ""  # what it stood for is forgotten
            self.series.clear()
            self._values.clear()
        for described in message["series"]:
            series = Series.of(described)
            self.series[series.index] = series

    def _complete(self) -> Update:
        """Take all messages that belong together."""
        changes = []
        for data in self._pending:
            for index, times, values in data.rows:
                changes.append(Change(self.series[index], times, values))
                known = self._values.setdefault(index, {})
                for time, value in zip(times.tolist(), values.tolist(), strict=True):
                    if math.isnan(value):
                        known.pop(time, None)
                    else:
                        known[time] = value
        last, reset = self._pending[-1], self._reset
        self._pending.clear()
        self._token, self._reset = last.token, False
        if last.start > self.start:
            self.start = last.start
            for known in self._values.values():
                for time in [time for time in known if time < last.start]:
                    del known[time]
        return Update(changes, last.start, reset)


def _refused(url: str, refusal: ConnectionRejected) -> ServerError:
    try:
        text = orjson.loads(refusal.body or b"")["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = "refused"
    return ServerError(f"{url}: {refusal.status_code} {text}", status=refusal.status_code)
