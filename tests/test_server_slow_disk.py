"""A whole server whose disk takes its time: who asked for the disk waits, and nobody else does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trio
from disk_memory import Gate
from service_tools import (
    NOW,
    Server,
    get_problems,
    jump,
    lines,
    make_config,
    post,
    running,
    stored,
    wait_until,
)
from trio.testing import MockClock

from ccstore.disk.files import File, OsDisk
from ccstore.server import service
from ccstore.wire.scan import SPARE_BYTES

Hook = Callable[[int, str, Path], None]
"""Called with a number, "sync" and the path before a file is synced; it may wait."""


class SlowDisk(OsDisk):
    """Files whose syncs wait for a hook."""

    def __init__(self) -> None:
        self.before: Hook = lambda _number, _name, _path: None

    def create(self, path: Path) -> File:
        """Make a new file for writing."""
        return SlowFile(self, super().create(path), path)


class SlowFile:
    """A file of such a disk."""

    def __init__(self, disk: SlowDisk, file: File, path: Path) -> None:
        self._disk, self._file, self._path = disk, file, path
        self.write, self.close = file.write, file.close

    def sync(self) -> None:
        """Wait, and then sync."""
        self._disk.before(0, "sync", self._path)
        self._file.sync()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    """Return the disk of each server that is run."""
    disk = SlowDisk()
    monkeypatch.setattr(service, "OsDisk", lambda: disk)
    return disk


def check_counters(server: Server, samples: int) -> None:
    """Check that ledger and log agree, and that nothing waits."""
    total = server.services.ledger.total()
    assert (total["received"], total["stored"] + total["overwritten"]) == (samples, samples)
    assert server.services.wal is not None
    shards = server.services.wal.shards
    assert sum(shard.appended for shard in shards) == samples
    assert all(shard.appended == shard.durable == shard.written for shard in shards)


async def test_a_sync_of_ten_seconds(slow: SlowDisk, mock_clock: MockClock) -> None:
    """Memory, queries and NATS go on, the server is ready, and 200 comes when the disk has it."""
    slow.before = gate = Gate()
    answers: list[int] = []
    async with running(make_config()) as server, trio.open_nursery() as nursery:

        async def write(host: str) -> None:
            answers.append((await post(server, "/api/write?cluster=birch", lines([host]))).status)

        for count, host in enumerate(("h1", "h1", "h2"), 1):  # the second one waits for the first one's sync
            nursery.start_soon(write, host)
            await wait_until(lambda count=count: server.received == count)  # type: ignore[misc]
            await gate.reached(1)
        for _ in range(10):
            await jump(mock_clock, 1)
        body = lines(["h3"], cluster="birch")
        data = np.frombuffer(body + bytes(SPARE_BYTES), np.uint8)
        whole = np.array([0]), np.array([len(body)])
        await server.services.intake.write(
            data, *whole, source="nats", default_cluster="", now=server.services.now()
        )
        assert stored(server.services) == {("birch", f"h{host}"): [host] for host in (1, 2, 3)}
        assert await get_problems(server) == []
        assert answers == []
        gate.open()
        await wait_until(lambda: len(answers) == 3)
        assert answers == [200] * 3
        assert server.services.wal is not None
        assert max(shard.longest_commit for shard in server.services.wal.shards) >= 10
        await jump(mock_clock, 1)  # nobody waits for what came over NATS: it may linger
        shards = server.services.wal.shards
        await wait_until(lambda: all(shard.durable == shard.appended for shard in shards))
        check_counters(server, 4)


class CheckpointGate(Gate):
    """Lets checkpoints wait, and no log."""

    def __call__(self, number: int, name: str, path: Path) -> None:
        """Wait, if this is a checkpoint."""
        if ".ckpt" in path.name:
            super().__call__(number, name, path)


async def test_bursts_during_checkpoints(slow: SlowDisk) -> None:
    """Ten times, ten thousand samples come while a checkpoint stands still: all are answered meanwhile."""
    config, hosts, bursts, senders, each = make_config(), 100, 10, 5, 20
    answers: list[int] = []
    async with running(config) as server:
        assert server.services.durability is not None
        checkpoints = server.services.durability.checkpoints

        async def send(burst: int, sender: int) -> None:
            first, names = NOW - 70_000 + 60 * each * burst, [f"h{sender * hosts + n}" for n in range(hosts)]
            body = b"".join(lines(names, cluster="birch", time=first + 60 * k) for k in range(each))
            answers.append((await post(server, "/api/write", body)).status)

        await send(-1, 0)
        for burst in range(bursts):
            slow.before = gate = CheckpointGate()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(checkpoints.save_all)
                await gate.reached(1)
                async with trio.open_nursery() as burst_nursery:
                    for sender in range(senders):
                        burst_nursery.start_soon(send, burst, sender)
                assert len(answers) == 1 + (burst + 1) * senders
                assert checkpoints.lock.locked()
                gate.open()
        assert set(answers) == {200}
        check_counters(server, len(answers) * each * hosts)
        before = stored(server.services, start=NOW - 80_000, stop=NOW)
    assert sum(map(len, before.values())) == len(answers) * each * hosts
    slow.before = lambda _number, _name, _path: None
    async with running(config) as server:
        await wait_until(lambda: not server.services.problems())
        assert stored(server.services, start=NOW - 80_000, stop=NOW) == before
