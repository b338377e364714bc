"""Servers that misbehave, played by a script: nothing they do ends the client or loses a count."""

import itertools
import logging
from functools import partial

import pytest
import trio
from nats_fake import FakePeer, Script, info, open_fake, open_receiver
from trio.testing import MockClock

from ccstore.config import NatsConfig
from ccstore.server.nats_servers import ServerList
from ccstore.wire.nats_auth import Address

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def fast_clock(mock_clock: MockClock) -> MockClock:
    """A clock that jumps over waiting, but not while bytes are on their way through the kernel."""
    mock_clock.autojump_threshold = 0.05
    return mock_clock


async def behave(peer: FakePeer) -> None:
    """Be a server without faults that sends one message to each subscription."""
    await peer.greet()
    for line in await peer.read_until(b"PING"):
        if line.startswith(b"SUB "):
            await peer.send(b"MSG a %b 2" % line.split()[-1], b"ok")
    await peer.send(b"PONG")
    await peer.serve()


async def misbehave(last: bytes, peer: FakePeer) -> None:
    """Send a good message, then `last`, and wait for the client to leave."""
    await peer.greet()
    await peer.read_until(b"SUB a 1")
    await peer.stream.send_all(b"MSG a 1 5\r\nfirst\r\n" + last)
    await peer.serve()


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unknown control line"),
        (b"\x00\x01\x02\r\n", "unknown control line"),
        (b"x" * 100_000, "too long"),
        (b"MSG a 1 999999999999\r\n", "out of bounds"),
        (b"MSG a 7 1\r\nx\r\n", "subscription never made"),
        (b"MSG a 1 1\r\nxyz\r\n", "longer than announced"),
        (b"PONG\r\nPONG\r\nPONG\r\n", "PONG without a PING"),
        (b'INFO {"max_payload": "x"}\r\n', "wrong type"),
    ],
)
async def test_bytes_that_break_the_protocol(last: bytes, reason: str) -> None:
    """The connection is given up with a reason, and the next one works."""
    async with (
        open_fake(partial(misbehave, last), behave) as server,
        open_receiver(NatsConfig(address=server.url), "a") as receiver,
    ):
        assert reason in await receiver.log.wait("disconnected")
        await receiver.log.wait("reconnected")
        while b"ok" not in receiver.store.payloads:
            await receiver.store.wait(len(receiver.store.payloads) + 1)
        assert reason in receiver.statistics.last_error


@pytest.mark.parametrize("last", [b"", b"MSG a", b"MSG a 1 100\r\n", b"MSG a 1 100\r\nhalf a payload"])
async def test_a_connection_that_ends_in_the_middle(last: bytes) -> None:
    """What was complete is delivered, what was cut off is not, and the next connection is clean."""

    async def end(peer: FakePeer) -> None:
        await peer.greet()
        await peer.read_until(b"SUB a 1")
        await peer.stream.send_all(b"MSG a 1 5\r\nfirst\r\n" + last)

    async with (
        open_fake(end, behave) as server,
        open_receiver(NatsConfig(address=server.url), "a") as receiver,
    ):
        assert await receiver.store.wait(2) == [b"first", b"ok"]
        assert receiver.statistics.reconnects == 1


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "does not start with INFO"),
        (b"-ERR 'maximum connections exceeded'\r\n", "maximum connections exceeded"),
        (b"INFO {\r\n", "not JSON"),
        (b"", "closed by the server"),
        (info(tls_required=True) + b"\r\nPING\r\n", "goes on after INFO"),
        (info() + b"\r\n-ERR 'Authentication Timeout'\r\n", "Authentication Timeout"),
    ],
)
async def test_a_greeting_that_is_none(greeting: bytes, reason: str) -> None:
    """A server that cannot be signed in to is told by its reason, and tried again."""

    async def greet(peer: FakePeer) -> None:
        await peer.stream.send_all(greeting)
        if greeting:
            await peer.serve()

    async with (
        open_fake(greet, behave) as server,
        open_receiver(NatsConfig(address=server.url), "a") as receiver,
    ):
        assert reason in await receiver.log.wait("cannot connect")
        await receiver.log.wait("connected")
        assert (receiver.statistics.failed_connects, receiver.statistics.connects) == (1, 1)


@pytest.mark.parametrize("greeting", [b"", b"INFO", info() + b"\r\n"])
async def test_a_server_that_says_no_more(fast_clock: MockClock, greeting: bytes) -> None:
    """Signing in has a limit in time, wherever the server stops."""

    async def hang(peer: FakePeer) -> None:
        await peer.stream.send_all(greeting)
        await trio.sleep_forever()

    async with (
        open_fake(hang, behave) as server,
        open_receiver(NatsConfig(address=server.url, connect_timeout=3), "a") as receiver,
    ):
        began = trio.current_time()
        assert "no answer in time" in await receiver.log.wait("cannot connect")
        assert trio.current_time() - began == pytest.approx(3)
        assert await receiver.store.wait(1) == [b"ok"]


async def test_a_server_that_vanishes(fast_clock: MockClock) -> None:
    """A peer that is gone without a word is noticed after three ping intervals (no FIN, no RST)."""
    pings = []

    async def vanish(peer: FakePeer) -> None:
        await peer.greet()
        await peer.read_until(b"SUB a 1")
        await peer.send(b"MSG a 1 2", b"hi")
        while line := await peer.read_line():
            pings.append(line)

    async with (
        open_fake(vanish, behave) as server,
        open_receiver(NatsConfig(address=server.url, ping_interval=10), "a") as receiver,
    ):
        await receiver.store.wait(1)
        began = trio.current_time()
        assert "stale" in await receiver.log.wait("disconnected")
        assert 30 <= trio.current_time() - began <= 40
        assert pings == [b"PING"] * 3  # one asks whether we are subscribed, two whether it is there
        assert await receiver.store.wait(2) == [b"hi", b"ok"]


async def test_a_quiet_server_that_answers_is_kept(fast_clock: MockClock) -> None:
    """Silence alone is no fault, as long as pings are answered."""
    async with (
        open_fake(behave) as server,
        open_receiver(NatsConfig(address=server.url, ping_interval=10), "a") as receiver,
    ):
        await receiver.store.wait(1)
        await trio.sleep(200)
        assert receiver.statistics.connects == 1


async def test_the_reason_of_the_server_is_told(fast_clock: MockClock) -> None:
    """An -ERR before the end of a connection is an error in the log, and the reason of the end."""

    async def refuse(peer: FakePeer) -> None:
        await peer.greet()
        await peer.read_until(b"SUB a 1")
        await peer.send(b"-ERR 'Slow Consumer'")

    async with (
        open_fake(refuse, behave) as server,
        open_receiver(NatsConfig(address=server.url), "a") as receiver,
    ):
        assert "(Slow Consumer)" in await receiver.log.wait("disconnected")
        assert any("Slow Consumer" in line for line in receiver.log.at(logging.ERROR))
        await receiver.store.wait(1)


async def test_a_flood_of_pings(fast_clock: MockClock) -> None:
    """However many PINGs come at once, what waits to be sent does not grow with them."""
    answers: list[bytes] = []

    async def flood(peer: FakePeer) -> None:
        await peer.greet()
        await peer.read_until(b"SUB a 1")
        await peer.stream.send_all(b"PING\r\n" * 200_000 + b"MSG a 1 2\r\nok\r\n")
        answers.extend(await peer.serve())

    async with open_fake(flood) as server, open_receiver(NatsConfig(address=server.url), "a") as receiver:
        await receiver.store.wait(1)
    assert 1 <= answers.count(b"PONG") < 1000


async def test_pauses_grow_and_end_at_a_limit(fast_clock: MockClock) -> None:
    """A server that throws us out each time is tried less and less often, but for ever."""
    times: list[float] = []

    async def throw_out(peer: FakePeer) -> None:
        times.append(trio.current_time())
        await peer.greet()

    async with open_fake(throw_out) as server, open_receiver(NatsConfig(address=server.url), "a"):
        await server.wait_connections(14)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.1 <= pauses[0] <= 0.21
    assert all(5.0 <= pause <= 10.1 for pause in pauses[6:])
    assert pauses[3] > pauses[0]


async def test_a_connection_that_held_ends_the_pauses(fast_clock: MockClock) -> None:
    """After a stable connection the first new attempt comes soon."""
    times: list[float] = []

    async def hold(peer: FakePeer) -> None:
        await peer.greet()
        with trio.move_on_after(100):
            await peer.serve()
        times.append(trio.current_time())

    async def throw_out(peer: FakePeer) -> None:
        await peer.greet()

    async def note(peer: FakePeer) -> None:
        times.append(trio.current_time())
        await behave(peer)

    scripts: list[Script] = [*[throw_out] * 5, hold, note]
    async with open_fake(*scripts) as server, open_receiver(NatsConfig(address=server.url), "a") as receiver:
        await receiver.store.wait(1)
    assert times[1] - times[0] <= 0.21


async def test_servers_of_the_cluster_are_learned() -> None:
    """When the configured server dies, one that it told us of is taken, in the same round."""

    async def tell(urls: list[str], peer: FakePeer) -> None:
        await peer.greet()
        await peer.read_until(b"SUB a 1")
        await peer.send(info(connect_urls=urls))
        await peer.read_until(b"PING")

    async with (
        open_fake(behave) as second,
        open_fake(partial(tell, [f"127.0.0.1:{second.port}"])) as first,
        open_receiver(NatsConfig(address=first.url), "a") as receiver,
    ):
        await receiver.log.wait(f"reconnected to {second.url}")
        assert await receiver.store.wait(1) == [b"ok"]


async def test_a_lame_duck_with_two_names_is_not_left_for_itself() -> None:
    """Another address that leads to the same server does not count as another server."""
    url = ""

    async def waddle(peer: FakePeer) -> None:
        await peer.greet(connect_urls=[url.replace("127.0.0.1", "localhost").removeprefix("nats://")])
        await peer.read_until(b"SUB a 1")
        await peer.send(info(ldm=True))
        await peer.serve()

    async with open_fake(waddle) as server:
        url = server.url
        async with open_receiver(NatsConfig(address=server.url), "a") as receiver:
            await receiver.log.wait("no other server takes us")
            assert receiver.statistics.state == "lame duck"
            assert receiver.statistics.connects == 1


async def test_a_lame_duck_is_left_for_the_first_that_answers() -> None:
    """Servers of the cluster that cannot be reached are passed over."""

    async def waddle(urls: list[str], peer: FakePeer) -> None:
        await peer.greet(connect_urls=urls)
        await peer.read_until(b"SUB a 1")
        await peer.send(info(ldm=True))
        assert await peer.read_until(b"UNSUB 1") == [b"PING"]
        await peer.send(b"MSG a 1 4", b"late")
        await peer.serve()

    async def be_other(peer: FakePeer) -> None:
        await peer.greet(server_id="OTHER")
        assert await peer.read_line() == b"SUB a 1"
        await peer.send(b"MSG a 1 2", b"ok")
        await peer.serve()

    async with open_fake(be_other) as other:
        script = partial(waddle, ["127.0.0.1:1", f"127.0.0.1:{other.port}"])
        async with (
            open_fake(script) as server,
            open_receiver(NatsConfig(address=server.url), "a") as receiver,
        ):
            assert await receiver.store.wait(2) == [b"late", b"ok"]
            assert receiver.statistics.failed_connects == 1
            assert receiver.statistics.server == other.url


async def test_a_lame_duck_that_dies_while_we_look_for_another(fast_clock: MockClock) -> None:
    """Its end comes before the other server answers: then it is an ordinary reconnect."""
    dead = trio.Event()

    async def waddle(url: str, peer: FakePeer) -> None:
        await peer.greet(connect_urls=[url])
        await peer.read_until(b"SUB a 1")
        await peer.send(info(ldm=True))
        await other.wait_connections(1)
        dead.set()

    async def late(peer: FakePeer) -> None:
        await dead.wait()
        await behave(peer)

    async with open_fake(late) as other:
        script = partial(waddle, f"127.0.0.1:{other.port}")
        async with (
            open_fake(script) as server,
            open_receiver(NatsConfig(address=server.url), "a") as receiver,
        ):
            assert await receiver.store.wait(1) == [b"ok"]
            assert receiver.statistics.server == other.url


def test_the_list_of_servers() -> None:
    """Configured servers stay, announced ones come and go, and each is tried once a round."""
    one, two = Address("one"), Address("two")
    servers = ServerList((one, two))
    assert [servers.next() for _ in range(2)] == [(one, 0.0), (two, 0.0)]
    servers.learn(one, ("three:1", "two:4222", "[bad"))
    assert servers.others(one) == [two, Address("three", 1)]
    servers.learn(one, ())
    assert len(servers) == 3
    servers.learn(one, ("four:1",))
    assert set(servers.others(one)) == {two, Address("four", 1)}
    order, pauses = zip(*(servers.next() for _ in range(300)), strict=True)
    assert set(order) == {one, two, Address("four", 1)}
    assert max(pauses) <= 10
    assert pauses.count(0.0) >= 200
    servers.start_anew()
    assert servers.next()[1] == 0.0
