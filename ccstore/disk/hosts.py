"""Whose a file's series are: from the names of a file to hosts.

Functions of names. A host is the place below a cluster; what lies below it belongs to it as well.
"""

from collections.abc import Container

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ccstore.disk.folding import pick_runs
from ccstore.model import Names, Runs

__all__ = ["Host", "host_of", "hosts_of", "pick_hosts"]

Host = tuple[str, str]
"""Cluster and host."""


def host_of(names: Names) -> Host:
    """Return the first host that is named."""
    return next(host for host in _of_places(names) if host is not None)


def hosts_of(names: Names) -> set[Host]:
    """Return all hosts that are named."""
    return {host for host in _of_places(names) if host is not None}


def pick_hosts(names: Names, runs: Runs, wanted: Container[Host]) -> tuple[Names, Runs]:
    """Return the runs of some hosts, with the names of their series alone, which are numbered anew."""
    places = np.array([host is not None and host in wanted for host in _of_places(names)], np.bool_)
    series = places[names.series_places]
    places[names.parents[places & (names.parents >= 0)]] = True  # their clusters
    place_numbers, series_numbers = _count(places), _count(series)
    parents = names.parents[places]
    picked = pick_runs(runs, np.flatnonzero(series[runs.numbers]))
    return evolve(
        names,
        parents=np.where(parents >= 0, place_numbers[parents], -1).astype(np.int32),
        place_names=[name for name, kept in zip(names.place_names, places, strict=True) if kept],
        series_places=place_numbers[names.series_places[series]],
        series_metrics=names.series_metrics[series],
    ), evolve(picked, numbers=series_numbers[picked.numbers])


def _count(kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the number of each of those that are kept."""
    return (np.cumsum(kept) - 1).astype(np.int32)


def _of_places(names: Names) -> list[Host | None]:
    """Return the host of each place; None for a cluster. All places above one are named before it."""
    parents, hosts = names.parents.tolist(), list[Host | None]()
    for parent, name in zip(parents, names.place_names, strict=True):
        above = None if parent < 0 else hosts[parent]
        is_host = parent >= 0 and above is None
        hosts.append((names.place_names[parent], name) if is_host else above)
    return hosts
