"""JSON bodies: what is taken, and what is said of the rest."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.errors import ProtocolError
from ccstore.model import HealthRequest, Query, QueryRequest
from ccstore.wire.jsonvalue import decode_value, structure
from ccstore.wire.query import decode_query


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", {}), (b" \t\r\n[1, 2.5, null, true]\n", [1, 2.5, None, True]), (b"{} trailing", {}),
        (b'{"a":1}{"a":2}', {"a": 1}), (b'"x"]', "x"), (b"null", None), ('{"é":"€"}'.encode(), {"é": "€"}),
        (b'{"a":1,"a":2}', {"a": 2}), (b'"\\ud83d\\ude00"', "\U0001f600"), (b'  {"a":[]} \x00', {"a": []}),
        (b"1 2", 1), (b"-0.5e3,", -500.0),
    ],
)  # fmt: skip
def test_the_first_value_counts(body: bytes, expected: Any) -> None:
    """Whatever follows the first value is ignored."""
    assert expected == decode_value(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: empty (wanted JSON)"),
        (b" \n", "body: empty (wanted JSON)"),
        (
            b"{",
            "body: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        ),
        (b'{"a":NaN}', "body: not JSON (NaN is no JSON value)"),
        (b"-Infinity", "body: not JSON (-Infinity is no JSON value)"),
        (b"\xff", "body: not JSON ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        (b"'a'", "body: not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[" * 100_000, "body: nested too deeply"),
    ],
)
def test_bodies_that_are_no_json(body: bytes, message: str) -> None:
    """A body without a JSON value is a mistake that tells what is wrong with it."""
    with pytest.raises(ProtocolError) as caught:
        decode_value(body)
    assert message == str(caught.value)


def test_numbers_that_nobody_can_hold() -> None:
    """A number with thousands of digits is a mistake like any other."""
    with pytest.raises(ProtocolError):
        structure(decode_value(b'{"from":%b} x' % (b"9" * 10_000)), QueryRequest)


def test_a_query_with_everything() -> None:
    """Every key fills its field."""
    body = {
        "cluster": "c", "from": -1, "to": 2, "with-stats": False, "with-data": False, "with-padding": False,
        "for-all-nodes": ["m"],
        "queries": [{
            "metric": "m", "host": "h", "resolution": 60, "type": "t", "type-ids": ["0"], "subtype": "s",
            "subtype-ids": ["1", "2"], "aggreg": True, "scale-by": 2,
        }],
    }  # fmt: skip
    query = Query("m", "h", 60, "t", ("0",), "s", ("1", "2"), True, 2.0)
    expected = QueryRequest("c", -1, 2, False, False, False, (query,), ("m",))
    assert expected == decode_query(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, QueryRequest()),
        ({"queries": [{}, None]}, QueryRequest(queries=(Query(), Query()))),
        ({"cluster": None, "from": None, "with-stats": None, "queries": None, "for-all-nodes": None},
         QueryRequest()),
        ({"queries": [{"scale-by": None, "type": None, "type-ids": None}]}, QueryRequest(queries=(Query(),))),
        ({"for-all-nodes": [None, "a"]}, QueryRequest(for_all_nodes=("", "a"))),
        ({"CLUSTER": "c", "From": 5, "Queries": [{"METRIC": "m", "Type-Ids": ["0"]}]},
         QueryRequest("c", 5, queries=(Query("m", type_ids=("0",)),))),
        ({"unknown": 1, "queries": [{"other": {}}]}, QueryRequest(queries=(Query(),))),
        ({"queries": [{"scale-by": 2}, {"scale-by": -0.5}]},
         QueryRequest(queries=(Query(scale_by=2.0), Query(scale_by=-0.5)))),
        ({"cluster": "a\ud800b"}, QueryRequest("a\ufffdb")),
    ],
)  # fmt: skip
def test_queries(body: dict[str, Any], expected: QueryRequest) -> None:
    """Keys match whatever their case, null is the default, unknown keys are passed over."""
    assert expected == decode_query(json.dumps(body).encode())
    assert expected == decode_query(json.dumps(body).encode() + b" and more")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "body: a list (wanted an object)"),
        (None, "body: null (wanted an object)"),
        ("x" * 50, 'body: "' + "x" * 36 + "... (wanted an object)"),
        ({"cluster": 5}, "body.cluster: 5 (wanted a string)"),
        ({"cluster": ["a"]}, "body.cluster: a list (wanted a string)"),
        ({"Cluster": True}, "body.Cluster: true (wanted a string)"),
        ({"from": 1.0}, "body.from: 1.0 (wanted an integer)"),
        ({"from": "1"}, 'body.from: "1" (wanted an integer)'),
        ({"to": True}, "body.to: true (wanted an integer)"),
        ({"to": 2**63}, "body.to: 9223372036854775808 (wanted an integer)"),
        ({"with-data": 1}, "body.with-data: 1 (wanted true or false)"),
        ({"with-stats": "true"}, 'body.with-stats: "true" (wanted true or false)'),
        ({"queries": {}}, "body.queries: an object (wanted a list of objects)"),
        ({"queries": "abc"}, 'body.queries: "abc" (wanted a list of objects)'),
        ({"queries": [{}, [1]]}, "body.queries[1]: a list (wanted an object)"),
        ({"queries": [{"scale-by": "2"}]}, 'body.queries[0].scale-by: "2" (wanted a number)'),
        ({"queries": [{"scale-by": True}]}, "body.queries[0].scale-by: true (wanted a number)"),
        ({"queries": [{"scale-by": 10**400}]},
         "body.queries[0].scale-by: 1" + "0" * 36 + "... (wanted a number)"),
        ({"queries": [{"aggreg": 0}]}, "body.queries[0].aggreg: 0 (wanted true or false)"),
        ({"queries": [{"type-ids": "0"}]}, 'body.queries[0].type-ids: "0" (wanted a list of strings)'),
        ({"queries": [{"type-ids": ["0", 1]}]}, "body.queries[0].type-ids[1]: 1 (wanted a string)"),
        ({"for-all-nodes": [{}]}, "body.for-all-nodes[0]: an object (wanted a string)"),
        (
            {"from": True, "to": 1.5},
            "body.from: true (wanted an integer); body.to: 1.5 (wanted an integer)",
        ),
        (
            {"queries": [{"metric": 1, "host": 2, "type": 3, "subtype": 4, "aggreg": 5, "resolution": "6"}]},
            "; ".join(
                f"body.queries[0].{key}: {value} (wanted {kind})"
                for key, value, kind in [
                    ("metric", 1, "a string"), ("host", 2, "a string"), ("type", 3, "a string"),
                    ("subtype", 4, "a string"), ("aggreg", 5, "true or false"),
                ]
            ),
        ),
    ],
)  # fmt: skip
def test_wrong_types(body: Any, message: str) -> None:
    """Nothing is converted, and a message names the place, what stands there, and what was wanted."""
    with pytest.raises(ProtocolError) as caught:
        decode_query(json.dumps(body).encode() + b" x")
    assert message == str(caught.value)


def test_strict_requests() -> None:
    """Where unknown keys are refused, they are named, even with null; known ones match in any case."""
    expected = HealthRequest("c", ("h",), ("m",))
    assert expected == structure(
        {"Cluster": "c", "NODES": ["h"], "metric-names": ["m"]}, HealthRequest, strict=True
    )
    for body in ({"cluster": "c", "metrics": []}, {"metrics": None}):
        with pytest.raises(ProtocolError, match=r'^body: unknown key "metrics"$'):
            structure(body, HealthRequest, strict=True)


def test_times_that_are_too_large() -> None:
    """Times beyond any sample are cut, so that sums with them stay in range."""
    request = decode_query(b'{"from":-9223372036854775808,"to":9223372036854775807}')
    assert (request.start, request.stop) == (-(2**60), 2**60)


def test_deep_nesting_harms_nobody() -> None:
    """What lies below keys that we do not know is not looked at, however deep it goes."""
    deep = b"[" * 900 + b"]" * 900
    assert QueryRequest() == decode_query(b'{"x":%b}' % deep)
    with pytest.raises(ProtocolError, match=r"^body\.queries\[0\]: a list \(wanted an object\)$"):
        decode_query(b'{"queries":%b}' % deep)


keys = st.text(max_size=3) | st.sampled_from(
    ["cluster", "from", "queries", "Queries", "type-ids", "scale-by", "aggreg", "metric", "for-all-nodes"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values, st.binary(max_size=5), st.booleans())
def test_any_json(value: Any, rest: bytes, ascii_only: bool) -> None:
    """Whatever a body holds, the outcome is a request or a ProtocolError, and can be written as text."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass") + rest
    try:
        request = decode_query(body)
    except ProtocolError as error:
        message = str(error)
    else:
        message = "body"
        names = [
            request.cluster,
            *request.for_all_nodes,
            *(query.metric + query.host for query in request.queries),
        ]
        "".join(names).encode()
    assert message.encode().startswith(b"body")
