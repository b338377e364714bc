"""The periodic jobs: what is too old is freed, and what is too much.

Owns when and in which steps samples are freed; `memory.retention` decides which. The tree is
walked host by host, others run in between, and one pass at a time is under way. What became
empty is removed at the end of each pass, after the key cache has forgotten it.
"""

import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import trio
from numpy.typing import NDArray

from ccstore.errors import UnavailableError
from ccstore.memory.retention import check_interval, exceeds, plan_relief, plan_retention
from ccstore.server import jobs, nodes
from ccstore.server.checkpoints import Backoff, Written
from ccstore.server.clock import JobStatistics, every
from ccstore.server.durability import Durability
from ccstore.server.services import Services

__all__ = ["check_memory", "first_checkpoint", "free_old", "free_selectors", "save", "start"]

log = logging.getLogger("ccstore.upkeep")

_HOSTS_AT_ONCE = 16
"""Hosts whose chunks are freed without a break: less than a millisecond."""
_IDS_AT_ONCE = 65536
"""Series whose hosts are looked up without a break: a millisecond or two."""
_LONGEST_INTERVAL = 3600.0
"""Seconds between two passes of the retention at most; half of the retention may be a day."""
_SWEEP_INTERVAL = 300.0
"""Seconds between two looks for jobs beyond their walltime; what is granted beyond it is rarely less."""
_FIRST_LOOK = 60.0
"""Seconds until old samples and node states go for the first time: a server that was down has missed some,
and one that is started again and again would never come to it."""
_FIRST_CHECKPOINT = 60.0
"""Seconds until the first checkpoint if the log had to be read at the start, or if one is due."""
_WITHOUT_RETENTION = 48 * 3600
"""Seconds of samples that the shares of the memory cap are taken of, if everything is kept."""


def start(nursery: trio.Nursery, services: Services) -> None:
    """Start the periodic jobs; cancelling them at any moment leaves nothing half done."""
    store = services.config.metric_store
    cap = store.memory_cap_bytes
    if store.retention_in_memory > 0:
        interval = min(store.retention_in_memory / 2, _LONGEST_INTERVAL)
        _start(nursery, services, "retention", _waits(min(_FIRST_LOOK, interval), interval), free_old)
    if services.durability is not None:
        _start_saving(nursery, services, services.durability)
    if services.registry.is_used:
        _start_registry(nursery, services)
    if cap:
        _start(nursery, services, "memory", lambda: check_interval(_bytes_used(services), cap), check_memory)


def _start(
    nursery: trio.Nursery,
    services: Services,
    name: str,
    interval: Callable[[], float],
    job: Callable[[Services], Awaitable[object]],
) -> None:
    statistics = services.jobs[name] = JobStatistics()
    nursery.start_soon(partial(every, interval, partial(job, services), name=name, statistics=statistics))


def _start_saving(nursery: trio.Nursery, services: Services, durability: Durability) -> None:
    interval = services.config.metric_store.checkpoint_interval
    first = first_checkpoint(durability, services.now(), interval)
    checkpoints = durability.checkpoints
    _start(nursery, services, "checkpoint", _waits(first, interval), save)
    _start(nursery, services, "log", Backoff(durability.wal), lambda _: checkpoints.end_trouble())


def first_checkpoint(durability: Durability, now: int, interval: float) -> float:
    """Return after how many seconds the first checkpoint comes, as if the server before had run on.

    now: seconds since the epoch. Soon, if one is due, or if the log had to be read: what it replayed is not
    replayed again and again if the server is ended again and again.
    """
    soon = min(_FIRST_CHECKPOINT, interval)
    if durability.recovery.unclean:
        return soon
    age = now - durability.last_round  # any number: clocks are set, and files are copied
    return min(max(interval - age, soon), interval)


def _waits(first: float, then: float) -> Callable[[], float]:
    """Return what tells how long (s) to wait: at first, and from then on."""
    return itertools.chain([first], itertools.repeat(then)).__next__


def _start_registry(nursery: trio.Nursery, services: Services) -> None:
    main, cron = services.config.main, services.config.cron
    registry, grace = services.registry, main.stop_jobs_exceeding_walltime

    _start(
        nursery,
        services,
        "commit_jobs",
        lambda: cron.commit_job_worker,
        lambda _: jobs.commit_cache(registry),
    )
    _start(
        nursery, services, "durations", lambda: cron.duration_worker,
        lambda _: jobs.refresh_durations(registry, services.now()),
    )  # fmt: skip
    retention = main.nodestate_retention
    if retention is not None and retention.policy == "delete":
        age = int(retention.age)
        _start(
            nursery, services, "node_states", _waits(_FIRST_LOOK, _LONGEST_INTERVAL),
            lambda _: nodes.delete_old(registry, services.now() - age),
        )  # fmt: skip
    if grace:
        _start(
            nursery, services, "walltimes", lambda: _SWEEP_INTERVAL,
            lambda _: services.events.stop_overdue(grace),
        )  # fmt: skip


async def free_old(services: Services) -> None:
    """Free what is older than the retention, except on hosts with running jobs."""
    now, retention = services.now(), int(services.config.metric_store.retention_in_memory)
    used = await services.used_nodes(now - retention)
    if used is None:
        log.warning("retention: nothing is freed as long as nobody knows which hosts have running jobs")
        return
    async with _freeing(services):
        hosts = _hosts(services)
        release = plan_retention(hosts, used, now=now, retention=retention)
        if release is None:
            return
        services.excluded_hosts = len(hosts) - len(release.hosts)
        freed = await _free(services, release.hosts, release.cutoff)
        await _prune(services)
    if services.durability is not None and services.config.metric_store.cleanup.mode == "delete":
        kept = {(cluster, host) for cluster, hosts_used in used.items() for host in hosts_used}
        await services.durability.checkpoints.remove_older(release.cutoff, kept)
    log.info(
        "retention: %(chunks)d chunks before %(cutoff)d freed on %(hosts)d hosts",
        {"chunks": freed, "cutoff": release.cutoff, "hosts": len(release.hosts)},
    )


async def check_memory(services: Services) -> None:
    """Free more than the retention asks for if samples take more memory than the cap."""
    cap = services.config.metric_store.memory_cap_bytes
    if exceeds(_bytes_used(services), cap):
        await _relieve(services, cap)
    services.over_cap = exceeds(_bytes_used(services), cap)
    if services.over_cap:
        log.error(
            "memory: %(bytes)d bytes in use after all that may go was freed (cap %(cap)d)",
            {"bytes": _bytes_used(services), "cap": cap},
        )


async def _relieve(services: Services, cap: int) -> None:
    """Free step by step until no more memory is in use than the cap allows, or no step is left."""
    retention = int(services.config.metric_store.retention_in_memory)
    if retention <= 0:
        retention = _WITHOUT_RETENTION
    now = services.now()
    used = await services.used_nodes(now - retention)  # if nobody knows, memory goes first
    try:
        await save(services)  # because only what is in a checkpoint is freed
    except UnavailableError as error:
        log.error("memory: %(error)s; only what was saved before is freed", {"error": error})
    async with _freeing(services):
        for step in plan_relief(_hosts(services), used, now=now, retention=retention):
            before = _bytes_used(services)
            if not exceeds(before, cap):
                return
            freed = await _free(services, step.hosts, step.cutoff)
            await _prune(services)
            fields = {
                "chunks": freed,
                "bytes": before - _bytes_used(services),
                "hosts": len(step.hosts),
                "which": "with" if step.busy else "without",
                "percent": step.share * 100,
            }
            log.warning(
                "memory: over the cap: %(chunks)d chunks (%(bytes)d bytes) freed on %(hosts)d hosts "
                "%(which)s running jobs, down to %(percent)d %% of the retention",
                fields,
            )


async def free_selectors(services: Services, selectors: Sequence[tuple[str, ...]], cutoff: int) -> int:
    """Free all chunks below some paths that end before a time (s); return how many.

    Raises UnavailableError if they cannot be saved before.
    """
    await save(services)
    async with _freeing(services):
        freed = 0
        for path in selectors:
            freed += await _free(services, _below(services, path), cutoff)
        await _prune(services)
    return freed


@asynccontextmanager
async def _freeing(services: Services) -> AsyncIterator[None]:
    """Keep others from freeing, and checkpoints from being written: what is saved has to be on disk."""
    async with services.freeing:
        if services.durability is None:
            yield
        else:
            async with services.durability.checkpoints.lock:
                yield


async def save(services: Services) -> Written:
    """Write a checkpoint of all that is in none yet. Raises UnavailableError if the disk fails."""
    failed: list[BaseException] = []
    written = Written(0, 0, 0)
    if services.durability is not None:
        try:
            written = await services.durability.checkpoints.save_all()
        except* OSError as errors:
            failed += errors.exceptions
    if failed:
        raise UnavailableError(f"checkpoints: {failed[0]}") from failed[0]
    return written


def _hosts(services: Services) -> list[tuple[str, str]]:
    return [(cluster, host) for cluster, host, _ in services.store.index.hosts()]


def _bytes_used(services: Services) -> int:
    return services.store.statistics().bytes_used + services.keys.bytes_used


def _below(services: Services, path: tuple[str, ...]) -> Sequence[tuple[str, ...]]:
    """Return the paths to free for a path: itself, or its hosts if it is above them."""
    if len(path) >= 2:
        return [path]
    return [host for host in _hosts(services) if path in ((), host[:1])]


async def _free(services: Services, paths: Iterable[tuple[str, ...]], cutoff: int) -> int:
    """Free the chunks below each path that end before the cutoff; return how many.

    What has to be on disk and is in no checkpoint stays.
    """
    freed, saved_only = 0, services.durability is not None
    for number, path in enumerate(paths, 1):
        place = services.store.locate(path, create=False)
        chunks = services.store.free(place, cutoff, saved_only=saved_only) if place >= 0 else 0
        services.freed_chunks += chunks
        freed += chunks
        if number % _HOSTS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return freed


async def _prune(services: Services) -> None:
    """Remove series and places of which nothing is left.

    Their ids are used again, so the keys that lead to them go first. Lines go on to come in
    meanwhile; what they bring back to life is spared.
    """
    store, dead = services.store, services.store.dormant()
    if not dead.any():
        return
    hosts: set[int] = set()
    for first in range(0, len(dead), _IDS_AT_ONCE):
        hosts |= store.index.hosts_of(first + np.flatnonzero(dead[first : first + _IDS_AT_ONCE]))
        await trio.lowlevel.checkpoint()
    with services.keys.forgetting(dead) as forgetting:
        while not forgetting.step():
            await trio.lowlevel.checkpoint()
        _forget(services, forgetting.dead, ())
        for host in sorted(hosts):
            _forget(services, _NONE, store.prune(host, forgetting.dead).tolist())
            services.scanner.forget_places()
            await trio.lowlevel.checkpoint()


_NONE = np.zeros(0, np.bool_)


def _forget(services: Services, series: NDArray[np.bool_], places: Iterable[int]) -> None:
    if services.durability is not None:
        services.durability.wal.forget(series, places)
