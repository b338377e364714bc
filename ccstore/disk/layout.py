"""Where files lie, and how they are called.

    <checkpoints.directory>/columnar/<shard>/<number>.log    a segment of the log
    <checkpoints.directory>/columnar/<shard>/<number>.ckpt   a checkpoint
    <checkpoints.directory>/columnar/covered                 up to where checkpoints cover the log
    <checkpoints.directory>/columnar/superseded              whether files of the other formats are newer

Numbers are given out once, over all shards, and only grow: whatever the clock does, the order of files is
that in which they were begun. So the number of shards may change from start to start.

``covered`` holds a number: whatever is in segments with smaller numbers is in checkpoints as well. If it is
missing or damaged, nothing is taken for covered, and more is read at the start than need be.

``superseded`` is there as long as the reference's files beside ours are the newer ones: when both have a
value of a slot, theirs counts.
"""

import re
import zlib
from pathlib import Path

from attrs import frozen

from ccstore.disk.files import TEMPORARY, Disk, Publication

__all__ = [
    "COVERED",
    "ROOM",
    "SUPERSEDED",
    "ColumnarFile",
    "checkpoint_path",
    "find_files",
    "find_incomplete",
    "find_shards",
    "is_superseded",
    "read_covered",
    "segment_path",
    "set_superseded",
    "settle",
    "shard_directory",
    "when_covered",
    "write_covered",
]

_SHARD = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"([0-9]{1,18})\.(log|ckpt)")
ROOM = "columnar"
COVERED = "covered"
_COVERED_BYTES = 64
SUPERSEDED = "superseded"


@frozen(order=True)
class ColumnarFile:
    """A file of the log or a checkpoint, as its name tells."""

    number: int
    is_segment: bool
    shard: int
    path: Path
    size: int
    """Bytes."""


def shard_directory(directory: Path, shard: int) -> Path:
    """Return where the files of a shard are."""
    return directory / ROOM / str(shard)


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of a segment in the directory of its shard."""
    return directory / f"{number:010d}.log"


def checkpoint_path(directory: Path, number: int) -> Path:
    """Return the path of a checkpoint in the directory of its shard."""
    return directory / f"{number:010d}.ckpt"


def find_files(disk: Disk, directory: Path) -> list[ColumnarFile]:
    """Return the files of all shards in the order of their numbers, a checkpoint before its segment."""
    found = []
    for below in find_shards(disk, directory):
        for name in disk.list(below):
            if match := _NAME.fullmatch(name):
                path = below / name
                found.append(
                    ColumnarFile(int(match[1]), match[2] == "log", int(below.name), path, disk.size(path))
                )
    return sorted(found)


def find_incomplete(disk: Disk, directory: Path) -> list[Path]:
    """Return what is left of files that were not completed, or are being written."""
    below = [(shard, name) for shard in find_shards(disk, directory) for name in disk.list(shard)]
    return [shard / name for shard, name in below if name.endswith(TEMPORARY)]


def settle(disk: Disk, directory: Path) -> None:
    """Remove files that were not completed, and make durable what is there; at the start.

    Who wrote it may have been killed before a sync. What we read now must not be lost later: new samples
    rely on names and on the log before them, which says which slots they have.
    """
    for path in find_incomplete(disk, directory):
        disk.remove(path)
    for shard in find_shards(disk, directory):
        names = disk.list(shard)
        for name in names:
            if (match := _NAME.fullmatch(name)) and match[2] == "log":
                disk.sync_file(shard / name)
        if names:
            disk.sync_directory(shard)


def find_shards(disk: Disk, directory: Path) -> list[Path]:
    """Return the directories of shards. Raises OSError."""
    room = directory / ROOM
    return [room / name for name in disk.list(room) if _SHARD.fullmatch(name)]


def read_covered(disk: Disk, directory: Path) -> int:
    """Return the number of the first segment that checkpoints do not cover, 0 if that is not known."""
    try:
        text = disk.read(directory / ROOM / COVERED, 0, _COVERED_BYTES)
    except OSError:
        return 0
    digits = text.partition(b" ")[0]
    return int(digits) if digits.isdigit() and text == _encode_covered(int(digits)) else 0


def when_covered(disk: Disk, directory: Path) -> float:
    """Return when that number was noted, in seconds since the epoch; 0 if it never was. Raises OSError."""
    room = directory / ROOM
    return disk.modified(room / COVERED) if COVERED in disk.list(room) else 0.0


def write_covered(disk: Disk, directory: Path, number: int) -> None:
    """Note that checkpoints cover all segments with smaller numbers. Raises OSError."""
    file = Publication(disk, directory / ROOM / COVERED)
    try:
        file.write(_encode_covered(number))
        file.publish()
    except BaseException:
        file.abandon()
        raise


def _encode_covered(number: int) -> bytes:
    """Return a number with its checksum: one that is too high would lose samples."""
    digits = b"%d" % number
    return b"%s %08x\n" % (digits, zlib.crc32(digits))


def is_superseded(disk: Disk, directory: Path) -> bool:
    """Tell whether the reference's files beside ours are the newer ones. Raises OSError."""
    return SUPERSEDED in disk.list(directory / ROOM)


def set_superseded(disk: Disk, directory: Path, whether: bool) -> None:
    """Note which files are the newer ones; in one step, which is on the medium then. Raises OSError."""
    room = directory / ROOM
    if not whether:
        disk.remove(room / SUPERSEDED)
        disk.sync_directory(room)
        return
    file = Publication(disk, room / SUPERSEDED)
    try:
        file.write(b"the files of the other formats are newer\n")
        file.publish()
    except BaseException:
        file.abandon()
        raise
