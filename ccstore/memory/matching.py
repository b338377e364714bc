"""Series by their labels: what a selector of PromQL finds in the tree of places.

The labels of a series are the name of its metric, ``cluster``, ``hostname``, and for the component and
the part of it that it belongs to ``type`` and ``type_id``, ``stype`` and ``stype_id``. The store keeps the
name of a component in one piece, so it is split again here: behind the name of a type that is known, else
before the first digit. A label without a value is absent.

Conditions are checked where they belong, once for each metric, cluster, host and name of a component, never
for each series. A search goes on host by host, a few hosts at a time, and others may run in between.
Invariant: an id is good as long as the index's epoch is that of its search; whoever lets others run looks.
"""

from collections.abc import Collection, Container, Iterator, Sequence

import numpy as np
from attrs import Factory, define, field, frozen
from numpy.typing import NDArray

from ccstore.memory.components import by_number, split_component
from ccstore.memory.kernels.promql import find_series
from ccstore.memory.store import Store
from ccstore.model.promql import NAME, Matcher

__all__ = ["LABELS", "Found", "Host", "Key", "Search", "values_of"]

LABELS = (NAME, "cluster", "hostname", "stype", "stype_id", "type", "type_id")
"""All labels there are, in the order of their names."""

_BELOW = LABELS[3:]

Host = tuple[str, str]
"""Cluster and name."""

Key = tuple[str, str, int, int]
"""What names a series in a search: cluster, host, number of the metric, position in `Search.tails`."""

_HOSTS = 200
"""Hosts that are searched in one turn, at most: a regular expression takes 5 us for the name of each."""
_SERIES = 700
"""Series that are looked at in one turn, about; a millisecond."""


@frozen
class Tail:
    """What names a series below its host: a component and a part of it, both possibly empty."""

    labels: dict[str, str]
    order: tuple[list[tuple[bool, int, str]], ...]
    """By which the series of a host are sorted."""


@frozen
class Found:
    """Series of some hosts, sorted by host, metric and component."""

    hosts: Sequence[Host]
    ids: NDArray[np.int32]
    """int32[series]; see the module for how long they are good."""
    host_of: NDArray[np.int64]
    """int64[series]: positions in `hosts`."""
    metrics: NDArray[np.int32]
    """int32[series]: their numbers in the store."""
    tails: NDArray[np.int64]
    """int64[series]: positions in `Search.tails`."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> "Found":
        return Found(self.hosts, self.ids[part], self.host_of[part], self.metrics[part], self.tails[part])

    def keys(self) -> list[Key]:
        """Return what names each series in this search."""
        columns = (self.host_of.tolist(), self.metrics.tolist(), self.tails.tolist())
        return [(*self.hosts[host], metric, tail) for host, metric, tail in zip(*columns, strict=True)]

    def without(self, keys: Collection[Key]) -> "Found":
        """Return those series that are not named."""
        if not keys:
            return self
        left = [k for k, key in enumerate(self.keys()) if key not in keys]
        return self[np.array(left, np.int64)]


@define
class Search:
    """A search for the series that fulfil all conditions."""

    store: Store
    matchers: Sequence[Matcher]
    tails: list[Tail] = Factory(list)
    """All that were met."""
    _known: dict[tuple[str, str], int] = Factory(dict)
    _tail_of: dict[int, int] = Factory(dict)
    _epoch: int = -1
    """For which `_tail_of` holds."""
    _ranks: NDArray[np.int64] = Factory(lambda: np.empty(0, np.int64))
    _room: NDArray[np.int32] = Factory(lambda: np.empty(4096, np.int32))
    _wanted: NDArray[np.bool_] = field(init=False)
    _found: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        names = (self.accepts(NAME, metric.name) for metric in self.store.metrics)
        self._wanted = np.fromiter(names, np.bool_, len(self.store.metrics))
        if not all(matcher.accepts("") for matcher in self.matchers if matcher.label not in LABELS):
            self._wanted[:] = False

    def accepts(self, label: str, value: str) -> bool:
        """Tell whether a label may have a value."""
        return all(matcher.accepts(value) for matcher in self.matchers if matcher.label == label)

    def labels(self, found: Found, kept: Container[str]) -> tuple[list[dict[str, str]], NDArray[np.int64]]:
        """Return sets of labels, and which of them each series has; labels that are not `kept` are left out.

        One set for all series that cannot differ is made once, so a set for each host costs little.
        """
        of_host, of_metric = "cluster" in kept or "hostname" in kept, NAME in kept
        of_tail = any(label in kept for label in _BELOW)
        number = found.host_of * of_host
        number = number * len(self.store.metrics) + found.metrics * of_metric
        number = number * (len(self.tails) + 1) + found.tails * of_tail
        _, first, of = np.unique(number, return_index=True, return_inverse=True)
        labels = []
        for cluster, host, metric, tail in found[first].keys():  # noqa: SIM118 -- no dictionary
            whole = {
                NAME: self.store.metrics[metric].name,
                "cluster": cluster,
                "hostname": host,
                **self.tails[tail].labels,
            }
            labels.append({label: value for label, value in whole.items() if label in kept})
        return labels, of

    def parts(self, hosts: Sequence[Host] | None = None) -> Iterator[Sequence[Host]]:
        """Divide hosts into parts that can be searched in one turn; call `find` for each before the next.

        hosts: what to divide; None for all that fulfil the conditions, sorted, without series or not.
        """
        listed, done, count = self._hosts() if hosts is None else hosts, 0, 1
        while done < len(listed):
            self._found, part = 0, listed[done : done + count]
            yield part if hosts is not None else [host for host in part if self.accepts("hostname", host[1])]
            done, per_host = done + count, self._found // count + 1
            count = max(1, min(2 * count, _HOSTS, _SERIES // per_host))

    def _hosts(self) -> list[Host]:
        """Return all hosts of the clusters that fulfil the conditions."""
        index = self.store.index
        return [
            (cluster, host)
            for cluster, below in sorted(index.children(index.root).items())
            if self._wanted.any() and self.accepts("cluster", cluster)
            for host in sorted(index.children(below))
        ]

    def find(self, hosts: Sequence[Host]) -> Found:
        """Search some hosts; those that are gone are passed over."""
        columns = self.store.columns
        located = [(names, place) for names in hosts if (place := self.store.index.locate(names)) >= 0]
        roots = np.array([place for _, place in located], np.int32)
        ends = np.zeros(len(roots), np.int64)
        while find_series(columns, roots, self._wanted, self._room, ends) < len(roots):
            self._room = np.empty(2 * len(self._room), np.int32)
        ids = self._room[: ends[-1] if len(ends) else 0]
        self._found = len(ids)
        host_of = np.repeat(np.arange(len(roots)), np.diff(ends, prepend=0))
        places, number = np.unique(columns.series["place"][ids], return_inverse=True)
        tails, metrics = self._tails_of(places)[number], columns.series["metric"][ids]
        kept = np.flatnonzero(tails >= 0)
        kept = kept[np.lexsort((self._ranks[tails[kept]], metrics[kept], host_of[kept]))]
        return Found([names for names, _ in located], ids[kept], host_of[kept], metrics[kept], tails[kept])

    def _tails_of(self, places: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the tail of each place.

        -1 if it does not fulfil the conditions, or lies deeper than any line leads to.
        """
        if self._epoch != self.store.index.epoch:  # places may have been given to others
            self._epoch, self._tail_of = self.store.index.epoch, {}
        listed, tail_of = places.tolist(), self._tail_of
        new = [place for place in listed if place not in tail_of]
        if new:
            self._learn_places(new)
        return np.fromiter(map(tail_of.__getitem__, listed), np.int64, len(listed))

    def _learn_places(self, places: list[int]) -> None:
        at, name = self.store.columns.places, self.store.index.name
        parents = at["parent"][places]
        columns = (places, parents.tolist(), at["parent"][parents].tolist(), at["host"][places].tolist())
        for place, parent, above, host in zip(*columns, strict=True):
            if place == host:
                tail = self._tail("", "")
            elif parent == host:
                tail = self._tail(name(place), "")
            else:
                tail = self._tail(name(parent), name(place)) if above == host else -1
            self._tail_of[place] = tail
        if len(self._ranks) < len(self.tails):
            by_name = sorted(range(len(self.tails)), key=lambda tail: self.tails[tail].order)
            self._ranks = np.empty(len(by_name), np.int64)
            self._ranks[by_name] = np.arange(len(by_name))

    def _tail(self, component: str, part: str) -> int:
        known = self._known.get((component, part))
        if known is None:
            known = self._known[component, part] = self._learn(component, part)
        return known

    def _learn(self, component: str, part: str) -> int:
        values = (*split_component(part), *split_component(component))
        labels = dict(zip(_BELOW, values, strict=True))
        if not all(self.accepts(label, value) for label, value in labels.items()):
            return -1
        present = {label: value for label, value in labels.items() if value}
        self.tails.append(Tail(present, (by_number(component), by_number(part))))
        return len(self.tails) - 1


def values_of(search: Search, found: Found, label: str) -> set[str]:
    """Return the values that a label has among series."""
    match label:
        case _ if label == NAME:
            return {search.store.metrics[metric].name for metric in np.unique(found.metrics).tolist()}
        case "cluster" | "hostname":
            return {found.hosts[host][label == "hostname"] for host in np.unique(found.host_of).tolist()}
        case _:
            labels = (search.tails[tail].labels for tail in np.unique(found.tails).tolist())
            return {of_tail[label] for of_tail in labels if label in of_tail}
