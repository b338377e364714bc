"""A change of the format: what was written in the one before goes, when all of it is in the new one."""

import errno
import os
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import evolve
from disk_directories import START, Key, read_all, write_checkpoint, write_log, write_reference, write_segment
from disk_memory import MemoryDisk
from disk_reference_reader import read_directory
from durable import START as DURABLE_START
from durable import Journal, contents, make_server, recovered, schedule_by_seed
from durable import running as durable_running
from durable_life import live
from service_tools import lines, logged, make_config, post, running, with_store
from test_server_wal import point
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.config import Config
from ccstore.disk import layout
from ccstore.disk.files import OsDisk
from ccstore.disk.leftover import Leftover
from ccstore.model import Aggregation, Metric

LOAD = {"load": Metric("load", 60, Aggregation.NONE), "cpu_load": Metric("cpu_load", 60, Aggregation.AVG)}
KEY = (("c", "h1"), "load")


def config_for(directory: Path, form: str) -> Config:
    """Return a configuration with a directory and a format."""
    config = evolve(make_config(), metrics=LOAD)
    checkpoints = evolve(config.metric_store.checkpoints, directory=str(directory), file_format=form)
    return with_store(config, checkpoints=checkpoints)


async def run_once(config: Config) -> None:
    """Run a server from its start to a soft stop; it is sent a line meanwhile."""
    async with running(config, now=lambda: START + 600) as server:
        line = b"load,cluster=c,hostname=h2 value=5 %d\n" % (START + 300)
        assert (await post(server, "/api/write", line)).status == 200


def fill_columnar(directory: Path, **other: float) -> None:
    """Write checkpoints, a log and what tells how far it is covered."""
    metrics = {(("c", "h1"), name, START): value for name, value in other.items()}
    write_checkpoint(directory, 1, [{(*KEY, START): 1.0} | metrics])
    write_checkpoint(directory, 2, [{(*KEY, START + 60): 2.0}], shard=3)
    write_segment(directory, 3, [[((*KEY, START + 120), 3.0)]])
    (directory / "columnar" / "covered").write_bytes(b"nothing that is right")


def fill_reference(directory: Path, **other: float) -> None:
    """Write checkpoints of both kinds, and a log."""
    metrics = {(("c", "h1"), name, START): value for name, value in other.items()}
    write_reference(directory, START, {(*KEY, START): 1.0} | metrics, stop=START + 1)
    write_reference(directory, START + 30, {(*KEY, START + 60): 2.0}, ".json", stop=START + 61)
    write_log(directory, [((*KEY, START + 120), 3.0)])


WANTED = {(*KEY, START + 60 * k): k + 1.0 for k in range(3)} | {(("c", "h2"), "load", START + 300): 5.0}


def names(directory: Path) -> set[str]:
    """Return all files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def read_as_reference(directory: Path) -> Mapping[Key, float]:
    """Return what a reader that refuses whatever the reference store refuses finds in a directory."""
    disk = MemoryDisk()
    for path in directory.rglob("*"):
        if path.is_file():
            disk.put(path, path.read_bytes())
    return read_directory(disk, directory)


@pytest.mark.parametrize("form", ["wal", "json"])
async def test_from_columnar_to_the_reference(tmp_path: Path, form: str) -> None:
    """After one clean stop there are only names that the reference knows, and everything is in them."""
    directory = tmp_path / "files"
    fill_columnar(directory)
    (directory / "columnar" / "0" / "9.ckpt.tmp").write_bytes(b"")
    await run_once(config_for(directory, form))
    suffix = ".json" if form == "json" else ".bin"
    assert {path.suffix for path in directory.rglob("*") if path.is_file()} == {suffix}
    assert sorted(path.name for path in directory.iterdir()) == ["c"]
    assert read_as_reference(directory) == WANTED
    assert names(tmp_path) == {f"files/{name}" for name in names(directory)}


async def test_a_directory_of_the_reference_is_taken_over_and_given_back(tmp_path: Path) -> None:
    """Run on in its own format, and stopped: its own names alone, whatever it had had (D-67)."""
    directory = tmp_path / "files"
    fill_reference(directory)
    for _ in range(2):
        await run_once(config_for(directory, "wal"))
        assert {Path(name).suffix for name in names(directory)} == {".bin", ".json"}
        assert read_as_reference(directory) == WANTED


async def test_from_the_reference_to_columnar(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its files are gone after the first complete round, so that no log is read at every start."""
    directory = tmp_path / "files"
    fill_reference(directory)
    async with running(config_for(directory, "columnar"), now=lambda: START + 600) as server:
        assert (await post(server, "/api/write?cluster=c", lines(["h2"], time=START))).status == 200
        assert {path.name for path in directory.iterdir()} == {"c", "columnar"}
        assert (await post(server, "/api/checkpoint", b"")).status == 200
        assert {path.name for path in directory.iterdir()} == {"columnar"}
    assert read_all(directory).items() >= {key: WANTED[key] for key in WANTED if key[0][1] == "h1"}.items()
    assert "checkpoints: 3 files of another format removed" in logged(caplog)


@pytest.mark.parametrize("form", ["wal", "columnar"])
async def test_what_was_not_taken_over_is_set_aside(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Values of a metric that is not configured any more are in the old files alone, which are moved."""
    directory = tmp_path / "files"
    (tmp_path / "files.replaced").mkdir()  # of another time
    fill = fill_columnar if form == "wal" else fill_reference
    fill(directory, power=7.0)
    before = names(directory)
    await run_once(config_for(directory, form))
    assert read_all(directory) == WANTED
    note = {"columnar/superseded"} if form == "wal" else set()  # they were the older ones
    assert names(tmp_path / "files.replaced.1") == before | note
    assert {path.name for path in directory.iterdir()} == {"c" if form == "wal" else "columnar"}
    assert logged(caplog)[-1].endswith(f"are in {tmp_path / 'files.replaced.1'} now")


async def test_a_file_of_somebody_else_is_left(tmp_path: Path) -> None:
    """In a host's directory it stays where it is; a columnar directory is out of the way with it."""
    for form, fill in (("wal", fill_columnar), ("columnar", fill_reference)):
        directory = tmp_path / form
        fill(directory)
        note = directory / ("columnar/0" if form == "wal" else "c/h1") / "notes.txt"
        note.write_text("mine")
        await run_once(config_for(directory, form))
        moved = tmp_path / "wal.replaced" / "columnar" / "0" / "notes.txt"
        assert (moved if form == "wal" else note).read_text() == "mine"
        assert read_all(directory) == WANTED


async def test_files_that_cannot_go_are_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error costs nothing: they stay, and the next round tries again."""

    class Stubborn(OsDisk):
        failures = 1

        def remove(self, path: Path) -> None:
            if self.failures and path.name == "current.wal":
                self.failures -= 1
                raise OSError("stubborn")
            super().remove(path)

    directory = tmp_path / "files"
    fill_reference(directory)
    async with running(config_for(directory, "columnar"), now=lambda: START + 600) as server:
        assert (await post(server, "/api/write?cluster=c", lines(["h2"], time=START))).status == 200
        durability = server.services.durability
        assert durability is not None
        assert durability.checkpoints.leftover is not None
        durability.checkpoints.leftover = evolve(durability.checkpoints.leftover, disk=Stubborn())
        assert (await post(server, "/api/checkpoint", b"")).status == 200
        assert logged(caplog)[-1] == "checkpoints: files of another format stay: stubborn"
        assert [path.name for path in (directory / "c" / "h1").iterdir()] == ["current.wal"]
        assert (await post(server, "/api/checkpoint", b"")).status == 200
        assert {path.name for path in directory.iterdir()} == {"columnar"}


CHANGES = [
    ("columnar", "wal", "columnar"),
    ("wal", "columnar", "json"),
    ("columnar", "wal", "columnar", "json", "wal", "columnar", "columnar", "wal"),
]


@pytest.mark.parametrize("kinds", CHANGES, ids="-".join)
async def test_changed_again_before_a_round_was_complete(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock, kinds: Sequence[str]
) -> None:
    """Each server is killed with a newer value of the same slot in its log alone: the newest one counts."""
    schedule_by_seed(monkeypatch, 0)
    disk, journal = MemoryDisk(), Journal()
    for value, kind in enumerate(kinds):
        server = await make_server(disk, kind=kind, journal=journal)
        assert contents(server.store) == journal.latest()
        async with durable_running(server):
            assert await server.keep(point(value))
            if value == 0:
                await server.checkpoints.save_all()
            disk = disk.after_kill() if value % 2 else disk.after_power_cut(random.Random(value))
    assert contents((await recovered(disk, kind=kinds[0]))[0]) == journal.latest()


async def test_changed_again_while_the_disk_fails(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is stored until one format is the newer one, and it is tried again until it is."""
    schedule_by_seed(monkeypatch, 0)
    disk, server = MemoryDisk(), None
    for value, kind in enumerate(("columnar", "wal", "columnar")):
        server = await make_server(disk, kind=kind)
        if value < 2:
            async with durable_running(server):
                assert await server.keep(point(value))
                disk = disk.after_kill()
    assert server is not None
    disk.before = full = Full()
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            async with durable_running(server):
                assert await server.keep(point(2))

        nursery.start_soon(work)
        for attempts in range(1, 4):
            await wait_all_tasks_blocked()
            assert (full.hits > 0, server.store.statistics().series) == (True, 1)
            assert "change of the format" in logged(caplog)[-1]
            assert layout.is_superseded(disk, server.directory)
            full.hits, full.is_full = 0, attempts < 3
            mock_clock.jump(10)
    assert not layout.is_superseded(disk, server.directory)
    assert contents((await recovered(disk))[0]) == {(("c", "h0"), "load", DURABLE_START): 2.0}


class Full:
    """A disk without room."""

    def __init__(self) -> None:
        self.is_full, self.hits = True, 0

    def __call__(self, _number: int, name: str, path: Path) -> None:
        if self.is_full and name == "write":
            self.hits += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_nothing_to_do(tmp_path: Path) -> None:
    """Where there are no other files nothing is made, removed or moved."""
    for by_hosts in (True, False):
        for is_whole in (True, False):
            assert Leftover(OsDisk(), tmp_path / "files", by_hosts, is_whole).clear() == (0, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_crashes_around_a_change(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Power cuts and kills at any operation of servers that each have another format: nothing is lost."""
    caplog.set_level("CRITICAL", "ccstore")
    chance = schedule_by_seed(monkeypatch, seed)
    run = partial(live, kinds=["columnar", "wal", "json"], actions=10, share=0.3)
    assert run(seed, [chance.choice([1, 3]) for _ in range(4)]).checked > 40
