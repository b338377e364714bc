"""The files that a running store writes: the segments of its log, and checkpoints.

Owns the files of one shard while they are written. Never reads one, and knows neither the
store nor who waits. Everything here blocks, and has one caller at a time for each object.

Invariant: a segment is only ever appended to by the `Segment` that made it, and never again after an error.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ccstore.disk import layout
from ccstore.disk.checkpoint import Encoder
from ccstore.disk.files import Disk, File, Publication
from ccstore.disk.folding import join_blocks, join_samples
from ccstore.disk.frames import Head, Kind, encode_head
from ccstore.disk.names import Position
from ccstore.disk.segment import encode_names, encode_samples
from ccstore.model import Names, Runs, Samples

__all__ = ["CheckpointFile", "Segment"]

_BLOCK_VALUES = 1 << 19
"""Of a block, at least, but for the last one: 2 MiB, which is what a damaged byte can cost."""


_FRAME = 1 << 14
"""Samples that are worth a frame of their own, if the alternative is to copy them."""


class Segment:
    """The file that a shard's log writes; it is made when there is something to write."""

    is_large = False
    """However long it is, it is no reason for a checkpoint."""

    def __init__(
        self, disk: Disk, directory: Path, *, shard: int, number: int, now: Callable[[], int]
    ) -> None:
        self.disk = disk
        self.directory = directory
        self._shard = shard
        self._number = number
        self._now = now
        self._file: File | None = None
        self._named = Position()

    def commit(self, entries: Sequence[tuple[Names | None, Samples]]) -> int:
        """Write entries in their order and sync; return how many bytes. Raises OSError.

        After an error the file is closed; only `begin` helps.
        """
        parts = []
        for names, _ in entries:
            if names is not None:
                parts.append(encode_names(names, position=self._named))
                self._named = self._named.after(names)
        stretches = [samples for _, samples in entries]
        if min(len(samples.numbers) for samples in stretches) < _FRAME:
            stretches = [join_samples(stretches)]
        parts += map(encode_samples, stretches)
        try:
            if self._file is None:
                parts.insert(0, encode_head(Head(Kind.SEGMENT, self._shard, self._number, self._now())))
                self._file = self.disk.create(layout.segment_path(self.directory, self._number))
                self.disk.sync_directory(self.directory)
            data = b"".join(parts)
            self._file.write(data)
            self._file.sync()
        except OSError:
            self.close()
            raise
        return len(data)

    def begin(self, number: int) -> None:
        """Go on with a new file of this number."""
        self.close()
        self._number, self._named = number, Position()

    def close(self) -> None:
        """Close the file; what was committed is synced."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # it says nothing of what was synced
                file.close()


class CheckpointFile:
    """A checkpoint of a shard that is being written; a file is made when there is something in it."""

    def __init__(self, disk: Disk, path: Path, *, shard: int, number: int, created: int) -> None:
        self._disk = disk
        self._path = path
        self._head = Head(Kind.CHECKPOINT, shard, number, created)
        self._file: Publication | None = None
        self._encoder = Encoder()
        self._waiting: list[tuple[Names, Runs]] = []  # for a block that is large enough
        self.values = 0
        self.bytes = 0

    def add(self, names: Names, runs: Runs) -> None:
        """Write runs, with others that came before or come next in one block. Raises OSError."""
        self._open()
        self._waiting.append((names, runs))
        self.values += len(runs.values)
        if self.values - self._encoder.summary.values >= _BLOCK_VALUES:
            self._write_waiting()

    def add_block(self, names: Names, runs: Runs) -> None:
        """Write runs as a block of their own. Raises OSError.

        For who has to find the same blocks again; nobody else has called `add` before.
        """
        assert not self._waiting, "in front of what came before"
        self._open()
        self.values += len(runs.values)
        self._write(self._encoder.encode_block(names, runs))

    def finish(self) -> None:
        """Make the file appear, complete and synced. Raises OSError."""
        if self._file is not None:
            if self._waiting:
                self._write_waiting()
            self._write(self._encoder.encode_end())
            self._file.publish()

    def abandon(self) -> None:
        """Leave no file."""
        if self._file is not None:
            self._file.abandon()

    def _open(self) -> None:
        if self._file is None:
            self._file = Publication(self._disk, self._path)
            self._write(encode_head(self._head))

    def _write_waiting(self) -> None:
        self._write(self._encoder.encode_block(*join_blocks(self._waiting)))
        self._waiting.clear()

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self.bytes += len(data)
