"""A life of a server for the tests: seeded actions, restarts, and a disk for each operation."""

import random
from collections.abc import Sequence
from pathlib import Path

import trio
from attrs import frozen
from disk_memory import MemoryDisk
from durable import Journal, Points, Server, contents, make_server, recovered, running
from trio.testing import MockClock


@frozen
class Crash:
    """A disk after a power cut or a kill, and what had been said by then."""

    operation: str
    disk: MemoryDisk
    length: int
    """Of the journal."""


class Life:
    """Server after server on one disk; each ends in a way of its own; crashes on its way are looked at."""

    def __init__(
        self, seed: int, *, rewrites: bool, kind: str = "columnar", kinds: Sequence[str] = ()
    ) -> None:
        self.chance = random.Random(seed)
        self.points = Points(self.chance)
        self.journal = Journal()
        self.disk = MemoryDisk()
        self.checked = 0
        self._rewrites = rewrites
        self._kind = kind
        self._kinds = kinds

    async def live(self, shards: Sequence[int], *, actions: int = 25, share: float = 1.0) -> None:
        """Run one server for each number of shards; look at this share of its crashes."""
        for count in shards:
            crashes: list[Crash] = []
            if self._kinds:
                self._kind = self.chance.choice(self._kinds)
            self.disk.before = self._recorder(self.disk, crashes, share)
            server = await make_server(self.disk, shards=count, kind=self._kind, journal=self.journal)
            self._check(server.journal.problems(contents(server.store)), "start")
            async with running(server) as nursery:
                for _ in range(self.chance.randint(actions // 2, actions)):
                    await self._act(server, nursery)
                if self._kinds and self.chance.random() < 0.5:
                    await server.checkpoints.save_all()
                elif self.chance.random() < 0.3:
                    nursery.cancel_scope.cancel()
            for crash in crashes:
                await self._look_at(crash)
            if crashes and self.chance.random() < 0.7:
                crash = self.chance.choice(crashes)
                self.journal, self.disk = self.journal.cut(crash.length), crash.disk
        await self._look_at(Crash("end", self.disk, len(self.journal.events)))

    def _recorder(self, disk: MemoryDisk, crashes: list[Crash], share: float):
        chance = random.Random(self.chance.random())

        def record(number: int, name: str, path: Path) -> None:
            if chance.random() < share:
                length = len(self.journal.events)
                left = disk.after_kill() if chance.random() < 0.3 else disk.after_power_cut(chance)
                crashes.append(Crash(f"{number} {name} {path}", left, length))

        return record

    async def _act(self, server: Server, nursery: trio.Nursery) -> None:
        what = self.chance.random()
        if what < 0.5:
            nursery.start_soon(server.acknowledge, *await server.append(self.points.some()))
        elif what < 0.75:
            await server.keep(self.points.some())
        elif what < 0.85:
            await server.checkpoints.save_all()
        elif what < 0.9:
            await nursery.start(server.save_all)
        elif what < 0.93:
            host = "c", f"h{self.chance.randrange(self.points.hosts)}"
            server.free(host)
            if not self._rewrites:
                self.points.floors[host] = self.points.step + 1
        else:
            for _ in range(self.chance.randrange(8)):
                await trio.lowlevel.checkpoint()

    async def _look_at(self, crash: Crash) -> None:
        crash.disk.before = lambda _number, _name, _path: None
        store, report, _ = await recovered(crash.disk, kind=self._kind)
        problems = self.journal.cut(crash.length).problems(contents(store))
        # a torn segment may have a hole; a checkpoint is there as a whole or not at all
        damage = [text for text in report.damage if ".wal: " not in text and ".log: " not in text]
        self._check(problems + damage, crash.operation)

    def _check(self, problems: Sequence[str], where: str) -> None:
        assert not problems, f"crash before operation {where}:\n" + "\n".join(problems)
        self.checked += 1


def live(
    seed: int,
    shards: Sequence[int],
    *,
    actions: int = 25,
    share: float = 1.0,
    rewrites: bool = False,
    kind: str = "columnar",
    kinds: Sequence[str] = (),
) -> Life:
    """Run a life and return it; `schedule_by_seed` makes it the same each time.

    kinds: formats of which each server has any, whatever became of the one before.
    """
    life = Life(seed, rewrites=rewrites, kind=kind, kinds=kinds)

    async def run() -> None:
        await life.live(shards, actions=actions, share=share)

    trio.run(run, clock=MockClock(autojump_threshold=0.0))
    return life
