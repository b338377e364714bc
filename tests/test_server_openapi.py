"""/api/openapi.json is true: it has every route, and the server keeps what it says."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
import service_tools
import trio
from apiserver import running
from effort import EXAMPLES
from test_docs_http import ROUTES, sections
from test_server_api_permissions import PRIVATE_KEY, PUBLIC_KEY

from ccstore.server import service
from ccstore.server.openapi import make_document

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "http.md").read_text(encoding="utf-8")


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations by method and path."""
    found = {}
    for path, methods in make_document()["paths"].items():
        found |= {(method.upper(), path): made for method, made in methods.items()}
    return found


async def test_every_route_is_in_the_document_and_no_other() -> None:
    """With its methods; HEAD comes with GET."""
    async with running() as server:
        app = service._make_app(server.services.config, server.services)
    rules = [
        rule
        for rule in app.url_map.iter_rules()
        if "<below:below>" not in rule.rule and (rule.rule == "/" or not rule.rule.endswith("/"))
    ]
    registered = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert registered == operations().keys()


def test_permissions_are_those_of_the_page() -> None:
    """Both places name the same one, and a route that nobody needs a token for is marked as such."""
    named = {
        key: re.findall(r"Permission: (\w+)\.", made["description"]) for key, made in operations().items()
    }
    assert named == {
        (method, route.path): [route.permission] for route in sections() for method in route.methods
    }
    assert {key for key, made in operations().items() if not made["security"]} == {
        key for key, permission in named.items() if permission == ["none"]
    }


def test_every_status_of_the_page_is_in_the_document() -> None:
    """Each status that http.md lists can be the answer of some route; 405 is that of a route that is none."""
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", PAGE, re.MULTILINE)
    listed = {status for row in rows for status in row.split(", ")}
    used = {status for made in operations().values() for status in made["responses"]}
    assert listed - {"404", "405"} <= used <= listed
    assert len(listed) > 8


def test_references_lead_somewhere() -> None:
    """Every $ref is there, and every schema is used."""
    document = make_document()
    text = json.dumps(document)
    named = set(re.findall(r'"#/components/(\w+/\w+)"', text))
    kept = {f"{kind}/{name}" for kind in ("schemas", "responses") for name in document["components"][kind]}
    assert named <= kept
    assert {name for name in kept if name.startswith("schemas/")} <= named


def test_names_of_operations_are_unique() -> None:
    """A generator makes a function of each."""
    names = [made["operationId"] for made in operations().values()]
    assert len(set(names)) == len(names)


async def test_the_server_serves_it() -> None:
    """Without a token, as JSON."""
    async with running(jwt_public_key=PUBLIC_KEY) as server:
        answer = await server.ask("GET", "/api/openapi.json")
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.body) == make_document()
    assert len(ROUTES) > 10


@pytest.mark.timeout(300)
async def test_the_server_keeps_its_word(tmp_path: Path) -> None:
    """schemathesis asks every route in many ways, good and bad; every answer is one that the document has."""
    token = jwt.encode({"roles": ["admin"]}, PRIVATE_KEY, algorithm="EdDSA")
    config = Path(__file__).with_name("schemathesis.toml")
    async with service_tools.running(service_tools.make_config(jwt_public_key=PUBLIC_KEY)) as server:
        await service_tools.fill(server.services, service_tools.lines(["a0001"], cluster="alex"))
        command = [
            sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config),
            "run", f"{server.url}/api/openapi.json", "--checks", "all", "--continue-on-failure",
            "--seed", "1", "--max-examples", str(max(5, EXAMPLES // 15)), "--generation-database", "none",
            "--header", f"Authorization: Bearer {token}", "--header", f"X-Auth-Token: {token}",
        ]  # fmt: skip
        done = await trio.run_process(command, cwd=tmp_path, capture_stdout=True, check=False)
        received = server.received
    report = done.stdout.decode()
    assert done.returncode == 0, report
    (generated,) = re.findall(r"(\d+) generated", report)
    assert int(generated) > 300
    assert received > 0
