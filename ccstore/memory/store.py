"""The store: samples of all series, kept in memory for a while.

It has one owner, who calls it from one thread; nothing here waits, locks, logs, or reads a
clock or a file. What a caller hands in is copied; what it gets back is true until the next change.

Ids of places and series are small integers that never leave the process. They stay valid until
`prune` removes what they name, so that bytes that were parsed once can be remembered by id.

Invariant: a sample is either stored or refused with an outcome, never half stored, and what was
stored is neither moved nor copied until it is freed.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.memory import health
from ccstore.memory.index import Index
from ccstore.memory.kernels import tree, write
from ccstore.memory.layout import (
    CHUNK,
    DORMANT,
    FRESH,
    PLACE,
    ROW_SLOTS,
    SERIES,
    TABLE_ROWS,
    USED,
    Columns,
    Pool,
    reserve,
)
from ccstore.model import Aggregation, Batch, Metric, NodeHealth, Selector

__all__ = ["ChunkInfo", "Store", "StoreStatistics"]

_AGGREGATIONS = {Aggregation.NONE: 0, Aggregation.SUM: 1, Aggregation.AVG: 2}
_MAX_FREQUENCY = 2**31
_MAX_TIME = 2**60  # s; sums of times with steps stay within 64 bits
_NO_CLUSTER = -2  # neither a place nor what stands for one that is not there
_ROW_BYTES = ROW_SLOTS * 4
_TABLE_BYTES = TABLE_ROWS * 4


@frozen
class StoreStatistics:
    """How much is kept."""

    clusters: int
    hosts: int
    """Hosts that were not pruned, whether something is stored of them or not."""
    series: int
    """Series that have an id, dormant ones included."""
    max_series: int
    chunks: int
    bytes_used: int
    """Bytes of samples and of the records that lead to them; what waits for reuse does not count."""
    bytes_reserved: int
    """Bytes of samples at most; beyond them a sample has the outcome LIMIT."""


@frozen
class ChunkInfo:
    """One chunk, for people who look into the store."""

    start: int
    """Seconds; beginning of the first slot."""
    used: int
    """Slots up to the last one that was written."""
    stop: int
    """Seconds; end of the last used slot."""


class Store:
    """All series of all hosts.

    metrics: the measurements that are stored; a metric's id is its position.
    own: by cluster, metrics that are otherwise there than in `metrics`, under the same name; they have
    the ids behind those.
    max_series: how many series there may be; a sample of a further one has the outcome LIMIT.
    max_bytes: how much memory samples may take; address space is reserved for it, memory is taken
    as it is used.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        own: Mapping[str, Sequence[Metric]] = MappingProxyType({}),
        max_series: int = 10_000_000,
        max_bytes: int = 1 << 30,
    ) -> None:
        self.metrics: tuple[Metric, ...] = (*metrics, *itertools.chain.from_iterable(own.values()))
        self.metric_ids: Mapping[str, int] = {metric.name: i for i, metric in enumerate(metrics)}
        assert len(self.metric_ids) == len(metrics), "two metrics of one name"
        self._own = _number_own(self.metric_ids, own)
        assert all(1 <= metric.frequency < _MAX_FREQUENCY for metric in self.metrics)
        self.columns: Columns = reserve(
            frequency=np.array([metric.frequency for metric in self.metrics], np.int64),
            aggregation=np.array([_AGGREGATIONS[metric.aggregation] for metric in self.metrics], np.int8),
            series=max_series,
            # a full chunk takes a tenth of what its rows take for itself and its table
            rows=max(64, max_bytes // (_ROW_BYTES * 11 // 10)),
        )
        self.index = Index(self.columns)
        self.freed = 0
        """Chunks freed so far."""

    # --- writing

    def metric_id(self, cluster: str, name: str) -> int:
        """Return the id that a metric has in a cluster, -1 if it is not stored."""
        metric = self.metric_ids.get(name, -1)
        return int(self._own[cluster][metric]) if metric >= 0 and cluster in self._own else metric

    def combines(self, cluster: str, metric: int) -> bool:
        """Tell whether a metric has an aggregation, so that series can be combined above their level.

        `metric` is the id of the name, as in `metric_ids`.
        """
        if cluster in self._own:
            metric = self._own[cluster][metric]
        return self.metrics[metric].aggregation is not Aggregation.NONE

    def locate(self, path: Sequence[str], *, create: bool = True) -> int:
        """Return the id of the place (cluster, host[, component[, subcomponent]]).

        -1 if it does not exist and may not be made, or if there is no room for it. A new place is
        invisible until something is stored there.
        """
        return self.index.locate(path, create=create)

    def enlist(
        self, places: NDArray[np.int32], metrics: NDArray[np.int32], *, allowance: int
    ) -> tuple[NDArray[np.int32], int]:
        """Return the ids of the series of (place, metric) pairs, and how many of them are new.

        The metrics are ids of names, as in `metric_ids`; the series get what the names mean in the
        clusters of the places. At most `allowance` series are made; the id is -1 for what lies beyond it
        or beyond `max_series`. A new series is invisible until something is stored of it.
        """
        ids = np.empty(len(places), np.int32)
        if self._own:
            metrics = self._translate(places, metrics)
        made: int = tree.enlist(self.columns, places, metrics, ids, allowance)
        return ids, made

    def _translate(self, places: NDArray[np.int32], metrics: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the ids that metrics have in the clusters of the places."""
        records = self.columns.places
        hosts = records["host"][places]
        clusters = np.where(hosts < 0, _NO_CLUSTER, records["parent"][hosts])
        translated = metrics.copy()
        for name, ids in self._own.items():
            there = clusters == self.locate((name,), create=False)
            translated[there] = ids[metrics[there]]
        return translated

    def append(self, batch: Batch, *, latest: int) -> None:
        """Write a batch in its order and note in it what became of each sample.

        A sample that lies in the slot of an earlier one replaces it: OVERWRITTEN, if that held a
        value. One later than `latest` (seconds) and two of its metric's frequencies is refused as
        FUTURE, one that no chunk can take as LATE, and one for which there is no memory as LIMIT.
        """
        write.append(
            self.columns, batch.series, batch.times, batch.values, batch.outcomes, batch.count, latest
        )

    # --- reading

    def select(self, selector: Selector, metric: int) -> NDArray[np.int32]:
        """Return the ids of the series of a metric that a selector means; not to be changed.

        The places are in the selector's order. A place's own series hides those below it.
        """
        return self.index.select([selector], [metric], room=1)[0]

    def frequencies(self, series: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return int64[n]: the seconds between two samples of each of some series."""
        frequencies: NDArray[np.int64] = self.columns.frequency[self.columns.series["metric"][series]]
        return frequencies

    def hosts(self, cluster: str) -> list[str]:
        """Return the names of the hosts of a cluster that have data, sorted."""
        return list(self.index.visible(self.index.locate((cluster,))))

    def check_health(self, cluster: str, host: str, expected: Sequence[str], *, now: int) -> NodeHealth:
        """Tell which of the expected metrics of a host arrive."""
        place = self.index.locate((cluster, host))
        if place < 0 or not self.index.is_visible(place):
            return health.UNKNOWN
        counts = np.empty((2, len(self.metrics)), np.int64)
        tree.check_health(self.columns, place, now, counts[0], counts[1])
        # A report asks for thousands of hosts, so there is no call and no numpy scalar for each metric.
        ids = [self.metric_ids.get(name, -1) for name in expected]
        if cluster in self._own:
            ids = [self.metric_id(cluster, name) for name in expected]
        fresh, stale = ([*row, 0] for row in counts.tolist())  # the last one is for what is not stored
        return health.classify((name, fresh[i], stale[i]) for name, i in zip(expected, ids, strict=True))

    def chunks(self, series: int) -> list[ChunkInfo]:
        """Describe the chunks of a series, oldest first."""
        frequency = int(self.columns.frequency[self.columns.series["metric"][series]])
        chunk, found = int(self.columns.series["newest"][series]), []
        while chunk >= 0:
            record = self.columns.chunks[chunk]
            start, used = int(record["start"]), int(record["used"])
            found.append(ChunkInfo(start, used, start + frequency * used))
            chunk = int(record["older"])
        return found[::-1]

    def series_at(self, place: int) -> Iterator[tuple[str, int]]:
        """Yield (metric name, series id) of the live series of a place itself."""
        series = int(self.columns.places["series"][place])
        while series >= 0:
            record = self.columns.series[series]
            if record["newest"] >= 0:
                yield self.metrics[record["metric"]].name, series
            series = int(record["next"])

    def statistics(self) -> StoreStatistics:
        """Count what is kept."""
        used = self.columns.pools[:, USED]
        clusters = self.index.children(self.index.root)
        rows = len(self.columns.rows)
        return StoreStatistics(
            clusters=len(clusters),
            hosts=sum(len(self.index.children(place)) for place in clusters.values()),
            series=int(used[Pool.SERIES]),
            max_series=len(self.columns.series),
            chunks=int(used[Pool.CHUNK]),
            bytes_used=int(
                used[Pool.ROW] * _ROW_BYTES
                + used[Pool.TABLE] * _TABLE_BYTES
                + used[Pool.CHUNK] * CHUNK.itemsize
                + used[Pool.SERIES] * SERIES.itemsize
                + used[Pool.PLACE] * PLACE.itemsize
            ),
            bytes_reserved=rows * _ROW_BYTES,
        )

    # --- freeing

    def free(self, place: int, cutoff: int, *, saved_only: bool = False) -> int:
        """Free all chunks at and below a place that end before the cutoff (seconds); return how many.

        With `saved_only`, chunks stay that no checkpoint holds as a whole, and what is newer. What
        became empty is invisible from now on; `prune` removes it. One call takes 40 ns a series, so
        whoever shares the thread frees host by host.
        """
        cutoff = max(-_MAX_TIME, min(cutoff, _MAX_TIME))
        freed: int = tree.free_below(self.columns, place, cutoff, saved_only)
        self.freed += freed
        return freed

    def dormant(self) -> NDArray[np.bool_]:
        """Return, for each series id, whether nothing is stored of it: it was freed, or never was."""
        made = int(self.columns.pools[Pool.SERIES, FRESH])
        dormant: NDArray[np.bool_] = self.columns.series["newest"][:made] == DORMANT
        return dormant

    def prune(self, place: int, dead: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Remove what is empty at and below a place, and parents that become empty by it.

        Returns the removed places.

        Series are removed if they are marked in `dead` and still dormant, places if nothing is left
        in them. Their ids are used again for others. So whoever remembers series by id has forgotten
        those that are marked before the call, or has unmarked them; and whoever remembers places
        forgets all of them with the call. Ids beyond the end of `dead` are not marked.
        """
        return self.index.prune(place, dead)


def _number_own(
    metric_ids: Mapping[str, int], own: Mapping[str, Sequence[Metric]]
) -> Mapping[str, NDArray[np.int32]]:
    """Return, for each cluster with metrics of its own, the id there of every metric."""
    tables, following = {}, itertools.count(len(metric_ids))
    for cluster, metrics in own.items():
        tables[cluster] = np.arange(len(metric_ids), dtype=np.int32)
        for metric in metrics:
            tables[cluster][metric_ids[metric.name]] = next(following)
    return tables
