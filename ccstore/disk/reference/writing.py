"""The files that a running store writes in the reference's formats: for each host a log, and checkpoints.

    <directory>/<cluster>/<host>/current.wal     what is being written
                                 <number>.wal    what the next checkpoint makes superfluous
                                 <from>.bin      a checkpoint, or <from>.json

Owns the files of a shard's hosts while they are written. Never knows the store nor who waits. Everything
here blocks, and has one caller at a time for each object; logs and checkpoints touch no file of each
other, as logs get a name of their own (`HostLogs.begin`) before a checkpoint removes them.

Invariant: a log is removed only when checkpoints hold all of it and their names are synced; older logs go
before newer ones, and no newer one goes until that is synced: else an old value of a slot could come back
after a newer one was acknowledged. A name is never given to another file before it is synced that
the one before has lost it.

Files are not kept open: to open one takes a hundredth of what it takes to sync it, so that however many
hosts there are, no more than `_OPEN_AT_ONCE` files are open.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from attrs import define

from ccstore.disk.files import Disk, File
from ccstore.disk.folding import join_samples
from ccstore.disk.hosts import Host, host_of
from ccstore.disk.layout import ROOM
from ccstore.disk.reference.checkpoint import Checkpoint
from ccstore.disk.reference.columns import arrange, revise
from ccstore.disk.reference.directory import (
    CURRENT_LOG,
    CheckpointFile,
    HostDirectory,
    encode_checkpoint,
    list_host,
    list_hosts,
    next_number,
    plan_cleanup,
    plan_revise,
    read_checkpoint,
)
from ccstore.disk.reference.reading import find_stop, publish, set_aside
from ccstore.disk.reference.wal import FILE_MAGIC, LogEncoder
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs, Samples

__all__ = ["HostCheckpoints", "HostLogs", "Reference"]

_OPEN_AT_ONCE = 64
"""Files of a shard; they are written first and synced afterwards, so that the syncs have less to do."""


class HostLogs:
    """The logs of a shard's hosts; each is made when there is something to write.

    max_bytes: of a host's log, from which on a checkpoint should come early; 0 for no bound.
    """

    def __init__(self, disk: Disk, directory: Path, *, number: int, max_bytes: int = 0) -> None:
        self._disk = disk
        self._directory = directory
        self._number = number
        self._max_bytes = max_bytes
        self._encoder = LogEncoder()
        self._paths: list[
            Path
        ] = []  # of each place: its directory if it is a cluster or host, else the host's
        self._depths: list[int] = []
        self._sizes: dict[Path, int] = {}  # of the current logs, by host
        self._behind: dict[Path, int] = {}  # hosts whose current log is of an earlier number
        self._renamed: set[Path] = set()  # hosts whose current log got another name that is not synced
        self._known: set[Path] = set()  # hosts whose directory is there
        self.is_large = False

    def commit(self, entries: Sequence[tuple[Names | None, Samples]]) -> int:
        """Write entries in their order, and sync; return how many bytes.

        Raises OSError; then some of it may be written, and nothing more can be until `begin`.
        """
        for names, _ in entries:
            if names is not None:
                self._learn(names)
        parts = self._encoder.encode(join_samples([samples for _, samples in entries]))
        return sum(
            self._write(
                [(self._paths[place], records) for place, records in parts[first : first + _OPEN_AT_ONCE]]
            )
            for first in range(0, len(parts), _OPEN_AT_ONCE)
        )

    def begin(self, number: int) -> None:
        """Go on with new files; those before get their number for a name.

        Raises OSError if some do not; then the next call tries again.
        """
        self._behind |= dict.fromkeys(self._sizes, self._number)
        self._number, self._sizes, self.is_large = number, {}, False
        self._encoder, self._paths, self._depths = LogEncoder(), [], []
        errors: list[OSError] = []
        for host, before in list(self._behind.items()):
            try:
                with suppress(FileNotFoundError):  # it was never made
                    self._disk.replace(host / CURRENT_LOG, host / f"{before}.wal")
            except OSError as error:
                errors.append(error)
                continue
            del self._behind[host]
            self._renamed.add(host)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Nothing is open."""

    def _learn(self, names: Names) -> None:
        self._encoder.learn(names)
        for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
            above = self._directory if parent < 0 else self._paths[parent]
            depth = 1 if parent < 0 else self._depths[parent] + 1
            self._paths.append(above / name if depth <= 2 else above)
            self._depths.append(depth)

    def _write(self, parts: Sequence[tuple[Path, memoryview]]) -> int:
        """Write records of some hosts, and sync."""
        with ExitStack() as stack:
            files: list[File] = []
            made: list[Path] = []
            total = 0
            for host, records in parts:
                if host not in self._sizes:
                    made.append(host)
                file, head = self._open(host)
                stack.callback(_close, file)
                files.append(file)
                data = b"".join((head, records))
                file.write(data)
                self._sizes[host] += len(data)
                total += len(data)
            for file in files:
                file.sync()
            for host in made:
                self._disk.sync_directory(host)
        sizes = (self._sizes[host] for host, _ in parts)
        self.is_large |= 0 < self._max_bytes <= max(sizes)
        return total

    def _open(self, host: Path) -> tuple[File, bytes]:
        """Return a host's log, and what has to be written before its next record."""
        path = host / CURRENT_LOG
        if host in self._sizes:
            return self._disk.append(path), b""
        if host not in self._known:
            self._disk.make_directory(host)
            self._known.add(host)
        if host in self._renamed:
            self._disk.sync_directory(host)
            self._renamed.discard(host)
        self._sizes[host] = 0  # first: if this fails, something may be there
        return self._disk.create(path), FILE_MAGIC


def _close(file: File) -> None:
    with suppress(OSError):  # it says nothing of what was synced
        file.close()


class HostCheckpoints:
    """Checkpoints of a shard's hosts; each is complete when `add` returns.

    suffix: of new files; those that are written again keep theirs.
    number: logs with smaller numbers are removed when a checkpoint holds what is in them.
    now: seconds; where the period ends.
    """

    def __init__(self, disk: Disk, directory: Path, *, suffix: str, number: int, now: int) -> None:
        self._disk = disk
        self._directory = directory
        self._suffix = suffix
        self._number = number
        self._now = now
        self.values = 0
        self.bytes = 0

    def add(self, names: Names, runs: Runs) -> None:
        """Write a checkpoint of the one host that these runs are of, and remove the logs that it covers.

        Raises OSError; what was written until then does no harm.
        """
        path = self._directory.joinpath(*host_of(names))
        self._disk.make_directory(path)
        found = list_host(self._disk, path)
        steps = names.frequencies[names.series_metrics[runs.numbers]]
        begin = int((runs.starts + runs.firsts * steps).min())
        number = next_number((file.number for file in found.files), begin)
        files = list(found.files)
        for checkpoint in arrange(names, runs, start=number, stop=self._now):
            self._put(path, files, checkpoint)
        remove_logs(self._disk, found, self._number)
        self.values += len(runs.values)

    def finish(self) -> None:
        """All is complete."""

    def abandon(self) -> None:
        """What was written is complete."""

    def _put(self, path: Path, files: list[CheckpointFile], newer: Checkpoint) -> None:
        """Write a file, after those on disk that values of it belong into; note it in the list."""
        chosen, before = self._read(files, newer)
        *after, newest = revise(before, newer)
        for file, old, new in zip(chosen, before, after, strict=True):
            if new is not old:
                self._write(file, new)
        if newest.host.entries or newest.host.children:
            file = CheckpointFile(path / f"{newest.start}{self._suffix}", newest.start)
            self._write(file, newest)
            files.append(file)

    def _read(
        self, files: list[CheckpointFile], newer: Checkpoint
    ) -> tuple[list[CheckpointFile], list[Checkpoint]]:
        """Read the files that values of a new one may belong into; set aside what cannot be read."""
        chosen, found = [], []
        for file in plan_revise(files, newer):
            try:
                found.append(read_checkpoint(self._disk, file))
            except CorruptionError:  # the next start reports it
                set_aside(self._disk, file.path)
                files.remove(file)
            else:
                chosen.append(file)
        return chosen, found

    def _write(self, file: CheckpointFile, checkpoint: Checkpoint) -> None:
        data = encode_checkpoint(checkpoint, file.path.suffix)
        publish(self._disk, file.path, data)
        self.bytes += len(data)


def remove_logs(disk: Disk, host: HostDirectory, number: int) -> int:
    """Remove a host's logs with smaller numbers, older ones first; return how many. Raises OSError."""
    covered = [path for path in host.logs if path.name != CURRENT_LOG and int(path.stem) < number]
    for path in covered:
        disk.remove(path)
        disk.sync_directory(host.path)
    return len(covered)


@define
class Reference:
    """One of the reference's formats: a directory for each host."""

    disk: Disk
    directory: Path
    suffix: str
    """Of checkpoints, ``.bin`` or ``.json``."""
    max_wal_bytes: int = 0
    by_hosts: bool = True

    def prepare(self, shards: int) -> None:  # noqa: ARG002 -- each host's directory is made when it is needed
        """Make the directory."""
        self.disk.make_directory(self.directory)

    def last_round(self) -> float:
        """Return the time of the newest checkpoint: what tells more is in no file of this format."""
        hosts = list_hosts(self.disk, self.directory, skip={ROOM}).hosts
        return max((self.disk.modified(host.files[-1].path) for host in hosts if host.files), default=0.0)

    def log(self, shard: int, number: int, now: Callable[[], int]) -> HostLogs:  # noqa: ARG002 -- not in a log
        """Return the logs of the hosts of a shard."""
        return HostLogs(self.disk, self.directory, number=number, max_bytes=self.max_wal_bytes)

    def checkpoint(self, shard: int, number: int, now: int) -> HostCheckpoints:  # noqa: ARG002 -- as above
        """Return the checkpoints of the hosts of a shard."""
        return HostCheckpoints(self.disk, self.directory, suffix=self.suffix, number=number, now=now)

    def end_round(self, number: int, failed: Collection[Host]) -> tuple[int, list[OSError]]:
        """Remove the logs of hosts that had nothing new, as nothing in them is only there.

        Raises the first OSError after all hosts had their turn: a log that stays counts at the next start.
        """
        removed, errors = 0, list[OSError]()
        for host in list_hosts(self.disk, self.directory, skip={ROOM}).hosts:
            if (host.cluster, host.host) not in failed:
                try:
                    removed += remove_logs(self.disk, host, number)
                except OSError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return removed, []

    def remove_older(self, cutoff: int, used: Collection[Host]) -> int:
        """Remove checkpoints; raises the first OSError after all files had their turn."""
        removed, errors = 0, list[OSError]()
        for host in list_hosts(self.disk, self.directory, skip={ROOM}).hosts:
            if (host.cluster, host.host) in used:
                continue
            for file in plan_cleanup(host.files, cutoff, partial(find_stop, self.disk)):
                try:
                    self.disk.remove(file.path)
                    removed += 1
                except OSError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return removed
