"""Whose a file's series are: from the names of a file to hosts.

Functions of names. A host is the place below a cluster; what lies below it belongs to it as well.
"""

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from ccstore.model import Names

__all__ = ["Host", "host_of", "hosts_of", "series_of"]

Host = tuple[str, str]
"""Cluster and host."""


def host_of(names: Names) -> Host:
    """Return the first host that is named."""
    return next(host for host in _of_places(names) if host is not None)


def hosts_of(names: Names) -> set[Host]:
    """Return all hosts that are named."""
    return {host for host in _of_places(names) if host is not None}


def series_of(names: Names, wanted: Container[Host]) -> NDArray[np.bool_]:
    """Tell of each series that is named whether it belongs to one of these hosts."""
    chosen = [host is not None and host in wanted for host in _of_places(names)]
    return np.array(chosen, np.bool_)[names.series_places]


def _of_places(names: Names) -> list[Host | None]:
    """Return the host of each place; None for a cluster. All places above one are named before it."""
    parents, hosts = names.parents.tolist(), list[Host | None]()
    for parent, name in zip(parents, names.place_names, strict=True):
        above = None if parent < 0 else hosts[parent]
        is_host = parent >= 0 and above is None
        hosts.append((names.place_names[parent], name) if is_host else above)
    return hosts
