"""Publishing, flushing, leaving; and cancelling the client wherever it waits."""

import gc
import logging
import os
import types
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from nats_broker import open_broker
from nats_fake import Collector, FakePeer, open_fake, open_receiver, watch_log
from trio.testing import MockClock

from ccstore.config import NatsConfig
from ccstore.errors import ConfigError, ProtocolError
from ccstore.server import nats_servers
from ccstore.server.nats import NatsStatistics, Subscription, open_client, receive

pytestmark = pytest.mark.timeout(120)


async def obey(peer: FakePeer) -> None:
    """Be a server that answers pings and nothing else."""
    await peer.greet()
    await peer.serve()


async def test_leaving_flushes(tmp_path: Path) -> None:
    """What was published arrives although nobody flushed before the end."""
    sent = [b"%d" % number * 1000 for number in range(300)]
    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a") as receiver,
    ):
        await receiver.log.wait("subscribed")
        async with open_client(NatsConfig(address=broker.url)) as client:
            for payload in sent:
                await client.publish("a", payload)
        assert client.statistics.state == "closed"
        assert client.statistics.published_messages == len(sent)
        assert client.statistics.published_bytes == sum(map(len, sent))
        assert sent == await receiver.store.wait(len(sent))


async def test_subscribing_comes_before_publishing(tmp_path: Path) -> None:
    """A client that subscribes and then publishes gets its own message, connected or not yet."""
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as client:
        for subject in ("before", "after"):
            client.subscribe(Subscription(subject))
            await client.publish(subject, subject.encode())
            messages = await anext(client)
            assert [bytes(message.payload) for message in messages] == [subject.encode()]


async def test_a_full_queue_holds_the_publisher(mock_clock: MockClock) -> None:
    """A server that does not read stops the publisher; what was cancelled was not sent in part."""
    mock_clock.autojump_threshold = 0.05
    read = trio.Event()
    received: list[bytes] = []

    async def sleep_then_read(peer: FakePeer) -> None:
        await peer.greet()
        await read.wait()
        received.extend(await peer.serve())

    async with open_fake(sleep_then_read) as server:
        async with open_client(NatsConfig(address=server.url)) as client:
            with trio.move_on_after(5) as scope:
                while True:
                    await client.publish("a", b"x" * 100_000)
            assert scope.cancelled_caught
            blocked_at = client.statistics.published_messages
            assert 10 <= blocked_at < 500, "queue and sockets hold some megabytes"
            read.set()
            await client.flush()
            await client.publish("a", b"last")
        assert received[0::2] == [b"PUB a 100000"] * blocked_at + [b"PUB a 4"]
        assert received[1::2] == [b"x" * 100_000] * blocked_at + [b"last"]


async def test_a_view_of_numbers_is_published_as_its_bytes(tmp_path: Path) -> None:
    """The length of a payload is that of its bytes, whatever it is a view of."""
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as client:
        client.subscribe(Subscription("a"))
        await client.publish("a", memoryview(array("d", [1.0, 2.0])))
        await client.publish("a", memoryview(bytes(10_000)).cast("I"))
        await client.flush()
        lengths: list[int] = []
        while len(lengths) < 2:
            lengths += [message.stop - message.start for message in await anext(client)]
    assert lengths == [16, 10_000]


async def test_ended_in_the_middle_of_a_payload(mock_clock: MockClock) -> None:
    """A connection that is ended while it sends a payload sends nothing after the half of it."""
    mock_clock.autojump_threshold = 0.05
    read = trio.Event()
    tail = bytearray()

    async def sleep_then_read(peer: FakePeer) -> None:
        await peer.greet()
        await read.wait()
        with suppress(trio.BrokenResourceError):
            async for chunk in peer.stream:
                tail[:] = chunk[-100:]

    async with open_fake(sleep_then_read) as server, open_client(NatsConfig(address=server.url)) as client:
        with trio.move_on_after(5):
            while True:
                await client.publish("a", b"x" * 1_000_000)
        client.intake.cancel()
        while client.statistics.state != "closed":
            await trio.lowlevel.checkpoint()
        read.set()
    assert tail
    assert set(tail) == {ord("x")}


async def test_publishing_waits_for_a_connection() -> None:
    """Without a server the publisher waits, and its message goes out when there is one."""
    received: list[bytes] = []

    async def keep(peer: FakePeer) -> None:
        await peer.greet()
        received.extend(await peer.serve())

    async def refuse(peer: FakePeer) -> None:
        await peer.send(b"-ERR 'no'")

    async with open_fake(refuse, keep) as server, open_client(NatsConfig(address=server.url)) as client:
        await client.publish("a", b"payload")
    assert received == [b"PUB a 7", b"payload"]


async def test_a_lost_connection_is_told_to_who_flushes(tmp_path: Path) -> None:
    """What was published since the last flush is in doubt once, and then all is well again."""
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as client:
        await client.publish("a", b"1")
        await client.flush()
        await client.publish("a", b"2")
        await client.publish("a", b"3")
        await trio.to_thread.run_sync(broker.kill)
        await trio.to_thread.run_sync(broker.start)
        with pytest.raises(trio.BrokenResourceError, match="up to 2 messages"):
            await client.flush()
        await client.publish("a", b"4")
        await client.flush()
        await trio.to_thread.run_sync(broker.kill)
        await trio.to_thread.run_sync(broker.start)
        await client.flush()


async def test_leaving_in_doubt(tmp_path: Path) -> None:
    """Who leaves after a lost connection is told what may be lost."""
    async with watch_log() as log, open_broker(tmp_path) as broker:
        async with open_client(NatsConfig(address=broker.url)) as client:
            await client.publish("a", b"1")
            await trio.to_thread.run_sync(broker.kill)
            await trio.to_thread.run_sync(broker.start)
        assert "up to 1 messages" in await log.wait("closing")


async def test_leaving_a_server_that_is_gone(mock_clock: MockClock) -> None:
    """The end does not wait for ever for an answer, and says that something may be lost."""
    mock_clock.autojump_threshold = 0.05

    async def hang(peer: FakePeer) -> None:
        await peer.greet()
        await trio.sleep_forever()

    async with watch_log() as log, open_fake(hang) as server:
        async with open_client(NatsConfig(address=server.url)) as client:
            await client.publish("a", b"x")
            began = trio.current_time()
        assert 2 <= trio.current_time() - began <= 5
        await log.wait("may be lost")


async def test_what_cannot_be_published_is_refused(tmp_path: Path) -> None:
    """A payload above the server's limit or a bad subject is an error of the publisher alone."""
    async with (
        open_broker(tmp_path, "max_payload: 1000\n") as broker,
        open_client(NatsConfig(address=broker.url)) as client,
    ):
        await client.wait_connected()
        with pytest.raises(ProtocolError, match="too large"):
            await client.publish("a", b"x" * 1001)
        with pytest.raises(ProtocolError, match="too large"):
            await client.publish("a", b"x" * 990, headers={"k": "v"})
        with pytest.raises(ProtocolError, match="malformed"):
            await client.publish("a b", b"")
        with pytest.raises(ConfigError, match="malformed"):
            client.subscribe(Subscription("a..b"))
        await client.publish("a", b"x" * 1000)
        await client.flush()
        assert client.statistics.connects == 1
    with pytest.raises(trio.ClosedResourceError):
        await client.publish("a", b"")
    with pytest.raises(trio.ClosedResourceError):
        await client.flush()


async def test_headers_need_a_server_that_takes_them() -> None:
    """A server without headers would take them for something else, so nothing is sent."""

    async def serve_plainly(peer: FakePeer) -> None:
        await peer.greet(headers=False)
        assert await peer.serve() == [b"PUB a 1", b"x"]

    async with open_fake(serve_plainly) as server, open_client(NatsConfig(address=server.url)) as client:
        with pytest.raises(ProtocolError, match="no headers"):
            await client.publish("a", b"x", headers={"k": "v"})
        await client.publish("a", b"x")


async def test_a_refusal_is_told_once(tmp_path: Path) -> None:
    """Publishing what is not permitted does not fill the log, one line for each subject does."""
    config = 'authorization { users: [{user: u, password: p, permissions: {publish: {deny: ["a"]}}}] }\n'
    async with watch_log() as log, open_broker(tmp_path, config) as broker:
        user = NatsConfig(address=broker.url, username="u", password="p")
        async with open_client(user) as client:
            for _ in range(50):
                await client.publish("a", b"")
            await client.flush()
        assert "Permissions Violation" in client.statistics.last_error
    assert len(log.at(logging.ERROR)) == 1


async def converse(url: str, store: Collector, statistics: NatsStatistics) -> None:
    """Use everything: subscribe, receive, publish small and large, flush, lose the connection, end."""
    config = NatsConfig(address=url, ping_interval=60)
    async with trio.open_nursery() as nursery:
        run = partial(receive, config, [Subscription("a")], store.deliver, statistics=statistics)
        intake = await nursery.start(lambda task_status: run(task_status=task_status))
        async with open_client(config) as client:
            await store.wait(2)
            await client.publish("b", b"small")
            await client.publish("b", b"x" * 200_000)
            await client.flush()
        intake.cancel()


async def talk(peer: FakePeer, *, ends: bool) -> None:
    """Greet, and send a message to who subscribes; then end the connection, or serve it."""
    await peer.greet()
    line = await peer.read_line()
    if line == b"SUB a 1":
        await peer.send(b"MSG a 1 5", b"hello")
        if ends:
            return
    elif line == b"PING":
        await peer.send(b"PONG")
    await peer.serve()


SCRIPTS = (partial(talk, ends=True), partial(talk, ends=False))


class CancelAt(trio.abc.Instrument):
    """Calls `cancel` after the n-th step that a task of the client takes."""

    def __init__(self, step: int, cancel: Callable[[], None]) -> None:
        self.steps_left = step
        self.cancel = cancel

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        assert isinstance(task.coro, types.CoroutineType)
        if "/ccstore/server/" in task.coro.cr_code.co_filename or task.coro.cr_code is converse.__code__:
            self.steps_left -= 1
            if self.steps_left == 0:
                self.cancel()


@contextmanager
def cancelling_at(step: int, cancel: Callable[[], None]) -> Iterator[CancelAt]:
    instrument = CancelAt(step, cancel)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_cancelled_at_every_step_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the whole conversation is cancelled, it ends, and no socket or task remains."""
    monkeypatch.setattr(nats_servers, "FIRST_PAUSE", 0.001)
    files_before = open_files()
    is_done, step = False, 0
    while not is_done:
        step += 1
        statistics = NatsStatistics()
        async with open_fake(*SCRIPTS) as server:
            with trio.CancelScope() as scope, cancelling_at(step, scope.cancel) as instrument:
                await converse(server.url, Collector(), statistics)
            is_done = instrument.steps_left > 0
        assert statistics.state in ("off", "closed")
        assert files_before == open_files()
    assert step > 50
    gc.collect()  # what was left open would show as a ResourceWarning, which is an error here


async def test_ended_softly_at_every_step_all_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the intake is ended, what was received is delivered, and the end comes by itself."""
    monkeypatch.setattr(nats_servers, "FIRST_PAUSE", 0.001)
    files_before = open_files()
    is_done, step = False, 0
    while not is_done:
        step += 1
        store, statistics = Collector(), NatsStatistics()
        config = partial(NatsConfig, ping_interval=60)

        async def end(intake: trio.CancelScope, store: Collector = store) -> None:
            await store.wait(2)
            intake.cancel()

        async with open_fake(*SCRIPTS) as server, trio.open_nursery() as nursery:
            run = partial(
                receive, config(address=server.url), [Subscription("a")], store.deliver, statistics=statistics
            )
            finished = trio.Event()
            intake = await nursery.start(partial(run_and_tell, run, finished))
            nursery.start_soon(end, intake)
            with cancelling_at(step, intake.cancel) as instrument:
                await finished.wait()
            is_done = instrument.steps_left > 0
            nursery.cancel_scope.cancel()
        assert statistics.state == "closed"
        assert statistics.messages == len(store.messages)
        assert files_before == open_files()
    assert step > 20
    gc.collect()


async def run_and_tell(run: Any, finished: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
    """Run `run`, and set `finished` when it has come to its end."""
    await run(task_status=task_status)
    finished.set()
