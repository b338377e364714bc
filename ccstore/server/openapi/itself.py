"""The routes that tell of the server itself in the document of the API."""

from collections.abc import Mapping

from ccstore.server.auth import Permission
from ccstore.server.ledger import OUTCOMES
from ccstore.server.openapi.parts import (
    Node,
    array,
    json_content,
    operation,
    parameter,
    ref,
    responses,
    strict,
    text_content,
)

__all__ = ["PATHS", "SCHEMAS"]

_TEXT: Node = {"type": "string"}
_COUNT: Node = {"type": "integer", "minimum": 0}
_NUMBER: Node = {"type": "number"}
_OUTCOMES: Mapping[str, Node] = {outcome.name.lower(): _COUNT for outcome in OUTCOMES}

PATHS: Mapping[str, Mapping[str, Node]] = {
    "/api/stats": {
        "get": operation(
            "stats", "How the server is, as JSON", permission=Permission.READ,
            answers={"200": {"description": "All numbers.", "content": json_content(ref("Stats"))}},
        )
    },
    "/metrics": {
        "get": operation(
            "prometheus", "The same for Prometheus", permission=None,
            answers={
                "200": {
                    "description": "The text format of Prometheus.",
                    "content": text_content("ccstore_ready 1.0\n"),
                }
            },
        )
    },
    "/api/health/live": {
        "get": operation(
            "live", "Does the process answer?", permission=None,
            answers={
                "200": {
                    "description": "It does.",
                    "content": json_content(strict({"status": {"const": "live"}})),
                }
            },
        )
    },
    "/api/health/ready": {
        "get": operation(
            "ready", "Does it do its work?", permission=None,
            answers={
                "200": {"description": "It does.", "content": json_content(ref("Readiness"))},
                "503": {"description": "Not all of it.", "content": json_content(ref("Readiness"))},
            },
        )
    },
    "/api/openapi.json": {
        "get": operation(
            "document", "This document", permission=None,
            answers={
                "200": {"description": "OpenAPI 3.1.", "content": json_content({"type": "object"})},
            },
        )
    },
    "/": {
        "get": operation(
            "index", "The page, for people", permission=None,
            answers={
                "200": {
                    "description": "HTML for who prefers it, else the list of routes.",
                    "content": {**text_content("ccstore ...\n"), "text/html": {"schema": _TEXT}},
                }
            },
        )
    },
    "/page/{name}": {
        "get": operation(
            "page", "The files of the page", permission=None,
            parameters=[parameter("name", _TEXT, "Path of the file.", where="path")],
            answers={
                "200": {"description": "The file.", "content": {"*/*": {}}},
                "304": {"description": "It is as it was."},
                **responses(404),
            },
        )
    },
}  # fmt: skip

_EVENTS: Node = strict(
    {
        "queued": _COUNT,
        "oldest_seconds": _NUMBER,
        "by_source": {
            "type": "object",
            "description": "by source and outcome",
            "additionalProperties": {"type": "object", "additionalProperties": _COUNT},
        },
    }
)

SCHEMAS: Mapping[str, Node] = {
    "Readiness": strict(
        {"status": {"enum": ["ready", "not ready"]}, "problems": array(_TEXT, description="why it is not")}
    ),
    "Stats": {
        "type": "object",
        "required": ["version", "ready", "problems", "lines", "nats", "jobs", "uptime_seconds", "series"],
        "description": "Beside these, the numbers of /metrics without their prefix.",
        "properties": {
            "version": _TEXT,
            "ready": {"type": "boolean"},
            "problems": array(_TEXT),
            "lines": strict(
                {
                    "received": _COUNT,
                    **_OUTCOMES,
                    "by_source": {"type": "object", "additionalProperties": strict(_OUTCOMES)},
                }
            ),
            "unknown_metrics": array(_TEXT, description="the first names of metrics that are not configured"),
            "events": strict({"job": _EVENTS, "node": _EVENTS}),
            "registry_trouble": _TEXT,
            "loop_hold_task": _TEXT,
            "nats": {
                "type": "object",
                "required": ["state", "server", "last_error", "refused_subjects"],
                "properties": {
                    "state": {"enum": ["off", "connecting", "connected", "lame duck", "closed"]},
                    "server": _TEXT,
                    "last_error": _TEXT,
                    "refused_subjects": array(_TEXT),
                },
                "additionalProperties": {"type": ["number", "boolean"]},
            },
            "jobs": {
                "type": "object",
                "description": "the periodic jobs, by name",
                "additionalProperties": strict(
                    {"runs": _COUNT, "failures": _COUNT, "seconds": _NUMBER, "last_error": _TEXT}
                ),
            },
            "routes": {
                "type": "object",
                "description": "requests over HTTP, by route",
                "additionalProperties": strict({"requests": _COUNT, "errors": _COUNT, "seconds": _NUMBER}),
            },
            "shards": {
                "type": "object",
                "description": "by number",
                "additionalProperties": strict(
                    {"trouble": _TEXT, "waiting_samples": _COUNT, "checkpoint_age_seconds": _NUMBER}
                ),
            },
        },
        "additionalProperties": {"type": ["number", "boolean"]},
    },
}
