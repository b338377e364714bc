"""What keeps samples beyond the process: the log, the checkpoints and recovery of one store, wired together.

Made once, before any task starts. It owns the directory, and no task.
"""

import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from attrs import Factory, define

from ccstore.config import Config
from ccstore.disk import layout
from ccstore.disk.files import Disk
from ccstore.disk.formats import Columnar, Format
from ccstore.disk.leftover import Leftover
from ccstore.disk.reference.directory import list_hosts
from ccstore.disk.reference.reading import last_number
from ccstore.disk.reference.writing import Reference
from ccstore.errors import ConfigError
from ccstore.memory.retention import UsedHosts
from ccstore.memory.store import Store
from ccstore.server.changeover import make_newest
from ccstore.server.checkpoints import Checkpoints
from ccstore.server.recovery import Recovery, recover
from ccstore.server.wal import Log

__all__ = ["Durability", "open_directory"]

log = logging.getLogger("ccstore.recovery")

_SHARDS = 4
"""Files of the log that are written at the same time, where the configuration does not tell."""

_FOREVER = 2**60

FindUsed = Callable[[int], Awaitable[UsedHosts | None]]


async def _nobody_is_asked(_before: int) -> UsedHosts:
    return {}


@define(eq=False)
class Durability:
    """The parts that write to a directory, and what was found there at the start."""

    store: Store
    disk: Disk
    directory: Path
    format: Format
    wal: Log
    checkpoints: Checkpoints
    retention: float
    """Seconds; zero and less: nothing is dropped by age."""
    now: Callable[[], int]
    keeps_old: bool = False
    """Whether files older than the retention are wanted."""
    last_round: float = 0.0
    """When the newest complete round of checkpoints ended, before the start: seconds since the epoch, 0 if
    none did; the time of the start where there is no file."""
    began: float = Factory(trio.current_time)
    """When recovery did."""
    recovery: Recovery = Factory(Recovery)
    recovered: trio.Event = Factory(trio.Event)
    """Set when all that was on disk is in memory."""
    settled: trio.Event = Factory(trio.Event)
    """Set when it is, or when the server stops before."""

    async def recover(self, find_used: FindUsed = _nobody_is_asked) -> None:
        """Load what the directory has of the retention, and of hosts with older running jobs everything.

        find_used: returns these hosts for the time at which the retention begins (s); None if that is not
        known, and then the retention alone is loaded. Raises OSError if not even names can be read.
        """
        self.began = trio.current_time()
        try:
            if not self.recovered.is_set():  # there is something
                since = self.now() - int(self.retention) if self.retention > 0 else -_FOREVER
                used = await find_used(since)
                if used is None:
                    log.warning(
                        "recovery: nobody knows where jobs run: what is older than the retention is not read"
                    )
                kept = {(cluster, host) for cluster, hosts in (used or {}).items() for host in hosts}
                by_hosts = self.format.by_hosts
                await recover(
                    self.store, self.disk, self.directory, self.recovery,
                    since=since, used=kept, by_hosts=by_hosts,
                )  # fmt: skip
                skipped = (self.keeps_old or used is None) and self.recovery.files_skipped
                is_whole = self.recovery.is_whole and not skipped
                await make_newest(self.checkpoints, self.disk, self.directory)
                self.checkpoints.leftover = Leftover(self.disk, self.directory, by_hosts, is_whole)
            self.recovered.set()
        finally:
            self.settled.set()

    @property
    def progress(self) -> float:
        """How much of the files was read, 0 to 1."""
        return 1.0 if self.recovered.is_set() else self.recovery.progress

    @property
    def seconds_left(self) -> int:
        """How long recovery may still take if it goes on as before; 1 to 60, as nobody should wait longer."""
        share, so_far = self.progress, trio.current_time() - self.began
        left = so_far * (1 - share) / share if share > 0 else 0.0
        return math.ceil(min(max(left, 1.0), 60.0))

    def problems(self) -> list[str]:
        """Return why not everything is there, or not durable; nothing if all is well."""
        if not self.recovered.is_set():
            return [f"recovering: {self.progress:.0%}"]
        return self.wal.troubles


def open_directory(config: Config, store: Store, disk: Disk, now: Callable[[], int]) -> Durability:
    """Make the log of a store in the directory of the configuration, behind what is there.

    Raises ConfigError if the directory cannot be used.
    """
    settings = config.metric_store.checkpoints
    directory = Path(settings.directory)
    shards = config.metric_store.shards or _SHARDS
    files: Format
    if settings.file_format == "columnar":
        files = Columnar(disk, directory)
    else:
        suffix = ".json" if settings.file_format == "json" else ".bin"
        files = Reference(disk, directory, suffix, settings.max_wal_size_bytes)
    try:
        files.prepare(shards)
        found = [file.number for file in layout.find_files(disk, directory)]
        hosts = list_hosts(disk, directory, skip={layout.ROOM}).hosts
        last = max([layout.read_covered(disk, directory), last_number(hosts), *found])
        last_round = files.last_round() if found or hosts else now()
    except OSError as error:
        raise ConfigError(
            f"metric-store.checkpoints.directory: {directory}: cannot be used ({error.strerror})"
        ) from error
    numbers = itertools.count(last + 1)
    wal = Log(
        store, files, lambda: next(numbers),
        shards=shards, max_delay=config.metric_store.wal.max_delay, now=now,
    )  # fmt: skip
    checkpoints = Checkpoints(store, wal, files, now)
    durability = Durability(
        store,
        disk,
        directory,
        files,
        wal,
        checkpoints,
        config.metric_store.retention_in_memory,
        now,
        keeps_old=config.metric_store.cleanup.mode != "delete",
        last_round=last_round,
    )
    if not found and not hosts:
        durability.recovered.set()
    return durability
