"""Names to numbers: the tree of places, and which series a selector means.

A place is a level below the root: cluster, host, component (``socket0``), subcomponent
(``mem1``). The links between places are columns (`layout`), so that kernels can walk them; what
only Python needs, the names, is here.

Invariant: a place exists in the columns if and only if its parent's dictionary here names it. A
place may be empty for a while (nothing was accepted yet, or everything was freed); such places are
invisible, and `prune` removes them. Then their numbers are used again, so nobody keeps the number
of a place, or the ids that a selection gave, while others run.
"""

import hashlib
import itertools
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ccstore.memory.kernels import tree
from ccstore.memory.layout import USED, Columns, Pool
from ccstore.model import ANY, Selector

__all__ = ["Index"]

_MAX_REMEMBERED = 100_000
"""Selections of whole hosts; about 600 bytes each with 72 series."""

_HOST_DEPTH = 2
_BLOCK = 64
"""Selections that are looked up at once; a host of a thousand components takes 30 us."""
_NONE = np.empty(0, np.int32)


class Index:
    """The places of one store, and the series below them."""

    root = 0

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._versions = columns.places["version"]
        self._children: dict[int, dict[str, int]] = {}
        self._names: dict[int, str] = {}
        # what a whole host means, by (place, metric): the ids, and an epoch in which they were right
        self._hosts: OrderedDict[tuple[int, int], tuple[int, NDArray[np.int32]]] = OrderedDict()
        self._room = np.empty(1024, np.int32)  # for results of kernels
        assert tree.add_place(columns, -1, False) == self.root

    # --- places

    def locate(self, path: Sequence[str], *, create: bool = False) -> int:
        """Return the place with this path below the root, -1 if there is none and none may be made."""
        place = self.root
        for depth, name in enumerate(path, 1):
            children = self._children.get(place)
            child = -1 if children is None else children.get(name, -1)
            if child < 0:
                child = self._add(place, name, is_host=depth == _HOST_DEPTH) if create else -1
                if child < 0:
                    return -1
            place = child
        return place

    def below(self, parent: int, name: str, *, depth: int) -> int:
        """Return the place of a name right below another one, made if need be; -1 if there is no room.

        depth: of the wanted place; 1 for a cluster, 2 for a host.
        """
        children = self._children.get(parent)
        place = -1 if children is None else children.get(name, -1)
        return place if place >= 0 else self._add(parent, name, is_host=depth == _HOST_DEPTH)

    def all_below(self, parents: Sequence[int], names: Sequence[str], *, depth: int) -> list[int]:
        """Do what `below` does for many places of one depth; parent -1 has none below."""
        known = self._children
        found = [
            children.get(name, -1) if (children := known.get(parent)) is not None else -1
            for parent, name in zip(parents, names, strict=True)
        ]
        if -1 in found:
            pairs = list(zip(parents, names, strict=True))
            missing = [pairs[k] for k, place in enumerate(found) if place < 0 <= pairs[k][0]]
            made = self._add_all(list(dict.fromkeys(missing)), is_host=depth == _HOST_DEPTH)
            found = [made.get(pairs[k], -1) if place < 0 else place for k, place in enumerate(found)]
        return found

    def _add(self, parent: int, name: str, *, is_host: bool) -> int:
        """Add a place, if there is room for it and for a series in it; else return -1."""
        if self._columns.pools[Pool.SERIES, USED] == len(self._columns.series):
            return -1
        place: int = tree.add_place(self._columns, parent, is_host)
        if place >= 0:
            self._enter(parent, name, place, is_host=is_host)
        return place

    def _add_all(self, pairs: Sequence[tuple[int, str]], *, is_host: bool) -> dict[tuple[int, str], int]:
        """Do what `_add` does for many pairs of parent and name, at a tenth of the cost."""
        places = np.full(len(pairs), -1, np.int32)
        if self._columns.pools[Pool.SERIES, USED] < len(self._columns.series):
            parents = np.array([parent for parent, _ in pairs], np.int32)
            tree.add_places(self._columns, parents, is_host, places)
        added = dict(zip(pairs, places.tolist(), strict=True))
        for (parent, name), place in added.items():
            if place >= 0:
                self._enter(parent, name, place, is_host=is_host)
        return added

    def _enter(self, parent: int, name: str, place: int, *, is_host: bool) -> None:
        """Enter the name of a new place."""
        name = sys.intern(name)  # a thousand hosts share the names of their components
        self._children.setdefault(parent, {})[name] = place
        self._names[place] = name
        if is_host:
            self._columns.places["hash"][place] = _hash(self._names[parent], name)

    def name(self, place: int) -> str:
        """Return the last part of a place's path; empty for the root."""
        return self._names.get(place, "")

    def children(self, place: int) -> Mapping[str, int]:
        """Return the places right below one, by name, visible or not."""
        return self._children.get(place, {})

    def visible(self, place: int) -> dict[str, int]:
        """Return the places right below one at or below which something is stored, sorted by name."""
        children = self.children(place)
        live = np.empty(len(children), np.bool_)
        tree.find_live(self._columns, np.fromiter(children.values(), np.int32, len(children)), live)
        return {name: children[name] for name in sorted(itertools.compress(children, live.tolist()))}

    def is_visible(self, place: int) -> bool:
        """Tell whether anything is stored at a place or below it."""
        return bool(tree.find_live(self._columns, np.array([place], np.int32), np.empty(1, np.bool_)))

    def hosts(self) -> list[tuple[str, str, int]]:
        """Return (cluster, host, place) of all hosts by name, empty ones included."""
        return [
            (cluster, host, place)
            for cluster, below in sorted(self.children(self.root).items())
            for host, place in sorted(self.children(below).items())
        ]

    def is_host(self, place: int) -> bool:
        """Tell whether a place is that of a host."""
        return bool(self._columns.places["host"][place] == place)

    def hosts_of(self, series: NDArray[np.int64]) -> set[int]:
        """Return the places of the hosts to which series belong, given their ids."""
        columns = self._columns
        return set(np.unique(columns.places["host"][columns.series["place"][series]]).tolist())

    def places(self, selector: Selector) -> list[int]:
        """Return the places that a selector's path leads to.

        Absent names are ignored; the order is that of a group's names, and for `ANY` that of the
        names. An empty name stands for nothing.
        """
        found = [self.root]
        for element in selector:
            below: list[int] = []
            for place in found:
                children = self.children(place)
                if isinstance(element, str):
                    names: Sequence[str] = (element,)
                else:
                    names = sorted(children) if element is ANY else element
                below += [children[name] for name in names if name in children]
            found = below
        return found

    # --- selections

    @property
    def epoch(self) -> int:
        """How often a series appeared or vanished; as long as it is the same, selections hold."""
        return int(self._columns.epoch[0])

    def select(
        self, selectors: Sequence[Selector], metrics: Sequence[int], *, room: int
    ) -> list[NDArray[np.int32]]:
        """Return the ids of the series that each (selector, metric) means, as long as there is room.

        That is, for each place that the selector leads to, the place's own series, if it has one,
        else those of every child by the same rule. The arrays are not to be changed. The list ends
        after about `room` ids, or else has an array for each pair, an empty one for metric -1.
        """
        epoch = self.epoch
        ids: list[NDArray[np.int32]] = []
        while room > 0 and len(ids) < len(selectors):
            part = slice(len(ids), len(ids) + _BLOCK)
            found = self._select_block(selectors[part], metrics[part], epoch)
            ids += found
            room -= sum(map(len, found)) + len(found)
        return ids

    def _select_block(
        self, selectors: Sequence[Selector], metrics: Sequence[int], epoch: int
    ) -> list[NDArray[np.int32]]:
        found = [_NONE] * len(selectors)
        unknown: list[tuple[int, Sequence[int]]] = []
        for number, (selector, metric) in enumerate(zip(selectors, metrics, strict=True)):
            places = self._find(selector) if metric >= 0 else ()
            known = self._recall(places[0], metric, epoch) if _is_host(selector, places) else None
            if known is not None:
                found[number] = known
            elif places:
                unknown.append((number, places))
        if unknown:
            collected = self._collect(
                [places for _, places in unknown], [metrics[number] for number, _ in unknown]
            )
            for (number, places), ids in zip(unknown, collected, strict=True):
                found[number] = ids
                if _is_host(selectors[number], places):
                    self._remember(places[0], metrics[number], epoch, ids)
        return found

    def _find(self, selector: Selector) -> Sequence[int]:
        """Return what `places` does, faster where there is nothing but names."""
        place = self.root
        for element in selector:
            if not isinstance(element, str):
                return self.places(selector)
            children = self._children.get(place)
            place = -1 if children is None else children.get(element, -1)
            if place < 0:
                return ()
        return (place,)

    def _collect(self, roots: Sequence[Sequence[int]], metrics: Sequence[int]) -> list[NDArray[np.int32]]:
        """Walk the trees below places for the series of a metric, for several groups of places."""
        offsets = np.zeros(len(roots) + 1, np.int64)
        np.cumsum([len(places) for places in roots], out=offsets[1:])
        flat = np.fromiter(itertools.chain.from_iterable(roots), np.int32, int(offsets[-1]))
        wanted, ends = np.array(metrics, np.int32), np.empty(len(roots), np.int64)
        while tree.collect(self._columns, flat, offsets, wanted, self._room, ends) < len(roots):
            self._room = np.empty(2 * len(self._room), np.int32)
        return [self._room[start:stop].copy() for start, stop in itertools.pairwise([0, *ends.tolist()])]

    def _recall(self, host: int, metric: int, epoch: int) -> NDArray[np.int32] | None:
        """Return the ids of a whole host if they are remembered and still right.

        That a number may have named another host in between does no harm: versions are never
        taken back, so ids of an earlier host are older than its version, and "none" holds for both.
        """
        known = self._hosts.get((host, metric))
        if known is None:
            return None
        since, ids = known
        if since != epoch:
            if self._versions[host] > since:
                return None
            self._hosts[host, metric] = epoch, ids
        return ids

    def _remember(self, host: int, metric: int, epoch: int, ids: NDArray[np.int32]) -> None:
        if len(self._hosts) >= _MAX_REMEMBERED:
            self._hosts.popitem(last=False)
        self._hosts[host, metric] = epoch, ids

    # --- removal

    def prune(self, place: int, dead: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Remove marked dormant series and empty places, see `Store.prune`; return the places."""
        removed = np.empty(self._columns.pools[Pool.PLACE, USED], np.int32)
        count = tree.prune(self._columns, place, dead, removed)
        for gone in removed[:count].tolist():
            siblings = self._children[self._columns.places["parent"][gone]]
            del siblings[self._names.pop(gone)]
            self._children.pop(gone, None)
        return removed[:count]


def _hash(cluster: str, host: str) -> int:
    names = f"{cluster}\0{host}".encode()
    return int.from_bytes(hashlib.blake2b(names, digest_size=4).digest(), "little")


def _is_host(selector: Selector, places: Sequence[int]) -> bool:
    return len(selector) == _HOST_DEPTH and len(places) == 1
