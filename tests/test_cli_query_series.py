"""Questions to a server, their answers, and numbers for readers."""

import json
import math
from datetime import timedelta, timezone

import numpy as np
import pytest

from ccstore.cli.client import ServerError
from ccstore.cli.series import (
    Components,
    Ids,
    Place,
    Question,
    decode_answer,
    encode_question,
    parse_ids,
)
from ccstore.cli.units import Scale, choose_scale

CET = timezone(timedelta(hours=1), "CET")


@pytest.mark.parametrize(
    ("unit", "largest", "value", "text"),
    [
        ("", 72.0, 71.9, "71.90 "),
        ("", 0.85, 0.851, "0.851 "),
        ("", 123456.0, 1.0, "1 "),
        ("", 1.5e6, 1.5e6, "1.500 10^6"),
        ("%", 100.0, 99.87, "99.9 %"),
        ("degC", 0.0, 0.0, "0.000 degC"),
        ("B/s", 950.0, 12.5, "12.5 B/s"),
        ("B/s", 1_234_567.9, 1_234_567.9, "1.235 MB/s"),
        ("GB/s", 304.3, 2.4, "2.4 GB/s"),
        ("GB/s", 1500.0, 1500.0, "1.500 TB/s"),
        ("GB", 0.05, 0.05, "50 MB"),
        ("GF/s", 0.003, 0.001, "1 MF/s"),
        ("MHz", 2400.0, 2401.0, "2.401 GHz"),
        ("W", 0.25, 0.25, "0.250 W"),
        ("W", 1e30, 1e30, "1000000000000 EW"),
        ("packets/s", 12_345.0, 12_345.0, "12.35 kpackets/s"),
        ("operations", 12_345.0, 12_345.0, "12345 operations"),
        ("MIPS", 2e9, 2e9, "2.000 10^9 MIPS"),
    ],
)
def test_units_prefixes_and_digits(unit, largest, value, text):
    """Prefixes only where they are used, four digits of the largest, and none that was not sent."""
    scale = choose_scale(unit, largest)
    assert f"{scale.format(value)} {scale.unit}" == text


def test_a_missing_number_is_a_dash():
    """It is never a zero."""
    assert Scale(0, "", 2).format(math.nan) == "-"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0", ("0",)),
        ("0,1, 7", ("0", "1", "7")),
        ("0-3", ("0", "1", "2", "3")),
        ("0-1,4-5,1", ("0", "1", "4", "5")),
        ("00000000:49:00.0", ("00000000:49:00.0",)),
        ("gpu-a", ("gpu-a",)),
    ],
)
def test_lists_of_ids(text, names):
    """Commas, ranges, each once; what is no range of numbers is an id as it is."""
    assert parse_ids(text) == Ids(text, names)


@pytest.mark.parametrize("text", ["", ",", "3-1", "0-99999999"])
def test_what_is_no_list_of_ids(text):
    """Nothing, a range backwards, and one that nobody meant."""
    with pytest.raises(ValueError, match="wanted such as"):
        parse_ids(text)


def test_all_hosts_are_asked_for_at_once():
    """Without hosts and components the server names the hosts itself."""
    request, places = encode_question(Question("alex", ("m", "n")), (), 10, 20)
    assert request == {
        "cluster": "alex", "from": 10, "to": 20, "with-padding": False, "for-all-nodes": ("m", "n")
    }  # fmt: skip
    assert places == []


def test_components_are_asked_for_one_by_one():
    """So that one that is missing does not take the place of another."""
    components = Components("socket", parse_ids("0-1"), "mem", parse_ids("a,b"))
    question = Question("alex", ("m",), ("h",), components, 300)
    request, places = encode_question(question, question.hosts, 10, 20)
    assert [place.component for place in places] == [
        "socket0.mema",
        "socket0.memb",
        "socket1.mema",
        "socket1.memb",
    ]
    assert request["queries"][1] == {
        "metric": "m", "host": "h", "resolution": 300,
        "type": "socket", "type-ids": ["0"], "subtype": "mem", "subtype-ids": ["b"],
    }  # fmt: skip


def test_combined_components_are_one_query():
    """Their name is what the user wrote."""
    components = Components("socket", parse_ids("0-1"), "mem", parse_ids("a,b"), combined=True)
    question = Question("alex", ("m",), ("h",), components)
    request, places = encode_question(question, question.hosts, 10, 20)
    assert places == [Place("m", "h", "socket[0-1].mem[a,b]")]
    assert request["queries"] == [
        {
            "metric": "m", "host": "h", "type": "socket", "type-ids": ("0", "1"), "aggreg": True,
            "subtype": "mem", "subtype-ids": ("a", "b"),
        }
    ]  # fmt: skip
    plain = Components("socket", parse_ids("0"), combined=True)
    assert [name for name, _ in plain.selectors()] == ["socket[0]"]


def answer(*results, **rest):
    """Write an answer."""
    return json.dumps({**rest, "results": results}).encode()


GOOD = {
    "data": [None, 0.126, 2.126],
    "from": 1000,
    "to": 1180,
    "resolution": 60,
    "avg": 9.0,
    "min": 8.0,
    "max": 10.0,
}


def test_an_answer_becomes_series():
    """Times follow from the first one and the step; statistics from the values unless they are thinned."""
    place = Place("m", "h")
    (series,) = decode_answer(answer([GOOD]), [place])
    assert series.place == place
    assert series.times.tolist() == [1000, 1060, 1120]
    np.testing.assert_array_equal(series.values, [math.nan, 0.126, 2.126])
    assert (series.average, series.lowest, series.highest, series.last) == (1.126, 0.126, 2.126, 2.126)
    (thinned,) = decode_answer(answer([GOOD]), [place], thinned=True)
    assert (thinned.average, thinned.lowest, thinned.highest) == (9.0, 8.0, 10.0)


def test_an_answer_tells_errors_and_what_is_not_stored():
    """Both are told apart from a series without values in the range."""
    empty = {"from": 5, "to": 5, "resolution": 60, "avg": None, "min": None, "max": None}
    wrong = {"error": "no", "from": 0, "to": 0, "resolution": 0, "avg": 0.0, "min": 0.0, "max": 0.0}
    places = [Place("m", host) for host in "abc"]
    silent, failed, absent = decode_answer(answer([empty], [wrong], []), places)
    assert (silent.is_stored, silent.error, len(silent.values)) == (True, "", 0)
    assert math.isnan(silent.last)
    assert math.isnan(silent.average)
    assert (failed.error, failed.is_stored) == ("no", True)
    assert not absent.is_stored


def test_an_answer_names_the_hosts_that_were_not():
    """Their queries come behind those that were asked."""
    named = [{"metric": "m", "host": "h1"}, {"metric": "m", "host": "h2"}]
    series = decode_answer(answer([GOOD], [], queries=named), [])
    assert [one.place for one in series] == [Place("m", "h1"), Place("m", "h2")]
    assert decode_answer(answer(), []) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"{}"),
        *(answer([GOOD]), answer([GOOD, GOOD], []), answer([{}], []), answer([{"data": "x"}], [])),
    ],
)
def test_an_answer_that_does_not_fit(body):
    """Another program's JSON, too many results or too few."""
    with pytest.raises(ServerError, match="the answer is not one of a metric store"):
        decode_answer(body, [Place("m", "a"), Place("m", "b")])
