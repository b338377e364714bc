"""A whole server in the nursery of a test, with the parts that it is made of at hand."""

import itertools
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import trio
from attrs import evolve, frozen
from querying import warm_up
from serving import Answer, ask
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.config import Config, MainConfig, NatsConfig, NatsSubscription
from ccstore.config.sections import CheckpointsConfig
from ccstore.memory.query import Reader, plan
from ccstore.model import QueryRequest
from ccstore.server import service
from ccstore.server.nats import Messages
from ccstore.server.services import Services, make_services
from ccstore.wire.scan import SPARE_BYTES

_NUMBERS = itertools.count()

NOW = 1_700_000_000
"""What the wall clock of these servers tells, unless a test moves it."""

Values = dict[tuple[str, Any], list[float]]


@frozen
class Server:
    """A running server."""

    url: str
    services: Services
    stop: trio.Event

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def received(self) -> int:
        """How many lines are in the ledger."""
        return self.services.ledger.total()["received"]


def make_config(nats: str = "", subjects: Mapping[str, str] | None = None, **main: Any) -> Config:
    """Make a configuration for any free port of loopback, with subjects and their cluster tags.

    Each server made with one has a directory of its own.
    """
    config = Config(main=MainConfig(addr="127.0.0.1:0", **main), nats=NatsConfig(address=nats))
    subscriptions = tuple(NatsSubscription(subject, tag) for subject, tag in (subjects or {}).items())
    directory = CheckpointsConfig(directory=f"./var/{next(_NUMBERS)}")
    return with_store(config, nats_subscriptions=subscriptions, checkpoints=directory)


def with_store(config: Config, **keys: Any) -> Config:
    """Change keys of the section metric-store."""
    return evolve(config, metric_store=evolve(config.metric_store, **keys))


@asynccontextmanager
async def kept_services(
    prepare: Callable[[Services], None] = lambda _: None, *, now: Callable[[], int] = lambda: NOW
) -> AsyncIterator[list[Services]]:
    """Yield a list that gets the parts of each server made in the context, ready to be looked at."""
    warm_up()
    made: list[Services] = []

    def make(config: Config, **options: Any) -> Services:
        made.append(make_services(config, now=now, **options))
        prepare(made[-1])
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "make_services", make)
        yield made


@asynccontextmanager
async def running(
    config: Config,
    prepare: Callable[[Services], None] = lambda _: None,
    *,
    now: Callable[[], int] = lambda: NOW,
) -> AsyncIterator[Server]:
    """Run a server while the context is open, and stop it softly at the end.

    `prepare` may change its parts before it starts.
    """
    async with kept_services(prepare, now=now) as made, trio.open_nursery() as nursery:
        stop = trio.Event()
        (url,) = await nursery.start(partial(service.run, config, stop=stop.wait))
        yield Server(url, made[-1], stop)
        stop.set()


class Gate:
    """Makes the store as slow as a test wants, in front of what it does with messages."""

    def __init__(self) -> None:
        self.open = trio.Event()

    def put_before(self, services: Services) -> None:
        write = services.intake.write_messages

        async def write_later(messages: Messages) -> None:
            await self.open.wait()
            await write(messages)

        services.intake.write_messages = write_later  # type: ignore[method-assign]


def later() -> int:
    """A wall clock that goes with Trio's."""
    return NOW + int(trio.current_time())


async def jump(clock: MockClock, seconds: float) -> None:
    """Let time pass for everybody who waits for it."""
    await wait_all_tasks_blocked(0.001)
    clock.jump(seconds)


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something holds that nobody announces, looking whenever everybody else waits."""
    while not condition():
        await wait_all_tasks_blocked(0.001)


def lines(hosts: Iterable[str], *, cluster: str = "", time: int = NOW) -> bytes:
    """Write a line for each host, whose value is the number in its name."""
    tag = f"cluster={cluster}," if cluster else ""
    return b"".join(
        f"cpu_load,{tag}hostname={host},type=node value={number(host)} {time}\n".encode() for host in hosts
    )


def number(host: str) -> int:
    """Return the number at the end of a host's name."""
    return int(host.lstrip("abcdefghijklmnopqrstuvwxyz"))


async def fill(services: Services, body: bytes) -> None:
    """Write lines straight into a store, and into a checkpoint if it has any."""
    data = np.frombuffer(body + bytes(SPARE_BYTES), np.uint8)
    whole = np.array([0]), np.array([len(body)])
    await services.intake.write(data, *whole, source="http", default_cluster="", now=services.now())
    if services.durability is not None:
        await services.durability.checkpoints.save_all()


def stored(services: Services, *, start: int = NOW - 3600, stop: int = NOW + 3600) -> Values:
    """Return the values of cpu_load in a range of time, without gaps, by cluster and host."""
    store, found = services.store, {}
    reader = Reader(store.columns)
    for cluster in store.index.visible(store.index.root):
        hosts = store.hosts(cluster)
        request = QueryRequest(cluster, start, stop, for_all_nodes=("cpu_load",))
        for groups in plan(store, request, hosts):
            for part, window in reader.windows(groups, start, stop):
                for g, values in enumerate(np.split(window.values, window.ends[:-1]), part.start):
                    found[cluster, groups.selectors[g][1]] = values[~np.isnan(values)].tolist()
    return found


def open_sockets() -> list[str]:
    """Return the sockets that this process has open."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        try:
            found.append(os.readlink(entry.path))
        except FileNotFoundError:  # the directory itself, which is closed by now
            continue
    return sorted(name for name in found if name.startswith("socket:"))


async def get(server: Server, path: str) -> Answer:
    """Send a GET."""
    return await ask(server.port, "GET", path)


async def get_json(server: Server, path: str) -> Any:
    """Send a GET, and return what the answer means, whatever its status is."""
    return orjson.loads((await get(server, path)).body)


async def get_problems(server: Server) -> list[str]:
    """Ask a server why it is not ready; the list is empty if and only if the status is 200."""
    answer = await get(server, "/api/health/ready")
    problems: list[str] = orjson.loads(answer.body)["problems"]
    assert answer.status == (503 if problems else 200)
    return problems


async def post(server: Server, path: str, body: bytes) -> Answer:
    """Send a POST."""
    return await ask(server.port, "POST", path, body=body)


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """Return what was logged at a level or above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def write_config(directory: Path, **sections: Any) -> Path:
    """Write a configuration file with sections as they stand in it."""
    path = directory / "config.json"
    path.write_text(json.dumps(sections))
    return path
