"""Checkpoints: what memory has and no file yet, shard by shard, while everything goes on.

The log of the shard is cut first, and what is unsaved is copied afterwards, host by host. A sample that
comes in between may be in both, the checkpoint and the log behind the cut, and that does no harm:
replaying it gives the same. So nothing has to stand still, and the event loop is held for a
millisecond at a time.

When the log before a cut goes is up to the format. The columnar one keeps it until the *next* checkpoint is
complete, so where one turns out to be damaged, its samples are still in the log. Where each host has
files of its own, a host that fails keeps its log and is tried again, and no other one waits for it.

Invariant: what is marked as saved is in a complete file, or on its way into one; if the way ends,
it is unsaved again.
"""

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

import trio
from attrs import define, field, frozen

from ccstore.disk.formats import CheckpointFiles, Format
from ccstore.disk.hosts import Host, host_of
from ccstore.disk.leftover import Leftover
from ccstore.memory.saving import Copied, Marks, copies_of_unsaved, take_back
from ccstore.memory.store import Store
from ccstore.server.wal import Cut, Log, Shard

__all__ = ["Backoff", "Checkpoints", "Written"]

log = logging.getLogger("ccstore.checkpoints")

_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0
"""Seconds between attempts to become durable again."""


@frozen
class Written:
    """What a round of checkpoints wrote."""

    files: int
    values: int
    """Missing ones included."""
    bytes: int


@define(eq=False)
class Checkpoints:
    """Writes checkpoints of the shards of a log."""

    store: Store
    wal: Log
    format: Format
    now: Callable[[], int]
    files: int = 0
    """Written since the start."""
    slots: int = 0
    """Slots in them."""
    bytes: int = 0
    removed: int = 0
    """Files that were not needed any more: segments, and what failed checkpoints left."""
    started: float = field(factory=trio.current_time)
    saved: dict[int, float] = field(factory=dict)
    """When all of a shard was in checkpoints for the last time, by its number."""
    hosts: int = 0
    """Of the round that is under way; 0 if none is."""
    hosts_done: int = 0
    """Those of them that were copied."""
    leftover: Leftover | None = None
    """What a change of the format left behind; it goes when a round is complete."""
    lock: trio.Lock = field(factory=trio.Lock)
    """Held while files are written, and by whoever frees what is marked as saved."""

    @property
    def progress(self) -> float:
        """How far the round under way is, 0 to 1; 1 if there is none."""
        return min(1.0, self.hosts_done / self.hosts) if self.hosts else 1.0

    def age(self, shard: Shard) -> float:
        """Return the seconds since all of a shard was in checkpoints; since the start if it never was."""
        return trio.current_time() - self.saved.get(shard.number, self.started)

    async def save_all(self) -> Written:
        """Write a checkpoint of every shard that has anything new; one that fails stops no other.

        Raises the errors of those that failed, as a group. If all went well, all that the log had before is
        in checkpoints, and what it had before the round before this one goes.
        """
        async with self.lock:
            files, slots, size = self.files, self.slots, self.bytes
            await self._round()
            return Written(self.files - files, self.slots - slots, self.bytes - size)

    async def end_trouble(self) -> None:
        """Make shards durable again whose log failed, if there are any: by a round of all of them.

        A checkpoint of the shard in trouble alone would not do. Its log has a gap: it can have a value of a
        slot and miss the newer one. Until recovery passes over it, the older one comes back behind whatever
        a checkpoint has. What says how far to pass over is one number for all shards, and has to be: the next
        start may have another number of them. To remove that part of the log instead would leave no
        generation before the checkpoint, just on a disk that fails. The other shards have little to write.

        Else write checkpoints of those alone whose log has become too large. Raises as `save_all` does.
        """
        async with self.lock:
            if self.wal.troubles:
                await self._round()
            else:
                large = [shard for shard in self.wal.shards if shard.segment.is_large]
                _raise((await self._save_each(large)).errors)

    async def _round(self) -> None:
        self.hosts, self.hosts_done = sum(1 for _ in self.store.index.hosts()), 0
        try:
            saved = await self._save_each(self.wal.shards)
        finally:
            self.hosts = 0
        if len(saved.cuts) == len(self.wal.shards):
            try:
                await self._end_round(saved)
            except OSError as error:
                saved.errors.append(error)
            else:
                # Not before: until recovery knows that it has to pass over the log before the cut, what a log
                # with a gap has of a slot would come after what a checkpoint has of it.
                for shard, cut in saved.cuts:
                    if shard not in saved.partly:
                        self.wal.covered(shard, cut)
        if not saved.errors:
            await self._clear_leftover()
        _raise(saved.errors)

    async def _clear_leftover(self) -> None:
        """Take away files of other formats: all that memory took of them is on disk now."""
        if self.leftover is None:
            return
        try:
            removed, aside = await trio.to_thread.run_sync(self.leftover.clear)
        except OSError as error:
            log.error("checkpoints: files of another format stay: %(error)s", {"error": error})
            return
        self.leftover = None
        self.removed += removed
        if removed:
            log.warning("checkpoints: %(files)d files of another format removed", {"files": removed})
        if aside is not None:
            log.warning(
                "checkpoints: files of another format, not all of which could be used, are in %(path)s now",
                {"path": aside},
            )

    async def _end_round(self, saved: "_Saved") -> None:
        number = min(cut.number for _, cut in saved.cuts)
        removed, left = await trio.to_thread.run_sync(self.format.end_round, number, saved.failed)
        self.removed += removed
        for error in left:
            log.warning("checkpoints: a file cannot be removed: %(error)s", {"error": error})

    async def _save_each(self, shards: Sequence[Shard]) -> "_Saved":
        """Write a checkpoint of each of some shards; one that fails stops no other."""
        saved = _Saved()
        for shard in shards:
            try:
                cut, failures = await self._save(shard)
            except OSError as error:
                saved.errors.append(error)
                continue
            saved.cuts.append((shard, cut))
            if not failures:
                self.saved[shard.number] = trio.current_time()
            if failures:
                saved.partly.append(shard)
                saved.failed |= failures.keys()
                saved.errors += failures.values()
        return saved

    async def _save(self, shard: Shard) -> tuple[Cut, dict[Host, OSError]]:
        """Write a checkpoint of a shard, if there is anything new; return where, and which hosts failed.

        Raises OSError if it failed as a whole.
        """
        cut = await self.wal.cut(shard)
        file = await trio.to_thread.run_sync(self.format.checkpoint, shard.number, cut.number, self.now())
        marks: list[Marks] = []
        failures: dict[Host, OSError] = {}
        try:
            for copied in self._copies(shard):
                marks.append(copied.marks)
                if error := await self._add(file, copied):
                    failures[host_of(copied.names)] = error
                    take_back(self.store, copied.marks)
                if self.format.by_hosts:
                    marks.clear()  # it is complete, or taken back
            await trio.to_thread.run_sync(file.finish)
        except BaseException:
            for mark in marks:
                take_back(self.store, mark)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(file.abandon)
            raise
        self._count(shard, file)
        return cut, failures

    async def _add(self, file: CheckpointFiles, copied: Copied) -> OSError | None:
        """Write a copy; return the error if it is one of its host alone, and raise it otherwise."""
        try:
            await trio.to_thread.run_sync(file.add, copied.names, copied.runs)
        except OSError as error:
            if not self.format.by_hosts:
                raise
            return error
        return None

    def _count(self, shard: Shard, file: CheckpointFiles) -> None:
        self.files += file.values > 0
        self.slots += file.values
        self.bytes += file.bytes
        if file.values:
            fields = {"shard": shard.number, "values": file.values, "bytes": file.bytes}
            log.info("checkpoint: shard %(shard)d: %(values)d values in %(bytes)d bytes", fields)

    async def remove_older(self, cutoff: int, used: Collection[Host] = ()) -> None:
        """Remove checkpoints all of whose values are older than a time (s), but for those of used hosts.

        Raises OSError.
        """
        async with self.lock:
            self.removed += await trio.to_thread.run_sync(self.format.remove_older, cutoff, used)

    def _copies(self, shard: Shard) -> Iterator[Copied]:
        """Copy what is unsaved of the hosts of a shard, each one for itself if it has files of its own."""
        hosts = self._hosts(shard)
        if not self.format.by_hosts:
            return copies_of_unsaved(self.store, hosts)
        return itertools.chain.from_iterable(copies_of_unsaved(self.store, [host]) for host in hosts)

    def _hosts(self, shard: Shard) -> Iterator[int]:
        """Yield the places of a shard's hosts; those that were pruned meanwhile may be anything by now."""
        for _, _, place in self.store.index.hosts():
            if self.store.index.is_host(place) and self.wal.has(shard, place):
                yield place
                self.hosts_done += 1


@define
class _Saved:
    """What became of checkpoints of some shards."""

    cuts: list[tuple[Shard, Cut]] = field(factory=list)
    """Of those that have one."""
    partly: list[Shard] = field(factory=list)
    """Those of them of which some hosts failed."""
    failed: set[Host] = field(factory=set)
    errors: list[OSError] = field(factory=list)


def _raise(errors: Sequence[OSError]) -> None:
    if errors:
        raise ExceptionGroup("checkpoints: some failed", errors)


class Backoff:
    """How long to wait until the next attempt to end trouble: longer and longer while there is any."""

    def __init__(self, wal: Log) -> None:
        self._wal = wal
        self._wait = _FIRST_RETRY

    def __call__(self) -> float:
        """Return the seconds to wait."""
        self._wait = min(2 * self._wait, _LAST_RETRY) if self._wal.troubles else _FIRST_RETRY
        return self._wait
