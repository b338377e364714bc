"""What comes back from checkpoints, onto anything, and what a copy holds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from memory_oracle import Oracle, OracleSeries
from memory_saving import EXAMPLES, NOW, ROOM, decode, expected_contents, load, times, values
from memory_tools import (
    FOREVER,
    NAN,
    SUM,
    Point,
    check_accounts,
    chunks,
    contents,
    enlist,
    make_store,
    plain,
    steps,
    write,
)

from ccstore.memory.saving import copies_of_unsaved, count_unsaved, restore, samples_of, take_back
from ccstore.model import Metric, Outcome, Runs


@st.composite
def runs_of_slots(draw: st.DrawFn, frequency: int) -> tuple[int, int, list[float]]:
    """Return (S, first, values) of a run whose chunk begins on one of two grids, near others."""
    start = NOW - frequency // 2 + draw(st.sampled_from([0, 0, frequency // 3, -1]))
    start += frequency * draw(st.sampled_from([0, 0, -512, 512, -40, 40, -5, 1]) | st.integers(-600, 600))
    first = draw(st.sampled_from([0, 0, 31, 32, 511]) | st.integers(0, 511))
    count = draw(st.sampled_from([1, 3, 33, 512]) | st.integers(1, 512))
    held = draw(st.lists(values, min_size=1, max_size=5))
    gap = draw(st.sampled_from([0, 0, 40, 100]))
    pattern = held + [NAN] * gap
    return start, first, [pattern[k % len(pattern)] for k in range(min(count, 512 - first))]


def runs_from(parts: list[tuple[int, int, list[float]]]) -> Runs:
    """Return runs of one series."""
    return Runs(
        np.zeros(len(parts), np.int32),
        np.array([start for start, _, _ in parts], np.int64),
        np.array([first for _, first, _ in parts], np.int32),
        np.array([len(held) for _, _, held in parts], np.int32),
        np.array([value for _, _, held in parts for value in held], np.float32),
    )


@EXAMPLES
@given(st.data(), st.sampled_from([60, 7, 1]), st.sampled_from([0, ROOM]))
def test_restoring_any_runs_onto_anything_does_what_the_oracle_does(
    data: st.DataObject, frequency: int, max_bytes: int
) -> None:
    """Other samples may be there before and come in between, and memory may end in the middle."""
    store = make_store(Metric("m", frequency, SUM), max_bytes=max_bytes)
    oracle = Oracle(list(store.metrics), len(store.columns.rows))
    series = enlist(store, ("c", "h"))
    one = oracle.series.setdefault((("c", "h"), 0), OracleSeries(frequency))
    for _ in range(data.draw(st.integers(1, 4))):
        points: list[Point] = data.draw(st.lists(st.tuples(times(frequency), values), max_size=5))
        got = write(store, ("c", "h"), points)
        assert got == [oracle.write(("c", "h"), 0, time, value, latest=FOREVER) for time, value in points]
        if data.draw(st.booleans()):
            assert len(one.copy_unsaved()) == sum(
                len(copied.runs.counts) for copied in copies_of_unsaved(store, [store.index.root])
            )
        parts = data.draw(st.lists(runs_of_slots(frequency), max_size=4))
        placed = restore(store, np.full(len(parts), series, np.int32), runs_from(parts))
        for part, there in zip(parts, placed.tolist(), strict=True):
            assert there == one.restore(*part, rows=oracle.max_rows - oracle.rows())
        assert expected_contents(one) == contents(store, series)
        check_accounts(store, restored=True)
        if parts and placed[-1]:
            start, first, held = parts[-1]
            (slots,) = [slots for begin, _, slots in contents(store, series) if begin == start]
            assert plain(np.float32(held)) == slots[first : first + len(held)]


def test_a_run_that_nobody_can_place_is_passed_over() -> None:
    """A series that is not there, slots that no chunk has; what follows finds its values all the same."""
    store = make_store()
    series = enlist(store, ("c", "h"))
    parts = [(NOW, 0, [1.0, 2.0]), (NOW, -1, [3.0]), (NOW, 510, [4.0] * 3), (NOW, 0, [5.0])]
    ids = np.array([-1, series, series, series], np.int32)
    assert restore(store, ids, runs_from(parts)).tolist() == [False, False, False, True]
    assert contents(store, series) == [(NOW, 1, (5.0,))]


def test_what_lies_in_front_of_other_samples_is_not_lost() -> None:
    """A chunk that was freed comes back and lies in the way of one that began before it."""
    store = make_store()
    series = enlist(store, ("c", "h"))
    runs = runs_from([(NOW, 0, [1.0, 2.0]), (NOW - 120, 0, [6.0, 7.0, 8.0, 9.0])])
    assert restore(store, np.full(2, series, np.int32), runs).tolist() == [True, False]
    rest = runs_from([(NOW - 120, 0, [6.0, 7.0, 8.0, 9.0])])
    f = np.array([60], np.int64)
    points = samples_of(rest, f, f)
    got = write(store, ("c", "h"), list(zip(points.times.tolist(), points.values.tolist(), strict=True)))
    assert set(got) == {Outcome.OVERWRITTEN}
    assert contents(store, series) == [(NOW - 120, 0, (6.0, 7.0)), (NOW, 0, (8.0, 9.0))]


def test_a_chunk_that_began_after_another_was_freed_keeps_its_grid() -> None:
    """Both come back, although the second lies in what would be the span of the first."""
    store, again = make_store(), make_store()
    copies = []
    for start in (NOW, NOW + 100 * 60 + 17):
        write(store, ("c", "h"), steps(start, [1.0, 2.0, 3.0]))
        copies += copies_of_unsaved(store, [store.index.root])
        assert chunks(store, ("c", "h")) == [(start - 30, 3)]
        assert store.free(store.index.root, FOREVER, saved_only=True) == 1
    for copied in copies:
        load(again, copied)
    assert chunks(again, ("c", "h")) == [(NOW - 30, 3), (NOW + 100 * 60 - 13, 3)]


def test_a_late_sample_makes_unsaved_from_its_slot_on() -> None:
    """Also one that replaces a value by none; the copy restores that it is none."""
    store, again = make_store(), make_store()
    write(store, ("c", "h"), steps(NOW, [1.0] * 40))
    copies = list(copies_of_unsaved(store, [store.index.root]))
    assert count_unsaved(store, store.index.root) == (0, 0)
    write(store, ("c", "h"), [(NOW + 35 * 60, 2.0), (NOW + 38 * 60, 3.0), (NOW + 33 * 60, NAN)])
    assert count_unsaved(store, store.index.root) == (1, 7)
    copies += copies_of_unsaved(store, [store.index.root])
    for copied in copies:
        load(again, copied)
    assert contents(again, 0) == contents(store, 0)
    assert contents(again, 0)[0][2][32:] == (1.0, None, 1.0, 2.0, 1.0, 1.0, 3.0, 1.0)


def test_taking_back_what_was_freed_since() -> None:
    """The record of its chunk belongs to another one then, of which more is unsaved, and never less."""
    store = make_store()
    write(store, ("c", "h1"), steps(NOW, [1.0] * 9))
    (first,) = copies_of_unsaved(store, [store.index.root])
    write(store, ("c", "h1"), [(NOW + 5 * 60, 2.0)])
    (second,) = copies_of_unsaved(store, [store.index.root])
    store.free(store.index.root, FOREVER)
    take_back(store, first.marks)
    check_accounts(store)
    write(store, ("c", "h2"), steps(NOW, [1.0] * 7))
    assert [copied.runs.counts.tolist() for copied in copies_of_unsaved(store, [store.index.root])] == [[7]]
    take_back(store, second.marks)
    assert count_unsaved(store, store.index.root) == (1, 2)
    check_accounts(store)


def test_copies_come_in_pieces_between_which_hosts_may_vanish() -> None:
    """A piece has whole hosts, about as many as take a millisecond."""
    store = make_store(max_bytes=1 << 22)
    for k in range(200):
        write(store, ("c", f"h{k:03}"), [(NOW, 1.0), (NOW + 511 * 60, 2.0)])
    hosts = [place for _, _, place in store.index.hosts()]
    pieces = copies_of_unsaved(store, hosts)
    one = next(pieces)
    assert len(one.runs.counts) == 128
    store.free(hosts[150], FOREVER)
    store.prune(store.index.root, store.dormant())
    (other,) = pieces
    assert len(other.runs.counts) == 71
    assert set(decode(one)) | set(decode(other)) == {(("c", f"h{k:03}"), 0) for k in range(200) if k != 150}


# --- values of runs as samples


@EXAMPLES
@given(
    st.lists(st.tuples(st.integers(0, 5), runs_of_slots(60)), max_size=4),
    st.lists(st.sampled_from([1, 2, 7, 20, 60, 90]), min_size=6, max_size=6),
    st.lists(st.sampled_from([1, 2, 7, 20, 60, 90]), min_size=6, max_size=6),
)
def test_runs_as_samples(
    parts: list[tuple[int, tuple[int, int, list[float]]]], before: list[int], now: list[int]
) -> None:
    """Each value at the middle of each step that it had; a naive loop says the same."""
    expected = []
    for number, (start, first, held) in parts:
        was, is_now = before[number], now[number]
        for slot, value in enumerate(held, first):
            if value == value:
                for k in range(max(1, was // is_now)):
                    time = start + was * slot + is_now * k + min(was, is_now) // 2
                    expected.append((number, time, float(np.float32(value))))
    runs = runs_from([part for _, part in parts])
    numbers = np.array([number for number, _ in parts], np.int32)
    runs = Runs(numbers, runs.starts, runs.firsts, runs.counts, runs.values)
    got = samples_of(runs, np.array(before, np.int64)[numbers], np.array(now, np.int64)[numbers])
    columns = (got.numbers, got.times, got.values)
    assert expected == list(zip(*(column.tolist() for column in columns), strict=True))
    assert [column.dtype for column in columns] == [np.int32, np.int64, np.float32]


def test_runs_as_samples_come_onto_the_grid_they_had() -> None:
    """At the same frequency, in an empty store, where the chunk begins with its slot 0."""
    store, again = make_store(), make_store()
    write(store, ("c", "h"), steps(NOW, [1.0, NAN, 3.0, 4.0]))
    (copied,) = copies_of_unsaved(store, [store.index.root])
    f = np.array([60], np.int64)
    points = samples_of(copied.runs, f, f)
    write(again, ("c", "h"), list(zip(points.times.tolist(), points.values.tolist(), strict=True)))
    assert contents(again, 0) == [(NOW - 30, 0, (1.0, None, 3.0, 4.0))]
