"""The database file: made, shared, refused, locked, full, and what a transaction is."""

import random
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from disk_registry import NOW, REFERENCE, change, job, node, open_new, rows

from ccstore.disk.registry import jobs, nodes, sql
from ccstore.disk.registry.database import Database, open_database
from ccstore.errors import BusyError, ConfigError, CorruptionError, ProtocolError, UnavailableError
from ccstore.model import (
    Job,
    JobFilter,
    JobState,
    JobStop,
    NodeFilter,
    NodeRecord,
    NodesStored,
    NodeState,
    Tag,
)

SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"


def columns(path: Path, table: str) -> list[tuple[str, bool]]:
    """Return name and NOT NULL of each column."""
    return sorted(rows(path, 'SELECT name, "notnull" FROM pragma_table_info(?)', table))


def test_a_new_database(tmp_path: Path) -> None:
    """It has the tables of version 11, and the directories above it are made."""
    path = tmp_path / "var" / "deep" / "job.db"
    open_database(path).close()
    change(tmp_path / "reference.db", REFERENCE)
    assert rows(path, "SELECT version, dirty FROM schema_migrations") == [(11, 0)]
    for table in sql.COLUMNS:
        expected = [c for c in columns(tmp_path / "reference.db", table) if c[0] != "tag_scope"]
        assert expected == [c for c in columns(path, table) if c[0] != "tag_scope"]


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("node_state", "time_stamp, node_state, health_state) VALUES (1, 'draining', 'full'"),
        ("node_state", "time_stamp, node_state, health_state) VALUES (1, 'idle', 'good'"),
        ("node_state", "time_stamp, node_state, health_state, node_id) VALUES (1, 'idle', 'full', 99"),
        ("node_state", "node_state, health_state) VALUES ('idle', 'full'"),
        ("node", "hostname, cluster) VALUES ('h', 'c'"),
        ("jobtag", "job_id, tag_id) VALUES (1, 1"),
    ],
)  # fmt: skip
def test_the_rules_of_the_schema(tmp_path: Path, table: str, values: str) -> None:
    """What breaks one is refused as the sender's mistake, and nothing is stored."""
    with open_new(tmp_path) as database:
        with pytest.raises(ProtocolError, match="refused by the database"), database.transaction():
            database.execute(f"INSERT INTO {table} ({values})")
        assert rows(database.path, f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize("table", ["job", "job_cache"])
@pytest.mark.parametrize(
    ("field", "value", "good"),
    [
        ("job_state", "'stopped'", False), ("shared", "'yes'", False), ("monitoring_status", "4", False),
        ("resources", "NULL", False), ("smt", "2", None), ("job_state", "'deadline'", True),
        ("shared", "'single_user'", True), ("monitoring_status", "3", True), ("footprint", "'null'", True),
    ],
)  # fmt: skip
def test_the_rules_of_the_tables_of_jobs(
    tmp_path: Path, table: str, field: str, value: str, good: bool | None
) -> None:
    """They are the same for both, but for the hardware threads of a core."""
    accepted = table == "job" if good is None else good
    with open_new(tmp_path) as database:
        with database.transaction():
            jobs.start_job(database, job(smt=0))
            database.execute(sql.COMMIT_CACHE)
        text = f"UPDATE {table} SET {field} = {value}"
        try:
            with database.transaction():
                database.execute(text)
        except ProtocolError:
            assert not accepted
        else:
            assert accepted


def test_a_database_of_the_reference(tmp_path: Path) -> None:
    """It opens, everything in it is found, what is stored lands beside it, and its schema stays as it is."""
    path = tmp_path / "job.db"
    change(path, REFERENCE)
    before = rows(path, SCHEMA)
    with open_database(path) as database:
        found = jobs.find_jobs(database, JobFilter(), limit=9, now=NOW)
        assert [(one.id, one.job_id, one.state, one.duration) for one in found] == [
            (3, 2, JobState.RUNNING, 400), (40, 1, JobState.COMPLETED, 100),
        ]  # fmt: skip
        assert found[1].tags == (Tag("type", "name", "global"),)
        assert (found[1].partition, found[1].num_acc, found[1].array_job_id) == ("", 0, 0)
        assert nodes.store_report(database, "c", NOW, [node()]) == NodesStored(1)
        (status,) = nodes.current_states(database, NodeFilter())
        assert (status.record.time, status.since) == (NOW, NOW - 60)
        stopped = jobs.stop_job(database, JobStop(2, NOW))
        assert isinstance(stopped, Job)
        assert stopped.id == 41
        assert isinstance(jobs.start_job(database, job(3)), Job)
    assert before == rows(path, SCHEMA)
    assert rows(path, "SELECT meta_data FROM node") == [('{"rack":"1"}',)]
    assert rows(path, "SELECT footprint FROM job ORDER BY id") == [('{"cpu_load_avg":1.5}',), (None,)]
    assert rows(path, "SELECT username FROM hpc_user") == [("u",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_what_the_reference_cannot_read_is_never_written(tmp_path: Path) -> None:
    """Its programs stop at a NULL in these columns."""
    with open_new(tmp_path) as database:
        jobs.start_job(database, job())
        nodes.store_report(database, "c", NOW, [node()])
        nulls = (
            "cluster_partition, array_job_id, num_hwthreads, num_acc, meta_data, footprint, energy_footprint"
        )
        assert None not in rows(database.path, f"SELECT {nulls} FROM job_cache")[0]
        assert None not in rows(database.path, "SELECT health_metrics FROM node_state")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("UPDATE schema_migrations SET version = 10",
         "schema version 10 (wanted 11: migrate it with the reference store)"),
        ("UPDATE schema_migrations SET version = 12", "schema version 12 (wanted 11: update ccstore)"),
        ("UPDATE schema_migrations SET dirty = 1",
         "the migration to version 11 did not end (wanted: a repair)"),
        ("DELETE FROM schema_migrations",
         "schema version 0 (wanted 11: migrate it with the reference store)"),
        ("DROP TABLE schema_migrations", "not a database of jobs (no table schema_migrations)"),
        ("DROP TABLE jobtag", "table jobtag lacks job_id, tag_id"),
        ("ALTER TABLE node DROP COLUMN meta_data", "table node lacks meta_data"),
    ],
    ids=["older", "newer", "dirty", "no version", "another", "a table less", "a column less"],
)  # fmt: skip
def test_databases_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """The operator is told what to do, and the file stays as it was."""
    path = tmp_path / "job.db"
    change(path, REFERENCE + text)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        open_database(path)
    assert f"main.db: {path}: {message}" == str(caught.value)
    assert [path] == list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_database(path, read_only=True)
    assert before == path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000, random.Random(5).randbytes(4096)],
    ids=["text", "header", "noise"],
)
def test_garbage_in_place_of_a_database(tmp_path: Path, content: bytes) -> None:
    """It is an error that says so, and not a byte changes."""
    path = tmp_path / "job.db"
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match=r"job\.db: not a database, or damaged"):
        open_database(path)
    assert content == path.read_bytes()


def test_an_empty_file(tmp_path: Path) -> None:
    """It becomes a database: somebody may have made it to own it."""
    (tmp_path / "job.db").touch()
    open_new(tmp_path).close()
    assert rows(tmp_path / "job.db", "SELECT version FROM schema_migrations") == [(11,)]


def test_paths_that_cannot_be_a_database(tmp_path: Path) -> None:
    """A directory, a path below a file, and a missing file that is only to be read."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "file" / "job.db", tmp_path / "directory"):
        with pytest.raises(ConfigError, match=r"^main\.db: .*(cannot be opened|directory cannot be made)"):
            open_database(path)
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_database(tmp_path / "job.db", read_only=True)
    assert not (tmp_path / "job.db").exists()


def test_odd_names_of_files(tmp_path: Path) -> None:
    """A name is a name, whatever it would mean in an address."""
    path = tmp_path / "a?mode=memory#%41 b.db"
    open_database(path).close()
    assert path.exists()


def test_the_settings(tmp_path: Path) -> None:
    """They are those of the reference."""
    with (
        open_database(tmp_path / "job.db", busy_timeout=5, cache_bytes=1 << 20) as database,
        database.snapshot(),
    ):
        settings = {
            name: database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "busy_timeout",
                "temp_store",
                "cache_size",
            )
        }
    assert settings == {
        "journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 5000, "temp_store": 2,
        "cache_size": -1024,
    }  # fmt: skip


# --- transactions


def count(database: Database) -> int:
    """Return how many jobs another program sees."""
    return int(rows(database.path, "SELECT count(*) FROM job_cache")[0][0])


def write_and_fail(database: Database, error: type[BaseException]) -> None:
    """Store a job in a transaction that ends with an error."""
    with database.transaction():
        jobs.start_job(database, job(2))
        raise error


def test_writes_share_a_commit(tmp_path: Path) -> None:
    """Nothing is seen by others before the outer transaction ends, and then everything is."""
    with open_new(tmp_path) as database:
        with database.transaction():
            jobs.start_job(database, job(1))
            jobs.start_job(database, job(2))
            assert count(database) == 0
        assert count(database) == 2


def test_one_that_fails_takes_back_only_itself(tmp_path: Path) -> None:
    """The others that share its commit are stored."""
    with open_new(tmp_path) as database:
        with database.transaction():
            jobs.start_job(database, job(1))
            with pytest.raises(ZeroDivisionError):
                write_and_fail(database, ZeroDivisionError)
            jobs.start_job(database, job(3))
        assert rows(database.path, "SELECT job_id FROM job_cache ORDER BY job_id") == [(1,), (3,)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_takes_everything_back(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever it is, and the connection works on."""
    with open_new(tmp_path) as database:
        with pytest.raises(error):
            write_and_fail(database, error)
        assert count(database) == 0
        jobs.start_job(database, job(2))
        assert count(database) == 1


def test_two_programs_share_the_file(tmp_path: Path) -> None:
    """A reader goes on seeing the moment at which it began; we write meanwhile."""
    with open_new(tmp_path) as database:
        jobs.start_job(database, job(1))
        reader = sqlite3.connect(database.path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM job_cache").fetchone() == (1,)
        jobs.start_job(database, job(2))
        nodes.store_report(database, "c", NOW, [node()])
        assert reader.execute("SELECT count(*) FROM job_cache").fetchone() == (1,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM job_cache").fetchone() == (2,)
        reader.close()


def test_a_second_connection_of_our_own(tmp_path: Path) -> None:
    """It sees what is committed, and cannot write."""
    with open_new(tmp_path) as database, open_database(database.path, read_only=True) as reader:
        with database.transaction():
            jobs.start_job(database, job(1))
            assert jobs.find_jobs(reader, JobFilter(), limit=9, now=NOW) == []
        assert len(jobs.find_jobs(reader, JobFilter(), limit=9, now=NOW)) == 1
        with pytest.raises(UnavailableError, match="cannot be used"):
            jobs.start_job(reader, job(2))


def test_a_locked_database(tmp_path: Path) -> None:
    """Writes say that they can be tried again, reads go on, and afterwards everything works."""
    with open_new(tmp_path) as database:
        jobs.start_job(database, job(1))
        other = sqlite3.connect(database.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match=r"job\.db: locked by another program"):
            jobs.start_job(database, job(2))
        assert len(jobs.find_jobs(database, JobFilter(), limit=9, now=NOW)) == 1
        other.execute("COMMIT")
        other.close()
        assert isinstance(jobs.start_job(database, job(2)), Job)


def share_a_commit(database: Database, many: list[NodeRecord]) -> None:
    """Start two jobs around a report that does not fit."""
    with database.transaction():
        jobs.start_job(database, job(2))
        with pytest.raises(UnavailableError, match="full"):
            nodes.store_report(database, "c", NOW, many)
        with pytest.raises(UnavailableError, match="taken back because of an earlier error"):
            jobs.start_job(database, job(3))


def test_a_full_disk(tmp_path: Path) -> None:
    """A report is stored whole or not at all; whoever shared its commit is told that nothing counts."""
    with open_new(tmp_path) as database:
        jobs.start_job(database, job(1))
        with database.snapshot():
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {pages + 2}")
        many = [node(f"h{k}") for k in range(5000)]
        with pytest.raises(UnavailableError, match="database or disk is full"):
            nodes.store_report(database, "c", NOW, many)
        with pytest.raises(UnavailableError, match="taken back because of an earlier error"):
            share_a_commit(database, many)
        assert rows(database.path, "SELECT count(*) FROM node_state") == [(0,)]
        assert rows(database.path, "SELECT job_id FROM job_cache") == [(1,)]
        with database.snapshot():
            database.execute("PRAGMA max_page_count = 1000000")
        assert nodes.store_report(database, "c", NOW, many).stored == 5000


KILLED = """
import os, pathlib, signal, sys
from ccstore.disk.registry import jobs, nodes
from ccstore.disk.registry.database import open_database
from ccstore.model import JobStop
from disk_registry import NOW, job, node
database = open_database(pathlib.Path(sys.argv[1]))
jobs.start_job(database, job(1))
left = int(sys.argv[2])
run = database.execute
def execute(text, parameters=()):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(text, parameters)
database.execute = execute
with database.transaction():
    jobs.stop_job(database, JobStop(1, NOW + 5))
    nodes.store_report(database, "c", NOW, [node("h1"), node("h2")])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("statements", [0, 2, 3, 4, 6, 99])
def test_killed_between_two_statements(tmp_path: Path, statements: int) -> None:
    """What was committed is there, nothing of what was not is, and the file is whole."""
    path = tmp_path / "job.db"
    root = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(statements)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    with open_database(path) as database:
        (only,) = jobs.find_jobs(database, JobFilter(), limit=9, now=NOW)
        assert (only.state, only.cached) == (JobState.RUNNING, True)
        assert nodes.current_states(database, NodeFilter(states=(NodeState.IDLE,))) == []
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
