"""Hypothesis strategies for line protocol: lines that are nearly right in every way known to us."""

from decimal import Decimal

import numpy as np
from effort import EXAMPLES
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

thorough = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FLOAT32_MAX = 3.4028234663852886e38

MEASUREMENTS = [
    b"m", b"plain", b"average_of_something_with_a_long_name", b"with\\ space\\,comma", b"with space\\,comma",
    b"back\\slash", "é".encode(), b"x=y", b"#hash", b'"quoted"', b"unknown", b"unk\\ nown", b"\xff", b"",
    b"value=1", b"u" * 1100,
]  # fmt: skip

TAG_KEYS = [
    b"cluster", b"hostname", b"host", b"type", b"type-id", b"stype", b"stype-id", b"unit", b"Cluster", b"",
    b"a\\ b", b"ty\\pe", b"ho\\=st", "ü".encode(), b"\xc3",
]  # fmt: skip

TAG_VALUES = [
    b"c", b"h", b"h1", b"node", b"socket", b"0", b"1", b"00000000:49:00.0", b"a\\ b", b"a\\,b\\=c", b"a\\\\",
    b"a\\", b"..", b".", b"/tmp", b"a\\b", "ä".encode(), b"\xe4", b"x" * 255, b"x" * 256, "ä".encode() * 128,
    b"", b'q"', b"a=b", b"\x01", b"\x7f", b"x" * 1000,
]  # fmt: skip

PALETTE = b'"\\\r\n\x00 ,=#\t\x1f\x7f\x80\xc3\xa9\xff-+.0159eEiuvalue'


def near_midpoint(low: int, digits: int, by: int, form: str) -> bytes:
    """Return a number next to the middle between the float32 with the bits `low` and the next one.

    It has so many digits, of which the last is off by some.
    """
    bottom = np.uint32(low).view(np.float32)
    high = np.uint32(low + 1).view(np.float32)
    top = Decimal(2) ** 128 if np.isinf(high) else Decimal(float(high))
    middle = (Decimal(float(bottom)) + top) / 2
    number = int(middle.scaleb(digits - 1 - middle.adjusted())) + by
    exponent = middle.adjusted() - (digits - 1)
    if form == "f" and -40 < exponent < 40:
        return format(Decimal(number).scaleb(exponent), "f").encode()
    if form == "e.":
        text = str(number)
        return f"{text[:-1]}.{text[-1]}e{exponent + 1}".encode()
    return f"{number}e{exponent}".encode()


near_midpoints = st.builds(
    near_midpoint,
    # mostly where the fast pass would dare to answer
    st.integers(0x38000000, 0x7F7FFFFF) | st.integers(0, 0x7F7FFFFF),
    st.sampled_from([16, 17, 18, 19]) | st.integers(1, 25),
    st.integers(-1, 1),
    st.sampled_from(["e", "e.", "f"]),
)


_integers = st.one_of(
    st.integers(-(10**25), 10**25),
    st.builds(
        lambda limit, by: limit + by,
        st.sampled_from([0, 2**63 - 1, -(2**63), 2**64 - 1, 2**53, 10**18, 10**19, 2**128]),
        st.integers(-3, 3),
    ),
)

_ODD_NUMBERS = [
    "0", "1", "-0", "0.5", "5.", ".5", "-.5", ".", "-", "1e5", "1E+05", "1e-3", "1e", "1e400", "1e-400", "+5",
    "NaN", "inf", "1_0", "0x1p4", "true", "F", "1e+", "1.5i", "-1u", "--1", "1-", "1e5i", "00", "-0i", "1i2",
    "0.1e-44", "7.006492321624085e-46", "1" + "0" * 18, "0" * 30 + "1", "9" * 400,
]  # fmt: skip
_LARGE_NUMBERS = [
    "9223372036854775807i", "9223372036854775808i", "-9223372036854775808i", "18446744073709551615u",
    "9999999999999999999i", "99999999999999999999u", "999999999999999999i",
    "340282346638528859811704183484516925440", "340282356779733661637539395458142568447",
    "340282356779733661637539395458142568448",
]  # fmt: skip

numbers = st.one_of(
    st.sampled_from(_ODD_NUMBERS),
    st.sampled_from(_LARGE_NUMBERS),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.builds(
        lambda n, suffix: f"{n}{suffix}", _integers, st.sampled_from(["", "i", "u", ".", "e2", "e-22", "e22"])
    ),
    st.builds(lambda n, k: f"{n}e{k}", st.integers(-(10**20), 10**20), st.integers(-60, 40)),
    st.builds(
        lambda digits, at: digits[:at] + "." + digits[at:],
        st.text("0123456789", min_size=1, max_size=25),
        st.integers(0, 25),
    ),
    st.builds(
        lambda ulps: repr(float((np.float64(FLOAT32_MAX).view(np.int64) + np.int64(ulps)).view(np.float64))),
        st.integers(-(2**30), 2**30),
    ),
).map(str.encode)


_time_limits = [(2**63 - 1) // 10**k for k in (9, 6, 3, 0)]
times = st.one_of(
    st.just(b"1700000000"),
    st.builds(
        lambda limit, by, sign: b"%d" % (sign * (limit + by)),
        st.sampled_from([0, *_time_limits, 10**18, 10**19, 2**64, 2**64 + 10**9]),
        st.integers(-2, 2),
        st.sampled_from([1, -1]),
    ),
    st.integers(-(10**21), 10**21).map(lambda n: b"%d" % n),
    st.sampled_from(b"0001700000000 1700000000.5 +100 1-0 - --1 x".split()),
    st.sampled_from([b"1700000000 x", b"0" * 19, b"0" * 20, b"9" * 500]),
)

_PARTS_OF_STRINGS = [
    b"a", b" ", b",", b"=", b"\n", b"\r\n", b'\\"', b"\\\\", b"\\n", b"\\", b"\xff", b"m value=1",
]  # fmt: skip
strings = st.builds(
    lambda parts, close: b'"' + b"".join(parts) + close,
    st.lists(st.sampled_from(_PARTS_OF_STRINGS), max_size=6),
    st.sampled_from([b'"', b'"', b'"', b""]),
)

_usual_tags = st.builds(
    lambda cluster, host, kind: b"%b,hostname=%b%b" % (cluster, host, kind),
    st.sampled_from([b",cluster=c", b",cluster=c", b",cluster=c2", b""]),
    st.sampled_from([b"h", b"h1", b"h2"]),
    st.sampled_from(
        [
            b"",
            b",type=node",
            b",type=hwthread,type-id=7",
            b",type=node,stype=network,stype-id=eth0",
            b",type=socket,type-id=1,stype=mem,stype-id=2",
        ]
    ),
)

_odd_tags = st.lists(
    st.builds(
        lambda key, equals, value: b"," + key + equals + value,
        st.sampled_from(TAG_KEYS),
        st.sampled_from([b"=", b"=", b"=", b"=", b"", b"=="]),
        st.sampled_from(TAG_VALUES),
    ),
    max_size=6,
).map(b"".join)

_numbers = numbers | near_midpoints

_fields = st.one_of(
    numbers.map(lambda number: b"value=" + number),
    numbers.map(lambda number: b"value=" + number),
    numbers.map(lambda number: b"value=" + number),
    st.builds(lambda a, b: b"value=%b,value=%b" % (a, b), numbers, numbers),
    st.builds(
        lambda key, text: key + b"=" + text, st.sampled_from([b"value", b"event", b"val\\=ue"]), strings
    ),
    st.sampled_from([b"other=1", b"value", b"value=", b"=1", b"", b"value=1,", b"value =1", b"Value=1"]),
)

_ends = st.sampled_from(
    [b"\n"] * 12 + [b"\r\n", b"\r", b" \n", b"\n\n", b" \r\n", b"\t\n", b"\x00\n", b"  \n"]
)

_gaps = st.sampled_from([b" "] * 10 + [b"  ", b"", b"\t"])

_usual_line = st.builds(
    lambda name, tags, number, time, end: name + tags + b" value=" + number + time + end,
    st.sampled_from([b"m", b"m", b"plain", b"average_of_something_with_a_long_name", b"unknown"]),
    _usual_tags,
    _numbers,
    st.one_of(st.just(b""), times.map(lambda time: b" " + time)),
    st.sampled_from([b"\n", b"\n", b"\r\n"]),
)

_odd_line = st.builds(
    lambda lead, name, tags, gap, fields, time, end: lead + name + tags + gap + fields + time + end,
    st.sampled_from([b""] * 8 + [b" ", b"   ", b"#", b"# "]),
    st.sampled_from(MEASUREMENTS),
    st.one_of(_usual_tags, _odd_tags),
    _gaps,
    _fields,
    st.one_of(st.just(b""), st.builds(lambda gap, time: gap + time, _gaps, times)),
    _ends,
)

_comment = st.sampled_from(
    [b"\n", b"# a comment\n", b'# say "\n', b"#\x01\n", b" \n", b"\r\n", b"\r", b"  # later\n", b"\n\n\n"]
)


def _mutate(line: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    text = bytearray(line)
    for kind, where, byte in changes:
        at = where % (len(text) + 1)
        if kind == 0:
            text[at:at] = bytes([byte])
        elif kind == 1:
            del text[at : at + 1]
        elif kind == 2 and at < len(text):
            text[at] = byte
        elif at + 1 < len(text):
            text[at], text[at + 1] = text[at + 1], text[at]
    return bytes(text)


_changes = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 120), st.one_of(st.sampled_from(PALETTE), st.integers(0, 255))
    ),
    min_size=1,
    max_size=3,
)

lines = st.one_of(
    _usual_line,
    _usual_line,
    _odd_line,
    _odd_line,
    st.builds(_mutate, _usual_line, _changes),
    st.builds(_mutate, _odd_line, _changes),
    _comment,
)
"""One line, or nearly one, or a few."""


@st.composite
def messages(draw: st.DrawFn, *, max_lines: int = 40) -> list[bytes]:
    """Return the lines of a message: a few different ones, in an order that repeats in part."""
    pool = draw(st.lists(lines, min_size=1, max_size=8))
    order = draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=max_lines))
    return [pool[k] for k in order]
