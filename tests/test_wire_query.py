"""Answers to queries: the reference store's JSON, to the digit."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_answers import as_text, window
from wire_lines import thorough

from ccstore.memory.query import Reader, plan
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Batch, Metric, QueryRequest, Status
from ccstore.wire.query import AnswerWriter, decode_query

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def put(store: Store, path: tuple[str, ...], metric: str, samples: Iterable[tuple[int, float]]) -> None:
    """Store some samples of a series."""
    times, values = zip(*samples, strict=True)
    ids, _ = store.enlist(
        np.array([store.locate(path)], np.int32), np.array([store.metric_ids[metric]], np.int32), allowance=1
    )
    count = len(times)
    batch = Batch(
        count,
        np.repeat(ids, count),
        np.array(times, np.int64),
        np.array(values, np.float32),
        np.empty(count, np.uint8),
    )
    store.append(batch, latest=10**12)


@pytest.fixture
def store() -> Store:
    """Return a store with the samples of the contract's examples."""
    metrics = [
        Metric("x", 60, Aggregation.SUM),
        Metric("m", 60, Aggregation.SUM),
        Metric("plain", 10),
        Metric("1s", 1),
    ]
    store = Store(metrics, max_series=1000, max_bytes=1 << 22)
    put(store, ("c", "h"), "x", [(1000 + 60 * k, k + 0.126) for k in range(5)])
    for socket, factor in (("socket0", 1), ("socket2", 10)):
        put(store, ("c", "h", socket), "m", [(1000 + 60 * k, k * factor) for k in range(5)])
        put(store, ("c", "h", socket), "plain", [(1000, factor)])
        for mem in ("mem0", "mem1"):
            put(store, ("c", "h", socket, mem), "x", [(1000, factor)])
    return store


def ask(store: Store, body: Any, *, strict: bool = False, **options: Any) -> str:
    """Answer a query as the server does."""
    request = decode_query(json.dumps(body).encode())
    hosts = store.hosts(request.cluster) if request.for_all_nodes else []
    writer = AnswerWriter(request, hosts, strict=strict, **options)
    reader = Reader(store.columns, strict=strict)
    text = b"".join(writer.begin())
    for groups in plan(store, request, hosts):
        for part, one in reader.windows(groups, request.start, request.stop):
            text += writer.rows(one, groups.metrics[part], groups.queries[part], groups.placeholders[part])
    text += writer.end()
    json.loads(text)
    return text.decode()


RANGE = {"cluster": "c", "from": 900, "to": 1300}
X = {**RANGE, "queries": [{"metric": "x", "host": "h"}]}
DATA = '"data":[null,0.126,1.126,2.126,3.126,4.126]'
ROW = '"from":1000,"to":1300,"resolution":60,"avg":2.13,"min":0.13,"max":4.13}'


def error(text: str) -> str:
    """Return the row of something that cannot be answered."""
    return f'[{{"error":"{text}","from":0,"to":0,"resolution":0,"avg":0.00,"min":0.00,"max":0.00}}]'


@pytest.mark.parametrize(
    ("body", "results"),
    [
        (X, '[{"data":[null,0.126,1.126,2.126,3.126,4.126],' + ROW + "]"),
        ({**RANGE, "with-padding": False, "queries": [{"metric": "x", "host": "h", "scale-by": 2}]},
         '[{"data":[0.252,2.252,4.252,6.252,8.252],"from":1000,"to":1300,"resolution":60,"avg":4.25,"min":0.25,"max":8.25}]'),
        ({**X, "with-data": False, "with-stats": False},
         '[{"from":1000,"to":1300,"resolution":60,"avg":0.00,"min":0.00,"max":0.00}]'),
        ({**X, "with-data": False}, "[{" + ROW + "]"),
        ({**X, "with-stats": False, "with-padding": False},
         '[{"data":[0.126,1.126,2.126,3.126,4.126],"from":1000,"to":1300,"resolution":60,"avg":0.00,"min":0.00,"max":0.00}]'),
        ({**X, "from": 5000, "to": 6000},
         '[{"from":5000,"to":5000,"resolution":60,"avg":null,"min":null,"max":null}]'),
        ({**RANGE, "queries": [{"metric": "nope", "host": "h"}]},
         error("unknown metric: nope")),
        ({**RANGE, "queries": [{"metric": "x", "host": "other"}]}, "[]"),
        ({**RANGE, "queries": [{"metric": "x", "host": ""}]}, "[]"),
        ({**RANGE,
         "queries": [{"metric": "x", "host": "h"}, {"metric": "x", "host": "other"},
          {"metric": "x", "host": "h"}]},
         "[{" + DATA + "," + ROW + "],[],[{" + DATA + "," + ROW + "]"),
        ({**RANGE, "queries": [{"metric": "x", "host": "other"}, {"metric": "x", "host": "other"}]}, "[],[]"),
        ({}, ""),
        ({"cluster": "c"}, ""),
        ({**X, "from": 2000},
         error("invalid time range (wanted from <= to)")),
        ({**RANGE, "queries": [{"metric": "x", "host": "h", "resolution": 90}]},
         error("resolution (wanted a multiple of the metric's frequency)")),
        ({**RANGE, "queries": [{"metric": "plain", "host": "h"}]},
         error("several components, and the metric has no aggregation (wanted one component)")),
        ({**RANGE, "queries": [{"metric": "x", "host": "h", "scale-by": None}]},
         '[{"data":[null,0.126,1.126,2.126,3.126,4.126],' + ROW + "]"),
        ({**RANGE, "queries": [{"metric": "x", "host": "h", "scale-by": -1e300}]},
         '[{"data":[null,' + ",".join(as_text(float(np.float32(k + 0.126)) * -1e300, 3) for k in range(5))
         + '],"from":1000,"to":1300,"resolution":60,"avg":' + ",".join(
             f"{name}{as_text(value * -1e300, 2)}" for name, value in (
                 ("", sum(float(np.float32(k + 0.126)) for k in range(5)) / 5),
                 ('"min":', float(np.float32(0.126))), ('"max":', float(np.float32(4.126))))) + "}]"),
    ],
)  # fmt: skip
def test_examples(store: Store, body: dict[str, Any], results: str) -> None:
    """The examples of the contract, and what lies next to them."""
    assert '{"results":[' + results + "]}" == ask(store, body)


def test_queries_for_all_nodes(store: Store) -> None:
    """They are listed in front of the results, host by host in the order of the names."""
    expected = (
        '{"queries":[{"metric":"x","host":"h","resolution":0,"aggreg":false}],"results":['
        '[{"data":[null,0.126,1.126,2.126,3.126,4.126],' + ROW + "]]}"
    )
    assert expected == ask(store, {**RANGE, "for-all-nodes": ["x"]})
    put(store, ("c", "a"), "plain", [(1000, 7)])
    answer = json.loads(ask(store, {**X, "for-all-nodes": ["x", "plain"]}))
    assert [(q["metric"], q["host"]) for q in answer["queries"]] == [
        ("x", "a"),
        ("plain", "a"),
        ("x", "h"),
        ("plain", "h"),
    ]
    assert [len(rows) for rows in answer["results"]] == [1, 0, 1, 1, 1]
    assert "several components" in answer["results"][4][0]["error"]


def test_queries_for_all_nodes_of_a_cluster_without_nodes(store: Store) -> None:
    """Nothing is generated, and nothing listed."""
    assert ask(store, {**RANGE, "cluster": "other", "for-all-nodes": ["x"]}) == '{"results":[]}'
    assert ask(store, {**RANGE, "for-all-nodes": []}) == '{"results":[]}'


SOCKETS = {"metric": "m", "host": "h", "type": "socket", "type-ids": ["0", "1", "2"]}


def test_components_together(store: Store) -> None:
    """Components are added up; those that are missing count as if they were not asked for."""
    answer = json.loads(ask(store, {**RANGE, "queries": [{**SOCKETS, "aggreg": True}]}))
    assert answer["results"][0][0]["data"] == [None, 0.0, 11.0, 22.0, 33.0, 44.0]


def test_components_apart(store: Store) -> None:
    """Each component has its place, also if nothing is stored of it; in strict mode it has none."""
    body = {**RANGE, "queries": [SOCKETS]}
    first, missing, last = json.loads(ask(store, body))["results"][0]
    assert (first["data"], last["data"]) == ([None, 0, 1, 2, 3, 4], [None, 0, 10, 20, 30, 40])
    assert missing == {"from": 900, "to": 900, "resolution": 60, "avg": None, "min": None, "max": None}
    (without,) = json.loads(
        ask(store, {**body, "with-stats": False, "queries": [{**SOCKETS, "type-ids": ["1", "7"]}]})
    )["results"]
    assert without == [{"from": 900, "to": 900, "resolution": 60, "avg": 0.0, "min": 0.0, "max": 0.0}] * 2
    strict = json.loads(ask(store, body, strict=True))["results"][0]
    assert [first, last] == strict


def test_subcomponents_apart(store: Store) -> None:
    """They come in the order of the components, and within each in that of their ids."""
    query = {
        "metric": "x",
        "host": "h",
        "type": "socket",
        "type-ids": ["0", "1", "2"],
        "subtype": "mem",
        "subtype-ids": ["1", "0"],
    }
    (rows,) = json.loads(ask(store, {**RANGE, "with-padding": False, "queries": [query]}))["results"]
    assert [row.get("data") for row in rows] == [[1], [1], None, None, [10], [10]]
    (rows,) = json.loads(ask(store, {**RANGE, "queries": [{**query, "type-ids": []}]}))["results"]
    assert rows == []


def test_one_component_that_is_missing(store: Store) -> None:
    """A single component needs no placeholder: nobody counts positions."""
    (rows,) = json.loads(ask(store, {**RANGE, "queries": [{**SOCKETS, "type-ids": ["1"]}]}))["results"]
    assert rows == []


@pytest.mark.parametrize(
    ("start", "pads"),
    [
        (900, 1),
        (960, 0),
        (959, 1),
        (1000, 0),
        (1100, 0),
        (0, 16),
        (-59, 16),
        (-60, 17),
        (-600, 26),
        (940, 1),
        (420, 9),
    ],
)
def test_padding(store: Store, start: int, pads: int) -> None:
    """As many values are missing in front as steps lie between, times divided towards zero; `from` stays."""
    (row,) = json.loads(ask(store, {**X, "from": start}))["results"][0]
    assert [None] * pads == [value for value in row["data"] if value is None]
    assert max(start, 1000) == row["from"]


def test_padding_of_resampled_data(store: Store) -> None:
    """It is counted in steps of the data, so that a resampled row has room in front as others do."""
    put(store, ("c", "r"), "plain", [(60_000 + 10 * k, k % 7) for k in range(2000)])
    body = {
        "cluster": "c",
        "from": 0,
        "to": 90_000,
        "queries": [{"metric": "plain", "host": "r", "resolution": 100}],
    }
    (row,) = json.loads(ask(store, body))["results"][0]
    assert (row["resolution"], len(row["data"]) - 600, row["from"], row["to"]) == (100, 200, 60_000, 80_000)
    assert (row["data"][:600], row["data"][600]) == ([None] * 600, 0)
    assert (row["min"], row["max"]) == (0.0, 6.0)


def test_padding_is_bounded(store: Store) -> None:
    """More padding than an answer may have is an error of its row alone."""
    put(store, ("c", "h"), "1s", [(1000, 5)])
    body = {
        "cluster": "c",
        "from": -(2**63),
        "to": 2000,
        "queries": [{"metric": "1s", "host": "h"}, {"metric": "x", "host": "h"}],
    }
    for start in (-(2**63), -999_000):
        first, second = json.loads(ask(store, {**body, "from": start}))["results"]
        assert first[0]["error"].startswith("more values than one answer may have")
        assert ("error" in second[0]) == (start < -(10**9))
    (row,), _ = json.loads(ask(store, {**body, "from": -998_999}))["results"]
    assert len(row["data"]) == 1_000_000
    (row,), _ = json.loads(ask(store, {**body, "with-padding": False}))["results"]
    assert row["data"] == [5.0]
    (row,), _ = json.loads(ask(store, {**body, "with-data": False}))["results"]
    assert ("data" in row, row["avg"]) == (False, 5.0)


def test_too_many_values(store: Store) -> None:
    """A row with more values than allowed is an error that says what to do."""
    first, second = json.loads(ask(store, {**X, "queries": [*X["queries"], SOCKETS]}, max_values=5))[
        "results"
    ]
    assert ["error" in row for row in first] == [True]
    assert ["error" in row for row in second] == [True, False, True]
    (row,) = json.loads(ask(store, {**X, "with-padding": False}, max_values=5))["results"][0]
    assert len(row["data"]) == 5


def test_names_that_need_escapes(store: Store) -> None:
    """Names are written as JSON wants them."""
    put(store, ("c", 'a"b\\c\né'), "x", [(1000, 1)])
    answer = json.loads(ask(store, {**RANGE, "for-all-nodes": ["x", 'no"pe']}))
    assert [query["host"] for query in answer["queries"][::2]] == ['a"b\\c\né', "h"]
    assert answer["results"][1][0]["error"] == 'unknown metric: no"pe'


def test_the_head_of_large_queries() -> None:
    """The queries for all nodes are listed in pieces of limited size, which are what one piece would be."""
    hosts, metrics = [f"host{k}" for k in range(2500)], tuple(f"metric{k}" for k in range(30))
    writer = AnswerWriter(QueryRequest(for_all_nodes=metrics), hosts)
    pieces = list(writer.begin())
    assert max(map(len, pieces)) < 100_000
    expected = [{"metric": m, "host": h, "resolution": 0, "aggreg": False} for h in hosts for m in metrics]
    answer = json.loads(b"".join(pieces) + writer.end())
    assert expected == answer["queries"]
    assert [[]] * len(expected) == answer["results"]


@pytest.mark.parametrize("hosts", [0, 1, 3])
@pytest.mark.parametrize("metrics", [0, 1, 2000])
def test_the_head_of_small_queries(hosts: int, metrics: int) -> None:
    """There is a list of queries if there are any for all nodes."""
    writer = AnswerWriter(QueryRequest(for_all_nodes=("m",) * metrics), ["h"] * hosts)
    answer = json.loads(b"".join(writer.begin()) + writer.end())
    assert hosts * metrics == len(answer.get("queries", [])) == len(answer["results"])
    assert ("queries" in answer) == (hosts * metrics > 0)


def test_rows_go_into_their_lists() -> None:
    """Each row goes into the list of its query, over windows and gaps; notes stand in front."""
    writer = AnswerWriter(QueryRequest(start=600, for_all_nodes=("m",)), ["h"] * 8)
    b"".join(writer.begin())
    good, nothing, bad = Status.GOOD, Status.NOTHING, Status.NO_AGGREGATION
    show = np.zeros(4, np.bool_)
    show[2] = True
    text = writer.rows(
        window([[1], [], [], [2]], status=[good, nothing, nothing, bad]),
        ["m"] * 4,
        np.array([1, 1, 1, 1]),
        show,
    )
    text += writer.rows(window([[3], [4]]), ["m"] * 2, np.array([1, 3]), show[:2])
    text += writer.rows(window([[]], status=[nothing]), ["m"], np.array([4]), show[:1])
    text += writer.rows(window([[5]]), ["m"], np.array([6]), show[:1])
    results = json.loads(b'{"results":[' + text + writer.end())["results"]
    assert [len(rows) for rows in results] == [0, 4, 0, 1, 0, 0, 1, 0]
    assert [row.get("data") for row in results[1]] == [[1], None, None, [3]]
    assert (
        [row["from"] for row in results[1][:2]],
        results[1][2]["error"][:18],
    ) == ([600, 600], "several components")
    assert (results[3][0]["data"], results[6][0]["data"]) == ([4], [5])


@thorough
@given(
    st.lists(st.lists(st.floats(), max_size=30), max_size=6), st.integers(1, 6), st.booleans(), st.booleans()
)
def test_pieces_make_one_answer(
    rows: list[list[float]], size: int, with_data: bool, with_stats: bool
) -> None:
    """However windows cut the rows, and however small the room is at first, the answer is the same."""
    request = QueryRequest(start=0, with_data=with_data, with_stats=with_stats, for_all_nodes=("m",))
    answers = set()
    for step, room in ((size, 1), (len(rows) or 1, 1 << 16)):
        writer = AnswerWriter(request, ["h"] * len(rows))
        writer._room = np.empty(room, np.uint8)
        text = b"".join(writer.begin())
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            queries = np.arange(first, first + len(part))
            text += writer.rows(window(part), ["m"] * len(part), queries, np.zeros(len(part), np.bool_))
        answers.add(text + writer.end())
    (answer,) = answers
    lengths = [10 + len(row) if with_data else 0 for row in rows]
    assert lengths == [len(result[0].get("data", [])) for result in json.loads(answer)["results"]]
