"""Stopping the whole server at every one of its steps: softly, by cancellation, and with hanging clients."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import h11
import orjson
import pytest
import trio
from attrs import define, field
from nats_broker import open_broker
from service_tools import (
    NOW,
    Gate,
    kept_services,
    lines,
    logged,
    make_config,
    open_sockets,
    post,
    running,
    stored,
    wait_until,
)
from serving import connected
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.config import Config, NatsConfig
from ccstore.disk.files import OsDisk
from ccstore.server import service
from ccstore.server.nats import Client, open_client
from ccstore.server.services import Services, make_services

pytestmark = pytest.mark.timeout(100)

How = Literal["stop", "cancel"]

QUESTION = orjson.dumps({"cluster": "birch", "from": NOW - 60, "to": NOW + 60, "for-all-nodes": ["cpu_load"]})
GRACEFUL = 3.0
"""Seconds that a stop gives requests under way, see `hosting.serve`."""


class AtStep(trio.abc.Instrument):
    """Calls a function after the n-th step of any task."""

    def __init__(self, step: int, call: Callable[[], object]) -> None:
        self.left = step
        self._call = call

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._call()


@define
class Load:
    """What clients do while a server runs, and what they were told."""

    publisher: Client
    acknowledged: list[str] = field(factory=list)
    """Hosts of lines that were answered with 200."""
    is_over: bool = False

    async def put(self, port: int, services: Services) -> None:
        """Write, publish and ask, twice; whatever breaks, breaks because the server ends."""
        try:
            async with connected(port) as client:
                for first in (0, 10):
                    hosts = [f"h{n}" for n in range(first, first + 10)]
                    answer = await client.request("POST", "/api/write?cluster=birch", body=lines(hosts))
                    if answer.status == 200:
                        self.acknowledged += hosts
                    await self.publisher.publish("hpc", lines([f"n{first}"]))
                    await self.publisher.flush()
                    await client.request("POST", "/api/query", body=QUESTION)
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
            return
        await wait_until(lambda: services.nats.messages == 2 or services.nats.state == "closed")
        self.is_over = services.nats.messages == 2


async def run_once(config: Config, load: Load, step: int, how: How) -> Services:
    """Run a server under load, and end it after so many steps of all tasks, or when the load is over."""
    stop = trio.Event()
    async with kept_services() as made, trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            end = nursery.cancel_scope.cancel if how == "cancel" else stop.set
            instrument = AtStep(step, end)
            trio.lowlevel.add_instrument(instrument)
            try:
                (url,) = await nursery.start(partial(service.run, config, stop=stop.wait))
                clients.start_soon(load.put, int(url.rpartition(":")[2]), made[0])
                await wait_until(lambda: load.is_over or stop.is_set() or made[0].nats.state == "closed")
                end()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        clients.cancel_scope.cancel()  # who waits for a server that is gone
    return made[0]


async def hurry(clock: MockClock) -> None:
    """Let the time pass that HTTP gives to requests under way, once everybody waits for it."""
    await wait_all_tasks_blocked(0.2)
    clock.jump(GRACEFUL)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_the_end_at_every_step(
    how: How, tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever a run under load is ended, it returns, leaves nothing behind, and keeps what it acknowledged.

    The clock stands still: whoever waited for a grace or a timeout would wait for ever.
    """
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as publisher:
        await publisher.flush()
        await wait_all_tasks_blocked(0.01)
        sockets, tasks = open_sockets(), trio.lowlevel.current_statistics().tasks_living
        step, load = 0, Load(publisher)
        while not load.is_over:
            step, load = step + 1, Load(publisher)
            config = make_config(broker.url, {"hpc": "birch"})
            services = await run_once(config, load, step, how)
            check_books(services, load.acknowledged, soft=how == "stop")
            await check_disk(config, services)
            assert open_sockets() == sockets
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
    assert step > 50
    assert trio.current_time() == 0
    assert not [line for line in logged(caplog) if "cut short" in line or "bug" in line]


def check_books(services: Services, acknowledged: list[str], *, soft: bool) -> None:
    """Check that the books of a server that has ended are closed."""
    values, total, nats = stored(services), services.ledger.total(), services.nats
    assert {("birch", host): [float(host[1:])] for host in acknowledged}.items() <= values.items()
    assert total["received"] == total["stored"] == len(values)
    assert nats.dropped_messages == 0
    published = sum(host[0] == "n" for _, host in values)
    assert published == nats.messages if soft else published <= nats.messages
    assert nats.queued_messages == 0 or not soft


async def check_disk(config: Config, services: Services) -> None:
    """Check that everything that was in memory at the end is there at the next start."""
    after = make_services(config, now=lambda: NOW, disk=OsDisk())
    assert after.durability is not None
    await after.durability.recover()
    assert stored(after) == stored(services)


async def test_a_client_that_never_reads(mock_clock: MockClock) -> None:
    """It alone makes a stop take time: what HTTP gives to requests under way, and not the grace."""
    async with running(make_config()) as server, trio.open_nursery() as clients:
        early = NOW - 60 * 900_000
        assert (
            await post(server, "/api/write?cluster=birch", lines(["h1"], time=early) + lines(["h1"]))
        ).status == 200
        query = {"metric": "cpu_load", "host": "h1"}
        question = {"cluster": "birch", "from": early, "to": NOW + 60, "queries": [query] * 20}
        async with connected(server.port) as client:
            body = orjson.dumps(question)
            await client.send_head("POST", "/api/query", [("Content-Length", str(len(body)))])
            await client.stream.send_all(body)
            await client.event()  # the head of the answer, and then no more
            await wait_all_tasks_blocked(0.05)
            server.stop.set()
            await wait_all_tasks_blocked(0.05)
            assert (server.services.stopping.is_set(), trio.current_time()) == (True, 0)
            clients.start_soon(hurry, mock_clock)
    assert trio.current_time() == GRACEFUL


async def test_the_deadline_insists(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that never takes what it was given is cut short after the grace, and the log says so."""
    gate = Gate()
    async with open_broker(tmp_path) as broker:
        config = make_config(broker.url, {"hpc": "birch"}, shutdown_grace=12.0)
        async with running(config, gate.put_before) as server:
            async with open_client(NatsConfig(address=broker.url)) as client:
                await wait_until(lambda: server.services.nats.is_connected)
                await client.publish("hpc", lines(["h1"]))
                await wait_until(lambda: server.services.nats.messages == 1)
            server.stop.set()
            await wait_all_tasks_blocked(0.05)
            mock_clock.jump(11.9)
            await wait_until(lambda: server.services.nats.state == "closed")
            assert server.received == 0
            assert "cut short" not in caplog.text
            mock_clock.jump(0.1)
    assert "stopped after main.shutdown-grace (12 s): something was cut short" in logged(caplog)
