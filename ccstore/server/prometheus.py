"""The read-only part of the HTTP API of Prometheus, for Grafana and whoever else speaks it.

Handlers translate parameters, evaluate on the store in pieces, and answer in the form of Prometheus, errors
included: 400 ``bad_data`` for a request that cannot be understood, 422 ``execution`` for one that asks for
too much, 503 ``unavailable`` while the files are read. What comes before a handler, such as a missing token,
is answered as everywhere.

Series are found by what is in memory at the moment: the ``start`` and ``end`` that a client may add to
questions about labels make no difference.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import parse_qs

import numpy as np
import orjson
from quart import Response, request

from ccstore import __version__
from ccstore.errors import CcstoreError, QueryError, UnavailableError
from ccstore.memory.matching import LABELS, Found, Host, Search, values_of
from ccstore.memory.promql import Block, Steps, evaluate, number_of
from ccstore.model import Aggregation, Metric
from ccstore.model.promql import Expression, Matcher, is_scalar
from ccstore.server.answers import JSON, headers_of, status_of
from ccstore.server.auth import Permission
from ccstore.server.http import App, read_body, route
from ccstore.server.services import Services
from ccstore.server.stepwise import answer_in_pieces
from ccstore.wire import prometheus as wire
from ccstore.wire.promql import parse_query, parse_selector

__all__ = ["add_routes"]

_MAX_FORM = 1 << 20  # bytes of a body
_MAX_FIELDS = 100
_SPEAKS = "2.55.0"
"""The version of Prometheus whose answers these are: Grafana looks at it to know what it may ask for."""

Parameters = Mapping[str, Sequence[str]]
_Handler = Callable[[Services, Parameters], Awaitable[Response]]

_TRUNCATED = "results truncated due to limit"


def add_routes(app: App, services: Services) -> None:
    """Add the routes to an application."""
    for path, handler, methods in (
        ("/api/v1/query", _query, ["GET", "POST"]),
        ("/api/v1/query_range", _query_range, ["GET", "POST"]),
        ("/api/v1/series", _series, ["GET", "POST"]),
        ("/api/v1/labels", _labels, ["GET", "POST"]),
        ("/api/v1/label/<name>/values", _label_values, ["GET"]),
        ("/api/v1/metadata", _metadata, ["GET"]),
        ("/api/v1/status/buildinfo", _build_info, ["GET"]),
    ):
        route(app, path, methods=methods, permission=Permission.READ)(partial(_answer, handler, services))


async def _answer(handler: _Handler, services: Services) -> Response:
    """Read the parameters, let the handler answer, and put errors into the form of Prometheus."""
    try:
        parameters = await _parameters()
        services.check_recovered()
        return await handler(services, parameters)
    except UnavailableError as error:
        return _refuse(503, "unavailable", error)
    except CcstoreError as error:
        status = status_of(error)
        if status is None:
            raise
        return _refuse(status, "bad_data", error)


def _refuse(status: int, kind: str, error: Exception) -> Response:
    answer = Response(wire.encode_error(kind, str(error)), status, content_type=JSON)
    answer.headers.update(headers_of(status))
    return answer


async def _parameters() -> Parameters:
    """Return the parameters of the request in hand: those of its body, then those of its URL."""
    found: dict[str, list[str]] = {}
    if request.method == "POST":
        body = await read_body(limit_bytes=_MAX_FORM)
        try:
            found = parse_qs(
                body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
            )
        except ValueError as error:  # UnicodeDecodeError is one
            raise QueryError(f"body: no form (wanted at most {_MAX_FIELDS} fields in UTF-8)") from error
    for name, values in request.args.lists():
        found.setdefault(name, []).extend(values)
    return found


def _text(parameters: Parameters, name: str, default: str = "") -> str:
    return parameters[name][0] if name in parameters else default


def _limit(parameters: Parameters) -> int:
    return wire.decode_limit("limit", _text(parameters, "limit", "0"))


# --- queries


async def _query(services: Services, parameters: Parameters) -> Response:
    text = _text(parameters, "time")
    now = wire.decode_time("time", text) if text else services.now() * 1000
    expression = _expression(parameters)
    (time,) = wire.time_texts(now, 1, 1)
    if is_scalar(expression):
        data = b'{"resultType":"scalar","result":[%b,"%b"]}' % (
            time,
            wire.encode_number(number_of(expression)),
        )
        return _success(data)
    rows = _instant_rows(time)
    return await _evaluate(services, expression, Steps(now, 1, 1), b"vector", rows)


async def _query_range(services: Services, parameters: Parameters) -> Response:
    start = wire.decode_time("start", _text(parameters, "start"))
    stop = wire.decode_time("end", _text(parameters, "end"))
    step = wire.decode_duration("step", _text(parameters, "step"))
    if stop < start:
        raise QueryError("invalid parameter 'end': end timestamp must not be before start time")
    if step <= 0:
        raise QueryError("invalid parameter 'step': zero or negative step (wanted a positive one)")
    if (stop - start) // step > wire.MAX_STEPS:
        raise QueryError(
            f"exceeded maximum resolution of {wire.MAX_STEPS} points per timeseries (wanted a larger step)"
        )
    steps = Steps(start, step, (stop - start) // step + 1)
    expression = _expression(parameters)
    times = wire.time_texts(start, step, steps.count)
    if is_scalar(expression):
        value = wire.encode_number(number_of(expression))
        pairs = b",".join([b'[%b,"%b"]' % (time, value) for time in times])
        return _success(b'{"resultType":"matrix","result":[{"metric":{},"values":[%b]}]}' % pairs)
    return await _evaluate(services, expression, steps, b"matrix", _range_rows(times))


def _expression(parameters: Parameters) -> Expression:
    try:
        return parse_query(_text(parameters, "query"))
    except QueryError as error:
        raise QueryError(f"invalid parameter 'query': {error}") from error


_Rows = Callable[[Block], Iterator[bytes]]


def _instant_rows(time: bytes) -> _Rows:
    def rows(block: Block) -> Iterator[bytes]:
        for k in np.flatnonzero(block.present[:, 0]).tolist():
            yield wire.instant_row(block.labels[block.of[k]], time, float(block.values[k, 0]))

    return rows


def _range_rows(times: Sequence[bytes]) -> _Rows:
    heads = wire.range_heads(times)

    def rows(block: Block) -> Iterator[bytes]:
        for k in np.flatnonzero(block.present.any(axis=1)).tolist():
            yield wire.range_row(block.labels[block.of[k]], heads, block.values[k], block.present[k])

    return rows


async def _evaluate(
    services: Services, expression: Expression, steps: Steps, kind: bytes, rows: _Rows
) -> Response:
    """Evaluate a vector and answer with it."""
    limit = services.config.main.max_query_selectors
    blocks = evaluate(services.store, expression, steps, max_series=limit)
    try:
        return await answer_in_pieces(_pieces(blocks, kind, rows))
    except QueryError as error:  # before anything was sent
        return _refuse(422, "execution", error)


def _pieces(blocks: Iterable[Block | None], kind: bytes, rows: _Rows) -> Iterator[bytes]:
    yield b'{"status":"success","data":{"resultType":"%b","result":[' % kind
    separator = b""
    for block in blocks:
        if block is None:
            yield b""
            continue
        for row in rows(block):
            yield separator + row
            separator = b","
    yield b"]}}"


def _success(data: bytes) -> Response:
    return Response(b'{"status":"success","data":%b}' % data, content_type=JSON)


# --- what there is


async def _series(services: Services, parameters: Parameters) -> Response:
    if "match[]" not in parameters:
        raise QueryError("no match[] parameter provided")
    searches, limit = _searches(services, parameters), _limit(parameters)
    return await answer_in_pieces(_series_pieces(searches, limit))


def _series_pieces(searches: Sequence[Search], limit: int) -> Iterator[bytes]:
    """Write the labels of each series once, however many selectors it fulfils."""
    yield b'{"status":"success","data":['
    separator, count = b"", 0
    told: set[tuple[tuple[str, str], ...]] = set()
    for search, hosts in _walk(searches):
        labels, _ = search.labels(search.find(hosts), LABELS)
        if len(searches) > 1:
            labels = [of_series for of_series in labels if tuple(of_series.items()) not in told]
            told.update(tuple(of_series.items()) for of_series in labels)
        labels = labels[: limit - count] if limit else labels
        count += len(labels)
        yield separator * bool(labels) + b",".join(map(orjson.dumps, labels))
        separator = b"," if count else b""
        if count == limit > 0:
            yield b'],"warnings":["%b"]}' % _TRUNCATED.encode()
            return
    yield b"]}"


async def _labels(services: Services, parameters: Parameters) -> Response:
    names = (
        {label for label in LABELS if values_of(search, found, label)}
        for search, found in _found(_searches(services, parameters))
    )
    return await answer_in_pieces(_listed(names, _limit(parameters)))


async def _label_values(services: Services, parameters: Parameters) -> Response:
    label = (request.view_args or {})["name"]
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", label):
        raise QueryError(f"invalid label name: {label[:40]!r}")
    values = (values_of(search, found, label) for search, found in _found(_searches(services, parameters)))
    return await answer_in_pieces(_listed(values, _limit(parameters)))


def _listed(parts: Iterable[set[str]], limit: int) -> Iterator[bytes]:
    """Write texts sorted, each once."""
    texts: set[str] = set()
    for part in parts:
        texts |= part
        yield b""
    listed = sorted(texts)
    cut = 0 < limit < len(listed)
    yield wire.encode_answer(listed[:limit] if cut else listed, [_TRUNCATED] if cut else [])


def _searches(services: Services, parameters: Parameters) -> Sequence[Search]:
    """Return a search for each selector of the request; one for everything if there is none."""
    matchers: list[Sequence[Matcher]] = []
    for text in parameters.get("match[]", ()):
        try:
            matchers.append(parse_selector(text).matchers)
        except QueryError as error:
            raise QueryError(f"invalid parameter 'match[]': {error}") from error
    for name in ("start", "end"):
        if name in parameters:
            wire.decode_time(name, parameters[name][0])
    return [Search(services.store, each) for each in matchers or [()]]


def _walk(searches: Sequence[Search]) -> Iterator[tuple[Search, Sequence[Host]]]:
    for search in searches:
        for hosts in search.parts():
            yield search, hosts


def _found(searches: Sequence[Search]) -> Iterator[tuple[Search, Found]]:
    for search, hosts in _walk(searches):
        yield search, search.find(hosts)


async def _metadata(services: Services, parameters: Parameters) -> Response:
    limit, wanted = _limit(parameters), _text(parameters, "metric")
    metrics = [metric for metric in services.store.metrics if wanted in ("", metric.name)]
    data = {metric.name: [_describe(metric)] for metric in (metrics[:limit] if limit else metrics)}
    return Response(wire.encode_answer(data), content_type=JSON)


def _describe(metric: Metric) -> Mapping[str, str]:
    combined = {
        Aggregation.SUM: ", components add up",
        Aggregation.AVG: ", components are averaged",
        Aggregation.NONE: "",
    }
    text = f"every {metric.frequency} s{combined[metric.aggregation]}"
    return {"type": "gauge", "help": text, "unit": metric.unit}


async def _build_info(_services: Services, _parameters: Parameters) -> Response:
    data = {
        "version": _SPEAKS,
        "revision": f"ccstore {__version__}",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }
    return Response(wire.encode_answer(data), content_type=JSON)
