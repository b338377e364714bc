"""The database of nodes and jobs: one connection, its transactions, and whose fault an error is.

Owns the connection and the version of the schema; knows nothing of nodes and jobs. Everything here blocks.
A `Database` may be used by any thread, but by one at a time.

Invariant: a file is changed only by transactions of its callers. A file that is no database, or one of
another version, is refused and left as it was; an empty one gets the whole schema in one transaction.

Several writes share a commit: a transaction inside another one is a savepoint, so each write takes back
only itself, and the outer one decides for all. SQLite itself ends the outer one when the disk is full; then
nothing inside it counts any more, and `Database.transaction` says so to everybody who took part.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ccstore.disk.registry import sql
from ccstore.errors import (
    BusyError,
    CcstoreError,
    ConfigError,
    CorruptionError,
    ProtocolError,
    QueryError,
    UnavailableError,
)

__all__ = ["Database", "open_database"]

Parameters = Sequence[Any] | Mapping[str, Any]

_STEPS = 100_000
"""Instructions of SQLite's machine between two looks at the clock: some milliseconds."""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Database:
    """An open database; made by `open_database`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._depth = 0

    def execute(self, text: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement, inside of `transaction` or `snapshot`."""
        assert self._depth, "a statement outside of any transaction"
        return self._connection.execute(text, parameters)

    def execute_many(self, text: str, rows: Sequence[Parameters]) -> int:
        """Run a statement for each row of parameters; returns how many rows of the table it changed."""
        assert self._depth, "a statement outside of any transaction"
        return self._connection.executemany(text, rows).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is stored together, or nothing of it if it raises.

        Inside of another transaction: stored with that one, and taken back alone. Raises BusyError if
        another program writes for longer than the time that was allowed, UnavailableError if the disk is
        full or fails, CorruptionError if the file is damaged, ProtocolError if a value breaks a rule of
        the schema.
        """
        with self._entered(), self._translated():
            if self._depth > 1:
                with self._savepoint():
                    yield
            else:
                self._connection.execute(sql.BEGIN_WRITE)
                with self._ended():
                    yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read inside belongs to one moment. Raises as `transaction` does."""
        with self._entered(), self._translated():
            if self._depth > 1:
                yield
            else:
                self._connection.execute(sql.BEGIN_READ)
                with self._ended():
                    yield

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Cut off a statement that is still at work after so many seconds: it raises QueryError."""
        stop = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > stop, _STEPS)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)

    def close(self) -> None:
        """Close the connection; the last one that closes moves the log into the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
            self._check_alive()
            self._connection.execute(sql.COMMIT)
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute(sql.ROLLBACK)
            raise

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        self._check_alive()
        self._connection.execute(sql.SAVEPOINT)
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute(sql.ROLLBACK_TO)
                self._connection.execute(sql.RELEASE)
            raise
        self._check_alive()
        self._connection.execute(sql.RELEASE)

    def _check_alive(self) -> None:
        if not self._connection.in_transaction:
            raise UnavailableError(f"{self.path}: the transaction was taken back because of an earlier error")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # a bug of the caller, which no other attempt would mend
        except (sqlite3.Error, OverflowError) as error:
            raise translate(error, self.path) from error


def translate(error: sqlite3.Error | OverflowError, path: Path) -> CcstoreError:
    """Return the error of ours that says who must act."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the low byte is the kind
    if code in _BUSY:
        return BusyError(f"{path}: locked by another program ({error})")
    if code in _DAMAGED:
        return CorruptionError(f"{path}: not a database, or damaged ({error})")
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryError(f"{path.name}: too much to look through (wanted a narrower question)")
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError):
        return ProtocolError(f"{path}: refused by the database ({error})")
    return UnavailableError(f"{path}: cannot be used ({error})")


def open_database(
    path: Path,
    *,
    busy_timeout: float = 60.0,
    cache_bytes: int = 2048 << 20,
    soft_heap_limit_bytes: int = 0,
    read_only: bool = False,
) -> Database:
    """Open a database of nodes and jobs; unless `read_only`, one that is missing or empty is made.

    `busy_timeout` is how long, in seconds, a statement waits for another program that writes. A heap limit of
    0 is none. Raises ConfigError where the operator must act: the directory cannot be used, the schema has
    another version, or a migration of the reference did not end; CorruptionError if the file is no database;
    BusyError if another program holds it.
    """
    if not read_only:
        _make_directory(path)
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=busy_timeout,
            isolation_level=None,  # transactions begin where we say, not where Python guesses
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise ConfigError(f"main.db: {path}: cannot be opened ({error})") from error
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        connection.text_factory = _decode
        database = Database(connection, path)
        try:
            _prepare(database, connection, cache_bytes, soft_heap_limit_bytes, read_only=read_only)
        except sqlite3.Error as error:
            raise translate(error, path) from error
        stack.pop_all()
        return database


def _make_directory(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"main.db: {path}: directory cannot be made ({error.strerror})") from error


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")  # whoever shares the file may have stored anything


def _prepare(
    database: Database, connection: sqlite3.Connection, cache: int, heap: int, *, read_only: bool
) -> None:
    """Look at the file before anything may change it, then set up the connection."""
    with database.snapshot():
        empty = not _check(database, may_be_empty=not read_only)
    for text in sql.SETTINGS:
        connection.execute(text)
    connection.execute(sql.CACHE_SIZE.format(kib=cache >> 10))
    if heap:
        connection.execute(sql.SOFT_HEAP_LIMIT.format(bytes=heap))
    if read_only:
        connection.execute(sql.READ_ONLY)
        return
    connection.execute(sql.WRITE_AHEAD)
    if empty:
        with database.transaction():
            if not _check(database, may_be_empty=True):  # another program may have been faster
                for text in sql.SCHEMA:
                    database.execute(text)


def _check(database: Database, *, may_be_empty: bool) -> bool:
    """Return whether there is anything in the database. Raises ConfigError if it is nothing for us."""
    where = f"main.db: {database.path}"
    tables = {name for (name,) in database.execute(sql.TABLES)}
    if not tables and may_be_empty:
        return False
    if "schema_migrations" not in tables:
        raise ConfigError(f"{where}: not a database of jobs (no table schema_migrations)")
    versions = database.execute(sql.MIGRATIONS).fetchall()
    version, dirty = versions[-1] if versions else (0, False)
    if dirty:
        raise ConfigError(f"{where}: the migration to version {version} did not end (wanted: a repair)")
    if version != sql.VERSION:
        cure = "migrate it with the reference store" if version < sql.VERSION else "update ccstore"
        raise ConfigError(f"{where}: schema version {version} (wanted {sql.VERSION}: {cure})")
    for table, wanted in sql.COLUMNS.items():
        missing = wanted - {name for (name,) in database.execute(sql.COLUMNS_OF, (table,))}
        if missing:
            raise ConfigError(f"{where}: table {table} lacks {', '.join(sorted(missing))}")
    return True
