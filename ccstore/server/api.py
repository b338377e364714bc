"""The routes of the store: write, query, free, debug, healthcheck.

A handler translates: from a request to calls of the rooms below, and from what they return to an
answer. Long answers are made and sent in pieces, and the event loop gets its turn after each.
"""

import itertools
from collections.abc import AsyncIterator, Iterator

import trio
from quart import Response, request

from ccstore.errors import QueryError
from ccstore.memory.query import Reader, count_selectors, plan
from ccstore.memory.store import Store
from ccstore.model import Outcome, QueryRequest
from ccstore.server.answers import JSON, HttpError, json_answer, text_answer
from ccstore.server.auth import Permission
from ccstore.server.http import App, body_blocks, read_body, route
from ccstore.server.services import Services
from ccstore.server.upkeep import free_selectors
from ccstore.wire.query import AnswerWriter, decode_query
from ccstore.wire.requests import Level, decode_health, decode_selectors, encode_health, encode_levels

__all__ = ["add_routes", "answer_pieces"]

KIB = 1024
MIB = 1024 * KIB

_MAX_REQUEST = 64 * MIB
"""Bytes of a query; bodies of lines have a limit of their own."""
_LARGE_REQUEST = 32 * KIB
"""A larger query is decoded in a thread: 2 000 selectors take 10 ms."""
_SMALL_ANSWER = 256 * KIB
"""Up to here an answer is collected, so that it has a Content-Length; a larger one is streamed."""


def add_routes(app: App, services: Services) -> None:
    """Add the routes to an application."""

    @route(app, "/api/write", methods=["POST"], permission=Permission.WRITE, changes_store=True)
    async def write() -> Response:
        blocks = body_blocks(limit_bytes=services.config.metric_store.limits.max_body_size_bytes)
        written = await services.intake.write_body(blocks, default_cluster=request.args.get("cluster", ""))
        bad = [reject for reject in written.rejects if reject.outcome is Outcome.BAD_LINE]
        if not bad and written.ended_by is None:
            return Response(b"", 200, content_type=JSON)
        details = {
            "stored": written.stored,
            "rejected": int(written.counts[Outcome.BAD_LINE]),
            "lines": [{"line": reject.line, "error": reject.reason} for reject in written.rejects],
        }
        if isinstance(written.ended_by, HttpError):
            raise HttpError(written.ended_by.status, str(written.ended_by), details=details)
        first = f"line {bad[0].line}: {bad[0].reason}" if bad else ""
        raise HttpError(400, str(written.ended_by or first), details=details)

    @route(app, "/api/query", methods=["GET", "POST"], permission=Permission.READ)
    async def query() -> Response:
        body = await read_body(limit_bytes=_MAX_REQUEST)
        if len(body) > _LARGE_REQUEST:
            wanted = await trio.to_thread.run_sync(decode_query, body)
        else:
            wanted = decode_query(body)
        limit = services.config.main.max_query_selectors
        if limit and (count := count_selectors(services.store, wanted)) > limit:
            raise QueryError(f"query: {count} selectors (wanted at most {limit})")
        return await _answer(answer_pieces(services, wanted))

    @route(app, "/api/free", methods=["POST"], permission=Permission.ADMIN, changes_store=True)
    async def free() -> Response:
        cutoff = request.args.get("to", "")
        if not cutoff.removeprefix("-").isdecimal():
            raise QueryError(f"to: {cutoff!r} (wanted seconds since the epoch)")
        selectors = decode_selectors(await read_body(limit_bytes=_MAX_REQUEST))
        freed = await free_selectors(services, selectors, int(cutoff))
        return text_answer(f"buffers freed: {freed}\n")

    @route(app, "/api/debug", methods=["GET"], permission=Permission.ADMIN)
    async def debug() -> Response:
        parts = request.args.getlist("part") or request.args.get("selector", "").split(":")
        path = () if parts == [""] else tuple(parts)
        place = services.store.locate(path, create=False)
        if place < 0 or not (services.store.index.is_visible(place) or not path):
            raise QueryError(f"selector: {':'.join(path)!r} not found")
        return await _answer(_stepwise(encode_levels(_levels(services.store, place, 0))))

    @route(app, "/api/healthcheck", methods=["GET"], permission=Permission.READ)
    async def healthcheck() -> Response:
        wanted = decode_health(await read_body(limit_bytes=_MAX_REQUEST))
        health = {}
        for host in wanted.nodes:
            health[host] = services.store.check_health(
                wanted.cluster, host, wanted.metric_names, now=services.now()
            )
            if len(health) % 64 == 0:
                await trio.lowlevel.checkpoint()
        return json_answer(encode_health(health))


async def answer_pieces(services: Services, wanted: QueryRequest) -> AsyncIterator[bytes]:
    """Answer a query piece by piece."""
    strict = services.config.main.strict_reference
    resampling = services.config.main.resampling
    hosts = services.store.hosts(wanted.cluster) if wanted.for_all_nodes else []
    writer = AnswerWriter(wanted, hosts, strict=strict)
    reader = Reader(
        services.store.columns,
        strict=strict,
        **({"minimum_points": resampling.minimum_points} if resampling else {}),
    )
    for piece in writer.begin():
        yield piece
        await trio.lowlevel.checkpoint()
    for groups in plan(services.store, wanted, hosts):
        for part, window in reader.windows(groups, wanted.start, wanted.stop):
            yield writer.rows(window, groups.metrics[part], groups.queries[part], groups.placeholders[part])
            await trio.lowlevel.checkpoint()
    yield writer.end()


def _levels(store: Store, place: int, depth: int) -> Iterator[Level]:
    """Walk over what is visible at and below a place, parents first."""
    series = [
        (metric, [{"start": c.start, "len": c.used, "end": c.stop} for c in store.chunks(number)])
        for metric, number in sorted(store.series_at(place))
    ]
    yield depth, store.index.name(place), series
    for child in store.index.visible(place).values():
        yield from _levels(store, child, depth + 1)


async def _stepwise(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Collect small pieces into larger ones, and let others run after each."""
    for batch in iter(lambda: b"".join(itertools.islice(pieces, 32)), b""):
        yield batch
        await trio.lowlevel.checkpoint()


async def _answer(pieces: AsyncIterator[bytes]) -> Response:
    """Answer with pieces of JSON: as a whole if it is small, else streamed as they are made."""
    collected = b""
    async for piece in pieces:
        collected += piece
        if len(collected) > _SMALL_ANSWER:
            return Response(_chain(collected, pieces), content_type=JSON)
    return Response(collected, content_type=JSON)


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
