"""The reference's directory: what is found there, and which files are chosen."""

import os
from functools import partial
from pathlib import Path

import pytest
from disk_reference import EXAMPLE, GOLDEN, comparable, entry
from hypothesis import given
from hypothesis import strategies as st

from ccstore.disk.files import OsDisk
from ccstore.disk.reference.checkpoint import Checkpoint, Level
from ccstore.disk.reference.directory import (
    CheckpointFile,
    encode_checkpoint,
    list_host,
    list_hosts,
    next_number,
    plan_cleanup,
    plan_load,
    plan_revise,
    read_checkpoint,
    read_stop,
)
from ccstore.errors import CorruptionError

DISK = OsDisk()
THREE = {100: 200, 200: 300, 300: 400}
"""Beginnings and ends of the files of the description."""


def put(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"")


def make(number: int, suffix: str = ".bin") -> CheckpointFile:
    return CheckpointFile(Path(f"{number}{suffix}"), number)


def chosen(plan, periods: dict[int, int], time: int) -> list[int]:
    """Return which of these files a plan chooses."""
    files = [make(number) for number in periods]
    return [file.number for file in plan(files, time, lambda file: periods[file.number])]


# --- what lies there


def test_hosts_and_their_files(tmp_path: Path) -> None:
    """Hosts come by name, files in the order of loading, logs in the order of writing."""
    put(tmp_path / "b" / "h", "current.wal")
    put(tmp_path / "a" / "h2", "900.json", "1000.bin", "900.bin", "-5.json", "0.bin")
    put(tmp_path / "a" / "h1", "current.wal", "9.wal", "10.wal")
    found = list_hosts(DISK, tmp_path)
    assert [(host.cluster, host.host) for host in found.hosts] == [("a", "h1"), ("a", "h2"), ("b", "h")]
    assert [f.path.name for f in found.hosts[1].files] == [
        "-5.json",
        "0.bin",
        "900.json",
        "900.bin",
        "1000.bin",
    ]
    assert [file.number for file in found.hosts[1].files] == [-5, 0, 900, 900, 1000]
    assert [path.name for path in found.hosts[0].logs] == ["9.wal", "10.wal", "current.wal"]
    assert found.strange == ()


def test_plain_files_where_directories_are_expected(tmp_path: Path) -> None:
    """A file beside clusters or hosts is told and stops nothing."""
    put(tmp_path, "notes.txt", "5.bin")
    put(tmp_path / "a", "6.bin")
    put(tmp_path / "a" / "h", "7.bin")
    found = list_hosts(DISK, tmp_path)
    assert [host.host for host in found.hosts] == ["h"]
    assert {tmp_path / "notes.txt", tmp_path / "5.bin", tmp_path / "a" / "6.bin"} == set(found.strange)


@pytest.mark.parametrize(
    "name",
    ["x.bin", "007.bin", "+7.bin", "1_0.bin", "٣.json", "7.5.bin", ".bin", "7", "7.BIN", " 7.bin", "1e3.json",
     "9223372036854775808.bin", "old.wal", "7.bin.gz", "8" * 200 + ".bin"],
)  # fmt: skip
def test_strange_names(tmp_path: Path, name: str) -> None:
    """A name that is no number as written here is told and left alone."""
    put(tmp_path, name, "7.bin")
    found = list_host(DISK, tmp_path)
    assert ([tmp_path / name], [7]) == (list(found.strange), [file.number for file in found.files])


def test_leftovers(tmp_path: Path) -> None:
    """Unfinished files are told apart; what was set aside and directories below hosts mean nothing."""
    put(tmp_path, "7.bin.tmp", "8.json.tmp", "6.bin.corrupt", "current.wal.corrupt")
    (tmp_path / "deeper").mkdir()
    found = list_host(DISK, tmp_path)
    assert [path.name for path in found.temporary] == ["7.bin.tmp", "8.json.tmp"]
    assert (found.files, found.logs, found.strange) == ((), (), ())


def test_what_is_no_file(tmp_path: Path) -> None:
    """A directory is ignored whatever its name; a pipe, which nobody could read to its end, is strange."""
    (tmp_path / "5.bin").mkdir()
    os.mkfifo(tmp_path / "6.bin")
    (tmp_path / "7.bin").symlink_to("gone")
    (tmp_path / "8.bin").symlink_to(GOLDEN / "reference.bin")
    found = list_host(DISK, tmp_path)
    assert [file.number for file in found.files] == [8]
    assert found.strange == (tmp_path / "6.bin", tmp_path / "7.bin")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A directory whose name is no UTF-8 is no host: nobody could ask for it."""
    (tmp_path / "c" / os.fsdecode(b"h\xff")).mkdir(parents=True)
    found = list_hosts(DISK, tmp_path)
    assert (found.hosts, len(found.strange)) == ((), 1)


def test_names_that_are_no_clusters(tmp_path: Path) -> None:
    """What else is kept in the directory can be left out, be it a directory or a file."""
    put(tmp_path / "ours" / "0", "1.log")
    put(tmp_path / "c" / "ours", "1.bin")
    put(tmp_path, "lock")
    found = list_hosts(DISK, tmp_path, skip={"ours", "lock"})
    assert [(host.cluster, host.host) for host in found.hosts] == [("c", "ours")]
    assert found.strange == ()


def test_no_directory(tmp_path: Path) -> None:
    """Where nothing was ever written there is nothing."""
    assert list_hosts(DISK, tmp_path / "none").hosts == ()
    assert list_host(DISK, tmp_path / "none").files == ()
    assert list_hosts(DISK, tmp_path).hosts == ()


@given(st.lists(st.integers(-5, 10**10)), st.integers(-(10**10), 10**10))
def test_numbers_are_unique_and_increase(taken: list[int], wanted: int) -> None:
    """Whatever the clock says, the next number is behind all others, and it is the clock's if that is."""
    number = next_number(taken, wanted)
    assert number > max([0, *taken])
    assert number == wanted or wanted <= max([0, *taken])


# --- what they hold


@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_files_are_read_by_their_suffix(tmp_path: Path, suffix: str) -> None:
    """Both formats are read as a whole, and for their end alone."""
    path = tmp_path / f"900{suffix}"
    path.write_bytes(encode_checkpoint(EXAMPLE, suffix))
    file = CheckpointFile(path, 900)
    assert comparable(EXAMPLE) == comparable(read_checkpoint(DISK, file))
    assert read_stop(DISK, file) == 1200
    assert read_stop(DISK, CheckpointFile(GOLDEN / f"reference{suffix}", 900)) == 1200


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ('{"from":1,"to":2} ', 2), ('{"to":3,"from":1}', 3), ("{}", 0), ('{"from":1,"TO":4}', 4),
        ('{"from":1,"to":5} rest', 5),
        ('{"children":{"s":{"from":1,"to":8}}}', 0), ('{"to":9,"children":{"s":{"from":1,"to":8}}}\n', 9),
    ],
)  # fmt: skip
def test_the_end_of_a_text_file(tmp_path: Path, text: str, stop: int) -> None:
    """It is found wherever it stands."""
    path = tmp_path / "1.json"
    path.write_text(text)
    assert stop == read_stop(DISK, CheckpointFile(path, 1))


@pytest.mark.parametrize("name", ["5.bin", "5.json"])
@pytest.mark.parametrize("read", [read_checkpoint, read_stop])
def test_damaged_files_are_named(tmp_path: Path, name: str, read) -> None:
    """The message begins with the path."""
    path = tmp_path / name
    path.write_bytes(b"{")
    with pytest.raises(CorruptionError) as caught:
        read(DISK, CheckpointFile(path, 5))
    assert str(caught.value).startswith(f"{path}: byte 0: ")


# --- which ones are loaded


@pytest.mark.parametrize(
    ("threshold", "numbers"),
    [
        (50, [100, 200, 300]), (100, [100, 200, 300]), (150, [100, 200, 300]), (200, [200, 300]),
        (250, [200, 300]), (299, [200, 300]), (300, [300]), (301, [300]), (400, [300]), (401, []), (500, []),
    ],
)  # fmt: skip
def test_which_files_are_loaded(threshold: int, numbers: list[int]) -> None:
    """Files that begin at the threshold or later, and those before that reach it."""
    assert numbers == chosen(plan_load, THREE, threshold)


def test_the_last_file_reaches_far() -> None:
    """The newest file is loaded for as long as its end is not before the threshold."""
    assert chosen(plan_load, {**THREE, 300: 500}, 500) == [300]
    assert chosen(plan_load, {**THREE, 300: 900}, 500) == [300]


def test_files_without_end() -> None:
    """A file that does not tell its end is loaded if it may reach the threshold."""
    assert chosen(plan_load, {100: 0, 200: 0, 300: 0}, 500) == [300]
    assert chosen(plan_load, {100: 0, 200: 0, 300: 0}, 250) == [200, 300]


def test_a_file_that_reaches_over_the_next_one() -> None:
    """What a file says it holds counts, not where the next one begins."""
    assert chosen(plan_load, {100: 1000, 200: 300, 300: 400}, 290) == [100, 200, 300]


def test_one_number_twice() -> None:
    """Of the same period the text is loaded first, then the snapshot."""
    files = [make(100, ".json"), make(100, ".bin"), make(200, ".json"), make(200, ".bin")]
    assert files[2:] == plan_load(files, 210, lambda file: file.number + 100)


def test_unreadable_files_are_chosen() -> None:
    """Loading tells what is wrong with them, and sets them aside."""

    def read(file: CheckpointFile) -> int:
        raise CorruptionError("no file")

    files = [make(100), make(200)]
    assert files == plan_load(files, 500, read)
    assert plan_cleanup(files, 500, read) == []


def test_nothing_is_read_of_files_behind_the_threshold() -> None:
    """Their names are enough."""

    def read(file: CheckpointFile) -> int:
        raise AssertionError(file)

    files = [make(100), make(200)]
    assert files == plan_load(files, 100, read)
    assert plan_cleanup(files, 99, read) == []


# --- which ones are written again


@pytest.mark.parametrize(
    ("start", "numbers"),
    [(912, [300]), (812, [300]), (811, [200, 300]), (612, [100, 200, 300]), (5, [100, 200, 300])],
)
def test_which_files_late_values_belong_into(start: int, numbers: list[int]) -> None:
    """The one that was begun before the first chunk, and all behind it."""
    newer = Checkpoint(400, 500, Level({"m": entry(1, start, [1]), "n": entry(1, 1000, [1])}))
    assert [file.number for file in plan_revise([make(number) for number in THREE], newer)] == numbers


def test_no_file_to_write_again() -> None:
    """The first checkpoint of a host has none before it, and one without values needs none but the last."""
    assert plan_revise([], EXAMPLE) == []
    last = make(300)
    assert plan_revise([make(100), last], Checkpoint(400, 500, Level())) == [last]


# --- which ones are cleaned up


@pytest.mark.parametrize(
    ("cutoff", "numbers"),
    [
        (99, []), (100, []), (199, []), (200, [100]), (250, [100]), (299, [100]), (300, [100, 200]),
        (399, [100, 200]), (400, [100, 200, 300]),
    ],
)  # fmt: skip
def test_which_files_are_cleaned_up(cutoff: int, numbers: list[int]) -> None:
    """Only what ends by the cutoff: the reference goes by the beginning, and loses what lies behind it."""
    assert numbers == chosen(plan_cleanup, THREE, cutoff)


def test_cleanup_where_files_end_as_they_begin() -> None:
    """Files without a length are chosen as the reference does."""
    for cutoff, numbers in ((99, []), (100, [100]), (250, [100, 200]), (300, [100, 200, 300])):
        assert numbers == chosen(plan_cleanup, {100: 100, 200: 200, 300: 300}, cutoff)


def test_cleanup_leaves_file_zero_alone() -> None:
    """As the reference does."""
    assert chosen(plan_cleanup, {0: 10}, 100) == []


def test_cleanup_of_files_without_end() -> None:
    """A file that does not tell its end holds at most what lies before the next one; the last one stays."""
    assert chosen(plan_cleanup, {100: 0, 200: 0}, 250) == [100]
    assert chosen(plan_cleanup, {100: 0, 200: 0}, 199) == []


@given(st.dictionaries(st.integers(1, 50), st.integers(0, 60)), st.integers(0, 70))
def test_no_file_is_both_loaded_and_removed(periods: dict[int, int], time: int) -> None:
    """What is removed at a time holds nothing that would be loaded from that time on, but its last moment."""
    ordered = dict(sorted((number, max(number, number + length)) for number, length in periods.items()))
    both = set(chosen(plan_load, ordered, time)) & set(chosen(plan_cleanup, ordered, time))
    assert all(ordered[number] == time for number in both)


def test_from_writing_to_loading(tmp_path: Path) -> None:
    """A file that was written is listed, chosen and read."""
    checkpoint = Checkpoint(1000, 2000, Level({"m": entry(60, 1030, [1, 2])}))
    host = tmp_path / "c" / "h"
    host.mkdir(parents=True)
    (host / "1000.bin").write_bytes(encode_checkpoint(checkpoint, ".bin"))
    (found,) = list_hosts(DISK, tmp_path).hosts
    (file,) = plan_load(found.files, 1500, partial(read_stop, DISK))
    assert comparable(checkpoint) == comparable(read_checkpoint(DISK, file))
    assert plan_load(found.files, 2001, partial(read_stop, DISK)) == []
    assert [file] == plan_cleanup(found.files, 2000, partial(read_stop, DISK))
