"""Every key of every section: what is taken, what it becomes, what is refused and why."""

import base64
import copy
import json

import attrs
import pytest

from ccstore.config import Config, MetricStoreConfig, NatsSubscription, load_config, sections, split_address
from ccstore.config.keys import ListOf, Section, key_of
from ccstore.errors import ConfigError

HOURS = 3600.0
MIB = 1024**2
KEY = base64.b64encode(bytes(range(32))).decode()
LEAST = {
    "main": {"addr": "127.0.0.1:8082"},
    "metrics": {"m": {"frequency": 60, "aggregation": None}},
    "metric-store": {"retention-in-memory": "48h", "memory-cap": 0},
}
EVENTS = {"subject-job-event": "jobs", "subject-node-state": "nodes"}
SUBJECT = {"subscribe-to": "hpc.metrics"}


def with_key(path, value, extra=()):
    """Return the least configuration with the key at the dotted `path` set, and the `extra` ones too."""
    document = copy.deepcopy(LEAST)
    for where, what in (*extra, (path, value)):
        *parents, last = where.split("/")
        inner = document
        for name in parents:
            inner = inner[int(name)] if isinstance(inner, list) else inner.setdefault(name, {})
        inner[last] = what
    return document


def load(document, tmp_path):
    """Load `document` from a file."""
    (tmp_path / "config.json").write_text(json.dumps(document))
    return load_config(str(tmp_path / "config.json"), environ={})


NEEDED = {
    "main/https-cert-file": [("main/https-key-file", "k")],
    "main/https-key-file": [("main/https-cert-file", "c")],
    "main/api-subjects/": [("main/api-subjects", EVENTS)],
    "main/nodestate-retention/": [("main/nodestate-retention", {"policy": "delete"})],
    "metric-store/cleanup/mode": [("metric-store/cleanup/directory", "d")],
    "nats/tls/cert-file": [("nats/tls/key-file", "k")],
    "nats/tls/key-file": [("nats/tls/cert-file", "c")],
}
"""What must stand beside a key so that there is nothing else to complain about."""

TAKEN = [
    ("main/addr", "localhost:0", "localhost:0"),
    ("main/addr", "[::1]:8082", "[::1]:8082"),
    ("main/addr", "127.0.0.2:8082", "127.0.0.2:8082"),
    ("main/https-cert-file", "c", "c"),
    ("main/https-key-file", "k", "k"),
    ("main/user", "ccstore", "ccstore"),
    ("main/group", "ccstore", "ccstore"),
    ("main/jwt-public-key", KEY, bytes(range(32))),
    ("main/jwt-public-key", "", b""),
    ("main/jwt-public-key", None, b""),
    ("main/backend-url", "https://cc.example:8080/x", "https://cc.example:8080/x"),
    ("main/backend-token", "t", "t"),
    ("main/debug", {"dump-to-file": "x"}, sections.DebugConfig(dump_to_file="x")),
    ("main/debug", None, None),
    ("main/debug/gops", True, True),
    ("main/db", "/var/lib/x.db", "/var/lib/x.db"),
    ("main/api-allowed-ips", ["10.0.0.1", "::1", "*"], ("10.0.0.1", "::1", "*")),
    ("main/disable-authentication", True, True),
    ("main/stop-jobs-exceeding-walltime", 60, 60),
    ("main/resampling/minimum-points", 600, 600),
    ("main/resampling/minimum-points", 0, 1000),
    ("main/resampling/trigger", 30, 30),
    ("main/resampling/resolutions", [600, 60], (600, 60)),
    ("main/db-config/cache-size-mb", 1, MIB),
    ("main/db-config/soft-heap-limit-mb", 2, 2 * MIB),
    ("main/db-config/max-open-connections", 1, 1),
    ("main/db-config/max-idle-connections", 0, 0),
    ("main/db-config/max-idle-time-minutes", 2, 120),
    ("main/db-config/busy-timeout-ms", 5, 5),
    ("main/jwt-roles", "ignore", "ignore"),
    ("main/allow-test-key", True, True),
    ("main/strict-reference", True, True),
    ("main/shutdown-grace", "1m", 60.0),
    ("main/max-query-selectors", 0, 0),
    ("main/api-subjects/subject-job-event", "a.b", "a.b"),
    ("main/api-subjects/subject-node-state", "a.>", "a.>"),
    ("main/api-subjects/job-concurrency", 3, 3),
    ("main/api-subjects/job-concurrency", 0, 8),
    ("main/api-subjects/node-concurrency", -1, 2),
    ("main/api-subjects/early-stop-wait", "2m", 120.0),
    ("main/nodestate-retention/policy", "delete", "delete"),
    ("main/nodestate-retention/age", 2, 2 * HOURS),
    ("main/nodestate-retention/age", 0, 24 * HOURS),
    ("main/nodestate-retention/target-kind", "s3", "s3"),
    ("main/nodestate-retention/target-path", "p", "p"),
    ("main/nodestate-retention/target-endpoint", "e", "e"),
    ("main/nodestate-retention/target-bucket", "b", "b"),
    ("main/nodestate-retention/target-access-key", "a", "a"),
    ("main/nodestate-retention/target-secret-key", "s", "s"),
    ("main/nodestate-retention/target-region", "r", "r"),
    ("main/nodestate-retention/target-use-path-style", True, True),
    ("main/nodestate-retention/max-file-size-mb", 1, MIB),
    ("main/nodestate-retention/max-file-size-mb", -5, 128 * MIB),
    ("metric-store/retention-in-memory", "1.5h", 5400.0),
    ("metric-store/retention-in-memory", "0", 0.0),
    ("metric-store/retention-in-memory", "-1h", -3600.0),
    ("metric-store/memory-cap", 100, 100 * 10**9),
    ("metric-store/num-workers", 3, 3),
    ("metric-store/num-workers", -1, -1),
    ("metric-store/checkpoint-interval", "30m", 1800.0),
    ("metric-store/checkpoints/file-format", "wal", "wal"),
    ("metric-store/checkpoints/file-format", "json", "json"),
    ("metric-store/checkpoints/directory", "/c", "/c"),
    ("metric-store/checkpoints/max-wal-size", 7, 7),
    ("metric-store/cleanup/mode", "archive", "archive"),
    ("metric-store/cleanup/directory", "d", "d"),
    ("metric-store/cleanup", None, sections.CleanupConfig()),
    ("metric-store/nats-subscriptions", [SUBJECT], (NatsSubscription("hpc.metrics", ""),)),
    (
        "metric-store/nats-subscriptions",
        [SUBJECT | {"cluster-tag": "c"}],
        (NatsSubscription("hpc.metrics", "c"),),
    ),
    ("metric-store/debug", None, None),
    ("metric-store/debug/dump-to-file", "x", "x"),
    ("metric-store/limits/max-body-size", 1, 1),
    ("metric-store/limits/max-line-length", 1024, 1024),
    ("metric-store/limits/new-series-per-second", 0, 0),
    ("metric-store/limits/max-series", 0, 0),
    ("metric-store/future-bound", "1m", 60.0),
    ("metric-store/nats-overflow", "block", "block"),
    ("metric-store/nats-buffer", MIB, MIB),
    ("metric-store/wal/ack", "memory", "memory"),
    ("metric-store/wal/max-delay", "1s", 1.0),
    ("metric-store/shards", 4, 4),
    ("nats/address", "nats://h:4222", "nats://h:4222"),
    ("nats/address", "tls://u:p@h:1, h2,nats://t@[::1]:2", "tls://u:p@h:1, h2,nats://t@[::1]:2"),
    ("nats/address", "", ""),
    ("nats/username", "u", "u"),
    ("nats/password", "p", "p"),
    ("nats/creds-file-path", "c", "c"),
    ("nats/token", "t", "t"),
    ("nats/nkey-seed-file", "n", "n"),
    ("nats/queue-group", "q", "q"),
    ("nats/tls/ca-file", "c", "c"),
    ("nats/tls/cert-file", "c", "c"),
    ("nats/tls/key-file", "k", "k"),
    ("nats/tls/first", True, True),
    ("nats/connect-timeout", "2s", 2.0),
    ("nats/ping-interval", "2s", 2.0),
    ("archive/kind", "file", "file"),
    ("archive/path", "/a", "/a"),
    ("cron/commit-job-worker", "1m", 60.0),
    ("cron/duration-worker", "1m", 60.0),
]


def look_up(config, path):
    """Return what `config` has at the place of the key at `path`."""
    section, *names = path.split("/")
    found = getattr(config, section.replace("-", "_"))
    for name in names:
        (field,) = (f for f in attrs.fields(type(found)) if key_of(f).name == name)
        found = getattr(found, field.name)
    return found


@pytest.mark.parametrize(("path", "value", "expected"), TAKEN)
def test_a_value_is_taken_and_kept_in_house_units(path, value, expected, tmp_path):
    """What the file says stands at its place in the Config: seconds, bytes, tuples, defaults for zero."""
    needed = [what for prefix, keys in NEEDED.items() if path.startswith(prefix) for what in keys]
    assert look_up(load(with_key(path, value, needed), tmp_path), path) == expected


def test_every_key_of_every_section_is_in_the_table_above():
    """A key without a test of its own is noticed."""

    def keys(cls, path):
        for field in attrs.fields(cls):
            declared = key_of(field)
            here = f"{path}/{declared.name}"
            kind = declared.kind.item if isinstance(declared.kind, ListOf) else declared.kind
            yield here
            if isinstance(kind, Section) and not isinstance(declared.kind, ListOf):
                yield from keys(kind.cls, here)

    wanted = {
        *keys(sections.MainConfig, "main"),
        *keys(sections.MetricStoreConfig, "metric-store"),
        *keys(sections.NatsConfig, "nats"),
        *keys(sections.ArchiveConfig, "archive"),
        *keys(sections.CronConfig, "cron"),
    }
    tested = {path for path, *_ in TAKEN}
    tested |= {path.rsplit("/", depth)[0] for path in tested for depth in (1, 2)}
    tested |= {"main/debug/dump-to-file", "metric-store/debug/gops"}  # both objects are of one class
    assert wanted <= tested


REFUSED = [
    ("main/addr", "8082", "not an address to listen on"),
    ("main/addr", "host:http", "not an address to listen on"),
    ("main/addr", "host:65536", "not an address to listen on"),
    ("main/addr", "::1:8082", "not an address to listen on"),
    ("main/addr", "[zz]:8082", "not an address to listen on"),
    ("main/addr", "a b:1", "not an address to listen on"),
    ("main/addr", 8082, "not a string"),
    ("main/user", 0, "not a string"),
    ("main/jwt-public-key", "%%%%", "not base64"),
    ("main/jwt-public-key", "AAAA", "a key of 3 bytes"),
    ("main/backend-url", "localhost:8080", "not a URL of a web server"),
    ("main/backend-url", "http://", "not a URL of a web server"),
    ("main/backend-url", "http://h:99999", "not a URL of a web server"),
    ("main/debug", [], "not an object"),
    ("main/debug/gops", "yes", "neither true nor false"),
    ("main/db", "", "empty"),
    ("main/api-allowed-ips", "10.0.0.1", "not a list"),
    ("main/api-allowed-ips", ["10.0.0.0/8"], "not an IP address"),
    ("main/disable-authentication", 1, "neither true nor false"),
    ("main/stop-jobs-exceeding-walltime", -1, "too small"),
    ("main/stop-jobs-exceeding-walltime", 1.0, "not an integer"),
    ("main/resampling/minimum-points", True, "not an integer"),
    ("main/resampling/resolutions", [60, 0], "too small"),
    ("main/db-config/max-open-connections", 0, "too small"),
    ("main/db-config/busy-timeout-ms", "1s", "not an integer"),
    ("main/jwt-roles", "off", "unknown value"),
    ("main/shutdown-grace", "0s", "too short"),
    ("main/shutdown-grace", 30, "not a string"),
    ("main/max-query-selectors", -1, "too small"),
    ("main/nodestate-retention", {}, "missing"),
    ("main/nodestate-retention/policy", "keep", "unknown value"),
    ("main/api-subjects", {"subject-job-event": "jobs"}, "missing"),
    ("main/api-subjects", EVENTS | {"subject-job-event": "a..b"}, "not a NATS subject"),
    ("main/api-subjects", EVENTS | {"subject-job-event": ">.a"}, "not a NATS subject"),
    ("main/api-subjects", EVENTS | {"subject-job-event": "a b"}, "not a NATS subject"),
    ("main/api-subjects", EVENTS | {"subject-job-event": ""}, "not a NATS subject"),
    ("main/api-subjects", EVENTS | {"job-concurrency": 1.5}, "not an integer"),
    ("metrics/m/frequency", 0, "too small"),
    ("metrics/m/frequency", 60.9, "not an integer"),
    ("metrics/m/frequency", "60", "not an integer"),
    ("metrics/m/aggregation", 1, "not a string"),
    ("metrics/m/scope", "node", "unknown key"),
    ("metric-store/retention-in-memory", "48", "a duration needs a unit behind each number"),
    ("metric-store/retention-in-memory", "2d", "unknown unit 'd' in a duration"),
    ("metric-store/retention-in-memory", "", "not a duration"),
    ("metric-store/retention-in-memory", 48, "not a string"),
    ("metric-store/retention-in-memory", None, "missing"),
    ("metric-store/memory-cap", None, "missing"),
    ("metric-store/memory-cap", -1, "too small"),
    ("metric-store/memory-cap", 0.5, "not an integer"),
    ("metric-store/num-workers", "4", "not an integer"),
    ("metric-store/checkpoint-interval", "12", "a duration needs a unit behind each number"),
    ("metric-store/checkpoint-interval", "0s", "too short"),
    ("metric-store/checkpoint-interval", "-1h", "too short"),
    ("metric-store/checkpoints/file-format", "wall", "unknown value"),
    ("metric-store/checkpoints/file-format", "JSON", "unknown value"),
    ("metric-store/checkpoints/directory", "", "empty"),
    ("metric-store/checkpoints/max-wal-size", -1, "too small"),
    ("metric-store/checkpoints/interval", "1h", "unknown key"),
    ("metric-store/cleanup/mode", "zip", "unknown value"),
    ("metric-store/nats-subscriptions", {}, "not a list"),
    ("metric-store/nats-subscriptions", [{"cluster-tag": "c"}], "missing"),
    ("metric-store/nats-subscriptions", [SUBJECT | {"cluster-tag": "a/b"}], "not a cluster name"),
    ("metric-store/nats-subscriptions", [SUBJECT | {"cluster-tag": "."}], "not a cluster name"),
    ("metric-store/nats-subscriptions", [SUBJECT | {"cluster-tag": "a..b"}], "not a cluster name"),
    ("metric-store/nats-subscriptions", [SUBJECT | {"cluster-tag": "\u00e4" * 128}], "not a cluster name"),
    ("metric-store/limits/max-body-size", 0, "too small"),
    ("metric-store/limits/max-line-length", 1023, "too small"),
    ("metric-store/limits/max-series", -1, "too small"),
    ("metric-store/future-bound", "0s", "too short"),
    ("metric-store/nats-overflow", "wait", "unknown value"),
    ("metric-store/nats-buffer", 1000, "too small"),
    ("metric-store/wal/ack", "none", "unknown value"),
    ("metric-store/wal/max-delay", "-1s", "too short"),
    ("metric-store/shards", -1, "too small"),
    ("nats/address", "http://h", "server 1: address has an unknown scheme"),
    ("nats/address", "nats://", "server "),
    ("nats/address", "nats://h:0", "server "),
    ("nats/address", "nats://h/path", "server "),
    ("nats/address", "nats://a,,nats://b", "server 2: "),
    ("nats/address", 4222, "not a string"),
    ("nats/tls", "on", "not an object"),
    ("nats/tls/first", 1, "neither true nor false"),
    ("nats/connect-timeout", 5, "not a string"),
    ("nats/ping-interval", "0s", "too short"),
    ("nats/user", "x", "unknown key"),
    ("archive/kind", "s3", "unknown value"),
    ("archive/path", "", "empty"),
    ("cron/commit-job-worker", "0s", "too short"),
    ("cron/duration-worker", 5, "not a string"),
]


@pytest.mark.parametrize(("path", "value", "reason"), REFUSED)
def test_a_wrong_value_is_refused_with_its_path_and_reason(path, value, reason, tmp_path):
    """One mistake, one line: the key, what was wrong, what was found and what was wanted."""
    with pytest.raises(ConfigError) as caught:
        load(with_key(path, value), tmp_path)
    (problem,) = caught.value.problems
    where, what = problem.split(": ", 1)
    assert where.startswith(path.replace("/", "."))
    assert what.startswith(reason)
    assert "wanted" in what or "unknown key" in what


def test_the_default_checkpoint_interval_depends_on_format_and_retention():
    """1 h for our own format, 12 h for the reference's, and never longer than the retention."""

    def interval(file_format, hours):
        checkpoints = sections.CheckpointsConfig(file_format=file_format)
        return MetricStoreConfig(
            retention_in_memory=hours * HOURS, checkpoints=checkpoints
        ).checkpoint_interval

    assert interval("columnar", 48) == 1 * HOURS
    assert interval("wal", 48) == interval("json", 48) == 12 * HOURS
    assert interval("columnar", 0.5) == 0.5 * HOURS
    assert interval("json", 6) == 6 * HOURS
    assert interval("columnar", 0) == 1 * HOURS


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        (":65535", ("", 65535)),
        ("a-b.c:1", ("a-b.c", 1)),
    ],
)
def test_addresses_split_into_host_and_port(address, expected):
    """As the server needs them: brackets are gone, no host is the empty text."""
    assert split_address(address) == expected


def test_configurations_are_frozen():
    """Nobody changes a configuration behind the back of those who read it."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().main.addr = "0.0.0.0:1"
