"""Old checkpoints, removed once and without a server: the reference store's flag ``-cleanup-checkpoints``.

What a running server does with each pass of the retention, for files of every format that lie in the
directory. Never touches a log. Invariant: a file goes only if all it holds is older than the retention, and
no job runs on a host of it that may need it.
"""

from pathlib import Path

import trio

from ccstore.config import Config
from ccstore.disk.files import OsDisk, lock_directory
from ccstore.disk.formats import Columnar, Format
from ccstore.disk.hosts import Host
from ccstore.disk.reference.writing import Reference
from ccstore.errors import ConfigError, UnavailableError
from ccstore.server.used_nodes import UsedNodes

__all__ = ["clean_up"]


async def clean_up(config: Config, *, now: int, used_nodes: UsedNodes | None) -> int:
    """Remove checkpoints that are older than the retention at a time (s); return how many.

    used_nodes: who knows the running jobs, None if nobody does. Raises ConfigError if the configuration or
    the directory does not allow it, UnavailableError if nobody knows where jobs run, or the disk fails.
    """
    store = config.metric_store
    directory = Path(store.checkpoints.directory)
    if store.cleanup.mode != "delete":
        raise ConfigError('metric-store.cleanup.mode: "archive" is not in this version (nothing was removed)')
    if store.retention_in_memory <= 0:
        return 0
    cutoff = now - int(store.retention_in_memory)
    used = {} if used_nodes is None else await used_nodes(cutoff)
    if used is None:
        raise UnavailableError("used nodes: not known, so nothing is removed (see main.backend-url)")
    kept = {(cluster, host) for cluster, hosts in used.items() for host in hosts}
    return await trio.to_thread.run_sync(_remove, directory, cutoff, kept)


def _remove(directory: Path, cutoff: int, kept: set[Host]) -> int:
    """Remove old checkpoints of every format; return how many."""
    if not directory.is_dir():
        raise ConfigError(f"metric-store.checkpoints.directory: {directory}: no such directory")
    disk = OsDisk()
    formats: tuple[Format, ...] = (Columnar(disk, directory), Reference(disk, directory, ".bin"))
    with lock_directory(directory):
        try:
            return sum(one.remove_older(cutoff, kept) for one in formats)
        except OSError as error:
            raise UnavailableError(f"checkpoints: {error}") from error
