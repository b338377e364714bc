"""What a start reads: the pieces hold what the frames hold, however they are cut."""

from pathlib import Path

import numpy as np
import pytest
from disk_columnar import (
    CHECKPOINT,
    CHECKPOINT_CONTENT,
    FIRST_NAMES,
    FIRST_SAMPLES,
    MORE_NAMES,
    MORE_SAMPLES,
    SEGMENT,
    SEGMENT_FRAMES,
    SEGMENT_HEAD,
    START,
    make_samples,
    plain,
)
from disk_memory import MemoryDisk

from ccstore.disk import layout, reading
from ccstore.disk.folding import join_blocks, join_names, join_samples
from ccstore.disk.frames import encode_head
from ccstore.disk.layout import ColumnarFile
from ccstore.disk.names import Position
from ccstore.disk.reading import End, Piece, read_files
from ccstore.disk.segment import encode_names, encode_samples
from ccstore.model import Names, Samples

SHARD = layout.shard_directory(Path("/data"), 3)


def make_files(disk: MemoryDisk, *contents: bytes) -> list[ColumnarFile]:
    """Write files: those of a checkpoint or of a segment, as their heads tell."""
    files = []
    for number, data in enumerate(contents, 17):
        is_segment = data[8:12] == b"sgmt"
        make_path = layout.segment_path if is_segment else layout.checkpoint_path
        file = disk.create(make_path(SHARD, number))
        file.write(data)
        file.close()
        files.append(ColumnarFile(number, is_segment, 3, make_path(SHARD, number), len(data)))
    return files


def read(contents: list[bytes], *, since: int = 0) -> list:
    """Read files, as values that can be compared."""
    disk = MemoryDisk()
    parts = read_files(disk, make_files(disk, *contents), since=since)
    return [plain((part.names, part.data)) if isinstance(part, Piece) else part for part in parts]


def test_small_frames_come_together():
    """Names of a segment come in front of all samples of a piece; those of blocks are numbered anew."""
    first, end, second, last = read([SEGMENT, CHECKPOINT])
    assert first == plain(
        (join_names([FIRST_NAMES, MORE_NAMES]), join_samples([FIRST_SAMPLES, MORE_SAMPLES]))
    )
    assert second == plain(join_blocks(CHECKPOINT_CONTENT))
    assert [(part.file.number, part.damage, part.is_skipped) for part in (end, last)] == [
        (17, [], False),
        (18, [], False),
    ]


@pytest.mark.parametrize("limit", ["_VALUES", "_SERIES"])
def test_pieces_end_where_they_are_large_enough(monkeypatch, limit):
    """Both many values and many names end a piece, behind a whole frame."""
    monkeypatch.setattr(reading, limit, 1)
    parts = read([SEGMENT, CHECKPOINT])
    none, no_samples = join_names([]), join_samples([])
    assert parts[-3:-1] == [plain(block) for block in CHECKPOINT_CONTENT]
    if limit == "_VALUES":
        wanted = [(FIRST_NAMES, FIRST_SAMPLES), (MORE_NAMES, MORE_SAMPLES)]
    else:
        wanted = [
            (FIRST_NAMES, no_samples),
            (join_names([none, MORE_NAMES]), FIRST_SAMPLES),
            (none, MORE_SAMPLES),
        ]
    assert parts[: len(wanted)] == [plain(pair) for pair in wanted]


def test_a_frame_that_does_not_fit_behind_others_takes_them_along(monkeypatch):
    """Where the room for frames ends, what is there already moves on; nothing is lost or mixed up."""
    monkeypatch.setattr(reading, "_VALUES", 10**6)
    monkeypatch.setattr(reading, "FRAME_SAMPLES", 6 - 10**6)  # room for six samples
    names = encode_names(FIRST_NAMES, position=Position())
    samples = [
        make_samples([(k % 2, START + 60 * k, float(k))] * count) for k, count in enumerate((1, 4, 3, 9, 2))
    ]
    data = encode_head(SEGMENT_HEAD) + names + b"".join(map(encode_samples, samples))
    piece, _ = read([data])
    assert piece == plain((FIRST_NAMES, join_samples(samples)))


def test_samples_without_names_leave_no_gap():
    """What hangs on names that are lost is left out and counted; what comes behind it is as it was."""
    lost = encode_names(MORE_NAMES, position=Position(3, 2, 2))
    more = Samples(np.array([2, 0, 2], np.int32), np.full(3, START + 120), np.ones(3, np.float32))
    bad = bytes(len(lost))
    data = encode_head(SEGMENT_HEAD) + SEGMENT_FRAMES[0] + SEGMENT_FRAMES[1] + bad + encode_samples(more)
    piece, end = read([data + SEGMENT_FRAMES[1]])
    kept = Samples(more.numbers[1:2], more.times[1:2], more.values[1:2])
    assert piece == plain((FIRST_NAMES, join_samples([FIRST_SAMPLES, kept, FIRST_SAMPLES])))
    assert end.damage[1:] == ["2 samples of series whose names are lost"]


def test_what_is_too_old_is_not_read():
    """A complete checkpoint tells how old it is."""
    (end,) = read([CHECKPOINT], since=START + 15_345)
    assert (end.is_skipped, end.damage) == (True, [])


def test_damage_is_told_with_the_end():
    """What is whole is read, and a file of which nothing can be read is an end alone."""
    torn, other, good = read([SEGMENT[:-1], b"x" * 100, SEGMENT])[1:4]
    assert (torn.damage, torn.torn_bytes) == ([], 24 + 20 - 1)
    assert isinstance(other, End)
    assert "head" in other.damage[0]
    assert not isinstance(good, End)


def test_no_such_file():
    """A file that is gone is told, and the others are read."""
    disk = MemoryDisk()
    files = make_files(disk, SEGMENT, SEGMENT)
    disk.remove(files[0].path)
    missing, piece, _ = read_files(disk, files, since=0)
    assert isinstance(missing, End)
    assert len(missing.damage) == 1
    assert isinstance(piece, Piece)
    assert isinstance(piece.names, Names)
