"""The routes of samples in the document of the API; docs/reference/http.md has them in words."""

from collections.abc import Mapping
from typing import Any

from ccstore.server.auth import Permission
from ccstore.server.openapi.parts import (
    INT64,
    SECONDS,
    Node,
    array,
    body,
    json_content,
    nullable,
    operation,
    parameter,
    ref,
    responses,
    strict,
    text_content,
)
from ccstore.wire.jobquery import SCOPES

__all__ = ["PATHS", "SCHEMAS"]

_TEXT: Node = {"type": "string"}
_FLAG: Node = {"type": ["boolean", "null"]}
_NAMES: Node = nullable(array(nullable(_TEXT)))
_ANY_NUMBER: Node = {"type": ["number", "null"]}
_COUNT: Node = {"type": "integer", "minimum": 0}

_LINES = (
    "cpu_load,hostname=a0001 value=0.5 1699999800\nmem_bw,hostname=a0001,type=socket,type-id=0 value=1e2\n"
)
_QUERY_EXAMPLE = {
    "cluster": "alex",
    "from": 1699999740,
    "to": 1700000000,
    "queries": [{"metric": "cpu_load", "host": "a0001"}],
    "for-all-nodes": ["mem_bw"],
}


def _write_error(text: str, *, retry: bool = False) -> Node:
    """Make an error answer of write: it tells what became of the lines, where it was begun."""
    made: dict[str, Any] = {"description": text, "content": json_content(ref("WriteError"))}
    if retry:
        made["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer"}}}
    return made


def _query(name: str, description: str) -> Node:
    return operation(
        name, "Values of series", permission=Permission.READ, description=description,
        request=body(
            json_content({"anyOf": [ref("QueryRequest"), ref("JobQuery")]}, example=_QUERY_EXAMPLE)
        ),
        answers={
            "200": {
                "description": "A list for each query, and an object in it for each series.",
                "content": json_content(ref("QueryAnswer")),
            },
            **responses(400, 404, 408, 413, 503),
        },
    )  # fmt: skip


PATHS: Mapping[str, Mapping[str, Node]] = {
    "/api/write": {
        "post": operation(
            "write", "Store samples", permission=Permission.WRITE,
            description="Good lines are stored, whatever the others are. 200: they are on disk.",
            parameters=[parameter("cluster", _TEXT, "The cluster of lines that name none.")],
            request=body({"text/plain": {"schema": _TEXT, "example": _LINES}}, required=False),
            answers={
                "200": {"description": "Done; without a body."},
                "400": _write_error("Some lines were bad, or the body was cut."),
                "408": _write_error("Nothing came for 60 s."),
                "413": _write_error("The body is too large."),
                "429": _write_error("The log had no room for 10 s.", retry=True),
                "503": _write_error("The disk does not take it, or the server stops.", retry=True),
            },
        )
    },
    "/api/query": {
        "get": _query("query", "A GET with a body; where a library cannot send that, POST means the same."),
        "post": _query("queryByPost", "The same as GET."),
    },
    "/api/free": {
        "post": operation(
            "free", "Free samples", permission=Permission.ADMIN,
            description="Checkpoints are written first, and files stay as they are.",
            parameters=[parameter("to", INT64, "Chunks that end before this time go.", required=True)],
            request=body(json_content(ref("Selectors"), example=[["alex", "a0003"]])),
            answers={
                "200": {"description": "How many chunks.", "content": text_content("buffers freed: 1\n")},
                **responses(400, 408, 413, 503),
            },
        )
    },
    "/api/checkpoint": {
        "post": operation(
            "checkpoint", "Write a checkpoint now", permission=Permission.ADMIN,
            description="Answers when all that was in no checkpoint yet is on disk.",
            answers={
                "200": {"description": "What was written.", "content": json_content(ref("Written"))},
                **responses(503),
            },
        )
    },
    "/api/stream": {
        "get": operation(
            "stream", "Changes of values as they come in, over a websocket", permission=Permission.READ,
            answers=responses(426, 503),
        )
    },
    "/api/debug": {
        "get": operation(
            "debug", "What lies in memory", permission=Permission.ADMIN,
            parameters=[
                parameter("selector", _TEXT, "Names of the place to begin with, with ':' between."),
                parameter("part", array(_TEXT), "One name for each level, instead of `selector`."),
            ],
            answers={
                "200": {"description": "The chunks of every metric.", "content": json_content(ref("Level"))},
                **responses(400, 503),
            },
        )
    },
}  # fmt: skip

_RESULT: Mapping[str, Node] = {
    "error": {"type": "string", "description": "why this series could not be read"},
    "data": array(_ANY_NUMBER, description="one value for each step, null where nothing is stored"),
    "from": SECONDS,
    "to": SECONDS,
    "resolution": {"type": "integer", "description": "seconds between two values"},
    "avg": _ANY_NUMBER,
    "min": _ANY_NUMBER,
    "max": _ANY_NUMBER,
}

SCHEMAS: Mapping[str, Node] = {
    "WriteError": strict(
        {
            "status": {"type": "string"},
            "error": {"type": "string"},
            "stored": {**_COUNT, "description": "lines that were stored"},
            "rejected": {**_COUNT, "description": "lines that were not, for a reason of their own"},
            "lines": array(
                strict({"line": {"type": "integer", "minimum": 1}, "error": {"type": "string"}}),
                maxItems=20,
                description="the first of these",
            ),
        },
        optional=["stored", "rejected", "lines"],
    ),
    "Written": strict(
        {
            "files": _COUNT,
            "values": {**_COUNT, "description": "missing ones included"},
            "bytes": _COUNT,
            "seconds": {"type": "number", "minimum": 0},
        }
    ),
    "Query": {
        "type": ["object", "null"],
        "properties": {
            "metric": nullable(_TEXT),
            "host": nullable(_TEXT),
            "resolution": nullable({**INT64, "default": 0, "description": "seconds between two values"}),
            "type": nullable(_TEXT),
            "type-ids": _NAMES,
            "subtype": nullable(_TEXT),
            "subtype-ids": _NAMES,
            "aggreg": {**_FLAG, "default": False, "description": "combine the components into one"},
            "scale-by": {**_ANY_NUMBER, "default": 0},
        },
    },
    "QueryRequest": {
        "type": "object",
        "properties": {
            "cluster": nullable(_TEXT),
            "from": nullable(SECONDS),
            "to": nullable({**SECONDS, "description": "does not belong to the range"}),
            "with-stats": {**_FLAG, "default": True},
            "with-data": {**_FLAG, "default": True},
            "with-padding": {**_FLAG, "default": True},
            "queries": nullable(array(ref("Query"))),
            "for-all-nodes": _NAMES,
        },
    },
    "JobQuery": {
        "type": "object",
        "description": "a query by job",
        "properties": {
            "job": {
                "type": "object",
                "properties": {
                    "jobId": {**INT64, "minimum": 1},
                    "cluster": nullable(_TEXT),
                    "startTime": nullable(SECONDS),
                },
                "required": ["jobId"],
                "additionalProperties": False,
            },
            "metrics": array(_TEXT, minItems=1),
            "scope": {"enum": [*SCOPES, None]},
            "resolution": nullable(INT64),
            "from": nullable(SECONDS),
            "to": nullable(SECONDS),
            "with-stats": _FLAG,
            "with-data": _FLAG,
            "with-padding": _FLAG,
        },
        "required": ["job", "metrics"],
        "additionalProperties": False,
    },
    "QueryAnswer": strict(
        {
            "queries": array(
                strict(
                    {
                        "metric": _TEXT,
                        "host": _TEXT,
                        "resolution": {"type": "integer"},
                        "aggreg": {"type": "boolean"},
                        "type": _TEXT,
                        "type-ids": array(_TEXT),
                        "subtype": _TEXT,
                        "subtype-ids": array(_TEXT),
                        "scale-by": {"type": "number"},
                    },
                    optional=["type", "type-ids", "subtype", "subtype-ids", "scale-by"],
                ),
                description="those that `for-all-nodes`, or a query by job, has made, if any",
            ),
            "job": strict(
                {
                    "cluster": _TEXT,
                    "jobId": INT64,
                    "startTime": SECONDS,
                    "jobState": _TEXT,
                    "stopTime": SECONDS,
                },
                optional=["stopTime"],
                description="of a query by job, as are the range's `from` and `to`",
            ),
            "from": SECONDS,
            "to": SECONDS,
            "results": array(array(strict(_RESULT, optional=["error", "data"]))),
        },
        optional=["queries", "job", "from", "to"],
    ),
    "Selectors": {
        **nullable(array(array(_TEXT))),
        "description": "places, each as names from the cluster downwards; [] is everything",
    },
    "Level": strict({"data": ref("Place")}),
    "Place": {
        "type": "object",
        "additionalProperties": {"anyOf": [array(ref("Chunk")), ref("Place")]},
        "description": "metrics with their chunks, and places below",
    },
    "Chunk": strict({"start": SECONDS, "len": _COUNT, "end": SECONDS}),
}
