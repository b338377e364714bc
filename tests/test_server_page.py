"""The page: what is served, to whom, and that it needs nothing from outside."""

import re
from importlib.resources import files
from posixpath import normpath

import pytest
from apiserver import running
from serving import ask

WEB = files("ccstore") / "web"
NAMES = sorted(
    str(path.relative_to(WEB)) for path in WEB.rglob("*") if path.is_file() and path.suffix != ".map"
)
OURS = [name for name in NAMES if not name.startswith("vendor/")]
BROWSER = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8")]


async def test_a_browser_gets_the_page_and_a_program_the_list_of_routes():
    """Who asks for HTML gets it; curl does not."""
    async with running() as server:
        page = await ask(server.port, "GET", "/", BROWSER)
        plain = await ask(server.port, "GET", "/", [("Accept", "*/*")])
    assert page["Content-Type"] == "text/html; charset=utf-8"
    assert page.body == (WEB / "index.html").read_bytes()
    assert plain["Content-Type"] == "text/plain; charset=utf-8"
    assert b"POST /api/write" in plain.body
    assert page["Vary"] == plain["Vary"] == "Accept"


async def test_every_file_is_served_as_what_it_is_and_only_once():
    """With its type and a policy that allows nothing from elsewhere; who has it gets 304."""
    async with running() as server:
        for name in NAMES:
            answer = await ask(server.port, "GET", f"/page/{name}")
            assert (answer.status, answer.body) == (200, (WEB / name).read_bytes())
            assert answer["Content-Type"].split("/")[0] in ("text", "image")
            assert answer["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
            assert answer["X-Content-Type-Options"] == "nosniff"
            again = await ask(server.port, "GET", f"/page/{name}", [("If-None-Match", answer["ETag"])])
            assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/../server/page.py", "/page/%2e%2e/errors.py"]
)
async def test_nothing_else_is_served(path):
    """A name is looked up, never opened."""
    async with running() as server:
        assert (await ask(server.port, "GET", path)).status == 404


@pytest.mark.parametrize("name", OURS)
def test_what_a_file_names_is_there(name):
    """Every file that a page, a style or a module names exists."""
    text = (WEB / name).read_text()
    wanted = {path.removeprefix("/page/") for path in re.findall(r"(?:href|src)=\"(/page/[^\"]+)\"", text)}
    above = name.rpartition("/")[0]
    wanted |= {normpath(f"{above}/{path}").lstrip("/") for path in re.findall(r"from \"(\.[^\"]+)\"", text)}
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_from_outside(name):
    """No file names another server; XML namespaces and licences are names, not addresses."""
    addresses = re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]+[^\s\"')]*", (WEB / name).read_text())
    assert [
        a for a in addresses if not a.startswith(("http://www.w3.org/", "https://github.com/leeoniya"))
    ] == []
