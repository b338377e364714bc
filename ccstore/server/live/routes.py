"""The route of the streams: the handshake, who may open one, and how one ends."""

from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import trio
from quart import Response, websocket

from ccstore.errors import BusyError
from ccstore.server import asgi
from ccstore.server.answers import HttpError
from ccstore.server.auth import Permission
from ccstore.server.http import App, route
from ccstore.server.live.lookup import find_followed
from ccstore.server.live.session import Session
from ccstore.server.metrics import encode_stats
from ccstore.server.services import Services

__all__ = ["PATH", "PROTOCOL", "add_routes"]

PATH = "/api/stream"
PROTOCOL = "ccstore.stream"
_SHOWN = "ccstore.token."
"""A browser cannot set headers: it shows its token as the name of a subprotocol that begins like this."""

MAX_CONNECTIONS = 10_000
_LAST_WORDS = 5.0
"""Seconds from the decision to close a connection to its end; nothing less cuts off a send of Hypercorn."""


def add_routes(app: App, services: Services) -> None:
    """Add the route to an application."""
    services.hub.numbers = partial(encode_stats, services)
    services.hub.find_job = partial(find_followed, services)
    stream = partial(_stream, app, services)
    for rule in (PATH, f"{PATH}/<below:below>"):
        app.add_websocket(rule, "stream", stream)
    route(app, PATH, methods=["GET"], permission=Permission.READ)(_want_websocket)


async def _want_websocket() -> Response:
    raise HttpError(426, "stream: wanted a websocket", headers={"Upgrade": "websocket"})


async def _stream(app: App, services: Services, below: str = "") -> None:  # noqa: ARG001 -- as in `route`
    headers = _headers_with_token()
    _refuse_other_sites()

    def check_token() -> None:
        app.authenticator.authenticate(headers, services.now()).require(Permission.READ)

    check_token()
    services.check_recovered()
    if services.hub.statistics.connections >= MAX_CONNECTIONS:
        raise BusyError(f"stream: {MAX_CONNECTIONS} connections already")
    await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in websocket.requested_subprotocols else None)
    frames = asgi.websocket_frames()
    session = Session(
        services.hub, services.now, frames.send_frames, frames.send_nowait, websocket.receive, check_token
    )
    try:
        async with trio.open_nursery() as nursery:
            session.at_end = partial(nursery.start_soon, _cut_off, asgi.connection_abort())
            if (closing := await session.run()) is not None:
                await websocket.close(closing.code, closing.reason)
            nursery.cancel_scope.cancel()
    except* asgi.ClientLeft:
        pass


async def _cut_off(abort: Callable[[], None]) -> None:
    """End the connection itself where the client takes neither what was under way nor the last words."""
    await trio.sleep(_LAST_WORDS)
    abort()


def _headers_with_token() -> Mapping[str, str]:
    tokens = [name for name in websocket.requested_subprotocols if name.startswith(_SHOWN)]
    if tokens:
        return {"X-Auth-Token": tokens[0].removeprefix(_SHOWN)}
    return {name: websocket.headers.get(name, "") for name in ("X-Auth-Token", "Authorization")}


def _refuse_other_sites() -> None:
    """Let no page of another site listen in with the network access of the one who looks at it."""
    origin = websocket.headers.get("Origin", "")
    if origin and urlsplit(origin).netloc != websocket.headers.get("Host", ""):
        raise HttpError(403, "request: sent by a page of another site")
