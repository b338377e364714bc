"""The reference's directory: which files there are, and which of them are wanted.

    <directory>/<cluster>/<host>/<from>.bin      checkpoint, binary
                                 <from>.json     checkpoint, text
                                 current.wal     log that is being written
                                 <number>.wal    older logs, which only a running ccstore has
                                 *.tmp           a file that was being written

A number is an integer in decimal digits as Python writes it. Whatever else lies there is `strange`: the
reference refuses to start because of some of it, ccstore says so and leaves it alone.

Owns names and choices. It lists directories and reads files, but changes nothing and reads no clock.
Invariant: a choice depends on what files say they hold, their ``to``, wherever the reference goes by their
names alone: a file that begins before a threshold may end behind it.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from ccstore.disk.files import TEMPORARY, Disk, Scan
from ccstore.disk.reference.checkpoint import INT64, Checkpoint
from ccstore.disk.reference.columns import earliest_begin
from ccstore.disk.reference.jsonfile import decode_json, encode_json
from ccstore.disk.reference.snapshot import HEAD_BYTES, decode_period, decode_snapshot, encode_snapshot
from ccstore.errors import CorruptionError

__all__ = [
    "CURRENT_LOG",
    "SET_ASIDE",
    "CheckpointFile",
    "HostDirectory",
    "Listing",
    "encode_checkpoint",
    "list_host",
    "list_hosts",
    "next_number",
    "plan_cleanup",
    "plan_load",
    "plan_revise",
    "read_checkpoint",
    "read_stop",
]

CURRENT_LOG = "current.wal"
SET_ASIDE = ".corrupt"
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBERS = range(-(10**18), 10**18)
"""So that there is always one behind the last."""
_SUFFIXES = (".json", ".bin")
"""In the order in which files of one number are loaded: the later one counts."""
# what stands there in a file without anything behind its value; to parse it all takes a hundred times as long
_JSON_END = re.compile(rb'"from":-?\d{1,19},"to":(-?\d{1,19})\}\s*\Z')
_JSON_END_BYTES = 128


@frozen
class CheckpointFile:
    """A checkpoint of one host, by its name."""

    path: Path
    number: int
    """The stem: seconds, beginning of the period."""


@frozen
class HostDirectory:
    """What lies in a host's directory."""

    path: Path
    files: tuple[CheckpointFile, ...]
    """In the order in which they are loaded."""
    logs: tuple[Path, ...]
    """In the order in which they were written, the current one last."""
    temporary: tuple[Path, ...]
    """Files that were never finished; whoever opens the directory may remove them."""
    strange: tuple[Path, ...]

    @property
    def cluster(self) -> str:
        """Name of the cluster."""
        return self.path.parent.name

    @property
    def host(self) -> str:
        """Name of the host."""
        return self.path.name


@frozen
class Listing:
    """What lies in a directory of checkpoints."""

    hosts: tuple[HostDirectory, ...]
    """By cluster and host."""
    strange: tuple[Path, ...]
    """Plain files where clusters or hosts are expected, and names that are no text."""
    unreadable: tuple[str, ...]
    """Directories that could not be listed, and why."""


def list_hosts(disk: Disk, directory: Path, *, skip: Container[str] = ()) -> Listing:
    """List all hosts; none if there is no such directory. Raises OSError.

    skip: names in the directory that are no clusters, such as what ccstore keeps there in its own format.
    """
    strange: list[Path] = []
    unreadable: list[str] = []
    hosts: list[HostDirectory] = []

    for cluster in _directories(disk.scan(directory), directory, strange, skip):
        try:
            below = list(_directories(disk.scan(cluster), cluster, strange))
        except OSError as error:
            unreadable.append(f"{cluster}: {error}")
            continue
        for host in below:
            try:
                hosts.append(list_host(disk, host))
            except OSError as error:
                unreadable.append(f"{host}: {error}")
    return Listing(tuple(hosts), tuple(strange), tuple(unreadable))


def _directories(found: Scan, path: Path, strange: list[Path], skip: Container[str] = ()) -> Iterator[Path]:
    """Yield the directories whose names places may have; note what else there is."""
    strange.extend(path / name for name in (*found.files, *found.others) if name not in skip)
    for name in found.directories:
        if name not in skip:
            if _is_text(name):
                yield path / name
            else:
                strange.append(path / name)


def _is_text(name: str) -> bool:
    """Tell whether a name can be that of a place: bytes that are no UTF-8 are half a surrogate pair each."""
    return _SURROGATE.search(name) is None


def list_host(disk: Disk, path: Path) -> HostDirectory:
    """List the directory of one host, empty if there is none. Raises OSError."""
    files: list[CheckpointFile] = []
    logs: list[tuple[int, Path]] = []
    temporary: list[Path] = []
    found = disk.scan(path)
    strange = [path / name for name in found.others]
    for entry in (path / name for name in found.files):
        number = _number_of(entry.stem)
        if entry.name == CURRENT_LOG:
            logs.append((INT64.stop, entry))
        elif entry.suffix == TEMPORARY:
            temporary.append(entry)
        elif number is not None and entry.suffix in _SUFFIXES:
            files.append(CheckpointFile(entry, number))
        elif number is not None and entry.suffix == ".wal":
            logs.append((number, entry))
        elif entry.suffix != SET_ASIDE:
            strange.append(entry)
    files.sort(key=lambda file: (file.number, _SUFFIXES.index(file.path.suffix)))
    return HostDirectory(
        path, tuple(files), tuple(log for _, log in sorted(logs)), tuple(temporary), tuple(strange)
    )


def _number_of(stem: str) -> int | None:
    """Return the number that a file name is, None if it is none."""
    try:
        number = int(stem)
    except ValueError:
        return None
    return number if str(number) == stem and number in _NUMBERS else None


def next_number(taken: Iterable[int], wanted: int) -> int:
    """Return the wanted number, or a greater one if that is what it takes to be behind all that are taken.

    For periods that begin when the clock says so: it may have been set back, or not have moved since the last
    start.
    """
    return max(wanted, 1, max(taken, default=0) + 1)  # the reference never removes a file of number 0


# --- what they hold


def read_checkpoint(disk: Disk, file: CheckpointFile) -> Checkpoint:
    """Read a checkpoint; its values may be views of the file.

    Raises CorruptionError with its path, and OSError.
    """
    data = disk.map(file.path)
    try:
        return decode_json(bytes(data)) if file.path.suffix == ".json" else decode_snapshot(data)
    except CorruptionError as error:
        raise CorruptionError(f"{file.path}: {error}") from error


def encode_checkpoint(checkpoint: Checkpoint, suffix: str) -> bytes:
    """Return the bytes of a checkpoint in the format of a suffix."""
    assert suffix in _SUFFIXES, f"{suffix!r} is no checkpoint"
    return encode_json(checkpoint) if suffix == ".json" else encode_snapshot(checkpoint)


def read_stop(disk: Disk, file: CheckpointFile) -> int:
    """Return the ``to`` of a checkpoint in seconds, 0 if it does not tell.

    Raises CorruptionError and OSError.
    """
    if file.path.suffix == ".bin":
        try:
            return decode_period(memoryview(disk.read(file.path, 0, HEAD_BYTES)))[1]
        except CorruptionError as error:
            raise CorruptionError(f"{file.path}: {error}") from error
    last = max(0, disk.size(file.path) - _JSON_END_BYTES)
    found = _JSON_END.search(disk.read(file.path, last, _JSON_END_BYTES))
    return int(found[1]) if found else read_checkpoint(disk, file).stop


ReadStop = Callable[[CheckpointFile], int]


def plan_load(files: Sequence[CheckpointFile], threshold: int, read_stop: ReadStop) -> list[CheckpointFile]:
    """Choose the files that may hold values from a threshold on, in the order of loading.

    files: of one host, as listed. A file that cannot be read is chosen: loading it tells why.
    """
    first = max((file.number for file in files if file.number <= threshold), default=threshold)

    def is_wanted(file: CheckpointFile) -> bool:
        if file.number >= threshold:
            return True
        try:
            stop = read_stop(file)
        except CorruptionError:
            return True
        # the latest file that begins before the threshold holds what begins right at its end
        return stop > threshold or (file.number == first and stop in (0, threshold))

    return [file for file in files if is_wanted(file)]


def plan_revise(files: Sequence[CheckpointFile], newer: Checkpoint) -> list[CheckpointFile]:
    """Choose the files that values of a new one may have to go into, for `columns.revise`.

    files: of one host, as listed.
    """
    begin = earliest_begin(newer)
    first = max((file.number for file in files if file.number <= begin), default=begin)
    return [file for file in files if file.number >= first]


def plan_cleanup(files: Sequence[CheckpointFile], cutoff: int, read_stop: ReadStop) -> list[CheckpointFile]:
    """Choose the files that hold nothing from a cutoff on.

    files: of one host, as listed. A file that cannot be read, or does not tell its end and is the last one,
    stays.
    """
    chosen = []
    for file in files:
        if file.number == 0 or file.number > cutoff:
            continue
        try:
            stop = read_stop(file)
        except CorruptionError:
            continue
        later = (other.number for other in files if other.number > file.number)
        if (stop or next(later, INT64.stop)) <= cutoff:
            chosen.append(file)
    return chosen
