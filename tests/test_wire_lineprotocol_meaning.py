"""What grammatical lines mean: places, values, times."""

import pytest

from ccstore.errors import ProtocolError
from ccstore.wire.lineprotocol import (
    Line,
    Place,
    Text,
    merge_tags,
    number_of,
    parse_line,
    place_of,
    seconds_of,
    value_of,
)


def parse(text: bytes) -> Line:
    """Return the line that a whole input is."""
    line = parse_line(text, 0, len(text))
    assert line is not None
    return line


# --- places


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([("host", "a"), ("hostname", "b"), ("host", "c")], [("hostname", "b"), ("host", "c")]),
        ([("cluster", "a"), ("x", "1"), ("cluster", "b"), ("x", "2")], [("cluster", "b"), ("x", "2")]),
        ([], []),
    ],
)
def test_repeated_tags(tags: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    """The last one of a name counts, where it stands."""
    assert expected == list(merge_tags(tags).items())


@pytest.mark.parametrize("name", ["type", "type-id", "stype", "stype-id"])
def test_tags_that_may_not_be_repeated(name: str) -> None:
    """A component has one name, so its tags occur once."""
    with pytest.raises(ProtocolError, match=f"^tag '{name}' occurs twice$"):
        merge_tags([(name, "a"), ("x", "y"), (name, "a")])


def place(text: str, *, default_cluster: str = "DEF", combines: bool = False) -> Place:
    """Return the place of tags written as in a line."""
    return place_of(
        merge_tags(parse(f"m,{text} value=1".encode()).tags),
        default_cluster=default_cluster,
        combines=combines,
    )


@pytest.mark.parametrize(
    ("tags", "path"),
    [
        ("cluster=c,hostname=h", ("c", "h")),
        ("cluster=c,host=h,type=node", ("c", "h")),
        ("cluster=c,host=h,type=node,type-id=0", ("c", "h")),
        ("cluster=c,host=h,type=socket,type-id=1", ("c", "h", "socket1")),
        ("cluster=c,host=h,type-id=1,type=socket", ("c", "h", "socket1")),
        ("cluster=c,host=h,type=accelerator,type-id=00000000:49:00.0",
         ("c", "h", "accelerator00000000:49:00.0")),
        ("cluster=c,host=h,type=socket", ("c", "h", "socket")),
        ("cluster=c,host=h,type-id=7", ("c", "h", "7")),
        ("cluster=c,host=h,type=socket,type-id=3,stype=mem,stype-id=1", ("c", "h", "socket3", "mem1")),
        ("stype-id=1,type-id=3,cluster=c,stype=mem,host=h,type=socket", ("c", "h", "socket3", "mem1")),
        ("cluster=c,host=h,type=socket,stype=node", ("c", "h", "socket", "node")),
        ("cluster=c,host=h,type=node,stype=network,stype-id=eth0", ("c", "h")),
        ("cluster=c,host=h,stype=network,stype-id=eth0", ("c", "h")),
        ("hostname=h", ("DEF", "h")),
        ("cluster=c,hostname=a,host=b", ("c", "b")),
        ("cluster=c,host=a,hostname=b", ("c", "b")),
        ("cluster=c,host=a,hostname=b,host=c", ("c", "c")),
        ("cluster=a,host=h,cluster=b", ("b", "h")),
        ("cluster=c,host=h,subtype=mem,Type=socket,type=core,type-id=0", ("c", "h", "core0")),
    ],
)  # fmt: skip
def test_paths(tags: str, path: tuple[str, ...]) -> None:
    """Tags name a place by their role, whatever their order."""
    assert (path, "") == (place(tags).path, place(tags).refused)


def test_subtypes_of_a_host() -> None:
    """Below a host, a subtype has a place of its own if the metric combines; else it is dropped."""
    tags = "cluster=c,host=h,type=node,stype=network,stype-id=eth0"
    assert Place(("c", "h", "networketh0"), True, True, False, "") == place(tags, combines=True)
    assert Place(("c", "h"), True, True, True, "") == place(tags, combines=False)
    below = "cluster=c,host=h,type=socket,type-id=0,stype=mem,stype-id=1"
    assert place(below, combines=True) == place(below, combines=False) == Place(
        ("c", "h", "socket0", "mem1"), True, False, False, ""
    )  # fmt: skip


def test_the_default_cluster() -> None:
    """A place tells whether its cluster is from the line."""
    assert (place("host=h").tagged, place("cluster=DEF,host=h").tagged) == (False, True)


@pytest.mark.parametrize(
    ("tags", "default", "reason"),
    [
        ("cluster=c", "", "no host"),
        ("Cluster=c,Host=h", "", "no cluster"),
        ("Cluster=c,Host=h", "DEF", "no host"),
        ("host=h", "", "no cluster"),
        ("cluster=..,host=h", "", "cluster '..' (wanted no '..', '/', '\\', and not '.')"),
        ("cluster=.,host=h", "", "cluster '.' (wanted no '..', '/', '\\', and not '.')"),
        ("cluster=c,host=a..b", "", "host 'a..b' (wanted no '..', '/', '\\', and not '.')"),
        ("cluster=c,host=a/b", "", "host 'a/b' (wanted no '..', '/', '\\', and not '.')"),
        (r"cluster=c,host=a\b", "", r"host 'a\\b' (wanted no '..', '/', '\', and not '.')"),
        ("host=h", "a/b", "cluster 'a/b' (wanted no '..', '/', '\\', and not '.')"),
        ("host=h", "a\0b", r"cluster 'a\x00b' (wanted no control characters)"),
        ("host=h", "a\ud800", r"cluster 'a\ud800' (wanted no control characters)"),
        ("cluster=c,host=" + "x" * 256, "", f"host '{'x' * 37}...' of 256 bytes (wanted at most 255)"),
        ("cluster=c,host=" + "ä" * 128, "", f"host '{'ä' * 37}...' of 256 bytes (wanted at most 255)"),
        ("cluster=c,host=h,type=" + "x" * 200 + ",type-id=" + "y" * 56, "",
         f"component '{'x' * 37}...' of 256 bytes (wanted at most 255)"),
        ("cluster=c,host=h,type=core,stype=" + "x" * 256, "",
         f"subcomponent '{'x' * 37}...' of 256 bytes (wanted at most 255)"),
    ],
)  # fmt: skip
def test_refused_places(tags: str, default: str, reason: str) -> None:
    """A place needs a cluster and a host, and names that can be names of files and fit into the log."""
    assert reason == place(tags, default_cluster=default).refused


@pytest.mark.parametrize(
    "tags",
    ["cluster=c,host=" + "x" * 255, "cluster=c,host=" + "ä" * 127, "cluster=c,host=.h", "cluster=c,host=h.",
     "cluster=c,host=a.b", "cluster=c,host=h,type=filesystem,type-id=/a/../b", r"cluster=c,host=a\ b"],
)  # fmt: skip
def test_places_that_may_be(tags: str) -> None:
    """Names up to 255 bytes are fine, and components may hold what hosts may not."""
    assert place(tags).refused == ""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1", 1.0), (b"1.5", 1.5), (b".5", 0.5), (b"5.", 5.0), (b"-3", -3.0), (b"1e+06", 1e6), (b"1E5", 1e5),
        (b"1i", 1.0), (b"-7i", -7.0), (b"1u", 1.0), (b"18446744073709551615u", 2.0**64),
        (b"9223372036854775807i", 2.0**63), (b"-9223372036854775808i", -(2.0**63)), (b"-.5e-1", -0.05),
        (b"007", 7.0), (b"-0i", 0.0), (b"0u", 0.0), (b"1e-400", 0.0),
        (b"3.4028234663852886e38", 3.4028234663852886e38),
        (b"-3.4028234663852886e38", -3.4028234663852886e38), (b"0" * 5000 + b"1i", 1.0),
        (b"1" + b"0" * 30, 1e30), (b"0." + b"0" * 5000 + b"1e5001", 1.0),
    ],
)  # fmt: skip
def test_numbers(raw: bytes, expected: float) -> None:
    """Floats and integers of all forms that senders use are numbers."""
    assert expected == number_of(raw)


@pytest.mark.parametrize(
    "raw",
    [
        *b"+5 - NaN nan -inf inf 0x10 0x1p4 1_000 1e400 -1e400 9223372036854775808i".split(),
        *b"-9223372036854775809i 18446744073709551616u -1u -0u true T f FALSE oops . -. 1e 1e+".split(),
        *b"1.5i 1e5i i -i 1, --1 1.2.3 1i2 e5 3.402823466385289e38 3.4028235e38 1e39".split(),
        b"1 ",
        b"1\x00",
        b"\xff",
        b"9" * 5000 + b"i",
        "\N{FULLWIDTH DIGIT ONE}".encode(),
    ],
)
def test_values_that_are_no_numbers(raw: bytes) -> None:
    """What is no number, or none that float32 can hold, is a mistake that shows the value."""
    with pytest.raises(ProtocolError, match=r"^value (is a boolean: )?'.*' (out of range )?\(wanted "):
        number_of(raw)


def test_strings_are_no_numbers() -> None:
    """A string stays a string, even if it spells a number."""
    with pytest.raises(ProtocolError, match=r"^value is a string: '1' \(wanted a number\)$"):
        number_of(Text("1"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [(b"value=1", 1.0), (b"value=1,value=2", 2.0), (rb"value=1,value=3i", 3.0)],
)
def test_the_value_of_a_line(fields: bytes, expected: float) -> None:
    """The last value counts."""
    assert expected == value_of(parse(b"m " + fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (b"other=1", "unknown field 'other' (wanted 'value')"),
        (b"value=1,other=1", "unknown field 'other' (wanted 'value')"),
        (b"Value=1", "unknown field 'Value' (wanted 'value')"),
        (b"value=oops,value=1", "value 'oops' (wanted a number)"),
        (b"value=1,value=true", "value is a boolean: 'true' (wanted a number)"),
        (b'value="x"', "value is a string: 'x' (wanted a number)"),
    ],
)
def test_lines_without_a_value(fields: bytes, message: str) -> None:
    """Any other field makes a line bad, and so does a value that is none, even an earlier one."""
    with pytest.raises(ProtocolError) as caught:
        value_of(parse(b"m " + fields))
    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (1_700_000_000, 1_700_000_000), (1_700_000_000_123, 1_700_000_000),
        (1_700_000_000_123_456, 1_700_000_000), (1_700_000_000_123_456_789, 1_700_000_000), (0, 0),
        (9_223_372_036, 9_223_372_036), (9_223_372_037, 9_223_372), (9_223_372_036_854, 9_223_372_036),
        (9_223_372_036_855, 9_223_372), (9_223_372_036_854_775, 9_223_372_036),
        (9_223_372_036_854_776, 9_223_372), (2**63 - 1, 9_223_372_036), (-1, -1),
        (-9_223_372_036, -9_223_372_036), (-9_223_372_037, -9_223_373), (-9_223_372_036_855, -9_223_373),
        (-(2**63) + 1, -9_223_372_037),
    ],
)  # fmt: skip
def test_units_of_time(timestamp: int, expected: int) -> None:
    """The unit follows from the magnitude; what is left of a second is cut towards the past."""
    assert expected == seconds_of(timestamp)


@pytest.mark.parametrize("timestamp", [2**63, -(2**63), 10**19, -(10**300)])
def test_times_out_of_range(timestamp: int) -> None:
    """Beyond 64 bits there is no time."""
    with pytest.raises(ProtocolError, match=r"^timestamp .* out of range \(wanted 64 bits\)$"):
        seconds_of(timestamp)
