"""``/api/query`` of a whole server: the worked examples to the digit, and what a question may cost."""

import json
from typing import Any

import pytest
import trio
from apiserver import error_of, example, make_config, running, series
from serving import connected

from ccstore.config.sections import Resampling
from ccstore.model import Aggregation, Metric
from ccstore.server import api
from ccstore.wire.query import decode_query

RANGE = {"cluster": "c", "from": 900, "to": 1300}
X = {**RANGE, "queries": [{"metric": "x", "host": "h"}]}
SOCKETS = {"metric": "m", "host": "h", "type": "socket", "type-ids": ["0", "1", "2"]}
TIMES = '"from":1000,"to":1300,"resolution":60,'
ROW = '{"data":[null,0.126,1.126,2.126,3.126,4.126],' + TIMES + '"avg":2.13,"min":0.13,"max":4.13}'
MISSING = '{"from":900,"to":900,"resolution":60,"avg":null,"min":null,"max":null}'


def failed(text: str) -> str:
    return f'{{"error":"{text}","from":0,"to":0,"resolution":0,"avg":0.00,"min":0.00,"max":0.00}}'


def row_of_socket(factor: int) -> str:
    values = ",".join(f"{k * factor}.000" for k in range(5))
    return (
        f'{{"data":[null,{values}],"from":1000,"to":1300,"resolution":60,'
        f'"avg":{2 * factor}.00,"min":0.00,"max":{4 * factor}.00}}'
    )


EXAMPLES = {
    "a host": (X, f"[[{ROW}]]"),
    "scaled, not padded": (
        {**RANGE, "with-padding": False, "queries": [{"metric": "x", "host": "h", "scale-by": 2}]},
        '[[{"data":[0.252,2.252,4.252,6.252,8.252],' + TIMES + '"avg":4.25,"min":0.25,"max":8.25}]]',
    ),
    "neither data nor statistics": (
        {**X, "with-data": False, "with-stats": False},
        '[[{"from":1000,"to":1300,"resolution":60,"avg":0.00,"min":0.00,"max":0.00}]]',
    ),
    "nothing in the range": (
        {**X, "from": 5000, "to": 6000},
        '[[{"from":5000,"to":5000,"resolution":60,"avg":null,"min":null,"max":null}]]',
    ),
    "components together": (
        {**RANGE, "with-stats": False, "queries": [{**SOCKETS, "aggreg": True}]},
        '[[{"data":[null,0.000,11.000,22.000,33.000,44.000],' + TIMES + '"avg":0.00,"min":0.00,"max":0.00}]]',
    ),
    "components apart": (
        {**RANGE, "queries": [SOCKETS]},
        f"[[{row_of_socket(1)},{MISSING},{row_of_socket(10)}]]",
    ),
    "no component": ({**RANGE, "queries": [{**SOCKETS, "type-ids": []}]}, "[[]]"),
    "no component together": ({**RANGE, "queries": [{**SOCKETS, "type-ids": [], "aggreg": True}]}, "[[]]"),
    "unknown metric": (
        {**RANGE, "queries": [{"metric": "nope", "host": "h"}]},
        f"[[{failed('unknown metric: nope')}]]",
    ),
    "from behind to": (
        {**X, "from": 2000},
        f"[[{failed('invalid time range (wanted from <= to)')}]]",
    ),
    "resolution": (
        {**RANGE, "queries": [{"metric": "x", "host": "h", "resolution": 90}]},
        "[[" + failed("resolution (wanted a multiple of the metric's frequency)") + "]]",
    ),
    "unknown host": ({**RANGE, "queries": [{"metric": "x", "host": "other"}]}, "[[]]"),
    "empty host": ({**RANGE, "queries": [{"metric": "x", "host": ""}]}, "[[]]"),
    "good and bad": (
        {**RANGE, "queries": [{"metric": "x", "host": "other"}, {"metric": "x", "host": "h"}]},
        f"[[],[{ROW}]]",
    ),
    "scale-by null": ({**RANGE, "queries": [{"metric": "x", "host": "h", "scale-by": None}]}, f"[[{ROW}]]"),
    "nothing": ({}, "[]"),
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
async def test_worked_examples(name: str) -> None:
    """Every answer is that of the reference store, byte for byte, but for the placeholders."""
    body, results = EXAMPLES[name]
    async with running() as server:
        await server.write(*example())
        assert await server.query(body) == f'{{"results":{results}}}'


async def test_all_hosts() -> None:
    """The generated queries are listed, in the order of the hosts' names, and behind the explicit ones."""
    async with running() as server:
        await server.write(*example())
        assert await server.query({**RANGE, "for-all-nodes": ["x"]}) == (
            f'{{"queries":[{{"metric":"x","host":"h","resolution":0,"aggreg":false}}],"results":[[{ROW}]]}}'
        )
        await server.write(*series("x", "a", [1]), *series("load", "z", [2]))
        answer = json.loads(await server.query({**X, "for-all-nodes": ["load", "x"]}))
    asked = [(query["host"], query["metric"]) for query in answer["queries"]]
    assert asked == [(host, metric) for host in ("a", "h", "z") for metric in ("load", "x")]
    assert [len(rows) for rows in answer["results"]] == [1, 0, 1, 0, 1, 1, 0]


async def test_strict_mode_has_no_placeholders() -> None:
    """With `main.strict-reference` a missing component is left out, and later ones move up."""
    async with running(strict_reference=True) as server:
        await server.write(*example())
        answer = await server.query({**RANGE, "queries": [SOCKETS]})
    assert answer == f'{{"results":[[{row_of_socket(1)},{row_of_socket(10)}]]}}'


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("target", ["/api/query", "/api/query/", "/api/query?version=v2", "/api/query/below"])
async def test_method_and_path(method: str, target: str) -> None:
    """GET with a body means what POST means, with and without a slash."""
    async with running() as server:
        await server.write(*example())
        answer = await server.ask(method, target, X)
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert answer.body.decode() == f'{{"results":[[{ROW}]]}}'
    assert answer["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods(method: str) -> None:
    """They are refused, with those that there are."""
    async with running() as server:
        answer = await server.ask(method, "/api/query", X)
    assert (answer.status, answer.body, answer["Allow"]) == (405, b"Method Not Allowed\n", "GET, HEAD, POST")


GOOD = [
    ('{"CLUSTER":"c","From":900,"TO":1300,"Queries":[{"Metric":"x","HOST":"h"}]}', "keys in any case"),
    (json.dumps(X) + " and what follows", "data behind the value"),
    (json.dumps({**X, "unknown": [1], "with-stats": None, "for-all-nodes": None}), "unknown keys and null"),
]
BAD = [
    ("", "body: empty (wanted JSON)"),
    (" \n", "body: empty (wanted JSON)"),
    ("nonsense", "body: not JSON"),
    ('{"cluster":"c"', "body: not JSON"),
    ("[]", "body: a list (wanted an object)"),
    ('{"from":900.0}', "body.from: 900.0 (wanted an integer)"),
    ('{"from":9e2}', "body.from: 900.0 (wanted an integer)"),
    ('{"from":"900"}', 'body.from: "900" (wanted an integer)'),
    ('{"queries":[{"metric":1}]}', "body.queries[0].metric: 1 (wanted a string)"),
    ('{"queries":[{},{"aggreg":"yes"}]}', 'body.queries[1].aggreg: "yes" (wanted true or false)'),
    ('{"for-all-nodes":"x"}', 'body.for-all-nodes: "x" (wanted a list of strings)'),
    (b"\xff", "body: not JSON"),
]


@pytest.mark.parametrize("body", [body for body, _ in GOOD], ids=[name for _, name in GOOD])
async def test_what_json_may_look_like(body: str) -> None:
    """Clients of the reference store need not change."""
    async with running() as server:
        await server.write(*example())
        assert await server.query(body) == f'{{"results":[[{ROW}]]}}'


@pytest.mark.parametrize(("body", "text"), BAD, ids=[repr(body) for body, _ in BAD])
async def test_bad_requests(body: Any, text: str) -> None:
    """What cannot be understood is refused as a whole, and the error tells the place."""
    async with running() as server:
        answer = await server.ask("POST", "/api/query", body)
        no_body = await server.ask("GET", "/api/query")
    assert answer.status == no_body.status == 400
    assert error_of(answer)["error"].startswith(text)
    assert error_of(no_body) == {"error": "body: empty (wanted JSON)"}


NUMBERS = [
    ("2", "2.000", "2.00"),
    ("0.333", "0.333", "0.33"),
    ("-0.0001", "-0.000", "-0.00"),
    ("0.0005", "0.001", "0.00"),
    ("0.005", "0.005", "0.00"),  # next float32: 0.00499999988
    ("0.0625", "0.062", "0.06"),  # a tie: to the even digit
    ("0.375", "0.375", "0.38"),
    ("2.675", "2.675", "2.67"),
    ("16777216", "16777216.000", "16777216.00"),
    ("1e20", "100000002004087734272.000", "100000002004087734272.00"),
]


@pytest.mark.parametrize(("sent", "datum", "statistic"), NUMBERS)
async def test_number_formats(sent: str, datum: str, statistic: str) -> None:
    """Three decimals for values, two for statistics, of the exact binary value, ties to the even digit."""
    async with running() as server:
        await server.write(f"x,cluster=c,hostname=h value={sent} 1000")
        answer = await server.query({**X, "with-padding": False})
    assert answer == (
        f'{{"results":[[{{"data":[{datum}],"from":1000,"to":1060,"resolution":60,'
        f'"avg":{statistic},"min":{statistic},"max":{statistic}}}]]}}'
    )


@pytest.mark.parametrize(("minimum", "count"), [(None, 999), (100, 99)])
async def test_resampling(minimum: int | None, count: int) -> None:
    """Fewer values than `main.resampling.minimum-points`, by default 1000, are not thinned out."""
    resampling = Resampling(minimum_points=minimum) if minimum else None
    async with running(resampling=resampling) as server:
        await server.write(*series("x", "h", range(999)))
        query = {"metric": "x", "host": "h", "resolution": 600}
        answer = await server.query({**RANGE, "from": 1000, "to": 100_000, "queries": [query]})
    assert len(json.loads(answer)["results"][0][0]["data"]) == count


async def test_a_range_without_end_costs_nothing() -> None:
    """Work is bounded by what is stored, not by the range."""
    async with running() as server:
        await server.write(*example())
        answer = await server.query({**X, "from": -(2**63), "to": 2**63 - 1, "with-padding": False})
        assert answer == '{"results":[[' + ROW.replace("null,", "") + "]]}"


@pytest.mark.parametrize(
    "body",
    [
        {"queries": [{"metric": "x", "host": "h"}] * 10, "for-all-nodes": ["x"]},
        {"queries": [{**SOCKETS, "type-ids": ["0"] * 4, "subtype": "m", "subtype-ids": ["0"] * 3}]},
        {"queries": X["queries"] * 2, "for-all-nodes": ["x", "m", "load"]},
    ],
    ids=["queries", "components", "nodes"],
)
async def test_too_many_selectors(body: dict[str, Any]) -> None:
    """`main.max-query-selectors` bounds what one request asks for."""
    async with running(max_query_selectors=10) as server:
        await server.write(*series("x", "a", [1]), *series("x", "b", [1]), *series("x", "h", [1]))
        answer = await server.ask("POST", "/api/query", {**RANGE, **body})
        assert answer.status == 400
        number = error_of(answer)["error"].split()[1]
        assert int(number) > 10
        assert error_of(answer) == {"error": f"query: {number} selectors (wanted at most 10)"}
        none = {**RANGE, "queries": [{"type": "socket"}] * 11}
        answer = await server.ask("POST", "/api/query", none)
        assert error_of(answer) == {"error": "query: 11 queries (wanted at most 10 selectors)"}
        assert (await server.ask("POST", "/api/query", X)).status == 200


MANY = {"cluster": "c", "from": 1000, "to": 1000 + 60 * 200, "for-all-nodes": ["x"]}


def many_hosts() -> list[str]:
    """Write 200 values of each of 200 hosts: an answer of 240 KB and more."""
    return [line for host in range(200) for line in series("x", f"h{host:03}", range(1000, 1200))]


async def test_a_large_answer_is_streamed() -> None:
    """It comes in pieces, while it is made, and is whole JSON."""
    async with running() as server:
        await server.write(*many_hosts())
        answer = await server.ask("POST", "/api/query", MANY)
        assert (answer["Content-Length"], answer["Transfer-Encoding"]) == (None, "chunked")
        value = json.loads(answer.body)
        assert [row["data"] for (row,) in value["results"]] == [list(range(1000, 1200))] * 200
        assert [query["host"] for query in value["queries"]] == [f"h{host:03}" for host in range(200)]


async def test_others_get_their_turn() -> None:
    """A long answer lets others run after each of its pieces."""
    turns = pieces = 0
    async with running() as server:
        await server.write(*many_hosts())

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        wanted = decode_query(json.dumps({**MANY, "for-all-nodes": ["x"] * 20}).encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            async for piece in api.answer_pieces(server.services, wanted):
                assert len(piece) < 1 << 21
                pieces += 1
            nursery.cancel_scope.cancel()
    assert 3 < pieces <= turns + 2


async def test_what_is_freed_and_made_between_two_pieces() -> None:
    """No piece shows what belongs to another series, also if its number was given to that one."""
    metrics = [Metric("x", 60, Aggregation.SUM), Metric("y", 60, Aggregation.SUM)]
    async with running(metrics=metrics, limits={"max_series": 600}) as server:
        hosts = [f"{host:03}" for host in range(600)]
        await server.write(*(line for host in hosts for line in series("x", host, range(1000, 1200))))
        pieces = api._pieces(server.services, decode_query(json.dumps(MANY).encode()))
        begun = [next(pieces) for _ in range(3)]
        freed = await server.ask("POST", "/api/free?to=100000", '[["c"]]')
        assert freed.body == b"buffers freed: 600\n"
        await server.write(*(line for host in hosts for line in series("y", f"other{host}", [-7] * 50)))
        assert server.services.store.statistics().series == 600  # all numbers are in use again
        rest = list(pieces)
    rows = [rows for rows in json.loads(b"".join(begun + rest))["results"] if rows]
    assert 0 < len(rows) < 600
    assert all(row["data"] == list(range(1000, 1200)) for (row,) in rows)


async def test_a_client_that_never_reads_harms_nobody() -> None:
    """Its answer waits; others are answered, lines are stored, and the stop does not wait for it long."""
    async with running() as server:
        await server.write(*many_hosts())
        body = json.dumps({**MANY, "for-all-nodes": ["x"] * 100}).encode()
        async with connected(server.port) as client:
            length = ("Content-Length", str(len(body)))
            await client.send_head("POST", "/api/query", [length])
            await client.stream.send_all(body)
            await server.write(*example())
            assert await server.query(X) == f'{{"results":[[{ROW}]]}}'


async def test_a_client_that_vanishes_in_the_middle() -> None:
    """The rest of its answer is not made, and others go on."""
    async with running() as server:
        await server.write(*many_hosts())
        body = json.dumps({**MANY, "for-all-nodes": ["x"] * 20}).encode()
        async with connected(server.port) as client:
            await client.send_head("POST", "/api/query", [("Content-Length", str(len(body)))])
            await client.stream.send_all(body)
            assert await client.stream.receive_some(1000)
        value = json.loads(await server.query(MANY))
    assert len(value["results"]) == 200


async def test_many_at_once() -> None:
    """Large and small questions do not get into one another's answers."""
    answers: dict[int, str] = {}
    async with running() as server:
        await server.write(*many_hosts(), *example())
        alone = await server.query(MANY)

        async def one(number: int) -> None:
            answers[number] = await server.query(X if number % 2 else MANY)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
    assert {answers[number] for number in range(0, 20, 2)} == {alone}
    assert {answers[number] for number in range(1, 20, 2)} == {f'{{"results":[[{ROW}]]}}'}


async def test_a_large_question() -> None:
    """It is decoded in a thread, and answered as a small one."""
    async with running() as server:
        await server.write(*example())
        answer = json.loads(await server.query({**X, "queries": X["queries"] * 3000}))
        too_large = await server.ask("POST", "/api/query", b" " * (8 * 1024 * 1024 + 1))
    assert len(answer["results"]) == 3000
    assert answer["results"][2999] == [json.loads(ROW)]
    assert too_large.status == 413
    assert error_of(too_large)["error"].startswith("request body: too large (got 8388609 bytes")


def test_the_limits_of_a_test_are_those_of_a_server() -> None:
    """The configuration of these tests differs from the default in the number of series alone."""
    assert make_config().metric_store.limits.max_series == 10_000
    assert make_config().main.max_query_selectors == 1_000_000
