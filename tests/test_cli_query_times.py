"""Times on the command line: what users write, and what they read."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from querying import DAY, HOUR, MINUTE, START, ZONE

from ccstore.cli.times import (
    Moment,
    Span,
    Tick,
    describe_range,
    is_today,
    parse_moment,
    parse_seconds,
    place_ticks,
)

CET = timezone(timedelta(hours=1), "CET")


@pytest.fixture
def zone(monkeypatch):
    """Let the machine be in Central Europe."""
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", Moment(0, is_relative=True)),
        ("-2h", Moment(-7200, is_relative=True)),
        ("-1h30m", Moment(-5400, is_relative=True)),
        ("+10m", Moment(600, is_relative=True)),
        ("1698926400", Moment(START)),
        ("0", Moment(0)),
        ("2023-11-02T13:00", Moment(START)),
        ("2023-11-02 13:00:00", Moment(START)),
        ("2023-11-02T12:00:00Z", Moment(START)),
        ("2023-11-02T07:00-05:00", Moment(START)),
        ("2023-11-02", Moment(START - 13 * HOUR)),
        ("2023-07-01T12:00", Moment(1_688_205_600)),
    ],
)
def test_times_as_users_write_them(zone, text, moment):
    """Relative, in seconds, or as a date that is local if it has no zone, in summer as in winter."""
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-",
        "-2",
        "-2x",
        "12:00",
        "2023-13-01",
        "1e9",
        "1969-12-31",
        "1698926400000",
        "0001-01-01",
        "9999-12-31",
    ],
)
def test_what_is_no_time(text):
    """One line that names the text and shows what was wanted."""
    with pytest.raises(
        ValueError, match=r"^not (a time|in the years 1970 to 2999) \(got '.*', wanted such as"
    ):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("90s", 90), ("1h30m", 5400), ("7", 7), ("1000ms", 1)]
)
def test_durations_in_whole_seconds(text, seconds):
    """Go's form, and a bare number."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1h", "1.5s", "500ms", "5 m", "1d", "9" * 13])
def test_what_is_no_duration(text):
    """Less than a second, parts of one, and units that are unknown."""
    with pytest.raises(ValueError, match=r"\(got '.*', wanted "):
        parse_seconds(text)


def test_a_span_follows_now_from_a_full_minute():
    """What is relative begins at a full minute, what was written in full is kept to the second."""
    now = START + 59 * MINUTE + 17
    to_now = Moment(0, is_relative=True)
    assert Span(None, to_now, HOUR).at(now) == (START - MINUTE, now)
    assert Span(Moment(-HOUR, is_relative=True), to_now, HOUR).at(now) == (START - MINUTE, now)
    assert Span(Moment(START + 7), Moment(START + 8), HOUR).at(now) == (START + 7, START + 8)
    assert Span(None, Moment(START + 7), HOUR).at(now) == (START + 7 - HOUR, START + 7)
    assert Span(to_now, Moment(9 * START * 9, is_relative=True), HOUR).at(START) == (START, 32_503_680_000)
    assert Span(Moment(-START, is_relative=True), to_now, HOUR).at(START) == (0, START)


@pytest.mark.parametrize(
    ("start", "stop", "text"),
    [
        (START, START + HOUR, "13:00 to 14:00 CET"),
        (START, START + 90, "13:00:00 to 13:01:30 CET"),
        (START + 7, START + HOUR, "13:00:07 to 14:00:00 CET"),
        (START - DAY, START, "2023-11-01 13:00 to 2023-11-02 13:00 CET"),
        (START - DAY, START - DAY + HOUR, "2023-11-01 13:00 to 14:00 CET"),
    ],
)
def test_ranges_as_users_read_them(start, stop, text):
    """A date where it is not today's, or where there are two."""
    assert describe_range(start, stop, now=START + 2 * HOUR, zone=CET) == text
    assert is_today(start, stop, now=START + 2 * HOUR, zone=CET) == ("-" not in text)


def test_a_range_of_the_machine_s_zone(zone):
    """Without a zone it is local time, and its name tells which."""
    assert describe_range(START, START + HOUR, now=START) == "13:00 to 14:00 CET"


def test_ticks_lie_at_round_local_times():
    """The first of each day carries the date."""
    assert place_ticks(START + 600, START + 14 * HOUR, 5, zone=CET) == [
        Tick(START + 5 * HOUR, "18:00", "2023-11-02"),
        Tick(START + 11 * HOUR, "00:00", "2023-11-03"),
    ]
    ticks = place_ticks(START, START + 40, 6, zone=CET)
    assert [tick.clock for tick in ticks] == ["13:00:00", "13:00:10", "13:00:20", "13:00:30"]
    ticks = place_ticks(START, START + 4 * DAY, 6, zone=CET)
    assert [tick.clock for tick in ticks] == ["2023-11-03", "2023-11-04", "2023-11-05", "2023-11-06"]
    assert place_ticks(START, START + HOUR, 0) == ()


def test_ticks_stay_on_full_hours_when_the_clocks_change(zone):
    """On 2023-10-29 the clocks go back at 03:00, on 2023-03-26 they go forward at 02:00."""
    for changed, hours in (datetime(2023, 10, 29), 25), (datetime(2023, 3, 26), 23):
        start, stop = (int((changed + timedelta(days=days)).timestamp()) for days in (0, 1))
        assert stop - start == hours * HOUR
        assert [tick.clock for tick in place_ticks(start, stop, 6)] == ["00:00", "06:00", "12:00", "18:00"]


def test_ticks_leave_out_what_the_clocks_skip(zone):
    """There is no half past two on the day when the clocks go forward, and no tick twice."""
    start = int(datetime(2023, 3, 26, 1, 0).timestamp())
    clocks = [tick.clock for tick in place_ticks(start, start + 2 * HOUR, 9)]
    assert clocks == ["01:00", "01:15", "01:30", "01:45", "03:00", "03:15", "03:30", "03:45"]


@given(st.integers(0, 32_503_680_000), st.integers(1, 400 * DAY), st.integers(0, 60))
def test_there_are_never_more_ticks_than_asked_for(start, length, limit):
    """All within the range, ascending."""
    times = [tick.time for tick in place_ticks(start, start + length, limit, zone=UTC)]
    assert len(times) <= limit
    assert times == sorted(set(times))
    assert all(start <= time < start + length for time in times)
