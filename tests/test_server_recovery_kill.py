"""The real disk: a whole life, and processes that are killed while they write."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from durable import Points, contents, make_server, recovered, running
from durable_child import point

import ccstore
from ccstore.disk.files import OsDisk, lock_directory
from ccstore.errors import ConfigError

# the package under test, wherever the tests are run from
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ccstore.__file__).parents[1])}
CHILD = Path(__file__).with_name("durable_child.py")
KILLS = int(os.environ.get("CCSTORE_KILLS", "3"))


async def test_a_life_on_the_real_disk(tmp_path):
    """Appends, rounds, removals, restarts with other numbers of shards: everything is there."""
    journal, points = None, Points(random.Random(1))
    for shards in (2, 3, 1):
        server = await make_server(OsDisk(), shards=shards, directory=tmp_path, journal=journal)
        journal = server.journal
        assert contents(server.store) == journal.latest()
        async with running(server):
            for _ in range(3):
                await server.keep(points.some(30))
                await server.checkpoints.save_all()
            await server.keep(points.some(30))
    store, report, _ = await recovered(OsDisk(), directory=tmp_path)
    assert contents(store) == journal.latest()
    assert report.damage == []


async def kill_behind(
    directory: Path, round_: int, shards: int, acknowledged: int
) -> tuple[set[int], list[int]]:
    """Start a process and kill it behind so many acknowledgements; return what was sent and told."""
    sent, told = set[int](), list[int]()
    command = [sys.executable, str(CHILD), str(directory), str(round_), str(shards)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    rest = b""
    async with process.stdout:
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                what, _, number = line.partition(b" ")
                if what == b"+":
                    sent.add(int(number))
                else:
                    told.append(int(number))
            if len(told) >= acknowledged:
                process.kill()
    assert await process.wait() < 0
    return sent, told


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_killed_again_and_again(tmp_path):
    """Whenever a process is killed, what it acknowledged is there, and nothing that was not appended."""
    chance, sent, told = random.Random(2), dict[tuple, set[float]](), dict[tuple, float]()
    for round_ in range(KILLS):
        more, acknowledged = await kill_behind(
            tmp_path, round_, chance.choice([1, 3]), chance.randrange(20, 400)
        )
        for number in more:
            key, value = point(number)
            sent.setdefault(key, set()).add(value)
        for number in acknowledged:
            key, value = point(number)
            told[key] = max(value, told.get(key, value))
        store, report, _ = await recovered(OsDisk(), directory=tmp_path)
        found = contents(store)
        assert report.damage == []
        assert told.keys() <= found.keys()
        for key, value in found.items():
            assert value in sent[key]
        # points that share a slot may have been in flight together; a round does not overtake the next one
        for key, value in told.items():
            assert found[key] // 50 >= value // 50
    assert len(told) > 20


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["columnar", "wal"])
async def test_killed_at_every_rename(tmp_path, kind):
    """Before and behind each rename of two rounds of checkpoints: all that was acknowledged is there."""
    command = [sys.executable, str(CHILD), "--renames", str(tmp_path), kind]
    await trio.run_process(command, env=ENVIRONMENT)
    said = sorted(tmp_path.glob("*.said"), key=lambda path: int(path.stem))
    assert len(said) > 2 * 2 * 2
    for path in said:
        lines = [line.split() for line in path.read_text().splitlines()]
        told = {int(number) for what, number in lines if what == "="}
        sent = {int(number) for what, number in lines if what == "+"}
        store, report, _ = await recovered(OsDisk(), kind=kind, directory=path.with_suffix(""))
        found = contents(store)
        assert report.damage == []
        assert dict(map(point, told)).items() <= found.items() <= dict(map(point, sent)).items()
    assert len(told) == 6  # of the last one, which came to its end


async def test_one_server_for_a_directory(tmp_path):
    """While a process has a directory, nobody else gets it; when it is killed, the directory is free."""
    with lock_directory(tmp_path):
        command = [sys.executable, str(CHILD), str(tmp_path), "0", "1"]
        done = await trio.run_process(command, capture_stderr=True, check=False, env=ENVIRONMENT)
        assert done.returncode == 1
        assert b"ConfigError" in done.stderr
        assert b"in use by another server" in done.stderr
        with pytest.raises(ConfigError, match="in use by another server"), lock_directory(tmp_path):
            pass
    await kill_behind(tmp_path, 0, 1, 3)
    with lock_directory(tmp_path):
        pass
