"""Turns: who comes with the same key goes one after the other, in the order of coming.

Owns who waits for whom, and never sees what is done in a turn. Invariant: at most one turn of a key is
under way, at most `concurrency` in all, and a turn that ends, however it ends, lets the next one begin.

A task takes its place with `queue`, which fixes the order, and does its work in `turn`. So a request that
somebody waits for and an event that nobody waits for stand in the same line, and cancelling one of them
takes it out of the line.
"""

from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import trio
from attrs import Factory, define

__all__ = ["Ticket", "Turns"]


@define(eq=False)
class Ticket:
    """A place in the line of a key."""

    key: Hashable
    since: float
    """When it was taken, by Trio's clock."""
    is_first: trio.Event = Factory(trio.Event)
    """Set when nobody of the same key is before it."""


class Turns:
    """Lines of tasks, one for each key.

    Full means that `capacity` tickets are out: who comes then waits for room before it gets a place, in
    the order of coming.
    """

    def __init__(self, concurrency: int, capacity: int) -> None:
        self.concurrency = concurrency
        self.capacity = capacity
        self._room = trio.Semaphore(capacity)
        self._busy = trio.Semaphore(concurrency)
        self._lines: dict[Hashable, deque[Ticket]] = {}
        self._tickets: dict[Ticket, None] = {}  # in the order in which they were taken

    def __len__(self) -> int:
        """Return how many wait or are at work."""
        return len(self._tickets)

    def oldest_age(self) -> float:
        """Return for how many seconds the one that came first has been here; 0 if nobody is."""
        first = next(iter(self._tickets), None)
        return 0.0 if first is None else trio.current_time() - first.since

    async def queue(self, key: Hashable) -> Ticket:
        """Take a place behind all others of a key; the caller has to enter `turn` with it at once."""
        await self._room.acquire()
        ticket = Ticket(key, trio.current_time())
        line = self._lines.setdefault(key, deque())
        line.append(ticket)
        self._tickets[ticket] = None
        if line[0] is ticket:
            ticket.is_first.set()
        return ticket

    @asynccontextmanager
    async def turn(self, ticket: Ticket) -> AsyncIterator[None]:
        """Wait for the turn of a ticket; the turn, and the ticket with it, ends with the context."""
        try:
            await ticket.is_first.wait()
            async with self._busy:
                yield
        finally:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        line = self._lines[ticket.key]
        line.remove(ticket)  # it is the first, unless it was cancelled while it waited
        if line:
            line[0].is_first.set()
        else:
            del self._lines[ticket.key]
        del self._tickets[ticket]
        self._room.release()
