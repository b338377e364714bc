"""The HTTP API of Prometheus as bytes: times and numbers."""

import json
import math

import numpy as np
import pytest
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.errors import QueryError
from ccstore.wire import prometheus


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (-2.5, "-2.5"), (0.1, "0.1"), (1e15, "1000000000000000"),
        (1e16, "10000000000000000"), (123456789012345680000.0, "123456789012345680000"), (1e21, "1e+21"),
        (1.5e300, "1.5e+300"), (0.0001, "0.0001"), (0.00001, "0.00001"), (1e-6, "0.000001"),
        (1.5e-6, "0.0000015"), (1e-7, "1e-07"), (-2.5e-10, "-2.5e-10"), (5e-324, "5e-324"),
        (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (0.1 + 0.2, "0.30000000000000004"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    """They are written as Go's strconv does in Prometheus."""
    assert prometheus.encode_number(value).decode() == text


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.floats() | st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6).map(float), min_size=1))
def test_many_numbers(values: list[float]) -> None:
    """Many at once are written like each alone, and read back to the same."""
    texts = prometheus._numbers(np.array(values))
    assert texts == [prometheus.encode_number(value) for value in values]
    assert [float(text) for text in texts] == pytest.approx(values, rel=0, abs=0, nan_ok=True)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(st.floats(), st.booleans()), min_size=1).filter(lambda some: any(p for _, p in some)),
    st.integers(-(10**13), 10**13),
    st.sampled_from([1, 10, 1000, 1234]),
)
def test_rows(values: list[tuple[float, bool]], start: int, step: int) -> None:
    """A row is JSON with the values that are there, each at its time."""
    heads = prometheus.range_heads(prometheus.time_texts(start, step, len(values)))
    row = prometheus.range_row(
        {"a": 'b"'}, heads, np.array([v for v, _ in values]), np.array([p for _, p in values])
    )
    expected = [
        [(start + k * step) / 1000, prometheus.encode_number(value).decode()]
        for k, (value, present) in enumerate(values)
        if present
    ]
    assert json.loads(row) == {"metric": {"a": 'b"'}, "values": expected}


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0), ("1700000000", 1_700_000_000_000), ("1435781451.781", 1_435_781_451_781), ("1.0005", 1000),
        ("-1.5", -1500), ("1e9", 10**12), ("+5.", 5000), (".25", 250),
        ("1970-01-01T00:00:00Z", 0), ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
        ("2015-07-01T22:10:51.781999999+02:00", 1_435_781_451_781), ("1969-12-31T23:59:59-00:30", 1_799_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
    ],
)  # fmt: skip
def test_times(text: str, milliseconds: int) -> None:
    """Seconds with a fraction, or RFC 3339."""
    assert prometheus.decode_time("time", text) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["", "now", "nan", "inf", "1e300", "9" * 19, "1_000", " 1", "0x10", "2023-02-29T00:00:00Z",
     "2023-01-01T24:00:00Z", "2023-01-01", "2023-01-01T00:00:00", "2023-01-01T00:00:60Z", "\u0661",
     "9" * 5000, "1e" + "9" * 9],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_no_times(text: str) -> None:
    """Everything else is named in the error."""
    with pytest.raises(
        QueryError, match=r"invalid parameter 'time': cannot parse '.{0,40}' to a valid timestamp"
    ):
        prometheus.decode_time("time", text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("15", 15_000), ("0.5", 500), ("1m", 60_000), ("1h30m", 5_400_000), ("0", 0), ("-1", -1000)],
)
def test_durations(text: str, milliseconds: int) -> None:
    """Seconds, or a duration of PromQL."""
    assert prometheus.decode_duration("step", text) == milliseconds


@pytest.mark.parametrize("text", ["", "m", "1.5m", "0s", "1x", "nan"], ids=repr)
def test_no_durations(text: str) -> None:
    """Everything else is named in the error."""
    with pytest.raises(QueryError, match=r"invalid parameter 'step': cannot parse '.*' to a valid duration"):
        prometheus.decode_duration("step", text)
