"""NATS for the rest of the server: `receive` for the store, `open_client` for whoever publishes.

Owns how the intake starts and ends; the client itself is `nats_client`. Invariant: whatever has
been received is delivered in arrival order, or counted as dropped, before `receive` returns.

Reading and delivering are two tasks with a bounded queue between them (`nats_backlog`): a server
drops us if we do not read, and the store must not be hurried. The end of the intake is a cancel scope
of the reading side alone, so that ending it cannot cut off a delivery.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from ccstore.config import NatsConfig
from ccstore.server.nats_backlog import Overflow
from ccstore.server.nats_client import Client, check_subscription
from ccstore.server.nats_link import check
from ccstore.server.nats_statistics import NatsStatistics
from ccstore.wire.nats_message import Message, Messages, Subscription

__all__ = [
    "BUDGET_BYTES",
    "Client",
    "Message",
    "Messages",
    "NatsStatistics",
    "Overflow",
    "Subscription",
    "open_client",
    "receive",
]

MIB = 1024 * 1024
BUDGET_BYTES = 256 * MIB

Deliver = Callable[[Messages], Awaitable[None]]


async def receive(
    config: NatsConfig,
    subscriptions: Sequence[Subscription],
    deliver: Deliver,
    *,
    statistics: NatsStatistics,
    overflow: Overflow = "drop",
    budget_bytes: int = BUDGET_BYTES,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Subscribe, and await ``deliver(messages)`` for all that comes in, in arrival order, for ever.

    `subscriptions` have distinct subjects. Starting never waits for a server. `started` gets a
    scope: cancelling it ends the intake softly, that is, unsubscribes, and returns when all that was
    received has been delivered. Up to `budget_bytes` wait meanwhile, see `Backlog`, which explains
    `overflow` too. The socket is read by a task beside: `deliver` should give it a turn every few
    milliseconds. Raises ConfigError at the start if a subject is malformed, `config` names no
    server or a file of it cannot be used.
    """
    assert len({subscription.subject for subscription in subscriptions}) == len(subscriptions)
    for subscription in subscriptions:
        check_subscription(subscription)
    async with open_client(
        config, statistics=statistics, overflow=overflow, budget_bytes=budget_bytes
    ) as client:
        for subscription in subscriptions:
            client.subscribe(subscription)
        task_status.started(client.intake)
        async for messages in client:
            await deliver(messages)


@asynccontextmanager
async def open_client(
    config: NatsConfig,
    *,
    statistics: NatsStatistics | None = None,
    overflow: Overflow = "drop",
    budget_bytes: int = BUDGET_BYTES,
) -> AsyncIterator[Client]:
    """Open a client that connects in the background; leaving the context flushes and closes it.

    Raises ConfigError if `config` names no server or a file of it cannot be used.
    """
    await trio.to_thread.run_sync(check, config, abandon_on_cancel=True)  # it only reads
    client = Client(config, statistics or NatsStatistics(), overflow, budget_bytes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        yield client
        await client.close()
