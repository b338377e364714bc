"""What is known of clusters: their subclusters, hosts, metrics, and how their hosts are built.

This module owns the values and the questions about them; `clusterfile` makes them of files. It reads
nothing. Invariant: a question about a cluster, a host or a subcluster that is not known has an answer,
too, and it is None or empty, because names come from schedulers that nobody compares with our files.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from attrs import frozen

from ccstore.config.nodelist import NodeList
from ccstore.model import Metric

__all__ = ["Cluster", "Clusters", "Subcluster", "Topology"]

_Threads = tuple[int, ...]


@frozen
class Topology:
    """Which hardware threads the parts of a host have; a part's id is its position, unless it has a name.

    Empty where the file does not tell.
    """

    node: _Threads = ()
    sockets: tuple[_Threads, ...] = ()
    memory_domains: tuple[_Threads, ...] = ()
    cores: tuple[_Threads, ...] = ()
    accelerators: tuple[str, ...] = ()
    """Their ids."""


@frozen
class Subcluster:
    """Hosts of one kind."""

    name: str
    nodes: NodeList | None
    """None: every host of the cluster that no list contains."""
    expected: tuple[str, ...]
    """Metrics that a healthy host sends: those of the subcluster, then those of the cluster that are not
    removed for it."""
    topology: Topology = Topology()


@frozen
class Cluster:
    """What one ``cluster.json`` says."""

    name: str
    metrics: Mapping[str, Metric]
    """By name: those of the cluster, and those of its subclusters."""
    subclusters: tuple[Subcluster, ...]
    """In the order of the file."""

    def subcluster(self, host: str) -> Subcluster | None:
        """Return the first subcluster whose list contains the host, else the first one for all others."""
        others = None
        for subcluster in self.subclusters:
            if subcluster.nodes is None:
                others = others or subcluster
            elif host in subcluster.nodes:
                return subcluster
        return others

    def hosts(self) -> Iterator[str]:
        """Yield the hosts that are listed, subcluster by subcluster, each sorted."""
        return itertools.chain.from_iterable(one.nodes for one in self.subclusters if one.nodes is not None)

    @property
    def host_count(self) -> int:
        """How many hosts the lists have; one in two of them counts twice."""
        return sum(one.nodes.count for one in self.subclusters if one.nodes is not None)


class Clusters(Mapping[str, Cluster]):
    """The clusters by name, in sorted order."""

    def __init__(self, clusters: Iterable[Cluster] = ()) -> None:
        self._clusters = {one.name: one for one in sorted(clusters, key=lambda one: one.name)}

    def __getitem__(self, name: str) -> Cluster:
        return self._clusters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clusters)

    def __len__(self) -> int:
        return len(self._clusters)

    def find_subcluster(self, cluster: str, host: str) -> Subcluster | None:
        """Return the subcluster of a host; None if the cluster is not known or no list contains the host."""
        known = self._clusters.get(cluster)
        return None if known is None else known.subcluster(host)

    def subcluster(self, cluster: str, host: str) -> str | None:
        """Return the name of the subcluster of a host, see `find_subcluster`."""
        found = self.find_subcluster(cluster, host)
        return None if found is None else found.name

    def expected_metrics(self, cluster: str, subcluster: str) -> tuple[str, ...]:
        """Return the names of the metrics that a healthy host of the subcluster sends."""
        subclusters: Sequence[Subcluster] = ()
        if (known := self._clusters.get(cluster)) is not None:
            subclusters = known.subclusters
        return next((one.expected for one in subclusters if one.name == subcluster), ())

    def metrics(self) -> Mapping[str, Metric]:
        """Return all metrics by name, each as the first of the clusters has it."""
        found: dict[str, Metric] = {}
        for cluster in self._clusters.values():
            found = {**cluster.metrics, **found}
        return MappingProxyType(found)

    def own_metrics(self) -> Mapping[str, tuple[Metric, ...]]:
        """Return, by cluster, the metrics that it has otherwise than `metrics` does."""
        common = self.metrics()
        own = {
            cluster.name: tuple(
                metric for metric in cluster.metrics.values() if metric != common[metric.name]
            )
            for cluster in self._clusters.values()
        }
        return MappingProxyType({name: metrics for name, metrics in own.items() if metrics})
