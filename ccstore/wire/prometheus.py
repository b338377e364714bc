"""The HTTP API of Prometheus as bytes: its parameters and its answers.

Times are seconds, possibly with a fraction, or RFC 3339; durations are seconds or such as ``5m``. Answers are
objects with ``status`` and ``data``; values are strings, because JSON has neither NaN nor infinity.
Invariant: a value is written with as few digits as read back to the same float64, and as Go writes it.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ccstore.errors import QueryError
from ccstore.wire.promql import parse_duration

__all__ = [
    "MAX_STEPS",
    "decode_duration",
    "decode_limit",
    "decode_time",
    "encode_answer",
    "encode_error",
    "encode_number",
    "instant_row",
    "range_heads",
    "range_row",
    "time_texts",
]

MAX_STEPS = 11_000
"""Points of one series in an answer at most, as in Prometheus."""

_MAX_SECONDS = 2**53 / 1000
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)


# --- parameters


def decode_time(name: str, text: str) -> int:
    """Return a time in milliseconds since the epoch. Raises QueryError."""
    milliseconds = _seconds(text)
    if milliseconds is None:
        milliseconds = _rfc3339(text)
    if milliseconds is None:
        raise QueryError(f"invalid parameter {name!r}: cannot parse {text[:40]!r} to a valid timestamp")
    return milliseconds


def decode_duration(name: str, text: str) -> int:
    """Return a duration in milliseconds, 0 or below if it was so written. Raises QueryError."""
    milliseconds = _seconds(text)
    if milliseconds is None:
        milliseconds = parse_duration(text)
        if not milliseconds:
            raise QueryError(f"invalid parameter {name!r}: cannot parse {text[:40]!r} to a valid duration")
    return milliseconds


def decode_limit(name: str, text: str) -> int:
    """Return how many results are wanted at most; 0 means all. Raises QueryError."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise QueryError(f"invalid parameter {name!r}: {text[:40]!r} (wanted an integer, at least 0)")
    return int(text)


def _seconds(text: str) -> int | None:
    if not _FLOAT.fullmatch(text):
        return None
    seconds = float(text)
    return round(1000 * seconds) if abs(seconds) <= _MAX_SECONDS else None


def _rfc3339(text: str) -> int | None:
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    local, fraction, sign, hours, minutes = found.groups(default="0")
    try:
        time = int(np.datetime64(local, "ms").astype(np.int64))
    except ValueError:  # no such day or time of day
        return None
    away = 3_600_000 * int(hours) + 60_000 * int(minutes)
    return time + int(fraction.ljust(3, "0")[:3]) - (-away if sign == "-" else away)


# --- answers


def encode_answer(data: Any, warnings: Sequence[str] = ()) -> bytes:
    """Return a whole answer."""
    answer = {"status": "success", "data": data, **({"warnings": list(warnings)} if warnings else {})}
    return orjson.dumps(answer)


def encode_error(kind: str, text: str) -> bytes:
    """Return an error; `kind` is the word of Prometheus' for it, such as ``bad_data``."""
    return orjson.dumps({"status": "error", "errorType": kind, "error": text})


def time_texts(start_ms: int, step_ms: int, count: int) -> list[bytes]:
    """Return times as they are written in answers."""
    times = range(start_ms, start_ms + count * step_ms, step_ms)
    if start_ms % 1000 == 0 == step_ms % 1000:
        return [b"%d" % (time // 1000) for time in times]
    return [_time_text(time) for time in times]


def _time_text(time: int) -> bytes:
    sign, (seconds, rest) = b"-" * (time < 0), divmod(abs(time), 1000)
    return sign + b"%d" % seconds + (b".%03d" % rest if rest else b"")


def instant_row(labels: Mapping[str, str], time: bytes, value: float) -> bytes:
    """Return one element of an instant vector."""
    return b'{"metric":%b,"value":[%b,"%b"]}' % (orjson.dumps(labels), time, encode_number(value))


def range_heads(times: Sequence[bytes]) -> list[bytes]:
    """Return what stands before each value, for `range_row`: the end of the value before, and the time."""
    return [b'"],[%b,"' % time for time in times]


def range_row(
    labels: Mapping[str, str],
    heads: Sequence[bytes],
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
) -> bytes:
    """Return one series of a range vector: the values that are present, at least one, each with its time."""
    if not present.all():
        heads = list(itertools.compress(heads, present.tolist()))
        values = values[present]
    pairs = b"".join(itertools.chain.from_iterable(zip(heads, _numbers(values), strict=True)))
    return b'{"metric":%b,"values":[%b"]]}' % (orjson.dumps(labels), pairs[3:])


def _numbers(values: NDArray[np.float64]) -> list[bytes]:
    """Return values as text, many at once where orjson writes them as Go does."""
    sizes = np.abs(values)
    if ((sizes < 1e15) & ((sizes >= 1e-4) | (sizes == 0))).all():  # neither NaN nor infinity
        text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
        return text[1:].replace(b"]", b",").replace(b".0,", b",").split(b",")[:-1]
    return [encode_number(value) for value in values.tolist()]


def encode_number(value: float) -> bytes:
    """Return one value as text."""
    if math.isnan(value):
        return b"NaN"
    if math.isinf(value):
        return b"+Inf" if value > 0 else b"-Inf"
    text = repr(value)
    if "e" in text and 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0").encode()
