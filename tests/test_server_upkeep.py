"""The periodic jobs: retention, with and without somebody who knows the running jobs, and the memory cap."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from quart import Response, request
from service_tools import (
    NOW,
    Server,
    fill,
    jump,
    later,
    lines,
    logged,
    make_config,
    running,
    stored,
    wait_until,
    with_store,
)
from serving import make_app, served
from trio.testing import MockClock

from ccstore.config import Config
from ccstore.errors import ProtocolError
from ccstore.server import upkeep
from ccstore.server.http import route
from ccstore.server.services import Services, UsedNodes, make_services
from ccstore.server.used_nodes import TIMEOUT, decode_used_nodes, open_provider

pytestmark = pytest.mark.timeout(60)

HOUR = 3600
RETENTION = 2 * HOUR


def retained(**main: Any) -> Config:
    """A configuration that keeps samples for two hours, so that a pass comes every hour."""
    return with_store(make_config(**main), retention_in_memory=float(RETENTION))


@asynccontextmanager
async def kept(config: Config, used_nodes: UsedNodes | None = None) -> AsyncIterator[Services]:
    """Run the periodic jobs alone, on a store that nobody else uses."""
    services = make_services(config, now=later, used_nodes=used_nodes)
    async with trio.open_nursery() as nursery:
        upkeep.start(nursery, services)
        yield services
        nursery.cancel_scope.cancel()


# Retention


async def test_what_is_too_old_goes(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A minute after the start and every half of the retention a pass frees and removes what is too old."""
    caplog.set_level(logging.INFO, "ccstore.upkeep")
    async with kept(retained()) as services:
        await fill(services, lines(["h1", "h2"], cluster="birch"))
        await trio.sleep(61)
        assert services.jobs["retention"].runs == 1
        await trio.sleep(HOUR)
        await fill(services, lines(["h2", "h3"], cluster="birch", time=NOW + HOUR))
        await trio.sleep(HOUR)
        assert services.jobs["retention"].runs == 3
        assert services.freed_chunks == 0
        await trio.sleep(HOUR)
        assert services.freed_chunks == 1
        assert stored(services, stop=NOW + 2 * HOUR) == {("birch", "h2"): [2, 2], ("birch", "h3"): [3]}
        assert services.store.statistics().hosts == 2
        assert len(services.keys) == 2
    cutoff = NOW + HOUR + 60
    assert logged(caplog, logging.INFO)[-1] == f"retention: 1 chunks before {cutoff} freed on 3 hosts"


async def test_without_a_retention_everything_stays(autojump_clock: MockClock) -> None:
    """A retention of 0 and no cap: there is nothing to do, and no job."""
    async with kept(with_store(make_config(), retention_in_memory=0.0)) as services:
        assert services.jobs == {}


async def test_a_long_retention_is_looked_after_every_hour(autojump_clock: MockClock) -> None:
    """Half of two days would let memory grow by half: a pass comes at least once an hour."""
    async with kept(with_store(make_config(), retention_in_memory=48.0 * HOUR)) as services:
        await trio.sleep(10 * HOUR + 1)
        assert services.jobs["retention"].runs == 10


async def test_a_job_that_fails_is_counted_and_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception costs one pass: the next one does the work, and the counters tell."""
    asked = []

    async def used_nodes(before: int) -> Mapping[str, Sequence[str]]:
        asked.append(before)
        if len(asked) < 4:
            raise RuntimeError("odd")
        return {}

    async with kept(retained(), used_nodes) as services:
        await fill(services, lines(["h1"], cluster="birch"))
        await trio.sleep(3 * HOUR + 1)
        job = services.jobs["retention"]
        assert (job.runs, job.failures, job.last_error) == (3, 3, "RuntimeError: odd")
        assert services.freed_chunks == 0
        await trio.sleep(HOUR)
        assert (job.runs, job.failures, job.last_error) == (4, 3, "")
        assert services.freed_chunks == 1
    assert asked == [NOW + 60 + hour * HOUR - RETENTION for hour in range(4)]
    assert logged(caplog) == ["retention: failed, tried again after the next interval: RuntimeError: odd"] * 3
    assert all(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


# A backend that knows the running jobs


@define
class Backend:
    """What a backend answers, and what it was asked."""

    port: int = 0
    status: int = 200
    body: str = "{}"
    hangs: bool = False
    asked: list[tuple[str, str | None]] = field(factory=list)

    async def answer(self) -> Response:
        self.asked.append((request.args["ts"], request.headers.get("Authorization")))
        if self.hangs:
            await trio.sleep_forever()
        return Response(self.body, self.status, content_type="application/json")


@asynccontextmanager
async def open_backend() -> AsyncIterator[Backend]:
    """Run a backend on loopback."""
    backend, app = Backend(), make_app()
    route(app, "/api/jobs/used_nodes", methods=["GET"], permission=None)(backend.answer)
    async with served(app, graceful_timeout=0) as port:
        backend.port = port
        yield backend


@asynccontextmanager
async def with_backend(backend: Backend, clock: MockClock, *, age: int = 0) -> AsyncIterator[Server]:
    """Run a server that asks the backend, with samples of two hosts of an age (s), and let an hour pass."""
    config = retained(backend_url=f"http://127.0.0.1:{backend.port}/", backend_token="secret")
    async with running(config, now=later) as server:
        await fill(server.services, lines(["h1", "h2"], cluster="birch", time=NOW - age))
        await next_pass(server, clock)
        yield server


async def next_pass(server: Server, clock: MockClock) -> None:
    """Let an hour pass, and wait for what the retention does then."""
    job = server.services.jobs["retention"]
    runs = job.runs
    await jump(clock, HOUR)
    await wait_until(lambda: job.runs > runs)


async def test_hosts_with_running_jobs_keep_their_samples(mock_clock: MockClock) -> None:
    """The backend is asked, with a token, for older jobs; once they are gone, so is the data."""
    async with open_backend() as backend:
        backend.body = '{"usedNodes": {"birch": ["h1", "h9"], "oak": ["h2"]}}'
        async with with_backend(backend, mock_clock) as server:
            await next_pass(server, mock_clock)
            await next_pass(server, mock_clock)
            assert stored(server.services) == {("birch", "h1"): [1]}
            assert server.services.excluded_hosts == 1
            backend.body = "{}"
            await next_pass(server, mock_clock)
            assert stored(server.services) == {}
            assert server.services.excluded_hosts == 0
            assert server.services.store.statistics().clusters == 0
    assert backend.asked == [(str(NOW + hour * HOUR - RETENTION), "Bearer secret") for hour in range(1, 5)]


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"body": "<html>"}, {"body": '{"birch": "h1"}'}, {"hangs": True}],
    ids=["500", "html", "shape", "silent"],
)
async def test_the_last_answer_counts_for_one_retention(
    fault: dict[str, Any], mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When the backend fails, its last answer protects for two more hours, and then nothing does."""
    async with open_backend() as backend:
        backend.body = '{"birch": ["h1"]}'
        async with with_backend(backend, mock_clock) as server:
            await next_pass(server, mock_clock)
            for key, value in fault.items():
                setattr(backend, key, value)
            job, kept = server.services.jobs["retention"], []
            for hour in (3, 4):
                await jump(mock_clock, HOUR)
                await wait_until(lambda hour=hour: len(backend.asked) == hour)  # type: ignore[misc]
                if backend.hangs:
                    await jump(mock_clock, TIMEOUT)
                await wait_until(lambda hour=hour: job.runs == hour)  # type: ignore[misc]
                kept.append(stored(server.services))
            assert kept == [{("birch", "h1"): [1]}, {}]
            assert job.failures == 0
    assert ["the last answer goes on to count" in line for line in logged(caplog, logging.ERROR)] == [
        True,
        False,
    ]
    assert logged(caplog, logging.ERROR)[1].endswith("no host is protected")


async def test_nothing_is_freed_before_the_first_answer(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that was down at the start may know jobs; after one retention without a word nobody waits."""
    async with open_backend() as backend:
        backend.status = 500
        async with with_backend(backend, mock_clock, age=2 * HOUR) as server:
            assert len(stored(server.services, start=NOW - 3 * HOUR)) == 2
            assert logged(caplog, logging.ERROR)[-1].endswith("; every host may be one")
            await next_pass(server, mock_clock)
            assert stored(server.services, start=NOW - 3 * HOUR) == {}
            assert logged(caplog, logging.ERROR)[-1].endswith("; no host is protected")


async def test_a_stop_does_not_wait_for_the_backend(mock_clock: MockClock) -> None:
    """A question that is not answered is given up when the server stops, though no time passes."""
    async with open_backend() as backend:
        backend.hangs = True
        config = retained(backend_url=f"http://127.0.0.1:{backend.port}")
        async with running(config, now=later):
            await jump(mock_clock, HOUR)
            await wait_until(lambda: backend.asked)
        assert trio.current_time() == HOUR


@pytest.mark.parametrize(
    ("body", "hosts"),
    [
        (b'{"usedNodes": {"a": ["h1", "h2", "h1"], "b": []}}', {"a": {"h1", "h2"}, "b": set()}),
        (b'{"a": ["h1"]}', {"a": {"h1"}}),
        (b'{"usedNodes": {}}', {}),
        (b"{}", {}),
    ],
)
def test_answers_of_a_backend(body: bytes, hosts: dict[str, set[str]]) -> None:
    """The wrapped form and the bare one mean the same (D-44)."""
    assert decode_used_nodes(body) == hosts


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'{"a": {}}', b'{"a": [1]}', b'{"usedNodes": null}'])
def test_answers_that_are_none(body: bytes) -> None:
    """Anything else is refused as a whole."""
    with pytest.raises(ProtocolError, match=r"^used nodes: "):
        decode_used_nodes(body)


async def test_without_a_retention_the_last_answer_counts_on(mock_clock: MockClock) -> None:
    """Where only the memory cap frees, hosts that were busy once come last for ever."""
    async with open_backend() as backend:
        backend.body = '{"birch": ["h1"]}'
        config = with_store(
            make_config(backend_url=f"http://127.0.0.1:{backend.port}"), retention_in_memory=0.0
        )
        ask = open_provider(config)
        assert ask is not None
        assert await ask(NOW) == {"birch": {"h1"}}
        backend.status = 500
        await jump(mock_clock, 1000 * HOUR)
        assert await ask(NOW) == {"birch": {"h1"}}
    assert open_provider(make_config()) is None


# Free requests


@pytest.mark.parametrize(
    ("selectors", "gone"),
    [
        ([()], {"h1", "h2", "h3"}),
        ([("birch",)], {"h1", "h2"}),
        ([("birch", "h1"), ("oak", "h3"), ("oak", "h3")], {"h1", "h3"}),
        ([("birch", "nobody"), ("nowhere",)], set()),
        ([], set()),
    ],
    ids=["all", "a cluster", "hosts, one twice", "unknown ones", "none"],
)
async def test_free_below_a_path(selectors: list[tuple[str, ...]], gone: set[str]) -> None:
    """A path stands for everything below it; one that does not exist for nothing, and is not made (D-38)."""
    services = make_services(make_config(), now=lambda: NOW)
    await fill(services, lines(["h1", "h2"], cluster="birch") + lines(["h3"], cluster="oak"))
    assert await upkeep.free_selectors(services, selectors, NOW + HOUR) == len(gone)
    assert {host for _, host in stored(services)} == {"h1", "h2", "h3"} - gone
    assert services.store.statistics().hosts == 3 - len(gone)
    assert services.freed_chunks == len(gone)
