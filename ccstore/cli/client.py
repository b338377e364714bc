"""A small HTTP client for commands that talk to a running server.

Owns the connection, the token and the words for everything that can go wrong between a command and
a server. It knows no route and no meaning of an answer. Invariant: whatever happens to a request
ends either as the bytes of a good answer or as one `ServerError` of one line.

It is synchronous, because a command does one thing after the other. Machines of a cluster often have
a proxy in their environment; it is used as any program would, except for this machine's own addresses.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import click
import httpx
import orjson

from ccstore.errors import CcstoreError, ConfigError

__all__ = ["DEFAULT_URL", "Client", "ServerError", "server_options"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL = "http://127.0.0.1:8082"
"""Where a server listens that was configured nothing else."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""How long a server may be silent; an answer that goes on coming may take any time."""

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_MAX_TEXT = 300
"""Characters of an answer that is quoted because it could not be understood."""


def server_options(command: F) -> F:
    """Add ``--url`` and ``--token``; the parameters are ``url: str`` and ``token: str``."""
    url = click.option(
        "--url", metavar="URL", envvar="CCSTORE_URL", default=DEFAULT_URL, show_default=True,
        show_envvar=True, help="Where the server is.",
    )  # fmt: skip
    token = click.option(
        "--token", metavar="TOKEN", envvar="CCSTORE_TOKEN", default="", show_envvar=True,
        help="Shown to the server.",
    )  # fmt: skip
    return url(token(command))


class ServerError(CcstoreError):
    """A server could not be reached, or did not do what it was asked.

    `status` is that of its answer; 0 if there was none.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A connection to one server, to be used with ``with``.

    url: where the server listens, such as ``http://127.0.0.1:8082``; a path in it is kept, for a server
    behind a proxy. token: shown to the server unless it is empty. Raises ConfigError for a url or a
    token that no request can carry.
    """

    def __init__(self, url: str = DEFAULT_URL, *, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url: {url!r} (wanted http://HOST:PORT or https://HOST:PORT)")
        token = token.strip()
        if not (token.isascii() and token.isprintable()):
            raise ConfigError("token: not a token (wanted printable ASCII characters)")
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                mounts={f"all://{host}": None for host in _LOCAL},
            )
        except (httpx.InvalidURL, OSError, ValueError) as error:  # the latter two from the environment
            raise ConfigError(f"url: {url!r}: cannot be used ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def request(
        self, method: str, path: str, *, content: bytes | None = None,
        query: Mapping[str, str] | None = None, patience: float | None = ANSWER_SECONDS,
    ) -> bytes:  # fmt: skip
        """Send a request and return the body of the answer. Raises ServerError unless its status is 200.

        patience: seconds that the server may be silent, None for any number.
        """
        try:
            timeout = httpx.Timeout(patience, connect=CONNECT_SECONDS)
            answer = self._http.request(method, path, content=content, params=query, timeout=timeout)
        except httpx.TimeoutException as error:
            raise ServerError(f"{self.url}: no answer in time ({_describe(error)})") from error
        except httpx.ConnectError as error:
            raise ServerError(f"{self.url}: cannot connect ({_describe(error)})") from error
        except httpx.HTTPError as error:
            raise ServerError(f"{self.url}: the connection failed ({_describe(error)})") from error
        if answer.status_code == httpx.codes.OK:
            return answer.content
        raise ServerError(_refusal(f"{self.url}{path}", answer), status=answer.status_code)

    def get_json(self, path: str) -> Any:
        """Return the value that the server answers to a GET."""
        return self._decode(path, self.request("GET", path))

    def post(self, path: str) -> Any:
        """Ask for something that may take any time; return what the server answers when it is done."""
        return self._decode(path, self.request("POST", path, patience=None))

    def post_json(self, path: str, value: Any) -> Any:
        """Send a value and return the one that the server answers."""
        return self._decode(path, self.request("POST", path, content=orjson.dumps(value)))

    def _decode(self, path: str, body: bytes) -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ServerError(f"{self.url}{path}: the answer is not JSON ({error})") from error


def _describe(error: Exception) -> str:
    """Return what a library says, or the name of its exception if it says nothing."""
    text = " ".join(str(error).split())
    return text.partition("] ")[2] or text or type(error).__name__


def _refusal(where: str, answer: httpx.Response) -> str:
    """Return the line for an answer that is no success, in the server's own words if it has any."""
    try:
        said = orjson.loads(answer.content)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):  # a proxy's page, say
        said = answer.text if answer.headers.get("Content-Type", "").startswith("text/plain") else ""
    said = " ".join(str(said).split())[:_MAX_TEXT]
    reason = answer.reason_phrase or httpx.codes.get_reason_phrase(answer.status_code)  # HTTP has it no more
    line = f"{where}: {answer.status_code} {reason}" + (f": {said}" if said else "")
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        line += " (a token comes from --token or CCSTORE_TOKEN)"
    elif location := answer.headers.get("Location"):
        line += f" (moved to {location})"
    return line
