"""Jobs in the database: started, stopped, swept up, and read back.

A job that begins is a row of the cache table; every few minutes the cache is emptied into the main table,
which has many indexes and is costly to write. A job that ends is moved there first. Each function is one
transaction, or a part of the caller's; it takes times as arguments and reads no clock.

Invariant: a job (number, cluster, start) is in one of the two tables, and what changes one job never touches
another. The reference store may share the file, so nothing of this is taken for granted: how many rows a
statement changed is looked at, and a job that is in both tables anyway counts as the one in the main table.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from attrs import evolve, frozen

from ccstore.disk.registry import sql
from ccstore.disk.registry.database import Database
from ccstore.errors import ProtocolError
from ccstore.model import Job, JobFilter, JobRefusal, JobState, JobStop, RefusedJob, Resource, Tag
from ccstore.wire.jobs import decode_resources, encode_resources

__all__ = [
    "UsedNodes",
    "commit_cache",
    "find_job",
    "find_jobs",
    "refresh_durations",
    "start_job",
    "stop_job",
    "stop_overdue",
    "used_nodes",
]

DAY = 86400
_LONGEST = 2**31 - 1
"""Seconds of a duration; the reference reads it as 32 bits."""
_ENDS = frozenset(JobState) - {JobState.RUNNING, JobState.PENDING}


@frozen
class UsedNodes:
    """Which hosts have running jobs."""

    hosts: Mapping[str, Sequence[str]]
    """By cluster, sorted, each once; clusters without a running job are absent."""
    warnings: Sequence[str]
    """Jobs whose hosts could not be read, a line each."""


def start_job(database: Database, job: Job) -> Job | RefusedJob:
    """Store a job that begins; returns it as it was stored, or why it was not.

    A job with the same number on the same cluster that began less than a day before or after is the same job.
    Jobs with tags go to the main table, because tags belong to its rows, and so do those with more hardware
    threads a core than the cache table takes.
    """
    with database.transaction():
        span = (job.job_id, job.cluster, job.start_time - DAY, job.start_time + DAY)
        for table in (sql.CACHE, sql.MAIN):
            found = database.execute(sql.DUPLICATE_OF[table], span).fetchone()
            if found is not None:
                row, began = found
                text = f"job {job.job_id} of {job.cluster}: began at {began} already (row {row} of {table})"
                return RefusedJob(JobRefusal.DUPLICATE, text)
        cached = not job.tags and job.smt in (0, 1)
        number = database.execute(sql.INSERT_JOB[sql.CACHE if cached else sql.MAIN], _values(job)).lastrowid
        assert number is not None
        for tag in job.tags:
            database.execute(sql.INSERT_TAG, (tag.type, tag.name, tag.scope))
            (tag_id,) = database.execute(sql.TAG_ID, (tag.type, tag.name)).fetchone()
            database.execute(sql.INSERT_JOB_TAG, (number, tag_id))
        return evolve(job, id=number, cached=cached)


def stop_job(database: Database, stop: JobStop) -> Job | RefusedJob:
    """Store that a job ended; returns it as it is stored now, or why nothing changed."""
    with database.transaction():
        job = next(_named(database, sql.NEWEST_STORED, stop.job_id, stop.cluster, stop.start_time), None)
        if job is None:
            where = f" of {stop.cluster}" if stop.cluster else ""
            return RefusedJob(JobRefusal.UNKNOWN, f"job {stop.job_id}{where}: not found")
        where = f"job {job.job_id} of {job.cluster}"
        if job.state is not JobState.RUNNING:
            return RefusedJob(JobRefusal.NOT_RUNNING, f"{where}: is {job.state.value} (wanted running)")
        duration = stop.stop_time - job.start_time
        if not 0 <= duration <= _LONGEST:
            text = f"{where}: stops {'before it began' if duration < 0 else 'too late'}"
            text = f"{text} (got {stop.stop_time}, began at {job.start_time})"
            return RefusedJob(JobRefusal.BAD_TIME, text)
        state = _end_state(stop.state)
        if state is None:
            wanted = ", ".join(sorted(end.value for end in _ENDS))
            text = f"{where}: no state to end in (got {stop.state!r}, wanted one of {wanted})"
            return RefusedJob(JobRefusal.BAD_STATE, text)
        return _end(database, job, state, duration)


def _end_state(text: str) -> JobState | None:
    if not text:
        return JobState.COMPLETED
    with suppress(ValueError):
        state = JobState(text)
        return state if state in _ENDS else None
    return None


def _end(database: Database, job: Job, state: JobState, duration: int) -> Job:
    """Store the end of a running job, which is in the main table afterwards."""
    number = _move(database, job) if job.cached else job.id
    changed = database.execute(sql.END_JOB, (state.value, duration, job.monitoring_status, number)).rowcount
    assert changed == 1, f"the end of job {job.job_id} changed {changed} rows"
    return evolve(job, id=number, cached=False, state=state, duration=duration)


def _move(database: Database, job: Job) -> int:
    """Move a job from the cache to the main table; returns its row there."""
    moved = database.execute(sql.MOVE_JOB, (job.id,))
    forgotten = database.execute(sql.FORGET_CACHED, (job.id,)).rowcount
    assert forgotten == 1, f"{forgotten} rows of job {job.job_id} in the cache"
    if moved.rowcount == 1 and moved.lastrowid is not None:
        return moved.lastrowid
    # It is in the main table too, which another program has done; the number of its row is not the last one.
    (number,) = database.execute(sql.JOB_OF_KEY, (job.job_id, job.cluster, job.start_time)).fetchone()
    return int(number)


def commit_cache(database: Database) -> int:
    """Move all jobs of the cache to the main table; returns how many were new there."""
    with database.transaction():
        moved = database.execute(sql.COMMIT_CACHE).rowcount
        database.execute(sql.EMPTY_CACHE)
        return moved


def refresh_durations(database: Database, now: int) -> int:
    """Store how long running jobs have run, for others who read the file; returns how many run."""
    with database.transaction():
        texts = (sql.REFRESH_DURATIONS[table] for table in (sql.CACHE, sql.MAIN))
        return sum(database.execute(text, {"now": now}).rowcount for text in texts)


def stop_overdue(database: Database, now: int, grace: int) -> list[Job]:
    """End jobs that ran for more than `grace` seconds beyond their walltime, as failed; returns them.

    Their schedulers never told of their end. They count as having run for the walltime.
    """
    with database.transaction():
        overdue: list[Job] = []
        for table in (sql.CACHE, sql.MAIN):
            rows = database.execute(sql.OVERDUE[table], {"now": now, "grace": grace}).fetchall()
            overdue += _jobs(database, rows, cached=table == sql.CACHE)
        return [
            _end(database, job, JobState.FAILED, max(0, min(now - job.start_time, job.walltime, _LONGEST)))
            for job in overdue
        ]


def used_nodes(database: Database, before: int) -> UsedNodes:
    """Return the hosts of the running jobs that began before a time in seconds."""
    hosts: dict[str, set[str]] = {}
    warnings = []
    with database.snapshot():
        for table in (sql.CACHE, sql.MAIN):
            for job_id, cluster, text in database.execute(sql.USED_RESOURCES[table], (before,)):
                try:
                    names = {resource.hostname for resource in decode_resources(text)}
                except ProtocolError as error:
                    warnings.append(f"job {job_id} of {cluster}: unreadable resources ({error})")
                else:
                    hosts.setdefault(cluster, set()).update(names - {""})
    found = {cluster: sorted(names) for cluster, names in sorted(hosts.items()) if names}
    return UsedNodes(found, warnings)


def find_jobs(database: Database, wanted: JobFilter, *, limit: int, now: int) -> list[Job]:
    """Return jobs that match, newest start first; running ones have run until `now`, in seconds."""
    lists: Mapping[str, Sequence[str]] = {
        f"cluster {sql.ANY}": wanted.clusters,
        f"job_state {sql.ANY}": [state.value for state in wanted.states],
        f"hpc_user {sql.ANY}": wanted.users,
        f"project {sql.ANY}": wanted.projects,
        sql.HAS_HOST: wanted.hosts,
    }
    given = {condition: values for condition, values in lists.items() if values}
    parameters = [*(orjson.dumps(list(values)).decode() for values in given.values()), limit]
    found: dict[tuple[int, str, int], Job] = {}
    with database.snapshot():
        for table in (sql.CACHE, sql.MAIN):
            text = sql.JOBS[table].format(conditions=sql.where(given))
            rows = database.execute(text, parameters).fetchall()
            for job in _jobs(database, rows, cached=table == sql.CACHE):
                found[job.job_id, job.cluster, job.start_time] = job
    newest = sorted(found.values(), key=lambda job: (job.start_time, job.id), reverse=True)
    return [_running(job, now) for job in newest[:limit]]


def find_job(
    database: Database, job_id: int, *, cluster: str = "", start_time: int = 0, now: int
) -> Job | None:
    """Return the job with a number that began last, of a cluster or with a start if they are given."""
    with database.snapshot():
        found = list(_named(database, sql.NEWEST_STARTED, job_id, cluster, start_time))
        newest = max(found, key=lambda job: (job.start_time, not job.cached), default=None)
        return newest and _running(newest, now)


def _running(job: Job, now: int) -> Job:
    return evolve(job, duration=max(0, now - job.start_time)) if job.state is JobState.RUNNING else job


def _named(
    database: Database, texts: Mapping[str, str], job_id: int, cluster: str, start_time: int
) -> Iterator[Job]:
    """Yield the job that a statement finds in the cache, and then the one that it finds in the main table."""
    named = {"job_id": job_id, "cluster": cluster, "start_time": start_time}
    for table in (sql.CACHE, sql.MAIN):
        rows = database.execute(texts[table], named).fetchall()
        yield from _jobs(database, rows, cached=table == sql.CACHE)


# --- rows


def _values(job: Job) -> tuple[Any, ...]:
    """Return the values of `sql.JOB_COLUMNS`; "null" where the reference would fail to read a NULL."""
    return (
        job.job_id, job.cluster, job.subcluster, job.user, job.project, job.partition, job.submit_time,
        job.start_time, job.array_job_id, job.duration, job.walltime, job.state.value,
        orjson.dumps(dict(job.metadata)).decode() if job.metadata else "null",
        encode_resources(job.resources), job.num_nodes, job.num_hwthreads, job.num_acc, job.smt, job.shared,
        job.monitoring_status, 0.0, "null", "null",
    )  # fmt: skip


def _jobs(database: Database, rows: Sequence[Sequence[Any]], *, cached: bool) -> Iterator[Job]:
    """Yield the jobs of rows, with their tags."""
    tags: dict[int, list[Tag]] = {}
    if rows and not cached:
        numbers = orjson.dumps([row[0] for row in rows]).decode()
        for number, *tag in database.execute(sql.TAGS_OF_JOBS, (numbers,)).fetchall():
            tags.setdefault(number, []).append(Tag(*tag))
    for row in rows:
        yield _job(row, tuple(tags.get(row[0], ())), cached=cached)


def _job(row: Sequence[Any], tags: tuple[Tag, ...], *, cached: bool) -> Job:
    value = dict(zip(("id", *sql.JOB_COLUMNS), row, strict=True))
    resources: tuple[Resource, ...] = ()
    with suppress(ProtocolError):  # another program's row, which is no reason to hide the rest of it
        resources = decode_resources(value["resources"])
    return Job(
        cluster=value["cluster"],
        subcluster=value["subcluster"],
        job_id=value["job_id"],
        start_time=value["start_time"],
        user=value["hpc_user"],
        project=value["project"],
        partition=value["cluster_partition"] or "",
        array_job_id=value["array_job_id"] or 0,
        num_nodes=value["num_nodes"],
        num_hwthreads=value["num_hwthreads"] or 0,
        num_acc=value["num_acc"] or 0,
        smt=value["smt"],
        shared=value["shared"],
        walltime=value["walltime"],
        submit_time=value["submit_time"],
        monitoring_status=value["monitoring_status"],
        resources=resources,
        metadata=_texts(value["meta_data"]),
        tags=tags,
        state=JobState(value["job_state"]),
        duration=value["duration"],
        id=value["id"],
        cached=cached,
    )


def _texts(text: str | None) -> Mapping[str, str]:
    """Return the texts in a JSON object; whatever else is stored there counts as nothing."""
    try:
        value = orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return {}
    return (
        {key: item for key, item in value.items() if isinstance(item, str)} if isinstance(value, dict) else {}
    )
