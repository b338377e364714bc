"""What a server says, as values: answers to queries, and the messages of a stream.

Owns the way from JSON or bytes to these values and the JSON of a query. It opens no connection.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from attrs import field, frozen
from numpy.typing import NDArray

from ccstore.client.errors import ServerError
from ccstore.model import Query

__all__ = [
    "Change",
    "Data",
    "JobEnd",
    "Node",
    "NodeUpdate",
    "Result",
    "Series",
    "Update",
    "decode_data",
    "decode_results",
    "encode_queries",
]

_HEAD = struct.Struct("<4sIIIq")
_MAGIC = b"CCS1"


@frozen
class Result:
    """Values of one series, as a query answers them."""

    values: NDArray[np.float64] = field(eq=False)
    """NaN where nothing is stored."""
    start: int
    """Seconds since the epoch: time of the first value."""
    stop: int
    resolution: int
    """Seconds between two values."""
    avg: float
    """Of the values before they were thinned out, as the next two; NaN without any."""
    min: float
    max: float
    error: str = ""
    """Why the series could not be read."""

    @property
    def times(self) -> NDArray[np.int64]:
        """The time of each value, seconds since the epoch."""
        return self.start + self.resolution * np.arange(len(self.values))


@frozen
class Series:
    """What a stream tells values of: one for each object that the query would answer."""

    index: int
    """Its number in the stream."""
    cluster: str
    host: str
    metric: str
    unit: str = ""
    frequency: int = 0
    """Seconds between two values as they are stored; 0 for an unknown metric."""
    query: int | None = None
    """Which of the queries it belongs to; None for one of `for_all_nodes`."""
    type: str | None = None
    type_ids: tuple[str, ...] = ()
    subtype: str | None = None
    subtype_ids: tuple[str, ...] = ()
    error: str = ""
    """Why it cannot be read."""

    @property
    def component(self) -> str:
        """The component within the host, for people; empty for the host as a whole."""
        parts = [(self.type, self.type_ids), (self.subtype, self.subtype_ids)]
        return "/".join(f"{kind}{','.join(ids)}" for kind, ids in parts if kind is not None)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Series":
        """Make one of its description."""
        known: dict[str, Any] = {}
        for key, value in described.items():
            if (name := key.replace("-", "_")) in _SERIES_KEYS:
                known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)


_SERIES_KEYS = frozenset(one.name for one in Series.__attrs_attrs__)


@frozen
class Change:
    """What has changed of one series."""

    series: Series
    times: NDArray[np.int64] = field(eq=False)
    """Seconds since the epoch, in no order."""
    values: NDArray[np.float64] = field(eq=False)
    """NaN where there is no value any more."""


@frozen
class Update:
    """All that was told at one moment. With it, what a stream has is what the query answers."""

    changes: Sequence[Change]
    start: int
    """Seconds since the epoch: values before are not told of any more."""
    reset: bool
    """Whether it holds everything anew, at the beginning or where something was missed."""


@frozen
class JobEnd:
    """How a job ended."""

    state: str
    """Such as ``completed`` or ``failed``."""
    stop_time: int
    """Seconds since the epoch."""


@frozen
class Node:
    """What a scheduler says of a node, and what the store sees of it; see ``/api/nodes``."""

    cluster: str
    subcluster: str
    hostname: str
    state: str
    """``allocated``, ``reserved``, ``idle``, ``mixed``, ``down`` or ``unknown``."""
    health: str
    """``full``, ``partial`` or ``failed``."""
    degraded: tuple[str, ...]
    """Metrics that come late."""
    missing: tuple[str, ...]
    reported: int
    """Seconds since the epoch; reports that said nothing new do not count."""
    since: int
    """Seconds since the epoch at which its state began."""
    health_since: int
    jobs_running: int
    cpus_allocated: int
    memory_allocated: int
    """Megabytes."""
    gpus_allocated: int

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Node":
        """Make one of its description."""
        known: dict[str, Any] = {}
        for key, value in described.items():
            if (name := _snake(key)) in _NODE_KEYS:
                known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)


_NODE_KEYS = frozenset(one.name for one in Node.__attrs_attrs__)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@frozen
class NodeUpdate:
    """What was told of nodes at one moment."""

    nodes: Sequence[Node]
    """Those of which something is new, or all."""
    reset: bool
    """Whether it holds all nodes, at the beginning or where something was missed."""


@frozen
class Data:
    """A message of values: columns of series, times and values."""

    start: int
    token: str
    """Empty if more messages belong to this one."""
    rows: Sequence[tuple[int, NDArray[np.int64], NDArray[np.float64]]]


def decode_data(frame: bytes) -> Data:
    """Decode a binary message, see docs/reference/stream.md. Raises ServerError if it is none."""
    try:
        magic, token_length, series, count, start = _HEAD.unpack_from(frame)
        at = _HEAD.size
        indices = np.frombuffer(frame, "<u4", series, at)
        counts = np.frombuffer(frame, "<u4", series, at + 4 * series)
        offsets = np.frombuffer(frame, "<u4", count, at + 8 * series)
        values = np.frombuffer(frame, "<f4", count, at + 8 * series + 4 * count)
        at += 8 * (series + count)
        token = frame[at : at + token_length].decode()
    except (struct.error, ValueError) as error:
        raise ServerError(f"stream: a message that is none ({error})") from error
    if magic != _MAGIC:
        raise ServerError(f"stream: a message that is none (begins with {magic!r})")
    ends = np.cumsum(counts)[:-1]
    times = np.split(offsets.astype(np.int64) + start, ends)
    parts = np.split(values.astype(np.float64), ends)
    return Data(start, token, list(zip(indices.tolist(), times, parts, strict=False)))


def decode_results(answer: bytes) -> list[list[Result]]:
    """Decode the answer to a query. Raises ServerError if it is none."""
    try:
        return [[_result(row) for row in rows] for rows in orjson.loads(answer)["results"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"query: an answer that is none ({error})") from error


def _result(row: Mapping[str, Any]) -> Result:
    return Result(
        np.array([np.nan if value is None else value for value in row.get("data", ())], np.float64),
        row["from"],
        row["to"],
        row["resolution"],
        avg=_number(row["avg"]),
        min=_number(row["min"]),
        max=_number(row["max"]),
        error=row.get("error", ""),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def encode_queries(queries: Iterable[Query]) -> list[dict[str, Any]]:
    """Return queries as they stand in a request."""
    return [
        {
            "metric": query.metric,
            "host": query.host,
            "resolution": query.resolution,
            "type": query.type,
            "type-ids": query.type_ids,
            "subtype": query.subtype,
            "subtype-ids": query.subtype_ids,
            "aggreg": query.aggregate,
            "scale-by": query.scale_by,
        }
        for query in queries
    ]
