"""Between Hypercorn and Quart-Trio: where each of the two needs a hand with the other.

Owns the ASGI messages of a request or a websocket, in both directions. Never looks at paths,
roles or contents. Invariant: what a client does ends its own connection at most, and every
connection ends: when its client is done, when the server stops, or when nothing moves any more.

What is cured here, each with a test that fails without it:

* At the end of an answer Hypercorn tells Quart that the client has left, and Quart cancels its
  task. This task is the one that is just closing or recycling the connection: it leaks.
* An answer given before the whole body has come closes the connection with bytes unread; TCP
  then resets it, and the client sees an error where it should see, say, status 413.
* Quart queues request bodies without a bound; see `ccstore.server.body`.
* A websocket handler is not told that the server stops; its client sees an abnormal closure.
* Quart from 0.23 on raises in a handler whose client has left, and logs that as an error.
* Sends to a client that has left do not wait, so a handler that only sends never yields.
* A Ctrl-C that hits a handler is logged and forgotten.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NoReturn, cast

import quart.wrappers.base
import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseBodyEvent,
)
from quart import has_websocket_context, request, websocket
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection

from ccstore.server.body import RequestBody
from ccstore.server.hosting import ABORT, FRAMES, Websocket
from ccstore.server.traffic import LEFT, OTHER, Traffic

__all__ = [
    "BELOW",
    "App",
    "ClientLeft",
    "connection_abort",
    "is_accepted",
    "note_bug",
    "request_body",
    "websocket_frames",
]

LINGER = 5.0
"""Seconds for which the end of an early answer waits for the end of the body."""

END_TIMEOUT = 20.0
"""Seconds for the end of an answer to be taken. Only HTTP/2 needs them, where Hypercorn does not
notice that a connection is gone while it waits for its client to open the window."""

ClientLeft: type[Exception] = getattr(quart.wrappers.base, "ClientDisconnectedError", trio.EndOfChannel)
"""What Quart raises in a handler whose client has left; Quart 0.22 cancels it instead."""

BELOW = "/<below:below>"
"""How the rule of a path with something below it ends."""

LARGE = 128 * 1024
"""Characters; a longer message to a websocket is not kept for others that may be the same."""

# Keys of ours in the ASGI scope, which lives as long as the request or the websocket.
BODY = "ccstore.body"
ACCEPTED = "ccstore.accepted"
BUG = "ccstore.bug"


class App(QuartTrio):
    """A Quart-Trio application whose connections are the ones of this module."""

    def __init__(self, name: str, *, stopping: trio.Event, traffic: Traffic) -> None:
        super().__init__(name, static_folder=None)
        self.traffic = traffic
        self.asgi_http_class = HTTPConnection
        self.asgi_websocket_class = WebsocketConnection
        self.stopping = stopping
        """Set when the server stops."""
        self._bug: BaseException | None = None
        self._failed = trio.Event()

    def fail(self, bug: BaseException) -> None:
        """Let `raise_bug` raise; the first bug is the one that counts."""
        self._bug = self._bug or bug
        self._failed.set()

    async def raise_bug(self) -> NoReturn:
        """Wait for a bug that the server must not survive, and raise it."""
        await self._failed.wait()
        assert self._bug is not None
        raise self._bug


class HTTPConnection(TrioASGIHTTPConnection):
    """One request and its answer."""

    app: App

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        scope = cast("dict[str, Any]", self.scope)
        body = scope[BODY] = RequestBody(receive, _content_length(self.scope["headers"]))
        began, status, traffic = trio.current_time(), LEFT, self.app.traffic

        async def send_message(message: ASGISendEvent) -> None:
            nonlocal status
            body.release()
            if message["type"] == "http.response.start":
                status = message["status"]
            if message["type"] != "http.response.body":
                await send(message)
            elif message.get("more_body", False):
                await send(message)
                await trio.lowlevel.checkpoint()  # once the client has left, Hypercorn makes none
            else:
                await self._send_end(message, body, send)

        request = self._create_request_from_scope(send_message)
        traffic.running += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.handle_messages, nursery, request, body.receive)
                await self.handle_request(nursery, request, send_message)
        except* ClientLeft:
            pass  # there is nobody to answer
        except* KeyboardInterrupt as ctrl_c:
            self.app.fail(ctrl_c)  # Hypercorn would log it and go on
        finally:
            traffic.running -= 1
            rule = request.url_rule.rule.removesuffix(BELOW) if request.url_rule else OTHER
            traffic.enter(rule, status, trio.current_time() - began)
            if BUG in scope:  # only now: its client has got its answer
                self.app.fail(scope[BUG])

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send a response, one that is in memory as a single message."""
        if not isinstance(response.response, DataBody):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.response.data, "more_body": False})

    async def _send_end(
        self, message: HTTPResponseBodyEvent, body: RequestBody, send: ASGISendCallable
    ) -> None:
        """Send the end of the answer, once the client has sent the end of its request."""
        if not body.is_over:
            with trio.move_on_after(LINGER):
                await body.wait_over()
        # From here on the news that the client has left is Hypercorn's way of saying that
        # the answer is complete: it must not reach Quart before Hypercorn is done with it.
        body.detached = True
        with trio.move_on_after(END_TIMEOUT):
            await send(message)


class WebsocketConnection(TrioASGIWebsocketConnection):
    """One websocket, closed with 1001 when the server stops."""

    app: App

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        scope = cast("dict[str, Any]", self.scope)
        closing = stopped = False

        async def receive_message() -> ASGIReceiveEvent:
            message = await receive()
            if message["type"] == "websocket.receive" and (text := message.get("text")):
                message["text"] = _shared(text) if len(text) < LARGE else text
            return message

        async def send_message(message: ASGISendEvent) -> None:
            nonlocal closing
            if stopped:
                await trio.sleep_forever()  # the handler is about to be cancelled
            scope[ACCEPTED] = scope.get(ACCEPTED, False) or message["type"] == "websocket.accept"
            closing = closing or message["type"] not in ("websocket.accept", "websocket.send")
            await send(message)
            await trio.lowlevel.checkpoint()  # once the client has left, Hypercorn makes none

        async def close_on_stop(handler: trio.CancelScope) -> None:
            nonlocal stopped
            await self.app.stopping.wait()
            stopped = True
            if not closing:
                await send({"type": "websocket.close", "code": 1001, "reason": "server stops"})
            handler.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(close_on_stop, nursery.cancel_scope)
                await super().__call__(receive_message, send_message)
                nursery.cancel_scope.cancel()
        except* KeyboardInterrupt as ctrl_c:
            self.app.fail(ctrl_c)  # as above


@lru_cache(maxsize=32)
def _shared(text: str) -> str:
    """Return one object for equal texts: many clients say the same, and Quart keeps what each said last."""
    return text


def request_body() -> RequestBody:
    """Return the body of the request in hand."""
    body: RequestBody = _scope()[BODY]
    return body


def note_bug(bug: Exception) -> None:
    """Let the server end with `bug` after the answer, if the handler must not stop half way."""
    if BODY in _scope() and request_body().detached:
        _scope()[BUG] = bug


def connection_abort() -> Callable[[], None]:
    """Return what closes the connection of the websocket in hand under whoever uses it, shielded or not."""
    abort: Callable[[], None] = _scope()["state"][ABORT]
    return abort


def websocket_frames() -> Websocket:
    """Return what sends frames that are encoded already over the websocket in hand, once it is accepted."""
    frames: Websocket = _scope()["state"][FRAMES]
    return frames


def is_accepted() -> bool:
    """Return whether the websocket in hand was accepted, so that only a close code is left to tell."""
    return bool(_scope().get(ACCEPTED))


def _scope() -> dict[str, Any]:
    return cast("dict[str, Any]", (websocket if has_websocket_context() else request).scope)


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return what the client announced; h11 and h2 have refused what is not a number."""
    return next((int(value) for name, value in headers if name == b"content-length"), None)
