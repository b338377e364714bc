"""Any file of ours or of the reference store, for tools: what it is, and what is in it part by part.

Owns how a file is recognized, by its first bytes and where these are damaged by its name, and one way to read
all kinds. It changes nothing, and does not know what anybody wants with the content.

Invariant: a number means one series in all parts of a file, and no two numbers mean the same one. A file
is never in memory as a whole, unless it is of the reference's formats, where it holds one host.
"""

import enum
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from ccstore.disk import frames
from ccstore.disk.checkpoint import CheckpointReader, read_summary
from ccstore.disk.files import OsDisk
from ccstore.disk.frames import HEAD_BYTES, Damage
from ccstore.disk.reference import snapshot
from ccstore.disk.reference.checkpoint import Checkpoint
from ccstore.disk.reference.columns import flatten
from ccstore.disk.reference.jsonfile import decode_json
from ccstore.disk.reference.snapshot import decode_snapshot
from ccstore.disk.reference.wal import FILE_MAGIC, RECORD_MAGIC, Log, decode_log
from ccstore.disk.segment import SegmentReader
from ccstore.errors import CorruptionError
from ccstore.model import Names, Runs, Samples

__all__ = ["Content", "FileKind", "Series", "open_file"]

_COVERED = re.compile(rb"([0-9]{1,18}) ([0-9a-f]{8})\n")
_COVERED_BYTES = 64
_NUMBER = re.compile(r"-?[0-9]+")
_JSON_HEAD_BYTES = 4096
_MEMBERS = re.compile(rb'"(metrics|children)"\s*:', re.IGNORECASE)


class FileKind(enum.Enum):
    """What a file is, in words for people."""

    SEGMENT = "segment of the log"
    CHECKPOINT = "checkpoint"
    COVERED = "how far checkpoints cover the log"
    LOG = "log of the reference's format"
    SNAPSHOT = "binary checkpoint of the reference's format"
    TEXT = "text checkpoint of the reference's format"


@frozen(order=True, cache_hash=True)
class Series:
    """A series as files name it."""

    path: tuple[str, ...]
    """Cluster, host, and what lies below."""
    metric: str
    frequency: int
    """Seconds; 0 where the file does not tell."""

    def __str__(self) -> str:
        """Return the name for people: what could confuse a terminal is escaped."""
        text = "/".join((*self.path, self.metric))
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@define(eq=False)
class Content:
    """A file that is being read; what it says of itself and of damage is complete behind the last part."""

    path: Path
    kind: FileKind
    data: memoryview
    head: dict[str, int] = field(factory=dict)
    """What its first bytes tell, by name; empty if these are damaged."""
    series: list[Series] = field(factory=list)
    """By number; it grows from part to part."""
    records: int = 0
    """Parts: frames with samples of a segment, blocks of a checkpoint, the whole of any other file."""
    position: int = 0
    """Bytes that were read."""
    damage: list[Damage] = field(factory=list)
    """What cannot be used although it should."""
    tail: Damage | None = None
    """What a crash left at the end of a log; nothing was acknowledged of it."""
    nameless: int = 0
    """Samples whose series is not known because its names are lost."""
    _known: dict[Series, int] = field(factory=dict)
    _steps: "_Column" = field(factory=lambda: _Column(np.int64))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    @property
    def frequencies(self) -> NDArray[np.int64]:
        """Seconds, of each series."""
        return self._steps.all

    @property
    def host(self) -> tuple[str, str]:
        """Cluster and host to which a file of the reference belongs, by the directories around it."""
        path = self.path.absolute()
        return path.parent.parent.name, path.parent.name

    def parts(self) -> Iterator[Runs | Samples]:
        """Read the file once. Raises CorruptionError if it is of a version that is not known here."""
        readers: dict[FileKind, Callable[[], Iterator[Runs | Samples]]] = {
            FileKind.SEGMENT: self._read_segment,
            FileKind.CHECKPOINT: self._read_checkpoint,
            FileKind.COVERED: self._read_covered,
            FileKind.LOG: self._read_log,
            FileKind.SNAPSHOT: self._read_tree,
            FileKind.TEXT: self._read_tree,
        }
        try:
            for part in readers[self.kind]():
                self.records += 1
                yield part
        except CorruptionError as error:
            raise CorruptionError(f"{self.path}: {error}") from error
        self.position = self.size

    def _read_segment(self) -> Iterator[Samples]:
        reader, names, numbers = SegmentReader(self.data), _FileNames(), _Column(np.int32)
        for part in reader:
            self.position = reader.good
            if isinstance(part, Names):
                numbers.extend(self._enlist(names.take(part)))
            else:
                yield evolve(part, numbers=numbers.all[part.numbers])
        self._take_head(reader.head)
        self.damage, self.tail, self.nameless = reader.damage, reader.tail, reader.nameless

    def _read_checkpoint(self) -> Iterator[Runs]:
        summary = read_summary(self.data)
        reader = CheckpointReader(self.data)
        for names, runs in reader:
            if summary is not None:  # what a block takes is not told, how many there are is
                self.position = self.size * reader.blocks // (summary.blocks + 1)
            yield evolve(runs, numbers=self._enlist(_FileNames().take(names))[runs.numbers])
        self._take_head(reader.head)
        self.damage = [*reader.damage, *([reader.tail] if reader.tail else [])]
        if reader.summary is None and not self.damage:
            self.damage.append(Damage(self.size, 0, None, "incomplete (wanted an end)"))

    def _read_covered(self) -> Iterator[Runs]:
        found = _COVERED.fullmatch(self.data[:_COVERED_BYTES])
        if found and int(found[2], 16) == zlib.crc32(found[1]):
            self.head["number"] = int(found[1])
        else:
            self.damage.append(Damage(0, self.size, 0, "no number with its checksum"))
        yield from ()

    def _read_log(self) -> Iterator[Samples]:
        cluster, host = self.host
        log = decode_log(self.data, cluster=cluster, host=host)
        numbers = self._enlist(_FileNames().take(log.names))
        yield evolve(log.samples, numbers=numbers[log.samples.numbers])
        if log.bad_bytes:
            bad = _explain(log)
            if log.good_bytes and not _has_record(self.data, log.good_bytes):
                self.tail = bad
            else:
                self.damage.append(bad)

    def _read_tree(self) -> Iterator[Runs]:
        try:
            tree = self.decode()
        except CorruptionError as error:
            self.damage.append(Damage(0, self.size, None, str(error)))
            return
        self.head |= {"from": tree.start, "to": tree.stop}
        cluster, host = self.host
        names, runs = flatten(tree, cluster=cluster, host=host)
        yield evolve(runs, numbers=self._enlist(_FileNames().take(names))[runs.numbers])

    def decode(self) -> Checkpoint:
        """Return a checkpoint of the reference's formats. Raises CorruptionError."""
        return decode_json(bytes(self.data)) if self.kind is FileKind.TEXT else decode_snapshot(self.data)

    def _enlist(self, found: Sequence[Series]) -> NDArray[np.int32]:
        """Return the number of each series; new ones get the next."""
        numbers = np.empty(len(found), np.int32)
        first = len(self.series)
        for row, series in enumerate(found):
            numbers[row] = number = self._known.setdefault(series, len(self.series))
            if number == len(self.series):
                self.series.append(series)
        self._steps.extend([series.frequency for series in self.series[first:]])
        return numbers

    def _take_head(self, head: frames.Head | None) -> None:
        if head is not None:
            self.head |= {"shard": head.shard, "number": head.number, "begun": head.created}


class _FileNames:
    """The series that one numbering names, as they come."""

    def __init__(self) -> None:
        self._paths: list[tuple[str, ...]] = []
        self._metrics: list[tuple[str, int]] = []

    def take(self, names: Names) -> list[Series]:
        """Return the next series."""
        for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
            self._paths.append((*self._paths[parent], name) if parent >= 0 else (name,))
        self._metrics += zip(names.metric_names, names.frequencies.tolist(), strict=True)
        pairs = zip(names.series_places.tolist(), names.series_metrics.tolist(), strict=True)
        return [Series(self._paths[place], *self._metrics[metric]) for place, metric in pairs]


class _Column:
    """An array of whole numbers that grows at its end."""

    def __init__(self, dtype: type[np.int32 | np.int64]) -> None:
        self._room = np.empty(1024, dtype)
        self._used = 0

    @property
    def all(self) -> NDArray[Any]:
        """All numbers so far; a view."""
        return self._room[: self._used]

    def extend(self, numbers: Sequence[int] | NDArray[np.int32]) -> None:
        """Append numbers."""
        stop = self._used + len(numbers)
        if stop > len(self._room):
            self._room = np.concatenate([self.all, np.empty(stop, self._room.dtype)])
        self._room[self._used : stop] = numbers
        self._used = stop


def _explain(log: Log) -> Damage:
    """Return the bad end of a log without the place in its reason."""
    reason = log.reason.partition(": ")[2]
    return Damage(log.good_bytes, log.bad_bytes, None, reason)


def _has_record(data: memoryview, start: int) -> bool:
    """Tell whether a whole record of a log begins anywhere behind a place."""
    for found in re.finditer(re.escape(RECORD_MAGIC), data[start + 1 :]):
        at = start + 1 + found.start()
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        stored = data[at + 8 + size : at + 12 + size]
        if len(stored) == 4 and int.from_bytes(stored, "little") == zlib.crc32(data[at + 8 : at + 8 + size]):
            return True
    return False


def open_file(path: Path) -> Content:
    """Recognize a file. Raises CorruptionError if it is none of ours or of the reference, and OSError."""
    data = OsDisk().map(path)
    try:
        kind = _recognize(path, data)
    except CorruptionError as error:
        raise CorruptionError(f"{path}: {error}") from error
    return Content(path, kind, data)


def _recognize(path: Path, data: memoryview) -> FileKind:
    first = bytes(data[:HEAD_BYTES])
    if first[:7] == b"ccstore" or path.suffix in (".log", ".ckpt"):
        return _recognize_frames(path, data)
    if first[:4] == FILE_MAGIC or path.suffix == ".wal":
        return FileKind.LOG
    if first[:4] == snapshot.MAGIC or (path.suffix == ".bin" and _NUMBER.fullmatch(path.stem)):
        return FileKind.SNAPSHOT
    if path.name == "covered" or (len(data) < _COVERED_BYTES and _COVERED.fullmatch(data)):
        return FileKind.COVERED
    looks_like_json = first.lstrip()[:1] == b"{" and _MEMBERS.search(data[:_JSON_HEAD_BYTES])
    if looks_like_json or (path.suffix == ".json" and _NUMBER.fullmatch(path.stem)):
        return FileKind.TEXT
    raise CorruptionError(f"no file of ccstore or of the reference store (it begins with {first[:8]!r})")


def _recognize_frames(path: Path, data: memoryview) -> FileKind:
    """Tell segments and checkpoints apart; where the head is damaged the name tells."""
    try:
        head = frames.read_head(data)
    except CorruptionError:
        frames.check_head(data, frames.Kind.SEGMENT)  # it raises for a whole head of another version
        named = {".log": FileKind.SEGMENT, ".ckpt": FileKind.CHECKPOINT}
        kind = named.get(path.with_name(path.name.removesuffix(".tmp")).suffix)
        is_begun = bytes(data[:7]) == b"ccstore"[: len(data)]
        has_frames = next(iter(frames.FrameReader(data, frames.Kind.SEGMENT)), None) is not None
        if kind is None or not (is_begun or has_frames):
            raise
        return kind
    return FileKind.SEGMENT if head.kind is frames.Kind.SEGMENT else FileKind.CHECKPOINT
