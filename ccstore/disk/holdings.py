"""What a whole directory holds, host by host, whichever formats its files have.

Owns what belongs to one host and in which order it counts: the files of the format with the older ones, then
those of the other; of each the checkpoints, then the samples of logs that no checkpoint covers, as the server
would load them. Samples become runs here, so a
host ends up as what memory would hold of it after a start. Changes nothing.

Invariant: memory holds one host, or as many hosts of columnar files as have `GROUP_VALUES` values together.
Columnar files hold many hosts, so they are read once to see how much there is of each, and then once for
each group of hosts.

A log of the reference does not tell how far apart the samples of a metric are. The configuration does, or
else a checkpoint of the same host.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from ccstore.disk import layout
from ccstore.disk.contents import Content, Series, open_file
from ccstore.disk.files import OsDisk
from ccstore.disk.folding import fold, join_runs, join_samples, pick_runs, pick_samples
from ccstore.disk.layout import ColumnarFile
from ccstore.disk.reference.directory import HostDirectory
from ccstore.disk.verification import Found
from ccstore.errors import CorruptionError
from ccstore.model import Runs, Samples

__all__ = ["Frequencies", "Holdings", "HostHoldings"]

GROUP_VALUES = 1 << 26
"""Values of columnar files that are in memory at a time: 256 MiB, and what is made of them."""

_TIMES = 2**60
"""Seconds, both ways: what lies beyond is in no server's memory."""

Host = tuple[str, ...]
"""Cluster and host."""


@frozen
class HostHoldings:
    """What a directory holds of one host."""

    host: Host
    series: Sequence[Series]
    runs: Runs
    """In the order in which they count: the later one of two for the same slot."""


@define
class _Gathered:
    """What was read of one host so far."""

    numbers: dict[Series, int] = field(factory=dict)
    runs: list[Runs] = field(factory=list)
    samples: list[Samples] = field(factory=list)

    def add(self, part: Runs | Samples, series: Sequence[Series]) -> None:
        """Take a part of a file; numbers are those of the file's series."""
        used, rows = np.unique(part.numbers, return_inverse=True)
        numbers = self.numbers
        own = [numbers.setdefault(series[k], len(numbers)) for k in used.tolist()]
        part = evolve(part, numbers=np.array(own, np.int32)[rows])
        if isinstance(part, Runs):
            self.runs.append(part)
        else:
            self.samples.append(part)


Frequencies = Callable[[str], Mapping[str, int]]
"""The seconds of each configured metric, for a cluster."""


@define(eq=False)
class Holdings:
    """Reads a directory that nobody changes meanwhile."""

    found: Found
    frequencies: Frequencies
    advance: Callable[[int], None]
    """Called with the bytes that were read since it was called last."""
    covered: int = 0
    """Segments with smaller numbers are not read."""
    values: int = 0
    """Stored values that were read; one slot can count several times."""
    problems: list[str] = field(factory=list)
    """What could not be read or used, a line each."""
    unknown: set[str] = field(factory=set)
    """Metrics of logs whose frequency nobody tells; their samples are left out."""
    _weights: dict[Host, int] = field(factory=dict)  # values in columnar files
    _reported: set[Path] = field(factory=set)

    def survey(self) -> None:
        """Read all columnar files once: how much they have of each host, and which are needed."""
        self.problems += self.found.reference.unreadable
        damaged_before = len(self.problems)
        checkpoints = [file for file in self.found.columnar if not file.is_segment]
        for file in checkpoints:
            self._weigh(file)
        self.covered = (
            0
            if len(self.problems)
            > damaged_before  # the log before a damaged checkpoint is the only other copy
            else layout.read_covered(OsDisk(), self._directory)
        )
        for file in self._columnar:
            if file.is_segment:
                self._weigh(file)

    @property
    def bytes_to_read(self) -> int:
        """Bytes that `hosts` reads; known after the survey."""
        of_hosts = (
            path.stat().st_size
            for host in self.found.reference.hosts
            for path in (*(file.path for file in host.files), *host.logs)
        )
        groups = sum(any(host in self._weights for host in group) for group in self._groups())
        return sum(of_hosts) + groups * sum(file.size for file in self._columnar)

    def hosts(self) -> Iterator[HostHoldings]:
        """Yield what there is of each host, by cluster and host; those without anything are left out."""
        directories = {(host.cluster, host.host): host for host in self.found.reference.hosts}
        for group in self._groups():
            gathered = self._gather(group)
            for host in group:
                ages = [gathered.pop(host, _Gathered())]
                if host in directories:
                    ages.insert(len(ages) if self._superseded else 0, self._read_host(directories[host]))
                if any(age.numbers for age in ages):
                    yield self._finish(host, ages)

    # --- columnar files

    @property
    def _columnar(self) -> list[ColumnarFile]:
        """The files that are needed: checkpoints first, as a server loads them."""
        kept = [f for f in self.found.columnar if not f.is_segment or f.number >= self.covered]
        return sorted(kept, key=lambda file: file.is_segment)

    @property
    def _superseded(self) -> bool:
        """Whether the files of the reference are the newer ones."""
        return layout.is_superseded(OsDisk(), self._directory)

    @property
    def _directory(self) -> Path:
        return self.found.directory

    def _weigh(self, file: ColumnarFile) -> None:
        hosts = _Hosts()
        for content, part in self._parts(file.path):
            sizes = part.counts if isinstance(part, Runs) else np.ones(len(part.numbers), np.int64)
            totals = np.bincount(hosts.of_rows(content, part), weights=sizes)
            for k in np.flatnonzero(totals).tolist():
                host = hosts.names[k]
                self._weights[host] = self._weights.get(host, 0) + int(totals[k])

    def _groups(self) -> Iterator[list[Host]]:
        """Yield hosts that are read together."""
        of_reference = {(host.cluster, host.host) for host in self.found.reference.hosts}
        group: list[Host] = []
        weight = 0
        for host in sorted(of_reference | set(self._weights)):
            more = self._weights.get(host, 0)
            if group and weight + more > GROUP_VALUES:
                yield group
                group, weight = [], 0
            group.append(host)
            weight += more
        if group:
            yield group

    def _gather(self, group: Sequence[Host]) -> dict[Host, _Gathered]:
        """Return what columnar files hold of some hosts."""
        wanted = {host for host in group if host in self._weights}
        gathered: dict[Host, _Gathered] = {}
        for file in self._columnar if wanted else ():
            hosts = _Hosts()
            for content, part in self._parts(file.path):
                for host, rows in hosts.split(content, part):
                    if host in wanted:
                        gathered.setdefault(host, _Gathered()).add(_pick(part, rows), content.series)
        return gathered

    # --- files of the reference

    def _read_host(self, directory: HostDirectory) -> _Gathered:
        """Return what the files of the reference hold of a host."""
        gathered = _Gathered()
        for path in (*(file.path for file in directory.files), *directory.logs):
            for content, part in self._parts(path):
                gathered.add(part, content.series)
        return gathered

    # --- both

    def _parts(self, path: Path) -> Iterator[tuple[Content, Runs | Samples]]:
        """Read a file as far as it can be read; what cannot is a problem, once."""
        size = read = 0
        try:
            content = open_file(path)
            size = content.size
            for part in content.parts():
                yield content, part
                self.advance(content.position - read)
                read = content.position
            if path not in self._reported:
                self.problems += [f"{path}: {damage}" for damage in content.damage]
                if content.nameless:
                    self.problems.append(f"{path}: {content.nameless} samples of series whose names are lost")
        except CorruptionError as error:
            if path not in self._reported:
                self.problems.append(str(error))
        self._reported.add(path)
        self.advance(size - read)

    def _finish(self, host: Host, ages: Sequence[_Gathered]) -> HostHoldings:
        """Return what was gathered as runs; of several files for a slot the later age counts."""
        whole, parts = _Gathered(), list[tuple[Runs, Samples]]()
        for age in ages:
            whole.runs, whole.samples = [], []
            of_age: list[Runs | Samples] = [*age.runs, *age.samples]
            for part in of_age:
                whole.add(part, list(age.numbers))
            parts.append((join_runs(whole.runs), join_samples(whole.samples)))
        series, runs = list(whole.numbers), join_runs([])
        for of_checkpoints, of_logs in parts:
            self.values += sum(int(np.count_nonzero(~np.isnan(p.values))) for p in (of_checkpoints, of_logs))
            resolved, samples = self._resolve(series, of_logs, host)
            runs = join_runs([runs, of_checkpoints])
            folded = fold(samples, runs, np.array([one.frequency for one in resolved], np.int64))
            runs = join_runs([runs, folded])
        return HostHoldings(host, resolved, self._bounded(host, runs))

    def _resolve(self, series: list[Series], samples: Samples, host: Host) -> tuple[list[Series], Samples]:
        """Give each series of a log a frequency; samples for which there is none are left out."""
        told = {one.metric: one.frequency for one in series if one.frequency} | dict(
            self.frequencies(host[0])
        )
        numbers: dict[Series, int] = {one: k for k, one in enumerate(series) if one.frequency}
        table = np.arange(len(series), dtype=np.int32)
        resolved = list(series)
        for k, one in enumerate(series):
            if one.frequency:
                continue
            if one.metric in told:
                resolved[k] = evolve(one, frequency=told[one.metric])
                table[k] = numbers.setdefault(resolved[k], k)
            else:
                self.unknown.add(one.metric)
                table[k] = -1
        moved = table[samples.numbers]
        kept = np.flatnonzero(moved >= 0)
        return resolved, evolve(pick_samples(samples, kept), numbers=moved[kept])

    def _bounded(self, host: Host, runs: Runs) -> Runs:
        """Return the runs with times that can be computed with."""
        good = (runs.starts > -_TIMES) & (runs.starts < _TIMES)
        if not good.all():
            lost = int(runs.counts[~good].sum())
            self.problems.append(f"{'/'.join(host)}: {lost} values at impossible times are left out")
            return pick_runs(runs, np.flatnonzero(good))
        return runs


def _pick(part: Runs | Samples, rows: NDArray[np.int64]) -> Runs | Samples:
    return pick_runs(part, rows) if isinstance(part, Runs) else pick_samples(part, rows)


class _Hosts:
    """The hosts of a file by number, as they come."""

    def __init__(self) -> None:
        self.names: list[Host] = []
        self._numbers: dict[Host, int] = {}
        self._of_series: list[int] = []

    def of_rows(self, content: Content, part: Runs | Samples) -> NDArray[np.int64]:
        """Return the number of the host of each run or sample."""
        for series in content.series[len(self._of_series) :]:
            host = series.path[:2]
            self._of_series.append(self._numbers.setdefault(host, len(self.names)))
            if len(self._numbers) > len(self.names):
                self.names.append(host)
        used, rows = np.unique(part.numbers, return_inverse=True)
        return np.array([self._of_series[k] for k in used.tolist()], np.int64)[rows]

    def split(self, content: Content, part: Runs | Samples) -> Iterator[tuple[Host, NDArray[np.int64]]]:
        """Yield the hosts of a part, each with its runs or samples in their order."""
        of_row = self.of_rows(content, part)
        order = np.argsort(of_row, kind="stable")
        numbers, firsts = np.unique(of_row[order], return_index=True)
        for k, rows in zip(numbers.tolist(), np.split(order, firsts[1:]), strict=True):
            yield self.names[k], rows
