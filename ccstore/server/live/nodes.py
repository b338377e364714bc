"""The states of nodes, told to whoever has subscribed to those of a cluster.

Owns what was told last of each cluster, and the one task that reads the registry again after a report. It
knows neither reports nor sessions. Invariant: who got a message with ``reset`` and all that followed has
the objects that the registry held when it was read last, but for the times of reports that said nothing new.

A report of a whole cluster mostly says what the one before said. So what is told is compared, and the time of
the report is left out: an unchanged cluster costs one read in the registry's thread, however many listen.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import trio
from attrs import define, evolve, field

from ccstore.disk.registry import nodes
from ccstore.errors import BusyError
from ccstore.model import NodeFilter, NodeStatus
from ccstore.server.live.feed import Listener
from ccstore.server.live.statistics import LiveStatistics
from ccstore.server.registry import Registry
from ccstore.wire.stream import Body, NodesWanted, encode_nodes

__all__ = ["NodeFeed", "NodeFeeds"]

log = logging.getLogger("ccstore.live")

T = TypeVar("T")

MAX_CLUSTERS = 1000
"""That are listened to; anybody may name one that there is not."""
_PAUSE = 0.02
_SHARE = 2
"""For each second of reading and telling, the task rests for so many."""
_MAX_PAUSE = 1.0
_AT_ONCE = 100
"""Nodes that are compared or encoded before others run: less than a millisecond."""


@define(eq=False)
class NodeFeed:
    """The nodes of one cluster."""

    cluster: str
    listeners: set[Listener] = field(factory=set)
    """Who is up to date, and gets what changes."""
    joiners: set[Listener] = field(factory=set)
    """Who needs all nodes first."""
    is_stale: bool = True
    """Whether there was a report since the registry was read."""
    known: dict[str, NodeStatus] | None = None
    """What was read last, by host."""
    snapshot: Body = ""
    """All of it as a message; "" if it was not needed since."""


class NodeFeeds:
    """All clusters that are listened to."""

    def __init__(self, registry: Registry, statistics: LiveStatistics) -> None:
        self.feeds: dict[str, NodeFeed] = {}
        self._registry = registry
        self._statistics = statistics
        self._wake = trio.Event()

    def join(self, listener: Listener, wanted: NodesWanted) -> None:
        """Let somebody get all nodes of a cluster, and then what changes. Raises BusyError."""
        feed = self.feeds.get(wanted.cluster)
        if feed is None:
            if len(self.feeds) >= MAX_CLUSTERS:
                raise BusyError(f"stream: {MAX_CLUSTERS} clusters are listened to already")
            feed = self.feeds[wanted.cluster] = NodeFeed(wanted.cluster)
        feed.joiners.add(listener)
        self._wake.set()

    def leave(self, listener: Listener, wanted: NodesWanted) -> None:
        """Tell somebody nothing any more."""
        if feed := self.feeds.get(wanted.cluster):
            feed.listeners.discard(listener)
            feed.joiners.discard(listener)
            if not (feed.listeners or feed.joiners):
                del self.feeds[wanted.cluster]

    def note(self, cluster: str) -> None:
        """Take notice of a report that was just stored."""
        if feed := self.feeds.get(cluster):
            feed.is_stale = True
            self._wake.set()

    def awake(self) -> None:
        """Look after those who wait for room."""
        if any(feed.joiners for feed in self.feeds.values()):
            self._wake.set()

    async def run(self) -> None:
        """Read again what was reported, for ever; reports that come while that is under way are one."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            began = trio.current_time()
            for feed in list(self.feeds.values()):
                try:
                    await self._welcome(feed)
                    if feed.is_stale:
                        await self._refresh(feed)
                        await self._welcome(feed)
                except Exception as error:  # a bug, or a row that another program wrote
                    log.error(
                        "bug in the stream of nodes of %(name)r", {"name": feed.cluster}, exc_info=error
                    )
                    self._give_up(feed)
            spent = trio.current_time() - began
            await trio.sleep(min(max(_PAUSE, _SHARE * spent), _MAX_PAUSE))

    async def _refresh(self, feed: NodeFeed) -> None:
        """Read a cluster, and tell what is different."""
        feed.is_stale = False
        found = await self._registry.read(nodes.current_states, NodeFilter(clusters=(feed.cluster,)))
        before, known = feed.known or {}, {node.record.hostname: node for node in found}
        changed = [node for node in await _stepwise(_changes(before, found)) if node is not None]
        feed.known, feed.snapshot = known, ""
        if not feed.listeners:
            return
        if not before.keys() <= known.keys():  # which another program has done
            body = await _encode(found, reset=True)
        elif changed:
            body = await _encode(changed, reset=False)
        else:
            return
        for listener in list(feed.listeners):
            if listener in feed.listeners and not listener.tell([body]):
                feed.listeners.discard(listener)
                self._statistics.lags += 1
                listener.interrupt()
            await trio.lowlevel.checkpoint()  # a message of a whole cluster costs a millisecond

    async def _welcome(self, feed: NodeFeed) -> None:
        """Tell all nodes to those who need that and have room."""
        if feed.known is None or not any(one.is_ready for one in feed.joiners):
            return
        if not feed.snapshot:
            feed.snapshot = await _encode(feed.known.values(), reset=True)
        for listener in list(feed.joiners):
            if listener in feed.joiners and listener.is_ready and listener.tell([feed.snapshot]):
                feed.joiners.discard(listener)
                feed.listeners.add(listener)
            await trio.lowlevel.checkpoint()

    def _give_up(self, feed: NodeFeed) -> None:
        del self.feeds[feed.cluster]
        for listener in [*feed.listeners, *feed.joiners]:
            listener.lose("internal error, see the server's log")


def _changes(before: Mapping[str, NodeStatus], found: Sequence[NodeStatus]) -> Iterator[NodeStatus | None]:
    """Yield each node: what is new of it, or None if there is only a later report that says the same."""
    for node in found:
        old = before.get(node.record.hostname)
        same = old is not None and evolve(old, record=evolve(old.record, time=node.record.time)) == node
        yield None if same else node


async def _encode(some: Iterable[NodeStatus], *, reset: bool) -> Body:
    return b"".join(await _stepwise(encode_nodes(some, reset=reset))).decode()


async def _stepwise(pieces: Iterator[T]) -> list[T]:
    """Make all pieces, some at a time."""
    made: list[T] = []
    while some := list(itertools.islice(pieces, _AT_ONCE)):
        made += some
        await trio.lowlevel.checkpoint()
    return made
