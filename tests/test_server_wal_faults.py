"""A disk that fails: memory goes on, nothing is acknowledged that is not durable, and all is in the end."""

import errno
import itertools
import os
import random
from collections.abc import Iterator

import attrs
import pytest
import trio
from disk_memory import Gate, MemoryDisk
from durable import START, Points, Server, contents, make_server, recovered, running, schedule_by_seed
from test_server_wal import point
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.server.wal import NotDurableError

ERRORS = (errno.ENOSPC, errno.EIO, errno.EMFILE)
STEP = 1 if "CCSTORE_LIVES" in os.environ else 7


@pytest.fixture(autouse=True)
def _no_log(caplog):
    caplog.set_level("CRITICAL", "ccstore")


@attrs.define
class Fault:
    """Lets operations from the n-th on fail, so many of them."""

    first: int
    count: int
    error: int
    hits: int = 0
    base: int = 0
    """Operations before they are counted."""

    def __call__(self, number: int, name: str, path: object) -> None:
        """Fail, if it is time."""
        if self.first <= number - self.base < self.first + self.count:
            self.hits += 1
            raise OSError(self.error, os.strerror(self.error), str(path))


async def work(server: Server, points: Points) -> None:
    """Do a little of everything, whatever the disk does; whoever is refused is told why."""
    for round_ in range(3):
        for _ in range(2):
            is_kept = await server.keep(points.some())
            assert is_kept or server.wal.troubles
        await server.append(points.some())
        try:
            await server.checkpoints.save_all()
        except* OSError:
            assert round_ >= 0
        await server.keep(points.some())


async def be_well_again(server: Server) -> None:
    """With the disk back, one attempt makes everything durable."""
    await server.checkpoints.end_trouble()
    assert server.wal.troubles == []
    assert await server.keep([])
    reached = [shard.appended for shard in server.wal.shards]
    await server.wal.durable(reached)
    assert server.waiting == 0
    server.journal.acknowledge(
        [number for number, (what, _) in enumerate(server.journal.events) if what == "append"]
    )


class OpeningDisk(MemoryDisk):
    """A disk on which reading and listing are operations that can fail, too."""

    def list(self, path):
        """Open a directory."""
        self.operate("list", path)
        return super().list(path)

    def map(self, path):
        """Open a file; `read` does so as well."""
        self.operate("map", path)
        return super().map(path)


def live_with_faults(fault: Fault, shards: int, make_disk: type[MemoryDisk] = MemoryDisk) -> None:
    """Let a disk fail in the middle of the work, and look at what is left."""

    async def main() -> None:
        disk, points = make_disk(), Points(random.Random(shards))
        server = await make_server(disk, shards=shards)
        fault.base, disk.before = disk.operations, fault
        async with running(server):
            await work(server, points)
            assert contents(server.store) == server.journal.latest()
            fault.count = 0  # the disk is back
            await be_well_again(server)
            await check(server, disk.after_power_cut(random.Random(fault.first)))
            await server.keep(points.some())
            await server.checkpoints.save_all()
            await server.keep(points.some())
        assert disk.misuse == []
        await check(server, disk.after_power_cut(random.Random(fault.first)))
        assert [path for path in disk.names if path.suffix == ".tmp"] == []

    trio.run(main, clock=MockClock(autojump_threshold=0.0))


async def check(server: Server, left: MemoryDisk) -> None:
    """Check what is recovered after a power cut."""
    store, report, _ = await recovered(left)
    assert server.journal.problems(contents(store)) == []
    assert [text for text in report.damage if ".ckpt" in text] == []


@pytest.mark.parametrize("shards", [1, 3])
def test_the_nth_operation_fails(monkeypatch, shards):
    """Whichever operation fails, once: what was acknowledged is kept, and one checkpoint makes all well."""
    for first in itertools.count(1):
        schedule_by_seed(monkeypatch, first)
        fault = Fault(first, 1, ERRORS[first % len(ERRORS)])
        live_with_faults(fault, shards)
        if not fault.hits:
            break
    assert first > 40


def test_too_many_open_files(monkeypatch):
    """Whatever opens a file or lists a directory fails once, or as often as nobody closes others."""
    for count in (1, 4):
        for first in itertools.count(1):
            schedule_by_seed(monkeypatch, first)
            fault = Fault(first, count, errno.EMFILE)
            live_with_faults(fault, 2, OpeningDisk)
            if not fault.hits:
                break
        assert first > 60


@pytest.mark.parametrize("shards", [1, 3])
def test_the_disk_fails_for_a_while(monkeypatch, shards):
    """The same for disks that fail from any operation on for several, or until somebody mends them."""
    for count in (2, 5, 20, 10**9):
        for first in itertools.count(1 + count % STEP, STEP):
            schedule_by_seed(monkeypatch, first)
            fault = Fault(first, count, errno.ENOSPC)
            live_with_faults(fault, shards)
            if not fault.hits:
                break


@pytest.fixture
async def broken(monkeypatch, mock_clock) -> Iterator[tuple[Server, MemoryDisk]]:
    """Return a server of one shard, whose disk had one good commit and fails since then."""
    schedule_by_seed(monkeypatch, 0)
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        assert await server.keep(point(1))
        disk.before = Fault(0, 10**9, errno.EIO)
        assert not await server.keep(point(2, step=1))
        yield server, disk


async def test_trouble_is_told(broken):
    """Whoever waits is refused with the reason, now and later, and the log says so."""
    server, _ = broken
    assert server.wal.troubles == [
        "log: shard 0: [Errno 5] Input/output error: '/data/columnar/0/0000000001.log'"
    ]
    for step in (2, 3):
        _, reached = await server.append(point(step, step=step))
        with pytest.raises(
            NotDurableError, match=r"not on disk \(\[Errno 5\] Input/output error.*\); in memory it is"
        ):
            await server.wal.durable(reached)
    assert server.waiting == 3
    assert server.wal.shards[0].failures == 1


async def test_a_value_that_the_log_misses_outlives_the_one_it_has(broken):
    """The log has an old value of a slot and misses the new one: the checkpoint wins."""
    server, disk = broken
    await server.append(point(3))  # the slot of the good commit
    disk.before = Fault(0, 0, 0)
    await server.checkpoints.end_trouble()
    assert server.waiting == 0
    assert contents((await recovered(disk))[0]) == server.journal.latest()


async def test_a_checkpoint_counts_when_recovery_knows_of_it(broken):
    """Whenever the power fails while trouble ends: what is durable by then has its newest value."""
    server, disk = broken
    await server.append(point(3))  # the slot of the good commit
    left: list[tuple[int, MemoryDisk]] = []
    chance = random.Random(0)

    def look(_number: int, _name: str, _path: object) -> None:
        left.append((server.wal.shards[0].durable, disk.after_power_cut(chance)))

    disk.before = look
    await server.checkpoints.end_trouble()
    await server.keep(point(4, step=5))
    assert {durable for durable, _ in left} == {1, 3}
    for durable, crashed in left:
        crashed.before = Fault(0, 0, 0)
        found = contents((await recovered(crashed))[0])
        if durable == 3:
            assert server.journal.cut(4).latest().items() <= found.items()


async def test_a_gap_in_the_log_behind_a_checkpoint(monkeypatch, mock_clock):
    """A checkpoint had a newer value than the broken log behind it, and the next one has nothing new."""
    schedule_by_seed(monkeypatch, 0)
    disk = MemoryDisk()
    server = await make_server(disk)
    async with running(server):
        await server.keep(point(1, host="h0"))
        checkpoints = server.checkpoints
        add, store = type(checkpoints).__dict__["_hosts"], server.store

        def hosts(shard):
            yield from add(checkpoints, shard)

        # behind the cut, before the copy: one value that the log has, and one that it misses
        cut = server.wal.cut

        async def cut_and_append(shard):
            made = await cut(shard)
            assert await server.keep(point(2))
            disk.before = lambda _number, name, path: fail(path)
            assert not await server.keep(point(3))
            return made

        def fail(path) -> None:
            if path.suffix == ".log":
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        monkeypatch.setattr(server.wal, "cut", cut_and_append)
        await checkpoints.save_all()
        monkeypatch.setattr(server.wal, "cut", cut)
        assert server.wal.troubles
        disk.before = Fault(0, 0, 0)
        await checkpoints.end_trouble()
        assert server.waiting == 0
    assert contents((await recovered(disk))[0]) == contents(store)


async def test_new_samples_in_trouble_are_durable_with_the_next_checkpoint(broken):
    """A checkpoint that fails takes nothing away from the next one, and the file in between is no excuse."""
    server, disk = broken
    disk.before = lambda _number, _name, path: _fail_checkpoints(path)
    with pytest.raises(ExceptionGroup, match="checkpoints: some failed"):
        await server.checkpoints.end_trouble()
    assert not await server.keep(point(3, step=2))  # the log is whole again, but for the gap before
    await wait_all_tasks_blocked()
    assert server.wal.shards[0].written == 3
    assert server.waiting == 2
    disk.before = Fault(0, 0, 0)
    await server.checkpoints.end_trouble()
    assert server.waiting == 0
    assert await server.keep(point(4, step=3))
    assert contents((await recovered(disk))[0]) == server.journal.latest()


def _fail_checkpoints(path) -> None:
    if ".ckpt" in path.name:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


async def test_one_shard_that_fails_holds_no_other(monkeypatch, mock_clock):
    """A shard whose checkpoints fail again and again: the others have theirs, and its log goes on."""
    schedule_by_seed(monkeypatch, 0)
    disk = MemoryDisk()
    server = await make_server(disk, shards=3)
    points = Points(random.Random(1), hosts=12)

    def fail(_number: int, _name: str, path) -> None:
        if path.parent.name == "1":
            _fail_checkpoints(path)

    disk.before = fail
    async with running(server):
        for _ in range(3):
            assert await server.keep(points.some(40) + [point(0, host=f"h{host}")[0] for host in range(12)])
            with pytest.raises(ExceptionGroup) as raised:
                await server.checkpoints.save_all()
            assert len(raised.value.exceptions) == 1
        assert {path.parent.name for path in disk.names if path.suffix == ".ckpt"} == {"0", "2"}
        assert (
            contents((await recovered(disk.after_power_cut(random.Random(0))))[0]) == server.journal.latest()
        )
        disk.before = Fault(0, 0, 0)
        await server.checkpoints.save_all()
        for path in [path for path in disk.names if path.suffix == ".log"]:
            disk.remove(path)
        assert contents((await recovered(disk))[0]) == server.journal.latest()


async def test_a_failing_sync_refuses_all_who_wait():
    """Whoever waits when a sync fails is refused at once, and those who come behind it."""
    gate, disk = Gate(), MemoryDisk()

    def fail(number: int, name: str, path) -> None:
        gate(number, name, path)
        if name == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    disk.before = fail
    server = await make_server(disk)
    results: list[bool] = []

    async def keep(step: int) -> None:
        results.append(await server.keep([((("c", "h0"), "load", START + 10 * step), 1.0)]))

    async with running(server) as nursery:
        nursery.start_soon(keep, 0)
        await gate.reached(1)
        for step in range(1, 9):
            nursery.start_soon(keep, step)
        await wait_all_tasks_blocked()
        gate.open()
    assert results == [False] * 9
    assert (disk.misuse, server.wal.shards[0].durable) == ([], 0)


async def test_nothing_is_tried_again_on_a_file_that_failed(broken):
    """A file that failed is not touched any more, whatever comes."""
    server, disk = broken
    before = disk.operations
    for step in range(5):
        assert not await server.keep(point(step, step=step))
        await wait_all_tasks_blocked()
    assert disk.operations == before
