"""docs/reference/config.md and the examples are held to the code."""

import json
import re
from pathlib import Path

import attrs
import pytest

from ccstore.config import DEFAULT_METRICS, load_config, sections
from ccstore.config.clusterfile import ClusterFile, MetricConfig, read_clusters
from ccstore.config.dump import write_value
from ccstore.config.keys import ListOf, Section, key_of
from ccstore.config.load import IGNORED_MAIN_KEYS
from ccstore.config.nodelist import parse_node_list

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
CLUSTERS_PAGE = (ROOT / "docs" / "reference" / "clusters.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("config*.json"))


def json_blocks(page):
    """Return the texts of the JSON on a page."""
    return re.findall(r"```json\n(.*?)```", page, re.DOTALL)


def keys_of(cls, path, origin="store"):
    """Yield (path, default as the page writes it, who knows it) of every key, depth first."""
    for field in attrs.fields(cls):
        declared = key_of(field)
        here = f"{path}.{declared.name}"
        known_to = declared.origin if origin == "store" or declared.origin == "ccstore" else origin
        if isinstance(declared.kind, Section):
            yield from keys_of(declared.kind.cls, here, known_to)
            continue
        default = json.dumps(write_value(declared.kind, getattr(cls(), field.name)))
        if here == "metric-store.checkpoint-interval":
            default = "`1h`, `12h`"
        else:
            default = "required" if declared.required else f"`{default}`"
        yield here, default, known_to
        if isinstance(declared.kind, ListOf) and isinstance(declared.kind.item, Section):
            yield from keys_of(declared.kind.item.cls, f"{here}[]", known_to)


IN_CODE = [
    *keys_of(sections.MainConfig, "main"),
    *keys_of(sections.MetricEntry, "metrics.<name>"),
    *keys_of(sections.MetricStoreConfig, "metric-store"),
    *keys_of(sections.NatsConfig, "nats"),
    *keys_of(sections.ArchiveConfig, "archive"),
    *keys_of(sections.CronConfig, "cron"),
]
ON_PAGE = re.findall(
    r"^\| `((?:main|metrics|metric-store|nats|archive|cron)\.[^`]*)` \| (.*?) \| (\w+) \|", PAGE, re.MULTILINE
)


def test_every_key_is_documented_with_its_default_and_no_other():
    """Path, default and who knows the key agree between the classes and the page, in both directions."""
    assert sorted(ON_PAGE) == sorted(IN_CODE)


def test_every_object_has_a_heading():
    """A reader finds each section and each object in it by its path."""
    objects = {path.rsplit(".", 1)[0].removesuffix("[]") for path, _, _ in IN_CODE}
    headings = set(re.findall(r"^#+ ([a-z.-]+)$", PAGE, re.MULTILINE))
    assert {name.removesuffix(".<name>") for name in objects} <= headings


def test_the_keys_stand_below_the_heading_of_their_object():
    """A row under a wrong heading would be looked for in vain."""
    heading = ""
    for line in PAGE.splitlines():
        if found := re.match(r"#+ ([a-z.-]+)$", line):
            heading = found[1]
        elif (row := re.match(r"\| `([a-z-]+\.[^`]*)` \|", line)) and heading:
            parent = row[1].rsplit(".", 1)[0].removesuffix("[]").removesuffix(".<name>")
            assert heading in (parent, row[1])


def fields_of(cls, path=""):
    """Yield (path, whether it is required) of every key of a cluster file, depth first."""
    for field in attrs.fields(cls):
        declared = key_of(field)
        here = f"{path}.{declared.name}".lstrip(".")
        yield here, declared.required
        kind, lists = declared.kind, ""
        while isinstance(kind, ListOf):
            kind, lists = kind.item, f"{lists}[]"
        if isinstance(kind, Section) and not (kind.cls is MetricConfig and path):
            yield from fields_of(kind.cls, here + lists)


def test_every_key_of_a_cluster_file_is_documented_and_no_other():
    """Path and whether it is required; a list of metrics is described once."""
    rows = re.findall(r"^\| `([a-zA-Z.\[\]]+)` \| (required|) ?\|", CLUSTERS_PAGE, re.MULTILINE)
    assert [(path, needed == "required") for path, needed in rows] == list(fields_of(ClusterFile))


def test_the_cluster_file_on_the_page_is_one(tmp_path):
    """What is copied from the page works, and is the file among the examples."""
    (block,) = json_blocks(CLUSTERS_PAGE)
    archive = ROOT / "examples" / "job-archive"
    assert json.loads(block) == json.loads((archive / "alpha" / "cluster.json").read_text())
    found = read_clusters(str(archive))
    assert (list(found.clusters), found.problems, found.warnings) == (["alpha"], [], [])


@pytest.mark.parametrize(
    "row", re.findall(r"^\| `([^`]*)` \| (.*) \| (\d+) \|$", CLUSTERS_PAGE, re.MULTILINE)
)
def test_the_node_lists_on_the_page(row):
    """Every example means the hosts that stand beside it."""
    text, hosts, count = row
    nodes = parse_node_list(text)
    assert nodes.count == int(count)
    assert all(host in nodes for host in re.findall("`([^`]*)`", hosts))


def test_the_page_lists_the_built_in_metrics():
    """Name, aggregation and unit of every metric of the table, and no other."""
    rows = re.findall(r"^\| (sum|avg) \| ?([^|]*?) ?\| (`.*`) \|$", PAGE, re.MULTILINE)
    listed = {}
    for aggregation, unit, names in rows:
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", names), (aggregation, unit))
    assert listed == {m.name: (m.aggregation.value, m.unit) for m in DEFAULT_METRICS.values()}


def test_the_page_lists_the_ignored_keys_of_the_backend_program():
    """Who moves over from it sees what has no effect."""
    text = PAGE.split("### Keys of the backend program that are ignored")[1].split("##")[0]
    assert set(re.findall(r"`([a-z-]+)`", text)) - {"main"} == IGNORED_MAIN_KEYS


def test_the_json_on_the_page_is_a_configuration(tmp_path):
    """What is copied from the page works."""
    blocks = json_blocks(PAGE)
    assert blocks
    for block in blocks:
        (tmp_path / "config.json").write_text(block)
        load_config(str(tmp_path / "config.json"), environ={})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_load_without_a_mistake(path):
    """And the page names each of them."""
    assert load_config(str(path), environ={}).path == str(path)
    assert f"examples/{path.name}" in PAGE


def test_the_example_of_a_site_needs_no_warning():
    """It shows how it should be: with a key, TLS, NATS with credentials, and its own metrics."""
    config = load_config(str(ROOT / "examples" / "config-site.json"), environ={})
    assert config.warnings == ()
    assert config.main.https_cert_file
    assert config.nats.address.startswith("tls://")
    assert set(config.metrics) <= set(DEFAULT_METRICS)
    assert {m.name: m.aggregation for m in config.metrics.values() if m.name != "cpu_load"} == {
        name: DEFAULT_METRICS[name].aggregation for name in config.metrics if name != "cpu_load"
    }
