"""A store that is slower than the server: budget, exact counts, alarms, and the memory behind it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import trio
from nats_broker import open_broker
from nats_fake import FakePeer, open_fake, open_receiver, watch_log
from trio.testing import MockClock

from ccstore.config import NatsConfig
from ccstore.server.nats import Message, NatsStatistics, Subscription, open_client
from ccstore.server.nats_backlog import SLACK, Backlog, Segment, SegmentPool
from ccstore.wire.nats_message import Envelope, Messages

pytestmark = pytest.mark.timeout(60)

KIB = 1024
MIB = 1024 * KIB


def fill(segment: Segment, *payloads: bytes) -> Messages:
    """Return messages that lie in `segment`, as if they had been received there."""
    messages, at = Messages(segment.view), 0
    for payload in payloads:
        segment.view[at : at + len(payload)] = payload
        messages.envelopes.append(Envelope("a", Subscription("a"), "", 0, len(payload)))
        messages.starts.append(at)
        messages.stops.append(at := at + len(payload))
    return messages


async def test_drops_are_counted_to_the_line(tmp_path: Path) -> None:
    """Delivered and dropped add up to what was published, in messages, bytes and lines (D-93)."""
    sent = [b"line %d of\nmany" % number + b"\n" * (number % 7) + b"x" * 60_000 for number in range(150)]
    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a", budget_bytes=1 * MIB) as receiver,
    ):
        await receiver.log.wait("subscribed")
        receiver.store.pause()
        async with open_client(NatsConfig(address=broker.url)) as client:
            for payload in sent:
                await client.publish("a", payload)
            await client.flush()
        await receiver.log.wait("slow consumer")
        assert receiver.statistics.is_dropping
        assert receiver.statistics.held_bytes <= 1 * MIB
        receiver.intake.cancel()  # after which everything on its way is read
    statistics, kept = receiver.statistics, receiver.store.payloads
    assert len(sent) == statistics.messages
    assert sum(map(len, sent)) == statistics.bytes
    assert len(sent) == len(kept) + statistics.dropped_messages
    assert sum(map(len, sent)) == sum(map(len, kept)) + statistics.dropped_bytes
    assert b"".join(sent).count(b"\n") == b"".join(kept).count(b"\n") + statistics.dropped_lines
    assert kept == [payload for payload in sent if payload in kept], "what is kept is in order"
    assert kept[0] == sent[0], "the newest are dropped, not the oldest"
    assert 0 < statistics.dropped_messages < len(sent)
    assert any(str(statistics.dropped_lines) in line for line in receiver.log.at(logging.ERROR))


async def test_what_is_taken_after_drops_is_complete(tmp_path: Path) -> None:
    """A store that stalls and recovers gets whole messages before and after the gap."""
    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a", budget_bytes=1 * MIB) as receiver,
        open_client(NatsConfig(address=broker.url)) as client,
    ):
        await receiver.log.wait("subscribed")
        for stall in range(3):
            receiver.store.pause()
            for number in range(100):
                await client.publish("a", b"%d/%d " % (stall, number) * 8_000)
            await client.flush()
            while not receiver.statistics.is_dropping:
                await trio.lowlevel.checkpoint()
            receiver.store.may_go_on.set()
            await client.publish("a", b"end of %d" % stall)
            await client.flush()
            while receiver.statistics.messages != 101 * (stall + 1):
                await trio.lowlevel.checkpoint()
    for payload in receiver.store.payloads:
        word = payload.split()[0] + b" "
        assert payload.startswith(b"end of ") or payload == word * 8_000


async def test_blocking_loses_nothing_the_server_can_hold(tmp_path: Path) -> None:
    """With "block" a stalled store gets everything later, as long as the server keeps it."""
    sent = [b"%d " % number * 10_000 for number in range(200)]
    options = {"overflow": "block", "budget_bytes": 1 * MIB}
    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a", **options) as receiver,
    ):
        await receiver.log.wait("subscribed")
        receiver.store.pause()
        async with open_client(NatsConfig(address=broker.url)) as client:
            for payload in sent:
                await client.publish("a", payload)
            await client.flush()
        await receiver.log.wait("reading rests")
        assert receiver.statistics.is_blocked
        assert receiver.statistics.held_bytes <= 1 * MIB
        receiver.store.may_go_on.set()
        assert sent == await receiver.store.wait(len(sent))
        assert not receiver.statistics.is_blocked
        assert receiver.statistics.blocked_seconds > 0
        assert receiver.statistics.dropped_messages == 0


async def test_the_end_while_blocked(tmp_path: Path) -> None:
    """Ending the intake while reading rests still hands on all that was received."""
    sent = [b"%d " % number * 10_000 for number in range(200)]
    options = {"overflow": "block", "budget_bytes": 1 * MIB}
    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a", **options) as receiver,
    ):
        await receiver.log.wait("subscribed")
        receiver.store.pause()
        async with open_client(NatsConfig(address=broker.url)) as client:
            for payload in sent:
                await client.publish("a", payload)
            await client.flush()
        await receiver.log.wait("reading rests")
        receiver.intake.cancel()
        while receiver.statistics.state != "closed":
            await trio.lowlevel.checkpoint()
        assert receiver.store.payloads == []
    assert sent == receiver.store.payloads


async def test_a_message_larger_than_the_budget_passes(tmp_path: Path) -> None:
    """A single message is always taken, in either mode."""
    for overflow in ("drop", "block"):
        async with (
            open_broker(tmp_path) as broker,
            open_receiver(
                NatsConfig(address=broker.url), "a", overflow=overflow, budget_bytes=10 * KIB
            ) as receiver,
            open_client(NatsConfig(address=broker.url)) as client,
        ):
            await receiver.log.wait("subscribed")
            await client.publish("a", b"x" * 900_000)
            await client.flush()
            assert await receiver.store.wait(1) == [b"x" * 900_000]


async def test_who_keeps_messages_keeps_their_memory(tmp_path: Path) -> None:
    """No segment is written again while a message, a view or an array of it exists."""
    kept: list[tuple[bytes, object]] = []
    keepers = (lambda m: m, lambda m: m.payload, lambda m: np.frombuffer(m.payload, np.uint8))
    async with (
        open_broker(tmp_path) as broker,
        open_client(NatsConfig(address=broker.url), budget_bytes=1 * MIB) as client,
    ):
        client.subscribe(Subscription("a"))
        for number in range(60):
            await client.publish("a", b"%d " % number * 20_000)
            await client.flush()
            messages = await anext(client)
            kept.append((b"%d " % number * 20_000, keepers[number % 3](messages[0])))
            del messages
    for payload, keeper in kept:
        assert payload == bytes(keeper.payload if isinstance(keeper, Message) else keeper)


async def test_segments_are_used_again_when_nobody_looks(autojump_clock: MockClock) -> None:
    """The pool gives out a segment a second time exactly when the last view of it is gone."""
    pool = SegmentPool(256 * KIB)
    first = pool.take()
    buffer = first.view.obj
    array = np.frombuffer(first.view, np.uint8)
    del first
    second = pool.take()
    assert second.view.obj is not buffer
    del array
    assert pool.take().view.obj is buffer
    assert len(pool.take(300 * KIB).view) == 300 * KIB + SLACK


async def test_alarms_come_once_a_second(autojump_clock: MockClock) -> None:
    """However many messages are dropped, the log gets a line a second, and their sum is exact."""
    statistics, pool = NatsStatistics(), SegmentPool(256 * KIB)
    async with watch_log() as log:
        backlog = Backlog(256 * KIB, "drop", statistics)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backlog.report_drops)
            first, second = pool.take(), pool.take()
            await backlog.accept(first, fill(first, b"kept\n"))
            for _ in range(35):  # ten drops in each tenth of a second
                for _ in range(10):
                    await backlog.accept(second, fill(second, b"gone\n", b"gone\ntoo\n"))
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
    assert (
        statistics.dropped_messages,
        statistics.dropped_bytes,
        statistics.dropped_lines,
    ) == (700, 350 * 14, 1050)
    alarms = log.at(logging.ERROR)
    assert 4 <= len(alarms) <= 5
    assert sum(int(line.split("dropped ")[1].split()[0]) for line in alarms) == 700
    assert "in all 700, 4900, 1050" in alarms[-1]


async def test_what_waits_is_shown(autojump_clock: MockClock) -> None:
    """Queue length, bytes, memory and age follow what is put in and taken out."""
    statistics, pool = NatsStatistics(), SegmentPool(256 * KIB)
    backlog = Backlog(1 * MIB, "drop", statistics)
    one, two = pool.take(), pool.take()
    await backlog.accept(one, fill(one, b"12345"))
    await trio.sleep(5)
    await backlog.accept(one, fill(one, b"123"))
    await backlog.accept(two, fill(two, b"1"))
    assert (statistics.queued_messages, statistics.queued_bytes, statistics.held_bytes) == (3, 9, 512 * KIB)
    await trio.sleep(5)
    assert statistics.oldest_queued_age() == 10
    taken = await backlog.take()
    assert taken is not None
    assert len(taken) == 2
    assert statistics.oldest_queued_age() == 10, "what is being delivered still waits"
    await backlog.take()
    assert (statistics.queued_messages, statistics.queued_bytes, statistics.held_bytes) == (1, 1, 256 * KIB)
    assert statistics.oldest_queued_age() == 5
    backlog.close()
    assert await backlog.take() is None
    assert (statistics.queued_messages, statistics.queued_bytes, statistics.held_bytes) == (0, 0, 0)
    assert statistics.oldest_queued_age() == 0


async def test_silence_is_our_own_fault_while_blocked(mock_clock: MockClock) -> None:
    """A connection is not given up as stale while we ourselves do not read (block)."""
    mock_clock.autojump_threshold = 0.05
    go_on = trio.Event()

    async def script(peer: FakePeer) -> None:
        await peer.greet()
        await peer.read_until(b"SUB a 1")
        await peer.send(*[b"MSG a 1 100000\r\n" + b"x" * 100_000] * 5)
        await go_on.wait()
        await peer.serve()

    async with (
        open_fake(script) as server,
        open_receiver(
            NatsConfig(address=server.url, ping_interval=1.0), "a", overflow="block", budget_bytes=200 * KIB
        ) as receiver,
    ):
        receiver.store.pause()
        await receiver.log.wait("reading rests")
        await trio.sleep(10)
        receiver.store.may_go_on.set()
        assert await receiver.store.wait(5) == [b"x" * 100_000] * 5
        go_on.set()
        await trio.sleep(10)
        assert receiver.statistics.connects == 1
        assert receiver.statistics.state == "connected"
        assert receiver.statistics.blocked_seconds == 10
