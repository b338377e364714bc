"""The names of files, and what says how far checkpoints cover the log."""

from pathlib import Path

import pytest
from disk_memory import MemoryDisk

from ccstore.disk import layout

DATA = Path("/data")
ROOM = DATA / "columnar"


def test_the_names_of_files():
    """A shard has a directory, and numbers are written so that names sort as they do."""
    directory = layout.shard_directory(DATA, 3)
    assert directory == ROOM / "3"
    assert layout.segment_path(directory, 17) == ROOM / "3" / "0000000017.log"
    assert layout.checkpoint_path(directory, 18) == ROOM / "3" / "0000000018.ckpt"


def test_files_are_found_in_the_order_of_their_numbers():
    """Over all shards; a checkpoint comes before the segment that begins with it."""
    disk = MemoryDisk()
    for shard, number in ((0, 4), (1, 3), (0, 2), (11, 1)):
        directory = layout.shard_directory(DATA, shard)
        disk.put(layout.segment_path(directory, number), b"12345")
        disk.put(layout.checkpoint_path(directory, number), b"123")
    found = layout.find_files(disk, DATA)
    assert [(file.number, file.shard, file.is_segment, file.size) for file in found] == [
        (1, 11, False, 3), (1, 11, True, 5), (2, 0, False, 3), (2, 0, True, 5),
        (3, 1, False, 3), (3, 1, True, 5), (4, 0, False, 3), (4, 0, True, 5),
    ]  # fmt: skip


def test_settling_syncs_and_removes_what_is_incomplete():
    """What a killed process left is made durable, or goes if it is not complete."""
    disk = MemoryDisk()
    for name in ("0000000001.log", "0000000002.ckpt", "0000000003.ckpt.tmp"):
        file = disk.create(ROOM / "0" / name)
        file.write(b"content")
    layout.settle(disk, DATA)
    assert disk.list(ROOM / "0") == ["0000000001.log", "0000000002.ckpt"]
    assert set(disk.durable) == set(disk.names)
    assert disk.names[ROOM / "0" / "0000000001.log"].synced == 7


def test_settling_nothing():
    """Where nothing is, or something strange, nothing is done."""
    disk = MemoryDisk()
    disk.put(ROOM / "0", b"a file where a directory should be")
    disk.put(DATA / "0" / "x.tmp", b"")
    layout.settle(disk, DATA)
    assert disk.operations == 0


def test_covered_is_written_and_read():
    """What was noted last counts, and it is durable."""
    disk = MemoryDisk()
    assert layout.read_covered(disk, DATA) == 0
    for number in (7, 12, 10**15):
        layout.write_covered(disk, DATA, number)
        assert layout.read_covered(disk, DATA) == number
    assert list(disk.durable) == list(disk.names) == [ROOM / "covered"]


def test_no_bit_of_covered_may_flip():
    """A number that is too high would lose samples, so any damage makes it unknown."""
    disk = MemoryDisk()
    layout.write_covered(disk, DATA, 1207)
    whole = bytes(disk.map(ROOM / "covered"))
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        disk.put(ROOM / "covered", bytes(data))
        assert layout.read_covered(disk, DATA) == 0
    for stop in range(len(whole)):
        disk.put(ROOM / "covered", whole[:stop])
        assert layout.read_covered(disk, DATA) == 0


def test_covered_that_cannot_be_written_leaves_the_old_one():
    """An error is told, and what was noted before stays."""
    disk = MemoryDisk()
    layout.write_covered(disk, DATA, 7)

    def fail(_number: int, name: str, _path: Path) -> None:
        if name == "sync":
            raise OSError(28, "No space left on device")

    disk.before = fail
    with pytest.raises(OSError, match="No space left"):
        layout.write_covered(disk, DATA, 9)
    assert layout.read_covered(disk, DATA) == 7
    assert disk.list(ROOM) == ["covered"]
