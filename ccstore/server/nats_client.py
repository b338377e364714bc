"""The NATS client: stays connected for ever, takes in what arrives, sends what is published.

Owns the life of the connections (one at a time, two while leaving a lame duck) and the
subscriptions. Bytes are `wire.nats`, one connection is `nats_link`, the choice of the server is
`nats_servers`, waiting messages are `nats_backlog`. Invariant: a subscription made once is made
again at every connection, until the end of the client.

Three tasks share a connection, and each waits for one thing only: the reader for the socket, the
writer for something to send, the keeper for silence. The connection ends when one of them raises.
All that is sent goes through the writer, so cancelling a publisher never leaves half a command
on the wire.
"""

import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence

import trio

from ccstore.config import NatsConfig
from ccstore.errors import ConfigError, ProtocolError
from ccstore.server.nats_backlog import SEGMENT_BYTES, Backlog, Overflow, SegmentPool
from ccstore.server.nats_link import Link, LinkLostError, load_addresses, open_link
from ccstore.server.nats_servers import ServerList
from ccstore.server.nats_statistics import NatsStatistics, State
from ccstore.wire.nats import MAX_LINE, Info, Refusal, encode_publish, is_subject
from ccstore.wire.nats_auth import Address
from ccstore.wire.nats_message import Messages, Subscription, encode_headers

__all__ = ["Client", "check_subscription"]

log = logging.getLogger("ccstore.nats")

KIB = 1024

STABLE_AFTER = 10.0  # seconds; a connection that lived shorter does not end the growing pauses
STALE_AFTER = 3  # ping intervals without a byte from the server
DRAIN_SECONDS = 2.0  # for the server's last words when we leave
MAX_COMPLAINTS = 1000  # different ones that are remembered
SMALL_PAYLOAD = 4 * KIB  # copied into one piece with its command, which is cheaper than three pieces

NOT_PERMITTED = re.compile(r'permissions violation for subscription to "([^"]+)"', re.IGNORECASE)
FAILURES = (OSError, ProtocolError, LinkLostError, ConfigError, trio.TooSlowError)


class Client:
    """A connection to one server at a time; made by `open_client`.

    Iterating yields what the subscriptions bring, in arrival order, as `Messages`: all that waits
    of one segment at a time. They stay valid as long as anything refers to them; what was
    yielded counts as delivered when the next is asked for.
    """

    def __init__(
        self, config: NatsConfig, statistics: NatsStatistics, overflow: Overflow, budget_bytes: int
    ) -> None:
        self.statistics = statistics
        self.intake = trio.CancelScope()
        """Cancel it to receive no more; what was received can still be iterated to its end."""
        self._config = config
        self._pool = SegmentPool(min(SEGMENT_BYTES, max(2 * MAX_LINE, budget_bytes // 8)))
        self._backlog = Backlog(budget_bytes, overflow, statistics)
        self._subscriptions: list[Subscription] = []
        self._servers = ServerList(load_addresses(config))
        self._link: Link | None = None
        self._successor: Link | None = None
        self._state_changed = trio.lowlevel.ParkingLot()
        self._complaints: set[str] = set()  # what was logged since the latest connection
        self._just_refused: set[str] = set()  # subjects, since the latest SUBs
        self._confirmed = 0  # of statistics.published_messages: a server has seen them
        self._in_doubt = 0  # of statistics.published_messages: their connection was lost

    # What its owner does with it.

    def subscribe(self, subscription: Subscription) -> None:
        """Subscribe now and at every connection to come; `flush` waits until the server knows.

        Raises ConfigError for a malformed subject. One that the server does not permit is logged and
        shown in ``statistics.refused_subjects``.
        """
        check_subscription(subscription)
        self._subscriptions.append(subscription)
        if self._link is not None:
            self._link.post(self._link.protocol.subscribe(subscription))

    async def publish(
        self,
        subject: str,
        payload: bytes | bytearray | memoryview,
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Queue a message to be sent; wait while there is no connection or its queue is full.

        `payload` is not copied and must not change until `flush`. Cancelled, nothing was queued.
        Raises ProtocolError for a malformed or too large message, trio.ClosedResourceError after
        the end.
        """
        if isinstance(payload, memoryview):
            payload = payload.cast("B")  # of whatever it was a view, its length is now in bytes
        head = encode_publish(subject, len(payload), reply=reply, headers=headers)
        # No turn for other tasks while there is room, or each tiny message would be sent alone.
        await trio.lowlevel.checkpoint_if_cancelled()
        while (link := await self._wait_link()).is_full:
            await link.wait_room()
        size = len(payload) + (len(encode_headers(headers)) if headers else 0)
        if size > link.info.max_payload:
            raise ProtocolError(
                f"nats: message is too large (got {size}, wanted {link.info.max_payload} bytes)"
            )
        if headers and not link.info.headers:
            raise ProtocolError(f"nats: {link.address} takes no headers")
        if len(payload) <= SMALL_PAYLOAD:
            link.post(b"".join((head, payload, b"\r\n")))
        else:
            link.post(head, payload, b"\r\n")
        self.statistics.published_messages += 1
        self.statistics.published_bytes += len(payload)

    async def flush(self) -> None:
        """Wait until a server has seen all that was published and subscribed before.

        Raises trio.BrokenResourceError if a connection was lost since the last flush with messages
        on it: they may be lost, and nobody knows how many.
        """
        while True:
            link = await self._wait_link()
            published, pong = self.statistics.published_messages, link.ping()
            await pong.wait()
            if self._in_doubt > self._confirmed:
                count, self._confirmed = self._in_doubt - self._confirmed, self._in_doubt
                raise trio.BrokenResourceError(f"connection lost, and up to {count} messages with it")
            if not link.is_lost:
                self._confirmed = max(self._confirmed, published)
                return

    async def wait_connected(self) -> None:
        """Wait for a connection, for ever if there is no server."""
        await trio.lowlevel.checkpoint()
        await self._wait_link()

    async def close(self) -> None:
        """Flush if something was published, in a few seconds at most, and end the intake."""
        if self.statistics.published_messages > self._confirmed:
            with trio.move_on_after(DRAIN_SECONDS) as scope:
                try:
                    await self.flush()
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    log.warning("nats: closing: %(error)s", {"error": error})
            if scope.cancelled_caught:
                log.warning("nats: closing: no answer, some of what was published may be lost")
        self.intake.cancel()

    def __aiter__(self) -> AsyncIterator[Messages]:
        return self

    async def __anext__(self) -> Messages:
        messages = await self._backlog.take()
        if messages is None:
            raise StopAsyncIteration
        return messages

    async def _wait_link(self) -> Link:
        while self._link is None:
            if self.statistics.state == "closed":
                raise trio.ClosedResourceError("nats: client is closed")
            await self._state_changed.park()
        return self._link

    # Its life.

    async def run(self) -> None:
        """Connect, serve, connect again, until `intake` is cancelled; for `open_client` alone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._backlog.report_drops)
            try:
                with self.intake:
                    await self._stay_connected()
                if self._link is not None:
                    await self._drain(self._link)
            finally:
                for link in (self._link, self._successor):
                    if link is not None:
                        link.close()
                self._link = None
                self._backlog.close()
                self._enter("closed")
                nursery.cancel_scope.cancel()

    async def _stay_connected(self) -> None:
        self._enter("connecting")
        while True:
            link, self._successor = self._successor, None
            if link is None:
                address, pause = self._servers.next()
                await trio.sleep(pause)
                link = await self._try_connect(address)
            if link is not None:
                await self._serve(link)

    async def _try_connect(self, address: Address) -> Link | None:
        try:
            return await open_link(address, self._config, self._pool)
        except FAILURES as error:
            self.statistics.failed_connects += 1
            self._complain(logging.WARNING, f"cannot connect to {address}: {_describe(error)}")
            return None

    async def _serve(self, link: Link) -> None:
        """Let `link` be our connection until it is lost or left."""
        self._begin(link)
        reason = ""
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(link.write)
                tasks.start_soon(self._keep_alive, link, tasks)
                tasks.start_soon(self._confirm, link, tuple(self._subscriptions))
                tasks.start_soon(self._read, link, tasks)
        except* FAILURES as group:
            reason = _describe(group.exceptions[0])
        self._end(link, reason)

    def _begin(self, link: Link) -> None:
        statistics, info = self.statistics, link.info
        statistics.connects += 1
        statistics.server = str(link.address)
        statistics.refused_subjects = ()
        self._complaints.clear()
        self._just_refused.clear()
        self._link = link
        self._servers.learn(link.address, info.connect_urls)
        fields = {
            "what": "connected" if statistics.connects == 1 else "reconnected",
            "address": link.address,
            "name": info.server_name,
            "version": info.version,
        }
        log.info("nats: %(what)s to %(address)s (%(name)s, nats-server %(version)s)", fields)
        for subscription in self._subscriptions:
            link.post(link.protocol.subscribe(subscription))
        self._enter("connected")

    def _end(self, link: Link, reason: str) -> None:
        link.close()
        self._link = None
        if self.statistics.published_messages > self._confirmed:
            self._in_doubt = self.statistics.published_messages
        if trio.current_time() - self.statistics.since >= STABLE_AFTER:
            self._servers.start_anew()
        if reason:
            why = (
                f"{link.address}: {reason} ({link.refusal})" if link.refusal else f"{link.address}: {reason}"
            )
            self.statistics.last_error = why
            log.warning("nats: disconnected from %(reason)s", {"reason": why})
        else:
            log.info("nats: left %(address)s", {"address": link.address})
        self._enter("connecting")

    async def _read(self, link: Link, tasks: trio.Nursery) -> None:
        while True:
            received = await link.receive()
            for event in received.events:
                if isinstance(event, Refusal):
                    self._note_refusal(link, event.text)
                elif isinstance(event, Info):
                    self._servers.learn(link.address, event.connect_urls)
                    if event.lame_duck and self.statistics.state != "lame duck":
                        self._enter("lame duck")
                        tasks.start_soon(self._leave, link, tasks)
            if received.messages:
                await self._backlog.accept(link.segment, received.messages)
                link.heard = trio.current_time()  # waiting for the store is no silence of the server

    async def _keep_alive(self, link: Link, tasks: trio.Nursery) -> None:
        """Ping a silent server, raise LinkLostError when it stays silent; ask again for what it refused."""
        looked, silent = trio.current_time(), 0
        while True:
            await trio.sleep(self._config.ping_interval)
            if self.statistics.refused_subjects:
                # Permissions can be granted while we are connected, and no server tells.
                tasks.start_soon(self._confirm, link, self._ask_again(link))
            is_silent = link.heard < looked and not self.statistics.is_blocked
            looked, silent = trio.current_time(), silent + 1 if is_silent else 0
            if silent == STALE_AFTER:
                raise LinkLostError(f"stale, nothing heard for {trio.current_time() - link.heard:.0f} s")
            if silent:
                link.ping()

    def _ask_again(self, link: Link) -> list[Subscription]:
        refused = [s for s in self._subscriptions if s.subject in self.statistics.refused_subjects]
        self._just_refused.clear()
        for subscription in refused:
            link.post(link.protocol.subscribe(subscription))
        return refused

    async def _confirm(self, link: Link, asked: Sequence[Subscription]) -> None:
        """Log which of the subscriptions just asked for are made, once the server could refuse them."""
        await link.ping().wait()
        if link.is_lost:
            return
        made = [s for s in asked if s.subject not in self._just_refused]
        for subscription in made:
            group = f" in queue group {subscription.queue!r}" if subscription.queue else ""
            fields = {"subject": subscription.subject, "group": group}
            log.info("nats: subscribed to %(subject)r%(group)s", fields)
        subjects = {subscription.subject for subscription in made}
        self.statistics.refused_subjects = tuple(
            subject for subject in self.statistics.refused_subjects if subject not in subjects
        )

    async def _leave(self, link: Link, tasks: trio.Nursery) -> None:
        """Move to another server; `link` goes on until there is one that takes us."""
        log.warning("nats: %(address)s is about to stop (lame duck)", {"address": link.address})
        for address in self._servers.others(link.address):
            successor = await self._try_connect(address)
            if successor is None:
                continue
            if successor.info.server_id == link.info.server_id:  # by another of its names
                successor.close()
                continue
            self._successor = successor
            # First unsubscribe here, then subscribe there: a gap of one round trip, no duplicates.
            link.post(link.protocol.unsubscribe_all())
            await link.ping().wait()
            tasks.cancel_scope.cancel()
            return
        fields = {"address": link.address}
        log.warning("nats: no other server takes us: staying with %(address)s until it stops", fields)

    async def _drain(self, link: Link) -> None:
        """Unsubscribe and take in what is still under way, in a few seconds at most."""
        if link.is_sending:
            return  # cancelled within a command: what follows would not be understood
        self._backlog.stop_blocking()
        try:
            with trio.move_on_after(DRAIN_SECONDS):
                link.post(link.protocol.unsubscribe_all())
                link.ping()
                while link.protocol.unanswered_pings:
                    await link.send_queue()
                    received = await link.receive()
                    if received.messages:
                        await self._backlog.accept(link.segment, received.messages)
        except FAILURES as error:
            fields = {"address": link.address, "error": _describe(error)}
            log.warning("nats: lost %(address)s while leaving it: %(error)s", fields)

    def _note_refusal(self, link: Link, text: str) -> None:
        link.refusal = text
        self._complain(logging.ERROR, f"{link.address} answers: {text}")
        if match := NOT_PERMITTED.search(text):
            subject = match[1]
            self._just_refused.add(subject)
            if subject not in self.statistics.refused_subjects:
                self.statistics.refused_subjects += (subject,)

    def _complain(self, level: int, text: str) -> None:
        """Log `text` at `level` when it is new, and quietly when it repeats, until we connect again."""
        self.statistics.last_error = text
        if len(self._complaints) >= MAX_COMPLAINTS:
            self._complaints.clear()
        log.log(logging.DEBUG if text in self._complaints else level, "nats: %(problem)s", {"problem": text})
        self._complaints.add(text)

    def _enter(self, state: State) -> None:
        self.statistics.enter(state)
        self._state_changed.unpark_all()


def check_subscription(subscription: Subscription) -> None:
    """Raise ConfigError if subject or queue group are malformed."""
    subject, queue = subscription.subject, subscription.queue
    if not is_subject(subject, wildcards=True) or (queue and not is_subject(queue)):
        raise ConfigError(f"nats: malformed subject or queue group (got {subject!r}, {queue!r})")


def _describe(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    causes = error.__cause__
    if isinstance(error, OSError) and isinstance(causes, ExceptionGroup):
        return "; ".join(map(str, causes.exceptions))  # its own text only says that all addresses failed
    return str(error) or type(error).__name__
