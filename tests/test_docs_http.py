"""docs/reference/http.md is held to the code: every route, every key, every example."""

import json
import re
import shlex
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from apiserver import Server, make_config, running
from attrs import frozen
from test_server_api_permissions import PRIVATE_KEY, PUBLIC_KEY

from ccstore.config.clusters import Cluster, Clusters, Subcluster
from ccstore.config.nodelist import parse_node_list
from ccstore.memory.query import Reader
from ccstore.model import (
    Aggregation,
    HealthRequest,
    Job,
    JobQuery,
    JobStop,
    Metric,
    NodeReport,
    Query,
    QueryRequest,
    ReportedNode,
)
from ccstore.server import api, auth, body, hosting, service, status, stepwise
from ccstore.server.answers import REASONS
from ccstore.server.ledger import OUTCOMES
from ccstore.server.metrics import encode_stats
from ccstore.server.services import make_services
from ccstore.wire.jobquery import SCOPES
from ccstore.wire.jsonvalue import _FIELDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8082"

METRICS = (
    Metric("cpu_load", 60, Aggregation.AVG),
    Metric("mem_bw", 60, Aggregation.SUM, "GB/s"),
    Metric("temp", 60, unit="degC"),
)

ALEX = Clusters(
    [Cluster("alex", {}, (Subcluster("a40", parse_node_list("a[0001-0008]"), ("cpu_load", "mem_bw")),))]
)


@frozen
class Route:
    """One route, as the page has it."""

    methods: tuple[str, ...]
    path: str
    permission: str
    text: str


def sections() -> list[Route]:
    """Return what the headings and the sentences below them say."""
    parts = re.split(r"^### ([A-Z]+(?:, [A-Z]+)*) (/.*)$", PAGE, flags=re.MULTILINE)
    routes = []
    for methods, path, text in zip(*[iter(parts[1:])] * 3, strict=True):
        text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
        (permission,) = re.findall(r"Permission: (\w+)[.:]", text)
        routes.append(Route(tuple(methods.split(", ")), path, permission, text))
    return routes


ROUTES = sections()


def table(text: str, header: str) -> list[list[str]]:
    """Return the rows of the first table with these columns."""
    rows = text.split(f"| {header} |\n", 1)[1].splitlines()[1:]
    found = []
    for row in rows:
        if not row.startswith("|"):
            break
        found.append([cell.strip() for cell in row.strip("|").split(" | ")])
    return found


async def test_every_route_is_documented_and_no_other() -> None:
    """Paths and methods agree, in both directions; HEAD comes with GET."""
    async with running() as server:
        app = service._make_app(server.services.config, server.services)
    registered = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), tuple(sorted((rule.methods or set()) - {"HEAD"})))
        for rule in app.url_map.iter_rules()
        if "<below:below>" not in rule.rule and (rule.rule == "/" or not rule.rule.endswith("/"))
    }
    assert registered == {(route.path, tuple(sorted(route.methods))) for route in ROUTES}


def test_the_overview_has_the_same() -> None:
    """The table at the beginning names each route with its permission, and links to its heading."""
    rows = re.findall(r"^\| \[`([A-Z, ]+) (/\S*)`\]\(#([\w-]*)\) \| (\w+) \|", PAGE, re.MULTILINE)
    overview = [(tuple(methods.split(", ")), path, permission) for methods, path, _, permission in rows]
    assert sorted(overview) == sorted((route.methods, route.path, route.permission) for route in ROUTES)
    for methods, path, anchor, _ in rows:
        heading = f"{methods} {path}".lower()
        assert anchor == re.sub(r"[^a-z0-9_ -]", "", heading).replace(" ", "-")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_the_permission_of_a_route(route: Route) -> None:
    """Each role of the page gets as far as the page says."""
    roles = {role.strip("`"): text for role, text in table(PAGE, "Role | Permissions")}
    claims: dict[str, dict[str, Any]] = {role: {"roles": [role]} for role in roles}
    claims |= {"any other": {"roles": ["x"]}, "no claim `roles": {}}
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        for method in route.methods:
            path = re.sub(r"{\w+}", "1", route.path)
            anonymous = await server.ask(method, path, b"")
            assert (anonymous.status == 401) == (route.permission != "none")
            for role, text in roles.items():
                token = jwt.encode(claims[role], PRIVATE_KEY, algorithm="EdDSA")
                answer = await server.ask(method, path, b"", headers=[("X-Auth-Token", token)])
                permitted = route.permission == "none" or route.permission in text.split(", ")
                assert (role, answer.status == 403) == (role, not permitted)


def test_the_roles_are_those_of_the_code() -> None:
    """With the permissions of each."""
    rows = dict(table(PAGE, "Role | Permissions"))
    assert rows.pop("any other") == "nothing"
    rows["`"] = rows.pop("no claim `roles`")
    known = {f"`{role}`": permissions for role, permissions in auth.PERMISSIONS_OF.items()}
    known["`"] = auth.WITHOUT_ROLES
    assert rows == {
        role: ", ".join(one.value for one in auth.Permission if one in permissions)
        for role, permissions in known.items()
    }


DEFAULTS = {
    '`""`': "", '`"none"`': "none", "`0`": 0, "`1`": 1, "`true`": True, "`false`": False,
    "`[]`": (), "`{}`": {}, "none": None,
}  # fmt: skip
TYPES = {
    **dict.fromkeys(("_take_queries", "_take_nodes", "_take_resources", "_take_tags"), "list of objects"),
    **dict.fromkeys(("_take_integer", "_take_int32"), "integer"),
    "_take_text": "string",
    "_take_texts": "object",
    "_take_number": "number",
    "_take_flag": "boolean",
    "_take_names": "list of strings",
}


@pytest.mark.parametrize(
    ("cls", "after"),
    [(QueryRequest, "### GET, POST /api/query"), (Query, "Each of `queries`"),
     (HealthRequest, "### GET /api/healthcheck"), (NodeReport, "### POST, PUT /api/nodestate"),
     (ReportedNode, "Each of `nodes`"), (Job, "### POST, PUT /api/jobs/start_job"),
     (JobStop, "### POST, PUT /api/jobs/stop_job")],
    ids=["query", "queries", "health", "report", "nodes", "start", "stop"],
)  # fmt: skip
def test_the_keys_of_a_body(cls: type, after: str) -> None:
    """Names, types and defaults are those of the code."""
    on_page = {}
    for names, kind, default, _ in table(PAGE.split(after, 1)[1], "Key | Type | Default | Meaning"):
        for name in names.split(", "):
            on_page[name.strip("`")] = (kind, DEFAULTS[default])
    made = cls()
    in_code = {
        key: (TYPES[take.__name__], getattr(made, field))
        for key, (field, take) in _FIELDS[cls].items()
        if field
    }
    assert on_page == in_code


async def test_the_keys_of_the_statistics() -> None:
    """The page names all outcomes, and all keys that are no numbers of `/metrics`."""
    text = next(route.text for route in ROUTES if route.path == "/api/stats")
    rows = [row[0].strip("`") for row in table(text, "Key of `lines` | Lines that")]
    assert rows == ["received", *(outcome.name.lower() for outcome in OUTCOMES), "by_source"]
    stats = encode_stats(make_services(make_config()))
    assert set(rows) == set(stats["lines"])
    named = set(re.findall(r"`(\w+)`", text.split("The other keys:")[1]))
    assert named <= set(stats)
    assert named >= {key for key, value in stats.items() if isinstance(value, dict | list)} - {"lines"}


def test_the_numbers_of_the_page() -> None:
    """Limits and times are those of the code."""
    page = " ".join(PAGE.split())
    request, health = api._MAX_REQUEST >> 20, api._MAX_HEALTH_REQUEST >> 20
    for number in (
        f"at most {request} MiB, those of `/api/healthcheck` {health} MiB",
        f"more than {stepwise.SMALL_ANSWER >> 10} KiB is sent while it is made",
        f"given up after {body.IDLE_LIMIT:g} s without a byte (408)",
        f"may rest for {hosting.serve.__kwdefaults__['keep_alive_timeout']:g} s",
        f"requests that were begun get {hosting.serve.__kwdefaults__['graceful_timeout']:g} s",
        f"at most {Reader.__init__.__kwdefaults__['max_values']:,} values".replace(",", " "),
    ):
        assert number in page, number


# --- the examples

_EXAMPLE = re.compile(r"^```sh\n(.*?)^```\n(?:\n```(json|text)\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


async def run_curl(client: httpx.AsyncClient, command: str) -> httpx.Response:
    """Do what an example's curl would do, as far as the examples go."""
    line, _, document = command.partition(" <<END\n")
    program, *words = shlex.split(line)
    assert program == "curl"
    method, content, (target,) = None, None, [word for word in words if word.startswith(URL)]
    words.remove(target)
    for option, value in zip(*[iter(words)] * 2, strict=True):
        match option:
            case "--request":
                method = value
            case "--data":
                content = value
            case "--data-binary":
                assert value == "@-"
                content = document.removesuffix("END\n")
            case _:
                raise AssertionError(option)
    method = method or ("GET" if content is None else "POST")
    return await client.request(method, target.removeprefix(URL), content=content)


async def test_every_example() -> None:
    """In their order, each gives the answer of the page, byte for byte, and the status in it."""
    examples = _EXAMPLE.findall(PAGE)
    assert len(examples) == PAGE.count("```sh\n") >= 11
    assert len([1 for _, kind, _ in examples if kind]) == PAGE.count("```json\n") + PAGE.count("```text\n")
    async with running(metrics=METRICS, clusters=ALEX) as server, client_of(server) as client:
        for command, kind, expected in examples:
            answer = await run_curl(client, command)
            (error,) = re.findall(r'^{"status":"([A-Z][^"]*)"', expected) or [""]
            assert (error or "OK") in (
                REASONS.get(answer.status_code, HTTPStatus(answer.status_code).phrase),
                "OK" * (answer.status_code == 201),
            ), answer.text
            assert answer.text.rstrip("\n") == expected.rstrip("\n")
            content_type = {"json": "application/json", "text": "text/plain; charset=utf-8"}
            assert answer.headers["Content-Type"] == content_type.get(kind, "application/json")
        covered = {
            httpx.URL(shlex.split(line.partition(" <<END")[0])[-1]).path.rstrip("/")
            for line, _, _ in examples
        }
    vary = {"/", "/page/{name}", "/metrics", "/api/stats", "/api/openapi.json", "/api/checkpoint"}
    for path in {route.path for route in ROUTES} - vary:
        assert any(re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), one) for one in covered), path


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}")


async def test_the_routes_whose_answers_vary() -> None:
    """They answer in the format that the page tells."""
    async with running(metrics=METRICS) as server, client_of(server) as client:
        stats = (await client.get("/api/stats")).json()
        assert stats["lines"]["received"] == 0
        (example,) = re.findall(r'`({"files".*?})`', PAGE)
        assert (await client.post("/api/checkpoint")).json().keys() == json.loads(example).keys()
        metrics = await client.get("/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain; version=")
        assert "\nccstore_ready 1.0\n" in metrics.text
        index = (await client.get("/")).text
    assert index == status._INDEX
    listed = {path for path in re.findall(r"(/[a-z0-9_{}/.]+)", index) if path != "/"}
    assert listed == {route.path for route in ROUTES} - {"/", "/page/{name}"}


async def test_not_ready() -> None:
    """A server with a problem answers 503 and tells it, and goes on to work."""
    async with running(metrics=METRICS) as server, client_of(server) as client:
        server.services.over_cap = True
        answer = await client.get("/api/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
        assert answer.json()["problems"] == server.services.problems() != []
        assert (await client.get("/api/health/live")).status_code == 200
        await server.write("cpu_load,cluster=c,hostname=h value=1")


def test_the_keys_of_a_query_by_job() -> None:
    """The page has each of them."""
    rows = table(PAGE.split("### Queries by job", 1)[1], "Key | Default | Meaning")
    assert {name.strip("`") for row in rows for name in row[0].split(", ")} == set(_FIELDS[JobQuery])
    scopes = next(row[2] for row in rows if row[0] == "`scope`")
    assert re.findall(r"`(\w+)`", scopes) == list(SCOPES)
