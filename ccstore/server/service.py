"""A server's life as straight text: start, serve, stop.

One nursery owns every task. Starting waits for nothing outside: HTTP answers at once, and the broker is
looked for in the background. Stopping follows the data: an event asks everybody, the intake ends when
what was received is in memory, HTTP when its requests are answered; a deadline insists.
"""

import gc
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ccstore.config import Config, split_address
from ccstore.server import api, http, nats, process, status, upkeep
from ccstore.server.auth import Authenticator
from ccstore.server.hosting import tls_context
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
    Raises ConfigError if the configuration does not fit the machine, such as an occupied port.
    """
    main = config.main
    sockets = process.listen(*split_address(main.addr))
    try:
        tls = tls_context(main.https_cert_file, main.https_key_file) if main.https_cert_file else None
        process.raise_open_files()
        process.drop_privileges(main.user, main.group)
        process.keep_freed_memory()
        services = make_services(config, used_nodes=open_provider(config))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    for warning in config.warnings:
        log.warning("%s", warning)
    trio.lowlevel.add_instrument(services.loop)
    try:
        async with trio.open_nursery() as nursery:
            app = _make_app(config, services)
            urls = await nursery.start(partial(http.serve, app, sockets, tls=tls))
            upkeep.start(nursery, services)
            intake = await _start_nats(nursery, services)
            nursery.start_soon(_until, services.stopping, process.feed_watchdog)
            gc.freeze()  # what lives as long as the server need not be looked at again
            log.info("listening on %s", ", ".join(urls))
            process.notify("READY=1", f"STATUS=listening on {', '.join(urls)}")
            task_status.started(urls)
            await stop()
            process.notify("STOPPING=1")
            services.stopping.set()
            nursery.cancel_scope.deadline = trio.current_time() + main.shutdown_grace
            if intake is not None:
                intake.cancel()
    finally:
        trio.lowlevel.remove_instrument(services.loop)
    log.info("stopped")


def _make_app(config: Config, services: Services) -> http.App:
    """Make the application with all routes."""
    main = config.main
    key = b"" if main.disable_authentication else main.jwt_public_key
    authenticator = Authenticator(key, check_roles=main.jwt_roles == "check")
    app = http.create_app(authenticator, now=services.now, stopping=services.stopping)
    api.add_routes(app, services)
    status.add_routes(app, services)
    return app


async def _start_nats(nursery: trio.Nursery, services: Services) -> trio.CancelScope | None:
    """Start the intake over NATS, if there is any; cancelling the scope ends it softly."""
    config = services.config
    subjects: dict[str, str] = {}
    for subscription in config.metric_store.nats_subscriptions:
        subjects.setdefault(subscription.subscribe_to, subscription.cluster_tag)
    if not config.nats.address or not subjects:
        return None
    intake: trio.CancelScope = await nursery.start(
        partial(
            nats.receive,
            config.nats,
            [nats.Subscription(subject, tag, config.nats.queue_group) for subject, tag in subjects.items()],
            services.intake.write_messages,
            statistics=services.nats,
            overflow="block" if config.metric_store.nats_overflow == "block" else "drop",
            budget_bytes=config.metric_store.nats_buffer_bytes,
        )
    )
    return intake


async def _until(stopping: trio.Event, job: Callable[[], Awaitable[None]]) -> None:
    """Run a job that never ends until the server stops."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job)
        await stopping.wait()
        nursery.cancel_scope.cancel()
