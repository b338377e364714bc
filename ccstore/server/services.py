"""What handlers and tasks share: the parts of one running server, wired together.

Made once, before any task starts, so that nothing is ever attached to a running server. It owns
no task and waits for nothing.
"""

import os
import secrets
from collections.abc import Callable

import trio
from attrs import Factory, define, field

from ccstore.config import Config
from ccstore.config.sections import ApiSubjects
from ccstore.disk.files import Disk
from ccstore.errors import ConfigError, UnavailableError
from ccstore.memory.store import Store
from ccstore.server.clock import JobStatistics, wall_clock
from ccstore.server.durability import Durability, open_directory
from ccstore.server.events import Events
from ccstore.server.ingest import Intake
from ccstore.server.ledger import Ledger
from ccstore.server.live.hub import Hub
from ccstore.server.loopwatch import LoopWatch
from ccstore.server.nats import NatsStatistics
from ccstore.server.registry import Registry, make_registry
from ccstore.server.traffic import Traffic
from ccstore.server.used_nodes import UsedNodes, join_providers, own_provider
from ccstore.server.wal import Log
from ccstore.wire.keys import KeyCache
from ccstore.wire.scan import Scanner

__all__ = ["Services", "make_services"]

_UNLIMITED_SERIES = 2**27
_KEYS_PER_SERIES = 1.25
"""Room for other spellings and for names that stand for an outcome."""


@define(eq=False)
class Services:
    """The parts of one server."""

    config: Config
    now: Callable[[], int]
    """The wall clock, in whole seconds."""
    store: Store
    keys: KeyCache
    scanner: Scanner
    ledger: Ledger
    intake: Intake
    hub: Hub
    nats: NatsStatistics
    registry: Registry
    """Of nodes and jobs."""
    used_nodes: UsedNodes
    """Who knows the running jobs. Its answer is None if somebody should know, and cannot tell now."""
    durability: Durability | None = None
    """What keeps samples beyond the process; None if they live in memory alone."""
    stopping: trio.Event = Factory(trio.Event)
    """Set when the server stops: finish what you do and return."""
    freeing: trio.Lock = Factory(trio.Lock)
    """Held by whoever frees samples, so that two passes over the tree do not meet."""
    loop: LoopWatch = Factory(LoopWatch)
    traffic: Traffic = Factory(Traffic)
    jobs: dict[str, JobStatistics] = Factory(dict)
    """The periodic jobs by name."""
    freed_chunks: int = 0
    """Since the start, whatever the reason."""
    excluded_hosts: int = 0
    """Hosts that the last retention pass kept because of running jobs."""
    over_cap: bool = False
    """Whether the last check found more memory in use than the cap allows, after freeing."""

    started: float = Factory(trio.current_time)
    events: Events = field(init=False)

    @events.default
    def _make_events(self) -> Events:
        return Events(
            store=self.store,
            clusters=self.config.clusters,
            registry=self.registry,
            now=self.now,
            wait_recovered=self.wait_recovered,
            settings=self.config.main.api_subjects or ApiSubjects(),
            job_ended=self.hub.end_job,
            nodes_reported=self.hub.nodes.note,
        )

    def uptime(self) -> float:
        """Return the seconds since the start."""
        return trio.current_time() - self.started

    @property
    def wal(self) -> Log | None:
        """The log, if there is one."""
        return None if self.durability is None else self.durability.wal

    def check_recovered(self) -> None:
        """Raise UnavailableError as long as not all that was on disk is in memory."""
        if self.durability is not None and not self.durability.recovered.is_set():
            problem, left = self.durability.problems()[0], self.durability.seconds_left
            raise UnavailableError(problem, retry_after=left)

    async def wait_recovered(self) -> None:
        """Wait until all that was on disk is in memory.

        Raises UnavailableError if the server stops before.
        """
        if self.durability is not None:
            await self.durability.settled.wait()
            self.check_recovered()

    @property
    def uses_nats(self) -> bool:
        """Whether samples are to come over NATS."""
        return bool(self.config.nats.address and self.config.metric_store.nats_subscriptions)

    @property
    def event_subjects(self) -> ApiSubjects | None:
        """Where events of jobs and nodes come from over NATS; None if they do not."""
        return self.config.main.api_subjects if self.config.nats.address else None

    def problems(self) -> list[str]:
        """Return why the server is not ready; nothing if it is."""
        problems = [] if self.durability is None else self.durability.problems()
        problems += self.registry.problems()
        if self.event_subjects is not None and not self.events.nats.is_connected:
            problems.append(f"nats: events: {self.events.nats.state}")
        if self.events.nats.refused_subjects:
            problems.append(f"nats: events: not permitted: {', '.join(self.events.nats.refused_subjects)}")
        if self.uses_nats and not self.nats.is_connected:
            problems.append(f"nats: {self.nats.state}")
        if self.nats.is_dropping:
            problems.append("nats: dropping messages, the store takes less than the broker sends")
        if self.nats.refused_subjects:
            problems.append(f"nats: not permitted: {', '.join(self.nats.refused_subjects)}")
        if self.over_cap:
            problems.append("memory: over the cap, and nothing is left to free")
        return problems


def make_services(
    config: Config,
    *,
    now: Callable[[], int] = wall_clock,
    used_nodes: UsedNodes | None = None,
    disk: Disk | None = None,
) -> Services:
    """Wire up a server for a configuration; without a disk, samples live in memory alone.

    Raises ConfigError if the system refuses the address space, or the directory cannot be used.
    """
    limits = config.metric_store.limits
    store, keys = _make_store(config)
    scanner = Scanner(keys, store, max_line_bytes=limits.max_line_length_bytes)
    ledger = Ledger()
    registry = make_registry(config)
    hub = Hub(store, config, registry, now=now)
    durability = None if disk is None else open_directory(config, store, disk, now)
    intake = Intake(
        store, scanner, ledger, limits=limits, future_bound=config.metric_store.future_bound, now=now,
        wal=None if durability is None else durability.wal,
        waits=config.metric_store.wal.ack == "disk",
        note=hub.note,
    )  # fmt: skip
    services = Services(
        config, now, store, keys, scanner, ledger, intake, hub, NatsStatistics(), registry,
        join_providers(own_provider(registry, keep=config.metric_store.retention_in_memory), used_nodes),
        durability,
    )  # fmt: skip
    if services.event_subjects is not None:
        services.events.nats.enter("connecting")
    if services.uses_nats:
        services.nats.enter("connecting")
    return services


def _make_store(config: Config) -> tuple[Store, KeyCache]:
    """Make the store and the cache of its keys. Raises ConfigError if there is no address space."""
    limits = config.metric_store.limits
    max_series = limits.max_series or _UNLIMITED_SERIES
    try:
        store = Store(
            list(config.metrics.values()),
            own=config.own_metrics,
            max_series=max_series,
            max_bytes=_room(config.metric_store.memory_cap_bytes),
        )
        keys = KeyCache(max_keys=int(max_series * _KEYS_PER_SERIES), seed=secrets.randbits(62))
    except MemoryError as error:
        raise ConfigError(
            "metric-store: the system refuses the address space for so many series and samples "
            f"(lower limits.max-series or memory-cap, or allow overcommitting: {error})"
        ) from error
    return store, keys


def _room(cap: int) -> int:
    """Return for how many bytes of samples address space is reserved.

    With a cap, a quarter more, for memory is checked from time to time and not with every sample.
    Without one, what the machine has.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(cap * 5 // 4, machine) if cap else machine
