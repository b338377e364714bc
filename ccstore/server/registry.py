"""The registry in the server: one thread works on the database of nodes and jobs, in the order of asking.

Owns the connection, its one worker thread, and what waits for it. Never knows what is asked: that are
functions of `ccstore.disk.registry`. Invariant: a write that returned is committed, and one that raised has
changed nothing.

Writes that wait at the same time share one transaction, so a hundred events cost one commit. Each has a
savepoint of its own: one that fails takes no other with it. If the database itself will not have it - it
is locked, missing, full, or not a database - nothing has happened, all of them stay where they are, and it
is tried again after a pause that grows. Nobody has to know: who cannot wait says so with `patience`, and
what is lost then is an answer, not the order of what waits.

Reads have a line of their own, because in WAL mode a database that somebody has locked can be read. The two
take turns, so whoever asks much of one holds up the other for one transaction.
"""

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import Factory, define

from ccstore.config import Config
from ccstore.config.sections import DbConfig
from ccstore.disk.registry.database import Database, open_database
from ccstore.errors import BusyError, ConfigError, CorruptionError, UnavailableError

__all__ = ["Registry", "make_registry"]

log = logging.getLogger("ccstore.registry")

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that a request waits for the database before it is answered with 503."""
MOST_AT_ONCE = 512
"""Functions in one transaction; who comes next waits for all of them."""
LONGEST_READ = 2.0
"""Seconds after which a read is refused: writes cannot begin before it has ended."""
LONGEST_READS = 0.5
"""Seconds after which no further read begins before it is the turn of writes."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts, doubled each time."""
_LONGEST_WAIT = 0.25
"""Seconds that the thread waits for somebody's lock, for nobody can tell it to stop; we wait better."""

_TROUBLES = (BusyError, UnavailableError, CorruptionError, ConfigError, OSError)
"""The database itself is not as it should be: locked, full, missing, garbage, of another version."""


@define(eq=False)
class _Entry:
    """A function that waits for its turn, and what came of it."""

    function: Callable[[Database], Any]
    result: Any = None
    error: Exception | None = None
    is_under_way: bool = False
    """Whether the thread has it now."""
    is_done: bool = False
    news: trio.Event = Factory(trio.Event)
    """Set when an attempt that had it is over."""


@define(eq=False)
class _Line:
    """Entries of one kind, and when they are tried."""

    entries: deque[_Entry] = Factory(deque)
    pause: float = 0.0
    """Seconds to wait after the next failure; 0 if the last attempt went well."""
    not_before: float = 0.0
    """Trio's time of the next attempt."""

    def is_due(self) -> bool:
        return bool(self.entries) and trio.current_time() >= self.not_before


class Registry:
    """A database and its worker thread; `run` has to run as long as anybody asks.

    What waits is bounded by who asks: each task waits for its own.
    """

    def __init__(self, path: Path, config: DbConfig, *, opens_at_once: bool = False) -> None:
        self.longest_wait = PATIENCE
        """Seconds for which `patience` lasts."""
        self.commits = 0
        self.failures = 0
        """Attempts that the database would not have."""
        self.longest = 0.0
        """Seconds of the longest transaction."""
        self.trouble = ""
        """Why the last attempt failed; empty if it went well."""
        self.is_used = opens_at_once
        """Whether anybody has asked for anything, or will."""
        self._path = path
        self._config = config
        self._database: Database | None = None
        self._file: tuple[int, int] | None = None  # its identity, once it was there
        self._log: tuple[int, int] | None = None  # the same of its log
        self._writes = _Line()
        self._reads = _Line()
        self._thread = trio.CapacityLimiter(1)
        self._news = trio.Event()
        self._holders = 0
        if opens_at_once:
            self._reads.entries.append(_Entry(lambda _: None))

    # What others do with it.

    async def write(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(database, *args)``, called in the thread, once it is committed.

        It may be called more than once, each time in a transaction where nothing of the time before is left.
        Cancelled, it has either changed nothing, or returns all the same. Raises what the function raises.
        """
        return await self._do(self._writes, function, args)

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(database, *args)``, called in the thread; it must not change anything.

        Raises what the function raises, and QueryError if it takes longer than `LONGEST_READ`.
        """
        return await self._do(self._reads, function, args)

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Raise UnavailableError if what is in the context takes longer than `longest_wait`."""
        with trio.move_on_after(self.longest_wait) as scope:
            yield
        if scope.cancelled_caught:
            raise UnavailableError(f"registry: {self.trouble or f'busy for {self.longest_wait:g} s'}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it running; when its last holder is gone, `run` finishes what waits and returns."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._news.set()

    def __len__(self) -> int:
        """Return how many functions wait or are under way."""
        return len(self._writes.entries) + len(self._reads.entries)

    def problems(self) -> list[str]:
        """Return why it cannot be used; nothing if it can."""
        return [f"registry: {self.trouble}"] if self.trouble else []

    # Its life.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until there are no holders and nothing waits; then close the database."""
        async with self._closing():
            task_status.started()
            line, other = self._reads, self._writes
            while self._holders or len(self):
                if not (line.is_due() or other.is_due()):
                    await self._wait()
                    continue
                if line.is_due():
                    await self._attempt(line)
                line, other = other, line  # in turns: neither line may keep the other one waiting for ever

    async def _wait(self) -> None:
        """Wait for something to do, or for the time to try again."""
        self._news = trio.Event()
        times = [line.not_before for line in (self._reads, self._writes) if line.entries]
        with trio.move_on_at(min(times, default=float("inf"))):
            await self._news.wait()

    async def _do(self, line: _Line, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        assert self._holders, "nobody keeps the registry running"
        entry = _Entry(lambda database: function(database, *args))
        self.is_used = True
        line.entries.append(entry)
        self._news.set()
        try:
            while not entry.is_done:
                await entry.news.wait()
        except trio.Cancelled:
            if not await self._withdraw(line, entry):
                raise
        if entry.error is not None:
            raise entry.error
        result: T = entry.result
        return result

    async def _withdraw(self, line: _Line, entry: _Entry) -> bool:
        """Take back what a cancelled task has asked for; return whether it is too late: it is done."""
        with trio.CancelScope(shield=True):  # an attempt takes a moment, and nobody could tell how it ended
            if entry.is_under_way:
                await entry.news.wait()
        if not entry.is_done:
            line.entries.remove(entry)
        return entry.is_done

    async def _attempt(self, line: _Line) -> None:
        """Try what waits, in one transaction."""
        entries = [line.entries[k] for k in range(min(len(line.entries), MOST_AT_ONCE))]
        for entry in entries:
            entry.is_under_way, entry.error = True, None
        began = trio.current_time()
        try:
            # Shielded, for what the thread has done must not be forgotten; it waits for no lock for long.
            with trio.CancelScope(shield=True):
                done = await trio.to_thread.run_sync(self._transact, line, entries, limiter=self._thread)
        except _TROUBLES as error:
            self._note_failure(line, error)
            self._tell(entries, is_done=False)
        else:
            self._note_success(line)
            self.longest = max(self.longest, trio.current_time() - began)
            for _ in entries[:done]:
                line.entries.popleft()
            self._tell(entries[:done], is_done=True)
            self._tell(entries[done:], is_done=False)
        await trio.lowlevel.checkpoint_if_cancelled()

    def _tell(self, entries: list[_Entry], *, is_done: bool) -> None:
        for entry in entries:
            entry.is_done, entry.is_under_way = is_done, False
            entry.news.set()
            entry.news = trio.Event()

    def _note_failure(self, line: _Line, error: Exception) -> None:
        line.pause = min(2 * line.pause, LONGEST_PAUSE) or FIRST_PAUSE
        line.not_before = trio.current_time() + line.pause
        self.failures += 1
        text = str(error) or type(error).__name__
        if text != self.trouble:
            log.error("registry: %(error)s; tried again until it works", {"error": text})
        self.trouble = text

    def _note_success(self, line: _Line) -> None:
        line.pause = line.not_before = 0.0
        if line is self._writes:
            self.commits += 1
        if self.trouble and (line is self._writes or not self._writes.pause):
            log.warning("registry: works again")
            self.trouble = ""

    @asynccontextmanager
    async def _closing(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):  # else what is in its log would be left there
                await trio.to_thread.run_sync(self._disconnect, limiter=self._thread)

    # In the thread.

    def _transact(self, line: _Line, entries: list[_Entry]) -> int:
        """Call some functions in one transaction, each with a savepoint of its own; return how many.

        These are all but those reads for which there is no time before the next writes. Raises one of
        `_TROUBLES` if the database will not have it; then nothing of it has happened.
        """
        try:
            database, writes = self._connect(), line is self._writes
            done, stop = 0, math.inf if writes else time.monotonic() + LONGEST_READS
            with database.transaction() if writes else database.snapshot():
                while done < len(entries) and time.monotonic() < stop:
                    _call(database, entries[done], writes=writes)
                    done += 1
            self._log = _identity(self._path.with_name(f"{self._path.name}-wal"))
        except _TROUBLES as error:
            if not isinstance(error, BusyError):
                self._disconnect()  # the file may be another one when it is tried again
            raise
        return done

    def _connect(self) -> Database:
        """Return the database, opened if it is not. It is made only once: later it has to be there."""
        found = _identity(self._path)
        if self._file is not None and found != self._file:
            self._disconnect()
            if found is None:
                raise UnavailableError(f"{self._path}: file is gone")
            self._set_log_aside()
        if self._database is None:
            self._database = open_database(
                self._path,
                busy_timeout=min(self._config.busy_timeout_ms / 1000, _LONGEST_WAIT),
                cache_bytes=self._config.cache_size_bytes,
                soft_heap_limit_bytes=self._config.soft_heap_limit_bytes,
            )
            self._file = _identity(self._path)
        return self._database

    def _set_log_aside(self) -> None:
        """Keep the log of the file before from being taken for that of the file that is there now."""
        log_path = self._path.with_name(f"{self._path.name}-wal")
        if self._log is not None and _identity(log_path) == self._log:
            log_path.rename(f"{log_path}.old")
            log.warning(
                "registry: %(path)s: another file; log of the one before set aside", {"path": self._path}
            )
        self._file = self._log = None

    def _disconnect(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            database.close()


def _call(database: Database, entry: _Entry, *, writes: bool) -> None:
    """Call a function; what it raises is its own affair unless the database is in trouble."""
    try:
        limit = nullcontext() if writes else database.limited(LONGEST_READ)
        with limit, database.transaction() if writes else database.snapshot():
            entry.result = entry.function(database)
    except _TROUBLES:
        raise
    except Exception as error:  # of whatever kind: it goes to who asked, and the others have no part in it
        entry.error = error


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def make_registry(config: Config) -> Registry:
    """Make the registry, which is not opened before its first use where there are no clusters and events."""
    main = config.main
    is_needed = bool(config.clusters) or main.api_subjects is not None
    return Registry(Path(main.db), main.db_config, opens_at_once=is_needed)
