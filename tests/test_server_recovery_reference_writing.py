"""A server in the reference's formats: what its disk has while it runs, fails and stops."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from disk_memory import MemoryDisk
from disk_reference import log_of, snapshot_bytes
from disk_reference_reader import read_directory
from durable import DIRECTORY, START, Points, Server, contents, make_server, recovered, running
from reference_host import HOST, disk_of, key, load

KINDS = ["json", "wal"]


@pytest.fixture(autouse=True)
def _no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "ccstore")


async def stop(server: Server) -> None:
    """Stop as the service does: the writers have ended, and the last checkpoint is written."""
    await server.checkpoints.save_all()


async def live(server: Server, seed: int, *, rounds: int = 3) -> None:
    """Append points, some late, with checkpoints in between, and stop."""
    points = Points(random.Random(seed))
    async with running(server):
        for _ in range(rounds):
            for _ in range(12):
                await server.keep(points.some())
            await server.checkpoints.save_all()
        await server.keep(points.some())
    await stop(server)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [1, 3])
async def test_a_clean_stop(kind: str, shards: int) -> None:
    """It leaves only names that the reference knows, and what it reads there is what memory has."""
    for seed in range(10):
        server = await make_server(disk := MemoryDisk(), kind=kind, shards=shards)
        await live(server, seed)
        assert not any(path.suffix == ".wal" for path in disk.names)
        assert read_directory(disk, DIRECTORY) == contents(server.store) == server.journal.latest()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_directory_is_taken_over(kind: str) -> None:
    """What the reference left, run on and stopped, again and again, is what it could go on with."""
    disk = disk_of(
        _1000_bin=snapshot_bytes(evolve(load(1, 2, start=START - 30), start=1000)),
        current_wal=log_of([((), "load", START - 10, 3.0)]),
    )
    expected = {key(START - 30): 1, key(START - 20): 2, key(START - 10): 3}
    for seed in range(5):
        server = await make_server(disk, kind=kind)
        await live(server, seed, rounds=1)
        expected |= server.journal.latest()
        assert contents(server.store) == expected
        assert read_directory(disk, DIRECTORY) == expected


async def test_a_stop_that_is_cut_short() -> None:
    """The synced log alone is enough, and it has the name under which the reference looks for it."""
    server = await make_server(disk := MemoryDisk(), kind="wal")
    async with running(server):
        await server.keep([(key(START), 1.0)])
    assert disk.list(HOST) == ["current.wal"]
    assert read_directory(disk, DIRECTORY) == {key(START): 1}


async def test_a_large_log_is_saved_early() -> None:
    """A host whose log has the configured size gets its shard a checkpoint; nothing is lost."""
    server = await make_server(disk := MemoryDisk(), kind="wal", max_wal_bytes=100)
    async with running(server):
        await server.keep([(key(START), 1.0)])
        await server.checkpoints.end_trouble()
        assert disk.list(HOST) == ["current.wal"]
        await server.keep([(key(START + 10 * step), 1.0) for step in range(1, 4)])
        await server.checkpoints.end_trouble()
        (name,) = disk.list(HOST)
        assert name.endswith(".bin")
        await server.checkpoints.end_trouble()
        assert server.checkpoints.files == 1
    assert read_directory(disk, DIRECTORY) == contents(server.store)


def refuse(host: str, suffix: str) -> Callable[[int, str, Path], None]:
    """Let nothing be written to some files of a host."""

    def before(number: int, name: str, path: Path) -> None:
        if path.parent.name == host and suffix in path.name and name == "create":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    return before


async def test_a_host_that_fails_again_and_again() -> None:
    """Its log stays and it is tried again; the others get their checkpoints and their logs go."""
    server = await make_server(disk := MemoryDisk(), kind="wal")
    async with running(server):
        disk.before = refuse("h1", ".bin")
        for step in range(4):
            points = [((("c", f"h{host}"), "load", START + 10 * step), float(step)) for host in range(3)]
            assert await server.keep(points)
            with pytest.raises(ExceptionGroup) as caught:
                await server.checkpoints.save_all()
            assert [type(error) for error in caught.value.exceptions] == [PermissionError]
        assert all(
            not name.endswith(".wal") for host in ("h0", "h2") for name in disk.list(DIRECTORY / "c" / host)
        )
        assert len(disk.list(DIRECTORY / "c" / "h1")) == 4
        assert contents((await recovered(disk.after_power_cut(random.Random(1)), kind="wal"))[0]) == contents(
            server.store
        )
        disk.before = refuse("none", "")
        await server.checkpoints.save_all()
    assert read_directory(disk, DIRECTORY) == contents(server.store) == server.journal.latest()


async def test_every_operation_fails_once() -> None:
    """A disk that is full for a moment costs no acknowledged sample, and all is durable afterwards."""
    failed, number = True, 0
    while failed:
        number += 1
        failed = await _fail_at(number)
    assert number > 50


async def _fail_at(wanted: int) -> bool:
    """Run a short life in which one operation fails; tell whether there were so many."""
    failed = False

    def before(number: int, name: str, path: Path) -> None:
        nonlocal failed
        if number == wanted:
            failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    disk = MemoryDisk(before=before)
    server = await make_server(disk, kind="wal")
    points = Points(random.Random(1), hosts=2)
    async with running(server):
        for _ in range(3):
            for _ in range(3):
                await server.keep(points.some())
            try:
                await server.checkpoints.save_all()
            except ExceptionGroup:
                await server.checkpoints.end_trouble()
        kept = await server.keep(points.some())
        await server.checkpoints.end_trouble()
        assert server.wal.troubles == []
        assert kept or await server.keep(points.some())
    assert (disk.misuse, server.waiting) == ([], 0)
    left = disk.after_power_cut(random.Random(wanted))
    store, _, _ = await recovered(left, kind="wal")
    assert server.journal.problems(contents(store)) == []
    try:
        await stop(server)
    except ExceptionGroup:
        store, _, _ = await recovered(disk.after_power_cut(random.Random(wanted)), kind="wal")
        assert server.journal.problems(contents(store)) == []
    else:
        assert read_directory(disk, DIRECTORY) == server.journal.latest()
    return failed


async def test_a_gap_in_a_log_ends_when_all_hosts_have_a_checkpoint() -> None:
    """What the log did not take is durable when checkpoints hold it, and not as long as one host has none."""
    server = await make_server(disk := MemoryDisk(), kind="wal")
    points = [((("c", f"h{host}"), "load", START), 1.0) for host in range(2)]

    def fail(number: int, name: str, path: Path) -> None:
        if name == "sync" and path.name == "current.wal":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    async with running(server):
        disk.before = fail
        assert not await server.keep(points)
        disk.before = refuse("h1", ".bin")
        with pytest.raises(ExceptionGroup):
            await server.checkpoints.end_trouble()
        assert (len(server.wal.troubles), server.waiting) == (1, 2)
        disk.before = refuse("none", "")
        await server.checkpoints.end_trouble()
        assert (server.wal.troubles, server.waiting) == ([], 0)
    assert read_directory(disk, DIRECTORY) == contents(server.store)
