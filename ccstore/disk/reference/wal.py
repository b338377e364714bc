"""The reference's log: the file ``current.wal`` of a host, bytes <-> columns.

A log is a magic number and records; each record is one sample, tells by names what it is of, and carries a
checksum of its own. Cluster and host are not in it: they are the names of the directories around it.

Owns what these bytes mean; reads no file. Invariant: what `decode_log` returns is the longest prefix of
whole, right records, and an appended record can be read again exactly if it was put behind that prefix. The
reference stops there as well, but goes on to append behind what is torn, where nobody finds it; so the offset
is part of the result.

The names of a series make up nine tenths of a record and never change. The encoder therefore keeps them ready
as bytes, and the decoder compares them with those of the series that came next the last time: a collector
sends its metrics in the same order each time.
"""

from typing import TypeVar

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.disk.reference import kernels
from ccstore.disk.reference.checkpoint import MAX_DEPTH
from ccstore.disk.reference.columns import Naming
from ccstore.disk.reference.kernels import AROUND, LARGEST, SMALLEST, State
from ccstore.model import Names, Samples

__all__ = ["FILE_MAGIC", "RECORD_MAGIC", "Log", "LogEncoder", "decode_log"]

FILE_MAGIC = bytes.fromhex("01a71dcc")
"""What a log begins with."""
RECORD_MAGIC = kernels.MAGIC.to_bytes(4, "little")
"""What each of its records begins with."""
_FIRST_SERIES = 1024
_Scalar = TypeVar("_Scalar", bound=np.generic)
_PADDING = 8  # kernels read eight bytes at a time
_MOST_PLACE_BYTES = 255
_MOST_METRIC_BYTES = 65_535


@frozen
class Log:
    """What a log holds."""

    names: Names
    """All frequencies are 0: a log does not tell them."""
    samples: Samples
    """In the order of the log."""
    good_bytes: int
    """Bytes up to the end of the last good record; 0 also if the magic number is not there."""
    bad_bytes: int
    """Bytes behind these."""
    reason: str
    """What is wrong with the first bad byte, as ``byte n: what (got, wanted)``; empty if there is none."""


def decode_log(data: memoryview | bytes, *, cluster: str, host: str) -> Log:
    """Read a whole log; an empty one is good and has no samples.

    Whatever the data hold, the result is the good prefix; this raises nothing.
    """
    if len(data) < len(FILE_MAGIC) or data[:4] != FILE_MAGIC:
        reason = _explain_file(bytes(data[:4]))
        return _make_log(data, _Series(0), (cluster, host), good=0, reason=reason)
    view = np.frombuffer(data, np.uint8)
    series = _Series(len(view) // (AROUND + 3))
    series.state[State.AT] = len(FILE_MAGIC)
    while (wrong := series.decode(view)) == kernels.GROW:
        series.grow()
    good = int(series.state[State.AT])
    reason = "" if wrong == kernels.DONE else _explain_record(data, good, wrong)
    return _make_log(data, series, (cluster, host), good=good, reason=reason)


class _Series:
    """The series that were found so far, and room for all samples."""

    def __init__(self, most_samples: int) -> None:
        self.state = np.zeros(4, np.int64)
        self.state[State.LATEST] = -1
        self.table = np.full(2 * _FIRST_SERIES, -1, np.int32)
        self.starts = np.empty(_FIRST_SERIES, np.int64)
        self.sizes = np.empty(_FIRST_SERIES, np.int32)
        self.tags = np.empty(_FIRST_SERIES, np.uint32)
        self.followers = np.empty(_FIRST_SERIES, np.int32)
        self.numbers = np.empty(most_samples, np.int32)
        self.times = np.empty(most_samples, np.int64)
        self.bits = np.empty(most_samples, np.uint32)

    def decode(self, data: NDArray[np.uint8]) -> int:
        """Go on reading; return why it stopped."""
        of_series = (self.table, self.starts, self.sizes, self.tags, self.followers)
        return int(kernels.decode(data, *of_series, self.numbers, self.times, self.bits, self.state))

    def grow(self) -> None:
        """Double the room for series."""
        for name in ("starts", "sizes", "tags", "followers"):
            before = getattr(self, name)
            setattr(self, name, np.concatenate([before, np.empty_like(before)]))
        self.table = np.full(2 * len(self.table), -1, np.int32)
        kernels.fill_table(self.table, self.tags, self.state[State.SERIES])


def _make_log(
    data: memoryview | bytes, found: _Series, host: tuple[str, str], *, good: int, reason: str
) -> Log:
    series, samples = int(found.state[State.SERIES]), int(found.state[State.SAMPLES])
    naming = Naming(*host)
    for start, size in zip(found.starts[:series].tolist(), found.sizes[:series].tolist(), strict=True):
        metric, parts = _take_apart(bytes(data[start : start + size]))
        naming.add_series(naming.place(parts), metric, 0)
    # the room was for the shortest records: what was not used was never touched
    columns = Samples(
        numbers=found.numbers[:samples],
        times=found.times[:samples],
        values=found.bits[:samples].view(np.float32),
    )
    return Log(naming.names(), columns, good, len(data) - good, reason)


def _take_apart(identity: bytes) -> tuple[str, tuple[str, ...]]:
    """Return metric and places of an identity, whose lengths are right."""
    behind = 2 + int.from_bytes(identity[:2], "little")
    parts, at = [], behind + 1
    while at < len(identity):
        parts.append(identity[at + 1 : at + 1 + identity[at]].decode(errors="replace"))
        at += 1 + identity[at]
    return identity[2:behind].decode(errors="replace"), tuple(parts)


def _explain_file(head: bytes) -> str:
    if head == FILE_MAGIC[: len(head)]:
        return f"byte 0: torn magic number ({len(head)} bytes, wanted 4)" if head else ""
    return f"byte 0: not a log of the reference (got {head.hex()!r}, wanted {FILE_MAGIC.hex()!r})"


def _explain_record(data: memoryview | bytes, at: int, wrong: int) -> str:
    head = bytes(data[at : at + 8])
    size, left = int.from_bytes(head[4:], "little"), len(data) - at
    wanted = size + 12 if left >= 8 and SMALLEST <= size <= LARGEST else SMALLEST + 12
    stored = int.from_bytes(data[at + 8 + size : at + 12 + size], "little")
    what = {
        kernels.BAD_MAGIC: f"no record (got {head[:4].hex()!r}, wanted {RECORD_MAGIC.hex()!r})",
        kernels.BAD_LENGTH: f"payload of {size} bytes (wanted {SMALLEST} to {LARGEST})",
        kernels.SHORT: f"torn record ({left} bytes, wanted {wanted})",
        kernels.BAD_CHECKSUM: f"checksum mismatch (stored {stored:#010x})",
        kernels.BAD_SHAPE: f"names that do not fill the record, or of more than {MAX_DEPTH} places",
    }
    return f"byte {at}: {what[wrong]}"


class LogEncoder:
    """Makes records of samples, sorted by host: the names of every series are kept ready as bytes.

    It follows the numbering of one file of names: `learn` what is new, then `encode` samples of it.
    """

    def __init__(self) -> None:
        self._hosts: list[int] = []  # of each place: index of its host in the next list, -1 for a cluster
        self._host_places: list[int] = []
        self._selectors: list[bytes] = []  # of each place: the places below the host as in a record
        self._metrics: list[bytes] = []
        self._series = 0
        self._arena_used = 0
        self._arena = np.zeros(_PADDING, np.uint8)
        self._starts = np.empty(0, np.int64)
        self._sizes = np.empty(0, np.int32)
        self._series_hosts = np.empty(0, np.int32)
        self._out = np.empty(0, np.uint8)

    def learn(self, names: Names) -> None:
        """Go on with the numbering of places, metrics and series.

        Every series is at a host or below, every place name has at most 255 bytes, every metric name 65535.
        """
        for parent, name in zip(names.parents.tolist(), names.place_names, strict=True):
            self._add_place(parent, name.encode())
        for name in names.metric_names:
            text = name.encode()
            assert len(text) <= _MOST_METRIC_BYTES, "the configuration lets no longer name in"
            self._metrics.append(len(text).to_bytes(2, "little") + text)
        places = names.series_places.tolist()
        identities = [
            self._metrics[metric] + self._selectors[place]
            for place, metric in zip(places, names.series_metrics.tolist(), strict=True)
        ]
        self._add_identities(identities, [self._hosts[place] for place in places])

    def _add_place(self, parent: int, name: bytes) -> None:
        if parent < 0:  # a cluster
            host, selector = -1, b""
        elif self._hosts[parent] < 0:  # a host
            host, selector = len(self._host_places), b"\0"
            self._host_places.append(len(self._hosts))
        else:
            assert len(name) <= _MOST_PLACE_BYTES, "ingest and recovery let no longer name in"
            host, above = self._hosts[parent], self._selectors[parent]
            selector = bytes([above[0] + 1]) + above[1:] + bytes([len(name)]) + name
        self._hosts.append(host)
        self._selectors.append(selector)

    def _add_identities(self, identities: list[bytes], hosts: list[int]) -> None:
        assert min(hosts, default=0) >= 0, "a series above the hosts is in no log"
        sizes = np.fromiter(map(len, identities), np.int32, len(identities))
        ends = self._arena_used + np.cumsum(sizes, dtype=np.int64)
        count, used = self._series + len(identities), int(ends[-1]) if len(ends) else self._arena_used
        self._arena = _at_least(self._arena, used + _PADDING)
        self._starts = _at_least(self._starts, count)
        self._sizes = _at_least(self._sizes, count)
        self._series_hosts = _at_least(self._series_hosts, count)
        self._arena[self._arena_used : used] = np.frombuffer(b"".join(identities), np.uint8)
        self._starts[self._series : count] = ends - sizes
        self._sizes[self._series : count] = sizes
        self._series_hosts[self._series : count] = hosts
        self._series, self._arena_used = count, used

    def encode(self, samples: Samples) -> list[tuple[int, memoryview]]:
        """Return for each host that has samples the number of its place, and its records in their order.

        The bytes are overwritten by the next call.
        """
        # the kernels look at no bound
        known = samples.numbers.view(np.uint32).max(initial=0) < max(self._series, 1)
        assert known, "names are learned before samples are written"
        assert len(samples.times) == len(samples.values) == len(samples.numbers), "columns differ in length"
        room = np.zeros(len(self._host_places), np.int64)
        of_series = (self._sizes, self._series_hosts)
        kernels.measure(samples.numbers, *of_series, room)
        stops = np.cumsum(room)
        total = int(stops[-1]) if len(stops) else 0
        if len(self._out) < total:
            self._out = np.empty(total + total // 4, np.uint8)
        columns = (samples.numbers, samples.times, samples.values.view(np.uint32))
        kernels.encode(*columns, self._arena, self._starts, *of_series, stops - room, self._out)
        view = self._out.data
        return [
            (self._host_places[host], view[int(stops[host] - room[host]) : int(stops[host])])
            for host in np.flatnonzero(room).tolist()
        ]


def _at_least(array: NDArray[_Scalar], size: int) -> NDArray[_Scalar]:
    """Return the array, or a longer one that begins with it and has room for more."""
    if len(array) >= size:
        return array
    longer = np.zeros(size + size // 2, array.dtype)
    longer[: len(array)] = array
    return longer
