"""The whole server and a real broker: what is published is in the store and in the ledger."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from attrs import evolve
from nats_broker import Broker, open_broker
from nats_fake import watch_log
from service_tools import (
    NOW,
    Gate,
    free_port,
    get,
    get_json,
    get_problems,
    lines,
    make_config,
    number,
    post,
    running,
    stored,
    wait_until,
    with_store,
)

from ccstore.config import NatsConfig, NatsSubscription
from ccstore.server.nats import open_client

pytestmark = pytest.mark.timeout(60)

MIB = 1024 * 1024


async def publish(broker: Broker, *messages: tuple[str, bytes]) -> None:
    """Publish, and return when the broker has everything."""
    async with open_client(NatsConfig(address=broker.url)) as client:
        for subject, payload in messages:
            await client.publish(subject, payload)
        await client.flush()


async def test_start_never_waits_for_the_broker(mock_clock: object) -> None:
    """Without a broker, and though no time passes, HTTP takes and answers, and readiness says why not."""
    config = make_config(f"nats://127.0.0.1:{free_port()}", {"metrics": "birch"})
    async with watch_log() as log, running(config) as server:
        assert await get_problems(server) == ["nats: connecting"]
        await log.wait("cannot connect")
        assert (await post(server, "/api/write", lines(["h1"], cluster="birch"))).status == 200
        assert (await get(server, "/api/health/live")).status == 200
        question = {"cluster": "birch", "from": NOW - 60, "to": NOW + 60, "for-all-nodes": ["cpu_load"]}
        answer = orjson.loads((await post(server, "/api/query", orjson.dumps(question))).body)
        assert answer["results"][0][0]["data"][-1] == 1
        nats = (await get_json(server, "/api/stats"))["nats"]
        assert (nats["state"], nats["connected"], nats["failed_connects"]) == ("connecting", False, 1)
        assert "refused" in nats["last_error"]


async def test_wildcards_and_cluster_tags(tmp_path: Path) -> None:
    """Each line is stored once, in the cluster it names, or else in the one of its subscription (D-14)."""
    async with open_broker(tmp_path) as broker:
        config = make_config(broker.url, {"hpc.*": "fritz", "gpu.>": "alex"})
        async with watch_log() as log, running(config) as server:
            await log.wait("subscribed to 'gpu.>'")
            await publish(
                broker,
                ("hpc.a", lines(["h1", "h2"])),
                ("gpu.x.y", lines(["g3"]) + lines(["g4"], cluster="fritz")),
                ("hpc.a.b", lines(["h5"])),  # not subscribed
                ("hpc.b", b"nonsense\n" + lines(["h6"])),
            )
            await wait_until(lambda: server.received == 6)
            assert await get_problems(server) == []
        fritz = {("fritz", host): [number(host)] for host in ("g4", "h1", "h2", "h6")}
        assert stored(server.services) == {("alex", "g3"): [3], **fritz}
        total = server.services.ledger.total()
        assert (total["stored"], total["bad_line"], total["received"]) == (5, 1, 6)
        assert {source for source, _, count in server.services.ledger if count} == {"nats"}


async def test_a_subject_listed_twice_is_subscribed_once(tmp_path: Path) -> None:
    """Two tags of one subject: lines that name no cluster go to the first, and each is stored once (D-16)."""
    async with open_broker(tmp_path) as broker:
        config = with_store(
            make_config(broker.url),
            nats_subscriptions=(NatsSubscription("hpc", "fritz"), NatsSubscription("hpc", "alex")),
        )
        async with watch_log() as log, running(config) as server:
            await log.wait("subscribed to 'hpc'")
            await publish(broker, ("hpc", lines(["h1"]) + lines(["h2"], cluster="alex")))
            await wait_until(lambda: server.received >= 2)
        assert stored(server.services) == {("fritz", "h1"): [1], ("alex", "h2"): [2]}
        assert server.services.ledger.total()["overwritten"] == 0


async def test_the_broker_is_killed_and_comes_back(tmp_path: Path) -> None:
    """What is sent after the restart arrives, one reconnect is counted, and readiness tells in between."""
    async with open_broker(tmp_path) as broker:
        async with watch_log() as log, running(make_config(broker.url, {"hpc": "fritz"})) as server:
            await log.wait("subscribed")
            await publish(broker, ("hpc", lines(["h1", "h2"])))
            await wait_until(lambda: server.received == 2)
            await trio.to_thread.run_sync(broker.kill)
            await log.wait("disconnected")
            assert await get_problems(server) == ["nats: connecting"]
            await trio.to_thread.run_sync(broker.start)
            await log.wait("reconnected")
            await log.wait("subscribed")
            assert await get_problems(server) == []
            await publish(broker, *[("hpc", lines([f"h{n}"])) for n in range(3, 100)])
            await wait_until(lambda: server.received == 99)
        assert stored(server.services) == {("fritz", f"h{n}"): [n] for n in range(1, 100)}
        assert server.services.nats.reconnects == 1
        assert server.services.nats.dropped_messages == 0


def large_messages(count: int, hosts: int = 1000) -> Sequence[bytes]:
    """Return messages of about 50 kB, each with lines of hosts of its own."""
    return [lines([f"m{k * hosts + n}" for n in range(hosts)]) for k in range(count)]


async def test_a_slow_store_drops_and_counts(tmp_path: Path) -> None:
    """What the buffer does not hold is dropped, every line of it counted, and shown until it is over."""
    sent, gate = large_messages(60), Gate()
    async with open_broker(tmp_path) as broker:
        config = with_store(make_config(broker.url, {"hpc": "fritz"}), nats_buffer_bytes=MIB)
        async with watch_log() as log, running(config, gate.put_before) as server:
            nats = server.services.nats
            await log.wait("subscribed")
            await publish(broker, *[("hpc", payload) for payload in sent])
            await wait_until(lambda: nats.messages == len(sent))
            assert await get_problems(server) == [
                "nats: dropping messages, the store takes less than the broker sends"
            ]
            assert 0 < nats.dropped_messages < len(sent)
            assert nats.held_bytes <= MIB
            gate.open.set()
            await wait_until(lambda: nats.queued_messages == 0)
            await publish(broker, ("hpc", lines(["h1"])))
            await wait_until(lambda: nats.messages == len(sent) + 1 and nats.queued_messages == 0)
            assert await get_problems(server) == []
        total = server.services.ledger.total()
        assert (
            total["received"] + nats.dropped_lines == sum(map(bytes.count, sent, itertools.repeat(b"\n"))) + 1
        )
        assert total["received"] == total["stored"] == len(stored(server.services))
        assert await log.wait("slow consumer")


async def test_a_slow_store_blocks(tmp_path: Path) -> None:
    """With "block" the broker keeps what does not fit, and everything is stored in the end."""
    sent, gate = large_messages(28), Gate()
    async with open_broker(tmp_path) as broker:
        config = with_store(
            make_config(broker.url, {"hpc": "fritz"}), nats_buffer_bytes=MIB, nats_overflow="block"
        )
        async with watch_log() as log, running(config, gate.put_before) as server:
            await log.wait("subscribed")
            await publish(broker, *[("hpc", payload) for payload in sent])
            await log.wait("reading rests")
            assert (await get_json(server, "/api/stats"))["nats"]["blocked"] is True
            gate.open.set()
            await wait_until(lambda: server.received == 28_000)
        assert server.services.ledger.total()["stored"] == 28_000 == len(stored(server.services))
        assert server.services.nats.dropped_messages == 0
        assert server.services.nats.blocked_seconds > 0


async def test_a_stop_stores_what_was_received(tmp_path: Path, mock_clock: object) -> None:
    """A soft stop hands on all that waits in the buffer, and needs no time for it."""
    sent, gate = large_messages(10), Gate()
    async with open_broker(tmp_path) as broker:
        async with (
            watch_log() as log,
            running(make_config(broker.url, {"hpc": "fritz"}), gate.put_before) as server,
        ):
            await log.wait("subscribed")
            await publish(broker, *[("hpc", payload) for payload in sent])
            await wait_until(lambda: server.services.nats.messages == len(sent))
            server.stop.set()
            await wait_until(lambda: server.services.nats.state == "closed")
            assert server.received == 0
            gate.open.set()
        assert server.services.ledger.total()["stored"] == 10_000
        assert trio.current_time() == 0


async def test_two_servers_in_a_queue_group(tmp_path: Path) -> None:
    """They share the messages: each line is in exactly one of the two stores, and both have some."""
    async with open_broker(tmp_path) as broker:
        configs = [make_config(broker.url, {"hpc": "fritz"}) for _ in range(2)]
        first, second = (evolve(c, nats=evolve(c.nats, queue_group="stores")) for c in configs)
        async with watch_log() as log, running(first) as one, running(second) as two:
            for _ in (one, two):
                await log.wait("subscribed to 'hpc' in queue group 'stores'")
            await publish(broker, *[("hpc", lines([f"h{n}"])) for n in range(500)])
            await wait_until(lambda: one.received + two.received == 500)
        kept: list[Any] = [set(stored(server.services)) for server in (one, two)]
        assert kept[0] | kept[1] == {("fritz", f"h{n}") for n in range(500)}
        assert not kept[0] & kept[1]
        assert all(kept)


async def test_a_refused_subject_shows(tmp_path: Path) -> None:
    """The broker does not permit one of two subjects: readiness names it, and the other one goes on."""
    rules = (
        'authorization {users: [{user: u, password: p, permissions: {subscribe: ["hpc"], publish: ">"}}]}\n'
    )
    async with open_broker(tmp_path, rules) as broker:
        config = make_config(broker.url, {"hpc": "fritz", "secret": "fritz"})
        config = evolve(config, nats=evolve(config.nats, username="u", password="p"))
        async with watch_log() as log, running(config) as server:
            await log.wait("subscribed to 'hpc'")
            assert await get_problems(server) == ["nats: not permitted: secret"]
            assert (await get_json(server, "/api/stats"))["nats"]["refused_subjects"] == ["secret"]
            assert "ccstore_nats_refused_subjects 1.0\n" in (await get(server, "/metrics")).body.decode()
            async with open_client(config.nats) as client:
                await client.publish("hpc", lines(["h1"]))
                await client.flush()
            await wait_until(lambda: server.received == 1)
        assert stored(server.services) == {("fritz", "h1"): [1]}
