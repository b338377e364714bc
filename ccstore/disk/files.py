"""The file system as the log and the checkpoints need it: few operations, each of which can fail.

Owns the order of operations that makes a file durable. Never knows what is in it. Invariant: a
name appears in a directory only with its whole content synced (`Publication`), or it is that of a
log segment, whose reader expects a torn end.

Everything here blocks and belongs into a worker thread. It is a protocol so that tests can fail any
operation, or forget what was not synced, as a power cut does.
"""

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Protocol

from ccstore.errors import ConfigError

__all__ = ["Disk", "File", "OsDisk", "Publication", "Scan", "lock_directory"]

_AT_ONCE = 256 * 1024
"""Bytes, few enough for the cache of a processor."""
TEMPORARY = ".tmp"
"""Suffix of files that are not complete; they are removed at the start."""


class File(Protocol):
    """A file that is written from its beginning to its end."""

    def write(self, data: bytes) -> None:
        """Append bytes, all of them."""

    def sync(self) -> None:
        """Return when everything written is on the medium. After an error nothing is known of it."""

    def close(self) -> None:
        """Close the file; what was not synced may be lost."""


class Scan(NamedTuple):
    """What is in a directory; each kind by name."""

    files: list[str]
    directories: list[str]
    others: list[str]
    """Pipes, links that lead nowhere, and the like: what nobody can read to its end."""


class Disk(Protocol):
    """What is done with files and directories. Everything raises OSError."""

    def create(self, path: Path) -> File:
        """Make a new file for writing; an existing one is an error."""

    def append(self, path: Path) -> File:
        """Go on writing at the end of a file that is there."""

    def replace(self, source: Path, target: Path) -> None:
        """Give a file or a directory another name, in place of a file that has it."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def cut(self, path: Path, size: int) -> None:
        """Leave only the first so many bytes of a file; on the medium, too, when it returns."""

    def sync_file(self, path: Path) -> None:
        """Return when a file that somebody else wrote is on the medium."""

    def sync_directory(self, path: Path) -> None:
        """Return when the names of a directory are on the medium."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it, where they are missing; its name is on the medium then."""

    def remove_directory(self, path: Path) -> None:
        """Remove a directory in which nothing is."""

    def list(self, path: Path) -> Sequence[str]:
        """Return the names in a directory, sorted; none if there is no such directory."""

    def scan(self, path: Path) -> Scan:
        """Return the names in a directory by their kind; none if there is no such directory."""

    def size(self, path: Path) -> int:
        """Return the bytes of a file."""

    def modified(self, path: Path) -> float:
        """Return when a file was written, in seconds since the epoch, as its directory tells."""

    def map(self, path: Path) -> memoryview:
        """Return the content of a file, which can be read to its end."""

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Return a part of a file: so many bytes, or fewer if it ends before."""


class OsDisk:
    """The file system of the machine."""

    def create(self, path: Path) -> File:
        """Make a new file for writing."""
        return _OsFile(path, os.O_CREAT | os.O_EXCL)

    def append(self, path: Path) -> File:
        """Go on writing a file."""
        return _OsFile(path)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def cut(self, path: Path, size: int) -> None:
        """Cut the end off a file, and sync that."""
        os.truncate(path, size)
        _sync(path, os.O_RDONLY)

    def sync_file(self, path: Path) -> None:
        """Sync the content of a file."""
        _sync(path, os.O_RDONLY)

    def sync_directory(self, path: Path) -> None:
        """Sync the names of a directory."""
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def make_directory(self, path: Path) -> None:
        """Make a directory and sync where it is named."""
        missing = [parent for parent in path.parents if not parent.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for made in (path, *missing):  # whoever made `path` may have been killed before the sync
            self.sync_directory(made.parent)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def list(self, path: Path) -> Sequence[str]:
        """Return the names in a directory."""
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def scan(self, path: Path) -> Scan:
        """Return the names in a directory by their kind."""
        found = Scan([], [], [])
        if path.is_dir():
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=attrgetter("name")):
                    kind = 1 if entry.is_dir() else 0 if entry.is_file() else 2
                    found[kind].append(entry.name)
        return found

    def size(self, path: Path) -> int:
        """Return the bytes of a file."""
        return path.stat().st_size

    def modified(self, path: Path) -> float:
        """Return when a file was written."""
        return path.stat().st_mtime

    def map(self, path: Path) -> memoryview:
        """Map a file into memory.

        It is read once before, which takes 50 ms a GB: a bad sector is an error here, and would be a signal
        that ends the process as soon as somebody looks at the map.
        """
        with path.open("rb", buffering=0) as file:
            passing = bytearray(_AT_ONCE)
            size = 0
            while read := file.readinto(passing):
                size += read
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Read a part of a file."""
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, start)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _OsFile:
    def __init__(self, path: Path, flags: int = 0) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | flags, 0o644)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        os.fdatasync(self._descriptor)  # it syncs the size as well

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Publication:
    """A file that appears under its name only when it is complete and synced."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._temporary = path.with_name(path.name + TEMPORARY)
        if self._temporary.name in disk.list(path.parent):
            disk.remove(self._temporary)  # of an attempt that failed
        self._file = disk.create(self._temporary)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def publish(self) -> None:
        """Sync the file and give it its name. After an error only that its content is whole is known."""
        self._file.sync()
        self._file.close()
        self._disk.replace(self._temporary, self._path)
        self._disk.sync_directory(self._path.parent)

    def abandon(self) -> None:
        """Close and remove what was written so far, as far as the disk lets us."""
        for step in (self._file.close, partial(self._disk.remove, self._temporary)):
            with contextlib.suppress(OSError):  # what is left is removed by the next attempt, or at the start
                step()


@contextmanager
def lock_directory(path: Path) -> Iterator[None]:
    """Keep every other server out of a directory, which is made if it is missing.

    Raises ConfigError if another one has it. The lock ends with the process, however that ends.
    """
    where = f"metric-store.checkpoints.directory: {path}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be used ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"{where}: in use by another server (wanted one server per directory)") from error
    try:
        yield
    finally:
        os.close(descriptor)
