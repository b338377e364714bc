"""What becomes of lines: the tables and examples of the contract, by the fast pass and the full grammar."""

import pytest
from wire_oracle import METRICS, NOW, Bench, Row, bare, check, expect, sample

from ccstore.model import Metric, Outcome

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

BAD, REFUSED, UNKNOWN = Row(Outcome.BAD_LINE), Row(Outcome.REFUSED_COMPONENT), Row(Outcome.UNKNOWN_METRIC)
BLANK, LIMIT = Row(Outcome.BLANK), Row(Outcome.LIMIT)
GOOD = sample(1, 5, "c", "h")


# --- tags and places


@pytest.mark.parametrize(
    ("tags", "default", "expected"),
    [
        ("cluster=c,hostname=h", "", ("c", "h")),
        ("cluster=c,host=h,type=node", "", ("c", "h")),
        ("cluster=c,host=h,type=node,type-id=0", "", ("c", "h")),
        ("cluster=c,host=h,type=socket,type-id=1", "", ("c", "h", "socket1")),
        ("cluster=c,host=h,type-id=1,type=socket", "", ("c", "h", "socket1")),
        ("cluster=c,host=h,type=accelerator,type-id=00000000:49:00.0", "",
         ("c", "h", "accelerator00000000:49:00.0")),
        ("cluster=c,host=h,type=socket", "", ("c", "h", "socket")),
        ("cluster=c,host=h,type-id=7", "", ("c", "h", "7")),
        ("cluster=c,host=h,type=socket,type-id=3,stype=mem,stype-id=1", "", ("c", "h", "socket3", "mem1")),
        ("stype-id=1,type-id=3,cluster=c,stype=mem,host=h,type=socket", "", ("c", "h", "socket3", "mem1")),
        ("hostname=h", "DEF", ("DEF", "h")),
        ("cluster=c,hostname=h", "DEF", ("c", "h")),
        ("cluster=c", "", None),
        ("cluster=c", "DEF", None),
        ("hostname=h", "", None),
        ("Cluster=c,Host=h", "", None),
        ("Cluster=c,Host=h", "DEF", None),
        ("cluster=c,hostname=a,host=b", "", ("c", "b")),
        ("cluster=a,cluster=b,host=h", "", ("b", "h")),
        ("cluster=c,host=..", "", None),
        ("cluster=c,host=.", "", None),
        ("cluster=c,host=a/b", "", None),
        (r"cluster=c,host=a\b", "", None),
        ("cluster=c,host=" + "x" * 255, "", ("c", "x" * 255)),
        ("cluster=c,host=" + "x" * 256, "", None),
        ("cluster=c,host=h,type=" + "x" * 256, "", None),
        ("cluster=c,host=h,type=core,stype=" + "x" * 255, "", ("c", "h", "core", "x" * 255)),
        (r"cluster=c,host=a\ b,type=x\,y\=z", "", ("c", "a b", "x,y=z")),
        ("cluster=ä,host=ö", "", ("ä", "ö")),
    ],
)  # fmt: skip
def test_places(tags: str, default: str, expected: tuple[str, ...] | None) -> None:
    """Tags lead to a place, or the line is refused for its names."""
    row = REFUSED if expected is None else sample(1, 5, *expected)
    check(f"m,{tags} value=1 5\n".encode(), [row], default_cluster=default)


@pytest.mark.parametrize("tag", ["type", "type-id", "stype", "stype-id"])
def test_tags_that_may_not_be_repeated(tag: str) -> None:
    """A line with two types or two ids is bad."""
    check(f"m,cluster=c,host=h,{tag}=a,{tag}=a value=1 5\n".encode(), [BAD])


def test_subtypes_of_a_host() -> None:
    """They are kept apart where the metric combines, and collapsed, but counted, where it does not."""
    tags = b",cluster=c,host=h,type=node,stype=network,stype-id="
    message = b"m%beth0 value=1 5\nplain%beth0 value=1 5\nplain%beth1 value=1 5\n" % (tags, tags, tags)
    plain = sample(1, 5, "c", "h", metric="plain")
    check(message, [sample(1, 5, "c", "h", "networketh0"), plain, plain])
    bench = Bench()
    for _ in range(2):
        bench.scan(message)
        assert bench.scanner.collapsed == 2


def test_places_do_not_depend_on_the_metric_before() -> None:
    """The same tags mean one place for a metric that combines, and another for one that does not."""
    tags = b",cluster=c,host=h,stype=disk,stype-id="
    lines = [
        name + tags + b"%d value=1 5\n" % k for k in range(3) for name in (b"m", b"plain", b"m", b"plain")
    ]
    expected = [
        sample(1, 5, "c", "h", f"disk{k}") if combines else sample(1, 5, "c", "h", metric="plain")
        for k in range(3)
        for combines in (True, False, True, False)
    ]
    check(b"".join(lines), expected)
    assert expected[::-1] == Bench().scan(b"".join(lines[::-1]))


def test_default_clusters_are_kept_apart() -> None:
    """A line without a cluster belongs to that of its message, and one with a cluster to its own."""
    bench, message = Bench(), b"m,host=h value=1 5\nm,cluster=x,host=h value=1 5\n"
    for cluster in ("a", "b", "x", "b", "a", ""):
        first = sample(1, 5, cluster, "h") if cluster else REFUSED
        assert [first, sample(1, 5, "x", "h")] == bench.scan(message, default_cluster=cluster)


def test_a_guess_is_of_the_default_cluster() -> None:
    """What came next in a message of another default cluster is no guess for this one."""
    bench, message = Bench(), b"m,cluster=x,host=h value=1 5\nm,host=h value=1 5\n"
    for cluster in ("a", "b", "a"):
        expected = [sample(1, 5, "x", "h"), sample(1, 5, cluster, "h")]
        assert expected == bench.scan(message, default_cluster=cluster)


# --- measurements


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"m", "m"), (rb"with\ space\,comma", "with space,comma"), (rb"back\slash", "back\\slash"),
        ("é".encode(), "é"), (b"x=y", "x=y"), (b'"quoted"', '"quoted"'), (rb"with\ space,comma", None),
        (b"M", None), (b"mm", None), (b"m" * 2000, None), (b"unk", None), (rb"u\ nk", None),
        ("ä".encode(), None),
    ],
)  # fmt: skip
def test_measurements(raw: bytes, name: str | None) -> None:
    """A measurement is matched exactly, escapes resolved; a line of an unknown one is passed over."""
    row = sample(1, 5, "c", "h", metric=name) if name else UNKNOWN
    check(raw + b",cluster=c,host=h value=1 5\n", [row])


def test_all_metrics_are_found() -> None:
    """Every configured metric is known by its name, escaped as needed."""
    for metric in METRICS:
        raw = metric.name.replace(",", "\\,").replace(" ", "\\ ").encode()
        row = BLANK if raw.startswith(b"#") else sample(1, 5, "c", "h", metric=metric.name)
        check(raw + b",cluster=c,host=h value=1 5\n", [row])


@pytest.mark.parametrize(
    "line",
    [b"unk,,, garbage", b"unk garbage", b"unk,", b"unk  ", b"unk,x value=\xff\x00", b" unk value=1 5",
     b" value=1 5",
     b'job,function=start event="{\\"a\\":1}" 5', b'unk,cluster=c,host=h value="a\nb" 5', b'unk value="open'],
)  # fmt: skip
def test_the_rest_of_an_unknown_line(line: bytes) -> None:
    """Of a line of an unknown measurement nothing else is checked, and it harms no other."""
    check(line + b"\nm,cluster=c,host=h value=1 5\n", [UNKNOWN, GOOD])


def test_a_comment_is_no_measurement() -> None:
    """What begins with a hash is a comment, whatever it looks like, and even if a metric is called so."""
    check(
        b"#hash,cluster=c,host=h value=1 5\n#unk value=1 5\n  #hash value=1\n# \x01\n",
        [BLANK, BLANK, BLANK, BAD],
    )


# --- values


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1", 1.0), (b"1.5", 1.5), (b".5", 0.5), (b"5.", 5.0), (b"-3", -3.0), (b"1e+06", 1e6), (b"1E5", 1e5),
        (b"1i", 1.0), (b"-7i", -7.0), (b"1u", 1.0), (b"18446744073709551615u", 18446744073709551615),
        (b"9223372036854775807i", 2.0**63), (b"-9223372036854775808i", -(2.0**63)), (b"0.52", 0.52),
        (b"93.1", 93.1), (b"212", 212), (b"-0", -0.0), (b"-0i", 0.0), (b"1e-50", 0.0), (b"-1e-50", -0.0),
        (b"3.4028234663852886e38", 3.4028234663852886e38),
        (b"-340282346638528860000000000000000000000", -3.4028234663852886e38), (b"16777217", 16777216),
        (b"16777217.0000001", 16777218), (b"0.1234567890123456789012345", 0.12345679),
        (b"123456789012345678901234567890", 1.2345679e29), (b"1e22", 1e22), (b"1e23", 1e23),
        (b"7e-45", 7e-45),
    ],
)  # fmt: skip
def test_values(raw: bytes, expected: float) -> None:
    """Floats and integers of all forms end as the nearest float32."""
    check(b"m,cluster=c,host=h value=%b 5\n" % raw, [sample(expected, 5, "c", "h")])


@pytest.mark.parametrize(
    "raw",
    [
        *b"+5 - NaN -inf inf 0x10 0x1p4 1_000 1e400 9223372036854775808i -1u -0u true T f oops".split(),
        *b'18446744073709551616u "1" . 1e 1e+ 1.0i 3.402823466385289e38 -1e39 1" 1e5u'.split(),
        b"",
        b"1\x00",
        b"1\t",
    ],
)
def test_values_that_are_none(raw: bytes) -> None:
    """Booleans, strings, what is no number and what float32 cannot hold make a line bad."""
    check(b"m,cluster=c,host=h value=%b 5\nm,cluster=c,host=h value=1 5\n" % raw, [BAD, GOOD])


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        (b"value=7,value=1", GOOD), (b"value=true,value=1", BAD), (b"other=1", BAD),
        (b"value=1,other=2", BAD), (b"Value=1", BAD), (rb"valu\e=1", BAD), (b'value=1,event="x"', BAD),
        (b"value=1,", BAD), (b"value", BAD),
    ],
)  # fmt: skip
def test_fields(fields: bytes, row: Row) -> None:
    """There is one known field; of two values the last one counts."""
    check(b"m,cluster=c,host=h %b 5\n" % fields, [row])


# --- times


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1700000000", 1_700_000_000), (b"1700000000123", 1_700_000_000),
        (b"1700000000123456", 1_700_000_000), (b"1700000000123456789", 1_700_000_000), (b"0", 0),
        (b"9223372036", 9_223_372_036), (b"9223372037", 9_223_372), (b"9223372036854", 9_223_372_036),
        (b"9223372036855", 9_223_372), (b"9223372036854775", 9_223_372_036), (b"9223372036854776", 9_223_372),
        (b"9223372036854775807", 9_223_372_036), (b"-1", -1), (b"-9223372037", -9_223_373),
        (b"-9223372036854775807", -9_223_372_037), (b"-0", 0), (b"0001700000000", 1_700_000_000),
        (b"0" * 30 + b"7", 7),
    ],
)  # fmt: skip
def test_times(raw: bytes, expected: int) -> None:
    """The unit of a time follows from its magnitude."""
    check(b"m,cluster=c,host=h value=1 %b\n" % raw, [sample(1, expected, "c", "h")])


@pytest.mark.parametrize(
    "raw",
    [
        *b"1700000000.5 +100 1-0 9223372036854775808 -9223372036854775808 - --1 5i 1e9".split(),
        *[b"1700000000 x", b"99999999999999999999", b"1 2", b"\t5", b"5\x00"],
    ],
)
def test_times_that_are_none(raw: bytes) -> None:
    """A time that is malformed or out of range makes a line bad, and is never replaced by now."""
    check(b"m,cluster=c,host=h value=1 %b\nm,cluster=c,host=h value=1 5\n" % raw, [BAD, GOOD])


def test_a_missing_time() -> None:
    """A line without a time gets that of its message, whatever lines stand before it."""
    line = b"m,cluster=c,host=h value=1"
    here = sample(1, NOW, "c", "h")
    check(b"%b\n%b 5\n%b\n%b \n%b" % (line, line, line, line, line), [here, GOOD, here, here, here])


# --- lines and messages


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"   \r\n", b"", b"\r", b" ", b" \r"])
@pytest.mark.parametrize("time", [b" 5", b"  5"])
def test_ends_of_lines(end: bytes, time: bytes) -> None:
    """LF, CR LF and the end of the message end a line, behind any number of spaces."""
    check(b"m,cluster=c,host=h value=1" + time + end, [GOOD])


@pytest.mark.parametrize(
    ("message", "rows"),
    [
        (b"", []), (b"\n", [BLANK]), (b"\r\n  \n\n", [BLANK] * 3), (b"  ", [BLANK]),
        (b"# only this", [BLANK]), (b"\r", [BLANK]),
        (b"m,cluster=c,host=h value=1 5\n\n# x\nm,cluster=c,host=h value=1 5", [GOOD, BLANK, BLANK, GOOD]),
        (b"   m,cluster=c,host=h   value=1   5   \n", [GOOD]),
        (b"m,cluster=c,host=h value=1 5\rm,cluster=c,host=h value=1 5\nm,cluster=c,host=h value=1 5\n",
         [BAD, GOOD]), (b"m,cluster=c,host=h value=1\r\r\n", [BAD]),
         (b"\rm,cluster=c,host=h value=1\n", [BAD]),
        (b"m,cluster=c,host=h\tvalue=1\nm\n,\n\x00\n", [BAD] * 4),
        (b"m,cluster=c,host=h, value=1 5\nm,cluster=c,,host=h value=1 5\nm,cluster=c,host value=1 5\n",
         [BAD] * 3),
        (b"m,cluster=,host=h value=1 5\nm,=c,host=h value=1 5\nm,cluster=c=d,host=h value=1 5\n", [BAD] * 3),
        (b"m,cluster=c,host=\xc3 value=1 5\nm,cluster=c,host=h,\xff=x value=1 5\n", [BAD] * 2),
    ],
)  # fmt: skip
def test_messages(message: bytes, rows: list[Row]) -> None:
    """Lines end alone and count alone, and blank ones do not count at all."""
    check(message, rows)


def test_what_a_collector_sends() -> None:
    """The lines of a deployed collector end where its users look for them."""
    names = ["cpu_load", "cpu_user", "acc_power", "nv_link_x"]
    host, accelerator = b"cluster=testcluster,hostname=node01", b"type=accelerator,type-id=00000000:49:00.0"
    message = (
        b"cpu_load,%b,type=node value=0.52 1700000000\n" % host
        + b"cpu_user,%b,type=hwthread,type-id=17 value=93.1 1700000000\n" % host
        + b"acc_power,%b,%b value=212 1700000000\n" % (host, accelerator)
        + b"nv_link_x,%b,stype=nvlink,stype-id=0,%b value=1i 1700000000\n" % (host, accelerator)
    )
    bench = Bench([Metric(name, 60) for name in names])
    place = ("testcluster", "node01")
    expected = [
        sample(0.52, 1_700_000_000, *place, metric="cpu_load"),
        sample(93.1, 1_700_000_000, *place, "hwthread17", metric="cpu_user"),
        sample(212, 1_700_000_000, *place, "accelerator00000000:49:00.0", metric="acc_power"),
        sample(1, 1_700_000_000, *place, "accelerator00000000:49:00.0", "nvlink0", metric="nv_link_x"),
    ]
    assert expected == bench.scan(message) == bench.scan(message)


def test_a_bad_line_in_the_middle() -> None:
    """Of 1000 lines, a bad one in the middle costs itself alone, and its host does not come to be."""
    lines = [b"m,cluster=c,hostname=h%d value=%d 5" % (k, k) for k in range(1, 1001)]
    lines[499] = b"m,cluster=c,hostname=h500 value=oops 5"
    expected = [sample(k, 5, "c", f"h{k}") for k in range(1, 1001)]
    expected[499] = BAD
    bench = Bench()
    assert expected == bench.scan(b"\n".join(lines))
    (reject,) = bench.rejects
    assert (reject.message, reject.line, reject.reason) == (0, 500, "value 'oops' (wanted a number)")
    assert (bench.made, bench.store.locate(("c", "h500"), create=False)) == (999, -1)


@pytest.mark.parametrize(
    ("message", "rows"),
    [
        (b'm,cluster=c,host=h value="open 5\nm,cluster=c,host=h value=1 5\n', [BAD, GOOD]),
        (b'm,cluster=c,host=h value="open\n\n"\nm,cluster=c,host=h value=1 5\n', [BAD, GOOD]),
        (b'm,cluster=c,host=h value="a"b"\nm,cluster=c,host=h value=1 5\n', [BAD, GOOD]),
        (b'm,cluster=c,host=h value="a\nb" x\nm,cluster=c,host=h value=1 5\n', [BAD, UNKNOWN, GOOD]),
        (b'm,cluster=c,host=h value="a\\"\nm,cluster=c,host=h value=1 5\n', [BAD, GOOD]),
        (b'm,cluster=c,host=h value="a\n b" 5\nm,cluster=c,host=h value=1 5\n', [BAD, GOOD]),
        (b"# it's 5\" long\nm,cluster=c,host=h value=1 5\n", [BLANK, GOOD]),
        (b'm,cluster=c,host="h value=1 5\n', [sample(1, 5, "c", '"h')]),
        (b'm,cluster=c,host=h value=1"2 5\nm,cluster=c,host=h value=1 5\n', [BAD, GOOD]),
        (b'm,cluster=c,host=h value="x" 5', [BAD]),
        (b'm,cluster=c,host=h value="x', [BAD]),
        (b'"', [BAD]),
        (b'm,cluster=c,host=h value=1 5\n"\n"\nm,cluster=c,host=h value=1 5', [GOOD, BAD, BAD, GOOD]),
    ],
)
def test_strings(message: bytes, rows: list[Row]) -> None:
    """A string may go on over newlines; one that never ends costs its own line alone."""
    check(message, rows)


EVERYTHING = (
    b"m,cluster=c,host=h value=1 5\r\n# comment\n\n  plain,host=h2,type=core,type-id=0   value=-1.5e3 \n"
    b"m,cluster=c,host=a\\ b value=1i 1700000000123\nunk,,,\nm,cluster=c,host=h value=oops\n"
    b'm,cluster=c,host=h value="a\nb\\"c",value=1 5\nm value="open\nm,cluster=c,host=.. value=1\n'
    b'job,x=y event="{\\"a\\":\r\n1}" 7\nm,cluster=\xc3\xa4,host=h value=1 5\nm,cluster=c,host=h value=2'
)  # fmt: skip


def test_cuts_at_every_byte() -> None:
    """A message means the same wherever it is cut: once at each byte, and at all bytes."""
    expected = bare(expect(EVERYTHING, default_cluster="def"))
    assert len(expected) == 13
    assert len({row.outcome for row in expected}) == 5
    for cuts in [*([cut] for cut in range(len(EVERYTHING) + 1)), range(len(EVERYTHING))]:
        assert expected == Bench().scan_blocks(EVERYTHING, cuts, default_cluster="def")


@pytest.mark.parametrize("stop", range(len(EVERYTHING)))
def test_ends_at_every_byte(stop: int) -> None:
    """A message may end anywhere, and what lies behind it does not matter."""
    expected = bare(expect(EVERYTHING[:stop], default_cluster="def"))
    for junk in (EVERYTHING[stop:] + bytes(8), b"\n" * 8, b'" 5\n    '):
        assert expected == Bench().scan(EVERYTHING[:stop], default_cluster="def", junk=junk)


def test_a_quote_in_every_line() -> None:
    """Open quotes in thousands of lines cost a mistake each, and no time to speak of."""
    check(b'm,cluster=c,host=h value="1 5\n' * 500, [BAD] * 500)
