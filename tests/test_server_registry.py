"""The registry's worker: group commits, failures that stay alone, a database that is not as it should be."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.config.sections import DbConfig
from ccstore.disk.registry.database import Database
from ccstore.errors import QueryError, UnavailableError
from ccstore.server import registry as registry_module
from ccstore.server.registry import LONGEST_PAUSE, PATIENCE, Registry

pytestmark = pytest.mark.timeout(60)

PATH, KEPT = Path("jobs.db"), Path("kept.db")


@asynccontextmanager
async def working(**config: Any) -> AsyncIterator[Registry]:
    """Run a registry in the test's directory; at the end it finishes what waits."""
    registry = Registry(PATH, DbConfig(**config))
    async with trio.open_nursery() as nursery:
        with registry.held():
            nursery.start_soon(registry.run)
            yield registry


@asynccontextmanager
async def locked() -> AsyncIterator[None]:
    """Hold the lock for writers, as another program would; the database has to be there."""
    connection = sqlite3.connect(PATH, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def add(database: Database, host: str) -> int:
    """Add a node."""
    text = "INSERT INTO node (hostname, cluster, subcluster) VALUES (?, 'c', 's')"
    number = database.execute(text, (host,)).lastrowid
    assert number is not None
    return number


def hosts(database: Database) -> list[str]:
    """Return all nodes in the order in which they were added."""
    return [host for (host,) in database.execute("SELECT hostname FROM node ORDER BY id")]


def in_file() -> list[str]:
    """Return all nodes as another program sees them."""
    connection = sqlite3.connect(PATH)
    try:
        return [host for (host,) in connection.execute("SELECT hostname FROM node ORDER BY id")]
    finally:
        connection.close()


async def test_what_a_write_returns_is_committed() -> None:
    """And a read sees it; at the end the log is in the file."""
    async with working() as registry:
        assert await registry.write(add, "a") == 1
        assert in_file() == ["a"]
        assert await registry.read(hosts) == ["a"]
        assert registry.problems() == []
    assert not PATH.with_name("jobs.db-wal").exists()


async def test_reads_that_keep_coming_leave_turns_for_writes() -> None:
    """One of the two lines waits for one transaction of the other."""
    async with working() as registry, trio.open_nursery() as nursery:
        await registry.write(add, "first")
        read: list[list[str]] = []

        def read_on(database: Database) -> None:
            """Read, and let the next read stand in line before this one has ended."""
            read.append(hosts(database))
            trio.from_thread.run_sync(nursery.start_soon, registry.read, read_on)
            trio.from_thread.run(wait_all_tasks_blocked)
            if len(read) == 1:
                trio.from_thread.run_sync(nursery.start_soon, registry.write, add, "second")

        await registry.read(read_on)
        with trio.fail_after(10):
            while "second" not in read[-1]:
                await trio.lowlevel.checkpoint()
        assert len(read) <= 3
        nursery.cancel_scope.cancel()


def count_on(database: Database) -> int:
    """Count for ever."""
    text = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    count: int = database.execute(text).fetchone()[0]
    return count


async def test_a_read_that_takes_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked learns that it was too much, and nobody else notices."""
    monkeypatch.setattr(registry_module, "LONGEST_READ", 0.05)
    async with working() as registry:
        await registry.write(add, "a")
        with pytest.raises(QueryError, match="too much"):
            await registry.read(count_on)
        assert await registry.read(hosts) == ["a"]
        assert await registry.write(add, "b") == 2
        assert (registry.failures, registry.problems()) == (0, [])


async def test_reads_that_take_long_leave_turns_for_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, a write that came later is done after the first of them."""
    monkeypatch.setattr(registry_module, "LONGEST_READ", 0.05)
    monkeypatch.setattr(registry_module, "LONGEST_READS", 0.04)
    refused: list[str] = []

    async def ask(registry: Registry, name: str) -> None:
        with pytest.raises(QueryError):
            await registry.read(count_on)
        refused.append(name)

    async with working() as registry:
        await registry.write(add, "a")
        async with trio.open_nursery() as nursery:
            for k in range(10):
                nursery.start_soon(ask, registry, f"read {k}")
            await wait_all_tasks_blocked()
            await registry.write(add, "b")
            assert len(refused) <= 3
        assert len(refused) == 10


async def test_a_bug_in_a_statement_is_no_trouble_of_the_database() -> None:
    """It goes to who asked; trying again would not help, and hold up everybody."""
    async with working() as registry:
        with pytest.raises(sqlite3.Error, match="type"):
            await registry.write(lambda database: database.execute("SELECT ?", ([],)))
        assert await registry.write(add, "a") == 1
        assert registry.failures == 0


async def test_writes_that_wait_share_a_transaction() -> None:
    """A hundred of them cost a few commits, and take effect in the order in which they were asked for."""
    async with working() as registry:
        await registry.write(add, "first")
        before = registry.commits
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(registry.write, add, f"h{number}")
                await trio.lowlevel.checkpoint()
        assert registry.commits - before < 50
        assert sorted(await registry.read(hosts)) == sorted(
            ["first", *(f"h{number}" for number in range(100))]
        )


class OddError(Exception):
    """Of a function, not of the database."""


async def test_one_that_fails_takes_no_other_with_it() -> None:
    """It raises what it raised, all it did is taken back, and the others of its transaction are stored."""
    gate = trio.Event()
    outcomes: dict[str, str] = {}

    def fail(database: Database, host: str) -> None:
        add(database, host)
        raise OddError(host)

    def twice(database: Database, host: str) -> None:
        add(database, f"{host}1")
        add(database, "first")

    async def do(registry: Registry, function: Callable[[Database, str], object], host: str) -> None:
        await gate.wait()
        try:
            await registry.write(function, host)
            outcomes[host] = "stored"
        except Exception as error:
            outcomes[host] = type(error).__name__

    async with working() as registry:
        await registry.write(add, "first")
        async with trio.open_nursery() as nursery:
            for function, host in ((add, "good1"), (fail, "odd"), (twice, "again"), (add, "good2")):
                nursery.start_soon(do, registry, function, host)
            await wait_all_tasks_blocked()
            gate.set()
        assert outcomes == {
            "good1": "stored", "odd": "OddError", "again": "ProtocolError", "good2": "stored",
        }  # fmt: skip
        assert sorted(in_file()) == ["first", "good1", "good2"]
        assert registry.problems() == []


async def test_locked() -> None:
    """Writes wait and readiness tells why, reads are answered; without the lock all is stored in order."""
    async with working() as registry:
        await registry.write(add, "a")
        async with trio.open_nursery() as nursery, locked():
            for host in ("b", "c"):
                nursery.start_soon(registry.write, add, host)
                await trio.lowlevel.checkpoint()
            while registry.failures < 2:
                assert await registry.read(hosts) == ["a"]
            assert [problem[: len("registry: jobs.db: locked")] for problem in registry.problems()] == [
                "registry: jobs.db: locked"
            ]
            assert len(registry) == 2
        assert await registry.read(hosts) == ["a", "b", "c"]
        assert registry.problems() == []


async def test_pauses_grow() -> None:
    """A database that is locked for long is asked every few seconds only."""
    times: list[float] = []

    class Clocked(Registry):
        def _note_failure(self, line: Any, error: Exception) -> None:
            super()._note_failure(line, error)
            times.append(line.pause)

    registry = Clocked(PATH, DbConfig(busy_timeout_ms=0))
    spoil("directory")
    async with trio.open_nursery() as nursery:
        with registry.held():
            nursery.start_soon(registry.run)
            nursery.start_soon(registry.write, add, "a")
            while len(times) < 4:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert times == [0.1, 0.2, 0.4, 0.8]
    assert LONGEST_PAUSE == 5


async def test_patience(autojump_clock: MockClock) -> None:
    """Who cannot wait gets an error that can be answered with 503, and what was asked for is not done."""
    async with working() as registry:
        await registry.write(add, "a")
        async with locked():
            began = trio.current_time()
            with pytest.raises(UnavailableError, match=r"^registry: jobs\.db: locked"), registry.patience():
                await registry.write(add, "impatient")
            assert trio.current_time() - began == pytest.approx(PATIENCE, abs=1)
            assert len(registry) == 0
        await registry.write(add, "b")
        assert await registry.read(hosts) == ["a", "b"]


async def test_too_late_to_cancel() -> None:
    """A write that the thread has already is not forgotten: it returns, and is stored."""
    entered = trio.Event()
    leave = threading.Event()

    def slow(database: Database, host: str) -> int:
        trio.from_thread.run_sync(entered.set)
        leave.wait()
        return add(database, host)

    returned = []

    async def write(registry: Registry, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            returned.append(await registry.write(slow, "a"))

    async with working() as registry, trio.open_nursery() as nursery:
        scope = await nursery.start(write, registry)
        await entered.wait()
        scope.cancel()
        await wait_all_tasks_blocked(0.01)
        leave.set()
    assert returned == [1]
    assert in_file() == ["a"]


def spoil(how: str) -> None:
    """Put something else in the place of the database."""
    match how:
        case "gone":
            PATH.rename(KEPT)
        case "directory":
            PATH.mkdir()
        case "garbage":
            PATH.write_bytes(b"no database " * 1000)
        case "version":
            with closing(sqlite3.connect(PATH, isolation_level=None)) as connection:
                connection.execute("CREATE TABLE schema_migrations (version, dirty)")
                connection.execute("INSERT INTO schema_migrations VALUES (12, 0)")


def mend(how: str) -> None:
    """Take it away again."""
    match how:
        case "gone":
            KEPT.rename(PATH)
        case "directory":
            PATH.rmdir()
        case _:
            PATH.unlink()


@pytest.mark.parametrize("how", ["directory", "garbage", "version", "gone"])
async def test_not_a_database(how: str) -> None:
    """Whatever is in its place, it is told and tried again until it is mended; nothing is lost."""
    async with working() as registry:
        if how == "gone":
            await registry.write(add, "before")
        spoil(how)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.write, add, "a")
            while not registry.failures:
                await trio.lowlevel.checkpoint()
            (problem,) = registry.problems()
            wanted = {
                "directory": "opened",
                "garbage": "not a database",
                "version": "version 12",
                "gone": "gone",
            }
            assert wanted[how] in problem
            mend(how)
        assert in_file() == (["before", "a"] if how == "gone" else ["a"])
        assert registry.problems() == []


async def test_full() -> None:
    """What does not fit is told and tried again, with a fresh connection, until it fits; nothing is lost."""

    def allow_no_more(database: Database) -> None:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")

    def add_many(database: Database) -> None:
        for number in range(500):
            add(database, f"host-with-a-long-name-{number:0100d}")

    async with working() as registry:
        await registry.write(add, "a")
        await registry.read(allow_no_more)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.write, add_many)
            while not registry.failures:
                await trio.lowlevel.checkpoint()
            assert "full" in registry.problems()[0]
            assert in_file() == ["a"]
        assert len(in_file()) == 501
        assert registry.problems() == []


async def test_another_file_in_its_place() -> None:
    """A backup that is put there is used without a restart; the log of the file before does not spoil it."""
    async with working() as registry:
        await registry.write(add, "backup")
    spoil("gone")
    async with working() as registry:
        await registry.write(add, "a")
        mend("gone")
        await registry.write(add, "b")
        assert in_file() == ["backup", "b"]


async def test_a_stop_finishes_what_waits() -> None:
    """Writes that were asked for before the last holder has gone are stored."""
    registry = Registry(PATH, DbConfig())
    async with trio.open_nursery() as nursery:
        with registry.held():
            for host in ("a", "b"):
                nursery.start_soon(registry.write, add, host)
            await wait_all_tasks_blocked()
        nursery.start_soon(registry.run)
    assert sorted(in_file()) == ["a", "b"]
    assert not PATH.with_name("jobs.db-wal").exists()
