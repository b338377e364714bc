"""Jobs in the database: starts, stops, the cache and the main table, the sweep, and what is read back."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from disk_registry import JOB, NOW, change, job, open_new, rows

from ccstore.disk.registry import sql
from ccstore.disk.registry.database import Database
from ccstore.disk.registry.jobs import (
    DAY,
    UsedNodes,
    commit_cache,
    find_job,
    find_jobs,
    refresh_durations,
    start_job,
    stop_job,
    stop_overdue,
    used_nodes,
)
from ccstore.errors import BusyError
from ccstore.model import Job, JobFilter, JobRefusal, JobState, JobStop, RefusedJob, Resource, Tag

FULL = Job(
    cluster="c", subcluster="s", job_id=5, start_time=NOW, user="u", project="p", partition="q",
    array_job_id=6, num_nodes=2, num_hwthreads=3, num_acc=4, smt=1, shared="multi_user", walltime=3600,
    submit_time=NOW - 9,
    monitoring_status=0, metadata={"jobName": "x", "ü": "'; DROP TABLE job"},
    resources=(Resource("h1", (0, 1), ("0000:49:00.0",), "x"), Resource("h2")),
)  # fmt: skip


def started(database: Database, one: Job) -> Job:
    """Start a job, which works."""
    outcome = start_job(database, one)
    assert isinstance(outcome, Job), outcome
    return outcome


def where(database: Database) -> list[tuple[str, int]]:
    """Return table and number of each stored job."""
    text = "SELECT 'cache', job_id FROM job_cache UNION ALL SELECT 'main', job_id FROM job"
    return sorted(rows(database.path, text))


def test_a_start_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field does, whichever table the job is in."""
    with open_new(tmp_path) as database:
        assert started(database, FULL) == evolve(FULL, id=1, cached=True)
        expected = evolve(FULL, id=1, cached=True, duration=30)
        assert find_job(database, 5, now=NOW + 30) == expected
        commit_cache(database)
        assert find_job(database, 5, now=NOW + 30) == evolve(expected, cached=False)
        assert rows(database.path, "SELECT submit_time, duration FROM job") == [(NOW - 9, 0)]


@pytest.mark.parametrize(
    ("changes", "table"),
    [
        ({}, "cache"), ({"smt": 0}, "cache"), ({"smt": 1}, "cache"), ({"smt": 2}, "main"),
        ({"tags": (Tag("t", "n"),)}, "main"), ({"tags": (Tag("t", "n"),), "smt": 4}, "main"),
    ],
)  # fmt: skip
def test_the_table_of_a_start(tmp_path: Path, changes: dict[str, Any], table: str) -> None:
    """Jobs with tags, or with more hardware threads a core than the cache takes, go to the main table."""
    with open_new(tmp_path) as database:
        assert started(database, job(**changes)).cached == (table == "cache")
        assert where(database) == [(table, 1)]


def test_tags(tmp_path: Path) -> None:
    """A tag is stored once, with its first scope, and belongs to many jobs; one named twice counts once."""
    first, other = Tag("type", "name", "u"), Tag("type", "other")
    with open_new(tmp_path) as database:
        started(database, job(1, tags=(first, other, first)))
        started(database, job(2, tags=(Tag("type", "name", "global"),)))
        found = find_jobs(database, JobFilter(), limit=9, now=NOW)
        assert {one.job_id: one.tags for one in found} == {1: (first, other), 2: (first,)}
    text = "SELECT tag_type, tag_name, tag_scope FROM tag ORDER BY id"
    assert rows(database.path, text) == [("type", "name", "u"), ("type", "other", "global")]


@pytest.mark.parametrize("table", ["cache", "main"])
@pytest.mark.parametrize(
    ("apart", "duplicate"),
    [(0, True), (1, True), (-1, True), (DAY - 1, True), (1 - DAY, True), (DAY, False), (-DAY, False)],
)
def test_duplicates(tmp_path: Path, table: str, apart: int, duplicate: bool) -> None:
    """The same number on the same cluster within a day, before or after, is the same job, in either table."""
    with open_new(tmp_path) as database:
        started(database, job(7))
        if table == "main":
            commit_cache(database)
        outcome = start_job(database, job(7, NOW + apart))
        if duplicate:
            name = {"cache": "job_cache", "main": "job"}[table]
            text = f"job 7 of c: began at {NOW} already (row 1 of {name})"
            assert outcome == RefusedJob(JobRefusal.DUPLICATE, text)
            assert len(where(database)) == 1
        else:
            assert isinstance(outcome, Job)


def test_no_duplicates(tmp_path: Path) -> None:
    """Another number, and the same number on another cluster, are other jobs."""
    with open_new(tmp_path) as database:
        started(database, job(7))
        started(database, job(8))
        started(database, job(7, cluster="d"))
        assert len(where(database)) == 3


def test_a_job_that_ended_is_a_duplicate_too(tmp_path: Path) -> None:
    """A start that is repeated after the end does not begin the job again."""
    with open_new(tmp_path) as database:
        started(database, job(7))
        stop_job(database, JobStop(7, NOW + 5))
        assert isinstance(start_job(database, job(7)), RefusedJob)


# --- stops


@pytest.mark.parametrize("table", ["cache", "main"])
def test_a_stop(tmp_path: Path, table: str) -> None:
    """The job is in the main table then, with its state and duration, and nothing else of it changed."""
    with open_new(tmp_path) as database:
        started(database, FULL)
        if table == "main":
            commit_cache(database)
        outcome = stop_job(database, JobStop(5, NOW + 60, state="timeout"))
        expected = evolve(FULL, id=1, state=JobState.TIMEOUT, duration=60)
        assert outcome == expected == find_job(database, 5, now=NOW + 999)
        assert where(database) == [("main", 5)]


def test_a_stop_of_a_job_with_tags(tmp_path: Path) -> None:
    """The answer has its tags."""
    with open_new(tmp_path) as database:
        started(database, job(1, tags=(Tag("t", "n"),)))
        outcome = stop_job(database, JobStop(1, NOW + 1))
        assert isinstance(outcome, Job)
        assert outcome.tags == (Tag("t", "n"),)


def stops() -> list[Any]:
    """Return stops that are refused, why, and with which text. Each has the later mistakes too."""
    missing = JobStop(99, NOW - 9, state="running")
    ended = JobStop(2, NOW - 9, state="running")
    early = JobStop(1, NOW - 1, state="running")
    ends = ", ".join(sorted({state.value for state in JobState} - {"running", "pending"}))
    wanted = f"wanted one of {ends})"
    return [
        (missing, JobRefusal.UNKNOWN, "job 99: not found"),
        (evolve(missing, cluster="c"), JobRefusal.UNKNOWN, "job 99 of c: not found"),
        (JobStop(1, NOW, cluster="d"), JobRefusal.UNKNOWN, "job 1 of d: not found"),
        (JobStop(1, NOW, start_time=NOW + 1), JobRefusal.UNKNOWN, "job 1: not found"),
        (ended, JobRefusal.NOT_RUNNING, "job 2 of c: is failed (wanted running)"),
        (early, JobRefusal.BAD_TIME, f"job 1 of c: stops before it began (got {NOW - 1}, began at {NOW})"),
        (JobStop(1, NOW + 2**31), JobRefusal.BAD_TIME,
         f"job 1 of c: stops too late (got {NOW + 2**31}, began at {NOW})"),
        *[(JobStop(1, NOW, state=state), JobRefusal.BAD_STATE,
           f"job 1 of c: no state to end in (got {state!r}, {wanted}")
          for state in ("running", "pending", "done", "COMPLETED")],
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["cache", "main"])
@pytest.mark.parametrize(("stop", "why", "text"), stops(), ids=str)
def test_stops_that_are_refused(
    tmp_path: Path, table: str, stop: JobStop, why: JobRefusal, text: str
) -> None:
    """The first check that fails is told, and nothing changes."""
    with open_new(tmp_path) as database:
        started(database, job(1))
        started(database, job(2))
        stop_job(database, JobStop(2, NOW + 5, state="failed"))
        if table == "main":
            commit_cache(database)
        before = find_jobs(database, JobFilter(), limit=9, now=NOW)
        assert stop_job(database, stop) == RefusedJob(why, text)
        assert before == find_jobs(database, JobFilter(), limit=9, now=NOW)


ENDS = sorted({state.value for state in JobState} - {"running", "pending"})


@pytest.mark.parametrize("state", ["", *ENDS])
def test_states_to_end_in(tmp_path: Path, state: str) -> None:
    """All but running and pending; without one the job is completed. It may end when it begins."""
    with open_new(tmp_path) as database:
        started(database, job(1))
        outcome = stop_job(database, JobStop(1, NOW, state=state))
        assert isinstance(outcome, Job)
        assert (outcome.state.value, outcome.duration) == (state or "completed", 0)


def test_which_job_a_stop_means(tmp_path: Path) -> None:
    """The newest of the cache, else of the main table, of those that match what is given."""
    with open_new(tmp_path) as database:
        for start in (NOW, NOW + DAY):
            started(database, job(1, start))
        started(database, job(1, cluster="d"))
        commit_cache(database)
        started(database, job(1, NOW + 2 * DAY))
        started(database, job(1, NOW + 3 * DAY))

        def stop(**filters: Any) -> tuple[str, int]:
            outcome = stop_job(database, JobStop(1, NOW + 9 * DAY, **filters))
            assert isinstance(outcome, Job)
            return outcome.cluster, (outcome.start_time - NOW) // DAY

        assert stop() == ("c", 3)
        assert stop(cluster="c", start_time=NOW) == ("c", 0)
        assert stop(cluster="d") == ("d", 0)
        assert stop(cluster="c") == ("c", 2)
        assert where(database) == [("main", 1)] * 5


def test_a_stop_ends_no_other_job(tmp_path: Path) -> None:
    """Whatever was inserted last, and whenever the cache was emptied, only the job that is meant ends."""
    with open_new(tmp_path) as database:
        for number in (1, 2, 3):
            started(database, job(number))
        commit_cache(database)
        started(database, job(4))
        started(database, job(5))
        stop_job(database, JobStop(4, NOW + 1))
        stop_job(database, JobStop(2, NOW + 1))
        running = find_jobs(database, JobFilter(states=(JobState.RUNNING,)), limit=9, now=NOW)
        assert sorted(one.job_id for one in running) == [1, 3, 5]


def test_a_job_in_both_tables(tmp_path: Path) -> None:
    """Another program left it so: it is one job, a stop ends it, and the cache forgets it."""
    with open_new(tmp_path) as database:
        started(database, job(1))
        columns = ", ".join(sql.JOB_COLUMNS)
        change(database.path, f"INSERT INTO job (id, {columns}) SELECT 50, {columns} FROM job_cache")
        started(database, job(2))
        assert [one.id for one in find_jobs(database, JobFilter(), limit=9, now=NOW)] == [50, 2]
        outcome = stop_job(database, JobStop(1, NOW + 1))
        assert isinstance(outcome, Job)
        assert outcome.id == 50
        assert where(database) == [("cache", 2), ("main", 1)]
        assert commit_cache(database) == 1


def test_the_commit_of_the_cache(tmp_path: Path) -> None:
    """All of it moves, in the order in which it was stored, and the cache is empty."""
    with open_new(tmp_path) as database:
        for number in (3, 1, 2):
            started(database, job(number))
        assert commit_cache(database) == 3
        assert commit_cache(database) == 0
        assert rows(database.path, "SELECT id, job_id FROM job ORDER BY id") == [(1, 3), (2, 1), (3, 2)]
        assert rows(database.path, "SELECT count(*) FROM job_cache") == [(0,)]


def test_a_commit_while_another_program_writes(tmp_path: Path) -> None:
    """It fails as a whole, and works when the other one is done."""
    with open_new(tmp_path) as database:
        started(database, job(1))
        other = sqlite3.connect(database.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError):
            commit_cache(database)
        assert where(database) == [("cache", 1)]
        other.close()
        assert commit_cache(database) == 1


# --- durations and the sweep


def test_durations(tmp_path: Path) -> None:
    """Those of running jobs are refreshed in both tables, and never below 0; others stay."""
    with open_new(tmp_path) as database:
        started(database, job(1))
        started(database, job(2))
        stop_job(database, JobStop(2, NOW + 7))
        started(database, job(3))
        commit_cache(database)
        started(database, job(4))
        started(database, job(5, NOW + 1000))
        assert refresh_durations(database, NOW + 100) == 4
        text = "SELECT job_id, duration FROM job UNION SELECT job_id, duration FROM job_cache"
        assert sorted(rows(database.path, text)) == [(1, 100), (2, 7), (3, 100), (4, 100), (5, 0)]


@pytest.mark.parametrize("table", ["cache", "main"])
@pytest.mark.parametrize(
    ("walltime", "later", "ended"),
    [(100, 130, False), (100, 131, True), (100, 10**6, True), (0, 10**6, False), (-5, 10**6, False)],
)
def test_jobs_beyond_their_walltime(
    tmp_path: Path, table: str, walltime: int, later: int, ended: bool
) -> None:
    """They end as failed after the walltime and the grace, having run for the walltime."""
    with open_new(tmp_path) as database:
        started(database, job(1, walltime=walltime))
        started(database, job(2, walltime=2 * 10**6))
        if table == "main":
            commit_cache(database)
        swept = stop_overdue(database, NOW + later, 30)
        expected = [evolve(JOB, walltime=walltime, state=JobState.FAILED, duration=walltime, id=1)]
        assert swept == (expected if ended else [])
        assert find_job(database, 1, now=NOW) == (expected[0] if ended else find_job(database, 1, now=NOW))
        other = find_job(database, 2, now=NOW)
        assert other is not None
        assert other.state is JobState.RUNNING
        assert stop_overdue(database, NOW + later, 30) == []


# --- reading


def test_used_nodes(tmp_path: Path) -> None:
    """Hosts of running jobs of both tables that began before the time, by cluster, sorted, each once."""
    with open_new(tmp_path) as database:
        started(database, job(1, NOW, resources=(Resource("b"), Resource("a"))))
        commit_cache(database)
        started(database, job(2, NOW + 1, resources=(Resource("c"), Resource("a"))))
        started(database, job(3, NOW, cluster="d", resources=(Resource("x"), Resource(""))))
        started(database, job(4, NOW, cluster="e", resources=(Resource("y"),)))
        stop_job(database, JobStop(4, NOW + 1))
        assert used_nodes(database, NOW) == UsedNodes({}, [])
        assert used_nodes(database, NOW + 1) == UsedNodes({"c": ["a", "b"], "d": ["x"]}, [])
        assert used_nodes(database, NOW + 2) == UsedNodes({"c": ["a", "b", "c"], "d": ["x"]}, [])


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "[1]", '[{"hostname":5}]', "[{"])
def test_resources_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """Their job is skipped with a warning; it is listed without hosts, and no host filter finds it."""
    with open_new(tmp_path) as database:
        started(database, job(1))
        started(database, job(2, resources=(Resource("good"),)))
        change(database.path, f"UPDATE job_cache SET resources = '{text}' WHERE job_id = 1")
        hosts, (warning,) = used_nodes(database, NOW + 1).hosts, used_nodes(database, NOW + 1).warnings
        assert hosts == {"c": ["good"]}
        assert warning.startswith("job 1 of c: unreadable resources (")
        assert {one.job_id: one.resources for one in find_jobs(database, JobFilter(), limit=9, now=NOW)} == {
            1: (), 2: (Resource("good"),),
        }  # fmt: skip
        assert len(find_jobs(database, JobFilter(hosts=("good", "h1")), limit=9, now=NOW)) == 1


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (JobFilter(), [4, 3, 2, 1]), (JobFilter(clusters=("d",)), [3]),
        (JobFilter(clusters=("c", "d")), [4, 3, 2, 1]),
        (JobFilter(states=(JobState.RUNNING,)), [4, 3, 1]), (JobFilter(states=(JobState.COMPLETED,)), [2]),
        (JobFilter(users=("v",)), [2]), (JobFilter(projects=("q",)), [3]), (JobFilter(hosts=("b",)), [4, 2]),
        (JobFilter(hosts=("x", "b")), [4, 3, 2]), (JobFilter(hosts=("B",)), []),
        (JobFilter(hosts=("hostname",)), []),
        (JobFilter(clusters=("c",), states=(JobState.RUNNING,), users=("u",), hosts=("b",)), [4]),
        (JobFilter(users=("' OR 1 --",)), []),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("committed", [False, True])
def test_filters(tmp_path: Path, committed: bool, wanted: JobFilter, numbers: list[int]) -> None:
    """All conditions must hold, each for any of its values; the newest start comes first."""
    with open_new(tmp_path) as database:
        started(database, job(1, NOW + 1, resources=(Resource("a"),)))
        started(database, job(2, NOW + 2, user="v", resources=(Resource("a"), Resource("b"))))
        started(database, job(3, NOW + 3, cluster="d", project="q", resources=(Resource("x"),)))
        stop_job(database, JobStop(2, NOW + 9))
        if committed:
            commit_cache(database)
        started(database, job(4, NOW + 4, resources=(Resource("b"),)))
        assert numbers == [one.job_id for one in find_jobs(database, wanted, limit=9, now=NOW)]
        assert numbers[:2] == [one.job_id for one in find_jobs(database, wanted, limit=2, now=NOW)]


def test_one_job(tmp_path: Path) -> None:
    """The one that began last, of the cluster and with the start that are given."""
    with open_new(tmp_path) as database:
        started(database, job(1, NOW + DAY))
        commit_cache(database)
        started(database, job(1, NOW))
        started(database, job(1, NOW, cluster="d"))

        def start(**filters: Any) -> tuple[str, int] | None:
            found = find_job(database, 1, now=NOW, **filters)
            return found and (found.cluster, found.start_time - NOW)

        assert start() == ("c", DAY)
        assert start(cluster="d") == ("d", 0)
        assert start(cluster="c", start_time=NOW) == ("c", 0)
        assert start(start_time=NOW + 1) is None
        assert find_job(database, 2, now=NOW) is None


NEWEST = {"job_id": 1, "cluster": "", "start_time": 0}


@pytest.mark.parametrize(
    ("text", "parameters", "index"),
    [
        (sql.DUPLICATE_OF["job"], (1, "c", 2, 3),
         "sqlite_autoindex_job_1 (job_id=? AND cluster=? AND start_time>? AND start_time<?)"),
        (sql.NEWEST_STORED["job"], NEWEST, "sqlite_autoindex_job_1 (job_id=?"),
        (sql.NEWEST_STARTED["job"], NEWEST, "sqlite_autoindex_job_1 (job_id=?"),
        (sql.USED_RESOURCES["job"], (1,), "(job_state=?"),
        (sql.OVERDUE["job"], {"now": 1, "grace": 2}, "(job_state=?"),
        (sql.REFRESH_DURATIONS["job"], {"now": 1}, "(job_state=?"),
        (sql.JOBS["job"].format(conditions="true"), (1,), "SCAN job USING INDEX jobs_starttime"),
        (sql.JOBS["job"].format(conditions=f"cluster {sql.ANY} AND job_state {sql.ANY}"), ("[]", "[]", 1),
         "jobs_cluster_jobstate_starttime_duration (cluster=? AND job_state=?)"),
        (sql.JOBS["job"].format(conditions=f"hpc_user {sql.ANY}"), ("[]", 1),
         "jobs_user_starttime_duration (hpc_user=?)"),
        (sql.TAGS_OF_JOBS, ("[]",), "(job_id=?)"),
    ],
)  # fmt: skip
def test_the_plans(tmp_path: Path, text: str, parameters: Any, index: str) -> None:
    """No hot statement walks through all jobs."""
    with open_new(tmp_path) as database, database.snapshot():
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", parameters)]
    assert any(index in step for step in plan), plan
    assert not any(re.fullmatch("SCAN (job|jobtag)", step) for step in plan), plan
