"""The reference's text checkpoint: what is written, what is read, and what is refused."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from disk_reference import EXAMPLE, GOLDEN, checkpoints, comparable, entry
from hypothesis import given
from hypothesis import strategies as st

from ccstore.disk.reference.checkpoint import MAX_DEPTH, Checkpoint, Level
from ccstore.disk.reference.jsonfile import decode_json, encode_json
from ccstore.disk.reference.snapshot import decode_snapshot, encode_snapshot
from ccstore.errors import CorruptionError

EXAMPLE_TEXT = (
    b'{"metrics":{"m":{"frequency":60,"start":1000,"data":[0.25,1.25,2.25]}},'
    b'"children":{"socket0":{"metrics":{"n":{"frequency":60,"start":1060,"data":[7.0]}},'
    b'"children":{},"from":900,"to":1200}},"from":900,"to":1200}\n'
)


def one(data: str) -> bytes:
    """Return a file with one metric."""
    return b'{"metrics":{"m":{"frequency":60,"start":5,"data":%b}},"from":1,"to":2}' % data.encode()


def read_values(data: str) -> list[float]:
    return decode_json(one(data)).host.entries["m"].values.tolist()


def write_value(value: float) -> str:
    text = encode_json(Checkpoint(1, 2, Level({"m": entry(60, 5, [value])}))).decode()
    return text.partition('"data":[')[2].partition("]")[0]


def test_worked_file() -> None:
    """Keys stand in the reference's order, names are sorted, and there is one line."""
    assert encode_json(EXAMPLE) == EXAMPLE_TEXT
    assert comparable(EXAMPLE) == comparable(decode_json(EXAMPLE_TEXT))


def test_names_are_sorted() -> None:
    """Metrics and children stand in the order of their names, as the reference sorts them."""
    values = entry(60, 5, [])
    level = Level({"b": values, "€": values, "a": values}, {"y": Level(), "x": Level()})
    text = encode_json(Checkpoint(1, 2, level)).decode()
    places = [text.index(f'"{name}":') for name in ("a", "b", "€", "x", "y")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "values"), [("reference", [0.2, 1.2, 2.2]), ("ccstore", [0.25, 1.25, 2.25])]
)
def test_golden_files(name: str, values: list[float]) -> None:
    """The reference's golden file, with one decimal, and ours are read, and ours is written the same."""
    data = (GOLDEN / f"{name}.json").read_bytes()
    found = decode_json(data)
    assert np.array(values, np.float32).tolist() == found.host.entries["m"].values.tolist()
    assert found.host.children["socket0"].entries["n"].values.tolist() == [7.0]
    assert (data == encode_json(EXAMPLE)) == (name == "ccstore")


@given(checkpoints(finite=True))
def test_round_trip(checkpoint: Checkpoint) -> None:
    """What is written reads back bit for bit, and is JSON for others as well."""
    data = encode_json(checkpoint)
    assert comparable(checkpoint) == comparable(decode_json(data))
    assert (data.count(b"\n"), data[-1:]) == (1, b"\n")
    assert list(json.loads(data)) == ["metrics", "children", "from", "to"]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_shortest_decimals(value: float) -> None:
    """A number has as few digits as its float32 needs, and the sign of a zero is kept."""
    text = write_value(value)
    assert (value, math.copysign(1, value)) == (float(np.float32(text)), math.copysign(1, float(text)))
    needed = np.format_float_scientific(np.float32(value), unique=True)
    assert Decimal(needed).normalize().as_tuple() == Decimal(text).normalize().as_tuple()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.04"), (0.05, "0.05"), (0.15, "0.15"), (0.25, "0.25"), (-0.01, "-0.01"), (0.35, "0.35"),
        (16777217, "16777216.0"), (math.nan, "null"), (math.inf, "null"), (-math.inf, "null"),
        (1000, "1000.0"), (-0.0, "-0.0"),
    ],
)  # fmt: skip
def test_written_values(value: float, text: str) -> None:
    """Nothing is rounded to one decimal, and what is no number is null."""
    assert text == write_value(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.0", 0.0), ("0.1", 0.1), ("0.2", 0.2), ("-0.0", -0.0), ("0.3", 0.3),
        ("123456792.0", 123456789.123),
        ("16777216.0", 16777217), ("100000002004087734272.0", 1e20), ("1e2", 100), ("7", 7), ("1E-3", 0.001),
        ("123456789012345678901234567890", 1.2345678901234568e29),
    ],
)  # fmt: skip
def test_read_values(text: str, value: float) -> None:
    """Numbers as the reference writes them and any other JSON numbers are read to the nearest float32."""
    assert [float(np.float32(value))] == read_values(f"[{text}]")
    assert math.copysign(1, value) == math.copysign(1, read_values(f"[{text}]")[0])


def test_missing_values() -> None:
    """Null is a missing value, and no data are none."""
    assert np.isnan(read_values("[null, 1]")).tolist() == [True, False]
    assert [] == read_values("[]") == read_values("null")


@pytest.mark.parametrize(
    "text",
    [
        b'{"Metrics":{"m":{"FREQUENCY":60,"Start":5,"dAtA":[1],"unit":"W"}},"CHILDREN":null,"From":1,"TO":2}',
        b'{"version":3,"metrics":{"m":{"frequency":60,"start":5,"data":[1]},"n":null},"from":1,"to":2}',
        b' {"metrics":{"m":{"frequency":60,"start":5,"data":[1]}},"from":1,"to":2} }{ trailing',
        b'{"from":7,"FROM":1,"metrics":{"m":{"frequency":60,"start":5,"data":[1]}},"to":2,"children":{}}',
        b'{"metric\xc5\xbf":{"m":{"frequency":60,"start":5,"data":[1]}},"from":1,"to":2}',
    ],
)
def test_what_readers_let_pass(text: bytes) -> None:
    """Keys match whatever their case, the last of two counts, unknown ones and what follows are ignored."""
    expected = Checkpoint(1, 2, Level({"m": entry(60, 5, [1])}))
    assert comparable(expected) == comparable(decode_json(text))


def test_names_keep_their_case() -> None:
    """Names of metrics and places are not keys; half a pair of surrogates is replaced."""
    metrics = b'{"M":{"frequency":1},"m":{"frequency":2},"\\ud800":{"frequency":3}}'
    text = b'{"metrics":%b,"children":{"S":{},"s":{}}}' % metrics
    found = decode_json(text)
    assert {name: e.frequency for name, e in found.host.entries.items()} == {"M": 1, "m": 2, "�": 3}
    assert (list(found.host.children), found.start, found.stop) == (["S", "s"], 0, 0)


def nested(depth: int) -> bytes:
    return b'{"children":{"x":' * depth + b"{}" + b"}}" * depth


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: empty (wanted JSON)"),
        (b"[]", ".: list (wanted an object)"),
        (b'{"from":1.0}', ".from: float (wanted a 64-bit integer)"),
        (b'{"to":9223372036854775808}', ".to: int (wanted a 64-bit integer)"),
        (b'{"from":true}', ".from: bool (wanted a 64-bit integer)"),
        (b'{"metrics":[]}', ".metrics: list (wanted an object)"),
        (b'{"metrics":{"m":1}}', ".metrics.m: int (wanted an object)"),
        (b'{"metrics":{"m":{}}}', ".metrics.m: frequency 0 (wanted 1 to 2147483647 s)"),
        (one("{}"), ".metrics.m.data: dict (wanted a list)"),
        (one('[1,"2"]'), ".metrics.m.data: an item is no number (wanted numbers and null)"),
        (one("[true]"), ".metrics.m.data: an item is no number (wanted numbers and null)"),
        (one("[[1]]"), ".metrics.m.data: an item is no number (wanted numbers and null)"),
        (one("[1e39]"), ".metrics.m.data: an item is too large (wanted float32)"),
        (one("[1e999]"), ".metrics.m.data: an item is too large (wanted float32)"),
        (one(f"[{'9' * 400}]"), ".metrics.m.data: an item is too large (wanted float32)"),
        (b'{"children":{"s":{"metrics":1}}}', ".children.s.metrics: int (wanted an object)"),
        (b'{"children":{"s":1}}', ".children.s: int (wanted an object)"),
        (
            b'{"children":{"%b":{}}}' % ("ä" * 128).encode(),
            ".children: a longer name (wanted at most 255 bytes)",
        ),
        (
            nested(MAX_DEPTH + 1),
            ".children.x" * (MAX_DEPTH + 1) + ": nested deeper (wanted at most 2 levels)",
        ),
        (nested(100_000), "byte 0: nested too deeply"),
    ],
)
def test_bad_files(data: bytes, message: str) -> None:
    """A file that cannot be right is refused with place and reason."""
    with pytest.raises(CorruptionError) as caught:
        decode_json(data)
    assert message == str(caught.value)


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", "[-Infinity]", "[.5]", "[01]", "['1']"])
def test_what_is_no_json(text: str) -> None:
    """Words and spellings that JSON does not have are refused."""
    with pytest.raises(CorruptionError, match=r"^byte 0: not JSON"):
        decode_json(one(text))


def test_cut_at_every_byte() -> None:
    """A file that ends early is refused."""
    for cut in range(len(EXAMPLE_TEXT) - 1):
        with pytest.raises(CorruptionError):
            decode_json(EXAMPLE_TEXT[:cut])


def test_a_flipped_bit_at_every_byte() -> None:
    """Text has no checksum: a damaged file is a file or a CorruptionError, and nothing else."""
    refused = 0
    for at in range(len(EXAMPLE_TEXT)):
        for bit in range(8):
            damaged = bytearray(EXAMPLE_TEXT)
            damaged[at] ^= 1 << bit
            try:
                decode_json(bytes(damaged))
            except CorruptionError:
                refused += 1
    assert refused > 4 * len(EXAMPLE_TEXT)


def test_values_that_lie_at_odd_places() -> None:
    """The values of a snapshot, which lie at any byte of it, are written as text."""
    assert encode_json(decode_snapshot(encode_snapshot(EXAMPLE))) == EXAMPLE_TEXT


@given(st.binary(max_size=100))
def test_garbage(data: bytes) -> None:
    """Bytes that are no checkpoint are refused."""
    with pytest.raises(CorruptionError):
        decode_json(b'{"metrics":1,"x":' + data)
