"""Durations against a naive oracle: the sum of exact fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstore.config import format_duration, parse_duration

UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
numbers = st.one_of(
    st.from_regex(r"[0-9]{1,4}(\.[0-9]{0,12})?", fullmatch=True),
    st.from_regex(r"\.[0-9]{1,12}", fullmatch=True),
)
parts = st.lists(st.tuples(numbers, st.sampled_from(list(UNITS))), min_size=1, max_size=6)


@given(sign=st.sampled_from(["", "+", "-"]), parts=parts)
def test_a_duration_is_the_sum_of_its_parts(sign, parts):
    """Sign, decimals and every unit mean what exact arithmetic says, to the nanosecond of each part."""
    text = sign + "".join(number + unit for number, unit in parts)
    nanoseconds = sum(int(Fraction(number) * UNITS[unit] * 10**9) for number, unit in parts)
    assert parse_duration(text) == (-1 if sign == "-" else 1) * nanoseconds / 10**9


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_formatting_and_parsing_give_the_same_seconds_back(nanoseconds):
    """What is printed can be read again and means exactly the same, over the whole range."""
    seconds = nanoseconds / 10**9
    if abs(seconds) < 2**63 / 10**9:
        assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(alphabet="0123456789.+-hmsunµd ", max_size=12))
def test_any_text_is_a_duration_or_a_clear_error(text):
    """No text makes the parser fail in another way than by ValueError with a message."""
    try:
        outcome = parse_duration(text)
    except ValueError as error:
        outcome = str(error)
    assert isinstance(outcome, float) or "duration" in outcome


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("90s", 90.0),
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
        ("-1.5s", -1.5),
        ("100ms", 0.1),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1h1h", 7200.0),
        ("1s1h", 3601.0),
        ("0.3ns", 0.0),
    ],
)
def test_worked_examples(text, seconds):
    """Durations as operators write them."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "48",
        "48 h",
        "1d",
        "1w",
        "h",
        ".h",
        "1h30",
        "--1h",
        "1e3s",
        "1H",
        " 1h",
        "1h ",
        "1,5h",
        "2562048h",
        "٣h",
    ],
)
def test_what_is_no_duration(text):
    """Numbers without a unit, unknown units, days, white space and more than 292 years are refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (172800.0, "48h"), (5400.0, "1h30m"), (0.1, "100ms"), (-90.0, "-1m30s"), (1e-9, "1ns")],
)
def test_formatting_is_short(seconds, text):
    """No part that is zero is printed."""
    assert format_duration(seconds) == text
