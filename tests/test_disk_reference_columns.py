"""Between the trees of files and columns: grids, chunks, further files, late values."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from disk_reference import EXAMPLE, comparable, entry, name_all, runs_of, series_of
from hypothesis import given
from hypothesis import strategies as st

from ccstore.disk.reference.checkpoint import Checkpoint, Entry, Level
from ccstore.disk.reference.columns import arrange, flatten, revise
from ccstore.disk.reference.directory import CheckpointFile, next_number, plan_revise
from ccstore.model import Names, Runs

HOST = ("c", "h")
Rows = Sequence[tuple[int, int, int, Sequence[float]]]


def arranged(rows: Rows, *, frequency: int = 60, start: int = 1, stop: int = 2) -> list[Checkpoint]:
    """Arrange runs of one series."""
    return arrange(name_all([(HOST, "m", frequency)]), runs_of(rows), start=start, stop=stop)


def only(checkpoint: Checkpoint) -> Entry:
    return checkpoint.host.entries["m"]


def spell(names: Names, runs: Runs) -> list[tuple[object, int, int, list[float | None]]]:
    ends = np.cumsum(runs.counts)
    series = series_of(names)
    return [
        (series[number], start, first, numbers(runs.values[end - count : end]))
        for number, start, first, count, end in zip(
            runs.numbers.tolist(),
            runs.starts.tolist(),
            runs.firsts.tolist(),
            runs.counts.tolist(),
            ends,
            strict=True,
        )
    ]


def numbers(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


# --- a tree to columns


@pytest.mark.parametrize(
    ("frequency", "first", "begin"), [(60, 1000, 970), (15, 1000, 993), (10, 100, 95), (1, 1000, 1000)]
)
def test_a_chunk_begins_half_a_frequency_before_its_first_value(
    frequency: int, first: int, begin: int
) -> None:
    """The time of a value is the middle of its slot, so the grid is that of memory."""
    names, runs = flatten(
        Checkpoint(0, 0, Level({"m": entry(frequency, first, [1, 2])})), cluster="c", host="h"
    )
    assert [((HOST, "m", frequency), begin, 0, [1.0, 2.0])] == spell(names, runs)


def test_a_file_as_columns() -> None:
    """Places are named from the cluster on, and each entry is a series."""
    names, runs = flatten(EXAMPLE, cluster="c", host="h")
    expected = [
        ((HOST, "m", 60), 970, 0, [0.25, 1.25, 2.25]),
        (((*HOST, "socket0"), "n", 60), 1030, 0, [7.0]),
    ]
    assert expected == spell(names, runs)
    assert names.parents.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1024, 1300])
def test_long_entries_are_cut_into_chunks(count: int) -> None:
    """Chunks of 512 slots lie one behind the other on one grid; nothing is made of no values."""
    values = np.arange(count, dtype=np.float32)
    names, runs = flatten(Checkpoint(0, 0, Level({"m": Entry(60, 1000, values)})), cluster="c", host="h")
    assert [970 + 512 * 60 * k for k in range(-(-count // 512))] == runs.starts.tolist()
    assert [min(512, count - first) for first in range(0, count, 512)] == runs.counts.tolist()
    assert values.tolist() == runs.values.tolist()
    assert series_of(names) == [(HOST, "m", 60)]


def test_one_metric_with_two_frequencies() -> None:
    """Where levels differ in the frequency of a metric, these are two metrics."""
    host = Level({"m": entry(60, 0, [1])}, {"s": Level({"m": entry(30, 0, [2])})})
    names, _ = flatten(Checkpoint(0, 0, host), cluster="c", host="h")
    assert [(HOST, "m", 60), ((*HOST, "s"), "m", 30)] == series_of(names)


# --- columns to trees


@pytest.mark.parametrize(("first", "start"), [(0, 1000), (1, 1060), (511, 31660)])
def test_the_start_is_the_time_of_the_first_value(first: int, start: int) -> None:
    """Not the begin of the period, as with the reference: times do not move when a file is loaded."""
    (found,) = arranged([(0, 970, first, [1, 2])], start=990, stop=1111)
    assert (start, [1.0, 2.0]) == (only(found).start, only(found).values.tolist())
    assert (found.start, only(found).frequency) == (990, 60)
    _, runs = flatten(found, cluster="c", host="h")
    assert [970 + first * 60] == runs.starts.tolist()


def test_a_whole_host() -> None:
    """Each series has its entry at its level; names are sorted and levels without values left out."""
    series = [((*HOST, "s1", "m0"), "b", 60), (HOST, "b", 60), ((*HOST, "s0"), "a", 15), (HOST, "a", 60)]
    rows = [(3, 970, 0, [1]), (0, 970, 0, [2]), (1, 970, 0, [3]), (2, 993, 0, [4])]
    (found,) = arrange(name_all([*series, ((*HOST, "s2"), "a", 60)]), runs_of(rows), start=1, stop=2000)
    below = Level({}, {"m0": Level({"b": entry(60, 1000, [2])})})
    host = Level(
        {"a": entry(60, 1000, [1]), "b": entry(60, 1000, [3])},
        {"s0": Level({"a": entry(15, 1000, [4])}), "s1": below},
    )
    assert comparable(Checkpoint(1, 2000, host)) == comparable(found)
    assert (list(found.host.entries), list(found.host.children)) == (["a", "b"], ["s0", "s1"])


def test_the_next_chunk_goes_onto_the_oldest_grid() -> None:
    """A value of another grid goes where a read that continues on the first one finds it."""
    full = list(range(512))
    (found,) = arranged([(0, 60000, 0, full), (0, 90727, 0, [-2])])
    assert (60030, [*full, -2]) == (only(found).start, only(found).values.tolist())
    (found,) = arranged([(0, 90727 + 120, 0, [-2]), (0, 60000, 0, full)])
    assert [*map(float, full), None, None, -2] == numbers(only(found).values)


def test_what_would_merge_goes_into_a_further_file() -> None:
    """A chunk that begins half a slot before the end of the one before has no room behind it."""
    first, second = arranged([(0, 970, 0, [1] * 512), (0, 31660, 0, [2, 3])], start=5, stop=32000)
    assert (first.start, len(only(first).values)) == (5, 512)
    assert (second.start, only(second).start, only(second).values.tolist()) == (31660, 31690, [2, 3])
    assert (first.stop, second.stop) == (32000, 32000)


@pytest.mark.parametrize(
    ("gap", "lengths"), [(0, [2]), (1, [3]), (512, [514]), (513, [1, 1]), (10**12, [1, 1])]
)
def test_gaps(gap: int, lengths: list[int]) -> None:
    """A gap of up to a chunk is filled up; a longer one costs no memory but a further file."""
    found = arranged([(0, 970, 0, [1]), (0, 970 + 60 * (gap + 1), 0, [2])])
    assert lengths == [len(only(file).values) for file in found]
    assert sum(np.isfinite(only(file).values).sum() for file in found) == 2


def test_further_files_have_numbers_of_their_own() -> None:
    """Numbers increase even if the chunks of further files begin before the period."""
    found = arranged([(0, 100_000 * k, 0, [k]) for k in range(4)], start=150_000)
    assert [file.start for file in found] == [150_000, 150_001, 200_000, 300_000]
    assert [only(file).start for file in found] == [30, 100_030, 200_030, 300_030]


def test_some_series_need_a_further_file() -> None:
    """They share it, and the others stay where they are."""
    rows = [(0, 970, 0, [1]), (0, 970_000, 0, [2]), (1, 970, 0, [3]), (2, 970, 0, [4]), (2, 980_000, 0, [5])]
    names = name_all([(HOST, metric, 60) for metric in "abc"])
    first, second = arrange(names, runs_of(rows), start=1, stop=2)
    assert (list(first.host.entries), list(second.host.entries)) == (["a", "b", "c"], ["a", "c"])
    assert (second.start, second.host.entries["c"].start) == (970_000, 980_030)


def test_runs_of_one_grid_may_overlap() -> None:
    """The later run counts, but a missing value replaces nothing."""
    (found,) = arranged([(0, 970, 1, [1, 2, math.nan]), (0, 970, 0, [7, math.nan, 9, math.nan])])
    assert (only(found).start, numbers(only(found).values)) == (1000, [7.0, 1.0, 9.0, None])


def test_a_metric_that_changed_its_frequency() -> None:
    """Values at two distances are in two files."""
    rows = [(0, 970, 0, [1]), (1, 1030, 0, [2])]
    first, second = arrange(name_all([(HOST, "m", 60), (HOST, "m", 30)]), runs_of(rows), start=1, stop=2)
    assert (only(first).frequency, only(second).frequency) == (60, 30)


def test_the_period_does_not_end_before_its_values() -> None:
    """Values a little in the future are within it, so that no file is removed too early."""
    (found,) = arranged([(0, 970, 0, [1, 2])], start=900, stop=1000)
    assert found.stop == 1061
    (found,) = arranged([(0, 970, 0, [1, 2])], start=2000, stop=1500)
    assert found.stop == 2000, "a clock that was set back"


def test_no_runs() -> None:
    """Without runs there is one file without values."""
    assert [Checkpoint(5, 9, Level())] == arranged([], start=5, stop=9)


@pytest.mark.parametrize("paths", [[HOST, ("c", "i")], [HOST, ("c",)], [("c",)]])
def test_what_is_not_of_one_host(paths: list[tuple[str, ...]]) -> None:
    """Two hosts, or series above them, are a mistake of ours."""
    with pytest.raises(AssertionError):
        arrange(name_all([(path, "m", 60) for path in paths]), runs_of([]), start=1, stop=2)


@st.composite
def chunk_lists(draw: st.DrawFn) -> tuple[int, list[tuple[int, list[float]]]]:
    """Return a frequency, and begin and values of chunks as memory makes them, one behind the other."""
    f = draw(st.integers(1, 70))
    begin, chunks = draw(st.integers(0, 5000)), []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 6) | st.sampled_from([511, 512]))
        holes = draw(st.sets(st.integers(0, size - 1), max_size=3))
        chunks.append(
            (begin, [math.nan if k in holes else float(len(chunks) * 1000 + k) for k in range(size)])
        )
        # a chunk opens with a time that is behind the last of 512 slots
        begin += 512 * f - f // 2 + draw(st.integers(0, 3 * f) | st.integers(0, 2000 * f))
    return f, chunks


@given(chunk_lists(), st.integers(1, 10**6), st.randoms(use_true_random=False))
def test_nothing_is_left_out(
    made: tuple[int, list[tuple[int, list[float]]]], start: int, random: object
) -> None:
    """Every value is in one file, in its order and less than a frequency from its time."""
    f, chunks = made
    rows = [(0, begin, 0, values) for begin, values in chunks]
    random.shuffle(rows)
    files = arranged(rows, frequency=f, start=start)
    expected = [
        (begin + f // 2 + k * f, v) for begin, values in chunks for k, v in enumerate(values) if v == v
    ]
    found = [
        (e.start + k * f, v) for e in map(only, files) for k, v in enumerate(e.values.tolist()) if v == v
    ]
    assert [value for _, value in expected] == [value for _, value in found]
    assert all(abs(a - b) < f for (a, _), (b, _) in zip(expected, found, strict=True))
    assert all(a.start < b.start and only(a).start <= only(b).start for a, b in itertools.pairwise(files))
    assert sum(len(only(file).values) for file in files) <= sum(len(values) + 512 for _, values in chunks)
    assert all(file.stop > only(file).stop - f for file in files)


@given(chunk_lists())
def test_chunks_come_back_where_they_were(made: tuple[int, list[tuple[int, list[float]]]]) -> None:
    """A chunk that is written alone is read with its grid and its values."""
    f, chunks = made
    for begin, values in chunks:
        (file,) = arranged([(0, begin, 0, values)], frequency=f)
        names, runs = flatten(file, cluster="c", host="h")
        assert [((HOST, "m", f), begin, 0, numbers(values))] == spell(names, runs)


# --- late values


def host(*entries: Entry) -> Level:
    return Level(dict(zip("mno", entries, strict=False)))


def revised(newer: Entry, *older: Entry) -> list[tuple[int, list[float | None]] | None]:
    """Return beginning and values of each entry after late values were moved; the newest one last."""
    files = [Checkpoint(k, k + 1, host(old)) for k, old in enumerate(older)]
    found = revise(files, Checkpoint(len(files), len(files) + 1, host(newer)))
    assert [file.start for file in found] == list(range(len(files) + 1))
    parts = [file.host.entries.get("m") for file in found]
    return [None if part is None else (part.start, numbers(part.values)) for part in parts]


@pytest.mark.parametrize("new", [host(entry(60, 1120, [3])), Level({"x": entry(60, 5, [3])}), Level()])
def test_nothing_is_late(new: Level) -> None:
    """All files stay what they are if the newer one goes on behind the older ones, or on other series."""
    files = [Checkpoint(1, 10, host(entry(60, 1000, [1]))), Checkpoint(10, 20, host(entry(60, 1060, [2])))]
    found = revise(files, newer := Checkpoint(20, 30, new))
    assert [id(file) for file in found] == [id(file) for file in (*files, newer)]


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        # within, and behind: what comes behind the older entry stays; a missing value replaces nothing
        (
            [(1000, [1, None, 3])],
            (1060, [20, None, 40, 50]),
            [(1000, [1, 20, 3]), (1180, [40, 50])],
        ),
        # before: the entry begins earlier then, and the newer file has nothing left
        ([(1000, [1, 2])], (820, [5, 6]), [(820, [5, 6, None, 1, 2]), None]),
        # between two entries: into the first one, so that the second one stays behind it
        ([(1000, [1]), (1240, [2])], (1120, [5]), [(1000, [1, None, 5]), (1240, [2]), None]),
        # over two entries and behind them
        (
            [(1000, [1]), (1120, [2])],
            (1000, [5, 6, 7, 8]),
            [(1000, [5, 6]), (1120, [7]), (1180, [8])],
        ),
        # on another grid: each value goes into the slot that it lies in
        ([(1000, [1, 2, 3])], (1050, [5, 6, 7]), [(1000, [1, 5, 6]), (1170, [7])]),
    ],
)  # fmt: skip
def test_late_values_move_into_the_files_that_cover_them(older, newer, expected) -> None:
    """A value that lies before the end of what is on disk goes into the entry it lies in or behind."""
    made = [
        entry(60, start, [math.nan if value is None else value for value in values])
        for start, values in (newer, *older)
    ]
    assert revised(*made) == expected


def test_late_values_of_components() -> None:
    """Each level has its own entries, and files without late values stay what they are."""
    older = [Checkpoint(0, 1, Level()), Checkpoint(1, 10, Level({}, {"s": host(entry(60, 1000, [1]))}))]
    newer = Checkpoint(10, 20, Level({"m": entry(60, 500, [2])}, {"s": host(entry(60, 1000, [3, 4]))}))
    untouched, first, second = revise(older, newer)
    assert untouched is older[0]
    assert comparable(first) == comparable(Checkpoint(1, 1001, Level({}, {"s": host(entry(60, 1000, [3]))})))
    level = Level({"m": entry(60, 500, [2])}, {"s": host(entry(60, 1060, [4]))})
    assert comparable(second) == comparable(Checkpoint(10, 1061, level))


@pytest.mark.parametrize("newer", [entry(30, 1000, [3]), entry(60, 1000 - 60 * 515, [3, 4])])
def test_what_cannot_be_moved(newer: Entry) -> None:
    """Another frequency, and what lies more than a chunk before, stays in the newer file."""
    expected = [(1000, [1, 2]), (newer.start, newer.values.tolist())]
    assert revised(newer, entry(60, 1000, [1, 2])) == expected


class Memory:
    """One series as memory keeps it, and the files that its checkpoints leave."""

    def __init__(self, frequency: int) -> None:
        self.f = frequency
        self.chunks: list[tuple[int, dict[int, float]]] = []
        self.dirty: dict[int, int] = {}
        self.files: dict[int, Checkpoint] = {}

    def write(self, time: int, value: float) -> None:
        """Store a value, late ones in older chunks."""
        f = self.f
        chunk = max((k for k, (begin, _) in enumerate(self.chunks) if begin <= time), default=-1)
        slot = (time - self.chunks[chunk][0]) // f if chunk >= 0 else 512
        if slot >= 512 and chunk == len(self.chunks) - 1:
            self.chunks.append((time - f // 2, {}))
            chunk, slot = chunk + 1, 0
        if slot < 512:
            self.chunks[chunk][1][slot] = value
            self.dirty[chunk] = min(self.dirty.get(chunk, 512), slot)

    def checkpoint(self, start: int, stop: int) -> None:
        """Write what is dirty, as well as the files that late values belong into."""
        rows = []
        for chunk, first in sorted(self.dirty.items()):
            begin, slots = self.chunks[chunk]
            rows.append((0, begin, first, [slots.get(k, math.nan) for k in range(first, max(slots) + 1)]))
        self.dirty.clear()
        files = [CheckpointFile(Path(f"{number}.bin"), number) for number in sorted(self.files)]
        for new in arranged(rows, frequency=self.f, start=next_number(self.files, start), stop=stop):
            chosen = [file.number for file in plan_revise(files, new)]
            *older, rest = revise([self.files[number] for number in chosen], new)
            self.files |= zip(chosen, older, strict=True)
            if rest.host.entries:
                self.files[rest.start] = rest

    def in_memory(self) -> dict[int, float]:
        f = self.f
        return {begin + f // 2 + k * f: v for begin, slots in self.chunks for k, v in slots.items()}


@given(
    st.integers(1, 70),
    st.lists(
        st.tuples(st.integers(1, 30) | st.integers(1, 2000), st.lists(st.integers(-600, 30), max_size=20)),
        max_size=8,
    ),
)
def test_checkpoints_of_late_and_early_values(f: int, steps: list[tuple[int, list[int]]]) -> None:
    """After every checkpoint the files hold what is in memory, and the reference would load them."""
    memory, now, value = Memory(f), 10_000 * f, 0
    for pause, slots in steps:
        before, now = now, now + pause * f
        for slot in slots:
            value += 1
            memory.write(now + slot * f, value)
        memory.checkpoint(before, now)
        found: dict[int, float] = {}
        entries = [only(memory.files[number]) for number in sorted(memory.files)]
        for e in entries:
            found |= {e.start + k * f: v for k, v in enumerate(e.values.tolist()) if v == v}
        assert memory.in_memory() == found
        assert all(a.stop <= b.start for a, b in itertools.pairwise(entries))
