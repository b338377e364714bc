"""Starts and stops of jobs, whichever way they came: checked, stored, and what is in use because of them.

Owns the checks that a request can fail without the database. Those that need it, and the change they
allow, are one transaction of `ccstore.disk.registry.jobs`. Invariant: a refused request changes nothing,
and says the first thing that is wrong in the order of the contract.
"""

import logging
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from ccstore.config.clusters import Clusters
from ccstore.disk.registry import jobs
from ccstore.disk.registry.database import Database
from ccstore.errors import ProtocolError
from ccstore.memory.retention import UsedHosts
from ccstore.model import Job, JobStop, RefusedJob
from ccstore.server.registry import Registry
from ccstore.wire.jobs import check_job

__all__ = [
    "check_start",
    "commit_cache",
    "refresh_durations",
    "start_job",
    "stop_job",
    "stop_overdue",
    "used_hosts",
]

log = logging.getLogger("ccstore.events")

_LONGEST_NAME = 255
"""Bytes of any name."""


def check_start(job: Job, clusters: Clusters) -> Job:
    """Return a job as it is to be stored, with its subcluster. Raises ProtocolError."""
    if job.cluster not in clusters:
        raise ProtocolError(f"body.cluster: {_show(job.cluster)} is not configured")
    names = [one.name for one in clusters[job.cluster].subclusters]
    if job.subcluster and job.subcluster not in names:
        raise ProtocolError(f"body.subCluster: {_show(job.subcluster)} (wanted one of {', '.join(names)})")
    if job.resources and not job.subcluster:
        job = evolve(job, subcluster=_subcluster_of(job, clusters))
    check_job(job)
    _check_names(job)
    return job


def _subcluster_of(job: Job, clusters: Clusters) -> str:
    """Return the subcluster of the first host of a job. Raises ProtocolError."""
    host = job.resources[0].hostname
    found = clusters.subcluster(job.cluster, host)
    if found is None:
        raise ProtocolError(f"body.resources[0]: {_show(host)} is in no node list of cluster {job.cluster!r}")
    return found


def _check_names(job: Job) -> None:
    names = {"user": job.user, "project": job.project, "partition": job.partition}
    names |= {f"resources[{k}].hostname": resource.hostname for k, resource in enumerate(job.resources)}
    for k, tag in enumerate(job.tags):
        names |= {f"tags[{k}].type": tag.type, f"tags[{k}].name": tag.name, f"tags[{k}].scope": tag.scope}
    for where, name in names.items():
        least = 0 if where in ("project", "partition") else 1
        if not least <= (size := len(name.encode())) <= _LONGEST_NAME:
            raise ProtocolError(f"body.{where}: {size} bytes (wanted {least} to {_LONGEST_NAME})")


async def start_job(
    registry: Registry, clusters: Clusters, job: Job, stops: Sequence[JobStop] = ()
) -> list[Job | RefusedJob]:
    """Store a job that has begun, and stops that may be of it and came before; all of it or nothing.

    Returns what became of the start; if it was stored, also of each stop. Raises ProtocolError.
    """
    answers = await registry.write(_start, check_start(job, clusters), stops)
    started, *stopped = answers
    if isinstance(started, Job):
        log.info(
            "job started: job %(job)d of cluster %(cluster)r, user %(user)r, start %(start)d, id %(id)d",
            _fields(started),
        )
    for answer in stopped:
        _tell_stopped(answer)
    return answers


def _start(database: Database, job: Job, stops: Sequence[JobStop]) -> list[Job | RefusedJob]:
    started = jobs.start_job(database, job)
    if isinstance(started, RefusedJob):
        return [started]
    return [started, *(jobs.stop_job(database, stop) for stop in stops)]


async def stop_job(registry: Registry, stop: JobStop) -> Job | RefusedJob:
    """Store that a job has ended; return it as it is stored."""
    stopped = await registry.write(jobs.stop_job, stop)
    _tell_stopped(stopped)
    return stopped


def _tell_stopped(stopped: Job | RefusedJob) -> None:
    if isinstance(stopped, Job):
        log.info(
            "job stopped: job %(job)d of cluster %(cluster)r, user %(user)r, start %(start)d, id %(id)d: "
            "%(state)s after %(duration)d s",
            {**_fields(stopped), "state": stopped.state.value, "duration": stopped.duration},
        )


async def used_hosts(registry: Registry, before: int) -> UsedHosts:
    """Return by cluster the hosts, sorted, on which a job runs that began before a time (s)."""
    used = await registry.read(jobs.used_nodes, before)
    for warning in used.warnings:
        log.warning("used nodes: %(problem)s", {"problem": warning})
    return used.hosts


async def stop_overdue(registry: Registry, now: int, grace: int) -> Sequence[Job]:
    """End the jobs that have run for more than `grace` seconds beyond their walltime; return them."""
    overdue = await registry.write(jobs.stop_overdue, now, grace)
    for job in overdue:
        beyond = now - job.start_time - job.walltime
        log.warning(
            "job stopped: job %(job)d of cluster %(cluster)r, user %(user)r, start %(start)d, id %(id)d: "
            "nobody told of its end, and it is %(beyond)d s beyond its walltime",
            {**_fields(job), "beyond": beyond},
        )
    return overdue


async def commit_cache(registry: Registry) -> None:
    """Move the jobs that began a short while ago to the table of all jobs."""
    await registry.write(jobs.commit_cache)


async def refresh_durations(registry: Registry, now: int) -> None:
    """Store how long running jobs have run, for others who read the database."""
    await registry.write(jobs.refresh_durations, now)


def _fields(job: Job) -> dict[str, Any]:
    """Return what a log line tells of a job."""
    return {
        "job": job.job_id,
        "cluster": job.cluster,
        "user": job.user,
        "start": job.start_time,
        "id": job.id,
    }


def _show(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
