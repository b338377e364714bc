"""The files that a store writes: what is in them, and what is left of them when the disk fails."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from disk_columnar import (
    CHECKPOINT_CONTENT,
    FIRST_NAMES,
    FIRST_SAMPLES,
    MORE_NAMES,
    MORE_SAMPLES,
    START,
    plain,
)
from disk_memory import MemoryDisk

from ccstore.disk import layout, writing
from ccstore.disk.checkpoint import CheckpointReader, Summary, read_summary
from ccstore.disk.frames import HEAD_BYTES, Head, Kind
from ccstore.disk.segment import SegmentReader
from ccstore.disk.writing import CheckpointFile, Segment

SHARD = layout.shard_directory(Path("/data"), 3)


def make_segment(disk: MemoryDisk) -> Segment:
    """Return a segment that writes file 17 of shard 3."""
    return Segment(disk, SHARD, shard=3, number=17, now=lambda: START)


def read(disk: MemoryDisk, number: int) -> tuple[Head | None, list, int]:
    """Return head, content and good bytes of a segment."""
    reader = SegmentReader(disk.map(layout.segment_path(SHARD, number)))
    content = [plain(part) for part in reader]
    return reader.head, content, reader.good


class Failing:
    """Lets operations of a name fail."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __call__(self, _number: int, name: str, path: Path) -> None:
        """Fail, if it is one of them."""
        if name in self.names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_segment_is_made_with_its_first_commit():
    """Where nothing is written there is no file; a commit leaves it and its name durable."""
    disk = MemoryDisk()
    segment = make_segment(disk)
    assert disk.operations == 0
    size = segment.commit([(FIRST_NAMES, FIRST_SAMPLES)])
    path = layout.segment_path(SHARD, 17)
    assert disk.durable[path].synced == disk.size(path) == size
    head, content, good = read(disk, 17)
    assert head == Head(Kind.SEGMENT, shard=3, number=17, created=START)
    assert content == [plain(FIRST_NAMES), plain(FIRST_SAMPLES)]
    assert good == size


def test_one_write_and_one_sync_for_a_commit():
    """All entries of a commit go to the disk together: names in their order, and then the samples."""
    disk = MemoryDisk()
    segment = make_segment(disk)
    segment.commit([(FIRST_NAMES, FIRST_SAMPLES)])
    operations: list[str] = []
    disk.before = lambda _number, name, _path: operations.append(name)
    segment.commit([(None, FIRST_SAMPLES), (MORE_NAMES, MORE_SAMPLES), (None, FIRST_SAMPLES)])
    assert operations == ["write", "sync"]
    _, content, _ = read(disk, 17)
    assert [part[0] for part in content] == ["Names", "Samples", "Names", "Samples"]
    assert len(content[3][1]["numbers"][1]) == 2 * len(FIRST_SAMPLES.numbers) + len(MORE_SAMPLES.numbers)


def test_the_next_file_names_everything_again():
    """Each segment can be read alone."""
    disk = MemoryDisk()
    segment = make_segment(disk)
    for number in (18, 19):
        segment.commit([(FIRST_NAMES, FIRST_SAMPLES), (MORE_NAMES, MORE_SAMPLES)])
        segment.begin(number)
    segment.close()
    assert read(disk, 17)[1] == read(disk, 18)[1]
    assert disk.list(SHARD) == ["0000000017.log", "0000000018.log"]


@pytest.mark.parametrize("failing", ["create", "sync", "sync_directory", "write"])
def test_a_commit_that_fails(failing):
    """Whatever fails, the error is told, the file is closed, and the next file is whole."""
    disk = MemoryDisk(before=Failing(failing, "close"))
    segment = make_segment(disk)
    with pytest.raises(OSError, match="No space left"):
        segment.commit([(FIRST_NAMES, FIRST_SAMPLES)])
    segment.begin(18)
    disk.before = Failing()
    segment.commit([(FIRST_NAMES, FIRST_SAMPLES)])
    assert read(disk, 18)[1] == [plain(FIRST_NAMES), plain(FIRST_SAMPLES)]
    assert disk.misuse == []


def test_closing_fails():
    """What was committed is synced, so an error when the file is closed says nothing."""
    disk = MemoryDisk(before=Failing("close"))
    segment = make_segment(disk)
    segment.commit([(FIRST_NAMES, FIRST_SAMPLES)])
    segment.close()
    segment.close()


def make_checkpoint(disk: MemoryDisk) -> CheckpointFile:
    """Return a checkpoint with all blocks of the example, not finished."""
    path = layout.checkpoint_path(SHARD, 18)
    file = CheckpointFile(disk, path, shard=3, number=18, created=START)
    for names, runs in CHECKPOINT_CONTENT:
        file.add(names, runs)
    return file


def test_what_is_small_comes_into_one_block():
    """A block that would be small takes what comes next; nothing changes its meaning."""
    disk = MemoryDisk()
    file = make_checkpoint(disk)
    assert (file.values, file.bytes) == (6, HEAD_BYTES)
    file.finish()
    data = disk.map(layout.checkpoint_path(SHARD, 18))
    assert file.bytes == len(data)
    ((names, runs),) = CheckpointReader(data)
    assert names.parents.tolist() == [-1, 0, 1, -1, 3]
    assert names.place_names == ["fritz", "f0101", "socket0", "fritz", "f0102"]
    assert names.metric_names == ["cpu_load", "power", "cpu_load"]
    assert (names.series_places.tolist(), names.series_metrics.tolist()) == ([1, 2, 4], [0, 1, 2])
    assert runs.numbers.tolist() == [0, 1, 2]
    values = np.concatenate([runs.values for _, runs in CHECKPOINT_CONTENT])
    assert runs.values.tobytes() == values.tobytes()


def test_a_checkpoint_has_its_blocks_and_their_sum(monkeypatch):
    """It appears with its end, which says what is in it, and every byte is counted."""
    monkeypatch.setattr(writing, "_BLOCK_VALUES", 1)
    disk = MemoryDisk()
    file = make_checkpoint(disk)
    assert disk.list(SHARD) == ["0000000018.ckpt.tmp"]
    file.finish()
    data = disk.map(layout.checkpoint_path(SHARD, 18))
    reader = CheckpointReader(data)
    assert [plain(block) for block in reader] == [plain(block) for block in CHECKPOINT_CONTENT]
    assert reader.head == Head(Kind.CHECKPOINT, shard=3, number=18, created=START)
    wanted = Summary(blocks=2, series=3, runs=3, values=6, start=START - 30, stop=START + 15_345)
    assert reader.summary == read_summary(data) == wanted
    assert list(disk.durable) == [layout.checkpoint_path(SHARD, 18)]


def test_a_checkpoint_of_nothing_is_no_file():
    """Where nothing is new, nothing is written."""
    disk = MemoryDisk()
    file = CheckpointFile(disk, layout.checkpoint_path(SHARD, 18), shard=3, number=18, created=START)
    file.finish()
    file.abandon()
    assert (disk.operations, file.bytes, file.values) == (0, 0, 0)


@pytest.mark.parametrize("failing", ["close", "create", "replace", "sync", "write"])
def test_a_checkpoint_that_fails(failing):
    """Whatever fails, there is no checkpoint, and abandoning it raises nothing."""
    disk = MemoryDisk(before=Failing(failing))
    file = CheckpointFile(disk, layout.checkpoint_path(SHARD, 18), shard=3, number=18, created=START)

    def write() -> None:
        for names, runs in CHECKPOINT_CONTENT:
            file.add(names, runs)
        file.finish()

    with pytest.raises(OSError, match="No space left"):
        write()
    file.abandon()
    assert list(disk.list(SHARD)) == []
