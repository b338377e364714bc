"""The HTTP API of Prometheus on a whole server: shapes, errors, limits, and what Grafana asks for."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
import yaml
from apiserver import Server, make_config, running, series
from serving import NOW, Answer

from ccstore.errors import QueryError, UnavailableError
from ccstore.memory import components, promql
from ccstore.memory.kernels import promql as kernels
from ccstore.model import Aggregation, Metric
from ccstore.server import prometheus, stepwise
from ccstore.server.services import Services
from ccstore.wire import prometheus as wire
from ccstore.wire import promql as promql_text
from ccstore.wire.promql import parse_query

METRICS = (Metric("flops_any", 60, Aggregation.SUM, "GF/s"), Metric("cpu_load", 60), Metric("a.b", 10))
BEGIN = NOW - 600
"""Time of the first sample of `example`."""

FORM = [("Content-Type", "application/x-www-form-urlencoded")]
Parameters = Sequence[tuple[str, object]]


def example() -> list[str]:
    """Write ten minutes of two hosts with two sockets each, and of the load of one."""
    lines = []
    for host in ("a0001", "a0002"):
        for socket in (0, 1):
            values = [100.0 * socket + minute for minute in range(11)]
            tags = f"type=socket,type-id={socket}"
            lines += series("flops_any", host, values, start=BEGIN, component=tags, cluster="alex")
    return [*lines, *series("cpu_load", "a0001", [0.5] * 11, start=BEGIN, cluster="alex")]


async def ask(server: Server, path: str, parameters: Parameters = (), *, post: bool = False) -> Answer:
    """Ask with parameters in the URL, or as a form."""
    text = urlencode(list(parameters))
    if post:
        return await server.ask("POST", f"/api/v1/{path}", text, headers=FORM)
    return await server.ask("GET", f"/api/v1/{path}?{text}")


async def data(server: Server, path: str, parameters: Parameters = (), *, post: bool = False) -> Any:
    """Ask, and return the data of the answer, which is a success."""
    answer = await ask(server, path, parameters, post=post)
    assert (answer.status, answer["Content-Type"]) == (200, "application/json"), answer.body
    value = json.loads(answer.body)
    assert value.pop("status") == "success"
    return value.pop("data") if value.keys() == {"data"} else value


async def error(
    server: Server, path: str, parameters: Parameters = (), *, post: bool = False
) -> tuple[int, str, str]:
    """Ask, and return status, kind and text of the error."""
    answer = await ask(server, path, parameters, post=post)
    assert answer["Content-Type"] == "application/json"
    value = json.loads(answer.body)
    assert value.keys() == {"status", "errorType", "error"}
    assert value["status"] == "error"
    return answer.status, value["errorType"], value["error"]


def labels(host: str, socket: int, **more: str) -> dict[str, str]:
    return {**more, "cluster": "alex", "hostname": host, "type": "socket", "type_id": str(socket)}


# --- shapes


async def test_an_instant_vector() -> None:
    """Each series with its labels, and a pair of time and text."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        found = await data(server, "query", [("query", "flops_any"), ("time", f"{BEGIN + 90}.5")])
        assert found == {
            "resultType": "vector",
            "result": [
                {
                    "metric": labels(host, socket, __name__="flops_any"),
                    "value": [BEGIN + 90.5, str(100 * socket + 1)],
                }
                for host in ("a0001", "a0002")
                for socket in (0, 1)
            ],
        }
        assert (await data(server, "query", [("query", "flops_any")]))["result"][0]["value"] == [NOW, "10"]
        assert await data(server, "query", [("query", "nothing")]) == {"resultType": "vector", "result": []}


async def test_a_scalar() -> None:
    """A pair without labels; over a range, a series without labels."""
    async with running(make_config(METRICS)) as server:
        found = await data(server, "query", [("query", "-7 % 4 / 0"), ("time", "1435781451.781")])
        assert found == {"resultType": "scalar", "result": [1435781451.781, "-Inf"]}
        at = [("start", "1"), ("end", "2"), ("step", "0.5")]
        found = await data(server, "query_range", [("query", "1+1"), *at])
        assert found == {
            "resultType": "matrix",
            "result": [{"metric": {}, "values": [[1, "2"], [1.5, "2"], [2, "2"]]}],
        }


async def test_a_matrix() -> None:
    """Each series that has any value, with its values at the steps that have one; the end is one of them."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        at = [("start", BEGIN - 60), ("end", "2023-11-14T22:04:20Z"), ("step", "1m")]
        found = await data(server, "query_range", [("query", 'flops_any{type_id="1"} / 0 - 1'), *at])
        assert found == {
            "resultType": "matrix",
            "result": [
                {"metric": labels(host, 1), "values": [[BEGIN, "+Inf"], [BEGIN + 60, "+Inf"]]}
                for host in ("a0001", "a0002")
            ],
        }
        found = await data(
            server, "query_range", [("query", "sum by (hostname) (flops_any)"), *at], post=True
        )
        assert found["result"] == [
            {"metric": {"hostname": host}, "values": [[BEGIN, "100"], [BEGIN + 60, "102"]]}
            for host in ("a0001", "a0002")
        ]
        found = await data(
            server, "query_range", [("query", "cpu_load"), ("start", 0), ("end", 60), ("step", 15)]
        )
        assert found == {"resultType": "matrix", "result": []}


async def test_what_there_is() -> None:
    """Series, names and values of labels, metadata."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        one = [("match[]", 'flops_any{hostname="a0002"}')]
        two = [("match[]", '{type_id="1"}'), *one]
        assert await data(server, "series", one) == [labels("a0002", s, __name__="flops_any") for s in (0, 1)]
        assert await data(server, "series", two) == [
            labels(host, socket, __name__="flops_any")
            for host, socket in [("a0001", 1), ("a0002", 1), ("a0002", 0)]
        ]
        assert await data(server, "labels") == ["__name__", "cluster", "hostname", "type", "type_id"]
        assert await data(server, "labels", [("match[]", "cpu_load")]) == ["__name__", "cluster", "hostname"]
        assert await data(server, "label/__name__/values") == ["cpu_load", "flops_any"]
        assert await data(server, "label/__name__/values", two) == ["flops_any"]
        assert await data(server, "label/cluster/values") == ["alex"]
        assert await data(server, "label/hostname/values", [("match[]", "cpu_load")]) == ["a0001"]
        assert await data(server, "label/type_id/values") == ["0", "1"]
        assert await data(server, "label/stype/values") == await data(server, "label/other/values") == []
        assert await data(server, "metadata", [("limit", 2)]) == {
            "flops_any": [{"type": "gauge", "help": "every 60 s, components add up", "unit": "GF/s"}],
            "cpu_load": [{"type": "gauge", "help": "every 60 s", "unit": ""}],
        }
        assert (await data(server, "metadata", [("metric", "a.b")])).keys() == {"a.b"}
        assert await data(server, "metadata", [("metric", "other")]) == {}


async def test_limits_of_lists() -> None:
    """`limit` cuts lists, and a warning says so; 0 means all."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        warning = {"warnings": ["results truncated due to limit"]}
        for path, count in (("series", 4), ("labels", 5), ("label/type_id/values", 2)):
            match = ("match[]", "flops_any")
            whole = await data(server, path, [match])
            assert len(whole) == count
            assert await data(server, path, [match, ("limit", 0)]) == whole
            assert await data(server, path, [match, ("limit", 1)]) == {"data": whole[:1], **warning}
            assert await data(server, path, [match, ("limit", count + 1)]) == whole


# --- what Grafana asks for


@pytest.mark.parametrize("post", [False, True], ids=["GET", "POST"])
async def test_the_requests_of_grafana(post: bool) -> None:
    """Those that add and test a data source, open the query builder, fill variables and draw a panel."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        span = [("start", BEGIN), ("end", NOW)]
        # "Save & test"
        found = await data(server, "query", [("query", "1+1"), ("time", "4")], post=post)
        assert found == {"resultType": "scalar", "result": [4, "2"]}
        info = await data(server, "status/buildinfo")
        assert info.keys() == {"version", "revision", "branch", "buildUser", "buildDate", "goVersion"}
        assert tuple(map(int, info["version"].split("."))) >= (2, 37, 0), (
            "values of labels can be asked for by selector"
        )
        # the query builder: metrics, then labels of the chosen one, then values
        assert await data(server, "label/__name__/values", span) == ["cpu_load", "flops_any"]
        assert "flops_any" in await data(server, "metadata")
        chosen = ("match[]", '{__name__="flops_any"}')
        found = await data(server, "labels", [*span, chosen, ("limit", 40000)], post=post)
        assert found == ["__name__", "cluster", "hostname", "type", "type_id"]
        found = await data(server, "label/hostname/values", [*span, chosen, ("limit", 40000)])
        assert found == ["a0001", "a0002"]
        found = await data(server, "series", [*span, chosen], post=post)
        assert len(found) == 4
        # a panel: the interval is interpolated; hosts of a variable become alternatives
        panel = [
            ("query", 'sum by(hostname) (rate(flops_any{cluster="alex", hostname=~"a0001|a0002"}[4m15s]))'),
            ("start", f"{BEGIN}"), ("end", f"{NOW}"), ("step", "15"), ("timeout", "60s"),
        ]  # fmt: skip
        found = await data(server, "query_range", panel, post=post)
        assert [row["metric"] for row in found["result"]] == [{"hostname": "a0001"}, {"hostname": "a0002"}]
        assert found["result"][0]["values"][-1] == [NOW, "0.03333333333333333"]
        # what it tries and does without
        for path in ("rules", "query_exemplars", "status/flags"):
            assert (await ask(server, path)).status == 404


async def test_a_form_and_a_url() -> None:
    """Parameters may stand in either; those of the form come first."""
    async with running(make_config(METRICS)) as server:
        answer = await server.ask("POST", "/api/v1/query?time=5&query=2", "query=1%2B1&time=7", headers=FORM)
        assert json.loads(answer.body)["data"]["result"] == [7, "2"]
        answer = await server.ask("POST", "/api/v1/query?time=5&query=2", "", headers=FORM)
        assert json.loads(answer.body)["data"]["result"] == [5, "2"]


# --- errors and limits

NO_MATCHER = "vector selector must contain at least one non-empty matcher"
RANGE = [("query", "cpu_load"), ("start", 0), ("end", 60), ("step", 15)]


def but(**changed: object) -> Parameters:
    """Return parameters of a range with some replaced, or left out where None."""
    return [(name, changed.get(name, value)) for name, value in RANGE if changed.get(name, value) is not None]


@pytest.mark.parametrize(
    ("path", "parameters", "text"),
    [
        ("query", [], "invalid parameter 'query': 1:1: parse error: no expression"),
        ("query", [("query", "a +")],
         "invalid parameter 'query': 1:4: parse error: unexpected 'end of the query'"),
        ("query", [("query", "1"), ("time", "x")],
         "invalid parameter 'time': cannot parse 'x' to a valid timestamp"),
        ("query_range", but(start=None), "invalid parameter 'start': cannot parse '' to a valid timestamp"),
        ("query_range", but(end="x"), "invalid parameter 'end': cannot parse 'x' to a valid timestamp"),
        ("query_range", but(step=None), "invalid parameter 'step': cannot parse '' to a valid duration"),
        ("query_range", but(step="0"),
         "invalid parameter 'step': zero or negative step (wanted a positive one)"),
        ("query_range", but(step="-1"),
         "invalid parameter 'step': zero or negative step (wanted a positive one)"),
        ("query_range", but(start=61),
         "invalid parameter 'end': end timestamp must not be before start time"),
        ("query_range", but(end=11_000 * 15 + 15),
         "exceeded maximum resolution of 11000 points per timeseries (wanted a larger step)"),
        ("series", [], "no match[] parameter provided"),
        ("series", [("match[]", "a +")],
         "invalid parameter 'match[]': 1:4: parse error: unexpected 'end of the query'"),
        ("labels", [("match[]", "{}")],
         f"invalid parameter 'match[]': 1:1: parse error: {NO_MATCHER}"),
        ("labels", [("start", "x")], "invalid parameter 'start': cannot parse 'x' to a valid timestamp"),
        ("labels", [("limit", "-1")], "invalid parameter 'limit': '-1' (wanted an integer, at least 0)"),
        ("label/a-b/values", [], "invalid label name: 'a-b'"),
    ],
)  # fmt: skip
async def test_bad_requests(path: str, parameters: Parameters, text: str) -> None:
    """What cannot be understood is 400, kind bad_data, and says what and where."""
    async with running(make_config(METRICS)) as server:
        assert await error(server, path, parameters) == (400, "bad_data", text)


async def test_the_most_points() -> None:
    """11 000 steps are one more than 11 000 points, as in Prometheus; huge steps and times are fine."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        found = await data(server, "query_range", [("query", "1"), *but(end=11_000 * 15)[1:]])
        assert len(found["result"][0]["values"]) == 11_001
        huge = 2**53 // 1000 - 1
        for query in ("cpu_load", "rate(cpu_load[200y])", "sum(cpu_load)"):
            at = [("query", query), ("start", -huge), ("end", huge), ("step", huge // 5000)]
            await data(server, "query_range", at)
            at = [("query", query), ("start", BEGIN), ("end", BEGIN), ("step", huge)]
            assert len((await data(server, "query_range", at))["result"]) == (query[:4] != "rate")


async def test_bad_forms() -> None:
    """A body that is too large, has too many fields or no text costs its sender an error."""
    async with running(make_config(METRICS)) as server:
        for body, status in (
            (b"a" * 2**20 + b"a", 413),
            (b"&".join([b"a=b"] * 101), 400),
            (b"query=\xff", 400),
            (b"query=%FF", 400),
        ):
            answer = await server.ask("POST", "/api/v1/query", body, headers=FORM)
            assert (answer.status, json.loads(answer.body)["errorType"]) == (status, "bad_data")


async def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks for too much is 422, kind execution, and so are names that do not tell series apart."""
    async with running(make_config(METRICS, max_query_selectors=4)) as server:
        await server.write(*example())
        assert len((await data(server, "query", [("query", "flops_any")]))["result"]) == 4
        status, kind, text = await error(server, "query", [("query", '{cluster="alex"}')])
        assert (status, kind) == (422, "execution")
        assert text == "query: more than 4 series (wanted a narrower selector)"
        twice = [("query", '{__name__=~"cpu_load|a.b",hostname="a0001"} * 2')]
        await server.write("a.b,cluster=alex,hostname=a0001 value=1")
        status, kind, text = await error(server, "query", twice)
        assert (status, kind, text) == (
            422,
            "execution",
            "vector cannot contain metrics with the same labelset",
        )
        monkeypatch.setattr(promql, "MAX_POINTS", 19)
        assert (await error(server, "query_range", [("query", "flops_any"), *RANGE[1:]]))[:2] == (
            422,
            "execution",
        )


async def test_no_limit() -> None:
    """`main.max-query-selectors` 0 means none."""
    async with running(make_config(METRICS, max_query_selectors=0)) as server:
        await server.write(*example())
        assert len((await data(server, "query", [("query", '{cluster="alex"}')]))["result"]) == 5


async def test_while_the_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """503, kind unavailable, with the time after which to ask again."""

    def check_recovered(_services: Services) -> None:
        raise UnavailableError("recovering: 42%")

    async with running(make_config(METRICS)) as server:
        monkeypatch.setattr(Services, "check_recovered", check_recovered)
        assert await error(server, "query", [("query", "1")]) == (503, "unavailable", "recovering: 42%")
        assert (await ask(server, "labels"))["Retry-After"] == "1"


# --- long answers


async def test_a_long_answer_is_sent_in_pieces() -> None:
    """It has no Content-Length, is whole, and others run in between."""
    async with running(make_config(METRICS)) as server:
        await server.write(*example())
        at = [("query", "flops_any"), ("start", BEGIN), ("end", NOW), ("step", "0.06")]
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            answer = await ask(server, "query_range", at)
            nursery.cancel_scope.cancel()
        assert len(answer.body) > 2 * stepwise.SMALL_ANSWER
        assert answer["Content-Length"] is None
        result = json.loads(answer.body)["data"]["result"]
        assert [len(row["values"]) for row in result] == [10001] * 4
        assert turns > 4


# --- documentation and examples

ROOT = Path(__file__).parents[1]


def test_the_data_source() -> None:
    """The file for Grafana names the port and the version of the server, and asks as the tests above do."""
    text = (ROOT / "examples" / "grafana" / "datasource.yml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    assert source["url"].endswith(":8082")
    assert source["jsonData"]["prometheusVersion"] == prometheus._SPEAKS
    assert source["jsonData"]["httpMethod"] == "POST"


PAGES = {
    page: (ROOT / "docs" / page).read_text(encoding="utf-8")
    for page in ("reference/prometheus.md", "how-to/grafana.md")
}


def test_the_queries_of_the_pages() -> None:
    """Each one that is shown can be parsed; `$__rate_interval` stands for what Grafana makes of it."""
    rows = re.findall(r"^\| [^|]* \| (`.*`.*) \|$", PAGES["how-to/grafana.md"], re.MULTILINE)
    assert len(rows) > 5
    for row in rows:
        parse_query(row.strip("`").replace("$__rate_interval", "4m"))
    rows = re.findall(
        r"^\| (?:numbers|selectors|functions) \| (.*) \|$", PAGES["reference/prometheus.md"], re.MULTILINE
    )
    shown = [text for row in rows for text in re.findall(r"`([^`]*)`", row)]
    assert len(shown) > 9
    for text in shown:
        parse_query(text)


def test_what_the_page_says_is_not_supported() -> None:
    """The functions it names are refused, and the error it shows is the real one."""
    page = PAGES["reference/prometheus.md"]
    (functions,) = re.findall(r"^\((`irate`.*?)\):", page, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", functions):
        with pytest.raises(QueryError, match="is not supported"):
            parse_query(f"{name}(a)")
    (shown,) = re.findall(r"^invalid parameter 'query': (.*)$", page, re.MULTILINE)
    with pytest.raises(QueryError) as caught:
        parse_query("sum(a) by (host)  / sum(b)")
    assert str(caught.value) == shown


@pytest.mark.parametrize(
    "limit",
    [
        f"| {wire.MAX_STEPS:,} and the one at the end |",
        f"| {promql_text._MAX_LENGTH:,} characters |",
        f"| {promql_text._MAX_PARTS} |",
        f"| {promql_text._PATTERN_BYTES >> 20} MiB |",
        f"| {promql.MAX_POINTS:,} |",
        f"| {promql.MAX_KEPT:,} |",
        "| two frequencies of the metric |",
    ],
)
def test_the_limits_of_the_page(limit: str) -> None:
    """They are those of the code."""
    assert limit.replace(",", " ") in PAGES["reference/prometheus.md"]
    assert kernels.LOOKBACK == 2


def test_the_types_of_the_page() -> None:
    """The names of types that are known, and what becomes of the components it shows."""
    page = " ".join(PAGES["reference/prometheus.md"].split())
    listed = ", ".join(f"`{name}`" for name in components._TYPES[:-1])
    assert f"{listed} and `{components._TYPES[-1]}` end where" in page
    rows = re.findall(r"\| `(\S+)` \| `(\S+)` \| `(\S+)` \|", page)
    assert len(rows) == 3
    assert all(components.split_component(name) == (kind, number) for name, kind, number in rows)
