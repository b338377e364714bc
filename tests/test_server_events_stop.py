"""Ending a server under events at every one of its steps, softly and by cancellation."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h11
import pytest
import trio
from attrs import evolve
from nats_broker import open_broker
from scheduler_tools import (
    SUBJECTS,
    job,
    line,
    locked,
    rows,
    scheduling,
    stop,
    with_clusters,
)
from service_tools import (
    NOW,
    kept_services,
    make_config,
    wait_until,
)
from serving import ask
from test_server_service_stop import AtStep

from ccstore.config import Config, NatsConfig
from ccstore.disk.registry.database import Database
from ccstore.server import service
from ccstore.server.nats import open_client
from ccstore.server.services import Services
from ccstore.wire.events import EventOutcome
from ccstore.wire.jobs import decode_job_start, decode_job_stop

pytestmark = pytest.mark.timeout(100)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_the_end_at_every_step(how: str, tmp_path: Path) -> None:
    """Whatever step the server is ended at: what was acknowledged is stored; softly, all that arrived is."""
    async with open_broker(tmp_path) as broker:
        broker_at = NatsConfig(address=broker.url)
        for step in steps(how):
            config = evolve(with_clusters(make_config(), api_subjects=SUBJECTS), nats=broker_at)
            services, acknowledged = await end_at(config, step, how)
            numbers = stored_jobs(config.main.db)
            assert acknowledged <= numbers, step
            ended = sum(number for (source, *_), number in services.events.counts.items() if source == "nats")
            nats = services.events.nats
            assert ended <= nats.messages <= ended + nats.queued_messages, step
            if how == "stop":
                assert ended == nats.messages, step
                assert {outcome for _, _, outcome in services.events.counts} <= {EventOutcome.DONE}, step


def stored_jobs(path: str) -> set[int]:
    """Return the numbers of all jobs in a database that was closed in order."""
    assert not os.path.exists(f"{path}-wal")
    if not os.path.exists(path):
        return set()
    return {
        number for (number,) in rows(Path(path), "SELECT job_id FROM job UNION SELECT job_id FROM job_cache")
    }


def steps(how: str) -> Iterator[int]:
    """Yield after how many steps of all tasks the server is ended."""
    return iter(range(1, 700, 71 if how == "stop" else 83))


async def end_at(config: Config, step: int, how: str) -> tuple[Services, set[int]]:
    """Run a server under load, end it after so many steps; return what it was and what it acknowledged."""
    end, acknowledged = trio.Event(), set[int]()

    async def load(port: int) -> None:
        async with open_client(config.nats) as client:
            for number in range(1, 6):
                await client.publish("sched.jobs", line("start_job", job(jobId=100 + number)))
                body = json.dumps(job(jobId=number)).encode()
                try:
                    answer = await ask(port, "POST", "/api/jobs/start_job", body=body)
                except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
                    return
                if answer.status == 201:
                    acknowledged.add(number)

    async with kept_services() as made, trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            do = nursery.cancel_scope.cancel if how == "cancel" else end.set
            instrument = AtStep(step, do)
            trio.lowlevel.add_instrument(instrument)
            try:
                (url,) = await nursery.start(partial(service.run, config, stop=end.wait))
                clients.start_soon(load, int(url.rpartition(":")[2]))
                await wait_until(lambda: instrument.left <= 0)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        clients.cancel_scope.cancel()
    return made[0], acknowledged


async def test_a_start_whose_client_leaves_takes_its_early_stop_along(tmp_path: Path) -> None:
    """A start and the stop that came before it are one step: whoever waits may leave just when it is done."""
    async with scheduling("http", tmp_path) as scheduler:
        events, registry = scheduler.server.services.events, scheduler.server.services.registry
        early = decode_job_stop(json.dumps(stop()).encode())
        await events.perform(await events.queue(early), early)
        assert len(events.early) == 1
        left = trio.CancelScope()

        def leave(_: Database) -> None:
            """Run in the transaction of the start."""
            trio.from_thread.run_sync(left.cancel)

        async def start() -> None:
            with left:
                await events.start_job(decode_job_start(json.dumps(job()).encode()))

        async with trio.open_nursery() as nursery:
            with locked(scheduler.server.services.config.main.db):
                nursery.start_soon(registry.write, leave)
                nursery.start_soon(start)
                await wait_until(lambda: len(registry) == 2 and registry.failures > 0)
                # the next attempt is one transaction of both
        assert left.cancel_called
        assert scheduler.jobs() == [(1001, "c", NOW - 600, "completed")]
        assert len(events.early) == 0
        assert events.counts["nats", "job", EventOutcome.DONE] == 1
