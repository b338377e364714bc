"""Whatever a client asks, it gets an answer of the documented form, and the server lives on."""

import json
from typing import Any

import httpx
import trio
from apiserver import example, running, series
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

TIMES = st.sampled_from([0, 900, 999, 1000, 1300, 5000, -1, 2**31, -(2**63), 2**63 - 1, 2**63, 2**200])
NAMES = st.sampled_from(
    ["", "c", "h", "x", "m", "plain", "nope", "socket", "0", "2", "\u00fc", "\ud800", "\0"]
)
JUNK = st.one_of(
    st.none(), st.booleans(), TIMES, st.floats(), NAMES, st.lists(NAMES, max_size=2),
    st.dictionaries(NAMES, TIMES, max_size=2),
)  # fmt: skip


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return the right kind of value most of the time."""
    return st.one_of(values, values, values, values, values, values, JUNK)


QUERY = st.fixed_dictionaries(
    {"metric": NAMES, "host": maybe(st.just("h"))},
    optional={
        "resolution": maybe(st.sampled_from([0, 60, 120, 90, -60, 2**62, 2**63 - 1])),
        "type": maybe(st.just("socket")),
        "type-ids": maybe(st.lists(NAMES, max_size=4)),
        "subtype": maybe(NAMES),
        "subtype-ids": maybe(st.lists(NAMES, max_size=2)),
        "aggreg": maybe(st.booleans()),
        "scale-by": maybe(st.sampled_from([0, 1, 2.5, -1e300, 1e308, 1e-320])),
        "extra": JUNK,
    },
)
QUESTION = st.fixed_dictionaries(
    {"cluster": maybe(st.just("c")), "from": maybe(TIMES), "to": maybe(TIMES)},
    optional={
        "with-stats": maybe(st.booleans()),
        "with-data": maybe(st.booleans()),
        "with-padding": maybe(st.booleans()),
        "queries": maybe(st.lists(QUERY, max_size=4)),
        "for-all-nodes": maybe(st.lists(NAMES, max_size=2)),
    },
)
HEALTH = st.fixed_dictionaries(
    {},
    optional={
        "cluster": maybe(NAMES),
        "nodes": maybe(st.lists(NAMES)),
        "metric-names": maybe(st.lists(NAMES)),
    },
)
SELECTORS = maybe(st.lists(maybe(st.lists(maybe(NAMES), max_size=4)), max_size=3))

REQUESTS = st.one_of(
    st.tuples(st.just("/api/query"), QUESTION),
    st.tuples(st.just("/api/query"), QUESTION),
    st.tuples(st.just("/api/query"), JUNK),
    st.tuples(st.just("/api/healthcheck"), HEALTH),
    st.tuples(st.builds("/api/free?to={}".format, TIMES), SELECTORS),
    st.tuples(st.builds("/api/debug?selector={}".format, st.text("ch:x02%/\u00fc", max_size=9)), st.none()),
)


def check_query(question: Any, answer: dict[str, Any]) -> None:
    """Check the form of an answer."""
    assert list(answer) in (["results"], ["queries", "results"])
    asked = [query or {} for query in question.get("queries") or []]
    assert len(answer["results"]) == len(asked) + len(answer.get("queries", []))
    for row in (row for rows in answer["results"] for row in rows):
        assert [key for key in row if key not in ("error", "data")] == [
            "from", "to", "resolution", "avg", "min", "max"
        ]  # fmt: skip
        if "error" in row:
            assert [row["from"], row["to"], row["resolution"], row["avg"]] == [0, 0, 0, 0.0]
        elif "data" in row and question.get("with-padding") is False:
            steps = (row["to"] - row["from"]) // row["resolution"]
            assert len(row["data"]) == steps > 0


def no_constants(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=12))
def test_any_request_gets_an_answer(requests: list[tuple[str, Any]]) -> None:
    """It is 200 or 400, JSON of the documented keys, and never the end of the server."""

    async def main() -> None:
        async with running() as server:
            await server.write(*example(), *series("plain", "h", [1, 2]))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
                for target, body in requests:
                    method = "POST" if "/free" in target else "GET"
                    answer = await client.request(method, target, content=json.dumps(body).encode())
                    assert answer.status_code in (200, 400), answer.text
                    if answer.status_code == 200 and target.startswith("/api/free"):
                        assert answer.text.startswith("buffers freed: ")
                        continue
                    value = json.loads(answer.text, parse_constant=no_constants)
                    if answer.status_code == 400:
                        assert list(value) == ["status", "error"]
                    elif target == "/api/query":
                        check_query(body or {}, value)
            assert server.counts()["stored"] == 17

    trio.run(main)
