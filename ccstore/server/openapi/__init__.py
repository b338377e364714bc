"""The document of the API: OpenAPI 3.1 at ``/api/openapi.json``, for generators, test tools and people.

Owns nothing but words: which routes there are, what they take, what they answer. A module for each group
of routes has two mappings, ``PATHS`` and ``SCHEMAS``, and is listed in `_GROUPS`; what all of them share
is in `parts`. It never looks at a request, and is made once.

Invariant: the document has each route that the application has, with its methods, and no other; a test
compares the two, and another one lets schemathesis try whether the server keeps what is promised here.
It is written by hand, because the handlers decode bytes themselves and have no types to derive it from.
"""

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import orjson
from quart import Response

from ccstore import __version__
from ccstore.server.answers import JSON
from ccstore.server.http import App, route
from ccstore.server.openapi import hosts, itself, prometheus, samples, schedulers, told
from ccstore.server.openapi.parts import RESPONSES, SCHEMAS

__all__ = ["add_routes", "make_document"]

_GROUPS: tuple[tuple[str, str, ModuleType], ...] = (
    ("samples", "Values of series: store, read, free.", samples),
    ("hosts", "Clusters, their hosts and what is measured there.", hosts),
    ("schedulers", "What becomes of nodes and jobs.", schedulers),
    ("prometheus", "What Grafana asks a Prometheus for.", prometheus),
    ("told", "What schedulers have told.", told),
    ("server", "How the server is.", itself),
)
"""Tag, its description, and the module with the routes."""

_DESCRIPTION = """\
An in-memory metric store for HPC clusters. A path means the same with a slash at its end; HEAD is accepted
where GET is. Headers for the content type of a request are ignored. Without a configured key nobody needs
a token. docs/reference/http.md explains everything with examples.
"""


@cache
def make_document() -> Mapping[str, Any]:
    """Put the groups together. An operation has the tag of its group."""
    paths: dict[str, Any] = {}
    schemas = dict(SCHEMAS)
    for tag, _, group in _GROUPS:
        for path, operations in group.PATHS.items():
            assert not paths.get(path, {}).keys() & operations.keys(), path
            made = {method: {"tags": [tag], **operation} for method, operation in operations.items()}
            paths[path] = {**paths.get(path, {}), **made}
        assert not schemas.keys() & group.SCHEMAS.keys(), tag
        schemas |= group.SCHEMAS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ccstore",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": text} for tag, text, _ in _GROUPS],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": RESPONSES,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            },
        },
    }


def add_routes(app: App) -> None:
    """Add the route to an application."""
    body = orjson.dumps(make_document(), option=orjson.OPT_APPEND_NEWLINE)

    @route(app, "/api/openapi.json", methods=["GET"], permission=None)
    async def document() -> Response:
        return Response(body, content_type=JSON)
