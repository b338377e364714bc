"""The routes of clusters, hosts and metrics in the document of the API."""

from collections.abc import Mapping

from ccstore.server.auth import Permission
from ccstore.server.openapi.parts import (
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
_NAMES: Node = nullable(array(nullable(_TEXT)))
_HEALTH_EXAMPLE = {"cluster": "alex", "nodes": ["a0001"], "metric-names": ["cpu_load", "mem_bw"]}

PATHS: Mapping[str, Mapping[str, Node]] = {
    "/api/healthcheck": {
        "get": operation(
            "healthcheck", "Do the metrics of hosts arrive?", permission=Permission.READ,
            request=body(json_content(ref("HealthRequest"), example=_HEALTH_EXAMPLE)),
            answers={
                "200": {"description": "The health of each host.", "content": json_content(ref("Health"))},
                **responses(400, 408, 413, 503),
            },
        )
    },
    "/api/clusters": {
        "get": operation(
            "clusters", "The clusters with samples", permission=Permission.READ,
            answers={"200": {"description": "By name.", "content": json_content(ref("Clusters"))}},
        )
    },
    "/api/components": {
        "get": operation(
            "components", "What a host has", permission=Permission.READ,
            parameters=[
                parameter("cluster", _TEXT, "The cluster.", required=True),
                parameter("host", _TEXT, "The host.", required=True),
            ],
            answers={
                "200": {
                    "description": "The host and its components.",
                    "content": json_content(ref("Components")),
                },
                **responses(404, 503),
            },
        )
    },
    "/api/metrics": {
        "get": operation(
            "metrics", "The metrics that are stored", permission=Permission.READ,
            parameters=[parameter("cluster", _TEXT, "The metrics as they are in this cluster.")],
            answers={
                "200": {
                    "description": "In the order of the configuration.",
                    "content": json_content(ref("Metrics")),
                }
            },
        )
    },
}  # fmt: skip

SCHEMAS: Mapping[str, Node] = {
    "HealthRequest": {
        "type": "object",
        "properties": {"cluster": nullable(_TEXT), "nodes": _NAMES, "metric-names": _NAMES},
        "additionalProperties": False,
    },
    "Health": {
        "type": "object",
        "description": "by host",
        "additionalProperties": strict(
            {
                "State": {"enum": ["full", "partial", "failed"]},
                "HealthMetrics": {
                    "type": "string",
                    "description": "JSON: the lists `degraded` and `missing`",
                },
            }
        ),
    },
    "Clusters": strict(
        {"clusters": array(strict({"name": _TEXT, "hosts": {"type": "integer", "minimum": 0}}))}
    ),
    "Components": strict(
        {
            "cluster": _TEXT,
            "host": _TEXT,
            "components": array(
                strict(
                    {
                        "type": _TEXT,
                        "id": _TEXT,
                        "subtype": _TEXT,
                        "subid": _TEXT,
                        "metrics": array(_TEXT),
                    }
                )
            ),
        }
    ),
    "Metrics": strict(
        {
            "metrics": array(
                strict(
                    {
                        "name": _TEXT,
                        "unit": _TEXT,
                        "frequency": {"type": "integer", "minimum": 1, "description": "seconds"},
                        "aggregation": {"enum": ["sum", "avg", None]},
                    }
                )
            )
        }
    ),
}
