"""The memory cap: relief step by step, what shows when nothing is left to free, and how it recovers."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from service_tools import (
    NOW,
    fill,
    get,
    get_json,
    get_problems,
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
from trio.testing import MockClock

from ccstore.memory.layout import CHUNK, ROW_SLOTS
from ccstore.server import upkeep
from ccstore.server.services import Services, UsedNodes, make_services

pytestmark = pytest.mark.timeout(60)

HOUR = 3600
AGES = (90, 60, 40, 10)
"""Hours; each sample has a chunk of its own, for they are more than 512 slots apart."""
GROUP = 10
PER_CHUNK = CHUNK.itemsize + ROW_SLOTS * 4


async def busy(before: int) -> Mapping[str, Sequence[str]]:
    """Tell that jobs run on half of the hosts."""
    return {"birch": [f"b{n}" for n in range(GROUP)]}


@asynccontextmanager
async def crowded(chunks: int, used_nodes: UsedNodes = busy) -> AsyncIterator[Services]:
    """Yield services whose cap is exceeded until so many chunks are freed."""
    config = with_store(make_config(), retention_in_memory=100.0 * HOUR, memory_cap_bytes=10**9)
    services = make_services(config, now=later, used_nodes=used_nodes)
    hosts = [f"{kind}{n}" for kind in "ib" for n in range(GROUP)]
    for age in AGES:
        await fill(services, lines(hosts, cluster="birch", time=NOW - age * HOUR))
    used = services.store.statistics().bytes_used + services.keys.bytes_used
    services.config = with_store(config, memory_cap_bytes=used - chunks * PER_CHUNK)
    yield services


def left(services: Services) -> tuple[int, int]:
    """Return how many samples are left of idle and of busy hosts."""
    values = stored(services, start=NOW - 100 * HOUR)
    counts = {kind: sum(len(v) for (_, host), v in values.items() if host[0] == kind) for kind in "ib"}
    return counts["i"], counts["b"]


@pytest.mark.parametrize(
    ("chunks", "idle", "still_busy"),
    [
        (0, 40, 40),
        (1, 30, 40),
        (10, 30, 40),
        (11, 20, 40),
        (30, 10, 40),
        (31, 10, 30),
        (50, 10, 20),
        (60, 10, 10),
    ],
)
async def test_relief_goes_step_by_step(
    chunks: int, idle: int, still_busy: int, caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    """Over the cap, 75, 50, 25 % of the retention are left to idle hosts, then to busy ones, as needed."""
    async with crowded(chunks) as services:
        await upkeep.check_memory(services)
        assert left(services) == (idle, still_busy)
        assert not services.over_cap
        assert services.problems() == []
        freed = 80 - idle - still_busy
        assert services.freed_chunks == freed
        assert len(logged(caplog)) == freed // 10
        if freed:
            assert logged(caplog)[0] == (
                f"memory: over the cap: 10 chunks ({10 * PER_CHUNK} bytes) freed on 10 hosts "
                "without running jobs, down to 75 % of the retention"
            )


async def test_over_the_cap_with_nothing_to_free(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    """Readiness and the log say so, and both recover when there is less."""
    async with crowded(61) as services:
        await upkeep.check_memory(services)
        assert left(services) == (10, 10)
        assert services.over_cap
        assert services.problems() == ["memory: over the cap, and nothing is left to free"]
        assert logged(caplog, logging.ERROR)[0].startswith("memory: ")
        assert await upkeep.free_selectors(services, [("birch", "i0"), ("birch", "nobody")], NOW) == 1
        await upkeep.check_memory(services)
        assert services.problems() == []


async def test_memory_is_checked_more_often_near_the_cap(autojump_clock: MockClock) -> None:
    """Every 5 minutes below 80 % of the cap, every 30 seconds above."""
    async with crowded(0) as services, trio.open_nursery() as nursery:
        upkeep.start(nursery, services)
        await trio.sleep(61)
        assert services.jobs["memory"].runs == 2
        services.config = with_store(services.config, memory_cap_bytes=10**9)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        upkeep.start(nursery, services)
        await trio.sleep(901)
        assert services.jobs["memory"].runs == 3
        nursery.cancel_scope.cancel()


async def test_the_cap_of_a_running_server_shows(mock_clock: MockClock) -> None:
    """/api/health/ready and /metrics tell that the cap is exceeded for good, and later that it is not."""
    async with running(with_store(make_config(), memory_cap_bytes=1), now=later) as server:
        await fill(server.services, lines(["h1"], cluster="birch"))
        job = server.services.jobs["memory"]
        await jump(mock_clock, 300)
        await wait_until(lambda: job.runs == 1)
        assert await get_problems(server) == ["memory: over the cap, and nothing is left to free"]
        assert b"\nccstore_over_cap 1.0\n" in (await get(server, "/metrics")).body
        server.services.config = with_store(server.services.config, memory_cap_bytes=10**9)
        await jump(mock_clock, 30)
        await wait_until(lambda: job.runs == 2)
        assert await get_problems(server) == []
        assert (await get_json(server, "/api/stats"))["over_cap"] is False
