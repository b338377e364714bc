"""What a scan must make of a message: the full grammar, one line after the other, and nothing clever.

`expect` is the oracle, `Bench` runs the real scanner over the same bytes; both tell in names, not in ids,
what became of each line.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ccstore.errors import ProtocolError
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Batch, Metric, Outcome
from ccstore.wire.keys import KeyCache
from ccstore.wire.lineprotocol import (
    end_of_bad_line,
    merge_tags,
    parse_line,
    place_of,
    seconds_of,
    split_measurement,
    value_of,
)
from ccstore.wire.scan import SPARE_BYTES, Reject, Scan, Scanner

NOW = 1_700_000_123
MANY = 2**31 - 1

METRICS = (
    Metric("m", 60, Aggregation.SUM),
    Metric("plain", 60),
    Metric("average_of_something_with_a_long_name", 10, Aggregation.AVG),
    Metric("with space,comma", 60),
    Metric("back\\slash", 60, Aggregation.SUM),
    Metric("é", 60),
    Metric("x=y", 60),
    Metric("#hash", 60),
    Metric('"quoted"', 60),
)


class Row(NamedTuple):
    """What became of one line."""

    outcome: Outcome | None
    """None if it has a sample, whose outcome the store decides."""
    metric: str = ""
    path: tuple[str, ...] = ()
    time: int = 0
    value: int = 0
    """The bits of the float32."""
    reason: str = ""


def bits_of(value: float) -> int:
    """Return the bits of the float32 next to a number."""
    return int(np.float32(value).view(np.uint32))


def sample(value: float, time: int, *path: str, metric: str = "m") -> Row:
    """Return the row of a line that has a sample."""
    return Row(None, metric, path, time, bits_of(value))


def expect(
    message: bytes,
    *,
    metrics: Iterable[Metric] = METRICS,
    default_cluster: str = "",
    now: int = NOW,
    longest: int = 128 * 1024,
) -> list[Row]:
    """Return what becomes of each line of a message."""
    combines = {metric.name: metric.aggregation is not Aggregation.NONE for metric in metrics}
    rows, at = [], 0
    while at < len(message):
        row, at = _expect_line(message, at, combines, default_cluster, now, longest)
        rows.append(row)
    return rows


def _expect_line(
    message: bytes, at: int, combines: Mapping[str, bool], default_cluster: str, now: int, longest: int
) -> tuple[Row, int]:
    behind = end_of_bad_line(message, at, len(message))
    size = behind - at - message[at:behind].endswith(b"\n")
    if size > longest:
        return Row(Outcome.LIMIT, reason=f"line of {size} bytes"), behind
    stop, line, wrong = min(len(message), at + longest + 1), None, ""
    try:
        line = parse_line(message, at, stop)
    except ProtocolError as error:
        wrong = str(error)
    if line is not None:
        if line.stop - at > longest and message[line.stop - 1 : line.stop] != b"\n":
            return Row(Outcome.LIMIT, reason=f"line of more than {longest} bytes"), behind
        behind = line.stop
    name = split_measurement(message, at, stop) if line is None else line.measurement
    if name is not None and name not in combines:
        return Row(Outcome.UNKNOWN_METRIC), behind
    if line is None:
        return (Row(Outcome.BAD_LINE, reason=wrong) if wrong else Row(Outcome.BLANK)), behind
    try:
        value = value_of(line)
        time = now if line.timestamp is None else seconds_of(line.timestamp)
        tags = merge_tags(line.tags)
    except ProtocolError as error:
        return Row(Outcome.BAD_LINE, reason=str(error)), behind
    place = place_of(tags, default_cluster=default_cluster, combines=combines[line.measurement])
    if place.refused:
        return Row(Outcome.REFUSED_COMPONENT, reason=place.refused), behind
    return sample(value, time, *place.path, metric=line.measurement), behind


class Bench:
    """A scanner with a real store behind it."""

    def __init__(
        self,
        metrics: Sequence[Metric] = METRICS,
        *,
        max_keys: int = 1000,
        max_series: int = 1000,
        longest: int = 128 * 1024,
        rows: int = 8192,
        todo: int = 2048,
        ahead: int = 16,
        places: int = 1000,
        own: Mapping[str, Sequence[Metric]] = MappingProxyType({}),
    ) -> None:
        """Make a scanner that may have less room than usual: for so many rows, entries, and keys."""
        self.store = Store(metrics, own=own, max_series=max_series, max_bytes=1 << 20)
        self.keys = KeyCache(max_keys=max_keys, seed=7)
        self.scanner = Scanner(self.keys, self.store, max_line_bytes=longest)
        batch = self.scanner.batch
        self.scanner.batch = Batch(
            rows, batch.series[:rows], batch.times[:rows], batch.values[:rows], batch.outcomes[:rows]
        )
        self.scanner.todo = self.scanner.todo[:todo]
        self.scanner.ahead = self.scanner.ahead[:ahead]
        self.scanner.places = KeyCache(max_keys=places, seed=7)
        self.rejects: list[Reject] = []
        """Of the last scan."""
        self.made = 0
        """Series made by the last scan."""

    def scan(
        self,
        *messages: bytes,
        default_cluster: str = "",
        now: int = NOW,
        junk: bytes = bytes(SPARE_BYTES),
        allowance: int = MANY,
    ) -> list[Row]:
        """Scan messages that lie in one buffer, with junk between and behind them."""
        buffer = b"".join(message + junk for message in messages)
        sizes = np.array([len(message) + len(junk) for message in messages], np.int64)
        stops = np.cumsum(sizes) - len(junk)
        starts = stops - (sizes - len(junk))
        scan = Scan(
            self.scanner,
            np.frombuffer(buffer, np.uint8),
            starts,
            stops,
            now=now,
            default_cluster=default_cluster,
        )
        self.rejects, self.made = [], 0
        return self._run(scan, allowance)

    def scan_blocks(
        self, message: bytes, cuts: Iterable[int], *, default_cluster: str = "", now: int = NOW
    ) -> list[Row]:
        """Scan a message that comes in blocks cut at some offsets."""
        self.rejects, self.made = [], 0
        rows: list[Row] = []
        carried = b""
        for start, stop in itertools.pairwise([0, *sorted(cuts), len(message)]):
            block = carried + message[start:stop]
            scan = Scan(
                self.scanner,
                np.frombuffer(block + b"\xff" * SPARE_BYTES, np.uint8),
                np.array([0]),
                np.array([len(block)]),
                now=now,
                default_cluster=default_cluster,
                final=stop == len(message),
            )
            before = len(rows)
            done = len(self.rejects)
            rows += self._run(scan, MANY)
            for reject in self.rejects[done:]:
                object.__setattr__(reject, "line", reject.line + before)
            carried = block[scan.position :]
            assert len(carried) <= self.scanner.max_line_bytes or b"\n" not in carried
        assert not carried
        return rows

    def _run(self, scan: Scan, allowance: int) -> list[Row]:
        rows: list[Row] = []
        idle = 0
        while not scan.done:
            before = scan.position
            self.scanner.batch.outcomes[:] = 255  # none: what the step does not write is found out
            batch, made = scan.step(allowance=allowance - self.made)
            idle = 0 if batch.count or scan.position > before else idle + 1
            assert idle < 2 or scan.done, "no progress"  # a step may end at once, before a line with a quote
            self.made += made
            self.rejects += scan.rejects
            rows += [self._row(k, batch.series, batch) for k in range(batch.count)]
        return rows

    def _row(self, k: int, series, batch) -> Row:
        if series[k] < 0:
            return Row(Outcome(int(batch.outcomes[k])))
        record = self.store.columns.series[series[k]]
        metric = self.store.metrics[record["metric"]].name
        value = int(batch.values[k : k + 1].view(np.uint32)[0])
        return Row(None, metric, self.path_of(int(record["place"])), int(batch.times[k]), value)

    def path_of(self, place: int) -> tuple[str, ...]:
        """Return the path of a place."""
        path = []
        while place != self.store.index.root:
            path.append(self.store.index.name(place))
            place = int(self.store.columns.places["parent"][place])
        return tuple(reversed(path))


def bare(rows: Iterable[Row]) -> list[Row]:
    """Return rows without their reasons."""
    return [row._replace(reason="") for row in rows]


def reasons(rows: Iterable[Row], *outcomes: Outcome) -> list[tuple[int, Outcome, str]]:
    """Return (line, outcome, reason) of the rows with some outcomes, as rejects tell them."""
    return [(n, row.outcome, row.reason) for n, row in enumerate(rows, 1) if row.outcome in outcomes]


def check(message: bytes, rows: list[Row], *, default_cluster: str = "", longest: int = 131072) -> None:
    """Check what becomes of a message: by the grammar, with new keys, with known ones, and in blocks."""
    assert rows == bare(expect(message, default_cluster=default_cluster, longest=longest))
    bench = Bench(longest=longest)
    for _ in range(2):
        assert rows == bench.scan(message, default_cluster=default_cluster)
    assert rows == bench.scan_blocks(message, range(0, len(message), 7), default_cluster=default_cluster)
