"""The routes of the store: write, query, free, checkpoint, debug, healthcheck.

A handler translates: from a request to calls of the rooms below, and from what they return to an
answer. It owns nothing that outlives the request, and touches no column of the store.

Invariant: nothing that names a place or a series by number is kept over an await, because what is
pruned meanwhile gives its numbers to others. So long answers are made and sent in pieces, each
piece finds by name what it tells of, and the event loop gets its turn after each.
"""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TypeVar

import trio
from attrs import asdict
from quart import Response, request

from ccstore.errors import QueryError
from ccstore.memory.query import Reader, count_selectors, plan
from ccstore.memory.resample import MINIMUM_POINTS
from ccstore.memory.store import Store
from ccstore.model import JobQuery, Outcome, QueryRequest
from ccstore.server import job_query
from ccstore.server.answers import JSON, HttpError, headers_of, json_answer, status_of, text_answer
from ccstore.server.auth import Permission
from ccstore.server.http import App, body_blocks, read_body, route
from ccstore.server.ingest import Written
from ccstore.server.services import Services
from ccstore.server.stepwise import Stepwise, answer_in_pieces
from ccstore.server.upkeep import free_selectors, save
from ccstore.wire.jobquery import decode_question, encode_head
from ccstore.wire.query import AnswerWriter
from ccstore.wire.requests import Level, decode_health, decode_selectors, encode_health, encode_levels

__all__ = ["add_routes", "answer_pieces", "decode_body"]

T = TypeVar("T")

KIB = 1024
MIB = 1024 * KIB

_MAX_REQUEST = 8 * MIB
"""Bytes of a body in JSON; bodies of lines have a limit of their own. The threads of 1 000 hosts, ten
metrics of each, are asked for with 5 MB. To parse as much as this limit holds the interpreter for more
than 0.1 s, in a thread or not."""
_MAX_HEALTH_REQUEST = MIB
"""Bytes of a request for the health of hosts: every name in it costs time for every host."""
_LARGE_REQUEST = 32 * KIB
"""A larger body is decoded in a thread: 2 000 selectors take 10 ms."""
_INTEGER = re.compile("-?[0-9]{1,19}")
_INT64 = range(-(2**63), 2**63)


def add_routes(app: App, services: Services) -> None:
    """Add the routes to an application."""
    for path, handler, methods, permission, changes_store in (
        ("/api/write", _write, ["POST"], Permission.WRITE, True),
        ("/api/query", _query, ["GET", "POST"], Permission.READ, False),
        ("/api/free", _free, ["POST"], Permission.ADMIN, True),
        ("/api/checkpoint", _save, ["POST"], Permission.ADMIN, True),
        ("/api/debug", _debug, ["GET"], Permission.ADMIN, False),
        ("/api/healthcheck", _check_health, ["GET"], Permission.READ, False),
    ):
        register = route(app, path, methods=methods, permission=permission, changes_store=changes_store)
        register(partial(handler, services))


async def _write(services: Services) -> Response:
    limit = services.config.metric_store.limits.max_body_size_bytes
    await services.wait_recovered()
    written = await services.intake.write_body(
        partial(body_blocks, limit_bytes=limit), default_cluster=request.args.get("cluster", "")
    )
    if written.ended_by is None and not written.counts[Outcome.BAD_LINE]:
        return Response(b"", 200, content_type=JSON)
    raise _complaint(written)


def _complaint(written: Written) -> HttpError:
    """Tell what is wrong with a body, and what became of its lines."""
    details = {
        "stored": written.stored,
        "rejected": written.rejected,
        "lines": [{"line": reject.line, "error": reject.reason} for reject in written.rejects],
    }
    if written.ended_by is not None:
        status = status_of(written.ended_by) or 400
        return HttpError(status, str(written.ended_by), headers=headers_of(status), details=details)
    # others may have filled the list before the first bad line came
    bad = (reject for reject in written.rejects if reject.outcome is Outcome.BAD_LINE)
    first = next(bad, written.rejects[0])
    return HttpError(400, f"line {first.line}: {first.reason}", details=details)


async def _query(services: Services) -> Response:
    services.check_recovered()
    wanted = await decode_body(decode_question)
    if isinstance(wanted, JobQuery):
        return await answer_in_pieces(await _job_pieces(services, wanted))
    limit = services.config.main.max_query_selectors
    if limit and (count := len(wanted.queries)) > limit:  # to count their selectors could take long
        raise QueryError(f"query: {count} queries (wanted at most {limit} selectors)")
    if limit and (count := count_selectors(services.store, wanted)) > limit:
        raise QueryError(f"query: {count} selectors (wanted at most {limit})")
    return await answer_in_pieces(_pieces(services, wanted))


async def _free(services: Services) -> Response:
    cutoff = request.args.get("to", "")
    if not _INTEGER.fullmatch(cutoff) or int(cutoff) not in _INT64:
        raise QueryError(f"to: {cutoff[:40]!r} (wanted seconds since the epoch)")
    selectors = await decode_body(decode_selectors)
    await services.wait_recovered()
    freed = await free_selectors(services, selectors, int(cutoff))
    return text_answer(f"buffers freed: {freed}\n")


async def _save(services: Services) -> Response:
    services.check_recovered()
    began = trio.current_time()
    written = await save(services)
    return json_answer({**asdict(written), "seconds": round(trio.current_time() - began, 3)})


async def _debug(services: Services) -> Response:
    services.check_recovered()
    parts = request.args.getlist("part") or request.args.get("selector", "").split(":")
    path = () if parts == [""] else tuple(parts)
    place = services.store.locate(path, create=False)
    if path and (place < 0 or not services.store.index.is_visible(place)):
        raise QueryError(f"selector: {':'.join(path)!r} not found")
    return await answer_in_pieces(encode_levels(_levels(services.store, path)))


async def _check_health(services: Services) -> Response:
    services.check_recovered()
    wanted = await decode_body(decode_health, limit_bytes=_MAX_HEALTH_REQUEST)
    now = services.now()
    health = (
        (host, services.store.check_health(wanted.cluster, host, wanted.metric_names, now=now))
        for host in dict.fromkeys(wanted.nodes)
    )
    return await answer_in_pieces(encode_health(health))


def answer_pieces(services: Services, wanted: QueryRequest) -> AsyncIterator[bytes]:
    """Answer a query piece by piece; each takes a millisecond or two, and others run before each."""
    return Stepwise(_pieces(services, wanted))


async def _job_pieces(services: Services, wanted: JobQuery) -> Iterator[bytes]:
    """Answer a query by job: what an ordinary query answers, behind the names of what it is about."""
    job = await job_query.find_job(services, wanted.job)
    planned = await job_query.plan_query(services, job, wanted)
    answer = _pieces(services, planned, has_places=True)
    opening = next(answer)
    return itertools.chain(encode_head(job, planned), [opening.removeprefix(b"{")], answer)


def _pieces(services: Services, wanted: QueryRequest, *, has_places: bool = False) -> Iterator[bytes]:
    """Answer a query; between two pieces, values may come in or be freed, and series come and go.

    has_places: a component that is not stored has its place in the answer, even if the reference has none.
    """
    config, store = services.config.main, services.store
    strict = config.strict_reference
    minimum = config.resampling.minimum_points if config.resampling else MINIMUM_POINTS
    hosts = store.hosts(wanted.cluster) if wanted.for_all_nodes else []
    writer = AnswerWriter(wanted, hosts, strict=strict and not has_places)
    reader = Reader(store.columns, strict=strict, minimum_points=minimum)
    yield from writer.begin()
    for groups in plan(store, wanted, hosts):
        for part, window in reader.windows(groups, wanted.start, wanted.stop):
            yield writer.rows(window, groups.metrics[part], groups.queries[part], groups.placeholders[part])
    yield writer.end()


def _levels(store: Store, path: tuple[str, ...], depth: int = 0) -> Iterator[Level]:
    """Walk over what is visible at and below a path, parents first; find each level when its turn comes."""
    place = store.locate(path, create=False)
    if place < 0:
        return  # gone since its parent was shown
    below = list(store.index.visible(place))
    series = [
        (metric, [{"start": c.start, "len": c.used, "end": c.stop} for c in store.chunks(number)])
        for metric, number in sorted(store.series_at(place))
    ]
    if below or series or not depth:
        yield depth, path[-1] if path else "", series
    for name in below:
        yield from _levels(store, (*path, name), depth + 1)


async def decode_body(decode: Callable[[bytes], T], *, limit_bytes: int = _MAX_REQUEST) -> T:
    """Read the body of the request in hand and decode it, in a thread if it is large."""
    body = await read_body(limit_bytes=limit_bytes)
    if len(body) > _LARGE_REQUEST:
        return await trio.to_thread.run_sync(decode, body)
    return decode(body)
