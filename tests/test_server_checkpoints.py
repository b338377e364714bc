"""Checkpoints while everything goes on."""

import errno
import os
import random
from functools import partial

import pytest
import trio
from disk_memory import Gate, MemoryDisk
from durable import (
    DIRECTORY,
    START,
    Points,
    Server,
    contents,
    make_server,
    recovered,
    running,
    schedule_by_seed,
)
from test_server_wal import point

from ccstore.disk import layout, writing
from ccstore.disk.checkpoint import CheckpointReader
from ccstore.disk.hosts import hosts_of
from ccstore.memory import saving
from ccstore.server.checkpoints import Backoff


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level("CRITICAL", "ccstore")


@pytest.fixture
async def server(monkeypatch, autojump_clock):
    """Return a running server of two shards on a disk in memory."""
    schedule_by_seed(monkeypatch, 0)
    server = await make_server(MemoryDisk(), shards=2)
    async with running(server):
        yield server


def files(server: Server, *, segments: bool) -> list[int]:
    """Return the numbers of segments or checkpoints."""
    return [file.number for file in layout.find_files(server.disk, DIRECTORY) if file.is_segment == segments]


async def without_log(disk: MemoryDisk) -> dict:
    """Return what checkpoints alone have."""
    left = disk.after_kill()
    for path in [path for path in left.names if path.suffix == ".log"]:
        left.remove(path)
    return contents((await recovered(left))[0])


async def test_only_what_is_new_is_written(server):
    """A round holds what came since the last one, late samples too, and nothing twice."""
    checkpoints = server.checkpoints
    await server.keep([*point(1, step=0), *point(2, step=1), *point(3, step=2)])
    await checkpoints.save_all()
    assert (checkpoints.files, checkpoints.slots) == (1, 3)
    await checkpoints.save_all()
    assert (checkpoints.files, checkpoints.slots) == (1, 3)
    await server.keep(point(4, step=1))  # late: from there on
    await checkpoints.save_all()
    assert (checkpoints.files, checkpoints.slots) == (2, 5)
    await server.keep(point(5, host="h9", step=7))
    await checkpoints.save_all()
    assert (checkpoints.files, checkpoints.slots) == (3, 6)
    assert checkpoints.bytes == sum(
        file.size for file in layout.find_files(server.disk, DIRECTORY) if not file.is_segment
    )
    assert await without_log(server.disk) == server.journal.latest()


async def test_progress_grows_from_host_to_host(server, monkeypatch):
    """While a round is under way its share of the hosts grows to one; afterwards nothing is under way."""
    monkeypatch.setattr(saving, "_SLOTS_AT_ONCE", 1)  # a host at a time
    monkeypatch.setattr(writing, "_BLOCK_VALUES", 1)
    checkpoints, seen = server.checkpoints, []
    await server.keep([one for n in range(20) for one in point(n, host=f"h{n}")])
    server.disk.before = lambda *_: seen.append(checkpoints.progress)
    await checkpoints.save_all()
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert len(set(seen)) > 10
    assert seen[-1] == 1 == checkpoints.progress


async def test_segments_go_when_the_next_round_is_complete(server):
    """What the last round covers stays for a round, in case one of its checkpoints is damaged."""
    points = Points(random.Random(0))
    covered = []
    for _ in range(4):
        await server.keep(points.some(30))
        await server.checkpoints.save_all()
        covered.append(layout.read_covered(server.disk, DIRECTORY))
        left = files(server, segments=True)
        assert left
        assert all(number >= ([0, *covered])[-2] for number in left)
        assert all(number < covered[-1] for number in left)
    assert covered == sorted(set(covered))
    assert server.checkpoints.removed > 0


async def test_a_segment_that_cannot_be_removed(server):
    """It takes room until the next round, and is no reason to fail."""

    def fail(_number: int, name: str, path) -> None:
        if name == "remove":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    server.disk.before = fail
    for step in range(4):
        await server.keep(point(step, step=step))
        await server.checkpoints.save_all()
    assert len(files(server, segments=True)) == 4
    server.disk.before = lambda *_: None
    await server.checkpoints.save_all()
    assert files(server, segments=True) == []
    assert await without_log(server.disk) == server.journal.latest()


async def test_rounds_follow_one_another(server):
    """Who asks for a round while one runs gets the next one; both are complete."""
    points = Points(random.Random(0))
    await server.keep(points.some(30))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(server.checkpoints.save_all)
            nursery.start_soon(server.keep, points.some(30))
    await server.checkpoints.save_all()
    assert await without_log(server.disk) == server.journal.latest()


async def test_samples_go_on_while_a_checkpoint_is_written():
    """A disk that is busy with a checkpoint holds no sample and no acknowledgement up."""
    disk, gate = MemoryDisk(), Gate()
    disk.before = lambda number, name, path: gate(number, name, path) if ".ckpt" in path.name else None
    server = await make_server(disk, shards=2)
    points = Points(random.Random(0))
    async with running(server) as nursery:
        assert await server.keep(points.some(30))
        await nursery.start(server.save_all)
        await gate.reached(1)
        for _ in range(20):
            assert await server.keep(points.some(30))
        assert server.checkpoints.files == 0
        gate.open()
    assert server.checkpoints.files > 0
    assert contents((await recovered(disk))[0]) == server.journal.latest()


@pytest.mark.parametrize("seed", range(40))
def test_hosts_that_vanish_while_a_checkpoint_is_written(monkeypatch, seed):
    """A host is removed behind the cut, and its place is given to others: nothing is lost."""
    schedule_by_seed(monkeypatch, seed)

    async def main() -> None:
        disk = MemoryDisk()
        server = await make_server(disk, shards=3)
        chance, step = random.Random(seed), 0
        async with running(server) as nursery:
            for _ in range(6):
                step += 1
                names = [f"h{chance.randrange(40)}" for _ in range(12)]
                await server.keep(
                    [point(step * 100 + n, host=name, step=step)[0] for n, name in enumerate(names)]
                )
                await nursery.start(server.save_all)
                for _ in range(chance.randrange(6)):
                    await trio.lowlevel.checkpoint()
                for name in names[:6]:
                    server.free(("c", name))
                step += 1
                fresh = [
                    (("c", f"n{chance.randrange(40)}", "core0", "mem1"), "load", START + 10 * step)
                    for _ in range(12)
                ]
                await server.keep([(key, float(step * 100 + n)) for n, key in enumerate(fresh)])
                left = disk.after_power_cut(chance)
                assert server.journal.problems(contents((await recovered(left))[0])) == []
        await server.checkpoints.save_all()
        left = await without_log(disk)
        assert left.items() >= contents(server.store).items()
        assert server.journal.problems(left) == []

    trio.run(main)


async def test_old_checkpoints_are_removed(server):
    """A checkpoint goes when all it has is older than a time; what is newer stays."""
    for step in (0, 1000, 2000):
        await server.keep(point(step, step=step))
        await server.checkpoints.save_all()
    before = files(server, segments=False)
    await server.checkpoints.remove_older(START + 10_000 - 5)
    assert files(server, segments=False) == before[1:]
    assert sorted((await without_log(server.disk)).values()) == [1000, 2000]


async def test_checkpoints_of_used_hosts_stay(server):
    """A file stays as long as one of the hosts in it is used, and goes when none is any more."""
    for step, host in enumerate(("h1", "h2", "h1")):
        await server.keep([*point(step, step=step, host=host), *point(9, step=step, host="h3")])
        await server.checkpoints.save_all()
    first, second, third = sorted(files_of_hosts(server))
    remove = partial(server.checkpoints.remove_older, START + 10_000)
    await remove({("c", "h2"), ("other", "h1")})
    assert files_of_hosts(server) == [second]
    await remove({("c", "h2")})
    assert files_of_hosts(server) == [second]
    await remove({("c", "h1")})
    assert files(server, segments=False) == []
    assert first < second < third


def files_of_hosts(server: Server) -> list[int]:
    """Return the numbers of checkpoints that hold one of the hosts h1 and h2."""
    named = {}
    for file in layout.find_files(server.disk, DIRECTORY):
        if not file.is_segment:
            blocks = CheckpointReader(server.disk.map(file.path))
            named[file.number] = set().union(*(hosts_of(names) for names, _ in blocks))
    return [number for number, hosts in named.items() if hosts & {("c", "h1"), ("c", "h2")}]


async def test_backing_off(server):
    """Attempts to end trouble come less and less often, and soon again once it has ended."""
    backoff = Backoff(server.wal)
    assert [backoff(), backoff()] == [1, 1]
    server.wal.shards[1].trouble = "full"
    assert [backoff() for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    server.wal.shards[1].trouble = ""
    assert [backoff(), backoff()] == [1, 1]
