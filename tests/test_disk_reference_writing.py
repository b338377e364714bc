"""What a running store writes in the reference's formats, file by file."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from disk_memory import MemoryDisk
from disk_reference import log_of, name_all, runs_of, samples_of
from disk_reference_reader import read_bin, read_directory

from ccstore.disk.files import OsDisk
from ccstore.disk.reference.writing import HostCheckpoints, HostLogs, Reference
from ccstore.model import Names, Samples

DIRECTORY = Path("/data")
SERIES = [
    (("c", "h1"), "load", 10),
    (("c", "h2"), "load", 10),
    (("c", "h2", "core0", "mem1"), "power", 60),
]
NAMES = name_all(SERIES)
T = 1_700_000_000


def make_logs(disk: MemoryDisk, **options: int) -> HostLogs:
    return HostLogs(disk, DIRECTORY, number=5, **options)


def entry(rows: Sequence[tuple[int, int, float]], names: Names | None = None) -> tuple[Names | None, Samples]:
    return names, samples_of(rows)


def content(disk: MemoryDisk, host: str, name: str = "current.wal") -> bytes:
    return bytes(disk.map(DIRECTORY / "c" / host / name))


def checkpoint(
    disk: MemoryDisk, rows: Sequence[tuple[int, int, int, Sequence[float]]], **options: object
) -> int:
    """Write a checkpoint of h1; return its bytes."""
    wanted = {"suffix": ".bin", "number": 0, "now": T + 1000, **options}
    file = HostCheckpoints(disk, DIRECTORY, **wanted)
    file.add(name_all(SERIES[:1]), runs_of(rows))
    file.finish()
    return file.bytes


# --- logs


def test_what_is_in_the_logs() -> None:
    """Each host has its own, with its records in their order, as the reference writes them."""
    logs = make_logs(disk := MemoryDisk())
    first = logs.commit([entry([(1, T, 1.0), (0, T, 2.0), (2, T, 3.0)], NAMES), entry([(1, T + 10, 4.0)])])
    second = logs.commit([entry([(0, T + 10, 5.0)])])
    h1 = log_of([((), "load", T, 2.0), ((), "load", T + 10, 5.0)])
    h2 = log_of([((), "load", T, 1.0), (("core0", "mem1"), "power", T, 3.0), ((), "load", T + 10, 4.0)])
    assert (content(disk, "h1"), content(disk, "h2")) == (h1, h2)
    assert first + second == len(h1 + h2)


def test_a_commit_is_synced() -> None:
    """Every file that it touched, and the names of those that it made."""
    logs = make_logs(disk := MemoryDisk())
    logs.commit([entry([(0, T, 1.0), (1, T, 1.0)], NAMES)])
    logs.commit([entry([(0, T, 2.0)])])
    assert disk.durable == disk.names
    assert all(inode.synced == len(inode.data) for inode in disk.names.values())


def test_a_cut() -> None:
    """What was written gets its number for a name, and the next samples a new file with names of its own."""
    logs = make_logs(disk := MemoryDisk())
    logs.commit([entry([(0, T, 1.0)], NAMES)])
    logs.begin(9)
    assert disk.list(DIRECTORY / "c" / "h1") == ["5.wal"]
    logs.commit([entry([(0, T, 2.0)], name_all(SERIES[1:]))])
    logs.begin(12)
    assert content(disk, "h1", "5.wal") == log_of([((), "load", T, 1.0)])
    assert content(disk, "h2", "9.wal") == log_of([((), "load", T, 2.0)])


def test_a_cut_that_fails_is_made_by_the_next() -> None:
    """A log keeps its own number, whichever cut gets through."""
    logs = make_logs(disk := MemoryDisk())
    logs.commit([entry([(0, T, 1.0), (1, T, 1.0)], NAMES)])

    def refuse(number: int, name: str, path: Path) -> None:
        if name == "replace" and path.parent.name == "h1":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    disk.before = refuse
    with pytest.raises(OSError, match=r"h1/5\.wal"):
        logs.begin(9)
    assert disk.list(DIRECTORY / "c" / "h2") == ["5.wal"]
    disk.before = lambda number, name, path: None
    logs.begin(10)
    assert disk.list(DIRECTORY / "c" / "h1") == ["5.wal"]


def test_a_log_that_somebody_else_left() -> None:
    """It is not written to: the commit fails, and the next cut puts it behind."""
    logs = make_logs(disk := MemoryDisk())
    disk.put(DIRECTORY / "c" / "h1" / "current.wal", b"of somebody")
    with pytest.raises(FileExistsError):
        logs.commit([entry([(0, T, 1.0)], NAMES)])
    logs.begin(6)
    logs.commit([entry([(0, T, 1.0)], NAMES)])
    assert content(disk, "h1", "5.wal") == b"of somebody"
    assert content(disk, "h1") == log_of([((), "load", T, 1.0)])


def test_large_logs() -> None:
    """A log of the size that is the bound asks for a checkpoint, until it is behind; 0 is no bound."""
    size = len(log_of([((), "load", T, 1.0)]))
    for bound, is_large in ((size + 1, False), (size, True), (0, False)):
        logs = make_logs(MemoryDisk(), max_bytes=bound)
        logs.commit([entry([(0, T, 1.0)], NAMES)])
        assert logs.is_large == is_large
        logs.begin(6)
        assert not logs.is_large


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    """However many hosts there are; and after an error none is."""
    opened: set[Path] = set()
    most = 0

    class Counting(MemoryDisk):
        def operate(self, name: str, path: Path) -> None:
            nonlocal most
            if name in ("create", "append"):
                opened.add(path)
                most = max(most, len(opened))
            elif name == "close":
                opened.discard(path)
            super().operate(name, path)

    series = [(("c", f"h{number}"), "load", 10) for number in range(200)]
    logs = make_logs(disk := Counting())
    for _ in range(2):
        logs.commit([entry([(number, T, 1.0) for number in range(200)], name_all(series))])
        logs.begin(6)
    assert (len(disk.names), most, opened) == (400, 64, set())

    def refuse(number: int, name: str, path: Path) -> None:
        if name == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    disk.before = refuse
    with pytest.raises(OSError, match="h"):
        logs.commit([entry([(number, T, 1.0) for number in range(200)], name_all(series))])
    assert opened == set()


def test_real_files(tmp_path: Path) -> None:
    """The same on the file system of the machine."""
    logs = HostLogs(OsDisk(), tmp_path, number=1)
    for value in (1.0, 2.0):
        logs.commit([entry([(0, T, value)], NAMES if value == 1.0 else None)])
    path = tmp_path / "c" / "h1" / "current.wal"
    assert path.read_bytes() == log_of([((), "load", T, 1.0), ((), "load", T, 2.0)])
    logs.begin(2)
    file = HostCheckpoints(OsDisk(), tmp_path, suffix=".json", number=2, now=T)
    file.add(name_all(SERIES[:1]), runs_of([(0, T - 5, 0, [1.0, 2.0])]))
    assert os.listdir(path.parent) == [f"{T - 5}.json"]


# --- checkpoints


def test_names_of_checkpoints() -> None:
    """Each is named for the beginning of what it holds, or for one more than the last one."""
    disk = MemoryDisk()
    for start in (T, T + 100, T + 100, T - 500):
        checkpoint(disk, [(0, start, 0, [1.0])])
    assert disk.list(DIRECTORY / "c" / "h1") == [f"{number}.bin" for number in (T, T + 100)]
    checkpoint(disk, [(0, T - 10**6, 0, [1.0])])
    assert disk.list(DIRECTORY / "c" / "h1")[2:] == [f"{T + 101}.bin"]


def test_late_values_go_where_they_belong() -> None:
    """The file that covers them is written again, and no file without values is made."""
    disk = MemoryDisk()
    checkpoint(disk, [(0, T, 0, [1.0, 2.0, 3.0])])
    checkpoint(disk, [(0, T, 1, [5.0])], suffix=".json")
    (name,) = disk.list(DIRECTORY / "c" / "h1")
    assert read_bin(content(disk, "h1", name))[2] == {((), "load"): (10, T + 5, [1.0, 5.0, 3.0])}


def test_a_checkpoint_that_became_unreadable() -> None:
    """It is set aside, and what should have gone into it stays in the new file."""
    disk = MemoryDisk()
    checkpoint(disk, [(0, T, 0, [1.0])])
    disk.put(DIRECTORY / "c" / "h1" / f"{T}.bin", b"damaged")
    checkpoint(disk, [(0, T, 0, [2.0])])
    assert disk.list(DIRECTORY / "c" / "h1") == [f"{T}.bin.corrupt", f"{T + 1}.bin"]


def test_covered_logs_go() -> None:
    """Older ones first, and only those with smaller numbers; the current one stays."""
    disk = MemoryDisk()
    removed: list[str] = []
    disk.before = lambda number, name, path: removed.append(path.name) if name == "remove" else None
    for name in ("9.wal", "10.wal", "11.wal", "current.wal"):
        disk.put(DIRECTORY / "c" / "h1" / name, log_of([]))
    checkpoint(disk, [(0, T, 0, [1.0])], number=11)
    assert removed == ["9.wal", "10.wal"]
    assert disk.list(DIRECTORY / "c" / "h1") == ["11.wal", f"{T}.bin", "current.wal"]


def test_the_end_of_a_round() -> None:
    """Logs of hosts without anything new go as well, but for hosts that failed."""
    disk = MemoryDisk()
    for host in ("h1", "h2"):
        disk.put(DIRECTORY / "c" / host / "5.wal", log_of([]))
    form = Reference(disk, DIRECTORY, ".bin")
    assert form.end_round(6, {("c", "h2")}) == (1, [])
    assert [path.parent.name for path in disk.names] == ["h2"]
    disk.before = lambda number, name, path: (_ for _ in ()).throw(OSError(errno.EIO, "no", str(path)))
    with pytest.raises(OSError, match="no"):
        form.end_round(6, ())


def test_old_checkpoints_go() -> None:
    """Those that end by the cutoff; the others, those of used hosts, and files that cannot be read, stay."""
    disk = MemoryDisk()
    checkpoint(disk, [(0, T, 0, [1.0])], now=T + 10)
    checkpoint(disk, [(0, T + 100, 0, [1.0])], now=T + 200)
    disk.put(DIRECTORY / "c" / "h2" / "7.bin", b"damaged")
    assert Reference(disk, DIRECTORY, ".bin").remove_older(T + 150, {("c", "h1")}) == 0
    assert Reference(disk, DIRECTORY, ".bin").remove_older(T + 150, {("c", "h9"), ("d", "h")}) == 1
    assert [path.name for path in disk.names] == [f"{T + 100}.bin", "7.bin"]


@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_both_formats_say_the_same(suffix: str) -> None:
    """What is written is what a reader of the description finds."""
    disk = MemoryDisk()
    size = checkpoint(disk, [(0, T, 2, [0.1, 2.5])], suffix=suffix)
    found = read_directory(disk, DIRECTORY)
    assert {key[2]: round(value, 6) for key, value in found.items()} == {T + 25: 0.1, T + 35: 2.5}
    assert size == sum(len(inode.data) for inode in disk.names.values())
