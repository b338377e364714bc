"""From the archive's directory to `Clusters`, or to every mistake in every ``cluster.json``.

This module owns what may stand in such a file, and the rule for ``version.txt``. It writes nothing.
The files belong to the backend program of the reference as well, so keys that we have no use for are
passed over, whatever they are. Invariant: what is wrong in one file hides nothing of what is wrong in
another.
"""

# ruff: noqa: RUF009 - `section` declares an attrs field, as `attrs.field` does; nothing is shared
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from ccstore.config.clusters import Cluster, Clusters, Subcluster, Topology
from ccstore.config.files import read_json, read_text
from ccstore.config.keys import (
    AGGREGATION,
    BOOLEAN,
    CLUSTER,
    METRIC_NAME,
    PATH,
    TEXT,
    ListOf,
    Section,
    Value,
    choice,
    integer,
    key,
)
from ccstore.config.nodelist import NodeList, parse_node_list
from ccstore.config.reader import Reader
from ccstore.errors import ConfigError
from ccstore.model import Aggregation, Metric

__all__ = ["ClusterFile", "Found", "read_clusters"]

_VERSION = "3"


def _node_list(value: Any) -> NodeList | None:
    text = TEXT.read(value)
    return None if text in ("", "*") else parse_node_list(text)


NAME = Value("a name", PATH.read)
NODE_LIST = Value('a list such as "node[01-10],login1", or "*" for all other hosts', _node_list)
THREADS = ListOf(integer(0))


@frozen
class Unit:
    """For people only."""

    base: str = key("", TEXT)
    prefix: str = key("", TEXT)


@frozen
class MetricOfSubcluster:
    """What is different about a metric in one subcluster."""

    name: str = key("", NAME, required=True)
    remove: bool = key(False, BOOLEAN)


@frozen
class MetricConfig:
    """One metric of the cluster, or of one subcluster."""

    name: str = key("", METRIC_NAME, required=True)
    timestep: int = key(60, integer(1, unit="seconds"), required=True)
    aggregation: str = key("", AGGREGATION)
    scope: str = key("", choice("", "node", "socket", "memoryDomain", "core", "hwthread", "accelerator"))
    unit: Unit = key(Unit(), Section(Unit, shared=True))
    subclusters: tuple[MetricOfSubcluster, ...] = key(
        (), ListOf(Section(MetricOfSubcluster, shared=True)), name="subClusters"
    )


@frozen
class AcceleratorConfig:
    """One accelerator of a host."""

    id: str = key("", NAME, required=True)


@frozen
class TopologyConfig:
    """How a host is built."""

    node: tuple[int, ...] = key((), THREADS)
    socket: tuple[tuple[int, ...], ...] = key((), ListOf(THREADS))
    memory_domain: tuple[tuple[int, ...], ...] = key((), ListOf(THREADS), name="memoryDomain")
    core: tuple[tuple[int, ...], ...] = key((), ListOf(THREADS))
    accelerators: tuple[AcceleratorConfig, ...] = key((), ListOf(Section(AcceleratorConfig, shared=True)))


@frozen
class SubclusterConfig:
    """Hosts of one kind."""

    name: str = key("", NAME, required=True)
    nodes: NodeList | None = key(None, NODE_LIST, required=True)
    metrics: tuple[MetricConfig, ...] = key(
        (), ListOf(Section(MetricConfig, shared=True)), name="metricConfig"
    )
    topology: TopologyConfig = key(TopologyConfig(), Section(TopologyConfig, shared=True))


@frozen
class ClusterFile:
    """The whole file."""

    name: str = key("", CLUSTER, required=True)
    metrics: tuple[MetricConfig, ...] = key(
        (), ListOf(Section(MetricConfig, shared=True)), name="metricConfig", required=True
    )
    subclusters: tuple[SubclusterConfig, ...] = key(
        (), ListOf(Section(SubclusterConfig, shared=True)), name="subClusters", required=True
    )


@define
class Found:
    """What the files say, and what is to be said of them."""

    clusters: Clusters = Factory(Clusters)
    problems: list[str] = Factory(list)
    warnings: list[str] = Factory(list)


def read_clusters(root: str) -> Found:
    """Read ``cluster.json`` in each directory right below `root`; without a directory `root`, nothing.

    Directories whose name begins with a dot are passed over.
    """
    found = Found()
    try:
        entries = sorted(Path(root).iterdir())
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError:
        return found
    except OSError as error:
        found.problems.append(f"{root}: cannot be read ({error.strerror})")
        return found
    if entries:
        found.problems += _check_version(f"{root}/version.txt")
    clusters = [_read_cluster(f"{root}/{name}/cluster.json", name, found) for name in names]
    found.clusters = Clusters(cluster for cluster in clusters if cluster is not None)
    return found


def _check_version(path: str) -> Iterator[str]:
    try:
        version = read_text(path)
    except ConfigError as error:
        yield f"{error.problems[0]}; it has to hold the version of the archive, {_VERSION}"
    else:
        if version.removesuffix("\n") != _VERSION:
            yield f"{path}: another version of the archive (got {version[:20]!r}, wanted {_VERSION!r})"


def _read_cluster(path: str, name: str, found: Found) -> Cluster | None:
    """Return what the file says, or None after noting its mistakes."""
    try:
        raw = read_json(path)
    except ConfigError as error:
        found.problems += error.problems
        return None
    if not isinstance(raw, dict):
        found.problems.append(
            f"{path}: not an object (wanted an object with name, metricConfig, subClusters)"
        )
        return None
    reader = Reader()
    reader.complain_about_repeated(raw)
    file = reader.section(ClusterFile, raw, "", shared=True)
    if "name" not in reader.broken and file.name != name:
        reader.complain("name", f"not that of the directory (got {file.name!r}, wanted {name!r})")
    for needed, items in (("metricConfig", file.metrics), ("subClusters", file.subclusters)):
        if not items and not reader.is_broken(needed) and raw.get(needed) == []:
            reader.complain(needed, "empty (wanted at least one)")
    metrics = _collect_metrics(reader, file)
    _complain_about_names(reader, file.subclusters)
    found.problems += [f"{path}: {problem}" for problem in reader.problems]
    if reader.problems:
        return None
    found.warnings += [f"{path}: {warning}" for warning in _find_warnings(file)]
    subclusters = tuple(_make_subcluster(file, config) for config in file.subclusters)
    return Cluster(file.name, metrics, subclusters)


def _metric_lists(file: ClusterFile) -> Iterator[tuple[str, Sequence[MetricConfig]]]:
    """Yield each list of metrics in the file with its path."""
    yield "metricConfig", file.metrics
    for number, subcluster in enumerate(file.subclusters):
        yield f"subClusters[{number}].metricConfig", subcluster.metrics


def _collect_metrics(reader: Reader, file: ClusterFile) -> Mapping[str, Metric]:
    """Return the metrics by name; note what is in a list twice or differs between lists."""
    known: dict[str, tuple[str, Metric]] = {}
    for path, metrics in _metric_lists(file):
        here = set[str]()
        for number, config in enumerate(metrics):
            where = f"{path}[{number}]"
            if any(broken == where or broken.startswith(f"{where}.") for broken in reader.broken):
                continue
            metric = _make_metric(config)
            if config.name in here:
                reader.complain(f"{where}.name", f"{config.name!r} stands in the list more than once")
            first, before = known.setdefault(config.name, (where, metric))
            if config.name not in here and _describe(metric) != _describe(before):
                got = f"got {_describe(metric)}, wanted {_describe(before)}"
                reader.complain(where, f"{config.name!r} differs from {first} in the same cluster ({got})")
            here.add(config.name)
    return {name: metric for name, (_, metric) in known.items()}


def _make_metric(config: MetricConfig) -> Metric:
    known = config.aggregation in ("sum", "avg")
    aggregation = Aggregation(config.aggregation) if known else Aggregation.NONE
    return Metric(config.name, config.timestep, aggregation, config.unit.prefix + config.unit.base)


def _describe(metric: Metric) -> str:
    return f"timestep {metric.frequency} s and aggregation {metric.aggregation.value or 'none'}"


def _complain_about_names(reader: Reader, subclusters: Sequence[SubclusterConfig]) -> None:
    known = set[str]()
    for number, subcluster in enumerate(subclusters):
        if subcluster.name and subcluster.name in known:
            reader.complain(f"subClusters[{number}].name", f"{subcluster.name!r} stands there more than once")
        known.add(subcluster.name)


def _make_subcluster(file: ClusterFile, config: SubclusterConfig) -> Subcluster:
    removed = {
        metric.name
        for metric in file.metrics
        if any(one.name == config.name and one.remove for one in metric.subclusters)
    }
    names = [metric.name for metric in config.metrics]
    names += [metric.name for metric in file.metrics if metric.name not in removed]
    topology = Topology(
        node=config.topology.node,
        sockets=config.topology.socket,
        memory_domains=config.topology.memory_domain,
        cores=config.topology.core,
        accelerators=tuple(one.id for one in config.topology.accelerators),
    )
    return Subcluster(config.name, config.nodes, tuple(dict.fromkeys(names)), topology)


def _find_warnings(file: ClusterFile) -> Iterator[str]:
    """Yield what an operator should know of a file that can be used."""
    for path, metrics in _metric_lists(file):
        for number, metric in enumerate(metrics):
            if metric.aggregation not in ("", "sum", "avg"):
                yield (
                    f"{path}[{number}].aggregation: unknown, so nothing is aggregated "
                    f'(got "{metric.aggregation}", wanted "sum", "avg" or null)'
                )
            strange = {one.name for one in metric.subclusters} - {one.name for one in file.subclusters}
            for name in sorted(strange):
                yield f"{path}[{number}].subClusters: there is no subcluster {name!r}"
    for one, other in itertools.combinations(file.subclusters, 2):
        if one.nodes is None or other.nodes is None:
            common = "all hosts that no list contains" if one.nodes is other.nodes else None
        else:
            common = one.nodes.first_common(other.nodes)
        if common is not None:
            yield f"subClusters: {one.name!r} and {other.name!r} both have {common}; the first one counts"
