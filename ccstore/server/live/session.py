"""A session: one websocket, its subscriptions, and the queue of what it is still to be sent.

Owns the connection from the handshake on. A task reads what the client wants. The hub hands over messages
and never waits: where nothing is queued, one goes to the kernel at once, without a turn of any task; what
that does not take is queued, and a task sends it. Invariant: whatever a client sends or does not read, it
gets an error or is closed, and no other session notices.

A full queue means that the client takes less than there is to tell. Then its subscription is interrupted:
what does not fit is not queued; when the queue is empty, the client is told what range it missed and gets
a snapshot. If that goes on, or nothing is taken at all, the connection is closed.
"""

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

import trio
from attrs import define, field, frozen

from ccstore.errors import BusyError, CcstoreError, ProtocolError, QueryError
from ccstore.server.answers import status_of
from ccstore.server.live.hub import Hub
from ccstore.wire.stream import (
    Body,
    JobWanted,
    Subscribe,
    Unsubscribe,
    Wanted,
    decode_request,
    encode_frame,
    encode_text,
    id_in,
)

__all__ = ["Closing", "Session"]

log = logging.getLogger("ccstore.live")

KIB = 1024
MIB = 1024 * KIB

MAX_SUBSCRIPTIONS = 64
"""Of one connection."""
MAX_QUEUED = 1000
"""Messages in the queue of one connection."""
MAX_QUEUED_BYTES = 4 * MIB
"""Of these messages; most are shared with the queues of others. A single snapshot may be larger."""

_LITTLE = 64 * KIB
"""With less in the queue it takes a message of any size."""
_SMALL = 64 * KIB
"""A larger message is not sent at once, for its copy would hold up who hands it over; and so much of what is
queued is sent in one piece."""
_HEARTBEAT = 15.0
"""Seconds without a message after which one is sent that says nothing."""
_PATIENCE = 30.0
"""Seconds for which a client may lag, or leave a message untaken."""
_RECOVERY = 60.0
"""Seconds without a lag after which a client counts as one that keeps up again."""
_LARGE = 32 * KIB
"""A larger message is decoded in a thread."""

_MAX_REASON = 100
"""A reason for closing has at most 123 bytes."""

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # RFC 6455, 7.4.1, and the registry it made


@frozen
class Closing:
    """How the server ends a connection."""

    code: int
    reason: str


@define(eq=False)
class Subscription:
    """One subscription of one session."""

    session: "Session"
    name: str
    wanted: Wanted
    missed_since: int | None = None
    """Seconds since the epoch at which it was interrupted."""

    @property
    def is_ready(self) -> bool:
        """Whether there is room for a snapshot: one at a time may be larger than the queue."""
        return self.session.is_ready()

    def tell(self, bodies: Sequence[Body]) -> bool:
        """Queue messages, all or none; False if there is no room for them."""
        return self.session.offer(self.name, bodies)

    def interrupt(self) -> None:
        """Learn that messages were missed, and ask for a snapshot when there is room again."""
        self.missed_since = self.session.now()
        self.session.interrupt(self)

    def lose(self, reason: str) -> None:
        """Tell the client that there will be no more messages, because of a bug of ours."""
        self.session.lose(self, reason)

    def end(self, body: Body) -> None:
        """Tell the client the last there is to tell."""
        self.session.end(self, body)


@define(eq=False)
class Session:
    """One connection.

    now: tells the wall clock in whole seconds.
    send: sends websocket frames.
    send_nowait: sends a frame if there is no need to wait; False if there is.
    receive: waits for a message.
    check_token: raises AuthenticationError once the client's token does not hold any more.
    """

    hub: Hub
    now: Callable[[], int]
    send: Callable[[bytes], Awaitable[None]]
    send_nowait: Callable[[bytes], bool]
    receive: Callable[[], Awaitable[Body]]
    check_token: Callable[[], None]
    at_end: Callable[[], None] = field(init=False, default=lambda: None)
    """Called when it is to be closed; a message under way to a client that takes nothing may keep it."""
    _subscriptions: dict[str, Subscription] = field(factory=dict)
    _searches: dict[str, trio.CancelScope] = field(factory=dict)
    """The subscriptions whose jobs are still looked up."""
    _looking_up: int = 0
    """Tasks that do so; one that was cancelled may take a moment more."""
    _interrupted: list[Subscription] = field(factory=list)
    _queue: deque[tuple[str, Body]] = field(factory=deque)
    _queued_bytes: int = 0
    _nursery: trio.Nursery = field(init=False)
    """Of the task that sends what is queued, while something is."""
    _is_sending: bool = False
    _is_waited_for: bool = False
    """Whether a snapshot was held back until the queue is empty."""
    _room: trio.Event = field(factory=trio.Event)
    """Set when the queue becomes less than half full."""
    _idle_since: float = field(factory=trio.current_time)
    """When the last message was sent, or one was queued after a rest."""
    _lagging_since: float = -math.inf
    _lagged_at: float = -math.inf
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _closing: Closing | None = None

    async def run(self) -> Closing | None:
        """Serve the client until it leaves or is to be closed; return how it is to be closed."""
        self.hub.statistics.connections += 1
        self.hub.pulses.add(self._pulse)
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    try:
                        await self._read()
                    finally:  # here the nursery is still open: who is told something may need it
                        self._leave()
        finally:
            self.hub.statistics.connections -= 1
        return self._closing

    def close(self, code: int, reason: str) -> None:
        """Let the connection be closed."""
        if self._closing is None:
            self._closing = Closing(code, reason)
            self.at_end()
        self._scope.cancel()

    def _leave(self) -> None:
        """Be told nothing any more."""
        self.hub.pulses.discard(self._pulse)
        for subscription in self._subscriptions.values():
            self.hub.unsubscribe(subscription, subscription.wanted)
        self._interrupted.clear()
        self._searches.clear()  # one that is done all the same leads to nothing

    # --- what the client wants

    async def _read(self) -> None:
        while True:
            await self._follow(await self.receive())  # and keep no message while it waits for the next one

    async def _follow(self, message: Body) -> None:
        while len(self._queue) > MAX_QUEUED // 2:  # who does not read is not answered
            self._room = trio.Event()
            await self._room.wait()
        try:
            if not isinstance(message, str):  # Quart makes None of no bytes
                raise ProtocolError("message: bytes (wanted text)")
            match await _decode(message):
                case Unsubscribe(name):
                    self._unsubscribe(name)
                case Subscribe(name) as request:
                    self._check(name)
                    if isinstance(request.wanted, JobWanted):
                        scope = self._searches[name] = trio.CancelScope()
                        self._looking_up += 1
                        self._nursery.start_soon(self._look_up, request, scope)
                    else:
                        made = Subscription(self, name, request.wanted)
                        self._enter(made, self.hub.subscribe(made, request.wanted, request.resume))
        except CcstoreError as error:
            self._refuse(id_in(message) or "", error)

    def _check(self, name: str) -> None:
        """Refuse one more subscription of this name if there may be none."""
        if name in self._subscriptions or name in self._searches:
            raise QueryError(f"id: {name!r} is subscribed already")
        if len(self._subscriptions) + self._looking_up >= MAX_SUBSCRIPTIONS:
            raise BusyError(f"stream: {MAX_SUBSCRIPTIONS} subscriptions on this connection already")

    def _refuse(self, name: str, error: CcstoreError) -> None:
        self.hub.statistics.refused += 1
        self._put(name, encode_text("error", status=status_of(error) or 400, error=str(error)))

    def _enter(self, subscription: Subscription, bodies: Sequence[Body]) -> None:
        """Queue the first messages at once, whatever is in the queue: what comes next must be behind them."""
        for body in bodies:
            self._put(subscription.name, body)
        self._subscriptions[subscription.name] = subscription

    async def _look_up(self, request: Subscribe, scope: trio.CancelScope) -> None:
        """Find the job that is wanted, while others are served; then subscribe."""
        assert isinstance(request.wanted, JobWanted)
        name = request.id
        try:
            with scope:
                found = await self.hub.find_job(request.wanted)
                # from here on nothing is awaited: a job that stops now has to find who follows it
                if self._searches.get(name) is scope:
                    made = Subscription(self, name, found.wanted)
                    self._enter(made, self.hub.follow(made, found, request.resume))
        except CcstoreError as error:
            if self._searches.get(name) is scope:
                self._refuse(name, error)
        except Exception as error:  # a bug, or a row that another program wrote
            log.error("bug in the look-up of %(wanted)r", {"wanted": request.wanted}, exc_info=error)
            if self._searches.get(name) is scope:
                self._put(
                    name, encode_text("error", status=500, error="internal error, see the server's log")
                )
        finally:
            self._looking_up -= 1
            if self._searches.get(name) is scope:
                del self._searches[name]

    def _unsubscribe(self, name: str) -> None:
        if (scope := self._searches.pop(name, None)) is not None:
            scope.cancel()
        elif (subscription := self._subscriptions.pop(name, None)) is not None:
            self._forget(subscription)
        else:
            raise QueryError(f"id: {name!r} is not subscribed")
        self._put(name, encode_text("unsubscribed"))

    def _forget(self, subscription: Subscription) -> None:
        self.hub.unsubscribe(subscription, subscription.wanted)
        if subscription in self._interrupted:
            self._interrupted.remove(subscription)

    # --- what it is sent

    def is_ready(self) -> bool:
        """Tell whether there is room for a snapshot; if not, the hub is woken when there is."""
        ready = self._queued_bytes < _LITTLE
        self._is_waited_for = self._is_waited_for or not ready
        return ready

    def offer(self, name: str, bodies: Sequence[Body]) -> bool:
        """Queue messages about a subscription, all or none; False if there is no room for them."""
        size = sum(map(len, bodies))
        if self._queued_bytes >= _LITTLE and (
            len(self._queue) + len(bodies) > MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES
        ):
            return False
        for body in bodies:
            self._put(name, body)
        return True

    def interrupt(self, subscription: Subscription) -> None:
        """Go on with a subscription when the queue is empty, but not for ever."""
        self._interrupted.append(subscription)
        now = trio.current_time()
        if now - self._lagged_at > _RECOVERY:
            self._lagging_since = now
        self._lagged_at = now
        if now - self._lagging_since > _PATIENCE:
            self._close_slow()

    def lose(self, subscription: Subscription, reason: str) -> None:
        """Forget a subscription that has ended by a bug of ours."""
        del self._subscriptions[subscription.name]
        self._forget(subscription)
        self._put(subscription.name, encode_text("error", status=500, error=reason))

    def end(self, subscription: Subscription, body: Body) -> None:
        """Forget a subscription of which this is the last message."""
        del self._subscriptions[subscription.name]
        self._forget(subscription)
        self._put(subscription.name, body)

    def _put(self, name: str, body: Body) -> None:
        """Send a message at once, or queue it."""
        if not self._queue:
            self._idle_since = trio.current_time()
            if len(body) <= _SMALL and self.send_nowait(encode_frame(name, body)):
                self._count_sent(body)
                return
        self._queue.append((name, body))
        self._queued_bytes += len(body)
        if not self._is_sending:
            self._is_sending = True
            self._nursery.start_soon(self._send_queued)

    async def _send_queued(self) -> None:
        """Send what is in the queue, small messages together; a message leaves it when it was sent."""
        queue = self._queue
        while queue or self._interrupted or self._is_waited_for:
            while queue:
                frames = list(self._next_frames())
                await self.send(b"".join(frames))
                for _ in frames:
                    _, body = queue.popleft()
                    self._queued_bytes -= len(body)
                    self._count_sent(body)
                self._idle_since = trio.current_time()
                if len(queue) <= MAX_QUEUED // 2:
                    self._room.set()
            self._resume_interrupted()
            if self._is_waited_for:
                self._is_waited_for = False
                self.hub.awake()
        self._is_sending = False

    def _next_frames(self) -> Iterator[bytes]:
        size = 0
        for name, body in self._queue:
            size += len(body)
            if size > _SMALL and size > len(body):
                return
            yield encode_frame(name, body)

    def _count_sent(self, body: Body) -> None:
        self.hub.statistics.sent_messages += 1
        self.hub.statistics.sent_bytes += len(body)

    def _resume_interrupted(self) -> None:
        for subscription in self._interrupted:
            body = encode_text("lagged", **{"from": subscription.missed_since, "to": self.now()})
            self._put(subscription.name, body)
            self.hub.rejoin(subscription, subscription.wanted)
            subscription.missed_since = None
        self._interrupted.clear()

    # --- what is due

    def _pulse(self) -> None:
        """Look, once a second, after the token, the silence and the client that does not read."""
        try:
            self.check_token()
        except CcstoreError as error:
            self.close(POLICY_VIOLATION, str(error)[:_MAX_REASON])
            return
        idle = trio.current_time() - self._idle_since
        if self._queue and idle > _PATIENCE:
            self._close_slow()
        elif not self._queue and idle >= _HEARTBEAT:
            self._put("", encode_text("heartbeat", time=self.now()))

    def _close_slow(self) -> None:
        self.hub.statistics.closed_slow += self._closing is None
        self.close(TRY_AGAIN_LATER, "too slow: more was to tell than was read")


async def _decode(text: str) -> Subscribe | Unsubscribe:
    if len(text) > _LARGE:
        return await trio.to_thread.run_sync(decode_request, text)
    return decode_request(text)
