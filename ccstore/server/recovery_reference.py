"""Recovery from the reference's files, whatever format is configured.

Host by host: the checkpoints that reach into the retention, in their order, then the logs. Files are read and
decoded in a worker thread, one at a time, and put into the store here (`restoring`). What is damaged costs
itself, and is set aside or cut (`ccstore.disk.reference.reading`).

Invariant: what came from a checkpoint is marked as saved and what came from a log is not. If the store goes
on in this format, no log is there under the name that is going to be written.
"""

from collections.abc import Collection
from pathlib import Path

import trio

from ccstore.disk.files import Disk
from ccstore.disk.hosts import Host
from ccstore.disk.layout import ROOM
from ccstore.disk.reference.directory import HostDirectory, Listing, list_hosts
from ccstore.disk.reference.reading import Found, Trouble, last_number, put_behind, read_hosts
from ccstore.memory.naming import Resolver
from ccstore.memory.store import Store
from ccstore.model import Runs
from ccstore.server.restoring import Recovery, Restorer

__all__ = ["recover_reference"]


async def recover_reference(
    store: Store, disk: Disk, directory: Path, report: Recovery, *, since: int, continues: bool,
    used: Collection[Host] = (),
) -> int:  # fmt: skip
    """Load what the reference's files have of times from `since` (seconds) on, and of used hosts all.

    continues: whether the store goes on in one of the reference's formats. Returns a number below those of
    new logs. Raises OSError if not even names can be read.
    """
    listing, sizes = await trio.to_thread.run_sync(_list, disk, directory)
    report.files += len(sizes)
    report.bytes += sum(sizes.values())
    report.strange += map(str, _strange(listing))
    report.damage += listing.unreadable
    loader = _Loader(store, report, sizes)
    parts = iter(read_hosts(disk, listing.hosts, since=since, used=used, skipped=loader.skip))
    while (part := await trio.to_thread.run_sync(next, parts, None)) is not None:
        if isinstance(part, Trouble):
            report.damage.append(f"{part.path}: {part.reason}")
        else:
            await loader.load(part)
    if continues:
        await trio.to_thread.run_sync(_put_behind, disk, listing.hosts, report.damage)
    return last_number(listing.hosts)


def _list(disk: Disk, directory: Path) -> tuple[Listing, dict[Path, int]]:
    """Return what there is, and the size of each file that may be read."""
    listing = list_hosts(disk, directory, skip={ROOM})
    paths = [path for host in listing.hosts for path in (*(file.path for file in host.files), *host.logs)]
    return listing, {path: disk.size(path) for path in paths}


def _strange(listing: Listing) -> list[Path]:
    return [*listing.strange, *(path for host in listing.hosts for path in host.strange)]


def _put_behind(disk: Disk, hosts: tuple[HostDirectory, ...], damage: list[str]) -> None:
    for host in hosts:
        try:
            put_behind(disk, host)
        except OSError as error:  # the log will stumble over it as well, and then the host is not durable
            damage.append(f"{host.path}: {error}")


class _Loader:
    """Loads what was read, file by file."""

    def __init__(self, store: Store, report: Recovery, sizes: dict[Path, int]) -> None:
        self.restorer = Restorer(store, report)
        self._store = store
        self._report = report
        self._sizes = sizes

    async def load(self, found: Found) -> None:
        """Put into the store what a file holds."""
        resolver = Resolver(self._store)
        resolver.take(found.names)
        if isinstance(found.data, Runs):
            await self.restorer.restore(resolver, found.data)
        else:
            self._report.unclean |= len(found.data.numbers) > 0
            await self.restorer.append(resolver, found.data)
        self._report.torn_bytes += found.torn_bytes
        if found.torn_bytes:
            self._report.torn.append(f"{found.path}: torn end: {found.torn_bytes} bytes cut off")
        self._report.files_read += 1
        self._report.bytes_read += self._sizes[found.path]

    def skip(self, path: Path) -> None:
        """Count a file that is too old; called in a worker thread while nobody else counts."""
        self._report.files_skipped += 1
        self._report.bytes_read += self._sizes[path]
