"""Cluster files: what they mean, every mistake in them at once, and the metric table made of them."""

import copy
import json
import re
from pathlib import Path

import pytest

from ccstore.config import DEFAULT_METRICS, Clusters, Topology, dump_config, load_config
from ccstore.config.clusterfile import read_clusters
from ccstore.errors import ConfigError
from ccstore.model import Aggregation, Metric

SUM, AVG = Aggregation.SUM, Aggregation.AVG

FRITZ = {
    "name": "fritz",
    "metricConfig": [
        {
            "name": "cpu_load",
            "unit": {"base": ""},
            "scope": "node",
            "aggregation": None,
            "timestep": 60,
            "peak": 72,
            "subClusters": [{"name": "spr", "peak": 104, "remove": False}],
        },
        {
            "name": "mem_bw",
            "unit": {"base": "B/s", "prefix": "G"},
            "scope": "socket",
            "aggregation": "sum",
            "timestep": 60,
            "subClusters": [{"name": "spr", "remove": True}],
        },
        {"name": "clock", "unit": {"base": "Hz", "prefix": "M"}, "aggregation": "avg", "timestep": 30},
    ],
    "subClusters": [
        {
            "name": "main",
            "nodes": "f[0101-0188],f0201,",
            "processorType": "Xeon",
            "topology": {
                "node": [0, 1, 2, 3],
                "socket": [[0, 1], [2, 3]],
                "memoryDomain": [[0, 1], [2, 3]],
                "die": None,
                "core": [[0], [1], [2], [3]],
                "accelerators": [{"id": "00000000:49:00.0", "type": "GPU", "model": "A40"}],
            },
        },
        {"name": "spr", "nodes": "f2[01-64]", "metricConfig": [{"name": "hbm_bw", "timestep": 60}]},
        {"name": "rest", "nodes": "*"},
    ],
}
REST = {"main": {"addr": "127.0.0.1:1"}, "metric-store": {"retention-in-memory": "1h", "memory-cap": 0}}


def other(**changes):
    """Return a small file of the cluster `alex`."""
    small = {
        "name": "alex",
        "metricConfig": [{"name": "cpu_load", "timestep": 60}],
        "subClusters": [{"name": "a40", "nodes": "a[0-9]"}],
    }
    return small | changes


def put(root, *clusters, version="3\n"):
    """Write files of clusters; an item that is no object is written as it is, into a directory `raw`."""
    root.mkdir(exist_ok=True)
    if version is not None:
        (root / "version.txt").write_text(version)
    for cluster in clusters:
        directory = root / (cluster["name"] if isinstance(cluster, dict) else "raw")
        directory.mkdir()
        (directory / "cluster.json").write_text(cluster if isinstance(cluster, str) else json.dumps(cluster))
    return str(root)


@pytest.fixture(name="fritz")
def _fritz(tmp_path) -> Clusters:
    """Return the cluster `fritz` as it was read."""
    found = read_clusters(put(tmp_path / "archive", FRITZ))
    assert (found.problems, found.warnings) == ([], [])
    return found.clusters


@pytest.mark.parametrize(
    ("host", "subcluster"),
    [
        ("f0101", "main"),
        ("f0188", "main"),
        ("f0201", "main"),
        ("f201", "spr"),
        ("f0189", "rest"),
        ("x", "rest"),
    ],
)
def test_a_host_is_in_the_subcluster_whose_list_has_it(fritz, host, subcluster):
    """And in the one for all others if none has it, wherever that one stands."""
    assert fritz.subcluster("fritz", host) == subcluster


@pytest.mark.parametrize("nodes", ["*", ""])
def test_every_subcluster_can_be_the_one_for_all_others(tmp_path, nodes):
    """A star and nothing at all mean the same, also in front; lists come first."""
    lists = [{"name": "others", "nodes": nodes}, {"name": "few", "nodes": "n1"}]
    clusters = read_clusters(put(tmp_path / "archive", other(subClusters=lists))).clusters
    assert [clusters.subcluster("alex", host) for host in ("n1", "n2")] == ["few", "others"]
    assert list(clusters["alex"].hosts()) == ["n1"]


def test_without_a_list_that_has_it_a_host_has_no_subcluster(tmp_path):
    """Neither has one of a cluster that is not known."""
    clusters = read_clusters(put(tmp_path / "archive", other())).clusters
    assert (clusters.subcluster("alex", "b1"), clusters.subcluster("emmy", "a1")) == (None, None)
    assert (clusters.expected_metrics("alex", "b"), clusters.expected_metrics("emmy", "a40")) == ((), ())


def test_the_expected_metrics_are_those_of_the_subcluster_and_those_not_removed(fritz):
    """Those of the subcluster come first."""
    assert fritz.expected_metrics("fritz", "main") == ("cpu_load", "mem_bw", "clock")
    assert fritz.expected_metrics("fritz", "spr") == ("hbm_bw", "cpu_load", "clock")


def test_metrics_hosts_and_topology(fritz):
    """Everything else that a file says and that somebody asks for."""
    cluster = fritz["fritz"]
    assert list(cluster.metrics.values()) == [
        Metric("cpu_load", 60),
        Metric("mem_bw", 60, SUM, "GB/s"),
        Metric("clock", 30, AVG, "MHz"),
        Metric("hbm_bw", 60),
    ]
    assert cluster.host_count == len(list(cluster.hosts())) == 89 + 64
    assert cluster.subcluster("f0101").topology == Topology(
        node=(0, 1, 2, 3),
        sockets=((0, 1), (2, 3)),
        memory_domains=((0, 1), (2, 3)),
        cores=((0,), (1,), (2,), (3,)),
        accelerators=("00000000:49:00.0",),
    )
    assert cluster.subcluster("f201").topology == Topology()


def test_the_first_of_two_lists_counts_and_there_is_a_warning(tmp_path):
    """So it does with two subclusters for all others."""
    subclusters = [
        {"name": "a", "nodes": "n[01-10],x"},
        {"name": "b", "nodes": "n[10-20]"},
        {"name": "c", "nodes": "*"},
        {"name": "d", "nodes": ""},
    ]
    found = read_clusters(put(tmp_path / "archive", other(subClusters=subclusters)))
    where = f"{tmp_path}/archive/alex/cluster.json: subClusters"
    assert found.warnings == [
        f"{where}: 'a' and 'b' both have n10; the first one counts",
        f"{where}: 'c' and 'd' both have all hosts that no list contains; the first one counts",
    ]
    assert [found.clusters.subcluster("alex", host) for host in ("n10", "n20", "y")] == ["a", "b", "c"]


def test_what_has_no_effect_is_a_warning(tmp_path):
    """An unknown aggregation means none, and a subcluster that is not there changes nothing."""
    metric = {
        "name": "m",
        "timestep": 1,
        "aggregation": "max",
        "subClusters": [{"name": "a41", "remove": True}],
    }
    found = read_clusters(put(tmp_path / "archive", other(metricConfig=[metric])))
    where = f"{tmp_path}/archive/alex/cluster.json: metricConfig[0]"
    assert found.warnings == [
        f'{where}.aggregation: unknown, so nothing is aggregated (got "max", wanted "sum", "avg" or null)',
        f"{where}.subClusters: there is no subcluster 'a41'",
    ]
    assert found.problems == []


def test_all_mistakes_of_a_file_come_at_once(tmp_path):
    """Each with its file and its path in it."""
    bad = copy.deepcopy(FRITZ)
    bad["metricConfig"][0] |= {"timestep": 0, "scope": "rack", "unit": "W"}
    bad["metricConfig"][2] |= {"name": "mem_bw"}
    bad["subClusters"][0]["nodes"] = "f[1-10]"
    bad["subClusters"][0]["topology"]["socket"] = [0, 1]
    bad["subClusters"][1] |= {"name": "rest", "metricConfig": [{"name": "mem_bw", "timestep": 10}]}
    root = put(tmp_path / "archive", bad)
    lines = r"""
        metricConfig[0].timestep: too small (got 0, wanted an integer in seconds, at least 1)
        metricConfig[0].scope: unknown value (got "rack", wanted "", "node", "socket", "memoryDomain", \
            "core", "hwthread" or "accelerator")
        metricConfig[0].unit: not an object (got "W", wanted an object)
        subClusters[0].nodes: bounds of different lengths in '1-10' (got "f[1-10]", wanted a list such as \
            "node[01-10],login1", or "*" for all other hosts)
        subClusters[0].topology.socket[0]: not a list (got 0, wanted a list, each an integer, at least 0)
        subClusters[0].topology.socket[1]: not a list (got 1, wanted a list, each an integer, at least 0)
        metricConfig[2].name: 'mem_bw' stands in the list more than once
        subClusters[1].metricConfig[0]: 'mem_bw' differs from metricConfig[1] in the same cluster (got \
            timestep 10 s and aggregation none, wanted timestep 60 s and aggregation sum)
        subClusters[2].name: 'rest' stands there more than once
    """
    wanted = re.sub(r"\\\n +", "", lines).strip().splitlines()
    assert read_clusters(root).problems == [f"{root}/fritz/cluster.json: {line.strip()}" for line in wanted]


def test_the_mistakes_of_all_files_come_at_once(tmp_path):
    """A file that is no JSON, or not there, hides no other one."""
    bad = other(name="x", metricConfig=[], subClusters=None)
    root = put(tmp_path / "archive", bad, "{", other(), version="2\n")
    (tmp_path / "archive" / "empty").mkdir()
    (tmp_path / "archive" / "x").rename(tmp_path / "archive" / "y")
    assert [problem.removeprefix(f"{root}/") for problem in read_clusters(root).problems] == [
        "version.txt: another version of the archive (got '2\\n', wanted '3')",
        "empty/cluster.json: cannot be read (No such file or directory)",
        "raw/cluster.json: line 1, column 2: expecting property name enclosed in double quotes",
        "y/cluster.json: subClusters: missing (wanted a list, each an object)",
        "y/cluster.json: name: not that of the directory (got 'x', wanted 'y')",
        "y/cluster.json: metricConfig: empty (wanted at least one)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "not an object (wanted an object with name, metricConfig, subClusters)"),
        ("{}", "name: missing (wanted 1 to 255 bytes without slash, backslash and double dot)"),
        ('{"name": "a", "name": "b"}', "name: the key stands there more than once"),
        ("\xff", "cannot be read"),
    ],
    ids=["list", "empty", "twice", "bytes"],
)
def test_a_file_of_another_kind_is_a_mistake(tmp_path, text, problem):
    """It is told with its path, and does not end the reading otherwise."""
    root = put(tmp_path / "archive", text)
    if text == "\xff":
        (tmp_path / "archive" / "raw" / "cluster.json").unlink()
        (tmp_path / "archive" / "raw" / "cluster.json").mkdir()
    assert read_clusters(root).problems[0].startswith(f"{root}/raw/cluster.json: {problem}")


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("3\n", None),
        ("3", None),
        ("03\n", "another version of the archive (got '03\\n', wanted '3')"),
        ("", "another version of the archive (got '', wanted '3')"),
        (None, "cannot be read (No such file or directory); it has to hold the version of the archive, 3"),
    ],
    ids=["right", "no newline", "zero", "empty", "missing"],
)
def test_the_version_of_the_archive(tmp_path, version, problem):
    """An archive of another version is laid out in another way, so it is not used."""
    root = put(tmp_path / "archive", other(), version=version)
    assert read_clusters(root).problems == ([f"{root}/version.txt: {problem}"] if problem else [])


def test_no_directory_and_an_empty_one_have_no_clusters(tmp_path):
    """The first start comes before the first cluster; hidden directories and files are nobody's clusters."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden" / ".snapshot").mkdir(parents=True)
    (tmp_path / "hidden" / "version.txt").write_text("3\n")
    for root in ("missing", "empty", "hidden"):
        found = read_clusters(str(tmp_path / root))
        assert (dict(found.clusters), found.problems) == ({}, [])
    assert read_clusters(str(tmp_path / "hidden" / "version.txt")).problems == [
        f"{tmp_path}/hidden/version.txt: cannot be read (Not a directory)"
    ]


# --- the configuration


def load(tmp_path, **sections):
    """Load a configuration whose archive is in the directory of the test."""
    document = REST | {"archive": {"path": str(tmp_path / "archive")}} | sections
    (tmp_path / "config.json").write_text(json.dumps(document))
    return load_config(str(tmp_path / "config.json"), environ={})


def test_without_metrics_they_are_those_of_the_cluster_files(tmp_path):
    """What one cluster lists is stored for all, as the first of them in order of names has it."""
    metrics = [
        {"name": "cpu_load", "timestep": 10},
        {"name": "acc_power", "timestep": 10, "aggregation": "sum"},
    ]
    put(tmp_path / "archive", FRITZ, other(metricConfig=metrics))
    config = load(tmp_path)
    assert config.metrics_derived
    assert sorted(config.clusters) == ["alex", "fritz"]
    assert config.metrics == {
        "cpu_load": Metric("cpu_load", 10),
        "acc_power": Metric("acc_power", 10, SUM),
        "mem_bw": Metric("mem_bw", 60, SUM, "GB/s"),
        "clock": Metric("clock", 30, AVG, "MHz"),
        "hbm_bw": Metric("hbm_bw", 60),
    }
    assert config.own_metrics == {"fritz": (Metric("cpu_load", 60),)}
    assert [config.metrics_of(name)["cpu_load"].frequency for name in ("alex", "fritz", "x")] == [10, 60, 10]


def test_a_configuration_with_derived_metrics_is_printed_as_one(tmp_path):
    """Printed as a table they would lose the steps of all clusters but one."""
    put(tmp_path / "archive", FRITZ)
    config = load(tmp_path)
    printed = dump_config(config)
    assert printed["metrics"] is None
    (tmp_path / "again.json").write_text(json.dumps(printed))
    again = load_config(str(tmp_path / "again.json"), environ={})
    assert (again.metrics, again.own_metrics, dump_config(again)) == (
        config.metrics,
        config.own_metrics,
        printed,
    )


def test_section_metrics_is_used_alone(tmp_path):
    """Where the files of clusters want something else, there is a warning."""
    put(tmp_path / "archive", FRITZ)
    config = load(tmp_path, metrics={"clock": {"frequency": 60, "aggregation": "avg"}})
    assert (list(config.metrics), dict(config.own_metrics)) == (["clock"], {})
    assert [warning for warning in config.warnings if warning.startswith("metrics")] == [
        "metrics: cluster 'fritz' has others, which are not stored: cpu_load, mem_bw, hbm_bw",
        "metrics: cluster 'fritz' has other steps, which do not count: clock (every 30 s, not 60 s)",
    ]


def test_without_cluster_files_the_built_in_metrics_are_used(tmp_path):
    """A directory that is named and not there is worth a warning, too."""
    config = load(tmp_path)
    assert config.metrics == DEFAULT_METRICS
    assert list(config.warnings)[:2] == [
        f"archive.path: no such directory, so no cluster is known ({tmp_path}/archive)",
        f"metrics: missing, so the built-in table of {len(DEFAULT_METRICS)} metrics is used",
    ]


def test_mistakes_in_cluster_files_come_with_those_of_the_configuration(tmp_path):
    """One start is enough to learn them all."""
    root = put(tmp_path / "archive", other(subClusters=[]))
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, nats={"adress": "nats://x"})
    assert list(raised.value.problems) == [
        'nats.adress: unknown key (did you mean "address"?)',
        f"{root}/alex/cluster.json: subClusters: empty (wanted at least one)",
    ]


def test_clusters_are_found_without_a_configuration(tmp_path, monkeypatch):
    """The archive has a default directory, as everything else has its default."""
    monkeypatch.chdir(tmp_path)
    Path("var").mkdir()
    put(tmp_path / "var" / "job-archive", other())
    assert list(load_config(environ={}).clusters) == ["alex"]


def test_other_keys_of_the_sections_archive_and_cron_are_named(tmp_path):
    """They belong to the backend program; whoever relies on them here should know."""
    config = load(tmp_path, archive={"path": "var", "retention": {}}, cron={"footprint-worker": "10m"})
    assert [warning for warning in config.warnings if "unknown" in warning] == [
        "archive.retention: unknown key, ignored",
        "cron.footprint-worker: unknown key, ignored",
    ]
    assert not any("archive" in note or "cron" in note for note in config.notes)
