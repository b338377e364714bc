"""What is told: one feed for each thing that somebody has subscribed to, however many have.

A feed owns the messages about it: it makes them, keeps the last of them for clients that come back, and
knows who is to get them. It neither waits nor sends, and does not know connections.

Invariant: whoever gets all messages of `snapshot` and all that are published after it, in their order and
without one missing, knows what the query answers. So who missed one is not told any more before it gets
a new snapshot.
"""

import math
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from attrs import define, field, frozen

from ccstore.memory.watch import Changes, View
from ccstore.model import Metric
from ccstore.wire.stream import (
    Body,
    JobWanted,
    SeriesWanted,
    describe_hosts,
    describe_queries,
    encode_data,
    encode_data_binary,
    encode_series,
)

__all__ = ["Feed", "JobEnd", "Listener", "start_of", "step_of"]

MIB = 1024 * 1024

_KEPT_BYTES = 4 * MIB
"""What is kept for clients that come back, of one feed."""
_KEPT_ENTRIES = 500
_LONGEST_STEP = 3600
_PIECE = 1 << 16
"""Changes in one message; a millisecond or two to encode."""


_DESCRIBED = 1000
"""Series in one message that describes them; a millisecond to encode."""
_NOTHING = Changes(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


class Listener(Protocol):
    """Somebody who is told."""

    def tell(self, bodies: Sequence[Body]) -> bool:
        """Take messages, all or none; False if there is no room for them."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether there is room for a snapshot."""
        ...

    def interrupt(self) -> None:
        """Learn that messages were missed, and ask for a snapshot when there is room again."""
        ...

    def lose(self, reason: str) -> None:
        """Learn that there will be no more messages, because of a bug of ours."""
        ...

    def end(self, body: Body) -> None:
        """Take the last message, whether there is room for it or not."""
        ...


@frozen
class JobEnd:
    """How a job ended."""

    state: str
    stop: int
    """Seconds since the epoch."""


@define(eq=False)
class Feed:
    """Values of series."""

    key: SeriesWanted | JobWanted
    """What clients ask for."""
    wanted: SeriesWanted
    step: int
    """Seconds, see `step_of`."""
    view: View
    metrics: Mapping[str, Metric]
    listeners: set[Listener] = field(factory=set)
    """Who is up to date, and gets what is published."""
    joiners: set[Listener] = field(factory=set)
    """Who needs a snapshot first."""
    absentees: set[Listener] = field(factory=set)
    """Who missed something, and has not asked for a snapshot yet."""
    has_begun: bool = False
    """Whether anybody was told anything."""
    end: JobEnd | None = None
    """Of a job: once it has ended, there is only so much to tell."""
    idle_since: float = math.inf
    """When the last of them left."""
    name: str = field(factory=lambda: secrets.token_hex(8))
    sequence: int = 0
    """Of the last entry that was published."""
    _kept: deque[tuple[int, Sequence[Body]]] = field(factory=deque)
    _kept_bytes: int = 0
    _snapshot: list[Body] = field(factory=list)
    """As it was made last; empty if there was news since."""
    _described: list[dict[str, object]] = field(factory=list)
    _statuses: "np.ndarray[tuple[int], np.dtype[np.int8]]" = field(factory=lambda: np.empty(0, np.int8))
    _hosts: int = 0

    def start_at(self, now: int) -> int:
        """Return where what is told begins at a time (s): at least the window ago."""
        return start_of(self.wanted, self.step, now if self.end is None else min(now, self.end.stop))

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens or wants to."""
        return bool(self.listeners or self.joiners or self.absentees)

    def news(self, changes: Sequence[Changes], *, moved: bool) -> Iterator[Body]:
        """Encode an entry for `publish`, nothing if there is no news; others may run between two messages.

        As long as nobody was told anything, changes are none: who comes first gets a snapshot.
        moved: whether the beginning of the view has moved since the last entry.
        """
        is_news = moved or any(len(one.groups) for one in changes)
        if is_news:
            self._snapshot = []  # also one that was made and that nobody took
        if not self.has_begun:
            changes, is_news = [], moved
        for series in self._new_series():
            is_news = True
            yield series
        if is_news:
            self.sequence += 1
            yield from self._encode(_in_pieces(changes))

    def publish(self, bodies: Sequence[Body]) -> Iterator[bool]:
        """Tell everybody; yield of each whether there was no room, so that it is interrupted.

        Others may run between two: who leaves is not told, who comes back meanwhile has got it by `since`.
        """
        if not bodies:
            return
        self._snapshot = []
        self._keep(bodies)
        for listener in list(self.listeners):
            if listener not in self.listeners:
                continue
            is_lost = not listener.tell(bodies)
            if is_lost:
                self.listeners.discard(listener)
                self.absentees.add(listener)
                listener.interrupt()
            yield is_lost

    def admit(self, snapshot: Sequence[Body]) -> Iterator[None]:
        """Tell the snapshot to all joiners who have room for it; others may run between two."""
        for listener in list(self.joiners):
            if listener in self.joiners and listener.is_ready and listener.tell(snapshot):
                self.joiners.discard(listener)
                self.listeners.add(listener)
                self.has_begun = True
                yield

    def snapshot(self) -> Iterator[Body]:
        """Encode all that was told so far; nothing else may be done with the feed meanwhile.

        Clients often come together, so it is kept until there is news.
        """
        if self._snapshot:
            yield from self._snapshot
            return
        bodies: list[Body] = []
        for series in self._encode_series(range(len(self._described)), reset=True):
            yield series
            bodies.append(series)
        values = (piece for whole in self.view.everything() for piece in _in_pieces([whole]))
        for body in self._encode(values):
            yield body
            bodies.append(body)
        self._snapshot = bodies

    def since(self, token: str) -> list[Body] | None:
        """Return what was published after the message with this token; None if that is not known any more."""
        name, _, number = token.partition(".")
        if name != self.name or not number.isdecimal() or len(number) > 18:
            return None
        known = int(number)
        oldest = self._kept[0][0] if self._kept else self.sequence + 1
        if not oldest - 1 <= known <= self.sequence:
            return None
        return [body for sequence, bodies in self._kept if sequence > known for body in bodies]

    def _new_series(self) -> Iterator[Body]:
        """Describe series that are new, or whose read has begun or ceased to be an error."""
        before, request = self._statuses, self.wanted.request
        if not self._described:
            self._described.extend(describe_queries(request, self.metrics))
        self._described.extend(describe_hosts(request, self.view.hosts[self._hosts :], self.metrics))
        self._hosts = len(self.view.hosts)
        self._statuses = self.view.statuses.copy()
        known = len(before)
        changed = [
            *np.flatnonzero(before != self._statuses[:known]).tolist(),
            *range(known, len(self._statuses)),
        ]
        changed = [g for g in changed if g >= known or max(before[g], self._statuses[g]) > _READABLE]
        if changed:
            yield from self._encode_series(changed, reset=False)

    def _encode_series(self, numbers: Sequence[int], *, reset: bool) -> Iterator[Body]:
        """Encode which series there are, some hundred in a message; at least one message."""
        for first in range(0, max(len(numbers), 1), _DESCRIBED):
            some = numbers[first : first + _DESCRIBED]
            described, statuses = [self._described[g] for g in some], self._statuses[some].tolist()
            yield encode_series(some, described, statuses, reset=reset and not first)

    def _encode(self, pieces: Iterable[Changes]) -> Iterator[Body]:
        """Encode changes. The token is in the last message: only with all is a client up to date."""
        encode = encode_data_binary if self.wanted.binary else encode_data
        start, last = self.view.start, _NOTHING
        for number, piece in enumerate(pieces):
            if number:
                yield encode(last.groups, last.times, last.values, start=start, token="")
            last = piece
        token = f"{self.name}.{self.sequence}"
        yield encode(last.groups, last.times, last.values, start=start, token=token)

    def _keep(self, bodies: Sequence[Body]) -> None:
        self._kept.append((self.sequence, bodies))
        self._kept_bytes += sum(map(len, bodies))
        while self._kept_bytes > _KEPT_BYTES or len(self._kept) > _KEPT_ENTRIES:
            self._kept_bytes -= sum(map(len, self._kept.popleft()[1]))


_READABLE = 1
"""`Status` GOOD and NOTHING are no errors, all that are larger are."""


def _in_pieces(changes: Sequence[Changes]) -> Iterator[Changes]:
    """Put small pieces together and cut large ones; there is at least one, if an empty one."""
    if not changes:
        changes = [_NOTHING]
    groups = np.concatenate([one.groups for one in changes])
    times = np.concatenate([one.times for one in changes])
    values = np.concatenate([one.values for one in changes])
    for first in range(0, max(len(groups), 1), _PIECE):
        part = slice(first, first + _PIECE)
        yield Changes(groups[part], times[part], values[part])


def step_of(wanted: SeriesWanted, metrics: Mapping[str, Metric]) -> int:
    """Return the steps (s) in which the beginning of a feed moves: about an eighth of the window.

    Where data reach further back than a query's beginning, the times of its values go by the beginning. So
    steps are multiples of the frequencies and resolutions, or all values would be told anew after each.
    """
    request = wanted.request
    names = {*(query.metric for query in request.queries), *request.for_all_nodes} & metrics.keys()
    periods = [*(metrics[name].frequency for name in names), *(max(1, q.resolution) for q in request.queries)]
    common = math.lcm(*periods)
    if common > max(wanted.window, _LONGEST_STEP):  # then they are told anew
        common = 1
    return -(-max(1, wanted.window // 8) // common) * common


def start_of(wanted: SeriesWanted, step: int, now: int) -> int:
    """Return where what is told begins at a time (s)."""
    return max(wanted.since, (now - wanted.window) // step * step)
