"""When the first checkpoint after a start comes: as if the server had run on."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve
from disk_directories import write_checkpoint, write_log, write_reference, write_segment
from service_tools import NOW, jump, make_config, running, wait_until, with_store
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.config import Config
from ccstore.disk import layout
from ccstore.disk.files import OsDisk
from ccstore.model import Aggregation, Metric
from ccstore.server import upkeep
from ccstore.server.services import make_services

HOUR = 3600
KEY = (("c", "h1"), "load", NOW - 600)


def config_for(directory: Path, form: str) -> Config:
    """Return a configuration with a checkpoint every hour."""
    config = evolve(make_config(), metrics={"load": Metric("load", 60, Aggregation.NONE)})
    checkpoints = evolve(config.metric_store.checkpoints, directory=str(directory), file_format=form)
    return with_store(config, checkpoints=checkpoints, checkpoint_interval=float(HOUR))


async def first_checkpoint(config: Config) -> float:
    """Recover a directory; return after how many seconds the first checkpoint comes."""
    durability = make_services(config, now=lambda: NOW, disk=OsDisk()).durability
    assert durability is not None
    await durability.recover()
    return upkeep.first_checkpoint(durability, NOW, config.metric_store.checkpoint_interval)


def fill_columnar(directory: Path, age: float) -> None:
    """Write a checkpoint of a round that ended so many seconds ago."""
    write_checkpoint(directory, 1, [{KEY: 1.0}])
    layout.write_covered(OsDisk(), directory, 2)
    os.utime(directory / "columnar" / "covered", (NOW - age, NOW - age))


def fill_reference(directory: Path, age: float) -> None:
    """Write checkpoints, the newest of them so many seconds ago."""
    for number in (1, 2):
        (path,) = write_reference(directory, NOW - 900 * number, {KEY: 1.0})
        os.utime(path, (NOW - age * number, NOW - age * number))


@pytest.mark.parametrize(
    ("age", "wanted"),
    [(0, HOUR), (1000, HOUR - 1000), (HOUR - 30, 60), (10**6, 60), (-(10**6), HOUR)],
    ids=["now", "a-while", "nearly-due", "long-due", "in-the-future"],
)
@pytest.mark.parametrize(
    ("form", "fill"), [("columnar", fill_columnar), ("wal", fill_reference)], ids=["columnar", "wal"]
)
async def test_the_interval_goes_on(
    tmp_path: Path, form: str, fill: Callable[[Path, float], None], age: float, wanted: float
) -> None:
    """A server that is restarted often has its checkpoints at the interval: files tell the last one's age."""
    fill(tmp_path, age)
    assert await first_checkpoint(config_for(tmp_path, form)) == wanted


@pytest.mark.parametrize(
    "fill",
    [
        partial(write_segment, number=3, commits=[[(KEY, 2.0)]]),
        partial(write_log, samples=[(KEY, 2.0)]),
        partial(write_checkpoint, number=3, blocks=[{KEY: 2.0}]),
    ],
    ids=["log", "log-of-the-reference", "incomplete-round"],
)
async def test_what_no_round_has_is_in_one_soon(tmp_path: Path, fill: Callable[[Path], object]) -> None:
    """After a crash, a change of the format, or without any complete round, it takes a minute."""
    fill(tmp_path)
    assert await first_checkpoint(config_for(tmp_path, "columnar")) == 60


async def test_a_new_directory_has_its_first_checkpoint_after_an_interval(tmp_path: Path) -> None:
    """There is nothing yet that would have to be saved."""
    assert await first_checkpoint(config_for(tmp_path, "columnar")) == HOUR


async def test_the_server_does_so(tmp_path: Path, mock_clock: MockClock) -> None:
    """A round that is due is written after a minute, and the next one an interval later."""
    fill_columnar(tmp_path, age=2 * HOUR)
    async with running(config_for(tmp_path, "columnar")) as server:
        await wait_until(lambda: "checkpoint" in server.services.jobs)
        job = server.services.jobs["checkpoint"]
        for runs, wait in enumerate((60, HOUR)):
            await jump(mock_clock, wait - 1)
            await wait_all_tasks_blocked(0.001)
            assert job.runs == runs
            await jump(mock_clock, 1)
            await wait_until(lambda runs=runs: job.runs == runs + 1)
