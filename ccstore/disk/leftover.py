"""What a change of the format leaves behind: files of a format that is read and not written any more.

Owns how they get out of the way. Whoever calls has made sure that checkpoints in the other format hold what
memory took of them. Never touches a file of the format that is written, nor one that is none of a store's.

Invariant: a file is removed only if all of what it held was taken over; else it goes to a directory beside,
where nobody reads it and an operator finds it. It does no harm if this ends in the middle: what is left is
read at the next start, before the files that count more.
"""

from contextlib import suppress
from pathlib import Path

from attrs import frozen

from ccstore.disk import layout
from ccstore.disk.files import Disk
from ccstore.disk.layout import ROOM
from ccstore.disk.reference.directory import list_hosts

__all__ = ["Leftover"]

_ASIDE = ".replaced"


@frozen
class Leftover:
    """The files of the formats that are not written."""

    disk: Disk
    directory: Path
    by_hosts: bool
    """Whether one of the reference's formats is written, and these are columnar files; else the reverse."""
    is_whole: bool
    """Whether everything in them was taken over."""

    def clear(self) -> tuple[int, Path | None]:
        """Take all of them away; return how many were removed, and where others were set aside.

        Raises OSError; then they are read at the next start.
        """
        removed = 0
        if self.is_whole:
            removed = self._remove_columnar() if self.by_hosts else self._remove_hosts()
        return removed, self._set_aside()

    def _remove_columnar(self) -> int:
        disk, room = self.disk, self.directory / ROOM
        files = [file.path for file in layout.find_files(disk, self.directory)]
        files += layout.find_incomplete(disk, self.directory)
        for path in files:
            disk.remove(path)
        for below in sorted({path.parent for path in files}):
            disk.sync_directory(below)
        # Behind that: as long as any of them can come back, it has to be known that it is old.
        own = (layout.COVERED, layout.SUPERSEDED)
        notes = [room / name for name in disk.scan(room).files if name.startswith(own)]
        for path in notes:
            disk.remove(path)
        for name in disk.scan(room).directories:
            self._remove_empty(room / name)
        self._remove_empty(room)
        return len(files) + len(notes)

    def _remove_hosts(self) -> int:
        removed = 0
        for host in list_hosts(self.disk, self.directory, skip={ROOM}).hosts:
            for path in (*(file.path for file in host.files), *host.logs, *host.temporary):
                self.disk.remove(path)
                removed += 1
            self._remove_empty(host.path)
            self._remove_empty(host.path.parent)
        return removed

    def _remove_empty(self, path: Path) -> None:
        with suppress(OSError):  # something else is in there
            self.disk.remove_directory(path)

    def _set_aside(self) -> Path | None:
        """Move what is left into a directory of its own, beside the one that a store works in."""
        left = self._left()
        if not left:
            return None
        parent, wanted = self.directory.parent, self.directory.name + _ASIDE
        taken = set(self.disk.list(parent))
        names = [wanted, *(f"{wanted}.{count}" for count in range(1, len(taken) + 2))]
        target = parent / next(name for name in names if name not in taken)
        self.disk.make_directory(target)
        for path in left:
            self.disk.replace(path, target / path.name)
        return target

    def _left(self) -> list[Path]:
        """Return the directories with files that would still be read, or that the reference does not know."""
        if self.by_hosts:
            return [self.directory / ROOM] if ROOM in self.disk.list(self.directory) else []
        listing = list_hosts(self.disk, self.directory, skip={ROOM})
        return sorted({host.path.parent for host in listing.hosts if host.files or host.logs})
