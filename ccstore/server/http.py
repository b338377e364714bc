"""The HTTP side of the server: an application to put routes into, and its life in our nursery.

Owns routing, what is checked before a handler runs, and what becomes of what it raises. Never
knows what a route does. Invariant: every request gets one answer, and every error answer is made
in `ccstore.server.answers`.

A handler is an async function without arguments that returns a Quart response. It reads its body
with `body_blocks` or `read_body`, never with Quart's own (see `ccstore.server.body`), and raises
what it has to refuse. Whatever else it raises is a bug of ours: logged, and answered with 500. In
a handler that only reads, the bug ends there, or one odd query could take the store from
everybody. In one that changes the store, a change may be half made: the process ends after the
answer, and recovers from its log.
"""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

import trio
from quart import Request, Response, has_websocket_context, request, websocket
from quart.typing import ResponseTypes
from werkzeug.routing import BaseConverter

from ccstore.server import asgi, hosting
from ccstore.server.answers import HttpError, answer_for, error_answer
from ccstore.server.auth import Authenticator, Permission
from ccstore.server.body import BLOCK_BYTES, BodyBlocks
from ccstore.server.traffic import Traffic

__all__ = ["App", "Handler", "body_blocks", "create_app", "read_body", "route", "serve"]

log = logging.getLogger("ccstore.http")

Handler = Callable[[], Awaitable[Response]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY_VIOLATION, INTERNAL_ERROR = 1008, 1011  # RFC 6455, 7.4.1


class App(asgi.App):
    """What `create_app` makes and `route` and `serve` take."""

    def __init__(
        self, authenticator: Authenticator, *, now: Callable[[], int], stopping: trio.Event, traffic: Traffic
    ) -> None:
        super().__init__("ccstore", stopping=stopping, traffic=traffic)
        self.authenticator = authenticator
        self.now = now

    async def handle_request(self, request: Request) -> ResponseTypes:
        """Answer a request, also one that Quart fails to take up, say for an impossible Host."""
        try:
            return await super().handle_request(request)
        except Exception as error:  # not of a handler, see `_answer_exception`
            return error_answer(400, f"request: not understood ({type(error).__name__})")


class _Below(BaseConverter):
    """The rest of a path, slashes and all, or nothing."""

    regex = ".*?"
    part_isolating = False


def create_app(
    authenticator: Authenticator,
    *,
    now: Callable[[], int],
    stopping: trio.Event,
    traffic: Traffic | None = None,
) -> App:
    """Make an application without routes. `now` tells the time in seconds since the epoch."""
    app = App(authenticator, now=now, stopping=stopping, traffic=traffic or Traffic())
    app.url_map.converters["below"] = _Below
    app.url_map.merge_slashes = False  # would answer a path with // by a redirect
    app.config["RESPONSE_TIMEOUT"] = None  # would cut long answers off
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.register_error_handler(Exception, _answer_exception)
    return app


def route(
    app: App,
    path: str,
    *,
    methods: Sequence[str],
    permission: Permission | None,
    changes_store: bool = False,
    exact: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a handler for `path`, for `path` with a slash, and unless `exact` for everything below that.

    HEAD comes with GET. Of a part of the path in angle brackets, `request.view_args` has what stands there.
    `permission` is what the client's token must permit, None if anybody may
    ask. A handler that changes the store is not cancelled when its client leaves, and a bug in it
    ends the process.
    """

    def decorate(handler: Handler) -> Handler:
        async def view(**_parts: object) -> Response:  # handlers find the parts of a path in the request
            if changes_store:
                asgi.request_body().detached = True
            if request.method not in SAFE_METHODS and request.headers.get("Sec-Fetch-Site") == "cross-site":
                raise HttpError(403, "request: sent by a page of another site")
            if permission is not None:
                app.authenticator.authenticate(request.headers, app.now()).require(permission)
            return await handler()

        endpoint = f"{' '.join(methods)} {path}"
        for rule in (path, path + ("/" if exact else asgi.BELOW)):
            app.add_url_rule(rule, endpoint, view, methods=list(methods))
        return handler

    return decorate


def body_blocks(*, limit_bytes: int, block_bytes: int = BLOCK_BYTES) -> BodyBlocks:
    """Read the body of the request in hand in large blocks; see `BodyBlocks`."""
    return BodyBlocks(asgi.request_body(), limit_bytes=limit_bytes, block_bytes=block_bytes)


async def read_body(*, limit_bytes: int) -> bytes:
    """Read the whole body of the request in hand; errors as in `BodyBlocks`."""
    blocks = body_blocks(limit_bytes=limit_bytes)
    return b"".join([bytes(block.data[: block.size]) async for block in blocks])


async def serve(
    app: App,
    sockets: Sequence[socket.socket],
    *,
    tls: ssl.SSLContext | None = None,
    graceful_timeout: float = 3.0,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until its `stopping` is set; see `hosting.serve`. `started` gets the URLs.

    Raises the bug of a handler that changes the store, once its client has got the answer.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.raise_bug)
        await hosting.serve(
            app,
            sockets,
            stopping=app.stopping,
            tls=tls,
            graceful_timeout=graceful_timeout,
            traffic=app.traffic,
            task_status=task_status,
        )
        nursery.cancel_scope.cancel()


async def _answer_exception(error: Exception) -> Response:
    """Turn what a handler raised into its answer; a websocket is closed with a code as well."""
    if isinstance(error, asgi.ClientLeft):
        return Response("")  # for nobody
    answer = answer_for(error)
    if answer is None:
        path = (websocket if has_websocket_context() else request).path
        log.error("bug in the handler of %(path)r", {"path": path}, exc_info=error)
        answer = error_answer(500, "internal error, see the server's log")
        asgi.note_bug(error)
    if has_websocket_context() and asgi.is_accepted():
        await websocket.close(INTERNAL_ERROR if answer.status_code >= 500 else POLICY_VIOLATION)
    return answer
