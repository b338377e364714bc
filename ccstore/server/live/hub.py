"""The hub: looks for what is new, and hands it out to whoever has subscribed.

Owns the feeds and the one task that refreshes them. What comes in costs a kernel over the series of a batch
that stamps those that are watched, and nothing if nobody is subscribed. The task reads what was stamped,
encodes what is different once for each feed, and hands it to the sessions, which send it at once.

Invariant: the work for streams, sending included, takes at most one part in `_SHARE` + 1 of the time of the
event loop; beyond that, messages come less often and have more in them. So what comes in has the right of
way, and a client that asks for much makes streams slower and nothing else.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import trio
from attrs import define, evolve, field

from ccstore.config import Config
from ccstore.errors import BusyError, QueryError, UnavailableError
from ccstore.memory.query import Reader, count_selectors
from ccstore.memory.resample import MINIMUM_POINTS
from ccstore.memory.store import Store
from ccstore.memory.watch import Marks, View
from ccstore.model import Batch, Job, JobKey
from ccstore.server.live.feed import Feed, JobEnd, Listener, start_of, step_of
from ccstore.server.live.jobs import Followed, end_of, key_of
from ccstore.server.live.nodes import NodeFeeds
from ccstore.server.live.statistics import LiveStatistics
from ccstore.server.registry import Registry
from ccstore.wire.stream import (
    MAX_WINDOW,
    Body,
    JobWanted,
    NodesWanted,
    SeriesWanted,
    ServerWanted,
    Wanted,
    encode_ended,
    encode_subscribed,
    encode_text,
)

__all__ = ["Hub"]

log = logging.getLogger("ccstore.live")

T = TypeVar("T")

MAX_FEEDS = 1000
MAX_SERIES = 50_000
"""Of one subscription; each costs half a kilobyte."""
MAX_VALUES = 2_000_000
"""Of one subscription; each costs eight bytes, and is read again when one of its series changes."""

_PAUSE = 0.02
"""Seconds between two looks at least: many senders' messages become one."""
_SHARE = 2
"""For each second of work the task rests for so many."""
_MAX_PAUSE = 1.0
_PULSE = 1.0
_LINGER = 30.0
"""Seconds for which a feed without listeners goes on, for clients that come back."""
_STEP = 0.001
"""Seconds of work before others run."""
_GROWTH = 3600
"""Seconds for which a job has room when it is subscribed to; then room grows with it."""


@define(eq=False)
class ServerFeed:
    """The server's own numbers."""

    wanted: ServerWanted
    listeners: set[Listener] = field(factory=set)
    due: float = 0.0
    """When the next message is to be sent."""


class Hub:
    """All streams of one server.

    registry: knows the nodes.
    now: tells the wall clock in whole seconds.
    """

    def __init__(self, store: Store, config: Config, registry: Registry, *, now: Callable[[], int]) -> None:
        main = config.main
        self.statistics = LiveStatistics()
        self.feeds: dict[SeriesWanted | JobWanted, Feed] = {}
        self.nodes = NodeFeeds(registry, self.statistics)
        self.server_feeds: dict[ServerWanted, ServerFeed] = {}
        self.numbers: Callable[[], dict[str, Any]] = dict
        """Returns the server's own numbers; whoever makes the application sets it, and the next one."""
        self.find_job: Callable[[JobWanted], Awaitable[Followed]] = _find_nothing
        """Finds the job that somebody wants to follow."""
        self.pulses: set[Callable[[], None]] = set()
        """Called every second."""
        self._store, self._config = store, config
        self._now = now
        self._marks = Marks(len(store.columns.series))
        self.max_series = min(main.max_query_selectors or MAX_SERIES, MAX_SERIES)
        """Of one subscription."""
        self._strict = main.strict_reference
        self._minimum = main.resampling.minimum_points if main.resampling else MINIMUM_POINTS
        self._reader: Reader | None = None
        self._wake = trio.Event()
        self._first_news = 0.0
        self._epoch = self._freed = -1
        self._worked = self._resumed = 0.0
        """Seconds of work since the last rest, and when the work in hand began."""
        self._dropped: list[Feed] = []
        """Whose series are still watched."""
        self._searches: list[dict[JobKey, Job]] = []

    # --- what comes in

    def note(self, batch: Batch) -> None:
        """Take notice of a batch that was just appended."""
        if self.feeds and (self._marks.note(batch) or self._store.index.epoch != self._epoch):
            self.awake()

    def end_job(self, job: Job) -> None:
        """Let everybody who follows a job learn that it has ended, after the changes up to then."""
        key = key_of(job)
        for stopped in self._searches:
            stopped[key] = job
        for feed in self.feeds.values():
            if isinstance(feed.key, JobWanted) and feed.key.query.job == key:
                feed.end = end_of(job)
                self.awake()

    @contextmanager
    def searching(self) -> Iterator[dict[JobKey, Job]]:
        """Collect the jobs that end meanwhile: who looks one up may have read the state from before."""
        stopped: dict[JobKey, Job] = {}
        self._searches.append(stopped)
        try:
            yield stopped
        finally:
            self._searches[:] = [other for other in self._searches if other is not stopped]

    # --- who is told

    def subscribe(
        self, listener: Listener, wanted: SeriesWanted | NodesWanted | ServerWanted, resume: str
    ) -> list[Body]:
        """Let somebody be told from now on; return what is to be told at once.

        Raises QueryError or BusyError if that is too much.
        """
        match wanted:
            case ServerWanted():
                server_feed = self.server_feeds.setdefault(wanted, ServerFeed(wanted))
                server_feed.listeners.add(listener)
                return [encode_subscribed(resumed=False), self._encode_numbers()]
            case NodesWanted():
                self.nodes.join(listener, wanted)
                return [encode_subscribed(resumed=False)]
            case SeriesWanted():
                feed = self.feeds.get(wanted) or self._make(wanted, wanted, None)
                return self._enter(feed, listener, resume, None)

    def follow(self, listener: Listener, found: Followed, resume: str) -> list[Body]:
        """Let somebody be told of a job, as `subscribe` does."""
        feed = self.feeds.get(found.wanted)
        if feed is None:
            assert found.series is not None, "the feed of a job has gone while the job was looked up"
            feed = self._make(found.wanted, found.series, end_of(found.job))
        if feed.end is None:
            feed.end = end_of(found.job)
        if feed.end is not None:
            self.awake()
        return self._enter(feed, listener, resume, found.job)

    def _enter(self, feed: Feed, listener: Listener, resume: str, job: Job | None) -> list[Body]:
        missed = feed.since(resume)
        if missed is None:
            self.join(feed, listener)
            return [encode_subscribed(resumed=False, job=job)]
        feed.listeners.add(listener)
        return [encode_subscribed(resumed=True, job=job), *missed]

    def join(self, feed: Feed, listener: Listener) -> None:
        """Let somebody get a snapshot and what comes after it."""
        feed.joiners.add(listener)
        feed.absentees.discard(listener)
        self.awake()

    def rejoin(self, listener: Listener, wanted: Wanted) -> None:
        """Let somebody who missed something get a snapshot."""
        assert not isinstance(wanted, ServerWanted), "these numbers are never late"
        if isinstance(wanted, NodesWanted):
            self.nodes.join(listener, wanted)
            self.awake()
        else:
            self.join(self.feeds[wanted], listener)

    def unsubscribe(self, listener: Listener, wanted: Wanted) -> None:
        """Tell somebody nothing any more."""
        if isinstance(wanted, NodesWanted):
            self.nodes.leave(listener, wanted)
        elif isinstance(wanted, ServerWanted):
            server_feed = self.server_feeds[wanted]
            server_feed.listeners.discard(listener)
            if not server_feed.listeners:
                del self.server_feeds[wanted]
        elif feed := self.feeds.get(wanted):
            feed.listeners.discard(listener)
            feed.joiners.discard(listener)
            feed.absentees.discard(listener)
            if not feed.is_wanted:
                feed.idle_since = trio.current_time()

    def _make(self, key: SeriesWanted | JobWanted, wanted: SeriesWanted, end: JobEnd | None) -> Feed:
        wanted = self._check(wanted, may_shorten=isinstance(key, JobWanted))
        metrics = self._config.metrics
        step, now = step_of(wanted, metrics), self._now() if end is None else end.stop
        start = start_of(wanted, step, now)
        if self._reader is None:  # eight megabytes, for those who have streams
            self._reader = Reader(self._store.columns, strict=self._strict, minimum_points=self._minimum)
        span = min(wanted.window + step, max(0, now - wanted.since) + _GROWTH)
        view = View(self._store, self._marks, self._reader, wanted.request, start=start, span=span)
        feed = self.feeds[key] = Feed(key, wanted, step, view, metrics, end=end)
        return feed

    def _check(self, wanted: SeriesWanted, *, may_shorten: bool) -> SeriesWanted:
        """Refuse what is too much; or shorten its window, which then is `MAX_WINDOW` if it is 0."""
        request, store, metrics = wanted.request, self._store, self._config.metrics
        if len(request.queries) > self.max_series or (
            (count := count_selectors(store, request)) > self.max_series
        ):
            raise QueryError(f"query: more series than {self.max_series} (wanted fewer)")
        step = min([60, *(metrics[name].frequency for name in _names(wanted) if name in metrics)])
        if may_shorten:
            most = MAX_VALUES // max(1, count) * step
            wanted = evolve(wanted, window=min(wanted.window or MAX_WINDOW, most))
        if count * (wanted.window // step) > MAX_VALUES:
            raise QueryError(
                f"window: {wanted.window} s of {count} series (wanted at most {MAX_VALUES} values)"
            )
        if len(self.feeds) >= MAX_FEEDS and not self._drop_idle(0.0):
            raise BusyError(f"stream: {MAX_FEEDS} different subscriptions already")
        return wanted

    # --- the task

    async def run(self) -> None:
        """Hand out what is new, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulse)
            nursery.start_soon(self.nodes.run)
            while True:
                await self._wake.wait()
                self._worked = 0.0
                self._go_on()
                await self._look()
                await trio.lowlevel.checkpoint()  # those who send what was queued: their turn counts
                self._worked += trio.current_time() - self._resumed
                await trio.sleep(min(max(_PAUSE, _SHARE * self._worked), _MAX_PAUSE))

    def awake(self) -> None:
        """Let the task look for what is new."""
        if not self._wake.is_set():
            self._first_news = trio.current_time()
            self._wake.set()

    async def _look(self) -> None:
        """Refresh every feed."""
        first_news, self._wake = self._first_news, trio.Event()
        self._epoch = self._store.index.epoch
        self._unwatch_dropped()
        if self._store.freed != self._freed:
            self._freed = self._store.freed
            for feed in self.feeds.values():
                feed.view.touch()
        for feed in list(self.feeds.values()):
            if feed in self._dropped:
                continue
            try:
                await self._refresh(feed, first_news)
            except Exception as error:  # a bug of ours; like that of a query, it must not take the store away
                log.error("bug in the stream of %(wanted)r", {"wanted": feed.key}, exc_info=error)
                self._give_up(feed)
            await self._breathe()
        self.nodes.awake()
        took = trio.current_time() - first_news
        self.statistics.delay_seconds_max = max(self.statistics.delay_seconds_max, took)

    async def _refresh(self, feed: Feed, first_news: float) -> None:
        """Tell all that is new of a feed, then all there is to those who join, then its end."""
        before, end = feed.view.start, feed.end  # one that comes meanwhile is told next time
        feed.view.advance(feed.start_at(self._now()))
        if end is not None:
            feed.view.end(end.stop)
        changes = [one for one in await self._stepwise(feed.view.refresh()) if one is not None]
        bodies = await self._stepwise(feed.news(changes, moved=feed.view.start > before))
        lost = await self._stepwise(feed.publish(bodies))
        if lost:
            self.statistics.lags += sum(lost)
            self.statistics.delays.observe(trio.current_time() - first_news)
        if any(listener.is_ready for listener in feed.joiners):
            snapshot = await self._stepwise(feed.snapshot())
            await self._stepwise(feed.admit(snapshot))
        if end is not None and feed.listeners:
            body = encode_ended(end.state, end.stop)
            for listener in list(feed.listeners):
                listener.end(body)

    async def _stepwise(self, pieces: Iterator[T]) -> list[T]:
        """Make all pieces, a millisecond at a time."""
        made: list[T] = []
        for piece in pieces:
            made.append(piece)
            await self._breathe()
        return made

    async def _breathe(self) -> None:
        """Let others run after a millisecond of work; what they do meanwhile is not counted."""
        now = trio.current_time()
        if now >= self._resumed + _STEP:
            self._worked += now - self._resumed
            await trio.lowlevel.checkpoint()
            self._go_on()

    def _go_on(self) -> None:
        self._resumed = trio.current_time()

    def _give_up(self, feed: Feed) -> None:
        self._drop(feed)
        for listener in [*feed.listeners, *feed.joiners, *feed.absentees]:
            listener.lose("internal error, see the server's log")

    def _drop(self, feed: Feed) -> None:
        if self.feeds.get(feed.key) is feed:  # who was idle may have been dropped while it was refreshed
            del self.feeds[feed.key]
            self._dropped.append(feed)

    def _unwatch_dropped(self) -> None:
        """Take no more notice of series that only dropped feeds were about.

        Not when a feed is dropped: another one may just be finding its series, and has not all of them yet.
        """
        if self._dropped:
            series = np.concatenate([feed.view.series for feed in self._dropped])
            self._marks.unwatch(series, [feed.view.series for feed in self.feeds.values()])
            self._dropped.clear()

    async def _pulse(self) -> None:
        """Do what is due each second: move windows, tell the server's numbers, forget idle feeds."""
        while True:
            await trio.sleep(_PULSE)
            self._go_on()
            for call in list(self.pulses):
                if call in self.pulses:
                    call()
                await self._breathe()  # a token that was not seen lately costs 0.1 ms
            self._drop_idle(_LINGER)
            now = self._now()
            moved = any(feed.start_at(now) > feed.view.start for feed in self.feeds.values())
            if moved or (self.feeds and self._store.freed != self._freed):
                self.awake()
            self._tell_numbers()

    def _drop_idle(self, seconds: float) -> bool:
        """Forget feeds that were idle for so long; tell whether there was one."""
        idle = [
            feed
            for feed in self.feeds.values()
            if trio.current_time() - feed.idle_since >= seconds and not feed.is_wanted
        ]
        for feed in idle:
            self._drop(feed)
        return bool(idle)

    def _tell_numbers(self) -> None:
        due = [feed for feed in self.server_feeds.values() if trio.current_time() >= feed.due]
        if due:
            body = self._encode_numbers()
            for feed in due:
                feed.due = trio.current_time() + feed.wanted.interval - _PULSE / 2
                for listener in list(feed.listeners):
                    listener.tell([body])  # who has no room for it gets the next one

    def _encode_numbers(self) -> Body:
        return encode_text("server", time=self._now(), stats=self.numbers())


async def _find_nothing(wanted: JobWanted) -> Followed:
    raise UnavailableError(f"job {wanted.query.job.job_id}: nobody knows jobs here")


def _names(wanted: SeriesWanted) -> Iterator[str]:
    for query in wanted.request.queries:
        yield query.metric
    yield from wanted.request.for_all_nodes
