"""The page for people: static files of the package, served from memory.

Owns the routes ``/`` and ``/page/...``. Never touches the store, and needs no token: what is in the
files is public, and all that they show they ask for with the token of whoever looks.

The files are read once, when the routes are made, so no name from outside ever becomes a path. They
name each other relatively and nothing elsewhere: clusters have no way out, and the content policy
that goes with every answer would not let a page take one.
"""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from attrs import frozen
from quart import Response, request

from ccstore.server.answers import HttpError, text_answer
from ccstore.server.http import App

__all__ = ["add_routes"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
"""What is served, by the end of its name; other files are not."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for each time, and answered by 304 unless the server is new
}


@frozen
class _File:
    content: bytes
    content_type: str
    etag: str


def add_routes(app: App, index: str) -> None:
    """Add the routes to an application; `index` is what ``/`` answers to programs."""
    page = {name: _load(file) for name, file in _walk(files("ccstore") / "web")}

    @app.get("/")
    async def root() -> Response:
        if request.accept_mimetypes.best_match(["text/plain", "text/html"]) == "text/html":
            answer = _answer(page["index.html"])
        else:
            answer = text_answer(index)
        answer.headers["Vary"] = "Accept"
        return answer

    @app.get("/page/<path:name>")
    async def file(name: str) -> Response:
        if name not in page:
            raise HttpError(404, f"page: no file {name[:80]!r}")
        return _answer(page[name])


def _answer(file: _File) -> Response:
    if file.etag in request.if_none_match:
        answer = Response(b"", 304)
    else:
        answer = Response(file.content, content_type=file.content_type)
    answer.headers.update(_HEADERS)
    answer.set_etag(file.etag)
    return answer


def _walk(directory: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the files below a directory, by their names from there on."""
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{above}{entry.name}/")
        elif _type_of(entry.name):
            yield above + entry.name, entry


def _type_of(name: str) -> str:
    return next((kind for end, kind in _TYPES.items() if name.endswith(end)), "")


def _load(file: Traversable) -> _File:
    content = file.read_bytes()
    return _File(content, _type_of(file.name), hashlib.blake2b(content, digest_size=12).hexdigest())
