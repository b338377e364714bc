"""Stops that came before the start of their job, kept for a while.

Events travel by more than one way, so a stop can overtake its start. Owns the stops that nobody could
apply yet, and when it is too late for each. Invariant: a stop that was kept is taken out exactly once: when
it was applied, when its time is over, or at the end of the server.
"""

from collections import deque
from collections.abc import Iterator

import trio
from attrs import define

from ccstore.model import JobStop

__all__ = ["EarlyStop", "EarlyStops"]


@define(eq=False)
class EarlyStop:
    """A stop, and until when it may be applied."""

    stop: JobStop
    until: float
    """Trio's time."""


class EarlyStops:
    """The stops that wait for a start, at most `capacity` of them for at most `wait` seconds.

    Full means that one more is refused: the stops of unknown jobs may be of jobs that will never start.
    """

    def __init__(self, wait: float, capacity: int) -> None:
        self.wait = wait
        self.capacity = capacity
        self._by_job: dict[int, list[EarlyStop]] = {}
        self._in_order: deque[EarlyStop] = deque()  # and those taken since, until their time is over
        self._count = 0
        self._news = trio.Event()

    def __len__(self) -> int:
        return self._count

    def keep(self, stop: JobStop) -> bool:
        """Keep a stop; return whether there was room for it."""
        if self._count >= self.capacity or len(self._in_order) >= 2 * self.capacity or self.wait <= 0:
            return False
        early = EarlyStop(stop, trio.current_time() + self.wait)
        self._by_job.setdefault(stop.job_id, []).append(early)
        self._in_order.append(early)
        self._count += 1
        self._news.set()
        return True

    def of_job(self, job_id: int) -> list[EarlyStop]:
        """Return the stops that wait for a job, those that came first first."""
        return list(self._by_job.get(job_id, ()))

    def take(self, early: EarlyStop) -> bool:
        """Take a stop out; return whether it was still there."""
        waiting = self._by_job.get(early.stop.job_id, [])
        if early not in waiting:
            return False
        waiting.remove(early)
        if not waiting:
            del self._by_job[early.stop.job_id]
        self._count -= 1
        return True

    def take_all(self) -> Iterator[JobStop]:
        """Take out all that are left, in the order of coming."""
        while self._in_order:
            early = self._in_order.popleft()
            if self.take(early):
                yield early.stop

    async def wait_expired(self) -> JobStop:
        """Wait until the time of a stop is over, and take it out."""
        while True:
            if not self._in_order:
                self._news = trio.Event()
                await self._news.wait()
            await trio.sleep_until(self._in_order[0].until)
            early = self._in_order.popleft()
            if self.take(early):
                return early.stop
