"""``/api/free``, ``/api/debug`` and ``/api/healthcheck`` of a whole server."""

import json
from typing import Any

import pytest
from apiserver import Point, Server, error_of, example, running, series
from serving import NOW

from ccstore.server import api
from ccstore.wire.requests import encode_levels

SLASHES = ["/api/{}", "/api/{}/", "/api/{}/below"]

# --- free


async def free(server: Server, to: Any, selectors: Any) -> str:
    """Free, and return the answer's text."""
    answer = await server.ask("POST", f"/api/free?to={to}", selectors)
    assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    return answer.body.decode()


@pytest.mark.parametrize(
    ("to", "freed"), [(1239, 0), (1240, 0), (1241, 1), (-5, 0), (2**63 - 1, 1), (-(2**63), 0)]
)
async def test_what_ends_before_a_time_is_freed(to: int, freed: int) -> None:
    """A chunk goes if its end lies before the time, and its host with it if it was the last one."""
    async with running() as server:
        await server.write(*series("x", "h", range(4)))
        assert await free(server, to, [[]]) == f"buffers freed: {freed}\n"
        assert bool(server.services.store.hosts("c")) == (not freed)


@pytest.mark.parametrize(
    ("selectors", "freed"),
    [
        ([[]], 6),
        ([["c"], ["d"]], 6),
        ([["c"]], 4),
        ([["c", "h"]], 3),
        ([["c", "h", "socket0"]], 1),
        ([["c", "h", "socket0"], ["c", "h", "socket2"]], 2),
        ([["c", "h"], ["c"], [], []], 6),
        ([["c", "h", "socket1"]], 0),
        ([["nope"], ["c", "nope"], [""]], 0),
        ([], 0),
        ("null", 0),
    ],
    ids=str,
)
async def test_selectors(selectors: Any, freed: int) -> None:
    """Each is a path; all names below it are meant, and what is unknown stays so."""
    async with running() as server:
        await server.write(*example(), *series("x", "g", [1]))
        await server.write(*series("x", "h", [1], cluster="d"), *series("x", "g", [1], cluster="d"))
        places = server.services.store.statistics()
        assert await free(server, 10_000, selectors) == f"buffers freed: {freed}\n"
        if not freed:
            assert server.services.store.statistics() == places


@pytest.mark.parametrize("target", SLASHES)
async def test_free_with_and_without_slash(target: str) -> None:
    """Both mean the same, and so does everything below."""
    async with running() as server:
        await server.write(*series("x", "h", [1]))
        answer = await server.ask("POST", target.format("free") + "?to=10000", "[[]]")
        assert answer.body == b"buffers freed: 1\n"


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("", "[[]]", "to: '' (wanted seconds since the epoch)"),
        ("?to=", "[[]]", "to: '' (wanted seconds since the epoch)"),
        ("?to=x", "[[]]", "to: 'x' (wanted seconds since the epoch)"),
        ("?to=1.5", "[[]]", "to: '1.5' (wanted seconds since the epoch)"),
        ("?to=1_0", "[[]]", "to: '1_0' (wanted seconds since the epoch)"),
        ("?to=--1", "[[]]", "to: '--1' (wanted seconds since the epoch)"),
        ("?to=" + "9" * 19, "[[]]", f"to: {'9' * 19!r} (wanted seconds since the epoch)"),
        ("?to=%D9%A3", "[[]]", "to: '\u0663' (wanted seconds since the epoch)"),
        ("?to=" + "9" * 5000, "[[]]", f"to: {'9' * 40!r} (wanted seconds since the epoch)"),
        ("?to=1", "", "body: empty (wanted JSON)"),
        ("?to=1", "nonsense", "body: not JSON"),
        ("?to=1", "{}", "body: not a list (wanted a list of selectors, each a list of names)"),
        ("?to=1", '["c"]', "body[0]: not a list of names (wanted cluster, host ...)"),
        ("?to=1", '[["c"],["c",1]]', "body[1]: not a list of names (wanted cluster, host ...)"),
        ("?to=1", '[["c",null]]', "body[0]: not a list of names (wanted cluster, host ...)"),
    ],
)
async def test_bad_requests_to_free(query: str, body: str, text: str) -> None:
    """Each gets 400 and frees nothing."""
    async with running() as server:
        await server.write(*series("x", "h", [1]))
        answer = await server.ask("POST", f"/api/free{query}", body)
        assert answer.status == 400
        assert error_of(answer)["error"].startswith(text)
        assert server.services.store.hosts("c") == ["h"]


async def test_a_series_that_was_freed_can_be_written_again() -> None:
    """What comes later is stored, under a number that may be another one."""
    async with running() as server:
        for time in range(1000, 10_000, 1000):
            await server.write(*series("x", "h", [time], start=time))
            assert await free(server, time + 500, [["c", "h"]]) == "buffers freed: 1\n"
        assert server.counts() == {"received": 9, "stored": 9}


# --- debug


async def debug(server: Server, query: str = "") -> str:
    """Look into the store, and return the answer's text."""
    answer = await server.ask("GET", f"/api/debug{query}")
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    return answer.body.decode()


async def test_the_worked_example_of_debug() -> None:
    """The indented form of the contract, without the comma that makes it no JSON."""
    async with running() as server:
        await server.write(*series("m", "h", range(3)))
        assert await debug(server) == (
            '{"data":{\n\t"c":{\n\t\t"h":{\n\t\t\t"m":[{"start":970,"len":3,"end":1150}]\n\t\t}\n\t}\n}}\n'
        )


async def test_a_whole_tree_is_json() -> None:
    """Series, then children, in the order of the names, all chunks oldest first."""
    pci = "type=accelerator,type-id=00000000:49:00.0,stype=mem,stype-id=1"
    async with running() as server:
        await server.write(
            *example(), *series("load", "h", [1]), *series("x", "h", [1], start=100_000),
            *series("m", "g", [1], component=pci), *series("x", 'quo"te', [1], cluster="d\u00fc"),
        )  # fmt: skip
        value = json.loads(await debug(server))
        one = {"start": 970, "len": 1, "end": 1030}
        five = {"start": 970, "len": 5, "end": 1270}
        assert value == {"data": {
            "c": {
                "g": {"accelerator00000000:49:00.0": {"mem1": {"m": [one]}}},
                "h": {
                    "load": [one], "x": [five, {"start": 99_970, "len": 1, "end": 100_030}],
                    "socket0": {"m": [five]}, "socket2": {"m": [five]},
                },
            },
            "d\u00fc": {'quo"te': {"x": [one]}},
        }}  # fmt: skip
        assert list(value["data"]["c"]["h"]) == ["load", "x", "socket0", "socket2"]
        below = value["data"]["c"]["h"]
        assert json.loads(await debug(server, "?selector=c:h")) == {"data": below}
        assert json.loads(await debug(server, "?part=c&part=h")) == {"data": below}
        assert json.loads(await debug(server, "?selector=c:h:socket2")) == {"data": {"m": [five]}}
        parts = "?part=c&part=g&part=accelerator00000000:49:00.0"
        assert json.loads(await debug(server, parts)) == {"data": {"mem1": {"m": [one]}}}
        assert json.loads(await debug(server, "?selector=")) == value


async def test_debug_of_an_empty_store() -> None:
    """It is an empty object."""
    async with running() as server:
        assert json.loads(await debug(server)) == {"data": {}}


@pytest.mark.parametrize("query", ["selector=nope", "selector=c:nope", "selector=c:h:x", "selector=c::",
                                   "part=c&part=", "selector=:"])  # fmt: skip
async def test_debug_of_what_is_not_there(query: str) -> None:
    """A path that leads nowhere is an error."""
    async with running() as server:
        await server.write(*series("x", "h", [1]))
        answer = await server.ask("GET", f"/api/debug?{query}")
    assert answer.status == 400
    assert error_of(answer)["error"].endswith(" not found")


async def test_debug_of_what_was_freed() -> None:
    """What is empty is not shown, and what lies beside it is."""
    async with running() as server:
        await server.write(*series("x", "h", [1]), *series("x", "g", [1]))
        await free(server, 10_000, [["c", "h"]])
        assert list(json.loads(await debug(server))["data"]["c"]) == ["g"]
        assert (await server.ask("GET", "/api/debug?selector=c:h")).status == 400


async def test_debug_while_the_tree_changes() -> None:
    """Hosts that go during a walk are not shown, nor with what now has their numbers; the rest is JSON."""
    async with running(limits={"max_series": 200}) as server:
        await server.write(*(line for k in range(200) for line in series("x", f"old{k:03}", range(5))))
        levels = encode_levels(api._levels(server.services.store, ()))
        begun = [next(levels) for _ in range(100)]
        assert await free(server, 100_000, [["c"]]) == "buffers freed: 200\n"
        await server.write(*(line for k in range(200) for line in series("m", f"new{k:03}", [1], start=5000)))
        assert server.services.store.statistics().series == 200  # all numbers are in use again
        shown = json.loads(b"".join([*begun, *levels]))["data"]["c"]
    assert list(shown) == [f"old{k:03}" for k in range(len(shown))]
    assert 90 < len(shown) < 100
    five = {"start": 970, "len": 5, "end": 1270}
    assert all(host == {"x": [five]} for host in shown.values())


@pytest.mark.parametrize("target", SLASHES)
async def test_debug_with_and_without_slash(target: str) -> None:
    """Both mean the same, and so does everything below; POST is refused."""
    async with running() as server:
        assert json.loads((await server.ask("GET", target.format("debug"))).body) == {"data": {}}
        assert (await server.ask("POST", target.format("debug"))).status == 405


# --- healthcheck


def age(metric: str, host: str, seconds: int, component: str = "") -> str:
    """Write a sample that is so old."""
    return str(Point(metric, host, 1, NOW - seconds, component=component))


async def check(server: Server, nodes: list[str], metrics: list[str]) -> dict[str, Any]:
    """Ask for the health of hosts."""
    body = {"cluster": "c", "nodes": nodes, "metric-names": metrics}
    answer = await server.ask("GET", "/api/healthcheck", body)
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    value: dict[str, Any] = json.loads(answer.body)
    return value


async def test_the_worked_example_of_health() -> None:
    """Text, keys and order are those of the contract."""
    async with running() as server:
        await server.write(age("m", "h1", 0))
        body = {"cluster": "c", "nodes": ["h1", "h2"], "metric-names": ["m"]}
        answer = await server.ask("GET", "/api/healthcheck", body)
    assert answer.body == (
        b'{"h1":{"State":"full","HealthMetrics":"{\\"degraded\\":[],\\"missing\\":[]}"},'
        b'"h2":{"State":"failed","HealthMetrics":""}}\n'
    )


@pytest.mark.parametrize(("seconds", "state"), [(0, "full"), (330, "full"), (331, "failed")])
async def test_from_when_on_a_metric_is_degraded(seconds: int, state: str) -> None:
    """Five frequencies behind the end of the newest slot."""
    async with running() as server:
        await server.write(age("m", "h", seconds))
        assert (await check(server, ["h"], ["m"]))["h"]["State"] == state


async def test_one_component_degrades_a_metric() -> None:
    """The lists keep the order of the request; unknown metrics are missing."""
    async with running() as server:
        await server.write(
            age("m", "h", 0, "type=cpu,type-id=0"), age("m", "h", 1000, "type=cpu,type-id=1"),
            age("x", "h", 0),
        )  # fmt: skip
        lists = {"degraded": ["m"], "missing": ["load", "unknown"]}
        health = (await check(server, ["h"], ["m", "x", "load", "unknown"]))["h"]
        assert (health["State"], json.loads(health["HealthMetrics"])) == ("partial", lists)
        assert (await check(server, ["h"], ["m"]))["h"]["State"] == "failed"
        assert (await check(server, ["h"], []))["h"]["State"] == "full"


async def test_hosts_are_answered_once_and_in_order() -> None:
    """Also if they are many, or asked for twice; none is an empty object."""
    async with running() as server:
        await server.write(*(age("m", f"h{k}", 0) for k in range(1000)))
        assert await check(server, [], ["m"]) == {}
        names = [f"h{k}" for k in range(999, -1, -1)]
        health = await check(server, names * 2, ["m"] * 500)
    assert list(health) == names
    assert {node["State"] for node in health.values()} == {"full"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "body: empty (wanted JSON)"),
        ("[]", "body: a list (wanted an object)"),
        ('{"cluster":1}', "body.cluster: 1 (wanted a string)"),
        ('{"nodes":["a",1]}', "body.nodes[1]: 1 (wanted a string)"),
        ('{"cluster":"c","unknown":1}', 'body: unknown key "unknown"'),
    ],
)
async def test_bad_requests_for_health(body: str, text: str) -> None:
    """Unknown keys are refused here."""
    async with running() as server:
        answer = await server.ask("GET", "/api/healthcheck", body)
    assert answer.status == 400
    assert error_of(answer) == {"error": text}


@pytest.mark.parametrize("target", SLASHES)
async def test_health_with_and_without_slash(target: str) -> None:
    """Both mean the same, and so does everything below; POST tells of states instead."""
    async with running() as server:
        assert (await server.ask("GET", target.format("healthcheck"), {})).body == b"{}\n"
        told = await server.ask("POST", target.format("healthcheck"), {})
        assert (told.status, json.loads(told.body)["stored"]) == (200, 0)
