"""A reader of the reference's directory, written from its description: one field after the other, no arrays.

It refuses what the reference refuses, so that whatever it reads could be handed back.
"""

import json
import math
import re
import struct
import zlib
from pathlib import Path

from disk_memory import MemoryDisk

Key = tuple[tuple[str, ...], str, int]
Entries = dict[tuple[tuple[str, ...], str], tuple[int, int, list[float]]]
"""Frequency, start and values, by path below the host and metric."""

_KNOWN = re.compile(r"-?\d+\.(bin|json)|current\.wal")


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> int | float:
        (value,) = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return value

    def text(self, layout: str) -> str:
        size = self.take(layout)
        self.at += size
        return self.data[self.at - size : self.at].decode()


def read_bin(data: bytes) -> tuple[int, int, Entries]:
    """Return period and entries of a snapshot; what follows the root level is ignored."""
    source, found = _Bytes(data), {}
    assert source.take("I") == 0xCC5B0001
    start, stop = source.take("q"), source.take("q")

    def level(path: tuple[str, ...]) -> None:
        for _ in range(source.take("I")):
            name = source.text("H")
            frequency, first = source.take("q"), source.take("q")
            found[path, name] = frequency, first, [source.take("f") for _ in range(source.take("I"))]
        for _ in range(source.take("I")):
            name = source.text("H")
            level((*path, name))

    level(())
    return start, stop, found


def read_json(data: bytes) -> tuple[int, int, Entries]:
    """Return period and entries of a text checkpoint."""
    found: Entries = {}

    def level(node: dict, path: tuple[str, ...]) -> None:
        for name, entry in node["metrics"].items():
            values = [math.nan if value is None else value for value in entry["data"]]
            found[path, name] = entry["frequency"], entry["start"], values
        for name, child in node["children"].items():
            level(child, (*path, name))

    root = json.loads(data)
    level(root, ())
    return root["from"], root["to"], found


def read_wal(data: bytes) -> list[tuple[tuple[str, ...], str, int, float]]:
    """Return the samples of a log in their order."""
    source, found = _Bytes(data), []
    assert source.take("I") == 0xCC1DA701
    while source.at < len(data):
        assert source.take("I") == 0xCC1DA7A1
        size = source.take("I")
        payload = data[source.at : source.at + size]
        time, metric = source.take("q"), source.text("H")
        path = tuple(source.text("B") for _ in range(source.take("B")))
        found.append((path, metric, time, source.take("f")))
        assert source.take("I") == zlib.crc32(payload)
    return found


def read_directory(disk: MemoryDisk, directory: Path) -> dict[Key, float]:
    """Return every value in a directory, by whole path, metric and time."""
    found: dict[Key, float] = {}
    hosts: dict[tuple[str, ...], list[str]] = {}
    for path in disk.names:
        *host, name = path.relative_to(directory).parts
        assert len(host) == 2, f"{path}: a file where only directories are expected"
        assert _KNOWN.fullmatch(name), f"{path}: a name that the reference does not know"
        hosts.setdefault(tuple(host), []).append(name)
    for host, names in hosts.items():
        _read_host(disk, directory.joinpath(*host), host, names, found)
    return found


def _read_host(
    disk: MemoryDisk, path: Path, host: tuple[str, ...], names: list[str], found: dict[Key, float]
) -> None:
    latest: dict[tuple[tuple[str, ...], str], int] = {}
    stems = sorted((int(name.split(".")[0]), name) for name in names if name != "current.wal")
    assert len({stem for stem, _ in stems}) == len(stems), "two files of one period"
    for stem, name in stems:
        read = read_bin if name.endswith(".bin") else read_json
        start, stop, entries = read(bytes(disk.map(path / name)))
        assert start == stem
        assert stop >= start
        for key, (frequency, first, values) in entries.items():
            assert first >= latest.get(key, first), f"{path / name}: {key} begins before it did"
            latest[key] = first
            for number, value in enumerate(values):
                if not math.isnan(value):
                    found[(*host, *key[0]), key[1], first + number * frequency] = value
    if "current.wal" in names:
        for below, metric, time, value in read_wal(bytes(disk.map(path / "current.wal"))):
            found[(*host, *below), metric, time] = value
