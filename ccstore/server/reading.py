"""The routes that read back what schedulers have said: nodes and their history, jobs.

A handler translates: from the parameters of a request to a filter, and from what the registry returns to
JSON in pieces. It waits for the registry alone, so nodes and jobs can be read while files are recovered.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from functools import partial
from typing import TypeVar

from quart import Response, request

from ccstore.disk.registry import jobs, nodes
from ccstore.errors import QueryError
from ccstore.model import Health, JobFilter, JobKey, JobState, NodeFilter, NodeState
from ccstore.server.answers import JSON, HttpError
from ccstore.server.auth import Permission
from ccstore.server.http import App, route
from ccstore.server.job_query import find_job
from ccstore.server.services import Services
from ccstore.server.stepwise import answer_in_pieces
from ccstore.wire.jobs import encode_job, encode_jobs
from ccstore.wire.nodestates import encode_history, encode_nodes

__all__ = ["add_routes"]

E = TypeVar("E", bound=Enum)

_USUAL = 100
"""Jobs, or states of a node, in an answer."""
_MOST = 10_000
_FOREVER = 2**60  # s
_INTEGER = re.compile("-?[0-9]{1,18}")


def add_routes(app: App, services: Services) -> None:
    """Add the routes to an application."""
    handlers: Iterable[tuple[str, Callable[[Services], Awaitable[Response]]]] = (
        ("/api/nodes", _nodes),
        ("/api/nodes/<cluster>/<host>", _history),
        ("/api/jobs", _jobs),
        ("/api/jobs/<int:job>", _job),
    )
    for path, handler in handlers:
        register = route(app, path, methods=["GET"], permission=Permission.READ, exact=True)
        register(partial(handler, services))


async def _nodes(services: Services) -> Response:
    wanted = NodeFilter(
        clusters=_texts("cluster"),
        subclusters=_texts("subcluster"),
        states=_members("state", NodeState),
        healths=_members("health", Health),
    )
    with services.registry.patience():
        found = await services.registry.read(nodes.current_states, wanted)
    return await answer_in_pieces(encode_nodes(found))


async def _history(services: Services) -> Response:
    names = request.view_args or {}
    cluster, host = names["cluster"], names["host"]
    read = partial(
        nodes.history,
        start=_integer("from", 0, least=-_FOREVER, most=_FOREVER),
        stop=_integer("to", _FOREVER, least=-_FOREVER, most=_FOREVER),
        limit=_integer("limit", _USUAL, least=1, most=_MOST),
    )
    with services.registry.patience():
        records = await services.registry.read(read, cluster, host)
    if records is None:
        raise HttpError(404, f"node {host!r} of cluster {cluster!r}: not found")
    subcluster = records[0].subcluster if records else services.config.clusters.subcluster(cluster, host)
    return await answer_in_pieces(encode_history(cluster, subcluster or "", host, records))


async def _jobs(services: Services) -> Response:
    wanted = JobFilter(
        clusters=_texts("cluster"),
        states=_members("state", JobState),
        users=_texts("user"),
        projects=_texts("project"),
        hosts=_texts("host"),
    )
    limit = _integer("limit", _USUAL, least=1, most=_MOST)
    read = partial(jobs.find_jobs, limit=limit, now=services.now())
    with services.registry.patience():
        found = await services.registry.read(read, wanted)
    return await answer_in_pieces(encode_jobs(found))


async def _job(services: Services) -> Response:
    number: int = (request.view_args or {})["job"]
    if not 0 < number <= _FOREVER:
        raise QueryError(f"job: {number} (wanted a number above 0, and below 2^60)")
    start_time = _integer("startTime", 0, least=0, most=_FOREVER)
    job = await find_job(services, JobKey(request.args.get("cluster", ""), number, start_time))
    return Response(encode_job(job), content_type=JSON)


def _texts(name: str) -> tuple[str, ...]:
    """Return the values of a parameter that may be repeated; one that is empty says nothing."""
    return tuple(value for value in request.args.getlist(name) if value)


def _members(name: str, kind: type[E]) -> tuple[E, ...]:
    known = {one.value: one for one in kind}
    values = [value.lower() for value in _texts(name)]
    for value in values:
        if value not in known:
            raise QueryError(f"{name}: {value[:40]!r} (wanted one of {', '.join(known)})")
    return tuple(known[value] for value in values)


def _integer(name: str, default: int, *, least: int, most: int) -> int:
    text = request.args.get(name, "")
    if not text:
        return default
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
        wanted = "seconds since the epoch" if most == _FOREVER else f"a number from {least} to {most}"
        raise QueryError(f"{name}: {text[:40]!r} (wanted {wanted})")
    return int(text)
