"""The log: what memory accepted, on its way to the disk.

A bounded channel and one writer for each shard. Samples are in memory before they are put into a
channel, and are put there in the order in which memory took them, without waiting in between:
whoever wants to append waits for room first (`room`), then appends and puts at once. Cuts travel in the
channel, so a file ends exactly where the checkpoint begins that replaces it.

A writer takes all that waits, writes it, syncs once, and acknowledges it (group commit): whoever comes
meanwhile joins the next. Full means that senders wait; nothing is ever dropped.

Trouble: a failed write or sync is never tried again on the same file. The shard stops being durable;
what comes goes on into memory, and acknowledgements are refused. A round of checkpoints, into which
goes all that memory has, makes it durable again (`checkpoints`).

Invariant: of each shard, appended = durable + waiting, in samples; both counters only grow.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import trio
from attrs import define, field, frozen
from numpy.typing import NDArray

from ccstore.disk.formats import Format, LogFiles
from ccstore.errors import BusyError, UnavailableError
from ccstore.memory.naming import Numbered, Numbering, join_numbered
from ccstore.memory.store import Store
from ccstore.model import Batch
from ccstore.server.histogram import Histogram

__all__ = ["Cut", "Log", "NotDurableError", "Shard"]

log = logging.getLogger("ccstore.wal")

CAPACITY = 128
"""Entries of a shard that wait to be written, each what a step of a message stored: some thousand samples."""

_ENOUGH = 1 << 17
"""Samples of a shard that are written at once, whoever waits: a good frame, and a millisecond's work."""

PATIENCE = 10.0
"""Seconds that a sender waits for room before it is told to come back."""


class NotDurableError(UnavailableError):
    """The disk does not take what memory has; the same request can succeed later."""


@frozen
class Entry:
    """What one step of a message stored of the hosts of a shard."""

    numbered: Numbered
    position: int
    """Samples of the shard that were appended with this one and before."""


@define(eq=False)
class Cut:
    """Where a file ends and the next one begins."""

    number: int
    """Of the file that begins."""
    position: int
    """Samples of the shard that were appended before."""
    made: trio.Event = field(factory=trio.Event)
    """Set when the next file is the one to be written, or is not because of an error."""
    error: OSError | None = None


@define(eq=False)
class Shard:
    """One shard: its channel, its file, and how far it got."""

    number: int
    segment: LogFiles
    send: trio.MemorySendChannel[Entry | Cut]
    receive: trio.MemoryReceiveChannel[Entry | Cut]
    appended: int = 0
    """Samples put into the channel."""
    durable: int = 0
    """Samples that are on disk, in the log or in a checkpoint, and all before them."""
    written: int = 0
    """Samples up to the last one that is in the log, with or without a gap before."""
    commits: int = 0
    failures: int = 0
    bytes: int = 0
    """Written to the log."""
    longest_commit: float = 0.0
    """Seconds."""
    broken: bool = False
    """Whether the file may not be written any more."""
    ended: bool = False
    """Whether its writer has ended; then nobody appends any more."""
    trouble: str = ""
    """Why the shard is not durable; empty if it is."""
    wanted: int = 0
    """The position that somebody waits for."""
    asked: trio.Event = field(factory=trio.Event)
    """Set when somebody begins to wait for what is not on disk, or when that is much."""
    progress: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    """Where those wait who want to be told of room or durability."""

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another entry."""
        statistics = self.send.statistics()
        return statistics.current_buffer_used >= statistics.max_buffer_size

    @property
    def has_enough(self) -> bool:
        """Whether so much waits to be written that more would only come later."""
        return self.appended - self.written >= _ENOUGH

    def tell(self) -> None:
        """Wake all who wait for room or durability."""
        self.progress.unpark_all()


class Log:
    """The log of a store.

    numbers: gives out the numbers of files, which only grow.
    max_delay: seconds until what nobody waits for is on disk.
    """

    def __init__(
        self, store: Store, files: Format, numbers: Callable[[], int], *, shards: int,
        max_delay: float, now: Callable[[], int],
    ) -> None:  # fmt: skip
        self._numbering = Numbering(store, shards)
        self._numbers = numbers
        self._max_delay = max_delay
        self._now = now
        self._time = now()  # of the last commit, for the heads of files: worker threads are given times
        self._holders = 0
        self.commit_seconds = Histogram()
        """How long a write took, with its sync."""
        self.shards = [
            Shard(
                number,
                files.log(number, numbers(), lambda: self._time),
                *trio.open_memory_channel[Entry | Cut](CAPACITY),
            )
            for number in range(shards)
        ]

    # --- those who append

    async def room(self, patience: float = PATIENCE) -> None:
        """Wait until a batch can be put without waiting. Raises BusyError after so many seconds."""
        await trio.lowlevel.checkpoint_if_cancelled()  # the writers may be cancelled as well, and gone
        with trio.move_on_after(patience) as waiting:
            while full := next((shard for shard in self.shards if shard.is_full), None):
                full.asked.set()
                await full.progress.park()
        if waiting.cancelled_caught:
            raise BusyError(f"log: no room for {patience:g} s (the disk takes less than is sent)")

    def put(self, batch: Batch, reached: list[int]) -> None:
        """Log what was just stored of a batch; there is room, and nobody ran since the store took it.

        Notes in `reached`, a position for each shard, what to wait for.
        """
        for numbered in self._numbering.number(batch):
            shard = self.shards[numbered.shard]
            shard.appended += numbered.stop - numbered.start
            shard.send.send_nowait(Entry(numbered, shard.appended))
            if shard.has_enough:
                shard.asked.set()
            reached[numbered.shard] = shard.appended

    async def durable(self, reached: Sequence[int]) -> None:
        """Wait until positions of all shards are on disk. Raises NotDurableError if a disk fails."""
        wanted = [pair for pair in zip(self.shards, reached, strict=True) if pair[0].durable < pair[1]]
        for shard, position in wanted:  # all of them write at the same time
            shard.wanted = max(shard.wanted, position)
            shard.asked.set()
        for shard, position in wanted:
            while shard.durable < position:
                if shard.trouble:
                    raise NotDurableError(f"log: not on disk ({shard.trouble}); in memory it is")
                await shard.progress.park()

    def forget(self, series: NDArray[np.bool_], places: Iterable[int]) -> None:
        """Forget series (marked by id) and places of the store whose ids may be given to others."""
        self._numbering.forget(series, places)

    def has(self, shard: Shard, host: int) -> bool:
        """Tell whether a place is that of a host and belongs to a shard."""
        return self._numbering.shard_of(host) == shard.number

    async def cut(self, shard: Shard) -> Cut:
        """End a shard's file here, and return when the next one is the one that is written.

        When the writer has ended, there is nothing to wait for. Raises OSError if the file cannot be ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # as in `room`
        if shard.ended:
            cut = Cut(self._numbers(), shard.appended)
            await trio.to_thread.run_sync(shard.segment.begin, cut.number)
            return cut
        while shard.is_full:
            shard.asked.set()
            await shard.progress.park()
        self._numbering.begin(shard.number)
        cut = Cut(self._numbers(), shard.appended)
        shard.send.send_nowait(cut)
        shard.asked.set()
        await cut.made.wait()
        if cut.error is not None:
            raise cut.error
        return cut

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the log open; when its last holder is gone, the writers finish and end."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                for shard in self.shards:
                    shard.send.close()
                    shard.asked.set()

    def covered(self, shard: Shard, cut: Cut) -> None:
        """Note that checkpoints hold all that was appended before a cut, and that recovery will know."""
        shard.durable = max(shard.durable, cut.position)
        if not shard.broken:
            shard.durable = max(shard.durable, shard.written)
            if shard.trouble:
                log.warning("log: shard %(shard)d is durable again", {"shard": shard.number})
                shard.trouble = ""
        shard.tell()

    @property
    def troubles(self) -> list[str]:
        """Why something is not durable; nothing if everything is."""
        return [f"log: shard {shard.number}: {shard.trouble}" for shard in self.shards if shard.trouble]

    # --- those who write

    async def write(self, shard: Shard) -> None:
        """Write what comes through a shard's channel, until its end; a cancelled writer writes what waits."""
        taken: list[Entry | Cut] = []
        try:
            async for first in shard.receive:
                taken.append(first)
                if not isinstance(first, Cut):
                    await self._linger(shard)
                await self._write(taken, shard)
        finally:
            while taken or shard.receive.statistics().current_buffer_used:  # who is not cancelled yet, puts
                await self._write(taken, shard)
            shard.receive.close()
            shard.ended = True
            with trio.CancelScope(shield=True):  # else a cancelled writer leaves its file open
                await trio.to_thread.run_sync(shard.segment.close)

    async def _linger(self, shard: Shard) -> None:
        """Let more come together as long as it is little and nobody waits, be it for the disk or for room."""
        is_open = shard.receive.statistics().open_send_channels > 0
        if is_open and shard.wanted <= shard.durable and not shard.progress and not shard.has_enough:
            shard.asked = trio.Event()
            with trio.move_on_after(self._max_delay):
                await shard.asked.wait()

    async def _write(self, taken: list[Entry | Cut], shard: Shard) -> None:
        """Write what was taken and all that waits, in this order; sync before each cut and at the end."""
        waiting = [*taken, *_waiting(shard)]
        taken.clear()
        entries: list[Entry] = []
        shard.tell()  # there is room
        with trio.CancelScope(shield=True):  # what was taken out of the channel is nowhere else
            for item in waiting:
                if isinstance(item, Cut):
                    await self._commit(entries, shard)
                    await self._begin(item, shard)
                    entries = []
                else:
                    entries.append(item)
            await self._commit(entries, shard)

    async def _commit(self, entries: Sequence[Entry], shard: Shard) -> None:
        if not entries or shard.broken:
            return  # what a broken file does not take is in memory, and the next checkpoint ends the trouble
        began, self._time = trio.current_time(), self._now()
        write = partial(shard.segment.commit, join_numbered([entry.numbered for entry in entries]))
        try:
            shard.bytes += await trio.to_thread.run_sync(write)
        except OSError as error:
            self._fail(shard, error)
            return
        shard.commits += 1
        shard.written = entries[-1].position
        if not shard.trouble:
            shard.durable = shard.written
        seconds = trio.current_time() - began
        self.commit_seconds.observe(seconds)
        shard.longest_commit = max(shard.longest_commit, seconds)
        shard.tell()

    async def _begin(self, cut: Cut, shard: Shard) -> None:
        """Go on with a new file, whatever became of the one before."""
        try:
            await trio.to_thread.run_sync(shard.segment.begin, cut.number)
        except OSError as error:
            cut.error = error
            self._fail(shard, error)
        else:
            shard.broken = False
        cut.made.set()

    def _fail(self, shard: Shard, error: OSError) -> None:
        shard.failures += 1
        if not shard.trouble:
            log.error(
                "log: shard %(shard)d is not durable: %(error)s; samples go on into memory",
                {"shard": shard.number, "error": error},
            )
        shard.broken, shard.trouble = True, str(error)
        shard.tell()


def _waiting(shard: Shard) -> Iterator[Entry | Cut]:
    """Take what waits in a channel, and no more than was there."""
    for _ in range(shard.receive.statistics().current_buffer_used):
        yield shard.receive.receive_nowait()
