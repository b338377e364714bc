"""What a start reads of files in our own format: large pieces, however small the frames are.

Owns how files are taken apart for recovery. Never touches the store: `read_files` yields what files hold, in
their order. It blocks and belongs into a worker thread; each step of it takes some milliseconds.

It changes nothing but this: the torn end of a segment is cut off, once all before it was read; and a file
that the disk does not give is set aside.

Invariant: a piece holds whole frames, and names come before what hangs on them. What cannot be read is told
with the end of its file, and nothing that a file holds makes `read_files` raise. It raises OSError only if a
file that cannot be read cannot be renamed either.

A log that many small messages wrote has some hundred samples in a frame. One by one, handing them over would
take longer than reading them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from attrs import frozen

from ccstore.disk.checkpoint import END_BYTES, CheckpointReader, read_ends
from ccstore.disk.files import Disk
from ccstore.disk.folding import join_blocks, join_names
from ccstore.disk.frames import HEAD_BYTES, Damage
from ccstore.disk.hosts import Host, pick_hosts
from ccstore.disk.layout import ColumnarFile
from ccstore.disk.segment import FRAME_SAMPLES, SegmentReader, empty_samples
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs, Samples

__all__ = ["UNREADABLE", "End", "Piece", "is_older", "read_files"]

UNREADABLE = ".unreadable"
"""Behind the name of a file that a start could not read."""

_VALUES = 1 << 20
"""Samples of a piece, more or less: 16 MiB, some milliseconds to read. From 4 MiB on numpy asks for large
pages; new small ones would cost more than what is written to them. Of runs it is half as many: a block."""
_SERIES = 1 << 15
"""Named in a piece, more or less."""


@frozen
class Piece:
    """A part of a file."""

    names: Names
    """To be taken before the data. In front of samples they continue those of the pieces of the file before;
    runs have all of their own."""
    data: Runs | Samples


@frozen
class End:
    """The end of a file."""

    file: ColumnarFile
    damage: Sequence[str]
    """What could not be read."""
    torn_bytes: int = 0
    """At the end of a segment: what was being written when the server was ended."""
    torn: str = ""
    """What they are, and what became of them."""
    is_set_aside: bool = False
    """Whether the disk did not give it, and it has another name now."""
    is_skipped: bool = False
    """Whether the file was not read because all of it is too old."""


def read_files(
    disk: Disk, files: Iterable[ColumnarFile], *, since: int, used: Collection[Host] = ()
) -> Iterator[Piece | End]:
    """Read files in this order.

    Of checkpoints all of whose values are older than `since` (seconds), only what is of used hosts.
    """
    for file in files:
        try:
            yield from (
                _read_segment(disk, file) if file.is_segment else _read_checkpoint(disk, file, since, used)
            )
        except (CorruptionError, FileNotFoundError) as error:
            yield End(file, [str(error)])
        except OSError as error:
            yield End(file, [_set_aside(disk, file, error)], is_set_aside=True)


def _set_aside(disk: Disk, file: ColumnarFile, error: OSError) -> str:
    """Rename a file that the disk did not give, say so; raises OSError if even that fails.

    Perhaps another start can read it. Under its own name the next round of checkpoints would remove it, for
    all that it holds is in memory then, as far as that round knows.
    """
    aside = file.path.with_name(f"{file.path.name}{UNREADABLE}")
    disk.replace(file.path, aside)
    disk.sync_directory(file.path.parent)
    return f"{error}; set aside as {aside.name}"


def is_older(disk: Disk, file: ColumnarFile, time: int) -> bool:
    """Tell whether all values of a complete checkpoint are older than a time (s); False if nobody knows.

    Raises OSError.
    """
    first = disk.read(file.path, 0, HEAD_BYTES)
    last = disk.read(file.path, max(0, file.size - END_BYTES), END_BYTES)
    try:
        summary = read_ends(first, last, file.size)
    except CorruptionError:
        return False
    return summary is not None and summary.stop <= time


def _read_checkpoint(
    disk: Disk, file: ColumnarFile, since: int, used: Collection[Host]
) -> Iterator[Piece | End]:
    is_old = is_older(disk, file, since)
    if is_old and not used:
        yield End(file, [], is_skipped=True)
        return
    reader = CheckpointReader(disk.map(file.path))
    blocks: list[tuple[Names, Runs]] = []
    for block in reader:
        blocks.append(pick_hosts(*block, used) if is_old else block)
        values = sum(len(runs.values) for _, runs in blocks)
        if values >= _VALUES // 2 or sum(len(names.series_places) for names, _ in blocks) >= _SERIES:
            yield Piece(*join_blocks(blocks))
            blocks = []
    if blocks:
        yield Piece(*join_blocks(blocks))
    damage = _describe([*reader.damage, *([reader.tail] if reader.tail else [])])
    if not damage and reader.summary is None:
        damage.append("incomplete")
    yield End(file, damage)


def _read_segment(disk: Disk, file: ColumnarFile) -> Iterator[Piece | End]:
    room = _Room()
    reader = SegmentReader(disk.map(file.path), room.make)
    names: list[Names] = []
    for part in reader:
        if isinstance(part, Names):
            names.append(part)
        else:
            room.keep(part)
        if room.is_full or sum(len(part.series_places) for part in names) >= _SERIES:
            yield Piece(join_names(names), room.take())
            names = []
    rest = room.take()
    if names or len(rest.numbers):
        yield Piece(join_names(names), rest)
    damage = _describe(reader.damage)
    if reader.nameless:
        damage.append(f"{reader.nameless} samples of series whose names are lost")
    if reader.tail is None:
        yield End(file, damage)
    else:
        yield End(file, damage, torn_bytes=reader.tail.size, torn=_cut(disk, file, reader, reader.tail))


def _cut(disk: Disk, file: ColumnarFile, reader: SegmentReader, tail: Damage) -> str:
    """Cut off what was being written when the server was ended; tell what it is, and what became of it.

    What has no head, and is not the beginning of one, is no segment: it is left alone.
    """
    if reader.head is None and file.size >= HEAD_BYTES:
        return f"{tail}: left alone"
    try:
        disk.cut(file.path, reader.good)
    except OSError as error:  # the next start finds the same, and nobody appends to it
        return f"{tail}: cannot be cut off ({error})"
    return f"{tail}: cut off"


class _Room:
    """Large arrays that the frames of a segment fill, one behind the other."""

    def __init__(self) -> None:
        self._arrays = empty_samples(0)
        self._first = self._next = 0

    def make(self, count: int) -> Samples:
        """Return room for a frame, behind what is kept."""
        if self._next + count > len(self._arrays.numbers):
            kept = self.take()
            self._arrays = empty_samples(max(_VALUES + FRAME_SAMPLES, len(kept.numbers) + count))
            self._first, self._next = 0, len(kept.numbers)
            into = self._part(0, self._next)
            into.numbers[:], into.times[:], into.values[:] = kept.numbers, kept.times, kept.values
        return self._part(self._next, self._next + count)

    def keep(self, samples: Samples) -> None:
        """Keep what a frame filled of the last room."""
        self._next += len(samples.numbers)

    @property
    def is_full(self) -> bool:
        """Whether what is kept is enough for a piece."""
        return self._next - self._first >= _VALUES

    def take(self) -> Samples:
        """Return what was kept since this was last called."""
        first, self._first = self._first, self._next
        return self._part(first, self._next)

    def _part(self, start: int, stop: int) -> Samples:
        rows = slice(start, stop)
        return Samples(self._arrays.numbers[rows], self._arrays.times[rows], self._arrays.values[rows])


def _describe(damage: Iterable[Damage]) -> list[str]:
    return [str(found) for found in damage]
