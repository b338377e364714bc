"""What a start reads of files in our own format: large pieces, however small the frames are.

Owns how files are taken apart for recovery. Never touches the store: `read_files` yields what files hold, in
their order. It blocks and belongs into a worker thread; each step of it takes some milliseconds.

Invariant: a piece holds whole frames, and names come before what hangs on them. What cannot be read is told
with the end of its file, and nothing that a file holds makes `read_files` raise.

A log that many small messages wrote has some hundred samples in a frame. One by one, handing them over would
take longer than reading them.
"""

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from ccstore.disk.checkpoint import CheckpointReader, is_older
from ccstore.disk.files import Disk
from ccstore.disk.folding import join_blocks, join_names, join_samples
from ccstore.disk.frames import Damage
from ccstore.disk.layout import ColumnarFile
from ccstore.disk.segment import SegmentReader
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs, Samples

__all__ = ["End", "Piece", "read_files"]

_VALUES = 1 << 20
"""Of a piece, more or less: 16 MiB of samples, 4 of runs; some milliseconds to read. From 4 MiB on numpy asks
for large pages; new small ones would cost more than what is written to them."""
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
    is_skipped: bool = False
    """Whether the file was not read because all of it is too old."""


def read_files(disk: Disk, files: Iterable[ColumnarFile], *, since: int) -> Iterator[Piece | End]:
    """Read files in this order, but checkpoints all of whose values are older than `since` (seconds)."""
    for file in files:
        try:
            data = disk.map(file.path)
            yield from _read_segment(file, data) if file.is_segment else _read_checkpoint(file, data, since)
        except (CorruptionError, OSError) as error:
            yield End(file, [str(error)])


def _read_checkpoint(file: ColumnarFile, data: memoryview, since: int) -> Iterator[Piece | End]:
    if is_older(data, since):
        yield End(file, [], is_skipped=True)
        return
    reader = CheckpointReader(data)
    blocks: list[tuple[Names, Runs]] = []
    for block in reader:
        blocks.append(block)
        values = sum(len(runs.values) for _, runs in blocks)
        if values >= _VALUES or sum(len(names.series_places) for names, _ in blocks) >= _SERIES:
            yield Piece(*join_blocks(blocks))
            blocks = []
    if blocks:
        yield Piece(*join_blocks(blocks))
    damage = _describe([*reader.damage, *([reader.tail] if reader.tail else [])])
    if not damage and reader.summary is None:
        damage.append("incomplete")
    yield End(file, damage)


def _read_segment(file: ColumnarFile, data: memoryview) -> Iterator[Piece | End]:
    reader = SegmentReader(data)
    names: list[Names] = []
    samples: list[Samples] = []
    for part in reader:
        if isinstance(part, Names):
            names.append(part)
        else:
            samples.append(part)
        if (
            sum(len(part.numbers) for part in samples) >= _VALUES
            or sum(len(part.series_places) for part in names) >= _SERIES
        ):
            yield Piece(join_names(names), join_samples(samples))
            names, samples = [], []
    if names or samples:
        yield Piece(join_names(names), join_samples(samples))
    damage = _describe(reader.damage)
    if reader.nameless:
        damage.append(f"{reader.nameless} samples of series whose names are lost")
    yield End(file, damage, torn_bytes=reader.tail.size if reader.tail else 0)


def _describe(damage: Iterable[Damage]) -> list[str]:
    return [str(found) for found in damage]
