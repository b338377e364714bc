"""Putting back into memory what was on disk, whatever format it was in.

Works on the event loop, in steps of some milliseconds: others run in between. Never touches a
file: who reads one hands over names, runs and samples, and may read on meanwhile (`read_ahead`).

Invariant: a run that was put back is saved, a sample is not; and each slot and sample is counted in the
report, as taken, unknown or refused.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import trio
from attrs import define, field
from numpy.typing import NDArray

from ccstore.memory.naming import Resolver
from ccstore.memory.saving import make_room, mark_all_unsaved, restore, samples_of
from ccstore.memory.store import Store
from ccstore.model import Batch, Names, Outcome, Runs, Samples

__all__ = ["Recovery", "Restorer", "read_ahead"]

_SAMPLES_AT_ONCE = 1 << 17
"""Samples that are written without a break: two milliseconds."""
_SLOTS_AT_ONCE = 1 << 18
"""Slots that are put back without a break: a millisecond."""
_ANY_TIME = 2**60
"""Nothing on disk is refused for being in the future: it was accepted once."""
_AHEAD = 2
"""Parts that are read and wait to be put back, some MiB each. Full means that the reader waits."""

_Part = TypeVar("_Part")


@define(eq=False)
class Recovery:
    """How far recovery is, and what it found."""

    running: bool = False
    files: int = 0
    """To be read."""
    files_read: int = 0
    files_skipped: int = 0
    """Older than the retention, or in checkpoints."""
    bytes: int = 0
    bytes_read: int = 0
    slots: int = 0
    """Taken from checkpoints."""
    samples: int = 0
    """Taken from the log."""
    unknown: int = 0
    """Slots and samples of metrics that are not configured any more, or for which there is no room."""
    refused: int = 0
    """Samples that memory did not take: another one lies there, or memory is full."""
    torn_bytes: int = 0
    """At the ends of segments: what was being written when the server was ended."""
    torn: list[str] = field(factory=list)
    """Which files they were the ends of, and what became of them."""
    damage: list[str] = field(factory=list)
    """What could not be read, in the order of files."""
    strange: list[str] = field(factory=list)
    """What lies between the files and is none of them; it is left alone."""
    unclean: bool = False
    """Whether the server was ended before it had stopped."""
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all that was read is in memory."""
        return not (self.damage or self.unknown or self.refused)

    @property
    def progress(self) -> float:
        """Return the share of bytes read, 0 to 1."""
        if not self.bytes:
            return 0.0 if self.running else 1.0
        return min(1.0, self.bytes_read / self.bytes)


@asynccontextmanager
async def read_ahead(parts: Iterator[_Part]) -> AsyncIterator[trio.MemoryReceiveChannel[_Part]]:
    """Take parts in a worker thread, a little faster than they are used; they come in their order."""
    send, receive = trio.open_memory_channel[_Part](_AHEAD)

    async def read() -> None:
        with send:
            while (part := await trio.to_thread.run_sync(next, parts, None)) is not None:
                await send.send(part)

    with receive:  # until the nursery has ended: else a reader that is to be cancelled would see it closed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            yield receive


class Restorer:
    """Puts back what files hold, and counts it in a report."""

    def __init__(self, store: Store, report: Recovery) -> None:
        self._store = store
        self._report = report

    async def take(self, resolver: Resolver, names: Names) -> None:
        """Take the next names of a file."""
        for _ in resolver.take_in_steps(names):
            await trio.lowlevel.checkpoint()

    async def restore(self, resolver: Resolver, runs: Runs) -> None:
        """Put runs back: on their own grid if they fit, else as samples."""
        ends = np.cumsum(runs.counts, dtype=np.int64)
        first = 0
        while first < len(ends):
            begin = int(ends[first] - runs.counts[first])
            stop = max(int(np.searchsorted(ends, begin + _SLOTS_AT_ONCE, "right")), first + 1)
            rows, values = slice(first, stop), runs.values[begin : int(ends[stop - 1])]
            part = Runs(runs.numbers[rows], runs.starts[rows], runs.firsts[rows], runs.counts[rows], values)
            await self._restore(resolver, part)
            first = stop
            await trio.lowlevel.checkpoint()
        self._report.slots += len(runs.values)

    async def _restore(self, resolver: Resolver, runs: Runs) -> None:
        series, before = resolver.series[runs.numbers], resolver.frequencies[runs.numbers]
        now = self._store.frequencies(np.maximum(series, 0))
        known = series >= 0
        placed = restore(self._store, np.where(before == now, series, -1), runs)
        self._report.unknown += int(runs.counts[~known].sum())
        rest = known & ~placed
        if rest.any():
            rows, chosen = np.flatnonzero(rest).astype(np.int32), np.repeat(rest, runs.counts)
            left = Runs(rows, runs.starts[rest], runs.firsts[rest], runs.counts[rest], runs.values[chosen])
            await self._append(series, samples_of(left, before[rest], now[rest]))

    async def append(self, resolver: Resolver, samples: Samples) -> None:
        """Write samples again."""
        await self._append(resolver.series, samples)
        self._report.samples += len(samples.numbers)

    async def _append(self, series: NDArray[np.int32], samples: Samples) -> None:
        """Write samples again; series: the id of each number."""
        for start in range(0, len(samples.numbers), _SAMPLES_AT_ONCE):
            part = slice(start, start + _SAMPLES_AT_ONCE)
            self._write(series[samples.numbers[part]], samples.times[part], samples.values[part])
            await trio.lowlevel.checkpoint()

    def _write(
        self, series: NDArray[np.int32], times: NDArray[np.int64], values: NDArray[np.float32]
    ) -> None:
        outcomes = self._try(series, times, values)
        if (outcomes <= Outcome.OVERWRITTEN).all():
            return
        self._report.unknown += int(np.count_nonzero(outcomes == Outcome.UNKNOWN_METRIC))
        late = np.flatnonzero(outcomes == Outcome.LATE)
        while len(late):
            make_room(self._store, series[late], times[late])
            outcomes[late] = self._try(series[late], times[late], values[late])
            left = late[outcomes[late] == Outcome.LATE]
            if len(left) == len(late):
                break
            late = left
        self._report.refused += int(np.isin(outcomes, (Outcome.LATE, Outcome.LIMIT)).sum())

    def _try(
        self, series: NDArray[np.int32], times: NDArray[np.int64], values: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        outcomes = np.full(len(series), Outcome.UNKNOWN_METRIC, np.uint8)
        self._store.append(Batch(len(series), series, times, values, outcomes), latest=_ANY_TIME)
        return outcomes

    async def forget_saved(self) -> None:
        """Mark all that was put back as unsaved, so that the next checkpoint holds it.

        For files in a format in which the store does not go on: they may be taken away one day.
        """
        for _ in mark_all_unsaved(self._store):
            await trio.lowlevel.checkpoint()
