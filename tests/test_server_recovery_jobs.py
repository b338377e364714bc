"""The samples of a running job that is older than the retention are back after a restart."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
import trio
from attrs import evolve
from disk_columnar import make_names, make_runs
from service_tools import NOW, Server, lines, make_config, post, running, stored, with_store

from ccstore.config import Config
from ccstore.disk.hosts import pick_hosts
from ccstore.server import upkeep
from ccstore.server.services import Services

HOUR = 3600
FORMATS = ["columnar", "wal", "json"]


class Jobs:
    """Who knows the running jobs, or does not."""

    def __init__(self) -> None:
        self.used: Mapping[str, Collection[str]] | None = {}
        self.asked: list[int] = []

    async def __call__(self, before: int) -> Mapping[str, Collection[str]] | None:
        self.asked.append(before)
        return self.used

    def put_into(self, services: Services) -> None:
        services.used_nodes = self


def config_for(directory: Path, form: str) -> Config:
    """Return a configuration that keeps two hours."""
    config = with_store(make_config(), retention_in_memory=2.0 * HOUR, checkpoint_interval=2.0 * HOUR)
    checkpoints = evolve(config.metric_store.checkpoints, directory=str(directory), file_format=form)
    return with_store(config, checkpoints=checkpoints)


async def write(server: Server, *hosts: str, time: int) -> None:
    """Store a value of each host."""
    assert (await post(server, "/api/write?cluster=c", lines(hosts, time=time))).status == 200


def kept(server: Server) -> dict[str, list[float]]:
    """Return what memory has, by host."""
    found = stored(server.services, start=NOW - HOUR, stop=NOW + 10 * HOUR)
    return {host: values for (_, host), values in found.items() if values}


@pytest.mark.parametrize("form", FORMATS)
async def test_the_past_of_a_running_job_survives_restarts(tmp_path: Path, form: str) -> None:
    """As long as the job runs its host has everything after each start; afterwards it goes (D-135)."""
    config, jobs = config_for(tmp_path / "files", form), Jobs()
    jobs.used = {"c": ["h1", "h9"], "other": ["h2"]}
    for start in range(3):
        time = NOW + 3 * start * HOUR
        async with running(config, jobs.put_into, now=lambda time=time: time) as server:
            await write(server, "h1", "h2", time=time)  # waits for recovery
            assert kept(server) == {"h1": [1] * (start + 1), "h2": [2]}
            await upkeep.free_old(server.services)
    assert jobs.asked[-1] == time - 2 * HOUR
    jobs.used = {}
    async with running(config, jobs.put_into, now=lambda: time + 3 * HOUR) as server:
        await write(server, "h3", time=time + 3 * HOUR)
        assert kept(server) == {"h3": [3]}
        await upkeep.free_old(server.services)
    jobs.used = {"c": ["h1"]}
    async with running(config, jobs.put_into, now=lambda: time + 3 * HOUR) as server:
        await write(server, "h4", time=time + 3 * HOUR)
        assert kept(server) == {"h3": [3], "h4": [4]}


@pytest.mark.parametrize("form", FORMATS)
async def test_nobody_knows_at_the_start(tmp_path: Path, form: str) -> None:
    """Then the retention alone is loaded, and nothing is removed: the next start can have it."""
    config, jobs = config_for(tmp_path / "files", form), Jobs()
    async with running(config, jobs.put_into) as server:
        await write(server, "h1", "h2", time=NOW)
    jobs.used = None
    async with running(config, jobs.put_into, now=lambda: NOW + 3 * HOUR) as server:
        await write(server, "h3", time=NOW + 3 * HOUR)
        assert kept(server) == {"h3": [3]}
        await upkeep.free_old(server.services)
    jobs.used = {"c": ["h1"]}
    async with running(config, jobs.put_into, now=lambda: NOW + 3 * HOUR) as server:
        await write(server, "h4", time=NOW + 3 * HOUR)
        assert kept(server) == {"h1": [1], "h3": [3], "h4": [4]}


async def test_a_stop_does_not_wait_for_the_answer(tmp_path: Path, mock_clock: object) -> None:
    """A server that is stopped while it asks ends at once."""
    config, jobs = config_for(tmp_path / "files", "columnar"), Jobs()
    async with running(config, jobs.put_into) as server:
        await write(server, "h1", time=NOW)
    asked = trio.Event()

    async def never_answer(_before: int) -> None:
        asked.set()
        await trio.sleep_forever()

    def put_into(services: Services) -> None:
        services.used_nodes = never_answer

    async with running(config, put_into) as server:
        await asked.wait()
        server.stop.set()
    assert trio.current_time() == 0


def test_the_series_of_some_hosts() -> None:
    """Names and runs of others are gone, and the numbers are those of the new names."""
    places = [(-1, "c"), (0, "h1"), (1, "core0"), (0, "h2"), (-1, "d"), (4, "h1"), (3, "core1")]
    names = make_names(places, [("load", 10), ("power", 60)], [(1, 0), (2, 1), (3, 0), (5, 0), (6, 1)])
    runs = make_runs([(k, 1000 + k, k, [float(k)] * (k + 1)) for k in (4, 0, 2, 1, 3)])
    picked, left = pick_hosts(names, runs, {("c", "h2"), ("d", "none")})
    assert (picked.parents.tolist(), picked.place_names) == ([-1, 0, 1], ["c", "h2", "core1"])
    assert (picked.series_places.tolist(), picked.series_metrics.tolist()) == ([1, 2], [0, 1])
    assert (left.numbers.tolist(), left.starts.tolist(), left.firsts.tolist()) == (
        [1, 0],
        [1004, 1002],
        [4, 2],
    )
    assert np.array_equal(left.values, [4.0] * 5 + [2.0] * 3)
    nothing, none = pick_hosts(names, runs, {("d", "h2")})
    assert (nothing.place_names, len(nothing.series_places), len(none.values)) == ([], 0, 0)
