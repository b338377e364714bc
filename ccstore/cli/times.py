"""Times on the command line: what a user writes, and what a user reads.

Owns the two directions between text and seconds since the epoch. It reads no clock: `now` is an
argument. Invariant: what is written without a zone is local time in both directions.

A zone is an argument too, None for that of the machine, so that the same pictures can be drawn
anywhere; steps are taken on the wall clock and not in seconds, or ticks would leave the full hours
on the days when the clocks change.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from attrs import frozen

from ccstore.config.durations import parse_duration

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "Moment",
    "Span",
    "Tick",
    "describe_range",
    "is_today",
    "parse_moment",
    "parse_seconds",
    "place_ticks",
]

MINUTE, HOUR, DAY = 60, 3600, 86400

_LATEST = 32_503_680_000
"""Year 3000 begins; beyond it somebody has mistaken milliseconds for seconds."""
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(HOUR * n for n in (1, 2, 3, 6, 12)),
    *(DAY * n for n in (1, 2, 7, 14, 28)),
)
"""Seconds between two ticks of an axis."""


@frozen
class Moment:
    """A point in time as a user wrote it."""

    seconds: int
    """Since the epoch, or since `now` if it is relative."""
    is_relative: bool = False

    def at(self, now: int) -> int:
        """Return the seconds since the epoch; nothing lies before it, or after the year 2999."""
        return min(max(0, now + self.seconds), _LATEST) if self.is_relative else self.seconds


def parse_moment(text: str) -> Moment:
    """Return the time that `text` means.

    That is ``now``, a duration with a sign (``-2h``), seconds since the epoch, or a date with or
    without a time in ISO form, which is local if it has no zone. Raises ValueError with what is wrong.
    """
    wanted = f"(got {text!r}, wanted such as -2h, now, 2026-11-02T08:00, or seconds since the epoch)"
    try:
        if text == "now":
            return Moment(0, is_relative=True)
        if text[:1] in ("-", "+"):
            return Moment(round(parse_duration(text)), is_relative=True)
        seconds = int(text) if text.isdecimal() else int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"not a time {wanted}") from error
    if not 0 <= seconds < _LATEST:
        raise ValueError(f"not in the years 1970 to 2999 {wanted}")
    return Moment(seconds)


@frozen
class Span:
    """A range of time as a user wrote it."""

    begin: Moment | None
    """None for `last` before the end."""
    end: Moment
    last: int
    """Seconds."""

    def at(self, now: int) -> tuple[int, int]:
        """Return the range [start, stop) in seconds since the epoch.

        A start that follows `now` is taken back to the full minute: collectors send at full
        minutes, and values are told at whole steps from the start.
        """
        stop = self.end.at(now)
        start = stop - self.last if self.begin is None else self.begin.at(now)
        is_relative = (self.begin or self.end).is_relative
        return max(0, start - start % MINUTE if is_relative else start), stop


def parse_seconds(text: str) -> int:
    """Return the seconds of a duration, whole and at least one; a bare number is in seconds, too."""
    try:
        seconds = float(text) if text.isdecimal() else parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error} (got {text!r}, wanted such as 90s, 5m or 1h30m)") from error
    if not 1 <= seconds < _LATEST or seconds != int(seconds):
        raise ValueError(f"not a number of whole seconds (got {text!r}, wanted at least 1s)")
    return int(seconds)


def is_today(start: int, stop: int, *, now: int, zone: tzinfo | None = None) -> bool:
    """Tell whether a range lies in the day of `now`, so that its times need no date."""
    return len({datetime.fromtimestamp(time, zone).date() for time in (start, stop, now)}) == 1


def describe_range(start: int, stop: int, *, now: int, zone: tzinfo | None = None) -> str:
    """Return a range for a reader: ``18:35 to 19:35 CET``, with dates unless all of it is today."""
    begin, end = (datetime.fromtimestamp(time, zone).astimezone(zone) for time in (start, stop))
    clock = "%H:%M" if start % MINUTE == 0 and stop - start >= 10 * MINUTE else "%H:%M:%S"
    dated = f"%Y-%m-%d {clock}"
    first = clock if is_today(start, stop, now=now, zone=zone) else dated
    last = clock if begin.date() == end.date() else dated
    return f"{begin:{first}} to {end:{last}} {end:%Z}"


@frozen
class Tick:
    """A mark on a time axis."""

    time: int
    """Seconds since the epoch."""
    clock: str
    """Time of day, or the date if the marks are days apart."""
    date: str
    """The date, where it differs from that of the mark before."""


def place_ticks(start: int, stop: int, limit: int, *, zone: tzinfo | None = None) -> Sequence[Tick]:
    """Return at most `limit` marks in [start, stop) at round local times, in their order."""
    if limit < 1:
        return ()
    step = next((step for step in _STEPS if (stop - start) / step <= limit - 1), 0)
    step = step or _STEPS[-1] * -(-(stop - start) // (_STEPS[-1] * max(1, limit - 1)))
    midnight = datetime.fromtimestamp(start, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    first = (start - int(midnight.timestamp())) // step
    form = "%H:%M:%S" if step < MINUTE else "%H:%M" if step < DAY else "%Y-%m-%d"
    times = (int((midnight + timedelta(seconds=n * step)).timestamp()) for n in itertools.count(first))
    ticks: list[Tick] = []
    date = ""
    for time in itertools.takewhile(lambda time: time < stop, times):
        if time < start or (ticks and time <= ticks[-1].time):  # the latter in an hour that the clocks skip
            continue
        local = datetime.fromtimestamp(time, zone)
        before, date = date, f"{local:%Y-%m-%d}"
        ticks.append(Tick(time, f"{local:{form}}", date if date != before and step < DAY else ""))
    return ticks[:limit]
