"""From a job to the series that it is about: its hosts, the parts of them that it has, and its time.

A client that asks by job need not know how hosts are built. Which parts a job has of a host follows from
what the scheduler said (`Resource`) and from the topology in the cluster's file; where there is none, from
the parts that the store has series of. It reads the registry and the store, and changes neither.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial

import trio

from ccstore.config import Topology
from ccstore.disk.registry import jobs
from ccstore.errors import QueryError
from ccstore.model import Job, JobKey, JobQuery, Query, QueryRequest, Resource
from ccstore.server.answers import HttpError
from ccstore.server.services import Services

__all__ = ["find_job", "plan_query", "resolve"]

_STEP = 32  # hosts, of which one takes some ten microseconds

_QUERIES = 500  # made at once; about a millisecond

_PARTS = {"socket": "sockets", "memoryDomain": "memory_domains", "core": "cores"}
"""Field of `Topology` by scope, for parts that have hardware threads."""


async def find_job(services: Services, name: JobKey) -> Job:
    """Return the newest job of this name. Raises HttpError 404 if there is none."""
    with services.registry.patience():
        job = await services.registry.read(
            partial(jobs.find_job, cluster=name.cluster, start_time=name.start_time, now=services.now()),
            name.job_id,
        )
    if job is None:
        where = f" of cluster {name.cluster!r}" if name.cluster else ""
        raise HttpError(404, f"job {name.job_id}{where}: not found")
    return job


async def plan_query(services: Services, job: Job, wanted: JobQuery) -> QueryRequest:
    """Return the ordinary query that a query by job stands for: metric by metric, host by host.

    Raises QueryError if it has more selectors than a request may have.
    """
    limit, count = services.config.main.max_query_selectors, 0
    parts: list[tuple[str, tuple[str, ...] | None]] = []
    for number, resource in enumerate(job.resources):
        if number % _STEP == 0:
            await trio.lowlevel.checkpoint()
        ids = None if wanted.scope == "node" else resolve(services, job.cluster, resource, wanted.scope)
        parts.append((resource.hostname, ids))
        count += len(wanted.metrics) * (1 if ids is None else len(ids))
        if limit and count > limit:
            raise QueryError(f"query: more than {limit} selectors")
    queries: list[Query] = []
    for metric in wanted.metrics:
        for first in range(0, len(parts), _QUERIES):
            await trio.lowlevel.checkpoint()
            queries += [_query(metric, host, wanted, ids) for host, ids in parts[first : first + _QUERIES]]
    return QueryRequest(
        cluster=job.cluster,
        start=max(wanted.start, job.start_time),
        stop=min(wanted.stop, job.start_time + job.duration),
        with_stats=wanted.with_stats,
        with_data=wanted.with_data,
        with_padding=wanted.with_padding,
        queries=tuple(queries),
    )


def _query(metric: str, host: str, wanted: JobQuery, ids: tuple[str, ...] | None) -> Query:
    if ids is None:
        return Query(metric, host, wanted.resolution)
    return Query(metric, host, wanted.resolution, type=wanted.scope, type_ids=ids)


def resolve(services: Services, cluster: str, resource: Resource, scope: str) -> tuple[str, ...]:
    """Return the ids of the parts of one kind that a job has of a host, in their order."""
    subcluster = services.config.clusters.find_subcluster(cluster, resource.hostname)
    topology = Topology() if subcluster is None else subcluster.topology
    if scope == "accelerator":
        known: Sequence[str] = resource.accelerators or topology.accelerators
    elif scope == "hwthread":
        known = [str(thread) for thread in resource.hwthreads or topology.node]
    else:
        known = _covering(getattr(topology, _PARTS[scope]), resource.hwthreads)
    return tuple(known) or _stored(services, cluster, resource.hostname, scope)


def _covering(parts: Iterable[Sequence[int]], threads: Sequence[int]) -> list[str]:
    """Return the numbers of the parts that have any of some hardware threads, or of all if there are none."""
    wanted = set(threads)
    return [str(number) for number, part in enumerate(parts) if not wanted or not wanted.isdisjoint(part)]


def _stored(services: Services, cluster: str, host: str, scope: str) -> tuple[str, ...]:
    """Return the ids of the parts of a kind that anything is stored of."""
    index = services.store.index
    place = services.store.locate((cluster, host), create=False)
    names = index.visible(place) if place >= 0 else {}
    return tuple(sorted((name.removeprefix(scope) for name in names if name.startswith(scope)), key=_natural))


def _natural(name: str) -> list[tuple[str, int]]:
    """Return what sorts numbers in names by their size."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
