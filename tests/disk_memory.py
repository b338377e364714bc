"""A disk in memory that fails when it is told to, and forgets what a power cut forgets.

A test can ask for the disk as it may be after a power cut before any operation: of a file at least what was
synced, of a directory at least the names that were synced, and of the rest anything, as chance has it.
"""

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, RLock

import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from ccstore.disk.files import File, Scan

Change = tuple[str, Path, Path | None, "Inode"]
"""What was done, to which name, what that was called before, and which file it is."""


@define(eq=False)
class Inode:
    """The content of a file."""

    data: bytearray = field(factory=bytearray)
    synced: int = 0
    failed: bool = False
    """Whether writing or syncing it failed: from then on nobody may rely on it."""


def _nothing(number: int, name: str, path: Path) -> None:
    pass


@define(eq=False)
class MemoryDisk:
    """A `Disk` that several threads may use."""

    before: Callable[[int, str, Path], None] = _nothing
    """Called with number, name and path of each operation that changes something; it may raise."""
    operations: int = 0
    names: dict[Path, Inode] = field(factory=dict)
    """What the directories show."""
    durable: dict[Path, Inode] = field(factory=dict)
    """What they show after a power cut, whatever chance has it."""
    pending: list[Change] = field(factory=list)
    """Changes of names that no sync has made durable."""
    removed: set[Path] = field(factory=set)
    """Directories that were removed, which no sync has made durable."""
    misuse: list[str] = field(factory=list)
    """Operations on files that had failed before."""
    lock: RLock = field(factory=RLock)

    def operate(self, name: str, path: Path) -> None:
        """Count an operation, which may fail."""
        with self.lock:
            self.operations += 1
            number = self.operations
        self.before(number, name, path)

    def create(self, path: Path) -> File:
        """Make a new file."""
        with self.lock:
            self.operate("create", path)
            if path in self.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            self.names[path] = inode = Inode()
            self.pending.append(("create", path, None, inode))
            return _MemoryFile(self, path, inode)

    def append(self, path: Path) -> File:
        """Go on with a file."""
        with self.lock:
            self.operate("append", path)
            return _MemoryFile(self, path, self._find(path))

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        with self.lock:
            self.operate("replace", target)
            inode = self._find(source)
            del self.names[source]
            self.names[target] = inode
            self.pending.append(("replace", target, source, inode))

    def remove(self, path: Path) -> None:
        """Remove a file."""
        with self.lock:
            self.operate("remove", path)
            self.pending.append(("remove", path, None, self._find(path)))
            del self.names[path]

    def cut(self, path: Path, size: int) -> None:
        """Cut the end off a file; both before and after it may be what a power cut leaves."""
        with self.lock:
            self.operate("cut", path)
            inode = self._find(path)
            del inode.data[size:]
            inode.synced = len(inode.data)

    def sync_file(self, path: Path) -> None:
        """Make the content of a file durable."""
        with self.lock:
            self.operate("sync_file", path)
            inode = self._find(path)
            inode.synced = len(inode.data)

    def sync_directory(self, path: Path) -> None:
        """Make the names of a directory durable."""
        with self.lock:
            self.operate("sync_directory", path)
            self._settle(path)

    def _settle(self, path: Path) -> None:
        """Make names durable; a directory that was removed is gone with all that was in it."""
        for change in self.pending:
            if change[1].parent == path:
                _apply(change, self.durable)
        self.pending = [change for change in self.pending if change[1].parent != path]
        for below in [below for below in self.removed if below.parent == path]:
            self.removed.discard(below)
            self._settle(below)

    def make_directory(self, path: Path) -> None:
        """Directories are always there; one that was removed is another one."""
        with self.lock:
            for made in (path, *path.parents):
                if made in self.removed:
                    self.removed.discard(made)
                    self._settle(made)

    def remove_directory(self, path: Path) -> None:
        """Directories are there as long as something is in them."""
        with self.lock:
            if self.list(path):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
            self.removed.add(path)

    def list(self, path: Path) -> Sequence[str]:
        """Return the names in a directory, those of directories included."""
        depth = len(path.parts)
        with self.lock:
            below = {
                name.parts[depth] for name in self.names if name.parts[:depth] == path.parts and name != path
            }
            return sorted(below)

    def scan(self, path: Path) -> Scan:
        """Return the names in a directory by their kind."""
        with self.lock:
            names = self.list(path)
            return Scan(
                [name for name in names if path / name in self.names],
                [name for name in names if path / name not in self.names],
                [],
            )

    def size(self, path: Path) -> int:
        """Return the bytes of a file."""
        with self.lock:
            return len(self._find(path).data)

    def modified(self, path: Path) -> float:
        """Return when a file was written: nobody knows what time it is here."""
        with self.lock:
            self._find(path)
            return 0.0

    def map(self, path: Path) -> memoryview:
        """Return the content of a file."""
        with self.lock:
            return memoryview(bytes(self._find(path).data))

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Return a part of a file."""
        return bytes(self.map(path)[start : start + size])

    def put(self, path: Path, data: bytes) -> None:
        """Let a file have this content, whatever was there."""
        self.names[path] = self.durable[path] = Inode(bytearray(data), len(data))

    def after_power_cut(self, chance: random.Random) -> "MemoryDisk":
        """Return a disk as it may be if the power fails now."""
        names = dict(self.durable)
        for change in self.pending:
            if chance.random() < 0.5:
                _apply(change, names)
        copies = {id(inode): _survivor(inode, chance) for inode in names.values()}
        left = {path: copies[id(inode)] for path, inode in names.items()}
        return MemoryDisk(names=left, durable=dict(left))

    def after_kill(self) -> "MemoryDisk":
        """Return the disk as it is if the process ends now: nothing is lost, and nothing is synced by it."""
        inodes = {id(inode): inode for inode in (*self.names.values(), *self.durable.values())}
        inodes |= {id(change[3]): change[3] for change in self.pending}
        copies = {key: Inode(bytearray(inode.data), inode.synced) for key, inode in inodes.items()}
        return MemoryDisk(
            names={path: copies[id(inode)] for path, inode in self.names.items()},
            durable={path: copies[id(inode)] for path, inode in self.durable.items()},
            pending=[(what, path, source, copies[id(inode)]) for what, path, source, inode in self.pending],
            removed=set(self.removed),
        )

    def _find(self, path: Path) -> Inode:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self.names[path]


def _apply(change: Change, names: dict[Path, Inode]) -> None:
    what, path, source, inode = change
    if what == "remove":
        names.pop(path, None)
    else:
        names[path] = inode
        if source is not None:
            names.pop(source, None)


def _survivor(inode: Inode, chance: random.Random) -> Inode:
    """Return a file after a power cut: what was synced, some of the rest, and maybe a hole in it."""
    stop = chance.randint(inode.synced, len(inode.data))
    data = inode.data[:stop]
    if stop - inode.synced > 2 and chance.random() < 0.5:  # later blocks got there, earlier ones did not
        hole = chance.randint(inode.synced, stop - 1)
        end = chance.randint(hole, stop)
        data[hole:end] = bytes(end - hole)
    return Inode(data, len(data))


@define(eq=False)
class _MemoryFile:
    disk: MemoryDisk
    path: Path
    inode: Inode

    def write(self, data: bytes) -> None:
        """Append bytes; a disk that is full takes a part first."""
        half = len(data) // 2
        with self.disk.lock:
            self.inode.data += data[:half]
            self._operate("write")
            self.inode.data += data[half:]

    def sync(self) -> None:
        """Make the content durable; other files go on meanwhile."""
        length = len(self.inode.data)
        self._operate("sync")
        self.inode.synced = length

    def close(self) -> None:
        """Close the file, which may fail as well."""
        with self.disk.lock:
            self.disk.operate("close", self.path)

    def _operate(self, name: str) -> None:
        if self.inode.failed:
            self.disk.misuse.append(f"{name} of {self.path} after an error")
        try:
            self.disk.operate(name, self.path)
        except OSError:
            self.inode.failed = True
            raise


class Gate:
    """Lets the syncs of a disk wait until it is opened; to be used as `before`, with real worker threads."""

    def __init__(self) -> None:
        self.arrived = 0
        """Syncs of files that began."""
        self._progress = trio.lowlevel.ParkingLot()
        self._open = Event()

    def __call__(self, _number: int, name: str, _path: Path) -> None:
        """Wait, if this is the sync of a file."""
        if name == "sync":
            trio.from_thread.run_sync(self._arrive)
            assert self._open.wait(30), "nobody opened the gate"

    def _arrive(self) -> None:
        self.arrived += 1
        self._progress.unpark_all()

    async def reached(self, count: int) -> None:
        """Return when so many syncs began, and nobody has anything else to do."""
        while self.arrived < count:
            await self._progress.park()
        await wait_all_tasks_blocked()

    def open(self) -> None:
        """Let everything pass from now on."""
        self._open.set()
