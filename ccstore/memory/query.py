"""Queries: from a request to groups of series, and from these to windows of values.

A request names many selectors; each is a group of series that is combined into one. A request is
planned and read in parts, and each step is short, so a caller can let others run between any two.
A group is found by name at the moment when it is read, so nothing that happens in between can lead
to the series of another. Work and memory are bounded by what is stored and by the length that one
answer may have, never by the range asked for.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ccstore.memory.index import Index
from ccstore.memory.kernels.read import read_groups
from ccstore.memory.layout import Columns
from ccstore.memory.resample import MINIMUM_POINTS, resample
from ccstore.memory.store import Store
from ccstore.model import Query, QueryRequest, Selector, Status, Window

__all__ = ["Groups", "Reader", "count_selectors", "plan"]

_PART = 512
"""Selectors that are planned at once: about half a millisecond."""
_STEP = 30_000
"""Budget of one window, see `read_groups`: a millisecond for reading it, and about as much for
whoever writes it as text. Finding the series of hosts that were not asked for lately takes another."""

_MAX_RESOLUTION = 2**62  # s


@frozen
class Groups:
    """What to read: a part of a request, one entry for each selector."""

    index: Index
    """Where the series are found, at the moment when they are read."""
    selectors: Sequence[Selector]
    """Which series are combined."""
    metrics: Sequence[str]
    metric_ids: Sequence[int]
    """-1 where the metric is unknown."""
    frequencies: NDArray[np.int64]
    """Seconds; 1 where the metric is unknown."""
    resolutions: NDArray[np.int64]
    """Seconds between two values as asked for; at most the frequency means as stored."""
    factors: NDArray[np.float64]
    """Values and statistics are multiplied by this."""
    queries: NDArray[np.int64]
    """Which query of the request a group belongs to, in ascending order."""
    placeholders: NDArray[np.bool_]
    """Whether the group stands for one of several components, so that it has a place in the answer
    even if nothing matches."""


def count_selectors(store: Store, request: QueryRequest) -> int:
    """Return how many groups a request has."""
    count = sum(map(_count, request.queries))
    if request.for_all_nodes:
        count += len(request.for_all_nodes) * len(store.hosts(request.cluster))
    return count


def plan(store: Store, request: QueryRequest, hosts: Sequence[str]) -> Iterator[Groups]:
    """Turn a request into groups, a part at a time.

    The queries for all nodes, one for each of `hosts` and metric, follow the explicit ones, host by host.
    """
    entries = _entries(request, hosts)
    while part := list(itertools.islice(entries, _PART)):
        selectors, queries, numbers, placeholders = zip(*part, strict=True)
        metric_ids = [store.metric_id(request.cluster, query.metric) for query in queries]
        frequencies = [store.metrics[metric].frequency if metric >= 0 else 1 for metric in metric_ids]
        yield Groups(
            store.index,
            selectors,
            [query.metric for query in queries],
            metric_ids,
            np.array(frequencies, np.int64),
            np.array([min(query.resolution, _MAX_RESOLUTION) for query in queries], np.int64),
            np.array([query.scale_by or 1.0 for query in queries], np.float64),
            np.array(numbers, np.int64),
            np.array(placeholders, np.bool_),
        )


def _entries(request: QueryRequest, hosts: Sequence[str]) -> Iterator[tuple[Selector, Query, int, bool]]:
    """Yield each selector of a request, its query, the query's number, and whether it is one of several."""
    for number, query in enumerate(request.queries):
        several = not query.aggregate and _count(query) > 1
        for selector in _selectors(request.cluster, query):
            yield selector, query, number, several
    queries = [Query(metric) for metric in request.for_all_nodes]
    numbers = itertools.count(len(request.queries))
    for host in hosts:
        for query in queries:
            yield (request.cluster, host), query, next(numbers), False


def _count(query: Query) -> int:
    """Return how many selectors a query has, without making them: a short request can mean many."""
    if query.type is None or query.aggregate:
        return 1
    return len(query.type_ids) * (1 if query.subtype is None else len(query.subtype_ids))


def _selectors(cluster: str, query: Query) -> Iterator[Selector]:
    """Yield the selectors of a query: one, or one for each component if they are not combined."""
    if query.type is None:
        yield cluster, query.host
        return
    components = tuple(query.type + id_ for id_ in query.type_ids)
    below = () if query.subtype is None else (tuple(query.subtype + id_ for id_ in query.subtype_ids),)
    if query.aggregate:
        yield cluster, query.host, components, *below
    else:
        for names in itertools.product(components, *below):
            yield cluster, query.host, *names


class Reader:
    """Reads groups from the columns of a store; it owns the space that windows are read into.

    strict: combine components over their common range alone, and leave none out.
    max_values: a group of more values is TOO_LONG.
    minimum_points: fewer values are not resampled.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        strict: bool = False,
        max_values: int = 1_000_000,
        minimum_points: int = MINIMUM_POINTS,
    ) -> None:
        self._columns = columns
        self._strict = strict
        self._minimum_points = minimum_points
        self._out = np.empty(max_values)

    def windows(self, groups: Groups, start: int, stop: int) -> Iterator[tuple[slice, Window]]:
        """Read all groups over [start, stop): windows, and which of the groups each one holds.

        The series of a group are found and read at one moment; other groups may see later samples.
        A window is valid until the next one is asked for.
        """
        index, done = groups.index, 0
        members: list[NDArray[np.int32]] = []
        epoch = -1
        while done < len(groups.selectors):
            if not members or epoch != index.epoch:
                members = index.select(groups.selectors[done:], groups.metric_ids[done:], room=_STEP)
                epoch = index.epoch
            part, window = self._read(groups, done, members, start, stop)
            window = self._thin(window, groups.resolutions[part])
            yield part, _scale(window, groups.factors[part])
            members = members[part.stop - done :]
            done = part.stop

    def _read(
        self, groups: Groups, first: int, members: Sequence[NDArray[np.int32]], start: int, stop: int
    ) -> tuple[slice, Window]:
        """Read groups from the first one on, as many as fit into one step."""
        lengths = np.fromiter(map(len, members), np.int64, len(members))
        kinds = np.empty(max(map(len, members)), np.int8)
        ends, begins = np.empty_like(lengths), np.empty_like(lengths)
        statuses, stats = np.empty(len(members), np.int8), np.empty((len(members), 3))
        count = read_groups(
            self._columns, np.concatenate(members), np.cumsum(lengths), start, stop, self._strict,
            _STEP, self._out, kinds, ends, begins, statuses, stats,
        )  # fmt: skip
        part, ends, begins = slice(first, first + count), ends[:count], begins[:count]
        frequencies = groups.frequencies[part]
        return part, Window(
            values=self._out[: ends[-1]],
            ends=ends,
            begins=begins,
            stops=begins + _lengths(ends) * frequencies,
            resolutions=frequencies.copy(),
            statuses=_judge(groups, part, statuses[:count], bad_range=start > stop),
            stats=stats[:count],
        )

    def _thin(self, window: Window, wanted: NDArray[np.int64]) -> Window:
        """Resample the groups for which a coarser resolution is wanted."""
        coarser = (wanted > window.resolutions) & (window.statuses == Status.GOOD)
        if not coarser.any():
            return window
        parts, begin = [], 0
        for g, end in enumerate(window.ends.tolist()):
            values = window.values[begin:end]
            begin = end
            if coarser[g]:
                values, window.resolutions[g] = resample(
                    values, int(window.resolutions[g]), int(wanted[g]), minimum=self._minimum_points
                )
            parts.append(values)
        ends = np.cumsum([len(values) for values in parts])
        return evolve(window, values=np.concatenate(parts), ends=ends)


def _judge(groups: Groups, part: slice, statuses: NDArray[np.int8], *, bad_range: bool) -> NDArray[np.int8]:
    """Put what was wrong with a group from the start, or with its resolution, over the status of its read.

    The range is checked before the metric's name, and both before the path.
    """
    if bad_range:
        return np.full_like(statuses, Status.BAD_RANGE)
    wanted, frequencies = groups.resolutions[part], groups.frequencies[part]
    statuses[(wanted > frequencies) & (wanted % frequencies != 0) & (statuses == Status.GOOD)] = (
        Status.BAD_RESOLUTION
    )
    statuses[np.array(groups.metric_ids[part]) < 0] = Status.UNKNOWN_METRIC
    return statuses


def _scale(window: Window, factors: NDArray[np.float64]) -> Window:
    """Multiply values and statistics of each group by its factor, in place."""
    if (factors != 1.0).any():
        window.values[:] *= np.repeat(factors, _lengths(window.ends))
        window.stats[:] *= factors[:, np.newaxis]
    return window


def _lengths(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of values of each group."""
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    return lengths
