"""The routes of Prometheus' API in the document of the API; docs/reference/prometheus.md explains them."""

from collections.abc import Mapping, Sequence

from ccstore.server.auth import Permission
from ccstore.server.openapi.parts import Node, array, json_content, operation, parameter, ref, strict

__all__ = ["PATHS", "SCHEMAS"]

_TEXT: Node = {"type": "string"}
_COUNT: Node = {"type": "integer", "minimum": 0}
_NAME: Node = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
_LABELS: Node = {"type": "object", "additionalProperties": _TEXT}

_TIME = ("time", _TEXT, "Seconds since the epoch or RFC 3339; now without it.", False)
_QUERY = ("query", _TEXT, "An expression in PromQL, as far as it is supported.", True)
_LIMIT = ("limit", _COUNT, "Results at most; 0 means all.", False)
_SPAN = (
    ("start", _TEXT, "Checked, and makes no difference.", False),
    ("end", _TEXT, "Checked, and makes no difference.", False),
)
_MATCH = ("match[]", array(_TEXT), "Selectors; a series counts if it fulfils any of them.", False)
_RANGE = (
    _QUERY,
    ("start", _TEXT, "The first step: seconds since the epoch or RFC 3339.", True),
    ("end", _TEXT, "No step is later.", True),
    ("step", _TEXT, "Seconds, or a duration such as `5m`.", True),
)

_BUILD = ("version", "revision", "branch", "buildUser", "buildDate", "goVersion")

_Parameters = Sequence[tuple[str, Node, str, bool]]


def _refusal(text: str, *, retry: bool = False) -> Node:
    made: dict[str, Node | str] = {"description": text, "content": json_content(ref("PrometheusError"))}
    if retry:
        made["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer"}}}
    return made


def _form(parameters: _Parameters) -> Node:
    properties = {name: {**schema, "description": text} for name, schema, text, _ in parameters}
    required = [name for name, _, _, needed in parameters if needed]
    schema: Node = {"type": "object", "properties": properties, "required": required}
    return {"required": bool(required), "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


def _route(
    name: str,
    summary: str,
    data: Node,
    parameters: _Parameters = (),
    *,
    post: bool = True,
    label: bool = False,
) -> Mapping[str, Node]:
    """Make the operations of a route: GET, and POST with the same as a form; `label`: the path names one."""
    content = json_content(
        strict(
            {"status": {"const": "success"}, "data": data, "warnings": array(_TEXT)}, optional=["warnings"]
        )
    )
    answers: dict[str, Node] = {
        "200": {"description": "Done.", "content": content},
        "400": _refusal("It cannot be understood: `bad_data`."),
        "422": _refusal("It asks for too much, or labels do not tell series apart: `execution`."),
        "503": _refusal("The server reads its files: `unavailable`.", retry=True),
    }
    listed = [parameter(key, schema, text, required=needed) for key, schema, text, needed in parameters]
    if label:
        listed.append(parameter("name", _NAME, "The label.", where="path"))
    made = {"get": operation(name, summary, permission=Permission.READ, parameters=listed, answers=answers)}
    if post:
        answers |= {"408": _refusal("Nothing came for 60 s."), "413": _refusal("The body is too large.")}
        made["post"] = operation(
            f"{name}ByPost", summary, permission=Permission.READ, description="The same as GET.",
            request=_form(parameters), answers=answers,
        )  # fmt: skip
    return made


PATHS: Mapping[str, Mapping[str, Node]] = {
    "/api/v1/query": _route("promqlQuery", "A vector or a number", ref("PrometheusResult"), (_QUERY, _TIME)),
    "/api/v1/query_range": _route(
        "promqlQueryRange", "A vector at steps of time", ref("PrometheusResult"), _RANGE
    ),
    "/api/v1/series": _route(
        "promqlSeries", "Labels of series", array(_LABELS), ((*_MATCH[:3], True), *_SPAN, _LIMIT)
    ),
    "/api/v1/labels": _route("promqlLabels", "Names of labels", array(_TEXT), (_MATCH, *_SPAN, _LIMIT)),
    "/api/v1/label/{name}/values": _route(
        "promqlLabelValues", "Values of a label", array(_TEXT), (_MATCH, *_SPAN, _LIMIT),
        post=False, label=True,
    ),
    "/api/v1/metadata": _route(
        "promqlMetadata", "What metrics are",
        {
            "type": "object",
            "additionalProperties": array(strict({"type": {"const": "gauge"}, "help": _TEXT, "unit": _TEXT})),
        },
        (("metric", _TEXT, "One metric alone.", False), _LIMIT), post=False,
    ),
    "/api/v1/status/buildinfo": _route(
        "promqlBuildInfo", "Whose API this is a part of",
        strict(dict.fromkeys(_BUILD, _TEXT)),
        post=False,
    ),
}  # fmt: skip

_PAIR: Node = {
    "type": "array",
    "description": "time in seconds, value as text",
    "prefixItems": [{"type": "number"}, _TEXT],
    "minItems": 2,
    "maxItems": 2,
}

SCHEMAS: Mapping[str, Node] = {
    "PrometheusError": strict(
        {
            "status": {"const": "error"},
            "errorType": {"enum": ["bad_data", "execution", "unavailable"]},
            "error": _TEXT,
        }
    ),
    "PrometheusResult": {
        "oneOf": [
            strict({"resultType": {"const": "scalar"}, "result": _PAIR}),
            strict(
                {
                    "resultType": {"const": "vector"},
                    "result": array(strict({"metric": _LABELS, "value": _PAIR})),
                }
            ),
            strict(
                {
                    "resultType": {"const": "matrix"},
                    "result": array(strict({"metric": _LABELS, "values": array(_PAIR, minItems=1)})),
                }
            ),
        ]
    },
}
