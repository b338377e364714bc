"""The routes for schedulers in the document of the API: node states, jobs, hosts in use."""

from collections.abc import Mapping
from typing import Any

from ccstore.model import JobState
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
)

__all__ = ["PATHS", "SCHEMAS"]

_TEXT: Node = {"type": "string"}
_NAME: Node = nullable(_TEXT)
_NAMES: Node = nullable(array(_NAME))
_INTEGER: Node = {**INT64, "type": ["integer", "null"]}
_INT32: Node = {"type": ["integer", "null"], "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_ANY: Node = {"type": ["object", "null"]}

_REPORT = {"cluster": "alex", "nodes": [{"hostname": "a0001", "states": ["MIXED"], "jobsRunning": 1}]}
_START = {
    "jobId": 1001, "cluster": "alex", "user": "ann", "project": "thesis", "startTime": 1699999800,
    "numNodes": 1, "resources": [{"hostname": "a0001"}],
}  # fmt: skip
_STOP = {"jobId": 1001, "cluster": "alex", "stopTime": 1699999980, "jobState": "completed"}


def _report(name: str) -> Node:
    return operation(
        name, "Store states of nodes", permission=Permission.WRITE,
        description="What a scheduler says of nodes, and what the store sees of each.",
        request=body(json_content(ref("NodeReport"), example=_REPORT)),
        answers={
            "200": {"description": "What became of the nodes.", "content": json_content(ref("NodesStored"))},
            **responses(400, 408, 413, 503),
        },
    )  # fmt: skip


def _start(name: str) -> Node:
    return operation(
        name, "Store that a job has begun", permission=Permission.WRITE,
        request=body(json_content(ref("JobStart"), example=_START)),
        answers={
            "201": {"description": "Done.", "content": json_content(ref("Done"))},
            **responses(400, 408, 413, 422, 503),
        },
    )  # fmt: skip


def _stop(name: str) -> Node:
    return operation(
        name, "Store that a job has ended", permission=Permission.WRITE,
        request=body(json_content(ref("JobStop"), example=_STOP)),
        answers={
            "200": {"description": "The job.", "content": json_content(ref("Job"))},
            **responses(400, 404, 408, 413, 422, 503),
        },
    )  # fmt: skip


PATHS: Mapping[str, Mapping[str, Node]] = {
    "/api/nodestate": {"post": _report("nodestate"), "put": _report("putNodestate")},
    "/api/nodestats": {"post": _report("nodestats"), "put": _report("putNodestats")},
    "/api/healthcheck": {"post": _report("postHealthcheck")},
    "/api/jobs/start_job": {"post": _start("startJob"), "put": _start("putStartJob")},
    "/api/jobs/stop_job": {"post": _stop("stopJob"), "put": _stop("putStopJob")},
    "/api/jobs/used_nodes": {
        "get": operation(
            "usedNodes", "The hosts with running jobs", permission=Permission.WRITE,
            parameters=[parameter("ts", SECONDS, "Jobs that began before it count.", required=True)],
            answers={
                "200": {"description": "By cluster.", "content": json_content(ref("UsedNodes"))},
                **responses(400, 503),
            },
        )
    },
}  # fmt: skip

_RESOURCE: dict[str, Node] = {
    "hostname": _NAME,
    "hwthreads": nullable(array(_INTEGER)),
    "accelerators": _NAMES,
    "configuration": _NAME,
}
_START_KEYS: dict[str, Node] = {
    **dict.fromkeys(("cluster", "subCluster", "user", "project", "partition", "shared", "jobState"), _NAME),
    **dict.fromkeys(
        ("jobId", "startTime", "walltime", "arrayJobId", "submitTime", "requestedMemory"), _INTEGER
    ),
    **dict.fromkeys(("numNodes", "numHwthreads", "numAcc", "smt", "monitoringStatus", "duration"), _INT32),
    **dict.fromkeys(("footprint", "energyFootprint", "statistics", "concurrentJobs"), _ANY),
    "requestedMemory": _INTEGER,
    "energy": {"type": ["number", "null"]},
    "resources": nullable(array(nullable(ref("JobResource")))),
    "metaData": {"type": ["object", "null"], "additionalProperties": _NAME},
    "tags": nullable(array(nullable(ref("JobTag")))),
}
_STATES = [state.value for state in JobState]


def _object(properties: Mapping[str, Any]) -> Node:
    """Make the schema of a request, in which nothing is required here and no other key is allowed."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


_COUNT: Node = {"type": "integer", "minimum": 0}

SCHEMAS: Mapping[str, Node] = {
    "NodeReport": _object({"cluster": _NAME, "nodes": nullable(array(nullable(ref("ReportedNode"))))}),
    "ReportedNode": _object(
        {
            "hostname": _NAME,
            "states": _NAMES,
            **dict.fromkeys(("cpusAllocated", "memoryAllocated", "gpusAllocated", "jobsRunning"), _INTEGER),
        }
    ),
    "NodesStored": strict(
        {
            "msg": {"const": "success"},
            "stored": _COUNT,
            "skipped": array(strict({"hostname": _TEXT, "reason": _TEXT})),
        }
    ),
    "JobResource": _object(_RESOURCE),
    "JobTag": _object({"type": _NAME, "name": _NAME, "scope": _NAME, "id": _INTEGER}),
    "JobStart": _object(_START_KEYS),
    "JobStop": _object(
        {"jobId": _INTEGER, "stopTime": _INTEGER, "cluster": _NAME, "startTime": _INTEGER, "jobState": _NAME}
    ),
    "Done": strict({"msg": {"const": "success"}}),
    "Job": strict(
        {
            **dict.fromkeys(("cluster", "subCluster", "user", "project", "partition"), _TEXT),
            **dict.fromkeys(("id", "jobId", "startTime", "duration", "walltime", "submitTime"), INT64),
            **dict.fromkeys(("arrayJobId", "numNodes", "numHwthreads", "numAcc", "smt"), INT64),
            "shared": {"enum": ["none", "single_user", "multi_user"]},
            "monitoringStatus": {"type": "integer", "minimum": 0, "maximum": 3},
            "jobState": {"enum": _STATES},
            "resources": array({"type": "object"}),
            "metaData": {"type": "object", "additionalProperties": _TEXT},
            "tags": array(strict({"type": _TEXT, "name": _TEXT, "scope": _TEXT})),
        }
    ),
    "UsedNodes": strict({"usedNodes": {"type": "object", "additionalProperties": array(_TEXT)}}),
}
"""Of requests and answers; docs/reference/http.md tells what each key means."""
