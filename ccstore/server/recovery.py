"""Recovery: what the disk has goes back into memory when the server starts.

Checkpoints first, in their order, then the segments of the log that they do not cover; if a checkpoint is
damaged, all segments that there are, and once more the checkpoints between them. Files are read and decoded
in a worker thread, a block at a time, and put into the store here, in steps of a millisecond or two: HTTP
answers meanwhile, with the progress.

Whatever is damaged costs itself. Nothing is removed or cut, so that somebody can look at it; the log goes
on in new files.

Invariant: after recovery, what came from a checkpoint is marked as saved, and what came from the log is not,
so the next checkpoint holds it. All that was read is on the medium: what comes later relies on it.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from ccstore.disk import layout
from ccstore.disk.checkpoint import CheckpointReader, is_older
from ccstore.disk.files import Disk
from ccstore.disk.frames import Damage
from ccstore.disk.layout import ColumnarFile
from ccstore.disk.segment import SegmentReader
from ccstore.errors import CorruptionError
from ccstore.memory.naming import Resolver
from ccstore.memory.store import Store
from ccstore.model import Names
from ccstore.server.recovery_reference import recover_reference
from ccstore.server.restoring import Recovery, Restorer

__all__ = ["Recovery", "recover"]

log = logging.getLogger("ccstore.recovery")


async def recover(
    store: Store,
    disk: Disk,
    directory: Path,
    report: Recovery,
    *,
    since: int,
    by_hosts: bool = False,
    now: Callable[[], float] = trio.current_time,
) -> int:
    """Load what files of all formats have of times from `since` (seconds) on.

    by_hosts: whether the store goes on in one of the reference's formats. The format in which it goes on is
    read last: its files are the newer ones. Returns a number below those of new files. Raises OSError if not
    even names can be read.
    """
    began, report.running = now(), True
    last = 0
    if by_hosts:
        last = await _recover_columnar(store, disk, directory, report, since)
        await Restorer(store, report).forget_saved()
    last = max(last, await recover_reference(store, disk, directory, report, since=since, continues=by_hosts))
    if not by_hosts:
        last = max(last, await _recover_columnar(store, disk, directory, report, since))
    report.seconds, report.running = now() - began, False
    _tell(report)
    return last


async def _recover_columnar(store: Store, disk: Disk, directory: Path, report: Recovery, since: int) -> int:
    await trio.to_thread.run_sync(layout.settle, disk, directory)
    covered = await trio.to_thread.run_sync(layout.read_covered, disk, directory)
    files = await trio.to_thread.run_sync(layout.find_files, disk, directory)
    segments = [file for file in files if file.is_segment]
    report.files += len(files)
    report.bytes += sum(file.size for file in files)
    report.unclean |= any(file.number >= covered and file.size for file in segments)
    loader, known = _Loader(store, disk, report, since), len(report.damage)
    for file in files:
        if not file.is_segment:
            await loader.load(file)
    if len(report.damage) > known and segments and segments[0].number < covered:
        # In the order in which they were written, so that the newer value of a slot stays.
        log.error("recovery: damaged checkpoints: all that is left of the log is read")
        for file in files[files.index(segments[0]) :]:
            await loader.load(file)
    else:
        for file in segments:
            if file.number >= covered:
                await loader.load(file)
            else:
                loader.skip(file)
    return max(covered, *(file.number for file in files), 0)


def _tell(report: Recovery) -> None:
    for damage in report.damage:
        log.error("recovery: %(damage)s", {"damage": damage})
    for path in report.strange:
        log.warning("recovery: %(path)s: no file of a store, left alone", {"path": path})
    if report.unclean:
        log.warning("recovery: the server was not stopped properly; what was acknowledged is there")
    fields = {
        "files": report.files_read, "values": report.slots, "samples": report.samples,
        "seconds": report.seconds, "unknown": report.unknown, "refused": report.refused,
    }  # fmt: skip
    log.info(
        "recovery: %(files)d files: %(values)d values of checkpoints, %(samples)d samples of logs, "
        "%(seconds).1f s (%(unknown)d unknown, %(refused)d refused)",
        fields,
    )


class _Loader:
    """Loads one file after the other."""

    def __init__(self, store: Store, disk: Disk, report: Recovery, since: int) -> None:
        self._store = store
        self._disk = disk
        self._report = report
        self._since = since
        self._restorer = Restorer(store, report)

    async def load(self, file: ColumnarFile) -> None:
        """Load a file as far as it can be read; what cannot is reported."""
        try:
            data = await trio.to_thread.run_sync(self._disk.map, file.path)
            await (self._load_segment(file, data) if file.is_segment else self._load_checkpoint(file, data))
        except (CorruptionError, OSError) as error:
            self._blame(f"{file.path}: {error}")

    def skip(self, file: ColumnarFile) -> None:
        """Count a file that need not be read."""
        self._report.files_skipped += 1
        self._report.bytes_read += file.size

    async def _load_checkpoint(self, file: ColumnarFile, data: memoryview) -> None:
        """Put the runs of a checkpoint back, unless all of them are older than `since`."""
        if await trio.to_thread.run_sync(is_older, data, self._since):
            self.skip(file)
            return
        reader = CheckpointReader(data)
        blocks = iter(reader)
        while (block := await trio.to_thread.run_sync(next, blocks, None)) is not None:
            names, runs = block
            resolver = Resolver(self._store)
            resolver.take(names)
            await self._restorer.restore(resolver, runs)
        tail = [reader.tail] if reader.tail else []
        if not (reader.damage or tail) and reader.summary is None:
            self._blame(f"{file.path}: incomplete")
        self._note(file, [*reader.damage, *tail])

    async def _load_segment(self, file: ColumnarFile, data: memoryview) -> None:
        """Write the samples of a segment again."""
        reader, resolver = SegmentReader(data), Resolver(self._store)
        parts = iter(reader)
        while (part := await trio.to_thread.run_sync(next, parts, None)) is not None:
            if isinstance(part, Names):
                resolver.take(part)
            else:
                await self._restorer.append(resolver, part)
        if reader.tail is not None:
            self._report.torn_bytes += reader.tail.size
        if reader.nameless:
            self._blame(f"{file.path}: {reader.nameless} samples of series whose names are lost")
        self._note(file, reader.damage)

    def _blame(self, damage: str) -> None:
        if damage not in self._report.damage:  # of a file that is read for the second time
            self._report.damage.append(damage)

    def _note(self, file: ColumnarFile, damage: Iterable[Damage]) -> None:
        """Enter what is damaged in a file, and that it was read."""
        for found in damage:
            self._blame(f"{file.path}: {found}")
        self._report.files_read += 1
        self._report.bytes_read += file.size
