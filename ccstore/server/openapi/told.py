"""The routes that read back what schedulers have told, in the document of the API: nodes and jobs."""

from collections.abc import Mapping

from ccstore.model import Health, JobState, NodeState
from ccstore.server.auth import Permission
from ccstore.server.openapi.parts import (
    INT64,
    SECONDS,
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
_NAMES: Node = array(_TEXT)
_STATES: Node = {"enum": [state.value for state in NodeState]}
_HEALTHS: Node = {"enum": [health.value for health in Health]}
_JOB_STATES: Node = {"enum": [state.value for state in JobState]}
_TIME: Node = {**SECONDS, "minimum": -(2**59), "maximum": 2**59}
_LIMIT = parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100}, "At most so many."
)

PATHS: Mapping[str, Mapping[str, Node]] = {
    "/api/nodes": {
        "get": operation(
            "nodes", "The states of nodes", permission=Permission.READ,
            parameters=[
                parameter("cluster", _NAMES, "Only of these clusters."),
                parameter("subcluster", _NAMES, "Only of these subclusters."),
                parameter("state", array(_STATES), "Only in these states."),
                parameter("health", array(_HEALTHS), "Only of this health."),
            ],
            answers={
                "200": {"description": "By cluster and host.", "content": json_content(ref("Nodes"))},
                **responses(400, 503),
            },
        )
    },
    "/api/nodes/{cluster}/{host}": {
        "get": operation(
            "nodeHistory", "What was told of one node", permission=Permission.READ,
            parameters=[
                parameter("cluster", _TEXT, "The cluster.", where="path"),
                parameter("host", _TEXT, "The host.", where="path"),
                parameter("from", _TIME, "Only from this time on."),
                parameter("to", _TIME, "Only before this time."),
                _LIMIT,
            ],
            answers={
                "200": {"description": "The newest first.", "content": json_content(ref("NodeHistory"))},
                "404": {
                    "description": "Nobody has told of the node.",
                    "content": {**json_content(ref("Error")), **text_content("404 page not found")},
                },
                **responses(400, 503),
            },
        )
    },
    "/api/jobs": {
        "get": operation(
            "jobs", "Jobs, running and ended", permission=Permission.READ,
            parameters=[
                parameter("cluster", _NAMES, "Only of these clusters."),
                parameter("state", array(_JOB_STATES), "Only in these states."),
                parameter("user", _NAMES, "Only of these users."),
                parameter("project", _NAMES, "Only of these projects."),
                parameter("host", _NAMES, "Only with one of these hosts."),
                _LIMIT,
            ],
            answers={
                "200": {"description": "The newest start first.", "content": json_content(ref("Jobs"))},
                **responses(400, 503),
            },
        )
    },
    "/api/jobs/{job}": {
        "get": operation(
            "job", "One job", permission=Permission.READ,
            parameters=[
                parameter("job", {**INT64, "minimum": 1, "maximum": 2**59}, "Its number.", where="path"),
                parameter("cluster", _TEXT, "Only of this cluster."),
                parameter("startTime", {**_TIME, "minimum": 0}, "Only the one that began then."),
            ],
            answers={
                "200": {"description": "The one that began last.", "content": json_content(ref("Job"))},
                "404": {
                    "description": "There is no such job, or that is no number.",
                    "content": {**json_content(ref("Error")), **text_content("404 page not found")},
                },
                **responses(400, 503),
            },
        )
    },
}  # fmt: skip

_COUNT: Node = {"type": "integer"}
_TOLD: Mapping[str, Node] = {
    "state": _STATES,
    "health": _HEALTHS,
    "degraded": _NAMES,
    "missing": _NAMES,
    **dict.fromkeys(("jobsRunning", "cpusAllocated", "memoryAllocated", "gpusAllocated"), _COUNT),
}

SCHEMAS: Mapping[str, Node] = {
    "Nodes": strict(
        {
            "nodes": array(
                strict(
                    {
                        **dict.fromkeys(("cluster", "subcluster", "hostname"), _TEXT),
                        **dict.fromkeys(("reported", "since", "healthSince"), SECONDS),
                        **_TOLD,
                    }
                )
            )
        }
    ),
    "NodeHistory": strict(
        {
            **dict.fromkeys(("cluster", "subcluster", "hostname"), _TEXT),
            "states": array(strict({"time": SECONDS, **_TOLD})),
        }
    ),
    "Jobs": strict({"jobs": array(ref("Job"))}),
}
