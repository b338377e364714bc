"""The store again, as slow and plain as can be: dicts and lists, one slot at a time.

Written from the contract (how a point finds its slot, what a read returns, how components
combine, what is freed), not from the code it judges: no columns, no kernels, no caches. Values are
rounded to float32 when they are stored; all else is ordinary Python.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from attrs import Factory, define

from ccstore.model import ANY, Aggregation, Metric, Outcome, Selector, Status

CAPACITY = 512
BLOCK = 32
NAN = math.nan

Path = tuple[str, ...]
Values = list[float]


@define
class OracleChunk:
    """512 slots at most, the first of which begins at `start`."""

    start: int
    slots: Values = Factory(list)
    blocks: set[int] = Factory(set)
    """Blocks of 32 slots that something was written to: what memory is taken for."""
    saved: int = 0
    """Slots below it are in a checkpoint."""


@define
class OracleSeries:
    """The chunks of one series, oldest first."""

    frequency: int
    chunks: list[OracleChunk] = Factory(list)

    def write(self, time: int, value: float, *, may_grow: bool) -> Outcome:
        """Store a point, unless it takes memory and may not."""
        f = self.frequency
        chunk = next((c for c in reversed(self.chunks) if c.start <= time), None)
        if chunk is None and self.chunks:
            return Outcome.LATE
        slot = CAPACITY if chunk is None else (time - chunk.start) // f
        if slot >= CAPACITY:
            if self.chunks and chunk is not self.chunks[-1]:
                return Outcome.LATE
            chunk, slot = OracleChunk(time - f // 2), 0
        assert chunk is not None
        if slot // BLOCK not in chunk.blocks and not may_grow:
            return Outcome.LIMIT
        if not any(c is chunk for c in self.chunks):
            self.chunks.append(chunk)
        chunk.blocks.add(slot // BLOCK)
        chunk.slots += [NAN] * (slot + 1 - len(chunk.slots))
        chunk.saved = min(chunk.saved, slot)
        held = not math.isnan(chunk.slots[slot])
        chunk.slots[slot] = float(np.float32(value))
        return Outcome.OVERWRITTEN if held else Outcome.STORED

    def read(self, start: int, stop: int) -> tuple[Values, int]:
        """Return the values over [start, stop), and the time of the first one."""
        f, k = self.frequency, len(self.chunks) - 1
        while start < self.chunks[k].start + f // 2:
            if k == 0:
                start = self.chunks[0].start + f // 2
                break
            k -= 1
        values, t = [], start
        while t < stop:
            while self._is_past(k, t) and k + 1 < len(self.chunks):
                k += 1
            chunk = self.chunks[k]
            slot = (t - chunk.start) // f
            if t < chunk.start:
                values.append(NAN)
            elif slot < len(chunk.slots):
                values.append(chunk.slots[slot])
            elif k + 1 == len(self.chunks) or stop <= self.chunks[k + 1].start:
                break
            else:
                values.append(NAN)
            t += f
        return values, start

    def _is_past(self, k: int, t: int) -> bool:
        """Tell whether a later chunk is where to look for time t."""
        chunk = self.chunks[k]
        slot = (t - chunk.start) // self.frequency
        begun = k + 1 < len(self.chunks) and t >= self.chunks[k + 1].start
        return slot >= CAPACITY or (slot >= len(chunk.slots) and begun)

    def ends(self) -> Iterator[int]:
        """Yield one frequency behind the time of the last slot of each chunk."""
        f = self.frequency
        return (chunk.start + f // 2 + f * len(chunk.slots) for chunk in self.chunks)

    def free(self, cutoff: int, *, saved_only: bool = False) -> int:
        """Drop chunks, oldest first, that end before the cutoff, and are saved; return how many."""
        old = 0
        for chunk, end in zip(self.chunks, self.ends(), strict=True):
            if end >= cutoff or (saved_only and chunk.saved < len(chunk.slots)):
                break
            old += 1
        del self.chunks[:old]
        return old

    def copy_unsaved(self) -> list[tuple[OracleChunk, int, Values]]:
        """Return what is unsaved of each chunk, with its first slot, and mark it saved."""
        found = []
        for chunk in self.chunks:
            if chunk.saved < len(chunk.slots):
                found.append((chunk, chunk.saved, chunk.slots[chunk.saved :]))
                chunk.saved = len(chunk.slots)
        return found

    def restore(self, start: int, first: int, values: Values, *, rows: int) -> bool:
        """Put slots of a chunk back, with at most so many more rows; return whether all are there."""
        f = self.frequency
        chunk = next((c for c in self.chunks if c.start == start), None)
        later = min((c.start for c in self.chunks if c.start > start), default=math.inf)
        fitting = [value for k, value in enumerate(values, first) if start + f * k < later]
        if chunk is None:
            before = [c.start + f * (len(c.slots) - 1) for c in self.chunks if c.start < start]
            if not fitting or not rows or any(last >= start for last in before):
                return False
            chunk, rows = OracleChunk(start, [NAN], {0}, saved=first), rows - 1
            self.chunks = sorted([*self.chunks, chunk], key=lambda c: c.start)
        full = False
        for block in range(first // BLOCK, (first + len(fitting) - 1) // BLOCK + 1 if fitting else 0):
            part = {k: value for k, value in enumerate(fitting, first) if k // BLOCK == block}
            if block not in chunk.blocks:
                if all(math.isnan(v) for v in part.values()) and first + len(fitting) - 1 not in part:
                    continue
                if not rows:
                    full = True
                    break
                rows -= 1
                chunk.blocks.add(block)
            chunk.slots += [NAN] * (max(part) + 1 - len(chunk.slots))
            for k, value in part.items():
                chunk.slots[k] = value
        placed = len(fitting) == len(values) and not full
        if placed and first <= chunk.saved:
            chunk.saved = max(chunk.saved, first + len(values))
        chunk.saved = min(chunk.saved, len(chunk.slots))
        return placed


@define
class OracleWindow:
    """What a read returns."""

    status: Status
    values: Values = Factory(list)
    start: int = 0


def combine(
    series: list[OracleSeries], aggregation: Aggregation, start: int, stop: int, *, strict: bool
) -> OracleWindow:
    """Read several series as one."""
    if not series:
        return OracleWindow(Status.NOTHING)
    if len(series) == 1:
        return OracleWindow(Status.GOOD, *series[0].read(start, stop))
    if aggregation is Aggregation.NONE:
        return OracleWindow(Status.NO_AGGREGATION)
    f = series[0].frequency
    if not strict:
        series = _speaking(series, start, stop)
    firsts = [one.read(start, stop)[1] for one in series]
    common = max(firsts)
    parts = [one.read(common, stop)[0] for one in series]
    together = min(map(len, parts))
    if strict and together == 0:
        return OracleWindow(Status.NOT_ALIGNED)
    values = [sum(column) for column in zip(*parts, strict=False)]
    if aggregation is Aggregation.AVG:
        values = [value * (1.0 / len(parts)) for value in values]
    if not strict and any(one.read(start, stop)[0] for one in series):
        values += [NAN] * (max(map(len, parts)) - together)
        while common - f >= min(firsts):
            common -= f
            values.insert(0, NAN)
    return OracleWindow(Status.GOOD, values, common)


def _speaking(series: list[OracleSeries], start: int, stop: int) -> list[OracleSeries]:
    """Return the series with values in the range; if there are none, those with slots; else all."""
    with_slots = [one for one in series if one.read(start, stop)[0]]
    with_values = [
        one for one in with_slots if not all(math.isnan(value) for value in one.read(start, stop)[0])
    ]
    return with_values or with_slots or series


def statistics(values: Iterable[float]) -> tuple[float, float, float]:
    """Return average, minimum and maximum of what is not missing."""
    held = [value for value in values if not math.isnan(value)]
    return (sum(held) / len(held), min(held), max(held)) if held else (NAN, NAN, NAN)


@define
class Oracle:
    """A store: series by (path, metric id)."""

    metrics: list[Metric]
    max_rows: int
    series: dict[tuple[Path, int], OracleSeries] = Factory(dict)

    def rows(self) -> int:
        """Return how many rows of memory are taken."""
        return sum(len(chunk.blocks) for one in self.series.values() for chunk in one.chunks)

    def write(self, path: Path, metric: int, time: int, value: float, *, latest: int) -> Outcome:
        """Store a point."""
        f = self.metrics[metric].frequency
        if time > latest + 2 * f:
            return Outcome.FUTURE
        series = self.series.get((path, metric), OracleSeries(f))
        outcome = series.write(time, value, may_grow=self.rows() < self.max_rows)
        if series.chunks:
            self.series[path, metric] = series
        return outcome

    def below(self, path: Path) -> Iterator[tuple[Path, int]]:
        """Yield (path, metric) of all series at and below a path."""
        return (key for key in self.series if key[0][: len(path)] == path)

    def free(self, path: Path, cutoff: int, *, saved_only: bool = False) -> int:
        """Drop chunks that end before the cutoff, and are saved; a series without chunks is gone."""
        freed = 0
        for key in list(self.below(path)):
            freed += self.series[key].free(cutoff, saved_only=saved_only)
            if not self.series[key].chunks:
                del self.series[key]
        return freed

    def children(self, path: Path) -> list[str]:
        """Return the names right below a path where something is stored, sorted."""
        return sorted({key[0][len(path)] for key in self.below(path) if len(key[0]) > len(path)})

    def select(self, selector: Selector, metric: int) -> list[Path]:
        """Return the paths of the series that a selector means."""
        paths: list[Path] = [()]
        for element in selector:
            below = []
            for path in paths:
                children = self.children(path)
                names = children if element is ANY else (element,) if isinstance(element, str) else element
                below += [(*path, name) for name in names if name in children]
            paths = below
        return [found for path in paths for found in self._collect(path, metric)]

    def _collect(self, path: Path, metric: int) -> list[Path]:
        if (path, metric) in self.series:
            return [path]
        return [found for name in self.children(path) for found in self._collect((*path, name), metric)]

    def read(self, selector: Selector, metric: int, start: int, stop: int, *, strict: bool) -> OracleWindow:
        """Read what a selector means as one series."""
        series = [self.series[path, metric] for path in self.select(selector, metric)]
        return combine(series, self.metrics[metric].aggregation, start, stop, strict=strict)

    def health(self, host: Path, expected: list[int], *, now: int) -> tuple[list[int], list[int]] | None:
        """Return which of the expected metrics are degraded, and which are missing; None: no host."""
        if not any(self.below(host)):
            return None
        degraded, missing = [], []
        for metric in expected:
            f = self.metrics[metric].frequency
            found = [self.series[key] for key in self.below(host) if key[1] == metric]
            if not found:
                missing.append(metric)
            elif any(now - (list(one.ends())[-1] - f // 2) > 5 * f for one in found):
                degraded.append(metric)
        return degraded, missing
