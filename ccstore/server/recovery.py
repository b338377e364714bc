"""Recovery: what the disk has goes back into memory when the server starts.

Checkpoints first, in their order, then the segments of the log that they do not cover; if a checkpoint is
damaged, all segments that there are, and once more the checkpoints between them. Files are read and decoded
in a worker thread (`ccstore.disk.reading`), a little ahead of what is put into the store here, in steps of
some milliseconds: HTTP answers meanwhile, with the progress.

Whatever is damaged costs itself. Nothing is removed, so that somebody can look at it. Only the torn end of a
segment is cut off, once; the log goes on in new files. A file that the disk does not give gets another name,
so that no round of checkpoints removes it.

Invariant: after recovery, what came from a checkpoint is marked as saved, and what came from the log is not,
so the next checkpoint holds it. All that was read is on the medium: what comes later relies on it.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import trio

from ccstore.disk import layout
from ccstore.disk.files import Disk
from ccstore.disk.hosts import Host
from ccstore.disk.layout import ColumnarFile
from ccstore.disk.reading import End, read_files
from ccstore.memory.naming import Resolver
from ccstore.memory.store import Store
from ccstore.model import Runs
from ccstore.server.recovery_reference import recover_reference
from ccstore.server.restoring import Recovery, Restorer, read_ahead

__all__ = ["Recovery", "recover"]

log = logging.getLogger("ccstore.recovery")


async def recover(
    store: Store,
    disk: Disk,
    directory: Path,
    report: Recovery,
    *,
    since: int,
    used: Collection[Host] = (),
    by_hosts: bool = False,
    now: Callable[[], float] = trio.current_time,
) -> int:
    """Load what files of all formats have of times from `since` (seconds) on.

    used: hosts of which everything is loaded. by_hosts: whether the store goes on in one of
    the reference's formats. Where both formats have files, the newer ones are read last; a note on disk tells
    which they are (`changeover`). Returns a number below those of new files. Raises OSError if not even names
    can be read.
    """
    began, report.running = now(), True

    async def load(of_reference: bool) -> int:
        before = report.files
        if of_reference:
            last = await recover_reference(
                store, disk, directory, report, since=since, continues=by_hosts, used=used
            )
        else:
            last = await _recover_columnar(_Loader(store, disk, report, since, used), directory)
        if of_reference != by_hosts and report.files > before:
            await Restorer(store, report).forget_saved()
        return last

    reference_last = await trio.to_thread.run_sync(layout.is_superseded, disk, directory)
    last = await load(not reference_last)
    last = max(last, await load(reference_last))
    report.seconds, report.running = now() - began, False
    _tell(report)
    return last


async def _recover_columnar(loader: "_Loader", directory: Path) -> int:
    disk, report = loader.disk, loader.report
    await trio.to_thread.run_sync(layout.settle, disk, directory)
    covered = await trio.to_thread.run_sync(layout.read_covered, disk, directory)
    files = await trio.to_thread.run_sync(layout.find_files, disk, directory)
    segments = [file for file in files if file.is_segment]
    report.files += len(files)
    report.bytes += sum(file.size for file in files)
    report.unclean |= any(file.number >= covered and file.size for file in segments)
    known = len(report.damage)
    await loader.load([file for file in files if not file.is_segment])
    if len(report.damage) > known and segments and segments[0].number < covered:
        # In the order in which they were written, so that the newer value of a slot stays.
        log.error("recovery: damaged checkpoints: all that is left of the log is read")
        left = files[files.index(segments[0]) :]
        await loader.load([file for file in left if file not in loader.set_aside])
    else:
        await loader.load([file for file in segments if file.number >= covered])
        for file in segments:
            if file.number < covered:
                loader.skip(file)
    return max(covered, *(file.number for file in files), 0)


def _tell(report: Recovery) -> None:
    for damage in report.damage:
        log.error("recovery: %(damage)s", {"damage": damage})
    for torn in report.torn:
        log.warning("recovery: %(torn)s", {"torn": torn})
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
    """Loads files one after the other, while those behind are read."""

    def __init__(
        self, store: Store, disk: Disk, report: Recovery, since: int, used: Collection[Host]
    ) -> None:
        self.disk = disk
        self.report = report
        self._store = store
        self._since = since
        self._used = used
        self._restorer = Restorer(store, report)
        self.set_aside: set[ColumnarFile] = set()
        """What the disk did not give."""

    async def load(self, files: Sequence[ColumnarFile]) -> None:
        """Load files in this order, as far as they can be read; what cannot is reported."""
        resolver = Resolver(self._store)
        async with read_ahead(read_files(self.disk, files, since=self._since, used=self._used)) as parts:
            async for part in parts:
                if isinstance(part, End):
                    self._note(part)
                    resolver = Resolver(self._store)
                elif isinstance(part.data, Runs):
                    resolver = Resolver(self._store)
                    await self._restorer.take(resolver, part.names)
                    await self._restorer.restore(resolver, part.data)
                else:
                    await self._restorer.take(resolver, part.names)
                    await self._restorer.append(resolver, part.data)

    def skip(self, file: ColumnarFile) -> None:
        """Count a file that need not be read."""
        self.report.files_skipped += 1
        self.report.bytes_read += file.size

    def _note(self, end: End) -> None:
        """Enter what is damaged in a file, and that it was read."""
        if end.is_skipped:
            self.skip(end.file)
            return
        if end.is_set_aside:
            self.set_aside.add(end.file)
        for found in end.damage:
            damage = f"{end.file.path}: {found}"
            if damage not in self.report.damage:  # of a file that is read for the second time
                self.report.damage.append(damage)
        self.report.torn_bytes += end.torn_bytes
        if end.torn:
            self.report.torn.append(f"{end.file.path}: {end.torn}")
        self.report.files_read += 1
        self.report.bytes_read += end.file.size
