"""Turns: the order within a key, the bounds, and what a cancelled task leaves behind."""

import random
from collections.abc import Hashable

import pytest
import trio
from attrs import Factory, define
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.server.turns import Ticket, Turns


@define
class Work:
    """Tasks that take turns and write down what happens."""

    turns: Turns
    begun: list[tuple[Hashable, int]] = Factory(list)
    at_once: int = 0
    most: int = 0
    keys: set[Hashable] = Factory(set)

    async def do(self, ticket: Ticket, number: int, seconds: float) -> None:
        async with self.turns.turn(ticket):
            assert ticket.key not in self.keys
            self.keys.add(ticket.key)
            self.begun.append((ticket.key, number))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await trio.sleep(seconds)
            finally:
                self.at_once -= 1
                self.keys.remove(ticket.key)

    async def wait_and_do(self, key: Hashable, number: int) -> None:
        await self.do(await self.turns.queue(key), number, 0)


async def test_order_within_a_key_and_no_more_at_once_than_allowed(autojump_clock: MockClock) -> None:
    """Whatever the turns take, those of a key begin in order, and as many keys at once as may."""
    work, dice = Work(Turns(4, 1000)), random.Random(1)
    async with trio.open_nursery() as nursery:
        for number in range(300):
            ticket = await work.turns.queue(dice.randrange(7))
            nursery.start_soon(work.do, ticket, number, dice.random())
    assert len(work.begun) == 300
    for key in range(7):
        numbers = [number for which, number in work.begun if which == key]
        assert numbers == sorted(numbers)
    assert work.most == 4
    assert len(work.turns) == 0


async def test_one_key_does_not_hold_up_another(autojump_clock: MockClock) -> None:
    """A key whose turns take long uses one of the places."""
    work = Work(Turns(2, 100))
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(work.do, await work.turns.queue("slow"), number, 100)
        nursery.start_soon(work.do, await work.turns.queue("quick"), 0, 0)
        await trio.sleep(1)
        assert work.begun == [("slow", 0), ("quick", 0)]
        assert len(work.turns) == 5
        assert work.turns.oldest_age() == pytest.approx(1)
        nursery.cancel_scope.cancel()
    assert len(work.turns) == 0
    assert work.turns.oldest_age() == 0


async def test_full(autojump_clock: MockClock) -> None:
    """Who comes when there is no room waits, and gets its place in the order of coming."""
    work = Work(Turns(1, 2))
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(work.do, await work.turns.queue("k"), number, 10)
        for number in (2, 3, 4):
            nursery.start_soon(work.wait_and_do, "k", number)
            await wait_all_tasks_blocked()
        assert len(work.turns) == 2
    assert [number for _, number in work.begun] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=["at work", "waiting", "last"])
async def test_who_is_cancelled_holds_up_nobody(cancelled: int, autojump_clock: MockClock) -> None:
    """Its place goes to the next, and its room to somebody else."""
    work = Work(Turns(1, 3))
    scopes = [trio.CancelScope() for _ in range(3)]

    async def run(ticket: Ticket, number: int) -> None:
        with scopes[number]:
            await work.do(ticket, number, 10)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(run, await work.turns.queue("k"), number)
        await trio.sleep(1)
        scopes[cancelled].cancel()
        nursery.start_soon(work.wait_and_do, "k", 3)
    begun = [number for _, number in work.begun]
    assert begun == [number for number in range(4) if number != cancelled or number == 0]


async def test_cancelled_before_its_first_step() -> None:
    """A task that is started in a cancelled scope gives its place back."""
    work = Work(Turns(1, 1))
    async with trio.open_nursery() as nursery:
        ticket = await work.turns.queue("k")
        nursery.start_soon(work.do, ticket, 0, 0)
        nursery.cancel_scope.cancel()
    assert work.begun == []
    with trio.fail_after(1):
        await work.wait_and_do("k", 1)
    assert work.begun == [("k", 1)]
