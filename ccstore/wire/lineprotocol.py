r"""InfluxDB line protocol: the full grammar, one line at a time, in plain Python.

    line = measurement *("," key "=" value) 1*SP key "=" value *("," key "=" value) [1*SP time] *SP EOL

SP is 0x20 alone; a line ends with LF, CR LF, or the input. A backslash escapes ``,`` and SP, in
keys and tag values also ``=``, and is an ordinary character before all others. A field value in
double quotes is a string, the only place where a line may hold a newline.

It looks at bytes only and knows neither store nor message: where a line begins it is told, and a
bad line is an exception with its reason. How lines look (`parse_line`) is told apart from what a
metric line means (`value_of`, `seconds_of`, `place_of`), because events use the same grammar with
other fields.

This is the reference for everything that `scan` does quickly. Invariant: whatever `scan` is sure
of, it does as this module would, to the bit; a test holds the two together on arbitrary input.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from attrs import frozen

from ccstore.errors import ProtocolError

__all__ = [
    "FLOAT32_MAX",
    "MAX_TAGS",
    "Line",
    "Place",
    "Text",
    "end_of_bad_line",
    "is_field_value",
    "merge_tags",
    "number_of",
    "parse_line",
    "place_of",
    "seconds_of",
    "split_measurement",
    "split_plain_tags",
    "value_of",
]

FLOAT32_MAX = 3.4028234663852886e38
_INT64_MAX = 2**63 - 1
_NAME_BYTES = 255  # what the reference store's log has room for
MAX_TAGS = 256  # of tags, and of fields: a line of thousands would keep everybody else waiting
_TIME_DIGITS = 400  # beyond any unit; int() of a text takes quadratic time

# Alternatives that cannot match the same text twice, so none of these backtracks.
_SPACES = re.compile(rb" *")
_MEASUREMENT = re.compile(rb"(?:\\[, ]|[^, \x00-\x1f\x7f])++")
_TOKEN = re.compile(rb"(?:\\[,= ]|[^,= \x00-\x1f\x7f])++")
_TAG = re.compile(rb",(%b)=(%b)" % (_TOKEN.pattern, _TOKEN.pattern))
_STRING = re.compile(rb'"(?:\\["\\nrt]|[^"])*+"')
_RAW = re.compile(rb"[^, \r\n]++")
_TIME = re.compile(rb"[-0-9]++")
_END = re.compile(rb" *+(?:\r?\n|\r?\Z)")
_COMMENT = re.compile(rb"#[^\x00-\x1f\x7f]*+(?:\r?\n|\r?\Z)")
_NEWLINE = re.compile(rb"\n")
_ESCAPE = re.compile(rb"\\([,= ])")
_NAME_ESCAPE = re.compile(rb"\\([, ])")
_STRING_ESCAPE = re.compile(rb'\\(["\\nrt])')
_STRING_CHARACTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b'"': b'"', b"\\": b"\\"}
_FLOAT = re.compile(rb"-?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_INTEGER = re.compile(rb"-?[0-9]++")
_INTEGER_FIELD = re.compile(rb"-?[0-9]++i|[0-9]++u")
_BOOLEANS = frozenset(b"t T true True TRUE f F false False FALSE".split())
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # no line can hold these; a default cluster could


class Text(str):
    """A string field; every other field value stays bytes until somebody wants a number."""

    __slots__ = ()


@frozen
class Line:
    """One grammatical line."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, bytes | Text], ...]
    timestamp: int | None
    """As written, in whatever unit."""
    key_start: int
    """Offset of the measurement."""
    key_stop: int
    """Offset of the end of the tags."""
    stop: int
    """Offset of the line's end, behind its newline."""


class Place(NamedTuple):
    """Where the tags of a line say that its sample belongs."""

    path: tuple[str, ...]
    """(cluster, host[, component[, subcomponent]])."""
    tagged: bool
    """False if the cluster is the default one and not from the line."""
    by_metric: bool
    """True if a metric that combines otherwise has another place for the same tags."""
    collapsed: bool
    """True if a subtype was dropped, so that several senders' series may become one."""
    refused: str
    """Why no place may have these names; empty if one may."""


def parse_line(data: bytes | memoryview, start: int, stop: int) -> Line | None:
    """Parse the line that begins at data[start]; None for a blank line or a comment.

    The input ends at `stop`. Raises ProtocolError if the line is bad; `end_of_bad_line` tells where
    the next one begins.
    """
    at = _match(_SPACES, data, start, stop).end()
    if at == stop or data[at] in b"\r\n":
        _take_end(data, at, start, stop)
        return None
    if data[at] == ord("#"):
        if _COMMENT.match(data, at, stop) is None:
            raise _error("control byte in a comment", at, start)
        return None
    key_start = at
    name, at = _take(_MEASUREMENT, data, at, start, stop, "measurement")
    tags = []
    while found := _TAG.match(data, at, stop):
        at = found.end()
        tags.append((_text(found[1], _ESCAPE, start, at), _text(found[2], _ESCAPE, start, at)))
        if len(tags) > MAX_TAGS:
            raise _error(f"too many tags (wanted at most {MAX_TAGS})", at, start)
    if at < stop and data[at] == ord(","):
        raise _explain_tag(data, at, start, stop)
    key_stop = at
    measurement = _text(name, _NAME_ESCAPE, start, key_stop)
    fields, at = _take_fields(data, at, start, stop)
    timestamp, at = _take_time(data, at, start, stop)
    end = _take_end(data, at, start, stop)
    return Line(measurement, tuple(tags), tuple(fields), timestamp, key_start, key_stop, end)


def split_measurement(data: bytes | memoryview, start: int, stop: int) -> str | None:
    """Return the measurement of the line at data[start]; None if it has none, which `parse_line` explains.

    Lines of an unknown measurement are passed over whatever the rest of them is.
    """
    at = _match(_SPACES, data, start, stop).end()
    found = _MEASUREMENT.match(data, at, stop)
    if found is None or data[at] == ord("#") or found.end() == stop or data[found.end()] not in b", ":
        return None
    try:
        return _NAME_ESCAPE.sub(rb"\1", found[0]).decode()
    except UnicodeDecodeError:
        return None


def end_of_bad_line(data: bytes | memoryview, start: int, stop: int) -> int:
    """Return where the line after a bad one begins: behind the first newline, even one inside a string.

    So a quote that is never closed costs its own line alone.
    """
    newline = _NEWLINE.search(data, start, stop)
    return stop if newline is None else newline.end()


def split_plain_tags(tags: str) -> dict[str, str] | None:
    """Split the tags of a line, all printable ASCII without backslash; None if there is anything odd.

    What it returns is what `parse_line` and `merge_tags` make of them, for the most common case.
    """
    if tags.count(",") >= MAX_TAGS:
        return None
    parts = [part.split("=") for part in tags.split(",")]
    try:
        found = dict(parts)  # a part must have two halves
    except ValueError:
        return None
    odd = len(found) < len(parts) or "" in found or "" in found.values()
    return None if odd else found


def merge_tags(tags: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the tags by name; of several with one name the last counts, and stands where it stood.

    Raises ProtocolError for a tag that may not be repeated.
    """
    found: dict[str, str] = {}
    for key, value in tags:
        if found.pop(key, None) is not None and key in ("type", "type-id", "stype", "stype-id"):
            raise ProtocolError(f"tag {key!r} occurs twice")
        found[key] = value
    return found


def place_of(tags: Mapping[str, str], *, default_cluster: str, combines: bool) -> Place:
    """Apply the tags, in their order, to their roles.

    A subtype on the host level gets a place of its own if the values of the metric can be combined
    there (`combines`); else it is dropped, and `collapsed` says so.
    """
    cluster, host = tags.get("cluster"), tags.get("hostname", "")
    if "host" in tags:
        host = [value for key, value in tags.items() if key in ("hostname", "host")][-1]
    kind = tags.get("type", "")
    component = "" if kind == "node" else kind + tags.get("type-id", "")
    subcomponent = tags.get("stype", "") + tags.get("stype-id", "")
    path: tuple[str, ...] = (default_cluster if cluster is None else cluster, host)
    if component:
        path += (component,)
    if not subcomponent:
        return Place(path, cluster is not None, False, False, _refuse(path))
    by_metric = not component
    if component or combines:
        path += (subcomponent,)
    return Place(path, cluster is not None, by_metric, by_metric and not combines, _refuse(path))


def value_of(line: Line) -> float:
    """Return the value of a metric line: its only field, or the last of them. Raises ProtocolError."""
    value: float | None = None
    for key, raw in line.fields:
        if key != "value":
            raise ProtocolError(f"unknown field {_shorten(key)!r} (wanted 'value')")
        value = number_of(raw)
    assert value is not None, "a line has at least one field"
    return value


def number_of(raw: bytes | Text) -> float:
    """Return a field value as a number that float32 can hold. Raises ProtocolError."""
    if isinstance(raw, Text):
        raise ProtocolError(f"value is a string: {_shorten(raw)!r} (wanted a number)")
    if raw[:1] in (b"t", b"T", b"f", b"F"):
        raise ProtocolError(f"value is a boolean: {_shorten(raw)!r} (wanted a number)")
    if raw.endswith((b"i", b"u")) and _INTEGER.fullmatch(raw, 0, len(raw) - 1):
        return _integer_of(raw)
    if not _FLOAT.fullmatch(raw):
        raise ProtocolError(f"value {_shorten(raw)!r} (wanted a number)")
    value = float(raw)
    if not abs(value) <= FLOAT32_MAX:
        raise ProtocolError(f"value {_shorten(raw)!r} out of range (wanted at most {FLOAT32_MAX} either way)")
    return value


def is_field_value(raw: bytes | Text) -> bool:
    """Return whether a field value is a string, a boolean, an integer, or a finite number of 64 bits."""
    if isinstance(raw, Text) or raw in _BOOLEANS or _INTEGER_FIELD.fullmatch(raw):
        return True
    return _FLOAT.fullmatch(raw) is not None and math.isfinite(float(raw))


def _integer_of(raw: bytes) -> float:
    unsigned, negative = raw.endswith(b"u"), raw.startswith(b"-")
    digits = raw[negative:-1].lstrip(b"0") or b"0"
    magnitude = int(digits) if len(digits) <= 20 else 2**64  # int() refuses very long texts
    value = -magnitude if negative else magnitude
    low, high = (0, 2**64 - 1) if unsigned else (-(2**63), _INT64_MAX)
    if not low <= value <= high or (unsigned and negative):
        raise ProtocolError(f"value {_shorten(raw)!r} out of range (wanted {low} to {high})")
    return float(value)


def seconds_of(timestamp: int) -> int:
    """Return a timestamp in whole seconds; its unit follows from its magnitude.

    The largest unit in which the time is within 292 years of 1970 counts: seconds, then milli-,
    micro- and nanoseconds. Raises ProtocolError beyond 64 bits.
    """
    magnitude = abs(timestamp)
    for unit in (1, 1_000, 1_000_000, 1_000_000_000):
        if magnitude <= _INT64_MAX // (1_000_000_000 // unit):
            return timestamp // unit
    raise ProtocolError(f"timestamp {_shorten(str(timestamp))} out of range (wanted 64 bits)")


# --- tokens


def _match(pattern: re.Pattern[bytes], data: bytes | memoryview, at: int, stop: int) -> re.Match[bytes]:
    found = pattern.match(data, at, stop)
    assert found is not None, "the pattern matches the empty string"
    return found


def _take(
    pattern: re.Pattern[bytes], data: bytes | memoryview, at: int, start: int, stop: int, what: str
) -> tuple[bytes, int]:
    found = pattern.match(data, at, stop)
    if found is None:
        ended = at >= stop or data[at] in b",= \r\n"
        raise _error(f"empty {what}" if ended else f"{what} with a control byte", at, start)
    return found[0], found.end()


def _take_equals(data: bytes | memoryview, at: int, start: int, stop: int) -> int:
    if at >= stop or data[at] != ord("="):
        raise _error("key without value (wanted key=value)", at, start)
    return at + 1


def _explain_tag(data: bytes | memoryview, at: int, start: int, stop: int) -> ProtocolError:
    """Return what is wrong with the tag behind the comma at data[at]."""
    try:
        _, at = _take(_TOKEN, data, at + 1, start, stop, "tag key")
        at = _take_equals(data, at, start, stop)
        _take(_TOKEN, data, at, start, stop, "tag value")
    except ProtocolError as error:
        return error
    raise AssertionError("there is nothing wrong with the tag")


def _take_fields(
    data: bytes | memoryview, at: int, start: int, stop: int
) -> tuple[list[tuple[str, bytes | Text]], int]:
    behind = _match(_SPACES, data, at, stop).end()
    if behind == at:
        raise _error("no field (wanted a space and key=value)", at, start)
    fields: list[tuple[str, bytes | Text]] = []
    while True:
        key, at = _take(_TOKEN, data, behind, start, stop, "field key")
        at = _take_equals(data, at, start, stop)
        value, at = _take_value(data, at, start, stop)
        fields.append((_text(key, _ESCAPE, start, at), value))
        if len(fields) > MAX_TAGS:
            raise _error(f"too many fields (wanted at most {MAX_TAGS})", at, start)
        if at >= stop or data[at] != ord(","):
            return fields, at
        behind = at + 1


def _take_value(data: bytes | memoryview, at: int, start: int, stop: int) -> tuple[bytes | Text, int]:
    if at >= stop or data[at] != ord('"'):
        return _take(_RAW, data, at, start, stop, "field value")
    found = _STRING.match(data, at, stop)
    if found is None:
        raise _error("string without closing quote", at, start)
    inside = _STRING_ESCAPE.sub(lambda escape: _STRING_CHARACTERS[escape[1]], found[0][1:-1])
    try:
        return Text(inside.decode()), found.end()
    except UnicodeDecodeError:
        raise _error("string is not valid UTF-8", at, start) from None


def _take_time(data: bytes | memoryview, at: int, start: int, stop: int) -> tuple[int | None, int]:
    behind = _match(_SPACES, data, at, stop).end()
    found = _TIME.match(data, behind, stop) if behind > at else None
    if found is None:
        return None, at
    if not _INTEGER.fullmatch(found[0]) or len(found[0]) > _TIME_DIGITS:
        raise _error(f"timestamp {_shorten(found[0])!r} (wanted an integer)", behind, start)
    return int(found[0]), found.end()


def _take_end(data: bytes | memoryview, at: int, start: int, stop: int) -> int:
    found = _END.match(data, at, stop)
    if found is None:
        raise _error("text behind the fields and the time (wanted the end of the line)", at, start)
    return found.end()


def _text(raw: bytes, escape: re.Pattern[bytes], start: int, at: int) -> str:
    try:
        return (escape.sub(rb"\1", raw) if b"\\" in raw else raw).decode()
    except UnicodeDecodeError:
        raise _error("not valid UTF-8", at, start) from None


def _refuse(path: tuple[str, ...]) -> str:
    """Return why no place may have this path, empty if one may."""
    for depth, name in enumerate(path):
        if name.isalnum() and len(name) <= _NAME_BYTES // 4:
            continue  # a character has at most 4 bytes
        if depth < 2 and not name:
            return "no host" if depth else "no cluster"
        what = ("cluster", "host", "component", "subcomponent")[depth]
        if depth < 2 and (name == "." or ".." in name or "/" in name or "\\" in name):
            return f"{what} {_shorten(name)!r} (wanted no '..', '/', '\\', and not '.')"
        if _UNWRITABLE.search(name):
            return f"{what} {_shorten(name)!r} (wanted no control characters)"
        size = len(name.encode())
        if size > _NAME_BYTES:
            return f"{what} {_shorten(name)!r} of {size} bytes (wanted at most {_NAME_BYTES})"
    return ""


def _shorten(text: str | bytes) -> str:
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return text if len(text) <= 40 else text[:37] + "..."


def _error(what: str, at: int, start: int) -> ProtocolError:
    return ProtocolError(f"byte {at - start}: {what}")
