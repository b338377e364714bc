"""What NATS delivered and the store has not taken yet: segments of memory, and the queue of them.

Owns the memory that the socket is read into and the order in which it is handed on. Knows neither
socket nor protocol. Invariant: memory held is at most the budget, plus the segment that is being
read into and 25 bytes a message; what does not fit is dropped and counted to the byte.

A whole segment is charged as soon as one of its messages waits. One small message keeps all of
its segment alive, so charging payloads would let the process grow to many times the budget. The
alternative, to copy what stays, costs a copy of everything in the very moment when the store is
too slow. Messages wait in the order they were received, and nearly all bytes of a segment are payload,
so whole segments differ from payloads by little.

Segments are used again, which spares the kernel 512 page faults for each. A segment is free when
no memoryview and no array of it exists any more, wherever it was kept: Python refuses to resize a
bytearray that something looks at, and trying it costs 0.1 us.
"""

import logging
from collections import deque
from typing import Literal

import trio
from attrs import define

from ccstore.server.nats_statistics import NatsStatistics
from ccstore.wire.nats_message import Messages

__all__ = ["SEGMENT_BYTES", "SLACK", "Backlog", "Overflow", "Segment", "SegmentPool"]

log = logging.getLogger("ccstore.nats")

KIB = 1024
MIB = 1024 * KIB

SEGMENT_BYTES = 2 * MIB  # a turn of the event loop costs 10 to 40 us, however much it reads
SLACK = 64  # readable bytes behind every payload, for kernels that load 8 bytes at a time
SPARE_SEGMENTS = 8  # kept for use again; what an overload took beyond goes back to the system
ALARM_INTERVAL = 1.0  # seconds between two lines about drops

Overflow = Literal["drop", "block"]


@define(eq=False)
class Segment:
    """Memory that is read into once, from its start to its end."""

    view: memoryview
    """Of the whole bytearray, `capacity` and the slack."""
    capacity: int
    """Bytes to read into."""
    is_used: bool = False
    """Whether a message of it was handed on; if not, it can be written again from its start."""
    waiting: int = 0
    """How many entries of the queue, delivered one included, are of it; charged unless 0."""


class SegmentPool:
    """Hands out segments, those used before if nothing looks at them any more."""

    def __init__(self, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.segment_bytes = segment_bytes
        self._spares: deque[bytearray] = deque(maxlen=SPARE_SEGMENTS)

    def take(self, least: int = 0) -> Segment:
        """Return a segment of the usual size, or one of `least` bytes if that is more."""
        if least > self.segment_bytes:
            return Segment(memoryview(bytearray(least + SLACK)), least)
        for buffer in reversed(self._spares):  # the latest one is the likeliest to be in the cache
            if _is_free(buffer):
                return Segment(memoryview(buffer), self.segment_bytes)
        buffer = bytearray(self.segment_bytes + SLACK + 1)
        buffer.pop()  # leaves room for the byte that _is_free adds, so that it never moves the rest
        self._spares.append(buffer)
        return Segment(memoryview(buffer), self.segment_bytes)


def _is_free(buffer: bytearray) -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


@define(eq=False)
class _Entry:
    segment: Segment
    messages: Messages
    since: float


class Backlog:
    """A queue of messages with one writer and one reader, bounded by the memory it holds.

    Full means that a further segment would exceed the budget. With `overflow` "drop" the newest
    messages are then dropped and counted, to the message, byte and line, and an alarm is logged.
    With "block" the writer waits, so the socket is not read; core NATS has no flow control, so the
    server cuts us off when 64 MB wait on its side, and that loss nobody can count. A single
    segment is always taken, so a message larger than the budget cannot stop everything.
    """

    def __init__(self, budget_bytes: int, overflow: Overflow, statistics: NatsStatistics) -> None:
        statistics.budget_bytes = budget_bytes
        self._budget_bytes = budget_bytes
        self._overflow = overflow
        self._statistics = statistics
        self._entries: deque[_Entry] = deque()
        self._delivered: _Entry | None = None
        self._is_blocking = overflow == "block"
        self._is_closed = False
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._drops = trio.Event()
        self._reported = (0, 0, 0)

    async def accept(self, segment: Segment, messages: Messages) -> None:
        """Count `messages`, received in `segment`, and queue or drop them.

        Cancelled while it waits for room, it queues them all the same.
        """
        self._statistics.messages += len(messages)
        self._statistics.bytes += messages.payload_bytes
        if self._overflow == "drop":
            if self._has_room(segment):
                self._put(segment, messages)
            else:
                self._drop(messages)
            return
        try:
            if self._is_blocking and not self._has_room(segment):
                await self._wait_room(segment)
        finally:
            self._put(segment, messages)

    async def _wait_room(self, segment: Segment) -> None:
        began = trio.current_time()
        log.warning(
            "nats: queue is full at %(budget)d bytes: reading rests until the store has taken some of it, "
            "and if that takes long, the server drops what waits there",
            {"budget": self._budget_bytes},
        )
        self._statistics.is_blocked = True
        try:
            while self._is_blocking and not self._has_room(segment):
                await self._room.park()
        finally:
            self._statistics.is_blocked = False
            self._statistics.blocked_seconds += trio.current_time() - began

    def stop_blocking(self) -> None:
        """Wait for room no more: what comes in now is the last there is."""
        self._is_blocking = False

    def _has_room(self, segment: Segment) -> bool:
        held = self._statistics.held_bytes
        return not held or segment.waiting > 0 or held + segment.capacity <= self._budget_bytes

    def _put(self, segment: Segment, messages: Messages) -> None:
        statistics = self._statistics
        statistics.queued_messages += len(messages)
        statistics.queued_bytes += messages.payload_bytes
        statistics.is_dropping = False
        segment.is_used = True
        if self._entries and self._entries[-1].segment is segment:
            self._entries[-1].messages.extend(messages)
            return
        if not segment.waiting:
            statistics.held_bytes += segment.capacity
        segment.waiting += 1
        self._entries.append(_Entry(segment, messages, trio.current_time()))
        self._note_oldest()
        self._news.unpark()

    def _drop(self, messages: Messages) -> None:
        self._statistics.drop(messages)
        self._statistics.is_dropping = True
        self._drops.set()

    async def take(self) -> Messages | None:
        """Return what waits of the oldest segment, or None at the end.

        What the call before returned counts as delivered now, and its memory is released.
        """
        self._release()
        # A turn for the others even if much waits: the socket must be read meanwhile.
        await trio.lowlevel.checkpoint()
        while not self._entries:
            if self._is_closed:
                return None
            await self._news.park()
        self._delivered = self._entries.popleft()
        return self._delivered.messages

    def close(self) -> None:
        """Let `take` return None once everything is delivered."""
        self._is_closed = True
        self._news.unpark()

    async def report_drops(self) -> None:
        """Log drops at once, then at most once a second with what came since, for ever."""
        try:
            while True:
                await self._drops.wait()
                self._drops = trio.Event()
                self._log_drops()
                await trio.sleep(ALARM_INTERVAL)
        finally:
            self._log_drops()

    def _log_drops(self) -> None:
        statistics = self._statistics
        total = (statistics.dropped_messages, statistics.dropped_bytes, statistics.dropped_lines)
        if total == self._reported:
            return
        news = (now - before for now, before in zip(total, self._reported, strict=True))
        self._reported = total
        names = ("messages", "bytes", "lines", "all_messages", "all_bytes", "all_lines")
        fields = dict(zip(names, (*news, *total), strict=True)) | {"budget": self._budget_bytes}
        log.error(
            "nats: slow consumer: dropped %(messages)d messages, %(bytes)d bytes, %(lines)d lines (in all "
            "%(all_messages)d, %(all_bytes)d, %(all_lines)d): the queue is full at %(budget)d bytes, "
            "the store takes less than the server sends",
            fields,
        )

    def _release(self) -> None:
        entry, self._delivered = self._delivered, None
        if entry is None:
            return
        statistics = self._statistics
        statistics.queued_messages -= len(entry.messages)
        statistics.queued_bytes -= entry.messages.payload_bytes
        entry.segment.waiting -= 1
        if not entry.segment.waiting:
            statistics.held_bytes -= entry.segment.capacity
            self._room.unpark_all()
        self._note_oldest()

    def _note_oldest(self) -> None:
        oldest = self._delivered or (self._entries[0] if self._entries else None)
        self._statistics.oldest_queued = oldest.since if oldest else None
