"""What a broker delivers while the server reads its files: it waits, and is stored or counted."""

import itertools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from nats_broker import Broker, open_broker
from nats_fake import LogWatch, watch_log
from service_tools import (
    Server,
    get_problems,
    lines,
    make_config,
    post,
    running,
    stored,
    wait_until,
    with_store,
)

from ccstore.config import Config, NatsConfig
from ccstore.disk.files import Disk, OsDisk
from ccstore.server.nats import open_client
from ccstore.server.services import Services

pytestmark = pytest.mark.timeout(60)

MIB = 1024 * 1024


class HeldDisk(OsDisk):
    """A disk that has something to read, and lets nobody read before it may."""

    def __init__(self) -> None:
        self.may_read = threading.Event()

    def map(self, path: Path) -> memoryview:
        """Map a file, in a while."""
        assert self.may_read.wait(30), "the test never let anybody read"
        return super().map(path)

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Read a part of a file, in a while."""
        assert self.may_read.wait(30), "the test never let anybody read"
        return super().read(path, start, size)

    def put_into(self, services: Services) -> None:
        """Let a server recover from this disk."""
        assert services.durability is not None
        services.durability.disk = self


@asynccontextmanager
async def restarted(config: Config, disk: Disk, log: LogWatch) -> AsyncIterator[Server]:
    """Run a server that has been there before: it is subscribed, and reads until the disk lets it."""
    async with running(config) as server:
        await log.wait("subscribed")
        assert (await post(server, "/api/write?cluster=fritz", lines(["h1"]))).status == 200
    assert isinstance(disk, HeldDisk)
    async with running(config, disk.put_into) as server:
        await log.wait("subscribed")
        assert await get_problems(server) == ["recovering: 0%"]
        yield server


async def publish(broker: Broker, *payloads: bytes) -> None:
    """Publish, and return when the broker has everything."""
    async with open_client(NatsConfig(address=broker.url)) as client:
        for payload in payloads:
            await client.publish("hpc", payload)
        await client.flush()


async def test_what_comes_during_recovery_is_stored_after_it(tmp_path: Path) -> None:
    """The server is subscribed before it has read anything; what it was sent is behind what it has read."""
    disk = HeldDisk()
    async with open_broker(tmp_path) as broker, watch_log() as log:
        async with restarted(make_config(broker.url, {"hpc": "fritz"}), disk, log) as server:
            await publish(broker, *[lines([f"h{n}"]) for n in range(2, 50)])
            await wait_until(lambda: server.services.nats.queued_messages == 48)
            assert server.received == 0
            disk.may_read.set()
            await wait_until(lambda: server.received == 48)
            assert await get_problems(server) == []
        assert stored(server.services) == {("fritz", f"h{n}"): [n] for n in range(1, 50)}
        assert server.services.nats.dropped_messages == 0


async def test_what_the_buffer_does_not_hold_is_counted(tmp_path: Path) -> None:
    """A recovery longer than the buffer lasts: the oldest messages are kept, every other line is counted."""
    disk = HeldDisk()
    sent = [lines([f"m{k * 1000 + n}" for n in range(1000)]) for k in range(60)]
    async with open_broker(tmp_path) as broker, watch_log() as log:
        config = with_store(make_config(broker.url, {"hpc": "fritz"}), nats_buffer_bytes=MIB)
        async with restarted(config, disk, log) as server:
            nats = server.services.nats
            await publish(broker, *sent)
            await wait_until(lambda: nats.messages == len(sent))
            assert nats.held_bytes <= MIB
            disk.may_read.set()
            await wait_until(lambda: nats.queued_messages == 0)
        written = sum(map(bytes.count, sent, itertools.repeat(b"\n")))
        assert 0 < nats.dropped_lines == written - server.received
        assert ("fritz", "m0") in stored(server.services)


async def test_a_stop_during_recovery_counts_what_waits(tmp_path: Path, mock_clock: object) -> None:
    """A server that stops before it has read its files cannot store: it counts, and does not hang."""
    disk = HeldDisk()
    async with open_broker(tmp_path) as broker, watch_log() as log:
        async with restarted(make_config(broker.url, {"hpc": "fritz"}), disk, log) as server:
            nats = server.services.nats
            await publish(broker, lines(["h2", "h3"]), lines(["h4"]))
            await wait_until(lambda: nats.queued_messages == 2)
            server.stop.set()
            await wait_until(lambda: server.services.stopping.is_set())
            disk.may_read.set()
        assert (nats.messages, nats.dropped_messages, nats.dropped_lines, server.received) == (2, 2, 3, 0)
        assert (nats.queued_messages, nats.state) == (0, "closed")
        assert trio.current_time() == 0


async def test_a_directory_that_cannot_be_read_ends_the_server(tmp_path: Path) -> None:
    """If not even names can be read the server ends with that error, whatever waits to be stored."""
    disk = HeldDisk()
    async with open_broker(tmp_path) as broker, watch_log() as log:
        config = make_config(broker.url, {"hpc": "fritz"})
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="bad sector"), flatten_subgroups=True):
            async with restarted(config, disk, log) as server:
                assert server.services.durability is not None

                def list_nothing(_path: Path) -> list[str]:
                    raise OSError("bad sector")

                await publish(broker, lines(["h2"]))
                await wait_until(lambda: server.services.nats.queued_messages == 1)
                disk.list = list_nothing  # type: ignore[method-assign]
                disk.may_read.set()
                await trio.sleep_forever()
