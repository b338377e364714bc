"""What the groups of the document are made of: operations, bodies, and the answers that all routes share.

Functions from a few words to the mappings that OpenAPI 3.1 wants. Owns the schema of the error object and
the answers that come before a handler runs, so that a group tells only what is its own.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from ccstore.server.auth import Permission

__all__ = [
    "INT64",
    "RESPONSES",
    "SCHEMAS",
    "SECONDS",
    "Node",
    "array",
    "body",
    "json_content",
    "nullable",
    "operation",
    "parameter",
    "ref",
    "responses",
    "strict",
    "text_content",
]

Node = Mapping[str, Any]
"""A part of the document."""

INT64: Node = {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}
SECONDS: Node = {**INT64, "description": "seconds since the epoch"}


def ref(name: str) -> Node:
    """Refer to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Node, **more: Any) -> Node:
    """Make the schema of a list."""
    return {"type": "array", "items": items, **more}


def nullable(schema: Node) -> Node:
    """Let ``null`` be a value as well: where the server takes JSON, it stands for the default."""
    kind = schema.get("type")
    return (
        {**schema, "type": [kind, "null"]} if isinstance(kind, str) else {"anyOf": [schema, {"type": "null"}]}
    )


def strict(properties: Mapping[str, Node], *, optional: Sequence[str] = (), **more: Any) -> Node:
    """Make the schema of an object that has these properties, all but the optional ones, and no other."""
    required = [name for name in properties if name not in optional]
    made = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {**made, **more}


def json_content(schema: Node, **more: Any) -> Node:
    """Make the content of an answer or a body that is JSON."""
    return {"application/json": {"schema": schema, **more}}


def text_content(example: str) -> Node:
    """Make the content of an answer that is text."""
    return {"text/plain": {"schema": {"type": "string"}, "example": example}}


def body(content: Node, *, required: bool = True) -> Node:
    """Make the body of a request."""
    return {"required": required, "content": content}


def parameter(name: str, schema: Node, text: str, *, where: str = "query", required: bool = False) -> Node:
    """Make a parameter; `where` is ``query`` or ``path``."""
    return {
        "name": name,
        "in": where,
        "required": required or where == "path",
        "schema": schema,
        "description": text,
    }


def operation(
    name: str,
    summary: str,
    *,
    permission: Permission | None,
    answers: Mapping[str, Node],
    description: str = "",
    parameters: Sequence[Node] = (),
    request: Node | None = None,
) -> Node:
    """Make an operation: what is its own, and what every route does before its handler runs.

    `answers` are by status; see `responses` for those that are the same everywhere.
    """
    who = "Permission: none." if permission is None else f"Permission: {permission.value}."
    made: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "description": f"{description} {who}".strip(),
        "security": [] if permission is None else [{"bearer": []}, {"header": []}],
    }
    if parameters:
        made["parameters"] = parameters
    if request is not None:
        made["requestBody"] = request
    always = (500,) if permission is None else (401, 403, 500)
    found = {**responses(*always), **answers}
    made["responses"] = {status: found[status] for status in sorted(found)}
    return made


def responses(*statuses: int) -> dict[str, Node]:
    """Refer to the error answers that are the same everywhere."""
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")


def _error(text: str, **headers: Node) -> Node:
    made: dict[str, Any] = {"description": text, "content": json_content(ref("Error"))}
    if headers:
        made["headers"] = {
            name.replace("_", "-"): {"required": True, "schema": schema} for name, schema in headers.items()
        }
    return made


_RETRY: Node = {"type": "integer", "description": "seconds to wait"}

SCHEMAS: Mapping[str, Node] = {
    "Error": strict(
        {
            "status": {"type": "string", "description": "the status in words"},
            "error": {"type": "string", "description": "for people; it may change"},
        }
    ),
}

RESPONSES: Mapping[str, Node] = {
    _name(status): made
    for status, made in {
        400: _error("The request cannot be understood."),
        401: _error("No token, or one that is not valid now.", WWW_Authenticate={"const": "Bearer"}),
        403: _error(
            "The token does not permit this, the address is not allowed, or a page of another site sent it."
        ),
        404: _error("There is no such thing."),
        408: _error("Nothing came for 60 s."),
        413: _error("The body is too large."),
        422: _error("It does not fit what is stored."),
        426: _error("This is a websocket.", Upgrade={"const": "websocket"}),
        429: _error("Too much at once.", Retry_After=_RETRY),
        500: _error("A bug: the server's log has the traceback."),
        503: _error("It cannot be done now.", Retry_After=_RETRY),
    }.items()
}
