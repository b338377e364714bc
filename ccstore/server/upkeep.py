"""The periodic jobs: what is too old is freed, and what is too much.

Owns when and in which steps samples are freed; `memory.retention` decides which. The tree is
walked host by host, others run in between, and one pass at a time is under way. What became
empty is removed at the end of each pass, after the key cache has forgotten it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import trio

from ccstore.memory.retention import Release, check_interval, exceeds, plan_relief, plan_retention
from ccstore.server.clock import JobStatistics, every
from ccstore.server.services import Services

__all__ = ["check_memory", "free_old", "free_selectors", "start"]

log = logging.getLogger("ccstore.upkeep")

_HOSTS_AT_ONCE = 16
"""Hosts whose chunks are freed without a break: less than a millisecond."""
_LONGEST_INTERVAL = 3600.0
"""Seconds between two passes of the retention at most; half of the retention may be a day."""
_WITHOUT_RETENTION = 48 * 3600
"""Seconds of samples that the shares of the memory cap are taken of, if everything is kept."""


def start(nursery: trio.Nursery, services: Services) -> None:
    """Start the periodic jobs; they end when the server stops."""
    store = services.config.metric_store
    if store.retention_in_memory > 0:
        interval = min(store.retention_in_memory / 2, _LONGEST_INTERVAL)
        _start(nursery, services, "retention", partial(every, interval, partial(free_old, services)))
    if store.memory_cap_bytes:

        def until_next() -> float:
            return check_interval(_bytes_used(services), store.memory_cap_bytes)

        _start(nursery, services, "memory", partial(every, until_next, partial(check_memory, services)))


def _start(nursery: trio.Nursery, services: Services, name: str, job: "partial[object]") -> None:
    services.jobs[name] = JobStatistics()
    nursery.start_soon(
        partial(job, name=name, stopping=services.stopping, statistics=services.jobs[name])  # type: ignore[arg-type]
    )


async def free_old(services: Services) -> None:
    """Free what is older than the retention, except on hosts with running jobs."""
    now, retention = services.now(), int(services.config.metric_store.retention_in_memory)
    used = await _used_hosts(services, now - retention)
    async with services.freeing:
        release = plan_retention(_hosts(services), used, now=now, retention=retention)
        if release is None:
            return
        services.excluded_hosts = len(_hosts(services)) - len(release.hosts)
        freed = await _free(services, release.hosts, release.cutoff)
        await _prune(services)
    log.info("retention: %d chunks before %d freed on %d hosts", freed, release.cutoff, len(release.hosts))


async def check_memory(services: Services) -> None:
    """Free more than the retention asks for if samples take more memory than the cap."""
    cap = services.config.metric_store.memory_cap_bytes
    services.over_cap = exceeds(_bytes_used(services), cap)
    if not services.over_cap:
        return
    now = services.now()
    retention = int(services.config.metric_store.retention_in_memory)
    used = await _used_hosts(services, now - max(retention, 0))
    async with services.freeing:
        steps = plan_relief(
            _hosts(services), used, now=now, retention=retention if retention > 0 else _WITHOUT_RETENTION
        )
        for step in steps:
            await _relieve(services, step)
            services.over_cap = exceeds(_bytes_used(services), cap)
            if not services.over_cap:
                return
    log.error(
        "memory: %d bytes in use after everything that may go was freed (cap %d)", _bytes_used(services), cap
    )


async def _relieve(services: Services, step: Release) -> None:
    before = _bytes_used(services)
    freed = await _free(services, step.hosts, step.cutoff)
    await _prune(services)
    log.warning(
        "memory: over the cap: %d chunks freed (%d bytes) of %d hosts %s running jobs, cut to %d %% of the retention",
        freed, before - _bytes_used(services), len(step.hosts), "with" if step.busy else "without", step.share * 100,
    )  # fmt: skip


async def free_selectors(services: Services, selectors: Sequence[tuple[str, ...]], cutoff: int) -> int:
    """Free all chunks below some paths that end before a time (s); return how many."""
    async with services.freeing:
        freed = 0
        for path in selectors:
            freed += await _free(services, _below(services, path), cutoff)
        await _prune(services)
    return freed


async def _used_hosts(services: Services, before: int) -> Mapping[str, frozenset[str]] | None:
    return None if services.used_nodes is None else await services.used_nodes(before)


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
    """Free the chunks below each path that end before the cutoff; return how many."""
    freed = 0
    for number, path in enumerate(paths, 1):
        place = services.store.locate(path, create=False)
        if place >= 0:
            freed += services.store.free(place, cutoff)
        if number % _HOSTS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    services.freed_chunks += freed
    return freed


async def _prune(services: Services) -> None:
    """Remove series and places of which nothing is left.

    Their ids are used again, so the keys that lead to them go first. Lines go on to come in
    meanwhile; what they bring back to life is spared.
    """
    store, dead = services.store, services.store.dormant()
    if not dead.any():
        return
    hosts = np.unique(store.columns.places["host"][store.columns.series["place"][np.flatnonzero(dead)]])
    with services.keys.forgetting(dead) as forgetting:
        while not forgetting.step():
            await trio.lowlevel.checkpoint()
        for host in hosts.tolist():
            store.prune(host, forgetting.dead)
            services.scanner.forget_places()
            await trio.lowlevel.checkpoint()
