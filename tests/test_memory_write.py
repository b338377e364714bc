"""Where points go: slots, chunks, late and future points, and memory that is full."""

import numpy as np
import pytest
from attrs import evolve
from memory_tools import (
    FOREVER,
    NAN,
    SUM,
    Point,
    batch_of,
    check_accounts,
    chunks,
    enlist,
    make_store,
    plain,
    read,
    steps,
    write,
)

from ccstore.memory.layout import CHUNK, PLACE, ROW_SLOTS, SERIES, TABLE_ROWS
from ccstore.memory.store import ChunkInfo
from ccstore.model import Metric, Outcome

HOST = ("c", "h")
STORED, OVERWRITTEN, LATE = Outcome.STORED, Outcome.OVERWRITTEN, Outcome.LATE
FULL_CHUNK = steps(60030, range(512))


@pytest.mark.parametrize(
    ("frequency", "first", "start", "nominal"),
    [(60, 1000, 970, 1000), (15, 1000, 993, 1000), (10, 100, 95, 100), (1, 1000, 1000, 1000)],
)
def test_a_chunk_is_anchored_at_its_first_point(frequency: int, first: int, start: int, nominal: int) -> None:
    """The first point lies in the middle of slot 0, and its time is that of the first value."""
    store = make_store(Metric("m", frequency))
    write(store, HOST, [(first, 7)])
    assert [(start, 1)] == chunks(store, HOST)
    got = read(store, HOST, 0, first + frequency)
    assert got.values == (7.0,)
    assert nominal == got.start


@pytest.mark.parametrize(
    ("frequency", "points", "start", "slots"),
    [
        (60, [(1000, 1)], 970, [1]),
        (60, [(1000, 1), (1029, 2)], 970, [2]),
        (60, [(1000, 1), (1029, 2), (1030, 3), (1210, 4)], 970, [2, 3, None, None, 4]),
        (60, [*steps(1000, [1, 2, 3, 4, 5]), (970, 9)], 970, [9, 2, 3, 4, 5]),
        (10, [(100, 1), (130, 4)], 95, [1, None, None, 4]),
        (60, [(1000, 1), (1000, NAN)], 970, [None]),
    ],
)
def test_points_find_their_slots(
    frequency: int, points: list[Point], start: int, slots: list[float | None]
) -> None:
    """The later point of two in one slot stays, also if it is NaN; slots that were left out are NaN."""
    store = make_store(Metric("m", frequency))
    write(store, HOST, points)
    assert [(start, len(slots))] == chunks(store, HOST)
    assert tuple(slots) == read(store, HOST, 0, FOREVER).values


def test_a_point_before_the_first_slot_is_late() -> None:
    """It is refused, and nothing changes."""
    store = make_store()
    write(store, HOST, steps(1000, [1, 2, 3, 4, 5]))
    assert write(store, HOST, [(969, 9)]) == [LATE]
    assert read(store, HOST, 0, FOREVER).values == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_each_point_of_a_batch_has_its_outcome() -> None:
    """A slot that held a value makes OVERWRITTEN; one that held NaN, or nothing, STORED."""
    store = make_store()
    points = [(1000, 1), (1000, 2), (1060, NAN), (1060, 3), (1060, NAN), (1060, 4), (900, 5)]
    expected = [STORED, OVERWRITTEN, STORED, STORED, OVERWRITTEN, STORED, LATE]
    assert expected == write(store, HOST, points)


def test_a_row_without_series_keeps_its_outcome() -> None:
    """Series -1 means that the line was decided elsewhere, and rows behind the count do not exist."""
    store = make_store()
    series = enlist(store, HOST)
    batch = batch_of([-1, series, series], [(1000, 1), (1000, 2), (1060, 3)])
    batch.outcomes[0] = Outcome.BAD_LINE
    store.append(evolve(batch, count=2), latest=FOREVER)
    assert batch.outcomes.tolist() == [Outcome.BAD_LINE, STORED, 255]
    assert read(store, HOST, 0, FOREVER).values == (2.0,)


def test_values_are_kept_as_float32() -> None:
    """What is read is the float64 of the float32 of what was written."""
    store = make_store()
    write(store, HOST, steps(1000, [0.1, 1 / 3, -0.0, 3e38]))
    expected = [float(np.float32(value)) for value in (0.1, 1 / 3, -0.0, 3e38)]
    got = read(store, HOST, 0, FOREVER).values
    assert plain(expected) == got
    assert str(got[2]) == "-0.0"


# --- the chunk boundary


def test_the_513th_slot_opens_a_chunk_with_a_new_grid() -> None:
    """The grid moves to the point that opens the chunk."""
    store = make_store()
    write(store, HOST, FULL_CHUNK)
    assert chunks(store, HOST) == [(60000, 512)]
    write(store, HOST, [(90757, -2)])
    assert chunks(store, HOST) == [(60000, 512), (90727, 1)]


@pytest.mark.parametrize(
    ("time", "outcome", "expected"),
    [
        (90690, OVERWRITTEN, {511: 9}),
        (90719, OVERWRITTEN, {511: 9}),
        (90720, LATE, {}),
        (90726, LATE, {}),
        (90727, OVERWRITTEN, {512: 9}),
        (60000, OVERWRITTEN, {0: 9}),
        (59999, LATE, {}),
    ],
)
def test_late_points_find_the_older_chunk(time: int, outcome: Outcome, expected: dict[int, float]) -> None:
    """A point before the newest chunk lies in the older one that has a slot for it (D-12)."""
    store = make_store()
    write(store, HOST, [*FULL_CHUNK, (90757, -2)])
    values = [*map(float, range(512)), -2.0]
    for slot, value in expected.items():
        values[slot] = value
    assert [outcome] == write(store, HOST, [(time, 9)])
    old, new = read(store, HOST, 0, 90720), read(store, HOST, 90757, FOREVER)
    assert tuple(values) == old.values + new.values


def test_a_late_point_extends_a_chunk_that_is_not_full() -> None:
    """Slots up to it become NaN, and those behind the chunk's capacity are still refused."""
    store = make_store()
    write(store, HOST, [(1000, 1), (1060, 2), (601000, 3)])
    assert write(store, HOST, [(1240, 5), (970 + 512 * 60, 6)]) == [STORED, LATE]
    assert chunks(store, HOST) == [(970, 5), (600970, 1)]
    assert read(store, HOST, 0, 1300).values == (1.0, 2.0, None, None, 5.0)
    assert write(store, HOST, [(969 + 512 * 60, 7)]) == [STORED]
    assert chunks(store, HOST) == [(970, 512), (600970, 1)]


def test_where_chunks_overlap_the_newer_one_takes_the_point() -> None:
    """A chunk opened by a point right behind the last slot begins half a slot inside it."""
    store = make_store()
    write(store, HOST, [(60030, 1), (90720, 2)])
    assert chunks(store, HOST) == [(60000, 1), (90690, 1)]
    assert write(store, HOST, [(90689, 3), (90690, 4)]) == [STORED, OVERWRITTEN]
    assert chunks(store, HOST) == [(60000, 512), (90690, 1)]


def test_a_jump_of_512_slots_opens_a_chunk_at_once() -> None:
    """The gap takes no memory, however wide it is."""
    store = make_store()
    before = store.statistics().bytes_used
    write(store, HOST, [(1000, 1), (2**40, 2)])
    assert chunks(store, HOST) == [(970, 1), (2**40 - 30, 1)]
    assert store.statistics().bytes_used - before < 1000


def test_negative_times_are_times() -> None:
    """Before 1970 the rules are the same."""
    store = make_store()
    write(store, HOST, steps(-1000, [1, 2, 3]))
    assert chunks(store, HOST) == [(-1030, 3)]
    assert read(store, HOST, -2000, 0).values == (1.0, 2.0, 3.0)


# --- future points


@pytest.mark.parametrize(
    ("time", "outcome"), [(1420, STORED), (1421, Outcome.FUTURE), (2**40, Outcome.FUTURE)]
)
def test_points_of_the_far_future_are_refused(time: int, outcome: Outcome) -> None:
    """Two frequencies beyond the bound are accepted, no more, and nothing is left behind (D-11)."""
    store = make_store()
    assert [outcome] == write(store, HOST, [(time, 1)], latest=1300)
    assert write(store, HOST, [(1000, 1)] if outcome is not STORED else [(1480, 1)], latest=1400) == [STORED]


# --- memory


def test_rows_are_taken_for_blocks_that_were_written_to() -> None:
    """A chunk is 512 slots of which a gap costs nothing (D-133)."""
    store = make_store()
    row, table = ROW_SLOTS * 4, TABLE_ROWS * 4
    base = PLACE.itemsize  # the root
    assert store.statistics().bytes_used == base
    write(store, HOST, steps(1000, range(32)))
    one = base + 2 * PLACE.itemsize + SERIES.itemsize + CHUNK.itemsize + row
    assert one == store.statistics().bytes_used
    write(store, HOST, [(1000 + 511 * 60, 1)])
    assert one + table + row == store.statistics().bytes_used
    write(store, HOST, [(1000 + 300 * 60, 2)])
    assert one + table + 2 * row == store.statistics().bytes_used
    got = read(store, HOST, 0, FOREVER)
    assert [*map(float, range(32)), *[None] * 268, 2.0, *[None] * 210, 1.0] == list(got.values)
    assert [ChunkInfo(970, 512, 970 + 512 * 60)] == store.chunks(int(store.select(HOST, 0)[0]))
    check_accounts(store)


def test_a_full_memory_refuses_what_needs_a_row() -> None:
    """The outcome is LIMIT, nothing is half done, and slots of rows that are there are still written."""
    store = make_store(max_bytes=0)
    rows = store.statistics().bytes_reserved // (ROW_SLOTS * 4)
    assert {STORED} == set(write(store, HOST, steps(1000, range(ROW_SLOTS * rows))[::ROW_SLOTS][:rows]))
    before = store.statistics(), store.index.epoch
    late = 1000 + 60 * ROW_SLOTS * rows
    for path in (HOST, ("c", "g")):
        enlist(store, path)
    enlisted = store.statistics()
    assert write(store, HOST, [(late, 1)]) == [Outcome.LIMIT], "a chunk"
    assert write(store, ("c", "g"), [(1000, 1)]) == [Outcome.LIMIT], "the first chunk"
    assert write(store, HOST, [(1000, 5), (1060, 6)]) == [OVERWRITTEN, STORED]
    assert enlisted == store.statistics()
    assert before[1] == store.index.epoch
    assert store.hosts("c") == ["h"]
    check_accounts(store)
    store.free(store.index.root, FOREVER)
    assert write(store, ("c", "g"), [(1000, 1)]) == [STORED]
    check_accounts(store)


def test_a_full_memory_refuses_a_block_of_a_chunk() -> None:
    """The chunk keeps its length, and the slot can be written when there is memory again."""
    store = make_store(max_bytes=0)
    rows = store.statistics().bytes_reserved // (ROW_SLOTS * 4)
    for k in range(rows):
        write(store, ("c", f"h{k}"), [(1000, k)])
    assert write(store, ("c", "h0"), [(1000 + 60 * 40, 1)]) == [Outcome.LIMIT]
    assert chunks(store, ("c", "h0")) == [(970, 1)]
    store.free(store.locate(("c", "h1")), FOREVER)
    assert write(store, ("c", "h0"), [(1000 + 60 * 40, 1)]) == [STORED]
    assert chunks(store, ("c", "h0")) == [(970, 41)]
    check_accounts(store)


def test_there_are_no_more_series_than_allowed() -> None:
    """Beyond the limit, or the allowance, an id is -1; known series are still found."""
    store = make_store(Metric("m", 60, SUM), Metric("n", 60), max_series=3)
    places = np.array([store.locate(HOST), store.locate(HOST), store.locate(("c", "g"))], np.int32)
    metrics = np.array([0, 1, 0], np.int32)
    ids, made = store.enlist(places, metrics, allowance=1)
    assert (ids.tolist(), made) == ([0, -1, -1], 1)
    ids, made = store.enlist(places, metrics, allowance=10)
    assert (ids.tolist(), made) == ([0, 1, 2], 2)
    more = np.array([store.locate(("c", "g"))] * 2, np.int32)
    ids, made = store.enlist(more, np.array([1, 0], np.int32), allowance=10)
    assert (ids.tolist(), made) == ([-1, 2], 0)
    check_accounts(store)


def test_there_are_no_more_places_than_series_can_need() -> None:
    """Places without series run out as well, and `locate` says so."""
    store = make_store(max_series=1)
    found = [store.locate(("c", f"h{k}")) for k in range(10)]
    assert found[:4] == sorted(set(found[:4]))
    assert set(found[4:]) == {-1}
    assert enlist(store, ("c", "h0")) == 0
    assert store.locate(("d", "h")) == -1
    check_accounts(store)
