"""When a simulated site sends: the past as fast as it can, then each interval in time.

Owns the clock of a simulation. Knows neither what is sent nor where to. Invariant: no interval is left
out, and the next one begins when it is known what became of the last; whoever is too slow is late,
and says how much.

An interval is due at a full multiple of its length, as seen by all clocks of a site, and the hosts
follow within the skew. That is how a store meets its load: nothing for most of a minute, then
everything at once.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import trio
from attrs import define, field, frozen

from ccstore.cli.publish import Publisher
from ccstore.cli.site import Message, Site

__all__ = ["Player", "Schedule"]


@frozen
class Schedule:
    """When to send how much."""

    interval: int = 60
    """Seconds."""
    skew: float = 0.0
    """Seconds between the first host and the last."""
    batch: int = 1
    """Hosts a message."""
    ticks: int = 1
    """Of a timestamp, in a second."""
    history: float = 0.0
    """Seconds of the past to begin with."""
    duration: float = math.inf
    """Seconds after the past until the end."""
    rate: float = math.inf
    """Lines a second, at most."""


@define(eq=False)
class Player:
    """Plays a site to a publisher; what it is doing can be read at any time."""

    site: Site
    publisher: Publisher
    schedule: Schedule
    now: Callable[[], float]
    """The wall clock (s)."""
    time: int = 0
    """The interval in hand (s), or the next one."""
    begin: int = 0
    """The first interval (s)."""
    in_past: bool = True
    """Whether the past is being filled in."""
    hosts_done: int = 0
    """In the interval in hand."""
    lines_done: int = 0
    """In the interval in hand, or in the past as a whole."""
    seconds_spent: float = 0.0
    """For these lines."""
    intervals: int = 0
    """Done, those of the past included."""
    lag: float = 0.0
    """Seconds that the latest message of the present was behind its time."""
    longest_lag: float = 0.0
    _free: float = field(default=-math.inf, init=False)
    """When the rate allows the next message, by Trio's clock."""

    async def play_past(self) -> None:
        """Fill in the past, which goes on while this is done; to be called first, also if there is none."""
        interval, skew = self.schedule.interval, self.schedule.skew
        past = int(self.schedule.history / interval) * interval
        self.time = self.begin = math.ceil(self.now() / interval) * interval - past
        began, at_once = trio.current_time(), 1
        while past and self.time + skew <= self.now():
            count = min(at_once, int(self.now() - skew - self.time) // interval + 1)
            times = range(self.time, self.time + count * interval, interval)
            # Several intervals are one message, since the order of two is open until both have settled.
            most_bytes = self.publisher.most_bytes if count == 1 else sys.maxsize
            size = await self._send_together(chain.from_iterable(map(self._messages, times)), most_bytes)
            await self.publisher.settle()
            self.seconds_spent = trio.current_time() - began
            self.intervals += count
            self.time = times.stop
            at_once = max(1, int(0.9 * self.publisher.most_bytes * count / size))
        self.in_past = False

    async def play_present(self, *, told: Callable[[], None] = lambda: None) -> None:
        """Send each interval in time until the duration is over; calls `told` after each."""
        end = self.now() + self.schedule.duration
        while self.time <= end:
            await self._sleep_until(self.time)
            await self._play_interval()
            told()
            self.time += self.schedule.interval
        if math.isfinite(end):
            await self._sleep_until(end)

    async def _send_together(self, messages: Iterable[Message], most_bytes: int) -> int:
        """Send messages put together up to a size; return how large all of them were."""
        waiting: list[Message] = []
        total = size = 0
        for message in messages:
            if waiting and size + len(message.payload) > most_bytes:
                await self._publish(_joined(waiting))
                waiting, size = [], 0
            waiting.append(message)
            size += len(message.payload)
            total += len(message.payload)
            await trio.lowlevel.checkpoint()  # making them takes its time, too
        await self._publish(_joined(waiting))
        return total

    async def _play_interval(self) -> None:
        began = trio.current_time()
        self.hosts_done = self.lines_done = 0
        for message in self._messages(self.time):
            due = self.time + message.offset
            await self._sleep_until(due)
            await self._publish(message)
            self.hosts_done += message.hosts
            self.lag = max(0.0, self.now() - due)
            self.longest_lag = max(self.longest_lag, self.lag)
            self.seconds_spent = trio.current_time() - began
        await self.publisher.settle()
        self.seconds_spent = trio.current_time() - began
        self.intervals += 1

    def _messages(self, time: int) -> Iterator[Message]:
        schedule = self.schedule
        return self.site.messages(time, batch=schedule.batch, skew=schedule.skew, ticks=schedule.ticks)

    async def _publish(self, message: Message) -> None:
        await trio.sleep_until(self._free)
        self._free = max(self._free, trio.current_time()) + message.lines / self.schedule.rate
        await self.publisher.publish(message)
        self.lines_done += message.lines

    async def _sleep_until(self, time: float) -> None:
        """Sleep until the wall clock shows a time."""
        await trio.sleep(max(0.0, time - self.now()))


def _joined(messages: list[Message]) -> Message:
    return Message(
        b"".join(message.payload for message in messages),
        sum(message.lines for message in messages),
        sum(message.hosts for message in messages),
        messages[-1].offset,
    )
