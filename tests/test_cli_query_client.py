"""The client of the command line: every way a request can end is an answer or one line."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from querying import store

from ccstore.cli import client
from ccstore.cli.client import Client, ServerError
from ccstore.errors import ConfigError

PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = PRIVATE_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def get(url, path="/api/stats", **options):
    """Ask once for JSON."""
    with Client(url, **options) as connection:
        return connection.get_json(path)


async def failing(url, **options):
    """Return the line and the status of a request that fails."""

    def ask():
        with pytest.raises(ServerError) as caught:
            get(url, **options)
        return str(caught.value), caught.value.status

    line, status = await trio.to_thread.run_sync(ask)
    assert "\n" not in line
    return line, status


@asynccontextmanager
async def scripted(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve a fixed answer to every request and close; yield the URL and the heads of the requests."""
    heads: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            heads.append(head)
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", heads
        nursery.cancel_scope.cancel()


def http(status: str, body: str = "", *headers: str) -> bytes:
    """Write an answer."""
    fields = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(fields).encode()


async def test_the_answer_of_a_server():
    """JSON comes back as a value, and what is sent arrives as JSON."""
    async with store() as url:
        assert (await trio.to_thread.run_sync(get, url))["ready"] is True

        def ask():
            with Client(url + "/") as connection:
                return connection.post_json("/api/query", {"cluster": "none"})

        assert await trio.to_thread.run_sync(ask) == {"results": []}


async def test_the_words_of_the_server_are_kept():
    """A refusal is quoted with its status, and a token's error says where tokens come from."""
    async with store(public_key=PUBLIC_KEY) as url:
        line, status = await failing(url)
        assert status == 401
        assert line.startswith(f"{url}/api/stats: 401 ")
        assert ": token: missing (wanted Authorization: Bearer <token>) (" in line
        assert line.endswith(" (a token comes from --token or CCSTORE_TOKEN)")
        token = jwt.encode({"roles": ["user"]}, PRIVATE_KEY, algorithm="EdDSA")
        answer = await trio.to_thread.run_sync(lambda: get(url, token=f" {token}\n"))
        assert answer["ready"] is True
        line, status = await failing(url, token=token, path="/api/debug")
        assert status == 403
        assert "no role that permits admin" in line


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("404 Not Found", "404 nothing\n", "Content-Type: text/plain"), "404 Not Found: 404 nothing"),
        (http("502 Bad Gateway", "<html>\n<p>sorry", "Content-Type: text/html"), "502 Bad Gateway"),
        (http("503 Slow", '{"error":"recovering\\n  40 %"}'), "503 Slow: recovering 40 %"),
        (http("400 Bad Request", '{"error":' + f'"{"x" * 1000}"' + "}"), f"400 Bad Request: {'x' * 300}"),
        (http("400 Bad Request", "[]"), "400 Bad Request"),
        (http("301 Moved", "", "Location: https://other/"), "301 Moved (moved to https://other/)"),
    ],
)  # fmt: skip
async def test_other_answers_are_quoted_as_far_as_they_can_be(answer, words):
    """Plain text and error objects on one line, pages of a proxy not at all."""
    async with scripted(answer) as (url, _):
        line, status = await failing(url)
        assert line == f"{url}/api/stats: {words}"
        assert status == int(words[:3])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("200 OK", "hello"), "/api/stats: the answer is not JSON (unexpected character"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", ": the connection failed ("),
        (b"SSH-2.0-OpenSSH\r\n", ": the connection failed ("),
        (b"", ": the connection failed (Server disconnected without sending a response.)"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_reported(answer, words):
    """Another protocol, a body cut in the middle, a connection closed in the face."""
    async with scripted(answer) as (url, _):
        line, status = await failing(url)
        assert status == 0
        assert line.startswith(url + words)


async def test_no_server_and_a_silent_one(monkeypatch):
    """A port where nobody listens, and one where nobody answers."""
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.05)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        assert await failing(url) == (f"{url}: cannot connect (Connection refused)", 0)
        port.listen()
        assert await failing(url) == (f"{url}: no answer in time (timed out)", 0)


async def test_a_proxy_of_the_environment_is_for_others(monkeypatch):
    """Requests to this machine go straight there, requests to others through the proxy."""
    async with scripted(http("200 OK", '{"via":"proxy"}')) as (proxy, heads):
        monkeypatch.setenv("http_proxy", proxy)
        assert await trio.to_thread.run_sync(get, "http://store.invalid") == {"via": "proxy"}
        assert heads[0].startswith(b"GET http://store.invalid/api/stats HTTP/1.1\r\n")
        async with store() as url:
            assert "version" in await trio.to_thread.run_sync(get, url)
        assert len(heads) == 1


async def test_a_path_in_the_url_is_kept():
    """A server behind a proxy may live below a path."""
    async with scripted(http("200 OK", "1")) as (url, heads):
        assert await trio.to_thread.run_sync(get, f"{url}/store/") == 1
        assert heads[0].startswith(b"GET /store/api/stats HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("url", "token", "line"),
    [
        ("127.0.0.1:8082", "", "url: '127.0.0.1:8082' (wanted http://HOST:PORT or https://HOST:PORT)"),
        ("http://[::1", "", "url: 'http://[::1': cannot be used ("),
        ("http://x", "a\x00b", "token: not a token (wanted printable ASCII characters)"),
        ("http://x", "tökén", "token: not a token (wanted printable ASCII characters)"),
    ],
)
def test_what_no_request_can_carry(url, token, line):
    """Is refused before anything is sent."""
    with pytest.raises(ConfigError) as caught:
        Client(url, token=token)
    assert str(caught.value).startswith(line)


def test_certificates_that_the_environment_names_and_that_are_not_there(monkeypatch):
    """Are reported with the environment's words."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match="cannot be used"):
        Client("https://x")
