"""Receiving from a real nats-server: subjects, restarts, lame ducks, the end."""

import logging
from pathlib import Path
from typing import Any

import nats
import pytest
import trio
from nats_broker import Broker, open_broker
from nats_fake import Collector, open_receiver

from ccstore.config import NatsConfig
from ccstore.errors import ConfigError
from ccstore.server.nats import NatsStatistics, Subscription, open_client, receive

pytestmark = pytest.mark.timeout(60)


async def publish(broker: Broker, *messages: tuple[str, bytes], **options: Any) -> None:
    """Publish to `broker` and return when it has everything."""
    async with open_client(NatsConfig(address=broker.url)) as client:
        for subject, payload in messages:
            await client.publish(subject, payload, **options)
        await client.flush()


async def test_wildcards_and_default_clusters(tmp_path: Path) -> None:
    """Each message comes with the subject it was sent to and the cluster of its subscription (D-14)."""
    subscriptions = [Subscription("hpc.*", "fritz"), Subscription("gpu.>", "alex"), Subscription("plain")]
    async with open_broker(tmp_path) as broker:
        async with open_receiver(NatsConfig(address=broker.url), *subscriptions) as receiver:
            await receiver.log.wait("subscribed to 'plain'")
            sent = [
                ("hpc.a", b"1"),
                ("gpu.a.b", b"2"),
                ("hpc.a.b", b"lost"),
                ("plain", b"3"),
                ("hpc.b", b"4"),
            ]
            await publish(broker, *sent)
            await receiver.store.wait(4)
        assert [item for item in sent if item[1] != b"lost"] == receiver.store.messages
        assert receiver.store.clusters == ["fritz", "alex", "", "fritz"]
        assert (receiver.statistics.messages, receiver.statistics.bytes) == (4, 4)


async def test_headers_and_reply_reach_the_store(tmp_path: Path) -> None:
    """A message with headers brings them along, and so does its reply subject."""
    seen: list[tuple[Any, ...]] = []
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as client:
        client.subscribe(Subscription("a"))
        await client.flush()
        await client.publish("a", b"x" * 10_000, headers={"k": "v"}, reply="answer.here")
        await client.publish("a", b"", headers={"k": "w"})
        await client.publish("a", b"")
        async for messages in client:
            seen += [(m.headers.fields, m.reply, len(m.payload)) for m in messages]
            if len(seen) == 3:
                break
    assert seen == [({"k": ("v",)}, "answer.here", 10_000), ({"k": ("w",)}, "", 0), ({}, "", 0)]


async def test_small_and_large_messages_keep_order_and_content(tmp_path: Path) -> None:
    """Messages of 1 byte to 1 MiB arrive as sent, across the ends of segments."""
    sizes = [1, 100, 1 << 20, 5, 65_536, (1 << 20) - 1, 0, 300_000, 1 << 20, 7] * 2
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a") as receiver,
    ):
        await receiver.log.wait("subscribed")
        await publish(broker, *[("a", payload) for payload in sent])
        assert sent == await receiver.store.wait(len(sent))
        assert receiver.statistics.dropped_messages == 0


async def test_messages_larger_than_a_segment(tmp_path: Path) -> None:
    """A server configured for 8 MB messages gets them through."""
    sent = [b"a" * 7_000_000, b"b", b"c" * 3_000_000]
    async with (
        open_broker(tmp_path, "max_payload: 8000000\nmax_pending: 64MB\n") as broker,
        open_receiver(NatsConfig(address=broker.url), "a") as receiver,
    ):
        await receiver.log.wait("subscribed")
        await publish(broker, *[("a", payload) for payload in sent])
        assert sent == await receiver.store.wait(len(sent))


async def test_two_receivers_in_a_queue_group_share_the_messages(tmp_path: Path) -> None:
    """Each message reaches exactly one member of the group, and both get some."""
    subscription = Subscription("a", queue="stores")
    async with open_broker(tmp_path) as broker:
        config = NatsConfig(address=broker.url)
        async with open_receiver(config, subscription) as one, open_receiver(config, subscription) as two:
            for _ in (one, two):  # this log has the lines of both
                await one.log.wait("subscribed to 'a' in queue group 'stores'")
            sent = [b"%d" % number for number in range(200)]
            await publish(broker, *[("a", payload) for payload in sent])
        assert sorted(sent) == sorted(one.store.payloads + two.store.payloads)
        assert one.store.payloads
        assert two.store.payloads


async def test_another_client_publishes(tmp_path: Path) -> None:
    """Messages of nats-py, an independent client, arrive like ours."""

    async def publish_with_nats_py(url: str) -> None:
        connection = await nats.connect(url)
        for number in range(100):
            await connection.publish("a", b"%d" % number, headers={"n": str(number)})
        await connection.drain()

    async with (
        open_broker(tmp_path) as broker,
        open_receiver(NatsConfig(address=broker.url), "a") as receiver,
    ):
        await receiver.log.wait("subscribed")
        import asyncio

        await trio.to_thread.run_sync(lambda: asyncio.run(publish_with_nats_py(broker.url)))
        assert [b"%d" % number for number in range(100)] == await receiver.store.wait(100)


async def test_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    """Starting does not wait for the server, and it is found when it appears (D-91)."""
    broker = Broker(tmp_path)
    await trio.to_thread.run_sync(broker.start)
    await trio.to_thread.run_sync(broker.kill)
    async with open_receiver(NatsConfig(address=broker.url), "a") as receiver:
        line = await receiver.log.wait("cannot connect")
        assert "refused" in line
        assert receiver.statistics.state == "connecting"
        await trio.to_thread.run_sync(broker.start)
        try:
            await receiver.log.wait("subscribed")
            assert receiver.statistics.state == "connected"
            await publish(broker, ("a", b"hello"))
            assert await receiver.store.wait(1) == [b"hello"]
        finally:
            await trio.to_thread.run_sync(broker.kill)


async def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """After a crash of the server the client is back on its own, with all subscriptions (D-92)."""
    async with open_broker(tmp_path) as broker:
        async with open_receiver(NatsConfig(address=broker.url), "a", "b.*") as receiver:
            await receiver.log.wait("subscribed to 'b.*'")
            await publish(broker, ("a", b"before"))
            await receiver.store.wait(1)
            for crash in range(2):
                await trio.to_thread.run_sync(broker.kill)
                await receiver.log.wait("disconnected")
                await trio.to_thread.run_sync(broker.start)
                await receiver.log.wait("reconnected")
                await receiver.log.wait("subscribed to 'b.*'")
                await publish(broker, ("b.x", b"after %d" % crash))
                await receiver.store.wait(2 + crash)
        assert receiver.store.payloads == [b"before", b"after 0", b"after 1"]
        assert receiver.statistics.reconnects == 2
        assert receiver.log.at(logging.WARNING)


async def test_a_lame_duck_is_left_for_another_server_of_its_cluster(tmp_path: Path) -> None:
    """The client learns of the second server, moves there when the first is about to stop."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    cluster = 'cluster { name: c, listen: "127.0.0.1:-1", pool_size: -1, %s }\n'
    async with open_broker(tmp_path / "1", cluster % "") as first:
        route = (await trio.to_thread.run_sync(first.wait_log, r"route connections on (\S+)"))[1]
        async with open_receiver(NatsConfig(address=first.url), "a") as receiver:
            await receiver.log.wait("subscribed")
            async with open_broker(tmp_path / "2", cluster % f'routes: ["nats://{route}"]') as second:
                async with open_client(NatsConfig(address=second.url)) as client:
                    # The first one tells of the second as soon as there is a route between them:
                    # then a message published there arrives here.
                    while not receiver.store.messages:
                        await client.publish("a", b"via the route")
                        await client.flush()
                    before = len(receiver.store.messages)
                    await trio.to_thread.run_sync(first.enter_lame_duck)
                    await receiver.log.wait("about to stop")
                    await receiver.log.wait(f"reconnected to {second.url}")
                    await receiver.log.wait("subscribed")
                    await trio.to_thread.run_sync(first.kill)
                    await client.publish("a", b"straight")
                    await client.flush()
                    await receiver.store.wait(before + 1)
                assert receiver.store.payloads[-1] == b"straight"
                assert second.url == receiver.statistics.server
                receiver.intake.cancel()


async def test_a_lame_duck_alone_is_kept(tmp_path: Path) -> None:
    """Without another server the client stays until the end, says so, and goes on receiving."""
    async with open_broker(tmp_path) as broker, open_client(NatsConfig(address=broker.url)) as client:
        await client.wait_connected()
        async with open_receiver(NatsConfig(address=broker.url), "a") as receiver:
            await receiver.log.wait("subscribed")
            await trio.to_thread.run_sync(broker.enter_lame_duck)
            for _ in (client, receiver):
                await receiver.log.wait("no other server")
            assert receiver.statistics.state == client.statistics.state == "lame duck"
            assert receiver.statistics.is_connected
            await client.publish("a", b"still here")
            assert await receiver.store.wait(1) == [b"still here"]


async def test_what_was_received_is_delivered_before_the_end(tmp_path: Path) -> None:
    """Cancelling the intake ends it only when the store has taken all that was received (D-98, D-102)."""
    sent = [b"%d" % number for number in range(500)]
    async with open_broker(tmp_path) as broker:
        async with open_receiver(NatsConfig(address=broker.url), "a") as receiver:
            await receiver.log.wait("subscribed")
            receiver.store.pause()
            await publish(broker, *[("a", payload) for payload in sent])
            await receiver.store.is_waiting.wait()
            receiver.intake.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert receiver.store.payloads == []
            receiver.store.may_go_on.set()
        assert sent == receiver.store.payloads


async def test_a_subscription_that_is_not_permitted_until_later(tmp_path: Path) -> None:
    """The server's refusal is an error in log and statistics (D-15), and is overcome when it is lifted."""
    config = "authorization { users: [{user: u, password: p, permissions: {subscribe: {allow: [%s]}}}] }\n"
    async with open_broker(tmp_path, config % '"ok"') as broker:
        user = NatsConfig(address=broker.url, username="u", password="p", ping_interval=0.1)
        async with open_receiver(user, "secret.>", "ok") as receiver:
            await receiver.log.wait("subscribed to 'ok'")
            assert receiver.statistics.refused_subjects == ("secret.>",)
            assert "secret.>" in receiver.statistics.last_error
            await receiver.log.wait("answers")  # asked again, and refused again
            await receiver.log.wait("answers")
            assert not any("subscribed to 'secret.>'" in line for line in receiver.log.at(logging.INFO))
            await trio.to_thread.run_sync(broker.reload, config % '"ok", "secret.>"')
            await receiver.log.wait("subscribed to 'secret.>'")
            assert receiver.statistics.refused_subjects == ()
            async with open_client(user) as client:
                await client.publish("secret.x", b"1")
            assert await receiver.store.wait(1) == [b"1"]
            assert len(receiver.log.at(logging.ERROR)) == 1


async def test_a_full_server_is_tried_again(tmp_path: Path) -> None:
    """A server without room for us says so; we come in when there is room."""
    async with open_broker(tmp_path, "max_connections: 1\n") as broker:
        config = NatsConfig(address=broker.url)
        async with open_client(config) as client:
            await client.wait_connected()
            async with open_receiver(config, "a") as receiver:
                line = await receiver.log.wait("cannot connect")
                assert "maximum connections exceeded" in line.lower()
                client.intake.cancel()
                await receiver.log.wait("subscribed")


async def test_a_store_that_fails_ends_the_intake(tmp_path: Path) -> None:
    """An exception of the store is a bug of ours: it comes out, and nothing is left behind."""

    async def deliver(messages: object) -> None:
        raise RuntimeError("bug")

    async with open_broker(tmp_path) as broker:
        statistics = NatsStatistics()
        config = NatsConfig(address=broker.url)
        with pytest.RaisesGroup(pytest.RaisesGroup(RuntimeError), flatten_subgroups=False):
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    lambda task_status: receive(
                        config, [Subscription("a")], deliver, statistics=statistics, task_status=task_status
                    )
                )
                async with open_client(config) as client:
                    while True:
                        await client.publish("a", b"x")
                        await client.flush()
        assert statistics.state == "closed"


async def test_a_missing_address_and_a_malformed_subject_are_mistakes_of_the_operator() -> None:
    """What can be known at the start is told at the start."""
    with pytest.raises(ConfigError, match=r"nats\.address"):
        await receive(NatsConfig(), [], Collector().deliver, statistics=NatsStatistics())
    with pytest.raises(ConfigError, match="malformed subject"):
        await receive(
            NatsConfig(address="localhost:1"),
            [Subscription("a..b")],
            Collector().deliver,
            statistics=NatsStatistics(),
        )
