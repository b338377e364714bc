"""A server's life as straight text: start, serve, stop.

One nursery owns every task. Starting waits for nothing outside: HTTP answers at once, and the broker is
looked for in the background. Stopping follows the data: an event asks everybody, the intake ends when
what was received is in memory, HTTP when its requests are answered; a deadline insists.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ccstore import __version__
from ccstore.config import Config, split_address
from ccstore.disk.files import OsDisk, lock_directory
from ccstore.errors import UnavailableError
from ccstore.jit import warm_up
from ccstore.server import (
    api,
    event_intake,
    http,
    logs,
    nats,
    openapi,
    process,
    prometheus,
    reading,
    scheduler_api,
    status,
    upkeep,
)
from ccstore.server.auth import Authenticator
from ccstore.server.hosting import tls_context
from ccstore.server.live import routes as live
from ccstore.server.services import Services, make_services
from ccstore.server.used_nodes import open_provider

__all__ = ["run"]

log = logging.getLogger("ccstore.service")


async def run(
    config: Config,
    *,
    stop: Callable[[], Awaitable[None]] = process.stop_on_signal,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the store until `stop` returns; `started` gets the URLs it listens on.

    A soft stop takes as long as what was begun; after `main.shutdown-grace` seconds it is cut short.
    Raises ConfigError, alone or in an exception group, if the configuration does not fit the machine, such
    as an occupied port.
    """
    main = config.main
    for _ in warm_up():  # a server must not stop to compile in the middle of its first message
        pass
    with ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in process.listen(*split_address(main.addr))]
        tls = tls_context(main.https_cert_file, main.https_key_file) if main.https_cert_file else None
        process.raise_open_files()
        process.drop_privileges(main.user, main.group)
        process.keep_freed_memory()
        stack.enter_context(lock_directory(Path(config.metric_store.checkpoints.directory)))
        services = make_services(config, used_nodes=open_provider(config), disk=OsDisk())
        for warning in config.warnings:
            log.warning("%(problem)s", {"problem": warning})
        serve_http = partial(http.serve, _make_app(config, services), sockets, tls=tls)
        deadline = await _run_tasks(services, serve_http, stop, task_status)
        await _save(services, deadline)
    log.info("stopped")


async def _run_tasks(
    services: Services,
    serve_http: Callable[..., Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[list[str]],
) -> float:
    """Run all tasks until `stop` returns, and then until they have ended; return when they had to have."""
    grace, wal = services.config.main.shutdown_grace, services.wal
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(_hold, services, serve_http)
            nursery.start_soon(services.registry.run)
            if wal is not None:
                for shard in wal.shards:
                    nursery.start_soon(wal.write, shard)
            intake = trio.CancelScope()
            nursery.start_soon(_take_in, services, nursery, intake)
            stack.enter_context(services.loop.watching())  # the start does not count
            log.info("listening on %(urls)s", {"urls": ", ".join(urls), "version": __version__})
            process.notify("READY=1", f"STATUS=listening on {', '.join(urls)}")
            task_status.started(urls)
            await stop()
            process.notify("STOPPING=1")
            services.stopping.set()
            deadline = nursery.cancel_scope.deadline = trio.current_time() + grace
            intake.cancel()
    if nursery.cancel_scope.cancelled_caught:
        log.error(
            "stopped after main.shutdown-grace (%(grace)g s): something was cut short", {"grace": grace}
        )
    return deadline


async def _take_in(services: Services, nursery: trio.Nursery, until: trio.CancelScope) -> None:
    """Start the intake over NATS, recover what is on disk, start the periodic jobs; end that softly."""
    intakes: list[trio.CancelScope] = []
    with until, services.registry.held():
        try:
            # Before recovery: a broker keeps nothing for somebody who has not subscribed yet.
            for receive in _intakes(services):
                intake = await nursery.start(_hold, services, receive)
                intakes.append(intake)  # before the next one starts, which a stop may cut off
            async with trio.open_nursery() as jobs:  # which may be cut off at any moment
                jobs.start_soon(process.feed_watchdog)
                jobs.start_soon(logs.tell_unlogged)
                if services.durability is not None:
                    await services.durability.recover(services.used_nodes)
                upkeep.start(jobs, services)
                jobs.start_soon(services.hub.run)
                await trio.sleep_forever()
        finally:
            if services.durability is not None:
                services.durability.settled.set()  # who waits for recovery need not any more
            for intake in intakes:
                intake.cancel()


async def _hold(
    services: Services,
    run_task: Callable[..., Awaitable[None]],
    *,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a task that stores something: log and registry are closed when the last of them has ended."""
    with services.registry.held(), contextlib.nullcontext() if services.wal is None else services.wal.held():
        await run_task(task_status=task_status)


async def _save(services: Services, deadline: float) -> None:
    """Write the last checkpoint, as far as it gets: the log has everything."""
    durability = services.durability
    if durability is None or not durability.recovered.is_set():
        return
    with trio.move_on_at(deadline) as scope:
        try:
            await durability.checkpoints.save_all()
        except* OSError as errors:
            for error in errors.exceptions:
                fields = {"error": error}
                log.error("last checkpoint: %(error)s; the next start reads the log instead", fields)
    if scope.cancelled_caught:
        log.warning("last checkpoint: cut short by main.shutdown-grace; the next start reads the log instead")


def _make_app(config: Config, services: Services) -> http.App:
    """Make the application with all routes."""
    main = config.main
    key = b"" if main.disable_authentication else main.jwt_public_key
    authenticator = Authenticator(key, check_roles=main.jwt_roles == "check")
    app = http.create_app(
        authenticator, now=services.now, stopping=services.stopping, traffic=services.traffic
    )
    api.add_routes(app, services)
    scheduler_api.add_routes(app, services)
    prometheus.add_routes(app, services)
    reading.add_routes(app, services)
    status.add_routes(app, services)
    live.add_routes(app, services)
    openapi.add_routes(app)
    return app


def _intakes(services: Services) -> Iterator[Callable[..., Awaitable[None]]]:
    """Yield the tasks that receive over NATS; each starts with a scope that ends it softly.

    Metrics and events have a connection each: one that rests because events wait must not hold up metrics.
    """
    config = services.config
    if services.uses_nats:
        tags: dict[str, str] = {}
        for subscription in config.metric_store.nats_subscriptions:
            tags.setdefault(subscription.subscribe_to, subscription.cluster_tag)
        yield partial(
            nats.receive,
            config.nats,
            [nats.Subscription(subject, tag, config.nats.queue_group) for subject, tag in tags.items()],
            partial(_deliver, services),
            statistics=services.nats,
            overflow="block" if config.metric_store.nats_overflow == "block" else "drop",
            budget_bytes=config.metric_store.nats_buffer_bytes,
        )
    if services.event_subjects is not None:
        yield partial(event_intake.receive, services.events, config.nats, services.event_subjects)


async def _deliver(services: Services, messages: nats.Messages) -> None:
    """Store messages, once what is on disk is in memory; until then they wait, and fill the buffer."""
    try:
        await services.wait_recovered()
    except UnavailableError:  # the server stops, and there is nothing yet that they could be stored into
        services.nats.drop(messages)
        fields = {"messages": len(messages)}
        log.error("nats: dropped %(messages)d messages: stopped before recovery was done", fields)
    else:
        await services.intake.write_messages(messages)
