"""A whole directory in another format.

Owns how a directory is written anew: into one that appears under its name only when it is complete, synced,
and was read again without a difference. The directory that is read is never changed; how it is read is a
matter of `holdings`.

Invariant: a target that has its name holds every value that could be read, in the slot it had; of several for
one slot the one that a server would have. What could not be read is in `Conversion.problems`.

The reference's format cleans up by the names of files, so its files are cut at half days, as if they had
been written every twelve hours.
"""

import itertools
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import define, evolve, field
from numpy.typing import NDArray

from ccstore.disk import layout
from ccstore.disk.checkpoint import CheckpointReader
from ccstore.disk.contents import Series
from ccstore.disk.files import OsDisk
from ccstore.disk.folding import cut_by_period, join_runs, pick_runs
from ccstore.disk.holdings import Frequencies, Holdings, HostHoldings
from ccstore.disk.reference.columns import arrange, flatten
from ccstore.disk.reference.directory import (
    encode_checkpoint,
    list_hosts,
    next_number,
    read_checkpoint,
)
from ccstore.disk.verification import list_directory
from ccstore.disk.writing import CheckpointFile as ColumnarWriter
from ccstore.errors import CcstoreError, ConfigError
from ccstore.model import Names, Runs

__all__ = ["FORMATS", "Conversion", "ConversionError", "convert_directory"]

FORMATS = ("columnar", "wal", "json")

_PERIOD = 12 * 3600
"""Seconds of a file of the reference."""
_BLOCK_VALUES = 1 << 16
"""Values of a columnar block, about; a run is never cut for it."""
_MAX_NAME_BYTES = 255

Advance = Callable[[str, int, int], None]
"""Called with what is being done, how many bytes of it are done, and of how many."""


class ConversionError(CcstoreError):
    """What was written is not what is read back: the disk or ccstore is broken."""


@define
class Conversion:
    """What was converted."""

    hosts: int = 0
    series: int = 0
    values_read: int = 0
    """Stored ones; those of a slot that several files have count several times."""
    values: int = 0
    """Stored ones that were written."""
    files: int = 0
    bytes: int = 0
    """Of all files written."""
    problems: list[str] = field(factory=list)
    """What could not be read or used, a line each."""


def convert_directory(
    source: Path,
    target: Path,
    *,
    to: str,
    frequencies: Frequencies,
    now: int,
    advance: Advance = lambda _what, _done, _total: None,
) -> Conversion:
    """Write what a directory holds into a new one. Nobody may change the source meanwhile.

    to: one of `FORMATS`.
    frequencies: for logs of the reference.
    now: seconds since the epoch, for the heads of files.
    Raises ConfigError if the source is missing, the target is not empty, or the frequency of a metric is not
    known, ConversionError if what is read again differs from what was written, and OSError. In each case the
    target stays as it was.
    """
    check_target(source, target)
    partial = target.with_name(target.name + ".partial")
    if partial.exists():
        raise ConfigError(f"{partial}: is left of a conversion that was ended (remove it first)")
    partial.mkdir(parents=True)
    try:
        result = _convert(source, partial, to, frequencies, now, advance)
        partial.replace(target)
        OsDisk().sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # the error that brought us here is the one to tell
        raise
    return result


def check_target(source: Path, target: Path) -> None:
    """Raise ConfigError unless a directory can become the target: a new or an empty one beside the source."""
    if not source.is_dir():
        raise ConfigError(f"{source}: no such directory (wanted that of the checkpoints)")
    if target.is_mount():
        raise ConfigError(f"{target}: a mount point (wanted a directory in it)")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{target}: not empty (wanted a new directory)")
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{target}: in the directory that is converted (wanted one beside it)")


def _convert(
    source: Path, target: Path, to: str, frequencies: Frequencies, now: int, advance: Advance
) -> Conversion:
    found = list_directory(source)
    what, done, total = "looking", 0, sum(file.size for file in found.columnar)

    def count(size: int) -> None:
        nonlocal done
        done += size
        advance(what, done, total)

    holdings = Holdings(found, frequencies, count)
    holdings.survey()
    what, done, total = "converting", 0, holdings.bytes_to_read
    result = Conversion(problems=holdings.problems)
    writer = ColumnarTarget(target, now) if to == "columnar" else ReferenceTarget(target, to)
    for host in holdings.hosts():
        result.hosts += 1
        result.series += len(np.unique(host.runs.numbers))
        writer.add(host)
    if holdings.unknown:
        raise ConfigError(
            [
                f"{metric}: frequency not known (in no checkpoint, wanted among the metrics of --config)"
                for metric in sorted(holdings.unknown)
            ]
        )
    writer.finish()
    result.problems += writer.problems
    writer.verify(lambda done, total: advance("reading again", done, total))
    result.values_read, result.values = holdings.values, writer.values
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    result.files, result.bytes = len(sizes), sum(sizes)
    return result


# --- targets


class ColumnarTarget:
    """A directory of ccstore's own format: all of it as one checkpoint."""

    def __init__(self, directory: Path, now: int) -> None:
        self.values = 0
        self.problems: list[str] = []
        below = layout.shard_directory(directory, 0)
        below.mkdir(parents=True)
        self._path = layout.checkpoint_path(below, 1)
        self._file = ColumnarWriter(OsDisk(), self._path, shard=0, number=1, created=now)
        self._digests: list[int] = []
        self._series: list[Series] = []
        self._runs: list[Runs] = []
        self._waiting = 0

    def add(self, host: HostHoldings) -> None:
        """Take all of a host."""
        for runs in _in_blocks(self._nameable(host)):
            used, rows = np.unique(runs.numbers, return_inverse=True)
            numbers = (rows + len(self._series)).astype(np.int32)
            self._series += [host.series[k] for k in used.tolist()]
            self._runs.append(evolve(runs, numbers=numbers))
            self._waiting += len(runs.values)
            if self._waiting >= _BLOCK_VALUES:
                self._flush()

    def _nameable(self, host: HostHoldings) -> Runs:
        """Return the runs of series whose names the format can hold."""
        bad = np.array([not _is_nameable(series) for series in host.series], np.bool_)
        for k in np.flatnonzero(bad).tolist():
            self.problems.append(f"{str(host.series[k])!r}: no name for a series of the columnar format")
        return pick_runs(host.runs, np.flatnonzero(~bad[host.runs.numbers])) if bad.any() else host.runs

    def _flush(self) -> None:
        names, runs = name_series(self._series), join_runs(self._runs)
        self._file.add_block(names, runs)
        self._digests.append(_digest(names, runs))
        self.values += _count_stored(runs)
        self._series, self._runs, self._waiting = [], [], 0

    def finish(self) -> None:
        """Write what waits and complete the file."""
        if self._runs:
            self._flush()
        self._file.finish()

    def verify(self, advance: Callable[[int, int], None]) -> None:
        """Read the file again. Raises ConversionError if it differs from what was written."""
        if not self._digests:
            return
        for path in (self._path.parent.parent, self._path.parent.parent.parent):
            OsDisk().sync_directory(path)
        reader = CheckpointReader(OsDisk().map(self._path))
        found = []
        for names, runs in reader:
            found.append(_digest(names, runs))
            advance(len(found), len(self._digests))
        if found != self._digests or reader.summary is None or reader.damage or reader.tail:
            raise ConversionError(f"{self._path}: differs from what was written")


class ReferenceTarget:
    """A directory of the reference's formats: files of hosts, as after a clean stop."""

    def __init__(self, directory: Path, to: str) -> None:
        self.values = 0
        self.problems: list[str] = []
        self._directory = directory
        self._suffix = ".json" if to == "json" else ".bin"
        self._digests: dict[Path, int] = {}
        self._infinite = 0

    def add(self, host: HostHoldings) -> None:
        """Write the files of a host."""
        runs = self._expressible(host.runs)
        frequencies = np.array([series.frequency for series in host.series], np.int64)
        directory = self._directory.joinpath(*host.host)
        taken: list[int] = []
        for part in cut_by_period(runs, frequencies, _PERIOD):
            used, rows = np.unique(part.numbers, return_inverse=True)
            named = evolve(part, numbers=rows.astype(np.int32))
            begins = part.starts + part.firsts * frequencies[part.numbers]
            start = next_number(taken, int(begins.min()))
            names = name_series([host.series[k] for k in used.tolist()])
            for checkpoint in arrange(names, named, start=start, stop=start):
                directory.mkdir(parents=True, exist_ok=True)
                path = directory / f"{checkpoint.start}{self._suffix}"
                path.write_bytes(encode_checkpoint(checkpoint, self._suffix))
                names_, runs_ = flatten(checkpoint, cluster=host.host[0], host=host.host[1])
                self._digests[path] = _digest(names_, runs_)
                self.values += _count_stored(runs_)
                taken.append(checkpoint.start)

    def _expressible(self, runs: Runs) -> Runs:
        """Return runs without what the format cannot say."""
        infinite = np.isinf(runs.values) if self._suffix == ".json" else np.zeros(0, np.bool_)
        if not infinite.any():
            return runs
        self._infinite += int(np.count_nonzero(infinite))
        return evolve(runs, values=np.where(infinite, np.float32(np.nan), runs.values))

    def finish(self) -> None:
        """Report what was left out."""
        if self._infinite:
            self.problems.append(f"{self._infinite} infinite values: JSON has none, so they are missing")

    def verify(self, advance: Callable[[int, int], None]) -> None:
        """Read all files again, and sync them. Raises ConversionError if one is not what was written."""
        disk, done = OsDisk(), 0
        for host in list_hosts(disk, self._directory).hosts:
            for file in host.files:
                checkpoint = read_checkpoint(disk, file)
                names, runs = flatten(checkpoint, cluster=host.cluster, host=host.host)
                if self._digests.pop(file.path, None) != _digest(names, runs):
                    raise ConversionError(f"{file.path}: differs from what was written")
                disk.sync_file(file.path)
                done += 1
                advance(done, done + len(self._digests))
            for path in (host.path, host.path.parent):
                disk.sync_directory(path)
        disk.sync_directory(self._directory)
        if self._digests:
            raise ConversionError(f"{min(self._digests)}: was written and is not there")


# --- nouns


def name_series(series: Sequence[Series]) -> Names:
    """Return names in which the n-th series has the number n."""
    places: dict[tuple[str, ...], int] = {}
    parents: list[int] = []
    for one in series:
        for depth in range(1, len(one.path) + 1):
            if places.setdefault(one.path[:depth], len(parents)) == len(parents):
                parents.append(places[one.path[: depth - 1]] if depth > 1 else -1)
    metrics: dict[tuple[str, int], int] = {}
    of_metric = [metrics.setdefault((one.metric, one.frequency), len(metrics)) for one in series]
    return Names(
        parents=np.array(parents, np.int32),
        place_names=[path[-1] for path in places],
        metric_names=[metric for metric, _ in metrics],
        frequencies=np.array([frequency for _, frequency in metrics], np.int64),
        series_places=np.array([places[one.path] for one in series], np.int32),
        series_metrics=np.array(of_metric, np.int32),
    )


def _is_nameable(series: Series) -> bool:
    parts = (*series.path, series.metric)
    return all(0 < len(part.encode()) <= _MAX_NAME_BYTES and "\0" not in part for part in parts)


def _in_blocks(runs: Runs) -> Iterator[Runs]:
    """Yield runs in pieces of about a block."""
    if len(runs.values) <= _BLOCK_VALUES:
        if len(runs.numbers):
            yield runs
        return
    of_block = np.cumsum(runs.counts, dtype=np.int64) // _BLOCK_VALUES
    bounds = np.flatnonzero(np.diff(of_block, prepend=-1))
    for first, stop in itertools.pairwise([*bounds.tolist(), len(of_block)]):
        yield pick_runs(runs, np.arange(first, stop))


def _count_stored(runs: Runs) -> int:
    return int(np.count_nonzero(~np.isnan(runs.values)))


def _digest(names: Names, runs: Runs) -> int:
    """Return a checksum of what names and runs say; every NaN counts as the same."""
    values = np.where(np.isnan(runs.values), np.float32(np.nan), runs.values)
    arrays: list[NDArray[np.generic]] = [
        names.parents, names.frequencies, names.series_places, names.series_metrics,
        runs.numbers, runs.starts, runs.firsts, runs.counts, values,
    ]  # fmt: skip
    crc = zlib.crc32(repr((list(names.place_names), list(names.metric_names))).encode())
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return crc
