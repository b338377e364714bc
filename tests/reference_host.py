"""A host's directory as the reference leaves it, on a disk in memory."""

from disk_memory import MemoryDisk
from disk_reference import entry
from durable import DIRECTORY, START

from ccstore.disk.reference.checkpoint import Checkpoint, Level

HOST = DIRECTORY / "c" / "h0"


def load(*values: float, start: int = START) -> Checkpoint:
    """Return a checkpoint of values of the metric `load` of a host."""
    return Checkpoint(start, start + 10 * len(values), Level({"load": entry(10, start, values)}))


def key(time: int, metric: str = "load", *path: str) -> tuple[tuple[str, ...], str, int]:
    """Return the key of a slot of the host."""
    return ("c", "h0", *path), metric, time


def disk_of(**files: bytes) -> MemoryDisk:
    """Return a disk with these files of the host; ``_1000_bin`` stands for ``1000.bin``."""
    disk = MemoryDisk()
    for name, data in files.items():
        disk.put(HOST / name.lstrip("_").replace("_", "."), data)
    return disk
