"""A process that appends to a directory and prints what was acknowledged, until it is killed.

    python durable_child.py DIRECTORY ROUND SHARDS

It prints ``+ n`` before it appends the point with value n, and ``= n`` when that is acknowledged.

    python durable_child.py --renames DIRECTORY KIND

For n = 1, 2, 3 ... a process works in DIRECTORY/n and kills itself at its n-th step, which is to be before or
behind giving a file a name, until one comes to its end.
"""

import itertools
import logging
import os
import signal
import sys
from pathlib import Path

import trio
from durable import START, Server, make_server, running

from ccstore.disk.files import OsDisk, lock_directory
from ccstore.jit import warm_up


def point(number: int):
    """Return the point with this number as its value; each 50 of them share their slots with the next 50."""
    slot = number // 100 * 50 + number % 50
    return (("c", f"h{slot % 5}"), "load", START + 10 * (slot // 5)), float(number)


async def main(directory: Path, round_: int, shards: int) -> None:
    """Append without end, from several tasks, with checkpoints in between."""
    server = await make_server(OsDisk(), shards=shards, directory=directory, max_delay=0.005)
    numbers = iter(range(100_000 * round_, 100_000 * (round_ + 1)))
    async with running(server) as nursery:
        for _ in range(8):
            nursery.start_soon(send, server, numbers)
        while True:
            await server.checkpoints.save_all()


async def send(server: Server, numbers) -> None:
    """Append one point after the other."""
    for number in numbers:
        say("+", number)
        _, reached = await server.append([point(number)])
        await server.wal.durable(reached)
        say("=", number)


def say(what: str, number: int) -> None:
    """Tell the test, which may kill us at once."""
    sys.stdout.write(f"{what} {number}\n")
    sys.stdout.flush()


class Deadly(OsDisk):
    """Kills its process around a rename."""

    def __init__(self, step: int) -> None:
        self.steps = step

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, if there is time left."""
        self._step()
        super().replace(source, target)
        self._step()

    def _step(self) -> None:
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def rounds(directory: Path, kind: str, step: int) -> None:
    """Write some rounds of checkpoints, with commits before, between and behind them."""
    server = await make_server(Deadly(step), shards=2, kind=kind, directory=directory)
    numbers = itertools.count()
    async with running(server):
        for _ in range(2):
            for number in itertools.islice(numbers, 3):
                say("+", number)
                await server.keep([point(number)])
                say("=", number)
            await server.checkpoints.save_all()


def kill_at_renames(directory: Path, kind: str) -> None:
    """Run processes until one is not killed; they are forks of this one, which has no thread."""
    for _ in warm_up():  # else each of them loads the kernels anew
        pass
    for step in itertools.count(1):
        below = directory / str(step)
        below.mkdir()
        child = os.fork()
        if not child:
            sys.stdout = (below.with_suffix(".said")).open("w")
            trio.run(rounds, below, kind, step)
            sys.stdout.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    if sys.argv[1] == "--renames":
        kill_at_renames(Path(sys.argv[2]), sys.argv[3])
    where, which, how_many = sys.argv[1:]
    with lock_directory(Path(where)):
        trio.run(main, Path(where), int(which), int(how_many))
