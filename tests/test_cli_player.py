"""When a simulated site sends: on a clock that the tests set, to a publisher that writes down what comes."""

import re

import pytest
import trio
from attrs import Factory, define
from trio.testing import MockClock

from ccstore.cli.player import Player, Schedule
from ccstore.cli.publish import Tally
from ccstore.cli.site import Message, make_site

NOW = 1_700_000_040
"""A full minute."""


@define(eq=False)
class Notes:
    """A publisher that takes everything, at a price in seconds, and notes when."""

    clock: "Clock"
    price: float = 0.0
    most_bytes: int = 200_000
    where: str = "nowhere"
    state: str = ""
    tally: Tally = Factory(Tally)
    taken: list[tuple[float, Message]] = Factory(list)
    events: list[Message | None] = Factory(list)
    """In their order: messages, and None where all before have settled."""

    async def publish(self, message):
        self.taken.append((self.clock(), message))
        self.events.append(message)
        await trio.sleep(self.price)

    async def settle(self):
        self.events.append(None)
        await trio.lowlevel.checkpoint()

    @property
    def times(self):
        return [round(time - NOW, 6) for time, _ in self.taken]


class Clock:
    """A wall clock that shows NOW and a bit when it is made, and goes with Trio's."""

    def __init__(self, late=0.0):
        self._base = NOW + late - trio.current_time()

    def __call__(self):
        return self._base + trio.current_time()


async def play(schedule, *, hosts=4, late=0.0, price=0.0, told=lambda: None, most_bytes=200_000):
    """Play a site until the schedule ends; return player and notes."""
    clock = Clock(late)
    notes = Notes(clock, price, most_bytes)
    player = Player(make_site(hosts, topology="smt40"), notes, schedule, clock)
    await player.play_past()
    await player.play_present(told=told)
    return player, notes


def stamps(message):
    """Return the times that stand in a message, in their order."""
    lines = message.payload.splitlines()
    return list(dict.fromkeys(int(line.rpartition(b" ")[2]) for line in lines))


@pytest.mark.parametrize(("late", "first"), [(0.0, 0), (0.5, 60), (59.9, 60)])
async def test_an_interval_begins_at_the_full_minute(autojump_clock: MockClock, late, first):
    """Whenever the simulation is started, its hosts send together when the minute is full."""
    player, notes = await play(Schedule(interval=60, duration=150), late=late)
    full = [minute for minute in (0, 60, 120, 180) if first <= minute <= late + 150]
    assert notes.times == [minute for minute in full for _ in range(4)]
    assert [stamps(message) for _, message in notes.taken] == [
        [NOW + minute] for minute in full for _ in range(4)
    ]
    assert player.intervals == len(full)
    assert player.longest_lag == pytest.approx(0, abs=1e-6)


async def test_hosts_follow_within_the_skew(autojump_clock: MockClock):
    """Each host has its own moment, the same in every interval."""
    _, notes = await play(Schedule(interval=10, skew=8, duration=20))
    assert notes.times == [0, 2, 4, 6, 10, 12, 14, 16, 20, 22, 24, 26]
    assert [stamps(message) for _, message in notes.taken] == [[NOW + second] for second in notes.times]


async def test_a_batch_is_sent_when_its_last_host_has_measured(autojump_clock: MockClock):
    """Nobody sends what has not happened yet."""
    _, notes = await play(Schedule(interval=10, skew=8, batch=2, duration=0))
    assert notes.times == [2, 6]
    assert [stamps(message) for _, message in notes.taken] == [[NOW, NOW + 2], [NOW + 4, NOW + 6]]


async def test_the_duration_is_kept(autojump_clock: MockClock):
    """Playing ends when it is over, not with the last interval before."""
    began = trio.current_time()
    await play(Schedule(interval=60, duration=100))
    assert trio.current_time() - began == 100


async def test_without_a_duration_it_goes_on(autojump_clock: MockClock):
    """Until somebody cancels it; then it says how far it got."""
    told = []
    with trio.move_on_after(3590):
        await play(Schedule(interval=60), told=lambda: told.append(trio.current_time()))
    assert len(told) == 60


async def test_who_is_slow_is_late_and_leaves_nothing_out(autojump_clock: MockClock):
    """An interval that takes longer than it is long delays the next ones, and the lag tells by how much."""
    player, notes = await play(Schedule(interval=10, duration=20), price=4)
    assert notes.times == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44]
    assert [stamps(message) for _, message in notes.taken][::4] == [[NOW], [NOW + 10], [NOW + 20]]
    assert player.lag == player.longest_lag == pytest.approx(28)


async def test_the_rate_is_never_exceeded(autojump_clock: MockClock):
    """So many lines a second, however many are due."""
    _, notes = await play(Schedule(interval=60, duration=0, rate=227 / 2))
    assert {message.lines for _, message in notes.taken} == {227}
    assert notes.times == [0, 2, 4, 6]


async def test_the_past_comes_first_and_at_once(autojump_clock: MockClock):
    """All intervals of the history, in order, without waiting, in messages as large as is liked."""
    player, notes = await play(Schedule(interval=60, history=1830, duration=0), late=20)
    times = [time for _, message in notes.taken for time in stamps(message)]
    assert times == [NOW - 1740 + 60 * step for step in range(30)]
    assert set(notes.times) == {20}
    sizes = [len(message.payload) for _, message in notes.taken]
    assert all(0.5 * notes.most_bytes < size < 1.2 * notes.most_bytes for size in sizes[1:-1])
    assert player.intervals == 30
    assert player.lines_done == 30 * player.site.series == sum(message.lines for _, message in notes.taken)


async def test_no_two_messages_of_a_host_are_under_way(autojump_clock: MockClock):
    """The order of two messages is open until both have settled, and the order of samples is not."""
    _, notes = await play(Schedule(interval=60, history=3600, duration=60), hosts=40)
    under_way, parts = set(), 0
    for message in notes.events:
        if message is None:
            under_way.clear()
            continue
        hosts = set(re.findall(rb"hostname=(\w+)", message.payload))
        assert not hosts & under_way
        under_way |= hosts
        parts += 1
    assert parts > 4 * 60


async def test_the_past_goes_on_while_it_is_filled_in(autojump_clock: MockClock):
    """What becomes the past meanwhile is filled in as well, and the present begins in time."""
    player, notes = await play(Schedule(interval=10, history=100, duration=10), price=1, most_bytes=1)
    times = [time for _, message in notes.taken for time in stamps(message)]
    assert times == sorted(times)
    assert sorted(set(times)) == list(range(NOW - 100, max(times) + 1, 10))
    assert player.in_past is False


async def test_nothing_is_measured_before_its_time(autojump_clock: MockClock):
    """An interval whose last hosts are still to come is no past."""
    _, notes = await play(Schedule(interval=10, skew=8, history=20, duration=0), late=4)
    late = [stamp - time for time, message in notes.taken for stamp in stamps(message)]
    assert max(late) <= 0
