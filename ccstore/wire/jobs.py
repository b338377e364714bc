"""Starts and stops of jobs, and jobs as clients read them: JSON <-> model.

Owns the checks of a start that need neither the clusters nor the database. They come in two steps, because
a sender is told of an unknown cluster before it is told of anything that `check_job` looks at.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from ccstore.errors import ProtocolError
from ccstore.model import Job, JobStop, Resource, Tag
from ccstore.wire.jsonvalue import decode_value, structure

__all__ = [
    "check_job",
    "decode_job_start",
    "decode_job_stop",
    "decode_resources",
    "encode_job",
    "encode_jobs",
    "encode_resources",
]

SHARED = ("none", "single_user", "multi_user")

_LATEST = 10**11
"""Seconds since the epoch, in the year 5138; milliseconds of today are beyond it."""


def decode_job_start(text: bytes) -> Job:
    """Return the job that begins, its subcluster as it was sent, and whatever its state was: running.

    Raises ProtocolError for unknown keys, wrong types, and values that no job can have.
    """
    job = structure(decode_value(text), Job, strict=True)
    _check_number("jobId", job.job_id)
    _check_time("startTime", job.start_time)
    if job.submit_time:
        _check_time("submitTime", job.submit_time)
    if job.shared not in SHARED:
        raise ProtocolError(f"body.shared: unknown (got {job.shared!r}, wanted one of {', '.join(SHARED)})")
    if not 0 <= job.monitoring_status <= 3:
        raise ProtocolError(f"body.monitoringStatus: unknown (got {job.monitoring_status}, wanted 0 to 3)")
    return job


def check_job(job: Job) -> None:
    """Check what a job has, once its cluster and subcluster are known to exist. Raises ProtocolError."""
    if not job.resources:
        raise ProtocolError("body.resources: empty (wanted an object for each host)")
    if not job.user:
        raise ProtocolError("body.user: empty (wanted a name)")
    for key, number, least in (
        ("numNodes", job.num_nodes, 1),
        ("numHwthreads", job.num_hwthreads, 0),
        ("numAcc", job.num_acc, 0),
        ("smt", job.smt, 0),
    ):
        if number < least:
            raise ProtocolError(f"body.{key}: too small (got {number}, wanted at least {least})")
    if job.num_nodes != len(job.resources):
        raise ProtocolError(
            f"body.numNodes: not the number of resources (got {job.num_nodes}, wanted {len(job.resources)})"
        )


def decode_job_stop(text: bytes) -> JobStop:
    """Return which job ends, and how. Raises ProtocolError, also without a job id.

    The state is checked only when the job is found, see `ccstore.disk.registry.jobs.stop_job`.
    """
    stop = structure(decode_value(text), JobStop, strict=True)
    _check_number("jobId", stop.job_id)
    for key, time in (("startTime", stop.start_time), ("stopTime", stop.stop_time)):
        if time > _LATEST:
            _check_time(key, time)
    return stop


def _check_number(key: str, number: int) -> None:
    if number <= 0:
        raise ProtocolError(f"body.{key}: missing or not positive (got {number}, wanted at least 1)")


def _check_time(key: str, time: int) -> None:
    if not 0 < time <= _LATEST:
        raise ProtocolError(f"body.{key}: no time in seconds since the epoch (got {time})")


def encode_job(job: Job) -> bytes:
    """Write a job as an object: the keys of a start, and `id`, `duration`, `jobState`."""
    return orjson.dumps(_job(job), option=orjson.OPT_APPEND_NEWLINE)


def encode_jobs(jobs: Iterable[Job]) -> Iterator[bytes]:
    """Write jobs as the list `jobs` of an object, a piece for each."""
    yield b'{"jobs":['
    separator = b""
    for job in jobs:
        yield separator + orjson.dumps(_job(job))
        separator = b","
    yield b"]}\n"


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "jobId": job.job_id,
        "cluster": job.cluster,
        "subCluster": job.subcluster,
        "user": job.user,
        "project": job.project,
        "partition": job.partition,
        "jobState": job.state.value,
        "startTime": job.start_time,
        "duration": job.duration,
        "walltime": job.walltime,
        "submitTime": job.submit_time,
        "arrayJobId": job.array_job_id,
        "numNodes": job.num_nodes,
        "numHwthreads": job.num_hwthreads,
        "numAcc": job.num_acc,
        "smt": job.smt,
        "shared": job.shared,
        "monitoringStatus": job.monitoring_status,
        "resources": [_resource(resource) for resource in job.resources],
        "metaData": dict(job.metadata),
        "tags": [_tag(tag) for tag in job.tags],
    }


def _tag(tag: Tag) -> dict[str, str]:
    return {"type": tag.type, "name": tag.name, "scope": tag.scope}


def _resource(resource: Resource) -> dict[str, Any]:
    """Return what there is of a host; what it has nothing of is left out."""
    entry: Mapping[str, Any] = {
        "hostname": resource.hostname,
        "hwthreads": list(resource.hwthreads),
        "accelerators": list(resource.accelerators),
        "configuration": resource.configuration,
    }
    return {key: value for key, value in entry.items() if value or key == "hostname"}


def encode_resources(resources: Iterable[Resource]) -> str:
    """Write the hosts of a job as the text in which they are stored."""
    return orjson.dumps([_resource(resource) for resource in resources]).decode()


def decode_resources(text: str) -> tuple[Resource, ...]:
    """Return the hosts of a stored job; keys that we do not know are passed over. Raises ProtocolError."""
    value = decode_value(text.encode())
    if not isinstance(value, list):
        raise ProtocolError("resources: not a list (wanted a list of objects)")
    return tuple(structure(item, Resource) for item in value)
