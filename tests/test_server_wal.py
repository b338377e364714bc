"""The log while the disk works: group commit, delays, room, order."""

import random

import pytest
import trio
from disk_memory import Gate, MemoryDisk
from durable import (
    START,
    Journal,
    Points,
    Server,
    contents,
    make_server,
    recovered,
    running,
    schedule_by_seed,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.errors import BusyError
from ccstore.server import wal
from ccstore.server.wal import CAPACITY, PATIENCE

NEVER = 1e9
"""Seconds; a delay that no test waits for."""


def point(value: float, *, host: str = "h0", step: int = 0):
    """Return one point."""
    return [((("c", host), "load", START + 10 * step), value)]


def totals(server: Server) -> tuple[int, int]:
    """Return how many samples were appended and are durable."""
    return sum(shard.appended for shard in server.wal.shards), sum(
        shard.durable for shard in server.wal.shards
    )


async def test_one_sync_for_all_who_wait():
    """Whoever comes while a sync runs joins the next one, and that is one for all of them."""
    disk = MemoryDisk(before=(gate := Gate()))
    server = await make_server(disk, max_delay=NEVER)
    async with running(server) as nursery:
        nursery.start_soon(server.keep, point(0))
        await gate.reached(1)  # at once, as somebody waits
        for step in range(1, 31):
            nursery.start_soon(server.keep, point(step, step=step))
        await wait_all_tasks_blocked()
        assert (gate.arrived, totals(server)) == (1, (31, 0))
        gate.open()
    assert gate.arrived == 2
    assert totals(server) == (31, 31)
    assert server.wal.shards[0].commits == 2


async def test_all_shards_sync_at_the_same_time():
    """Who waits for several shards waits for the slowest one, not for their sum."""
    disk = MemoryDisk(before=(gate := Gate()))
    server = await make_server(disk, shards=3, max_delay=NEVER)
    hosts = [point(0, host=f"h{number}")[0] for number in range(30)]
    async with running(server) as nursery:
        nursery.start_soon(server.keep, hosts)
        await gate.reached(3)
        assert all(shard.appended for shard in server.wal.shards)
        gate.open()
    assert totals(server) == (30, 30)


async def test_what_is_much_does_not_wait_for_the_delay(monkeypatch, autojump_clock):
    """Without anybody who waits, a commit starts as soon as there is enough for a good frame."""
    schedule_by_seed(monkeypatch, 0)
    monkeypatch.setattr(wal, "_ENOUGH", 3)
    server = await make_server(MemoryDisk(), max_delay=NEVER)
    async with running(server):
        for appended, durable in ((1, 0), (2, 0), (3, 3), (4, 3), (5, 3), (6, 6)):
            await server.append(point(appended, step=appended))
            await wait_all_tasks_blocked()
            assert totals(server) == (appended, durable)
        await server.append([point(step, step=step)[0] for step in range(7, 11)])  # all at once
        await wait_all_tasks_blocked()
        assert totals(server) == (10, 10)
    assert server.wal.shards[0].commits == 3


async def test_what_nobody_waits_for_is_on_disk_after_the_delay(monkeypatch, autojump_clock):
    """Without anybody who waits, a commit starts when the delay is over, and not before."""
    schedule_by_seed(monkeypatch, 0)
    server = await make_server(MemoryDisk(), max_delay=0.1)
    async with running(server):
        for step in range(3):
            await server.append(point(step, step=step))
            await trio.sleep(0.03)
        assert totals(server) == (3, 0)
        await trio.sleep(0.03)
        assert totals(server) == (3, 3)
        assert server.wal.shards[0].commits == 1


async def test_room_ends_the_delay(monkeypatch, mock_clock):
    """Senders that find the channel full do not wait for the delay, whoever waits for the disk."""
    schedule_by_seed(monkeypatch, 0)
    server = await make_server(MemoryDisk(), max_delay=NEVER)
    async with running(server):
        for step in range(5 * CAPACITY):
            await server.append(point(step, step=step))
        assert trio.current_time() == 0
        assert totals(server)[1] >= 3 * CAPACITY


async def test_a_full_channel_delays_and_then_refuses(mock_clock):
    """Where the disk takes nothing, senders wait for room, and are told to come back; nothing is lost."""
    disk = MemoryDisk(before=(gate := Gate()))
    server = await make_server(disk)
    async with running(server) as nursery:
        nursery.start_soon(server.keep, point(0))
        await gate.reached(1)
        for step in range(1, CAPACITY + 1):
            await server.append(point(step, step=step))
        refused = trio.Event()

        async def wait_for_room() -> None:
            with pytest.raises(BusyError, match="no room for 10 s"):
                await server.append(point(-1))
            refused.set()

        nursery.start_soon(wait_for_room)
        await wait_all_tasks_blocked()
        mock_clock.jump(PATIENCE - 0.1)
        await wait_all_tasks_blocked()
        assert not refused.is_set()
        mock_clock.jump(0.1)
        await refused.wait()
        gate.open()
        await server.append(point(CAPACITY + 1, step=CAPACITY + 1))
    assert totals(server) == (CAPACITY + 2, CAPACITY + 2)
    assert contents((await recovered(disk))[0]) == server.journal.latest()


async def test_room_comes_when_the_disk_goes_on():
    """A sender that waits for room goes on as soon as there is some."""
    disk = MemoryDisk(before=(gate := Gate()))
    server = await make_server(disk)
    async with running(server) as nursery:
        nursery.start_soon(server.keep, point(0))
        await gate.reached(1)
        async with trio.open_nursery() as senders:
            for step in range(1, CAPACITY + 10):
                senders.start_soon(server.keep, point(step, step=step))
            await wait_all_tasks_blocked()
            assert totals(server) == (CAPACITY + 1, 0)
            gate.open()
    assert totals(server) == (CAPACITY + 10, CAPACITY + 10)


async def test_a_slow_sync_holds_only_those_who_wait_for_it():
    """While a sync takes its time, samples come into memory and are read; they are not acknowledged."""
    disk = MemoryDisk(before=(gate := Gate()))
    server = await make_server(disk)
    async with running(server) as nursery:
        nursery.start_soon(server.keep, point(1))
        await gate.reached(1)
        for step in range(1, 20):
            await server.append(point(step, step=step))
        assert contents(server.store) == server.journal.latest()
        assert server.waiting == 20
        assert [event for event in server.journal.events if event[0] == "acknowledge"] == []
        gate.open()
    assert ("acknowledge", (0,)) in server.journal.events
    assert server.waiting == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_later_append_wins(monkeypatch, seed):
    """Many tasks write the same few slots: what memory has in the end is what is recovered."""
    chance = schedule_by_seed(monkeypatch, seed)
    journal, points = Journal(), Points(random.Random(seed), hosts=3)

    async def send(server: Server) -> None:
        for _ in range(8):
            await server.append(points.some())
            for _ in range(chance.randrange(4)):
                await trio.lowlevel.checkpoint()

    async def main() -> None:
        disk = MemoryDisk()
        server = await make_server(disk, shards=2, journal=journal)
        async with running(server), trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send, server)
            await server.wal.cut(server.wal.shards[0])
        store, report, _ = await recovered(disk)
        assert contents(store) == contents(server.store) == journal.latest()
        assert (report.damage, report.refused, report.unknown) == ([], 0, 0)

    trio.run(main, clock=MockClock(autojump_threshold=0.0))


async def test_the_last_holder_closes_the_log():
    """When nobody holds the log, writers write what waits, and end."""
    disk = MemoryDisk()
    server = await make_server(disk, max_delay=NEVER)
    async with trio.open_nursery() as nursery:
        with server.wal.held(), server.wal.held():
            nursery.start_soon(server.wal.write, server.wal.shards[0])
            await server.append(point(1))
    assert totals(server) == (1, 1)


async def test_the_counters_of_a_commit(monkeypatch, mock_clock):
    """Bytes, commits and the longest commit are counted."""
    disk = MemoryDisk(before=lambda _number, name, _path: mock_clock.jump(3) if name == "sync" else None)
    schedule_by_seed(monkeypatch, 0)
    server = await make_server(disk)
    async with running(server):
        await server.keep(point(1))
        await server.keep(point(2, step=1))
    shard = server.wal.shards[0]
    assert (shard.commits, shard.longest_commit, shard.failures) == (2, 3.0, 0)
    assert shard.bytes == sum(len(inode.data) for inode in disk.names.values())
