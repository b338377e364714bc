"""Hand-over without gap or overlap: whoever was told everything knows what the query answers.

Clients come, go, come back with a token, and are slow, while samples are written, freed and pruned; whenever
it is quiet, the table of each client is the answer of `/api/query` for the same range.
"""

import json
import math
from typing import Any

import apiserver
import pytest
import trio
import trio.testing
from apiserver import METRICS
from attrs import define, field
from effort import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from live_tools import Told, decode_binary, messages_in
from service_tools import fill
from serving import NOW

from ccstore.jit import JIT
from ccstore.server import api, upkeep
from ccstore.server.live import hub, session
from ccstore.server.services import Services, make_services
from ccstore.wire.query import decode_query
from ccstore.wire.stream import Body

QUERIES = [
    {"cluster": "c", "queries": [{"metric": "x", "host": "h1"}, {"metric": "load", "host": "h2"}]},
    {"cluster": "c", "queries": [
        {"metric": "m", "host": "h1", "type": "core", "type-ids": ["0", "1"], "aggreg": True},
        {"metric": "plain", "host": "h1", "type": "core", "type-ids": ["0", "1"]},
    ]},
    {"cluster": "c", "for-all-nodes": ["load", "m"]},
]  # fmt: skip

hosts = st.sampled_from(["h1", "h2", "h3"])
lines = st.builds(
    "{},cluster=c,hostname={}{} value={} {}".format,
    st.sampled_from([metric.name for metric in METRICS]),
    hosts,
    st.sampled_from(["", ",type=core,type-id=0", ",type=core,type-id=1"]),
    st.integers(-8, 8).map(lambda k: k / 4),
    st.integers(-400, 60).map(NOW.__add__),
)
acts = st.one_of(
    st.tuples(st.just("write"), st.lists(lines, min_size=1, max_size=8)),
    st.tuples(st.just("write"), st.lists(lines, min_size=1, max_size=8)),
    st.tuples(st.just("free"), st.tuples(hosts, st.integers(-300, 900), st.booleans())),
    st.tuples(st.just("connect"), st.tuples(st.integers(0, 2), st.booleans())),
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("return"), st.integers(0, 3)),
    st.tuples(st.just("stall"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.03, 1.2, 70.0])),
    st.tuples(st.just("quiet"), st.none()),
)


@define(eq=False)
class Client:
    """One client with one subscription; it reads unless it is stalled, and forgets no token."""

    services: Services
    query: Any
    binary: bool
    told: Told = field(factory=Told)
    is_connected: bool = False
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    may_read: trio.Event = field(factory=trio.Event)
    closings: list[Any] = field(factory=list)
    offered: int = 0

    async def run(self) -> None:
        """Connect, subscribe, and take messages until the connection ends."""
        requests, wanted = trio.open_memory_channel[Body](1)
        message = {"op": "subscribe", "id": "a", "query": self.query, "window": 300}
        message |= {"format": "binary"} if self.binary else {}
        message |= {"resume": self.told.token} if self.told.token else {}
        requests.send_nowait(json.dumps(message))
        served = session.Session(
            self.services.hub, lambda: NOW, self._take, self._take_nowait, wanted.receive, lambda: None
        )
        self.is_connected, self.scope = True, trio.CancelScope()
        with self.scope:
            self.closings.append(await served.run())
        self.is_connected = False

    async def _take(self, frames: bytes) -> None:
        await self.may_read.wait()
        self._read(frames)
        await trio.lowlevel.checkpoint()

    def _take_nowait(self, frame: bytes) -> bool:
        """Take a frame at once, but for every third, as if the connection were full."""
        self.offered += 1
        is_taken = self.may_read.is_set() and self.offered % 3 > 0
        if is_taken:
            self._read(frame)
        return is_taken

    def _read(self, frames: bytes) -> None:
        for body in messages_in(frames):
            message = json.loads(body) if isinstance(body, str) else decode_binary(body)
            assert message["op"] != "error"
            if message["op"] == "series" and message["reset"]:
                self.told.token = ""
            self.told.take(message)


def answer(services: Services, query: Any, start: int) -> dict[tuple[int, int], float]:
    """Answer a query as the route does."""
    body = json.dumps({**query, "from": start, "to": 2**59, "with-padding": False}).encode()
    text = b"".join(api._pieces(services, decode_query(body)))
    rows = [row for part in json.loads(text)["results"] for row in part or [{}]]
    return {
        (index, row["from"] + k * row["resolution"]): value
        for index, row in enumerate(rows)
        for k, value in enumerate(row.get("data", ()))
        if value is not None
    }


class World:
    """A server without sockets, and its clients."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.now = NOW
        self.services = make_services(apiserver.make_config(limits={"max_series": 12}), now=lambda: self.now)
        self.nursery = nursery
        self.clients: list[Client] = []
        nursery.start_soon(self.services.hub.run)

    async def do(self, act: str, what: Any) -> None:
        client = self.clients[what % len(self.clients)] if self.clients and isinstance(what, int) else None
        match act:
            case "write":
                await fill(self.services, "\n".join(what).encode())
            case "free":
                await self.free(*what)
            case "connect" if len(self.clients) < 4:
                self.clients.append(Client(self.services, QUERIES[what[0]], what[1]))
                self.clients[-1].may_read.set()
                self.nursery.start_soon(self.clients[-1].run)
            case "leave" if client is not None:
                client.scope.cancel()
            case "return" if client is not None and not client.is_connected:
                self.nursery.start_soon(client.run)
            case "stall" if client is not None:
                client.may_read = trio.Event()
            case "wait":
                self.now += int(what)
                await trio.sleep(what)
            case "quiet":
                await self.check()
        await trio.lowlevel.checkpoint()

    async def free(self, host: str, ago: int, prune: bool) -> None:
        store = self.services.store
        place = store.locate(("c", host), create=False)
        if place >= 0:
            store.free(place, NOW + ago)
            if prune:
                await upkeep._prune(self.services)

    async def check(self) -> None:
        """Let everybody read, wait until nothing happens any more, and compare."""
        for client in self.clients:
            client.may_read.set()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(6)
        for client in self.clients:
            if client.is_connected and client.told.series:
                told = client.told
                expected = answer(self.services, client.query, told.start)
                names = {index: (one["host"], one["metric"]) for index, one in told.series.items()}
                if "for-all-nodes" in client.query:  # hosts of a stream stand in the order in which they came
                    present = self.services.store.hosts("c")
                    order = [(host, metric) for host in present for metric in client.query["for-all-nodes"]]
                    assert {(order[index], time): value for (index, time), value in expected.items()} == {
                        (names[index], time): value for (index, time), value in told.table.items()
                    }
                else:
                    assert expected == told.table
                assert start_is_right(told.start, self.now)


def start_is_right(start: int, now: int) -> bool:
    """Tell whether a window of five minutes begins where it should."""
    return now - 300 - 70 - 60 <= start <= now - 300


@pytest.mark.timeout(600)
@settings(max_examples=EXAMPLES // 3 if JIT else 10, deadline=None)
@given(st.lists(acts, min_size=3, max_size=25), st.sampled_from([1000, 3]))
def test_hand_over(history: list[tuple[str, Any]], queue: int) -> None:
    """Whatever happens, and in whatever order."""
    apiserver.warm_up()

    async def live() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            for act, what in history:
                await world.do(act, what)
            await world.check()
            assert all(not any(client.closings) for client in world.clients)
            nursery.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "MAX_QUEUED", queue)
        patch.setattr(session, "_LITTLE", 1 if queue < 10 else session._LITTLE)
        patch.setattr(session, "_PATIENCE", math.inf)
        patch.setattr(hub, "_STEP", 0.0)  # others run after every piece
        trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
