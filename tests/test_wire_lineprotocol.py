"""The full grammar, one line at a time."""

import pytest

from ccstore.errors import ProtocolError
from ccstore.wire.lineprotocol import (
    Line,
    Text,
    end_of_bad_line,
    merge_tags,
    parse_line,
    split_measurement,
    split_plain_tags,
)


def parse(text: bytes) -> Line:
    """Return the line that a whole input is."""
    line = parse_line(text, 0, len(text))
    assert line is not None
    return line


# --- how lines look


def test_a_line_has_four_parts() -> None:
    """Measurement, tags, fields and time are split, and offsets tell where the key and the line end."""
    text = b'  m,host=h,a=b  value=1,event="x"  -17  \nrest'
    expected = Line("m", (("host", "h"), ("a", "b")), (("value", b"1"), ("event", Text("x"))), -17, 2, 14, 41)
    assert expected == parse_line(text, 0, len(text))


def test_a_line_in_the_middle() -> None:
    """Nothing before the start or from the stop on counts, and offsets are those of the whole."""
    text = b"junkm,host=h value=12345"
    expected = Line("m", (("host", "h"),), (("value", b"12"),), None, 4, 12, 21)
    assert expected == parse_line(text, 4, 21)
    assert expected == parse_line(memoryview(text), 4, 21)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r", b" \n", b"  \r\n", b" "])
def test_ends_of_lines(end: bytes) -> None:
    """A line ends with LF, CR LF, or the input, with spaces in front of that."""
    text = b"m,host=h value=1 5" + end
    assert (5, len(text)) == (parse(text).timestamp, parse(text).stop)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rb"a\,b", "a,b"), (rb"a\ b", "a b"), (rb"a\=b", r"a\=b"), (rb"a=b", "a=b"), (rb"a\b", r"a\b"),
        (rb"a\\b", r"a\\b"), (rb"a\\\,b", r"a\\,b"), (b'a"b"', 'a"b"'), ("é€😀".encode(), "é€😀"),
    ],
)  # fmt: skip
def test_measurements(raw: bytes, expected: str) -> None:
    """A backslash escapes comma and space, and is itself before all else."""
    line = parse(raw + b",k=v value=1")
    assert (expected, (("k", "v"),)) == (line.measurement, line.tags)
    assert expected == split_measurement(raw + b",k=v value=1", 0, len(raw) + 1)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rb"a\,b", "a,b"), (rb"a\ b", "a b"), (rb"a\=b", "a=b"), (rb"a\b", r"a\b"), (rb"\\a", r"\\a"),
        (b'"', '"'), (rb"a\\\=b", r"a\\=b"), ("ü".encode(), "ü"), (b"00000000:49:00.0", "00000000:49:00.0"),
        (b"/mnt/x", "/mnt/x"),
    ],
)  # fmt: skip
def test_keys_and_tag_values(raw: bytes, expected: str) -> None:
    """In keys and tag values a backslash escapes the equals sign, too."""
    line = parse(b"m,%b=%b,x=y %b=1" % (raw, raw, raw))
    assert (((expected, expected), ("x", "y")), ((expected, b"1"),)) == (line.tags, line.fields)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'""', ""), (b'"a b,c=d"', "a b,c=d"), (rb'"a\"b"', 'a"b'), (rb'"a\\"', "a\\"),
        (rb'"\n\r\t"', "\n\r\t"), (rb'"\x\,"', r"\x\,"), (b'"a\nb\r\nc"', "a\nb\r\nc"), ('"é"'.encode(), "é"),
        (b'"\x00\x7f"', "\0\x7f"),
    ],
)  # fmt: skip
def test_strings(raw: bytes, expected: str) -> None:
    """A string may hold anything, newlines included; five escapes count in it."""
    line = parse(b"m,host=h event=%b,value=1 7\n" % raw)
    assert ((("event", expected), ("value", b"1")), 7) == (line.fields, line.timestamp)
    assert isinstance(line.fields[0][1], Text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"\r\n",
        b"\r",
        b"   ",
        b"  \n",
        b"#",
        b"# value=1\n",
        b"  # x\r\n",
        b'#"\n',
        "# é\n".encode(),
        b"#\xff",
    ],
)
def test_blank_lines_and_comments(text: bytes) -> None:
    """A blank line or a comment is no line, and no mistake."""
    assert parse_line(text, 0, len(text)) is None


BAD = [
    (b",host=h value=1", "byte 0: empty measurement"),
    (b"=1", "byte 2: no field (wanted a space and key=value)"),
    (b"m\tx value=1", "byte 1: no field (wanted a space and key=value)"),
    (b"\x00m value=1", "byte 0: measurement with a control byte"),
    (b"m", "byte 1: no field (wanted a space and key=value)"),
    (b"m,host=h", "byte 8: no field (wanted a space and key=value)"),
    (b"m,host=h ", "byte 9: empty field key"),
    (b"m,host=h \n", "byte 9: empty field key"),
    (b"m, value=1", "byte 2: empty tag key"),
    (b"m,\n", "byte 2: empty tag key"),
    (b"m,,a=b value=1", "byte 2: empty tag key"),
    (b"m,=b value=1", "byte 2: empty tag key"),
    (b"m,a value=1", "byte 3: key without value (wanted key=value)"),
    (b"m,a= value=1", "byte 4: empty tag value"),
    (b"m,a=,b=c value=1", "byte 4: empty tag value"),
    (b"m,a=b=c value=1", "byte 5: no field (wanted a space and key=value)"),
    (b"m,a\x7f=b value=1", "byte 3: key without value (wanted key=value)"),
    (b"m,\x01=b value=1", "byte 2: tag key with a control byte"),
    (b"m,a=\tb value=1", "byte 4: tag value with a control byte"),
    (b"m,a=b\nvalue=1", "byte 5: no field (wanted a space and key=value)"),
    (b"m value", "byte 7: key without value (wanted key=value)"),
    (b"m value=", "byte 8: empty field value"),
    (b"m value= 1", "byte 8: empty field value"),
    (b"m =1", "byte 2: empty field key"),
    (b"m value=1,", "byte 10: empty field key"),
    (b"m value=1, 5", "byte 10: empty field key"),
    (b"m value=1,,other=2", "byte 10: empty field key"),
    (b'm value="a', "byte 8: string without closing quote"),
    (rb'm value="a\"', "byte 8: string without closing quote"),
    (b'm value="a"b', "byte 11: text behind the fields and the time (wanted the end of the line)"),
    (b'm value="\xff"', "byte 8: string is not valid UTF-8"),
    (b"m value=1 5 x", "byte 11: text behind the fields and the time (wanted the end of the line)"),
    (b"m value=1 x", "byte 9: text behind the fields and the time (wanted the end of the line)"),
    (b"m value=1 1700000000.5", "byte 20: text behind the fields and the time (wanted the end of the line)"),
    (b"m value=1 +100", "byte 9: text behind the fields and the time (wanted the end of the line)"),
    (b"m value=1 1-0", "byte 10: timestamp '1-0' (wanted an integer)"),
    (b"m value=1 -", "byte 10: timestamp '-' (wanted an integer)"),
    (b"m value=1 " + b"9" * 401, f"byte 10: timestamp '{'9' * 37}...' (wanted an integer)"),
    (b"m value=1\r5", "byte 9: text behind the fields and the time (wanted the end of the line)"),
    (
        b"m value=1 5\rm value=2 6\n",
        "byte 11: text behind the fields and the time (wanted the end of the line)",
    ),
    (b"  \rm value=1\n", "byte 2: text behind the fields and the time (wanted the end of the line)"),
    (b"# a\tb\n", "byte 0: control byte in a comment"),
    (b"# a\rb\n", "byte 0: control byte in a comment"),
    (b"\xff value=1", "byte 1: not valid UTF-8"),
    (b"m,a=\xc3 value=1", "byte 5: not valid UTF-8"),
    (b"m \xe2\x82=1", "byte 6: not valid UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_lines(text: bytes, message: str) -> None:
    """A bad line says at which byte it stopped making sense, and what was wanted there."""
    with pytest.raises(ProtocolError) as caught:
        parse_line(text, 0, len(text))
    assert message == str(caught.value)


def test_bytes_are_counted_from_the_line() -> None:
    """The byte that an error names is counted from the beginning of its line."""
    with pytest.raises(ProtocolError, match=r"^byte 2: empty tag key$"):
        parse_line(b"m value=1\nm, value=1\n", 10, 21)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"a\nb\n", 2), (b"a", 1), (b'm value="x\ny" 5\n', 11), (b"\n\n", 1), (b"a\r\nb", 3)],
)
def test_the_line_after_a_bad_one(text: bytes, expected: int) -> None:
    """It begins behind the first newline, so that an open quote costs its own line alone."""
    assert expected == end_of_bad_line(text, 0, len(text)) == end_of_bad_line(memoryview(text), 0, len(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"unk,,, garbage", "unk"), (b"  unk x", "unk"), (b'un"k" x', 'un"k"'), (rb"u\ n\,k,", "u n,k"),
        (b"unk", None), (b"unk\n", None), (b"unk\tx y", None), (b"#unk x", None), (b"  #unk x", None),
        (b",x", None), (b"", None), (b"\xff x", None), (b"unk\x00 x", None),
    ],
)  # fmt: skip
def test_the_measurement_alone(text: bytes, expected: str | None) -> None:
    """The measurement is told whatever follows it, if it is one."""
    assert expected == split_measurement(text, 0, len(text))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("cluster=c,host=h", {"cluster": "c", "host": "h"}), ("a=b", {"a": "b"}), ('a="', {"a": '"'}),
        ("", None), ("a", None), ("a=", None), ("=b", None), ("a=b=c", None), ("a=b,", None), (",a=b", None),
        ("a=b,,c=d", None), ("a=b,a=c", None), ("a=b,a=b", None),
    ],
)  # fmt: skip
def test_plain_tags(tags: str, expected: dict[str, str] | None) -> None:
    """Plain tags are split as the grammar does; whatever is odd about them is left to it."""
    assert expected == split_plain_tags(tags)
    if expected is not None:
        assert expected == merge_tags(parse(f"m,{tags} value=1".encode()).tags)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"m" + b",a=b" * 256 + b" value=1", ""),
        (b"m" + b",a=b" * 257 + b" value=1", "byte 1029: too many tags (wanted at most 256)"),
        (b"m " + b",".join([b"a=1"] * 256), ""),
        (b"m " + b",".join([b"a=1"] * 257), "byte 1029: too many fields (wanted at most 256)"),
    ],
    ids=["256 tags", "257 tags", "256 fields", "257 fields"],
)
def test_lines_of_many_parts(line: bytes, error: str) -> None:
    """A line has so many tags and so many fields at most."""
    if not error:
        assert parse_line(line, 0, len(line)) is not None
        return
    with pytest.raises(ProtocolError) as caught:
        parse_line(line, 0, len(line))
    assert str(caught.value) == error


@pytest.mark.parametrize(("count", "known"), [(256, True), (257, False)])
def test_plain_tags_are_as_many_as_tags_may_be(count: int, known: bool) -> None:
    """The short way for plain tags ends where the grammar ends."""
    assert (split_plain_tags(",".join(f"k{i}=v" for i in range(count))) is not None) is known
