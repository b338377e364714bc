"""A process that appends to a directory and prints what was acknowledged, until it is killed.

    python durable_child.py DIRECTORY ROUND SHARDS

It prints ``+ n`` before it appends the point with value n, and ``= n`` when that is acknowledged.
"""

import logging
import sys
from pathlib import Path

import trio
from durable import START, Server, make_server, running

from ccstore.disk.files import OsDisk, lock_directory


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


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    where, which, how_many = sys.argv[1:]
    with lock_directory(Path(where)):
        trio.run(main, Path(where), int(which), int(how_many))
