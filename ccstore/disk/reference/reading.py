"""What a start finds in the reference's directory, host by host and file by file.

Owns what is done with files that cannot be read: a damaged checkpoint, or what is no log, is set aside
under another name; a log is cut behind its last good record, because nothing behind it would ever be
found again. Never touches the store: `read_hosts` yields what files hold, in the order in which it counts.

Invariant: nothing that somebody could still get a value out of is removed. A file is set aside under a
name that is free, and of what is cut off a log there is a copy, unless no further record begins in it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from attrs import frozen

from ccstore.disk.files import Disk, Publication
from ccstore.disk.hosts import Host
from ccstore.disk.reference.checkpoint import INT64
from ccstore.disk.reference.columns import flatten
from ccstore.disk.reference.directory import (
    CURRENT_LOG,
    SET_ASIDE,
    CheckpointFile,
    HostDirectory,
    plan_load,
    read_checkpoint,
    read_stop,
)
from ccstore.disk.reference.wal import FILE_MAGIC, RECORD_MAGIC, Log, decode_log
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs, Samples

__all__ = ["Found", "Trouble", "find_stop", "last_number", "publish", "put_behind", "read_hosts", "set_aside"]


@frozen
class Found:
    """What one file holds."""

    path: Path
    names: Names
    data: Runs | Samples
    """Runs of a checkpoint, or samples of a log."""
    torn_bytes: int = 0
    """Cut off the end of a log, where it was being written when the server was ended."""


@frozen
class Trouble:
    """A file or a directory that could not be read as a whole."""

    path: Path
    reason: str


def read_hosts(
    disk: Disk, hosts: tuple[HostDirectory, ...], *, since: int, skipped: Callable[[Path], None],
    used: Collection[Host] = (),
) -> Iterator[Found | Trouble]:  # fmt: skip
    """Read all files of hosts that may hold values from `since` (seconds) on: checkpoints, then logs.

    used: hosts of which everything is read. skipped: told of each checkpoint that is older. Whatever a file
    holds, this raises nothing.
    """
    for host in hosts:
        begin = INT64.start if (host.cluster, host.host) in used else since
        reader = _HostReader(disk, host, begin)
        yield from reader.settle()
        wanted = plan_load(host.files, begin, partial(find_stop, disk))
        for file in host.files:
            if file in wanted:
                yield from reader.read_checkpoint(file)
            else:
                skipped(file.path)
        for log in host.logs:
            yield from reader.read_log(log)


class _HostReader:
    """Reads the files of one host."""

    def __init__(self, disk: Disk, host: HostDirectory, since: int) -> None:
        self._disk = disk
        self._host = host
        self._since = since

    def settle(self) -> Iterator[Trouble]:
        """Remove what was not finished; make durable what is going to be relied on, after an unclean stop."""
        if not self._host.temporary and not self._host.logs:
            return
        try:
            for path in self._host.temporary:
                self._disk.remove(path)
            for path in self._host.logs:
                self._disk.sync_file(path)
            self._disk.sync_directory(self._host.path)
        except OSError as error:
            yield Trouble(self._host.path, str(error))

    def read_checkpoint(self, file: CheckpointFile) -> Iterator[Found | Trouble]:
        """Read a checkpoint, or set it aside."""
        try:
            checkpoint = read_checkpoint(self._disk, file)
        except CorruptionError as error:
            yield Trouble(file.path, self._set_aside(file.path, str(error).removeprefix(f"{file.path}: ")))
        except OSError as error:  # the file may be good: the next start tries again
            yield Trouble(file.path, str(error))
        else:
            yield Found(file.path, *flatten(checkpoint, cluster=self._host.cluster, host=self._host.host))

    def read_log(self, path: Path) -> Iterator[Found | Trouble]:
        """Read the good part of a log, and cut off the rest."""
        try:
            data = self._disk.map(path)
            log = decode_log(data, cluster=self._host.cluster, host=self._host.host)
            wrong = self._mend(path, data, log) if log.bad_bytes else ""
        except OSError as error:
            yield Trouble(path, str(error))
            return
        if wrong:
            yield Trouble(path, wrong)
        yield Found(path, log.names, _from(log.samples, self._since), 0 if wrong else log.bad_bytes)

    def _mend(self, path: Path, data: memoryview, log: Log) -> str:
        """Leave only the good part of a log; return what is wrong, empty if it is only torn.

        If this fails, nothing is lost: the next start finds the same, and nobody appends to it.
        """
        if not log.good_bytes and len(data) >= len(FILE_MAGIC):
            return self._set_aside(path, log.reason)
        rest = bytes(data[log.good_bytes :])
        try:
            kept = ""
            if rest.find(RECORD_MAGIC, 1) >= 0:
                kept = _free_name(self._disk, path).name
                publish(self._disk, path.with_name(kept), rest)
            if log.good_bytes:
                publish(self._disk, path, bytes(data[: log.good_bytes]))
            else:
                self._disk.remove(path)
        except OSError as error:
            return f"{log.reason}: {log.bad_bytes} bytes cannot be cut off ({error})"
        return f"{log.reason}: {log.bad_bytes} bytes cut off, a copy is {kept!r}" if kept else ""

    def _set_aside(self, path: Path, reason: str) -> str:
        try:
            name = set_aside(self._disk, path)
        except OSError as error:
            return f"{reason}: it cannot be set aside ({error})"
        return f"{reason}: set aside as {name!r}"


def find_stop(disk: Disk, file: CheckpointFile) -> int:
    """Return the ``to`` of a checkpoint. Raises CorruptionError alone, also if it cannot be read now."""
    try:
        return read_stop(disk, file)
    except OSError as error:
        raise CorruptionError(f"{file.path}: {error}") from error


def _from(samples: Samples, since: int) -> Samples:
    """Return the samples that are not older than a time."""
    if samples.times.min(initial=since) >= since:
        return samples
    kept = samples.times >= since
    return Samples(samples.numbers[kept], samples.times[kept], samples.values[kept])


def put_behind(disk: Disk, host: HostDirectory) -> None:
    """Give the current log of a host, if there is one, a number behind those of its other logs.

    For a start in this format: the next one that is written is a new file. Raises OSError.
    """
    current = host.path / CURRENT_LOG
    if current in host.logs and CURRENT_LOG in disk.list(host.path):  # else it was empty, or set aside
        disk.replace(current, current.with_stem(str(_last(host) + 1)))
        disk.sync_directory(host.path)


def last_number(hosts: Iterable[HostDirectory]) -> int:
    """Return the greatest number that logs of hosts have, or get from `put_behind`."""
    return max((_last(host) + 1 for host in hosts), default=0)


def _last(host: HostDirectory) -> int:
    return max((int(path.stem) for path in host.logs if path.name != CURRENT_LOG), default=0)


def set_aside(disk: Disk, path: Path) -> str:
    """Give a file that cannot be read a name that nobody reads; return it. Raises OSError."""
    free = _free_name(disk, path)
    disk.replace(path, free)
    disk.sync_directory(path.parent)
    return free.name


def _free_name(disk: Disk, path: Path) -> Path:
    """Return a name for what is set aside, beside whatever was set aside before."""
    taken = set(disk.list(path.parent))
    candidates = [path.name, *(f"{path.name}.{count}" for count in range(1, len(taken) + 2))]
    return path.with_name(next(name + SET_ASIDE for name in candidates if name + SET_ASIDE not in taken))


def publish(disk: Disk, path: Path, data: bytes) -> None:
    """Write a file as a whole. Raises OSError, and then leaves what was there."""
    file = Publication(disk, path)
    try:
        file.write(data)
        file.publish()
    except BaseException:
        file.abandon()
        raise
