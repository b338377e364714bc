"""What a running store asks of the files that it writes, whichever format is configured.

A `Format` makes the files of shards, knows what a complete round of checkpoints makes superfluous, and
removes what is too old. Owns these words and those of the columnar format; `reference.writing` has the
others.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from ccstore.disk import layout
from ccstore.disk.checkpoint import CheckpointReader
from ccstore.disk.files import Disk
from ccstore.disk.hosts import Host, hosts_of
from ccstore.disk.reading import is_older
from ccstore.disk.writing import CheckpointFile, Segment
from ccstore.model import Names, Runs, Samples

__all__ = ["CheckpointFiles", "Columnar", "Format", "LogFiles"]


class LogFiles(Protocol):
    """What the log of a shard writes; one caller at a time."""

    @property
    def is_large(self) -> bool:
        """Whether a checkpoint of the shard should come early."""

    def commit(self, entries: Sequence[tuple[Names | None, Samples]]) -> int:
        """Write entries in their order and sync; return how many bytes.

        Raises OSError; then some of it may be written, and nothing more is until `begin`.
        """

    def begin(self, number: int) -> None:
        """Go on with new files, of this number, whatever became of those before.

        Raises OSError if what was written cannot be put behind; then nothing more is written until it can.
        """

    def close(self) -> None:
        """Close what is open; what was committed is synced."""


class CheckpointFiles(Protocol):
    """A checkpoint of a shard that is being written; one caller at a time."""

    @property
    def values(self) -> int:
        """Slots in it."""

    @property
    def bytes(self) -> int:
        """Written until now."""

    def add(self, names: Names, runs: Runs) -> None:
        """Write runs of some hosts; of one host if the format is by hosts. Raises OSError."""

    def finish(self) -> None:
        """Make it appear, complete and synced. Raises OSError."""

    def abandon(self) -> None:
        """Leave nothing of what is not complete."""


class Format(Protocol):
    """A format; everything may be called in any thread, and raises OSError."""

    by_hosts: bool
    """Whether each host has files of its own, so that one that fails holds up no other."""

    def prepare(self, shards: int) -> None:
        """Make the directories that have to be there before anything is written."""

    def last_round(self) -> float:
        """Return when the newest complete round of checkpoints ended, as far as files tell; 0 if none did.

        Seconds since the epoch.
        """

    def log(self, shard: int, number: int, now: Callable[[], int]) -> LogFiles:
        """Return what the log of a shard writes, from a number on; `now` may be called in any thread."""

    def checkpoint(self, shard: int, number: int, now: int) -> CheckpointFiles:
        """Return a new checkpoint of all that the log of a shard has in files with smaller numbers.

        now: seconds; when it is begun.
        """

    def end_round(self, number: int, failed: Collection[Host]) -> tuple[int, list[OSError]]:
        """Note that checkpoints cover the files of the log with smaller numbers, but for hosts that failed.

        When it returns, recovery passes over them. Returns how many files were removed, and why others were
        not, which only takes room.
        """

    def remove_older(self, cutoff: int, used: Collection[Host]) -> int:
        """Remove checkpoints all of whose values are older than a time (s); return how many.

        Those with values of hosts that are used stay.
        """


class Columnar:
    """The format of ccstore: a log and checkpoints for each shard."""

    by_hosts = False

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self._hosts: dict[Path, frozenset[Host]] = {}  # of checkpoints that had to stay for some

    def prepare(self, shards: int) -> None:
        """Make a directory for each shard."""
        for shard in range(shards):
            self._disk.make_directory(layout.shard_directory(self._directory, shard))

    def last_round(self) -> float:
        """Return the time of ``covered``, which each complete round writes."""
        return layout.when_covered(self._disk, self._directory)

    def log(self, shard: int, number: int, now: Callable[[], int]) -> Segment:
        """Return a segment."""
        directory = layout.shard_directory(self._directory, shard)
        return Segment(self._disk, directory, shard=shard, number=number, now=now)

    def checkpoint(self, shard: int, number: int, now: int) -> CheckpointFile:
        """Return a checkpoint of the shard."""
        path = layout.checkpoint_path(layout.shard_directory(self._directory, shard), number)
        return CheckpointFile(self._disk, path, shard=shard, number=number, created=now)

    def end_round(self, number: int, failed: Collection[Host]) -> tuple[int, list[OSError]]:
        """Note the number; remove the segments that the round before covered, and what was not completed."""
        assert not failed, "hosts have no files of their own"
        before = layout.read_covered(self._disk, self._directory)
        layout.write_covered(self._disk, self._directory, number)
        files = layout.find_files(self._disk, self._directory)
        covered = [file.path for file in files if file.is_segment and file.number < before]
        left: list[OSError] = []
        paths = covered + layout.find_incomplete(self._disk, self._directory)
        for path in paths:
            try:
                self._disk.remove(path)
            except OSError as error:
                left.append(error)
        return len(paths) - len(left), left

    def remove_older(self, cutoff: int, used: Collection[Host]) -> int:
        """Remove checkpoints; one that has values of a used host stays as a whole."""
        files = [file for file in layout.find_files(self._disk, self._directory) if not file.is_segment]
        old = [file.path for file in files if is_older(self._disk, file, cutoff)]
        # A file never changes, and to look through it takes long: once is enough.
        known = {path: self._hosts[path] for path in old if path in self._hosts}
        if used:
            known |= {path: self._read_hosts(path) for path in old if path not in known}
        self._hosts = known
        removed = 0
        for path in old:
            if not used or known[path].isdisjoint(used):
                self._disk.remove(path)
                removed += 1
        return removed

    def _read_hosts(self, path: Path) -> frozenset[Host]:
        """Return the hosts that a checkpoint has values of."""
        found: set[Host] = set()
        for names, _ in CheckpointReader(self._disk.map(path)):
            found |= hosts_of(names)
        return frozenset(found)
