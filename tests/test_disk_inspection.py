"""Files and directories for tools: what is counted, what is recognized, what is damage."""

import math
import struct
import zlib
from pathlib import Path

import pytest
from disk_columnar import CHECKPOINT, SEGMENT, SEGMENT_FRAMES
from disk_columnar import GOLDEN as COLUMNAR_GOLDEN
from disk_directories import (
    FREQUENCIES,
    ROOM,
    START,
    Key,
    write_checkpoint,
    write_log,
    write_reference,
    write_segment,
)
from disk_reference import GOLDEN as REFERENCE_GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.disk import layout
from ccstore.disk.contents import Content, FileKind, Series, open_file
from ccstore.disk.files import OsDisk, lock_directory
from ccstore.disk.inspection import Inspection, inspect_file, values_of
from ccstore.disk.verification import is_in_use, verify_directory
from ccstore.errors import ConfigError, CorruptionError

NEWER = SEGMENT[:7] + b"\x02" + SEGMENT[8:32]
HOST, OTHER = ("alex", "a1"), ("alex", "a2")
A, B, C = ((HOST, "load", START), ((*HOST, "socket0"), "power", START), (OTHER, "load", START))


def look(path: Path) -> Inspection:
    return inspect_file(open_file(path))


def read_values(path: Path) -> tuple[Inspection, list[tuple[Key, float | None]]]:
    """Return what a file holds in its order; missing values are None."""
    content = open_file(path)
    found: list[tuple[Key, float | None]] = []

    def see(part) -> None:
        samples = values_of(part, content)
        for number, time, value in zip(
            samples.numbers.tolist(), samples.times.tolist(), samples.values.tolist(), strict=True
        ):
            series = content.series[number]
            found.append(((series.path, series.metric, time), None if math.isnan(value) else value))

    return inspect_file(content, see=see), found


# --- what is counted


keys = st.builds(
    lambda path, metric, slot: (path, metric, START + slot * FREQUENCIES[metric]),
    st.sampled_from([HOST, OTHER, B[0]]),
    st.sampled_from(sorted(FREQUENCIES)),
    st.integers(-1000, 1000),
)
floats = st.floats(width=32)


@settings(max_examples=30, deadline=None)
@given(commits=st.lists(st.lists(st.tuples(keys, floats), min_size=1, max_size=8), min_size=1, max_size=4))
def test_every_value_of_a_segment_is_counted(tmp_path_factory, commits) -> None:
    """Of each series how many are stored and missing, and from when to when."""
    path = write_segment(tmp_path_factory.mktemp("segment"), 7, commits)
    rows = [row for commit in commits for row in commit]
    found, values = read_values(path)
    expected = [(key, None if math.isnan(value) else value) for key, value in rows]
    # the writer may sort the samples of a frame by series
    assert sorted(values, key=lambda row: row[0][:2]) == sorted(expected, key=lambda row: row[0][:2])
    check_counts(found, rows)
    assert (found.content.head["number"], found.content.records) == (7, len(commits))


@settings(max_examples=30, deadline=None)
@given(blocks=st.lists(st.dictionaries(keys, floats, min_size=1, max_size=8), min_size=1, max_size=3))
def test_every_value_of_a_checkpoint_is_counted(tmp_path_factory, blocks) -> None:
    """A series that several blocks name is one series."""
    path = write_checkpoint(tmp_path_factory.mktemp("checkpoint"), 7, blocks)
    found, values = read_values(path)
    rows = [row for block in blocks for row in block.items()]
    assert values == [(key, None if math.isnan(value) else value) for key, value in rows]
    check_counts(found, rows)
    assert found.content.records == len(blocks)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(keys, floats), min_size=1, max_size=20))
def test_every_value_of_a_reference_log_is_counted(tmp_path_factory, rows) -> None:
    """It belongs to the host whose directory it is in, and tells no frequency."""
    rows = [row for row in rows if row[0][0][:2] == HOST] or [(A, 1.0)]
    (path,) = write_log(tmp_path_factory.mktemp("log"), rows)
    found, values = read_values(path)
    assert values == [(key, None if math.isnan(value) else value) for key, value in rows]
    check_counts(found, rows)
    assert {one.series.frequency for one in found.series} == {0}


def check_counts(found: Inspection, rows: list[tuple[Key, float]]) -> None:
    by_series: dict[tuple[tuple[str, ...], str], list[tuple[int, float]]] = {}
    for (path, metric, time), value in rows:
        by_series.setdefault((path, metric), []).append((time, value))
    assert {(one.series.path, one.series.metric): one for one in found.series}.keys() == by_series.keys()
    for one in found.series:
        of_series = by_series[one.series.path, one.series.metric]
        missing = sum(math.isnan(value) for _, value in of_series)
        times = [time for time, _ in of_series]
        assert (one.values, one.missing) == (len(of_series) - missing, missing)
        assert (one.start, one.stop) == (min(times), max(times))
    times = [time for (_, _, time), _ in rows]
    assert found.span == (min(times), max(times))
    assert found.values + found.missing == len(rows)
    assert found.hosts == len({path[:2] for path, _ in by_series})
    assert found.metrics == len({metric for _, metric in by_series})
    assert found.bytes_per_value == found.content.size / len(rows)
    assert found.is_good


@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_checkpoints_of_the_reference(tmp_path: Path, suffix: str) -> None:
    """Values at their times, the gaps between them as missing."""
    (path,) = write_reference(tmp_path, 900, {A: 1.0, (HOST, "load", START + 120): 2.5}, suffix, stop=1200)
    found, values = read_values(path)
    assert values == [(A, 1.0), ((HOST, "load", START + 60), None), ((HOST, "load", START + 120), 2.5)]
    assert found.content.head == {"from": 900, "to": 1200}
    assert [str(one.series) for one in found.series] == ["alex/a1/load"]


def test_a_file_without_values(tmp_path: Path) -> None:
    """It has no times and no bytes a value, and nothing is wrong with it."""
    path = tmp_path / "current.wal"
    path.write_bytes(b"")
    found = look(path)
    assert (found.span, found.bytes_per_value, found.values, found.is_good) == (None, None, 0, True)


def test_progress_reaches_the_size(tmp_path: Path) -> None:
    """The position grows from part to part, and is the size at the end."""
    path = write_segment(tmp_path, 1, [[(A, 1.0)], [(A, 2.0)], [(A, 3.0)]])
    content = open_file(path)
    positions: list[int] = []
    inspect_file(content, see=lambda _part: positions.append(content.position))
    assert positions == sorted(set(positions))
    assert content.position == content.size == path.stat().st_size


# --- what is recognized


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (COLUMNAR_GOLDEN / "version-1.log", FileKind.SEGMENT),
        (COLUMNAR_GOLDEN / "version-1.ckpt", FileKind.CHECKPOINT),
        (REFERENCE_GOLDEN / "current.wal", FileKind.LOG),
        (REFERENCE_GOLDEN / "reference.bin", FileKind.SNAPSHOT),
        (REFERENCE_GOLDEN / "reference.json", FileKind.TEXT),
    ],
    ids=lambda part: part.name,
)
def test_kinds_are_known_by_their_content(tmp_path: Path, path: Path, kind: FileKind) -> None:
    """Whatever the file is called."""
    copy = tmp_path / "x"
    copy.write_bytes(path.read_bytes())
    assert open_file(copy).kind is open_file(path).kind is kind


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("1.log", b"", FileKind.SEGMENT),
        ("1.log", b"ccst", FileKind.SEGMENT),
        ("1.log", b"X" + SEGMENT[1:], FileKind.SEGMENT),
        ("1.ckpt", b"X" + CHECKPOINT[1:], FileKind.CHECKPOINT),
        ("1.ckpt.tmp", CHECKPOINT[:-1] + b"X", FileKind.CHECKPOINT),
        ("7.wal", b"\x01", FileKind.LOG),
        ("900.bin", b"xyz", FileKind.SNAPSHOT),
        ("-5.json", b"null", FileKind.TEXT),
        ("covered", b"17 nonsense", FileKind.COVERED),
    ],
)
def test_damaged_beginnings_are_known_by_their_names(tmp_path: Path, name, data, kind) -> None:
    """As far as something of the kind is left, or it could have been cut."""
    (tmp_path / name).write_bytes(data)
    assert open_file(tmp_path / name).kind is kind


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("syslog.log", b"Nov  2 08:00:00 host systemd[1]: Started\n" * 10),
        ("x.ckpt", b"x" * 100),
        ("config.json", b'{"main": {"addr": "127.0.0.1"}}'),
        ("x.bin", b"\0" * 50),
        ("x", b""),
        ("x.log", NEWER + struct.pack("<I", zlib.crc32(NEWER)) + SEGMENT[36:]),
    ],
    ids=["log", "ckpt", "json", "bin", "empty", "version"],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    """With one line that names the file; a newer version is not read either."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorruptionError) as caught:
        open_file(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_names_cannot_confuse_a_terminal() -> None:
    """What does not print is escaped."""
    assert str(Series(("a\x1b[2J", "hö"), "m\nn", 1)) == r"a\x1b[2J/hö/m\nn"


# --- what is damage


def damaged(tmp_path: Path, name: str, data: bytes, at: int) -> Content:
    """Return a file, read to its end, in which a byte is wrong."""
    path = tmp_path / name
    path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
    return look(path).content


@pytest.mark.parametrize(("name", "data"), [("1.log", SEGMENT), ("1.ckpt", CHECKPOINT)])
def test_every_damaged_byte_is_found(tmp_path: Path, name: str, data: bytes) -> None:
    """At an offset before it, as damage or, in the last frame of a log, as its torn end."""
    tail_begins = len(data) - len(SEGMENT_FRAMES[-1]) if name == "1.log" else len(data)
    for at in range(len(data)):
        content = damaged(tmp_path, name, data, at)
        found = [content.tail] if at >= tail_begins and content.tail else content.damage
        assert any(one.offset <= at < one.offset + one.size for one in found), at


def test_every_damaged_byte_of_a_reference_log_is_found(tmp_path: Path) -> None:
    """In the last record as its torn end; else everything behind it is lost, and that is damage."""
    (path,) = write_log(tmp_path, [(A, 1.0), (A, 2.0), (A, 3.0)])
    data = path.read_bytes()
    last = 4 + 2 * (len(data) - 4) // 3
    for at in range(4, len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        found = look(path)
        if at < last:
            (damage,) = found.damage
            assert (damage.offset <= at, damage.offset + damage.size) == (True, len(data))
            assert (found.is_good, found.content.tail) == (False, None)
        else:
            assert found.content.tail is not None
            assert (found.content.tail.offset, found.is_good) == (last, True)


def test_a_checkpoint_without_its_end_is_damaged(tmp_path: Path) -> None:
    """It has its name only when it is complete."""
    (tmp_path / "1.ckpt").write_bytes(CHECKPOINT[:-160])
    (damage,) = look(tmp_path / "1.ckpt").damage
    assert (damage.offset, damage.reason) == (len(CHECKPOINT) - 160, "incomplete (wanted an end)")


def test_lost_names_are_damage(tmp_path: Path) -> None:
    """Their samples can be read, but nobody knows what they are."""
    names, samples = SEGMENT_FRAMES[2], SEGMENT_FRAMES[3]
    (tmp_path / "1.log").write_bytes(SEGMENT.replace(names, b"\0" * len(names)))
    found = look(tmp_path / "1.log")
    assert (found.content.nameless, found.is_good, len(samples) > 0) == (1, False, True)


# --- directories


def make_directory(directory: Path) -> None:
    """Write both formats; of three segments one is covered."""
    write_segment(directory, 1, [[(A, 1.0)]])
    write_checkpoint(directory, 2, [{A: 1.0, B: 2.0}])
    write_segment(directory, 4, [[(A, 3.0), (C, math.nan)], [(A, 4.0)]])
    write_checkpoint(directory, 9, [{C: 2.0}], shard=1)
    write_segment(directory, 9, [[(C, 1.0)]], shard=1)
    layout.write_covered(OsDisk(), directory, 4)
    write_reference(directory, 900, {(("fritz", "f1"), "load", START + 60): 1.0})
    write_log(directory, [((("fritz", "f1"), "load", START), 2.0)])


def test_a_good_directory(tmp_path: Path) -> None:
    """Every file is counted in its group, and coverage is told from numbers."""
    make_directory(tmp_path)
    found = verify_directory(tmp_path)
    groups = {kind: (g.files, g.values, g.missing, g.damaged, g.torn) for kind, g in found.groups.items()}
    assert groups == {
        FileKind.SEGMENT: (3, 4, 1, 0, 0),
        FileKind.CHECKPOINT: (2, 3, 0, 0, 0),
        FileKind.COVERED: (1, 0, 0, 0, 0),
        FileKind.SNAPSHOT: (1, 1, 0, 0, 0),
        FileKind.LOG: (1, 1, 0, 0, 0),
    }
    assert sum(group.bytes for group in found.groups.values()) == sum(
        path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()
    )
    assert (found.covered, found.covered_segments, found.replayed_segments) == (4, 1, 2)
    assert (found.replayed_samples, found.missing_numbers) == (4, 5)
    assert (found.hosts, found.series, found.span) == (3, 4, (START, START + 60))
    assert (found.is_good, found.problems, found.unreadable, found.vanished) == (True, [], [], 0)


def test_the_bytes_of_a_directory_are_told_while_they_are_read(tmp_path: Path) -> None:
    """In steps that add up to what lies there."""
    make_directory(tmp_path)
    steps: list[int] = []
    verify_directory(tmp_path, steps.append)
    assert min(steps) >= 0
    assert sum(steps) == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


def test_damage_is_told_and_torn_ends_are_none(tmp_path: Path) -> None:
    """A directory with torn ends alone is good."""
    make_directory(tmp_path)
    segment = tmp_path / ROOM / "0" / "0000000004.log"
    segment.write_bytes(segment.read_bytes()[:-1])
    found = verify_directory(tmp_path)
    (problem,) = found.problems
    assert (problem.path, problem.is_damage, found.is_good) == (segment, False, True)
    checkpoint = tmp_path / ROOM / "0" / "0000000002.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    found = verify_directory(tmp_path)
    assert [problem.path for problem in found.problems if problem.is_damage] == [checkpoint]
    assert (found.is_good, found.has_damaged_checkpoints) == (False, True)
    assert found.groups[FileKind.CHECKPOINT].damaged == 1


def test_files_that_are_nothing_are_damage(tmp_path: Path) -> None:
    """They have the name of a file that the server relies on."""
    make_directory(tmp_path)
    path = tmp_path / ROOM / "0" / "0000000002.ckpt"
    path.write_bytes(b"x" * 500)
    found = verify_directory(tmp_path)
    (line,) = found.unreadable
    assert (line.startswith(f"{path}: "), found.is_good) == (True, False)


def test_a_damaged_covered_is_damage(tmp_path: Path) -> None:
    """It covers nothing then, so all segments are replayed."""
    make_directory(tmp_path)
    (tmp_path / ROOM / "covered").write_bytes(b"4 00000000\n")
    found = verify_directory(tmp_path)
    assert (found.is_good, found.covered, found.replayed_segments) == (False, 0, 3)


def test_leftovers_and_strange_names_are_no_damage(tmp_path: Path) -> None:
    """They are listed, at every level of both formats."""
    make_directory(tmp_path)
    host = tmp_path / "fritz" / "f1"
    leftovers = [
        tmp_path / ROOM / "0" / "0000000012.ckpt.tmp",
        tmp_path / ROOM / "covered.tmp",
        host / "900.bin.tmp",
    ]
    strange = [tmp_path / ROOM / "0" / "note", tmp_path / ROOM / "README", host / "note", tmp_path / "note"]
    for path in leftovers + strange:
        path.write_bytes(b"x")
    (tmp_path / ROOM / "zero").mkdir()
    found = verify_directory(tmp_path)
    assert sorted(found.found.leftovers) == sorted(leftovers)
    assert sorted(found.found.strange) == sorted([*strange, tmp_path / ROOM / "zero"])
    assert found.is_good


def test_files_that_a_server_removes_meanwhile(tmp_path: Path) -> None:
    """They are passed over: what they held is in checkpoints."""
    make_directory(tmp_path)
    removed = tmp_path / ROOM / "0" / "0000000004.log"

    def advance(_bytes: int) -> None:
        removed.unlink(missing_ok=True)

    found = verify_directory(tmp_path, advance)
    assert (found.vanished, found.is_good) == (1, True)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """Nothing is made for it."""
    with pytest.raises(ConfigError, match="no such directory"):
        verify_directory(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_tells_whether_a_server_runs(tmp_path: Path) -> None:
    """And looking at it leaves it as it was."""
    assert not is_in_use(tmp_path)
    with lock_directory(tmp_path):
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
