"""The file system as the log needs it."""

import errno
import os
import random
from pathlib import Path

import pytest
from disk_memory import MemoryDisk

from ccstore.disk.files import OsDisk, Publication, lock_directory
from ccstore.errors import ConfigError


@pytest.fixture(params=["memory", "os"])
def disk(request):
    """Return the disk of the tests and the real one: they do the same."""
    return MemoryDisk() if request.param == "memory" else OsDisk()


def test_a_file_is_written_and_read(disk, tmp_path):
    """What is appended is there, under the name and with the size."""
    file = disk.create(tmp_path / "a")
    file.write(b"one ")
    file.write(b"two")
    file.sync()
    file.close()
    disk.sync_file(tmp_path / "a")
    disk.sync_directory(tmp_path)
    assert (bytes(disk.map(tmp_path / "a")), disk.size(tmp_path / "a")) == (b"one two", 7)
    assert disk.list(tmp_path) == ["a"]


def test_a_part_of_a_file(disk, tmp_path):
    """A part is what lies there, as far as the file reaches; what is cut off is gone."""
    (tmp_path / "a").write_bytes(b"0123456789")
    if isinstance(disk, MemoryDisk):
        disk.put(tmp_path / "a", b"0123456789")
    parts = ((0, 3), (8, 5), (10, 1), (0, 0))
    assert [disk.read(tmp_path / "a", *part) for part in parts] == [b"012", b"89", b"", b""]
    disk.cut(tmp_path / "a", 4)
    assert bytes(disk.map(tmp_path / "a")) == b"0123"
    disk.cut(tmp_path / "a", 0)
    assert bytes(disk.map(tmp_path / "a")) == b""


def test_a_sector_that_cannot_be_read_is_an_error():
    """Mapping tries every byte, so that looking at the map cannot end the process (SIGBUS)."""
    with pytest.raises(OSError, match="Input/output error"):
        OsDisk().map(Path("/proc/self/mem"))


def test_a_file_is_closed_once(disk, tmp_path):
    """To close a file again does nothing; an empty file can be read."""
    file = disk.create(tmp_path / "a")
    file.close()
    file.close()
    assert bytes(disk.map(tmp_path / "a")) == b""


def test_an_existing_file_is_not_made_again(disk, tmp_path):
    """A name that is taken is an error: no file is written over."""
    disk.create(tmp_path / "a").close()
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "a")


def test_what_is_missing(disk, tmp_path):
    """What is not there is an error; a directory that is not there is empty."""
    for fail in (disk.size, disk.map, disk.remove):
        with pytest.raises(FileNotFoundError):
            fail(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        disk.replace(tmp_path / "missing", tmp_path / "a")
    assert list(disk.list(tmp_path / "missing")) == []


def test_replace_and_remove(disk, tmp_path):
    """A name goes over to another file, and goes."""
    for name in ("a", "b"):
        file = disk.create(tmp_path / name)
        file.write(name.encode())
        file.close()
    disk.replace(tmp_path / "a", tmp_path / "b")
    assert (disk.list(tmp_path), bytes(disk.map(tmp_path / "b"))) == (["b"], b"a")
    disk.remove(tmp_path / "b")
    assert list(disk.list(tmp_path)) == []


def test_a_directory_is_made_and_its_names_synced(tmp_path, monkeypatch):
    """A directory is named durably even if it was there: who made it may have been killed before the sync."""
    synced: list[Path] = []
    monkeypatch.setattr(OsDisk, "sync_directory", lambda _self, path: synced.append(path))
    OsDisk().make_directory(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    synced.clear()
    OsDisk().make_directory(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path / "a" / "b"]


def test_a_write_that_takes_a_part_goes_on(tmp_path, monkeypatch):
    """The system may take fewer bytes than it was given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    file = OsDisk().create(tmp_path / "a")
    file.write(b"0123456789")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_publication_appears_as_a_whole(disk, tmp_path):
    """Until it is published, a file has another name; one of an attempt that failed is replaced."""
    disk.create(tmp_path / "a.tmp").close()
    publication = Publication(disk, tmp_path / "a")
    publication.write(b"whole")
    assert disk.list(tmp_path) == ["a.tmp"]
    publication.publish()
    assert (disk.list(tmp_path), bytes(disk.map(tmp_path / "a"))) == (["a"], b"whole")


def test_a_publication_that_is_abandoned_leaves_nothing(disk, tmp_path):
    """Neither the file nor what was written of it."""
    publication = Publication(disk, tmp_path / "a")
    publication.write(b"half")
    publication.abandon()
    assert list(disk.list(tmp_path)) == []


def test_a_publication_and_a_power_cut():
    """Whenever the power fails: the old content or the new one; once published, the new one."""
    path, chance = Path("/data/a"), random.Random(1)
    left: list[MemoryDisk] = []
    disk = MemoryDisk()
    disk.put(path, b"old")
    disk.before = lambda *_: left.extend(disk.after_power_cut(chance) for _ in range(20))
    publication = Publication(disk, path)
    publication.write(b"new")
    publication.publish()
    found = {bytes(each.map(path)) for each in left}
    assert found == {b"old", b"new"}
    assert {bytes(disk.after_power_cut(chance).map(path)) for _ in range(20)} == {b"new"}


@pytest.mark.parametrize("failing", ["close", "create", "replace", "sync", "sync_directory", "write"])
def test_a_publication_that_fails(failing):
    """Whatever fails, the content under the name is whole, and abandoning what is left raises nothing."""
    path = Path("/data/a")
    disk = MemoryDisk()
    disk.put(path, b"old")

    def fail(_number: int, name: str, _path: Path) -> None:
        if name in (failing, "remove"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.before = fail
    made: list[Publication] = []

    def publish() -> None:
        made.append(Publication(disk, path))
        made[0].write(b"new")
        made[0].publish()

    with pytest.raises(OSError, match="Input/output error"):
        publish()
    for publication in made:
        publication.abandon()
    assert bytes(disk.map(path)) == (b"new" if failing == "sync_directory" else b"old")


def test_a_directory_that_cannot_be_used(tmp_path):
    """The message names the key, the path and the reason."""
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(
            ConfigError,
            match=r"^metric-store.checkpoints.directory: .*/file: cannot be used \(File exists\)$",
        ),
        lock_directory(tmp_path / "file"),
    ):
        pass


def test_a_lock_makes_the_directory(tmp_path):
    """A missing directory is made; when it is left, it can be locked again."""
    for _ in range(2):
        with lock_directory(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b").is_dir()
