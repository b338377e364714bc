"""Cancellation at every step of the log and of checkpoints: nothing that was put is lost, and nobody hangs.

Thousands of schedules with ``CCSTORE_FUZZ_EXAMPLES=5000``.
"""

import itertools
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import define, field
from disk_memory import MemoryDisk
from durable import Points, Server, contents, make_server, recovered, running, schedule_by_seed
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_server_wal import NEVER, point, totals
from trio.testing import MockClock

from ccstore.memory.saving import count_unsaved


@define(eq=False)
class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope behind the n-th step that any task does once it is armed."""

    step: int
    steps: int = 0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    armed: bool = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and cancel if it is time."""
        if self.armed:
            self.steps += 1
            if self.steps == self.step:
                self.scope.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether it was time."""
        return self.steps >= self.step


async def only_checkpoints(disk: MemoryDisk) -> dict:
    """Return what is recovered without the log."""
    left = disk.after_power_cut(random.Random(0))
    for path in [path for path in left.names if path.suffix == ".log"]:
        left.remove(path)
    return contents((await recovered(left))[0])


async def check(server: Server, disk: MemoryDisk) -> None:
    """Check that all that was put is on disk."""
    assert server.waiting == 0
    left = disk.after_power_cut(random.Random(0))
    assert contents((await recovered(left))[0]) == contents(server.store) == server.journal.latest()
    assert disk.misuse == []


async def work(server: Server, points: Points) -> None:
    """Append, wait and checkpoint, in several tasks."""

    async def send() -> None:
        for _ in range(3):
            await server.keep(points.some())
            await server.append(points.some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(send)
        await server.append(points.some())
        nursery.start_soon(server.checkpoints.save_all)
        await server.checkpoints.save_all()
        await server.keep(points.some())


def run(
    seed: int,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[CancelAtStep, Server, MemoryDisk, Points], Awaitable[None]],
    shards: int = 2,
) -> bool:
    """Run something with a cancellation at a step; tell whether it was cancelled."""
    schedule_by_seed(monkeypatch, seed)
    at_step = CancelAtStep(step)

    async def start() -> None:
        disk = MemoryDisk()
        server = await make_server(disk, shards=shards)
        with trio.fail_after(NEVER / 2):
            await main(at_step, server, disk, Points(random.Random(seed)))

    trio.run(start, clock=MockClock(autojump_threshold=0.0), instruments=[at_step])
    return at_step.cancelled


async def cancel_everything(at_step: CancelAtStep, server: Server, disk: MemoryDisk, points: Points) -> None:
    """Cancel writers, senders and checkpoints all at once, as when a grace is over."""
    with at_step.scope:
        at_step.armed = True
        async with running(server):
            await work(server, points)
    at_step.armed = False
    await check(server, disk)
    for shard in server.wal.shards:
        assert shard.receive.statistics().current_buffer_used == 0
    # whatever is marked as saved is in a checkpoint
    saved = await only_checkpoints(disk)
    hosts = [place for _, _, place in server.store.index.hosts()]
    if not any(count_unsaved(server.store, place)[0] for place in hosts):
        assert saved == server.journal.latest()


async def cancel_checkpoints(at_step: CancelAtStep, server: Server, disk: MemoryDisk, points: Points) -> None:
    """Cancel a round of checkpoints; the next one has all of it."""
    async with running(server):
        for _ in range(4):
            await server.keep(points.some())
        await server.checkpoints.save_all()
        for _ in range(4):
            await server.keep(points.some())
        with at_step.scope:
            at_step.armed = True
            await server.checkpoints.save_all()
        at_step.armed = False
        assert [path for path in disk.names if path.name.endswith(".ckpt.tmp")] == []
        await server.keep(points.some())
        await server.checkpoints.save_all()
        assert await only_checkpoints(disk) == server.journal.latest()
        await server.keep(points.some())
    await check(server, disk)
    assert [path for path in disk.names if path.suffix == ".tmp"] == []


async def cancel_senders(at_step: CancelAtStep, server: Server, disk: MemoryDisk, points: Points) -> None:
    """Cancel those who wait for room and for the disk; the others go on."""
    async with running(server) as nursery:
        with at_step.scope:
            at_step.armed = True
            async with trio.open_nursery() as senders:
                for _ in range(3):
                    senders.start_soon(server.keep, points.some())
                    nursery.start_soon(server.keep, points.some())
                await server.keep(points.some())
        at_step.armed = False
        assert await server.keep(points.some())
    await check(server, disk)


async def cancel_cut(at_step: CancelAtStep, server: Server, disk: MemoryDisk, points: Points) -> None:
    """Cancel who cuts the log; the log goes on, in the next file or in this one."""
    async with running(server):
        await server.append(points.some())
        with at_step.scope:
            at_step.armed = True
            for shard in server.wal.shards:
                await server.wal.cut(shard)
        at_step.armed = False
        await server.keep(points.some())
        await server.checkpoints.save_all()
        await server.keep(points.some())
    await check(server, disk)


@pytest.mark.parametrize("main", [cancel_checkpoints, cancel_cut, cancel_everything, cancel_senders])
def test_cancelled_at_every_step(monkeypatch, main):
    """Step after step, until nothing is left to cancel."""
    for step in itertools.count(1):
        if not run(step, step, monkeypatch, main):
            break
    assert step > 10


@pytest.mark.timeout(60 + EXAMPLES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    step=st.integers(1, 250),
    shards=st.integers(1, 3),
    main=st.sampled_from([cancel_checkpoints, cancel_cut, cancel_everything, cancel_senders]),
)
def test_cancelled_somewhere_in_many_schedules(seed, step, shards, main):
    """The same with other orders of tasks, other points, and other numbers of shards."""
    with pytest.MonkeyPatch.context() as patch:
        run(seed, step, patch, main, shards=shards)


async def test_with_threads():
    """A writer that is cancelled while real threads write does not lose what it took."""
    for step in range(1, 40, 3):
        disk = MemoryDisk()
        server = await make_server(disk, shards=2)
        points = Points(random.Random(step))
        async with running(server) as nursery:
            for count in range(step):
                await server.append(points.some())
                if count % 4 == 0:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await check(server, disk)


async def test_who_puts_when_the_writer_is_gone_is_told(monkeypatch):
    """The end of a writer closes its channel: nothing is put where nobody takes it."""
    schedule_by_seed(monkeypatch, 0)
    server = await make_server(MemoryDisk())
    async with running(server) as nursery:
        await server.append(point(1))
        nursery.cancel_scope.cancel()
    assert totals(server) == (1, 1)
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await server.append(point(2))
    assert server.waiting == 1


async def test_the_last_checkpoint_needs_no_writer(monkeypatch):
    """When the writers have ended, for whatever reason, all that memory has can still go into checkpoints."""
    schedule_by_seed(monkeypatch, 0)
    disk = MemoryDisk()
    server = await make_server(disk, shards=3)
    points = Points(random.Random(0))
    async with running(server) as nursery:
        await server.keep(points.some(40))
        await server.append(points.some(40))
        nursery.cancel_scope.cancel()
    await server.checkpoints.save_all()
    await check(server, disk)
    assert await only_checkpoints(disk) == server.journal.latest()
    assert (await recovered(disk))[1].unclean is False


async def test_a_cancelled_sender_appends_nothing(monkeypatch):
    """Whoever is cancelled already finds no room, so it does not store what nobody would log."""
    schedule_by_seed(monkeypatch, 0)
    server = await make_server(MemoryDisk())
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.append(point(1))
    assert scope.cancelled_caught
    assert contents(server.store) == {}
