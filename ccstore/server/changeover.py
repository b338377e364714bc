"""A change of the format: which files are the newer ones, until those of one format are gone.

Two formats in one directory may both have a value of a slot. A note on disk (`layout.is_superseded`) tells
which of them counts, and is written before anything new is. Owns that note; never reads a file of samples.

Invariant: when a store takes samples, the files of its own format are the newer ones, and the note says so.

That takes no more than the note where the store has no files of its own format yet. If it has, because the
format was changed back before a round of checkpoints in the other one was complete, some of them are older
than those of the other format: then a complete round comes first, and nothing is stored until it is done. To
tell more than two ages of files apart would take a number in each of them, for something so rare.
"""

import logging
from pathlib import Path

import trio

from ccstore.disk import layout
from ccstore.disk.files import Disk
from ccstore.disk.reference.directory import list_hosts
from ccstore.server.checkpoints import Checkpoints

__all__ = ["make_newest"]

log = logging.getLogger("ccstore.recovery")

_RETRY = 10.0
"""Seconds until it is tried again if the disk fails; nobody else writes to it meanwhile."""


async def make_newest(checkpoints: Checkpoints, disk: Disk, directory: Path) -> None:
    """Make the files of the format that is written the newer ones; after recovery, before anything is stored.

    Returns when this is so, however often the disk fails. The writers of the log have to run.
    """
    by_hosts = checkpoints.format.by_hosts
    while True:
        try:
            superseded, columnar, of_hosts = await trio.to_thread.run_sync(_look, disk, directory)
            if superseded == by_hosts or not (columnar or superseded):
                return
            if columnar and of_hosts:
                log.warning("recovery: the format was changed back: everything is written anew")
                await checkpoints.save_all()
            await trio.to_thread.run_sync(_note, disk, directory, by_hosts)
        except* OSError as errors:
            for error in errors.exceptions:
                log.error("recovery: change of the format: %(error)s; tried again", {"error": error})
            await trio.sleep(_RETRY)


def _look(disk: Disk, directory: Path) -> tuple[bool, bool, bool]:
    """Return whether columnar files are the older ones, and whether there are such files and others."""
    if disk.list(directory / layout.ROOM):  # who changed the note may have been killed before it was synced
        disk.sync_directory(directory / layout.ROOM)
    hosts = list_hosts(disk, directory, skip={layout.ROOM}).hosts
    return (
        layout.is_superseded(disk, directory),
        bool(layout.find_files(disk, directory)),
        any(host.files or host.logs for host in hosts),
    )


def _note(disk: Disk, directory: Path, superseded: bool) -> None:
    """Change the note, and make sure first that what was removed before cannot come back as the newer one."""
    hosts = list_hosts(disk, directory, skip={layout.ROOM}).hosts
    below = {path for host in hosts for path in (host.path, host.path.parent)}
    for path in (directory, *sorted(below), *layout.find_shards(disk, directory)):
        disk.sync_directory(path)
    layout.set_superseded(disk, directory, superseded)
