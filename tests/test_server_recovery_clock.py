"""A wall clock that steps, or has not moved since the last start: only the retention depends on it."""

from pathlib import Path

import pytest
from attrs import evolve
from service_tools import NOW, Server, lines, make_config, post, running, stored, with_store

from ccstore.config import Config

HOUR, DAY = 3600, 86400
FORMATS = ["columnar", "wal", "json"]
STEPS = {"an hour": HOUR, "a day": DAY, "none": 0}


def config_for(directory: Path, form: str) -> Config:
    """Return a configuration with a directory and a format."""
    config = make_config()
    checkpoints = evolve(config.metric_store.checkpoints, directory=str(directory), file_format=form)
    return with_store(config, checkpoints=checkpoints)


async def write(server: Server, host: str, time: int) -> None:
    """Store a value; it is on disk then."""
    assert (await post(server, "/api/write?cluster=c", lines([host], time=time))).status == 200


def hosts(server: Server) -> set[str]:
    """Return the hosts with a value."""
    found = stored(server.services, start=NOW - 2 * DAY, stop=NOW + 2 * DAY)
    return {host for (_, host), values in found.items() if values}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("step", STEPS)
async def test_starts_at_any_time(tmp_path: Path, form: str, step: str) -> None:
    """Starts after steps both ways, or within one second: each has what all before it stored (D-132)."""
    config, written = config_for(tmp_path / "files", form), set[str]()
    for number, sign in enumerate((0, -1, 1, 0), 1):
        time = NOW + sign * STEPS[step]
        async with running(config, now=lambda time=time: time) as server:
            await write(server, f"h{number}", time)
            written.add(f"h{number}")
            assert hosts(server) == written


@pytest.mark.parametrize("form", FORMATS)
async def test_steps_while_it_runs(tmp_path: Path, form: str) -> None:
    """Checkpoints and the log go on whatever the clock does between them, and both ways at once."""
    config, clock, written = config_for(tmp_path / "files", form), [NOW], set[str]()
    async with running(config, now=lambda: clock[0]) as server:
        for number, step in enumerate((0, HOUR, -HOUR, DAY, -DAY, 0), 1):
            clock[0] = NOW + step
            await write(server, f"h{number}", clock[0])
            written.add(f"h{number}")
            assert (await post(server, "/api/checkpoint", b"")).status == 200
            await write(server, f"h{number}", clock[0] + 60)
    clock[0] = NOW
    async with running(config, now=lambda: clock[0]) as server:
        await write(server, "h9", NOW)
        assert hosts(server) == written | {"h9"}
        assert server.services.durability is not None
        assert not server.services.durability.recovery.unclean
