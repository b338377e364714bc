"""Routes, checks before a handler, and what becomes of what it raises."""

import logging

import orjson
import pytest
import trio
from quart import Response
from serving import Answer, ask, connected, make_app, served

from ccstore.errors import (
    BusyError,
    ConfigError,
    CorruptionError,
    ProtocolError,
    QueryError,
)
from ccstore.server.answers import HttpError, error_answer, json_answer, text_answer
from ccstore.server.auth import AuthenticationError, Authenticator, ForbiddenError, Permission
from ccstore.server.http import App, read_body, route


async def say_hello() -> Response:
    return text_answer("hello\n")


@pytest.fixture
def app() -> App:
    app = make_app()
    route(app, "/api/x", methods=["GET", "POST"], permission=Permission.READ)(say_hello)
    return app


@pytest.mark.parametrize(
    "target", ["/api/x", "/api/x/", "/api/x/a", "/api/x/a/b//c/", "/api/x/?a=1", "/api/x//"]
)
async def test_path_and_everything_below_it(app: App, target: str) -> None:
    """A route answers with and without a trailing slash, and below."""
    async with served(app) as port:
        answer = await ask(port, "GET", target)
    assert answer.status == 200
    assert answer.body == b"hello\n"


@pytest.mark.parametrize(
    "target", ["/", "/api", "/api/", "/api/xy", "/api/X", "/api/nope", "/apix", "/%ff", "/api//x"]
)
async def test_unknown_path(app: App, target: str) -> None:
    """A path that no route has is answered with 404 in plain text."""
    async with served(app) as port:
        answer = await ask(port, "GET", target)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_wrong_method(app: App, method: str) -> None:
    """A known path with another method is answered with 405 and the methods there are."""
    async with served(app) as port:
        answer = await ask(port, method, "/api/x/")
    assert (answer.status, answer.body) == (405, b"Method Not Allowed\n")
    assert answer["Allow"] == "GET, HEAD, POST"


async def test_two_routes_share_a_path(app: App) -> None:
    """Routes that differ in their method only are told apart, and both are allowed."""

    @route(app, "/api/x", methods=["DELETE"], permission=None)
    async def remove() -> Response:
        return text_answer("gone\n")

    async with served(app) as port:
        assert (await ask(port, "DELETE", "/api/x")).body == b"gone\n"
        assert (await ask(port, "GET", "/api/x")).body == b"hello\n"
        assert (await ask(port, "PUT", "/api/x"))["Allow"] == "DELETE, GET, HEAD, POST"


async def test_head_is_get_without_body(app: App) -> None:
    """HEAD is answered where GET is, with the same headers and no body."""
    async with served(app) as port, connected(port) as client:
        await client.stream.send_all(b"HEAD /api/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        raw = b""
        while piece := await client.stream.receive_some():
            raw += piece
    head, separator, body = raw.partition(b"\r\n\r\n")
    assert separator
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 6" in head.lower()
    assert body == b""


ERRORS = [
    (QueryError("query: no"), 400, "Bad Request"),
    (ProtocolError("line 3: no"), 400, "Bad Request"),
    (AuthenticationError("token: no"), 401, "Unauthorized"),
    (ForbiddenError("token: no"), 403, "Forbidden"),
    (HttpError(404, "selector: no"), 404, "Not Found"),
    (HttpError(413, "body: no"), 413, "Request Entity Too Large"),
    (HttpError(422, "job: no"), 422, "Unprocessable Entity"),
    (BusyError("queue: full"), 429, "Too Many Requests"),
    (HttpError(503, "recovering"), 503, "Service Unavailable"),
    (CorruptionError("file: byte 3"), 500, "Internal Server Error"),
    (ConfigError("main.addr: no"), 500, "Internal Server Error"),
    (KeyError("a bug"), 500, "Internal Server Error"),
    (ExceptionGroup("of a nursery", [QueryError("query: no")]), 400, "Bad Request"),
]


@pytest.mark.parametrize(("error", "status", "reason"), ERRORS, ids=lambda value: repr(value)[:30])
async def test_error_becomes_an_object(error: Exception, status: int, reason: str) -> None:
    """Each exception has its status, and its answer is an error object with one Content-Type."""
    app = make_app()

    @route(app, "/fail", methods=["GET"], permission=None)
    async def fail() -> Response:
        raise error

    async with served(app) as port:
        answer = await ask(port, "GET", "/fail")
    text = str(error.exceptions[0] if isinstance(error, ExceptionGroup) else error)
    assert answer.status == status
    assert answer.body.endswith(b"}\n")
    assert orjson.loads(answer.body) == {
        "status": reason,
        "error": text if status != 500 else "internal error, see the server's log",
    }
    assert answer["Content-Type"] == "application/json"


def test_error_answer_carries_details() -> None:
    """What an error has besides its text stands in the object behind it."""
    answer = error_answer(400, "2 lines", headers={"X-A": "b"}, details={"stored": 1, "rejected": 2})
    assert answer.headers["X-A"] == "b"
    assert answer.headers.getlist("Content-Type") == ["application/json"]


async def test_details_and_headers_of_a_raised_error() -> None:
    """An HttpError brings its headers and details into the answer."""
    app = make_app()

    @route(app, "/fail", methods=["GET"], permission=None)
    async def fail() -> Response:
        raise HttpError(503, "recovering", headers={"Retry-After": "7"}, details={"progress": 0.5})

    async with served(app) as port:
        answer = await ask(port, "GET", "/fail")
    assert answer["Retry-After"] == "7"
    assert orjson.loads(answer.body)["progress"] == 0.5


async def test_busy_says_when_to_come_back() -> None:
    """Too much at once is answered with 429 and Retry-After."""
    app = make_app()

    @route(app, "/fail", methods=["GET"], permission=None)
    async def fail() -> Response:
        raise BusyError("queue: full")

    async with served(app) as port:
        answer = await ask(port, "GET", "/fail")
    assert (answer.status, answer["Retry-After"]) == (429, "1")


async def test_json_answer() -> None:
    """JSON has one Content-Type, its length, a newline behind it, and null for NaN."""
    app = make_app()

    @route(app, "/json", methods=["GET"], permission=None)
    async def give() -> Response:
        return json_answer({"a": [1, float("nan")]})

    async with served(app) as port:
        answer = await ask(port, "GET", "/json")
    assert answer.body == b'{"a":[1,null]}\n'
    assert answer["Content-Type"] == "application/json"
    assert answer["Content-Length"] == "15"
    assert answer["Server"] is None


@pytest.mark.parametrize("host", ["a..b", "a" * 300])
async def test_impossible_host(app: App, host: str) -> None:
    """A Host that cannot be one is a bad request, not an error of the server."""
    async with served(app) as port, connected(port) as client:
        await client.stream.send_all(f"GET /api/x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        client.expect_answer("GET")
        answer = await client.answer()
    assert answer.status == 400
    assert orjson.loads(answer.body)["status"] == "Bad Request"


@pytest.mark.parametrize(
    ("method", "site", "status"),
    [
        ("POST", "cross-site", 403),
        ("POST", "same-site", 200),
        ("POST", "same-origin", 200),
        ("POST", None, 200),
        ("GET", "cross-site", 200),
    ],
)
async def test_cross_site_requests(app: App, method: str, site: str | None, status: int) -> None:
    """A page of another site cannot make a browser send more than safe requests."""
    headers = [("Sec-Fetch-Site", site)] if site else []
    async with served(app) as port:
        answer = await ask(port, method, "/api/x", headers)
    assert answer.status == status


async def test_permission_is_checked_before_the_handler() -> None:
    """Without a token a handler does not run, unless its route is for everybody."""
    app = make_app(Authenticator(bytes(32)))
    ran = []

    @route(app, "/secret", methods=["GET"], permission=Permission.READ)
    async def secret() -> Response:
        ran.append("secret")
        return text_answer("")

    @route(app, "/live", methods=["GET"], permission=None)
    async def live() -> Response:
        ran.append("live")
        return text_answer("")

    async with served(app) as port:
        refused = await ask(port, "GET", "/secret", [("Authorization", "Bearer x.y.z")])
        assert (await ask(port, "GET", "/live")).status == 200
    assert refused.status == 401
    assert refused["WWW-Authenticate"] == "Bearer"
    assert orjson.loads(refused.body)["status"] == "Unauthorized"
    assert ran == ["live"]


async def test_read_body_returns_it_whole() -> None:
    """A body larger than a block is put together again."""
    app = make_app()
    sent = bytes(range(256)) * 5000

    @route(app, "/echo", methods=["POST"], permission=None)
    async def echo() -> Response:
        return Response(await read_body(limit_bytes=len(sent)), content_type="application/octet-stream")

    async with served(app) as port:
        assert (await ask(port, "POST", "/echo", body=sent)).body == sent
        assert (await ask(port, "POST", "/echo", body=sent + b"!")).status == 413
        assert (await ask(port, "POST", "/echo")).body == b""


async def test_bug_in_a_reading_handler_costs_its_client_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a handler that only reads is logged with its traceback, and the server goes on."""
    app = make_app()

    @route(app, "/bug", methods=["GET"], permission=None)
    async def fail() -> Response:
        raise ZeroDivisionError("of ours")

    async with served(app) as port:
        assert [(await ask(port, "GET", "/bug")).status for _ in range(2)] == [500, 500]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "ZeroDivisionError: of ours" in caplog.text


async def test_bug_in_a_changing_handler_ends_the_server_after_its_answer() -> None:
    """A bug in a handler that changes the store is answered, and then raised by `serve`."""
    app = make_app()
    bug = ZeroDivisionError("of ours")
    answers: list[Answer] = []

    @route(app, "/bug", methods=["POST"], permission=None, changes_store=True)
    async def fail() -> Response:
        raise bug

    async def serve_and_ask() -> None:
        async with served(app) as port, connected(port) as client:
            answers.append(await client.request("POST", "/bug"))
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await serve_and_ask()
    assert [answer.status for answer in answers] == [500]
    assert _leaves(raised.value) == [bug]


async def test_refusal_of_a_changing_handler_ends_nothing() -> None:
    """What a client can cause never ends the server, whatever the handler does."""
    app = make_app()

    @route(app, "/fail", methods=["POST"], permission=None, changes_store=True)
    async def fail() -> Response:
        raise ProtocolError("line 1: no")

    async with served(app) as port:
        assert [(await ask(port, "POST", "/fail")).status for _ in range(2)] == [400, 400]


@pytest.mark.parametrize("head", ["", "Upgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n"])
async def test_ctrl_c_in_a_handler_reaches_us(head: str) -> None:
    """A KeyboardInterrupt that hits a handler is raised by `serve` instead of being logged away."""
    app = make_app()

    @app.websocket("/slow")
    @route(app, "/slow", methods=["GET"], permission=None)
    async def slow() -> Response:
        raise KeyboardInterrupt

    async def serve_and_ask() -> None:
        async with served(app) as port, connected(port) as client:
            start = "GET /slow HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
            await client.stream.send_all(f"{start}{head}\r\n".encode())
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        await serve_and_ask()
    assert [type(leaf) for leaf in _leaves(raised.value)] == [KeyboardInterrupt]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
