"""Messages of live streams: what a client asks for, and what it is sent, as text or bytes.

A message to a client is a head with the client's name for the subscription, and a body that is the same for
everybody who has subscribed to the same: so it is encoded once. `encode_frame` puts them together, as they go
over the connection. A server does not mask its frames (RFC 6455, 5.1): clients that call their subscriptions
alike are sent the same bytes.

It knows names and columns, not who is subscribed. Invariant: whatever a client sends, the outcome is a
request or a ProtocolError whose text can be sent back.
"""

import functools
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
from attrs import evolve, frozen
from numpy.typing import NDArray

from ccstore.errors import ProtocolError
from ccstore.model import Job, JobQuery, Metric, NodeStatus, QueryRequest, Status
from ccstore.wire.jobquery import check_job_query
from ccstore.wire.jobs import encode_job
from ccstore.wire.jsonvalue import decode_value, structure
from ccstore.wire.kernels.answers import LIMBS, ROOM
from ccstore.wire.kernels.stream import encode_changes
from ccstore.wire.nodestates import encode_node
from ccstore.wire.query import explain

__all__ = [
    "MAX_ID",
    "MAX_WINDOW",
    "Body",
    "JobWanted",
    "NodesWanted",
    "SeriesWanted",
    "ServerWanted",
    "Subscribe",
    "Unsubscribe",
    "Wanted",
    "decode_request",
    "describe_hosts",
    "describe_queries",
    "encode_data",
    "encode_data_binary",
    "encode_ended",
    "encode_frame",
    "encode_nodes",
    "encode_series",
    "encode_subscribed",
    "encode_text",
    "id_in",
]

MAX_ID = 64
"""Characters of a subscription's name."""
MAX_WINDOW = 7 * 86_400
"""Seconds; a week."""
_WINDOW = 600
_MAX_INTERVAL = 3600
_MAX_TOKEN = 100
_MAX_CLUSTER = 255
_REMEMBERED = 128 * 1024
"""Characters; longer messages are decoded each time."""
_SHARED = 64 * 1024
"""Characters; of longer messages each client's frame is made anew."""
_MAGIC = b"CCS1"
_HEAD = struct.Struct("<4sIIIq")

Body: TypeAlias = str | bytes
"""A message without its head: text that goes on behind the name, or bytes that the name follows."""


@frozen(cache_hash=True)
class SeriesWanted:
    """Values of series."""

    request: QueryRequest
    """Without a range."""
    window: int
    """Seconds: how far back the values reach."""
    binary: bool
    since: int = 0
    """Seconds since the epoch: values before are left out."""


@frozen
class JobWanted:
    """Values of the hosts of a job, for as long as it runs."""

    query: JobQuery
    """Without a range."""
    window: int
    """Seconds: how far back the values reach at most; 0: to the start of the job."""
    binary: bool


@frozen
class NodesWanted:
    """The states of the nodes of a cluster."""

    cluster: str


@frozen
class ServerWanted:
    """The server's own numbers."""

    interval: int
    """Seconds between two messages."""


Wanted: TypeAlias = SeriesWanted | JobWanted | NodesWanted | ServerWanted


@frozen
class Subscribe:
    """Somebody wants to be told of something."""

    id: str
    """The client's name for it."""
    wanted: Wanted
    resume: str = ""
    """The token of the last message that the client has of it."""


@frozen
class Unsubscribe:
    """Somebody does not want to be told any more."""

    id: str


def id_in(text: str | bytes) -> str | None:
    """Return the name that a message has for its subscription, if there is one, however bad the rest is."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    name = value.get("id") if isinstance(value, dict) else None
    return name if isinstance(name, str) and len(name) <= MAX_ID else None


def decode_request(text: str) -> Subscribe | Unsubscribe:
    """Return what a client wants. Raises ProtocolError.

    Many clients want the same, so what was decoded lately is remembered.
    """
    return _decode_known(text) if len(text) < _REMEMBERED else _decode(text)


def _decode(text: str) -> Subscribe | Unsubscribe:
    value = decode_value(text.encode())
    if not isinstance(value, dict):
        raise ProtocolError('message: wanted an object with "op"')
    name = value.get("id")
    # half of a surrogate pair is a character in JSON, and cannot be sent back
    if not (isinstance(name, str) and 1 <= len(name) <= MAX_ID and _is_text(name)):
        raise ProtocolError(f"message.id: wanted a string of 1 to {MAX_ID} characters")
    match value.get("op"):
        case "subscribe":
            return _decode_subscribe(name, value)
        case "unsubscribe":
            _refuse_others(value, "op", "id")
            return Unsubscribe(name)
        case _:
            raise ProtocolError('message.op: wanted "subscribe" or "unsubscribe"')


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


_decode_known = functools.lru_cache(maxsize=32)(_decode)


def _decode_subscribe(name: str, value: Mapping[str, Any]) -> Subscribe:
    kinds = [kind for kind in _KINDS if kind in value]
    if len(kinds) != 1:
        raise ProtocolError(f"message: wanted one of {', '.join(_KINDS)}")
    resume = value.get("resume") or ""
    if not (isinstance(resume, str) and len(resume) <= _MAX_TOKEN):
        raise ProtocolError("message.resume: wanted the token of a message")
    return Subscribe(name, _KINDS[kinds[0]](value), resume)


def _decode_series(value: Mapping[str, Any]) -> SeriesWanted:
    _refuse_others(value, "op", "id", "query", "window", "format", "resume")
    request = structure(value["query"], QueryRequest)
    request = evolve(request, start=0, stop=0, with_data=True, with_stats=True, with_padding=True)
    window = _integer(value, "window", _WINDOW, MAX_WINDOW)
    return SeriesWanted(request, window, _is_binary(value))


def _decode_job(value: Mapping[str, Any]) -> JobWanted:
    _refuse_others(value, "op", "id", *_OF_JOB, "window", "format", "resume")
    query = structure({key: value[key] for key in _OF_JOB if key in value}, JobQuery, strict=True)
    check_job_query(query)
    window = _integer(value, "window", MAX_WINDOW, MAX_WINDOW) if "window" in value else 0
    return JobWanted(query, window, _is_binary(value))


_OF_JOB = ("job", "metrics", "scope", "resolution")


def _is_binary(value: Mapping[str, Any]) -> bool:
    form = value.get("format", "json")
    if form not in ("json", "binary"):
        raise ProtocolError('message.format: wanted "json" or "binary"')
    return bool(form == "binary")


def _decode_nodes(value: Mapping[str, Any]) -> NodesWanted:
    _refuse_others(value, "op", "id", "nodes", "resume")
    options = value["nodes"]
    if not isinstance(options, dict):
        raise ProtocolError("message.nodes: wanted an object")
    _refuse_others(options, "cluster")
    cluster = options.get("cluster")
    if not (isinstance(cluster, str) and 1 <= len(cluster) <= _MAX_CLUSTER):
        raise ProtocolError(f"message.nodes.cluster: wanted a name of 1 to {_MAX_CLUSTER} characters")
    return NodesWanted(cluster)


def _decode_server(value: Mapping[str, Any]) -> ServerWanted:
    _refuse_others(value, "op", "id", "server", "resume")
    options = value["server"]
    if not isinstance(options, dict):
        raise ProtocolError("message.server: wanted an object")
    _refuse_others(options, "interval")
    return ServerWanted(_integer(options, "interval", 2, _MAX_INTERVAL))


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], Wanted]] = {
    "query": _decode_series,
    "job": _decode_job,
    "nodes": _decode_nodes,
    "server": _decode_server,
}


def _integer(value: Mapping[str, Any], key: str, default: int, most: int) -> int:
    number = value.get(key, default)
    if type(number) is not int or not 1 <= number <= most:
        raise ProtocolError(f"message.{key}: wanted an integer from 1 to {most}")
    return number


def _refuse_others(value: Mapping[str, Any], *known: str) -> None:
    for key in value:
        if key not in known:
            raise ProtocolError(f"message: unknown key {key[:40]!r}")


# --- what a client is sent


def encode_frame(name: str, body: Body) -> bytes:
    """Return a websocket frame with a message; `body` is what all who are told the same have in common.

    Clients of one program call their subscriptions alike, so the last frames are remembered.
    """
    return _encode_known(name, body) if len(body) < _SHARED else _encode_frame(name, body)


def _encode_frame(name: str, body: Body) -> bytes:
    if isinstance(body, str):
        kind, head, tail = _TEXT, b'{"id":%b,' % orjson.dumps(name) if name else b"{", body.encode()
    else:
        kind, head, tail = _BINARY, body, name.encode()
    size = len(head) + len(tail)
    if size < _SHORT:
        start = bytes((_FINAL | kind, size))
    elif size < 1 << 16:
        start = struct.pack(">BBH", _FINAL | kind, _SHORT, size)
    else:
        start = struct.pack(">BBQ", _FINAL | kind, _LONG, size)
    return b"".join((start, head, tail))


_encode_known = functools.lru_cache(maxsize=8)(_encode_frame)

_FINAL, _TEXT, _BINARY = 0x80, 1, 2  # RFC 6455, 5.2
_SHORT, _LONG = 126, 127
"""In the place of a length: it follows, as a number of two or eight bytes."""


def encode_text(op: str, **values: Any) -> str:
    """Return the body of a message in JSON."""
    return orjson.dumps({"op": op, **values})[1:].decode()


def encode_subscribed(*, resumed: bool, job: Job | None = None) -> str:
    """Return the body of the answer to somebody who is told from now on; of a job, with the job."""
    more = {} if job is None else {"job": orjson.Fragment(encode_job(job).rstrip())}
    return encode_text("subscribed", resumed=resumed, **more)


def encode_ended(state: str, stop: int) -> str:
    """Return the body of the last message about a job: how it ended, and when (s)."""
    return encode_text("ended", state=state, stopTime=stop)


def encode_nodes(nodes: Iterable[NodeStatus], *, reset: bool) -> Iterator[bytes]:
    """Write the body of a message about nodes in UTF-8, a piece for each of them and one more."""
    separator = encode_text("nodes", reset=reset)[:-1].encode() + b',"nodes":['
    for node in nodes:
        yield separator + encode_node(node)
        separator = b","
    yield b"]}" if separator == b"," else separator + b"]}"


def encode_data(
    groups: NDArray[np.int64],
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    start: int,
    token: str,
) -> str:
    """Return the body of a message of changes as JSON: values with three decimals, NaN as null."""
    out, limbs = np.empty(ROOM + 64 * len(groups), np.uint8), np.empty(LIMBS, np.int64)
    while (written := encode_changes(groups, times, values, out, limbs)) < 0:
        out = np.empty(2 * len(out), np.uint8)
    head = encode_text("data", **{"from": start}, **({"token": token} if token else {}))[:-1]
    return f'{head},"values":[{out[:written].tobytes().decode("ascii")}]}}'


def encode_data_binary(
    groups: NDArray[np.int64],
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    start: int,
    token: str,
) -> bytes:
    """Return the body of a message of changes as bytes, see docs/reference/stream.md."""
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.diff(firsts, append=len(groups))
    with np.errstate(over="ignore"):  # a sum may be beyond what a float32 can hold: infinite
        columns = (
            groups[firsts].astype("<u4"),
            counts.astype("<u4"),
            (times - start).astype("<u4"),
            values.astype("<f4"),
        )
    text = token.encode()
    head = _HEAD.pack(_MAGIC, len(text), len(firsts), len(groups), start)
    return b"".join([head, *(column.tobytes() for column in columns), text])


def describe_queries(request: QueryRequest, metrics: Mapping[str, Metric]) -> Iterator[dict[str, Any]]:
    """Describe the series of the queries of a request, in the order of its groups."""
    for number, query in enumerate(request.queries):
        described = {**_describe(request.cluster, query.host, query.metric, metrics), "query": number}
        if query.type is None:
            yield described
            continue
        below: Sequence[tuple[str, ...]] = (
            [()] if query.subtype is None else [(id_,) for id_ in query.subtype_ids]
        )
        ids: Sequence[tuple[str, ...]] = [(id_,) for id_ in query.type_ids]
        if query.aggregate:
            ids, below = [query.type_ids], [query.subtype_ids]
        for type_ids, subtype_ids in itertools.product(ids, below):
            place: dict[str, Any] = {"type": query.type, "type-ids": type_ids}
            if query.subtype is not None:
                place |= {"subtype": query.subtype, "subtype-ids": subtype_ids}
            yield described | place


def describe_hosts(
    request: QueryRequest, hosts: Sequence[str], metrics: Mapping[str, Metric]
) -> Iterator[dict[str, Any]]:
    """Describe the series that are read for all nodes, in the order of their groups."""
    for host in hosts:
        for metric in request.for_all_nodes:
            yield _describe(request.cluster, host, metric, metrics)


def _describe(cluster: str, host: str, name: str, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    described: dict[str, Any] = {"cluster": cluster, "host": host, "metric": name}
    if metric := metrics.get(name):
        described |= {"unit": metric.unit, "frequency": metric.frequency}
    return described


def encode_series(
    numbers: Sequence[int], described: Sequence[dict[str, Any]], statuses: Sequence[int], *, reset: bool
) -> str:
    """Return the body of a message about series: which there are, and which cannot be read."""
    series = []
    for number, one, status in zip(numbers, described, statuses, strict=True):
        error = explain(Status(status), one["metric"])
        series.append({"index": number, **one, **({"error": error} if error else {})})
    return encode_text("series", reset=reset, series=series)
