"""The routes for schedulers: node states, starts and stops of jobs, and the hosts in use.

A handler translates: from a request to an event in its line (see `ccstore.server.events`), and from what
became of it to an answer. It owns nothing that outlives the request. A client that leaves takes its event
out of the line, unless it is being stored.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial

from quart import Response, request

from ccstore.errors import QueryError
from ccstore.model import Job, JobRefusal, RefusedJob
from ccstore.server import jobs
from ccstore.server.answers import JSON, HttpError, json_answer
from ccstore.server.api import decode_body
from ccstore.server.auth import Permission, check_address
from ccstore.server.http import App, route
from ccstore.server.services import Services
from ccstore.wire.jobs import decode_job_start, decode_job_stop, encode_job
from ccstore.wire.nodestates import decode_report

__all__ = ["add_routes"]

_INTEGER = re.compile("-?[0-9]{1,19}")

_STATUS_OF = {
    JobRefusal.DUPLICATE: 422,
    JobRefusal.UNKNOWN: 404,
    JobRefusal.NOT_RUNNING: 422,
    JobRefusal.BAD_TIME: 400,
    JobRefusal.BAD_STATE: 400,
}


def add_routes(app: App, services: Services) -> None:
    """Add the routes to an application."""
    send = ["POST", "PUT"]
    for path, handler, methods, from_anywhere in (
        ("/api/nodestate", _store_report, send, False),
        ("/api/nodestats", _store_report, send, False),
        ("/api/healthcheck", _store_report, ["POST"], True),
        ("/api/jobs/start_job", _start_job, send, False),
        ("/api/jobs/stop_job", _stop_job, send, False),
        ("/api/jobs/used_nodes", _used_nodes, ["GET"], False),
    ):
        register = route(app, path, methods=methods, permission=Permission.WRITE)
        register(partial(_handle, services, handler, from_anywhere))


async def _handle(
    services: Services, handler: Callable[[Services], Awaitable[Response]], from_anywhere: bool
) -> Response:
    if not from_anywhere:
        check_address(request.remote_addr, services.config.main.api_allowed_ips)
    return await handler(services)


async def _store_report(services: Services) -> Response:
    services.check_recovered()
    report = await decode_body(decode_report)
    with services.registry.patience():
        stored = await services.events.store_report(report)
    skipped = [{"hostname": node.hostname, "reason": node.reason} for node in stored.skipped]
    return json_answer({"msg": "success", "stored": stored.stored, "skipped": skipped})


async def _start_job(services: Services) -> Response:
    job = await decode_body(decode_job_start)
    with services.registry.patience():
        _accepted(await services.events.start_job(job))
    return json_answer({"msg": "success"}, 201)


async def _stop_job(services: Services) -> Response:
    stop = await decode_body(decode_job_stop)
    with services.registry.patience():
        job = _accepted(await services.events.stop_job(stop))
    return Response(encode_job(job), content_type=JSON)


async def _used_nodes(services: Services) -> Response:
    before = request.args.get("ts", "")
    if not _INTEGER.fullmatch(before):
        raise QueryError(f"ts: {before[:40]!r} (wanted seconds since the epoch)")
    with services.registry.patience():
        used = await jobs.used_hosts(services.registry, int(before))
    return json_answer({"usedNodes": dict(used)})


def _accepted(answer: Job | RefusedJob) -> Job:
    if isinstance(answer, RefusedJob):
        raise HttpError(_STATUS_OF[answer.why], answer.text)
    return answer
