"""From files to a Config: paths, included files, JSON, the environment, defaults, all mistakes at once."""

import base64
import json

import pytest

from ccstore.config import DEFAULT_METRICS, Config, MainConfig, dump_config, load_config
from ccstore.config.keys import DURATION
from ccstore.config.load import IGNORED_MAIN_KEYS
from ccstore.errors import ConfigError
from ccstore.model import Aggregation, Metric

SMALL = {
    "main": {"addr": "127.0.0.1:8082"},
    "metrics": {"cpu_load": {"frequency": 60, "aggregation": None}},
    "metric-store": {"retention-in-memory": "48h", "memory-cap": 0},
}


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """Every test starts in a directory of its own without a configuration."""
    monkeypatch.chdir(tmp_path)


def load(document, **options):
    """Write `document` (JSON value or text) to a file and load it."""
    text = document if isinstance(document, str) else json.dumps(document)
    with open("given.json", "w", encoding="utf-8") as file:
        file.write(text)
    return load_config("given.json", environ={}, **options)


def problems(document):
    """Return what is wrong with `document`; fails if nothing is."""
    with pytest.raises(ConfigError) as caught:
        load(document)
    return list(caught.value.problems)


def test_without_a_file_everything_has_its_default():
    """No path and no ./config.json: loopback, ./var, the built-in metrics, 48 h, no cap, no NATS."""
    config = load_config(environ={})
    assert config.main == MainConfig(addr="127.0.0.1:8082")
    assert config.metrics == DEFAULT_METRICS
    assert config.metric_store.retention_in_memory == 48 * 3600
    assert config.metric_store.memory_cap_bytes == 0
    assert config.metric_store.checkpoints.directory == "./var/checkpoints"
    assert config.main.db == "./var/job.db"
    assert config.nats.address == ""
    assert config.path is None
    assert config.notes == ()
    assert config.warnings[0] == "./config.json: no such file, so everything has its default"


def test_the_built_in_table_has_the_usual_metrics():
    """Sums, averages and units of the table, and that all come every minute."""
    assert DEFAULT_METRICS["flops_any"] == Metric("flops_any", 60, Aggregation.SUM, "GF/s")
    assert DEFAULT_METRICS["ipc"] == Metric("ipc", 60, Aggregation.AVG, "")
    assert {metric.frequency for metric in DEFAULT_METRICS.values()} == {60}
    assert all(name == metric.name for name, metric in DEFAULT_METRICS.items())


def test_the_default_path_is_config_json_in_the_working_directory():
    """./config.json is used when it exists and no path is given."""
    with open("config.json", "w") as file:
        json.dump(SMALL | {"metric-store": {"retention-in-memory": "1h", "memory-cap": 3}}, file)
    config = load_config(environ={})
    assert config.path == "./config.json"
    assert config.metric_store.memory_cap_bytes == 3_000_000_000


def test_a_small_file():
    """The least a file must have, in house units."""
    config = load(SMALL)
    assert config.metrics == {"cpu_load": Metric("cpu_load", 60, Aggregation.NONE)}
    assert config.metric_store.retention_in_memory == 172800.0
    assert config.path == "given.json"


def test_a_named_file_must_exist():
    """A path that is given and cannot be read is a mistake, also an empty one."""
    with pytest.raises(ConfigError, match=r"^nowhere\.json: cannot be read \(No such file or directory\)$"):
        load_config("nowhere.json", environ={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("", environ={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"main": {}\n "metrics": {}}', "given.json: line 2, column 2: expecting ',' delimiter"),
        ("", "given.json: line 1, column 1: expecting value"),
        ("{} {}", "given.json: line 1, column 4: extra data"),
        ('{"main": NaN}', "given.json: not JSON (NaN is no JSON value)"),
        ("[" * 100_000, "given.json: not JSON (maximum recursion depth exceeded"),
        ('{"main": "\\ud800"}', "given.json: not JSON ('utf-8' codec can't encode"),
    ],
)
def test_json_errors_name_file_line_and_column(text, message):
    """A file that is no JSON is one mistake, with its place."""
    (problem,) = problems(text)
    assert problem.startswith(message)


def test_a_file_that_is_not_utf_8():
    """Bytes that are no UTF-8 are a mistake of the file."""
    with open("given.json", "wb") as file:
        file.write(b'{"main": "\xff"}')
    with pytest.raises(ConfigError, match=r"^given\.json: not text \('utf-8' codec"):
        load_config("given.json", environ={})


@pytest.mark.parametrize("document", ["[]", "5", '"text"', "null"])
def test_the_file_must_hold_an_object(document):
    """Any other JSON value is one mistake."""
    assert problems(document) == [
        "given.json: not an object (wanted an object with main, metrics and metric-store)"
    ]


def test_main_and_metric_store_are_required():
    """A file without them is no configuration, and a misspelt section is named."""
    assert problems({"metric_store": {}}) == [
        "main: missing (wanted an object)",
        'metric-store: missing (got "metric_store", wanted an object)',
    ]


def test_unknown_sections_are_ignored_but_typing_errors_are_told():
    """Sections of other programs pass silently; what looks like one of ours gives a warning."""
    config = load(SMALL | {"archive": {"kind": "file"}, "auth": {}, "cron": {}, "nast": {"address": "x"}})
    assert [w for w in config.warnings if "section" in w] == [
        'nast: unknown section, ignored (did you mean "nats"?)'
    ]


@pytest.mark.parametrize("section", ["main", "metrics", "metric-store", "nats"])
def test_a_section_can_be_a_file_of_its_own(section):
    """A key <name>-file holds the path of a file with the section, also for metric-store."""
    whole = SMALL | {"nats": {"address": "nats://localhost:4222"}}
    with open("part.json", "w") as file:
        json.dump(whole[section], file)
    rest = {name: value for name, value in whole.items() if name != section}
    assert dump_config(load(rest | {f"{section}-file": "part.json"})) == dump_config(load(whole))


def test_the_path_of_an_included_file_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    """Not to the including file: a service unit's working directory counts, as for the reference."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "metrics.json").write_text(json.dumps(SMALL["metrics"]))
    document = {"main": SMALL["main"], "metric-store": SMALL["metric-store"], "metrics-file": "metrics.json"}
    (tmp_path / "etc" / "config.json").write_text(json.dumps(document))
    assert list(load_config("etc/config.json", environ={}).metrics) == ["cpu_load"]
    monkeypatch.chdir(tmp_path / "etc")
    with pytest.raises(ConfigError, match=r"metrics-file: metrics\.json: cannot be read"):
        load_config("config.json", environ={})


def test_mistakes_with_included_files_are_told_together():
    """Unreadable, broken, doubled and mistyped files are four mistakes, and no section is called missing."""
    with open("broken.json", "w") as file:
        file.write("{")
    document = {
        "main-file": 5,
        "metrics": SMALL["metrics"],
        "metrics-file": "metrics.json",
        "metric-store-file": "nowhere.json",
        "nats-file": "broken.json",
    }
    assert problems(document) == [
        "main-file: not a string (got 5, wanted a path)",
        "metrics-file: stands beside metrics (got both, wanted one)",
        "metric-store-file: nowhere.json: cannot be read (No such file or directory)",
        "nats-file: broken.json: line 1, column 2: expecting property name enclosed in double quotes",
    ]


def test_mistakes_inside_an_included_file_have_the_path_of_the_section():
    """It does not matter in which file a key stands."""
    with open("part.json", "w") as file:
        file.write('{"a": {"frequency": 0, "aggregation": null, "aggregation": "sum"}}')
    rest = {"main": SMALL["main"], "metric-store": SMALL["metric-store"], "metrics-file": "part.json"}
    assert problems(rest) == [
        "metrics.a.aggregation: the key stands there more than once",
        "metrics.a.frequency: too small (got 0, wanted an integer in seconds, at least 1)",
    ]


def test_repeated_keys_are_mistakes_at_every_depth():
    """A key that stands twice would silently lose one of its values."""
    text = """{"main": {"addr": "127.0.0.1:1", "addr": "127.0.0.1:2"}, "metrics": {"m": {"frequency": 1,
        "aggregation": null}, "m": {"frequency": 2, "aggregation": null}}, "metric-store":
        {"retention-in-memory": "1h", "memory-cap": 1, "nats-subscriptions":
        [{"subscribe-to": "a", "subscribe-to": "b"}]}, "nats": {}, "nats": {}}"""
    assert problems(text) == [
        "nats: the key stands there more than once",
        "main.addr: the key stands there more than once",
        "metrics.m: the key stands there more than once",
        "metric-store.nats-subscriptions[0].subscribe-to: the key stands there more than once",
    ]


def test_all_mistakes_come_at_once():
    """One start is enough to learn everything that is wrong, in the order of the sections."""
    document = {
        "main": {"adr": ":80", "https-cert-file": "cert.pem", "disable-authentication": 1},
        "metrics": {"a": {"frequency": 60.0, "aggregation": "sum"}, "b": {}},
        "metric-store": {"retention-in-memory": 48, "cleanup": {"mode": "archive"}},
        "nats": {"address": "http://broker", "pasword": "x"},
    }
    assert problems(document) == [
        'main.adr: unknown key (did you mean "addr"?)',
        "main.disable-authentication: neither true nor false (got 1, wanted true or false)",
        "metrics.a.frequency: not an integer (got 60.0, wanted an integer in seconds, at least 1)",
        "metrics.b.frequency: missing (wanted an integer in seconds, at least 1)",
        'metrics.b.aggregation: missing (wanted "sum", "avg" or null)',
        f"metric-store.retention-in-memory: not a string (got 48, wanted {DURATION.wanted})",
        "metric-store.memory-cap: missing (wanted an integer in GB (10^9 bytes), at least 0)",
        'nats.pasword: unknown key (did you mean "password"?)',
        "nats.address: server 1: address has an unknown scheme (got 'http', wanted 'nats' or 'tls')",
        "main.https-key-file: missing (wanted beside main.https-cert-file)",
        'metric-store.cleanup.directory: missing (wanted unless metric-store.cleanup.mode is "delete")',
    ]


def test_a_section_of_the_wrong_type_is_one_mistake():
    """A list instead of an object is named, and nothing is said about the keys it does not have."""
    assert problems(SMALL | {"main": [], "metrics": 5, "nats": "nats://x"}) == [
        "main: not an object (got [], wanted an object)",
        "metrics: no metric (wanted an object, each key the name of a metric)",
        'nats: not an object (got "nats://x", wanted an object)',
    ]


def test_keys_of_the_backend_program_that_mean_nothing_here_are_accepted():
    """A file that served the backend program is not refused because of its web interface."""
    extra = dict.fromkeys(IGNORED_MAIN_KEYS, "anything")
    assert load(SMALL | {"main": SMALL["main"] | extra}).main == load(SMALL).main


KEY = base64.b64encode(bytes(range(32))).decode()


def test_the_environment_gives_the_key_if_the_file_gives_none():
    """JWT_PUBLIC_KEY counts only for an empty key."""
    with open("config.json", "w") as file:
        json.dump(SMALL, file)
    config = load_config(environ={"JWT_PUBLIC_KEY": KEY})
    assert config.main.jwt_public_key == bytes(range(32))
    other = base64.b64encode(bytes(32)).decode()
    with open("config.json", "w") as file:
        json.dump(SMALL | {"main": {"addr": ":8082", "jwt-public-key": other}}, file)
    assert load_config(environ={"JWT_PUBLIC_KEY": KEY}).main.jwt_public_key == bytes(32)


def test_the_environment_counts_without_a_file_too():
    """The key protects the defaults as well."""
    assert load_config(environ={"JWT_PUBLIC_KEY": KEY}).main.jwt_public_key == bytes(range(32))


def test_a_bad_key_in_the_environment_is_a_mistake():
    """It is not passed over, since that would open the server."""
    with pytest.raises(ConfigError, match=r"^JWT_PUBLIC_KEY: a key of 3 bytes \(in the environment, wanted"):
        load_config(environ={"JWT_PUBLIC_KEY": "AAAA"})


def test_metrics_left_out_are_the_built_in_ones_with_a_warning():
    """A file without metrics works, but says so."""
    config = load({name: SMALL[name] for name in ("main", "metric-store")})
    assert config.metrics == DEFAULT_METRICS
    assert (
        f"metrics: missing, so the built-in table of {len(DEFAULT_METRICS)} metrics is used"
        in config.warnings
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [("sum", Aggregation.SUM), ("avg", Aggregation.AVG), (None, Aggregation.NONE), ("", Aggregation.NONE)],
)
def test_aggregations(given, expected):
    """Sum and avg are known; null and the empty text mean none; none of them gives a warning."""
    config = load(SMALL | {"metrics": {"m": {"frequency": 1, "aggregation": given}}})
    assert config.metrics["m"].aggregation is expected
    assert not any("aggregation" in warning for warning in config.warnings)


def test_an_unknown_aggregation_is_a_warning_and_means_none():
    """The reference store starts with it, so ccstore does."""
    config = load(SMALL | {"metrics": {"m": {"frequency": 1, "aggregation": "max"}}})
    assert config.metrics["m"].aggregation is Aggregation.NONE
    assert (
        'metrics.m.aggregation: unknown, so nothing is aggregated (got "max", wanted "sum", "avg" or null)'
        in config.warnings
    )


@pytest.mark.parametrize(
    "metrics",
    [{}, {"": {"frequency": 1, "aggregation": None}}, {"x" * 65536: {"frequency": 1, "aggregation": None}}],
)
def test_metrics_need_names(metrics):
    """An empty table and names that no line can carry are mistakes."""
    assert len(problems(SMALL | {"metrics": metrics})) == 1


def test_what_is_printed_can_be_loaded_and_means_the_same():
    """The effective configuration is a configuration."""
    for config in (load_config(environ={}), load(SMALL)):
        printed = dump_config(config)
        again = load(json.dumps(printed))
        assert dump_config(again) == printed
        assert (again.main, again.metrics, again.metric_store, again.nats) == (
            config.main,
            config.metrics,
            config.metric_store,
            config.nats,
        )


def test_secrets_are_masked_when_printed_and_in_messages():
    """Passwords, tokens and S3 keys never reach a ticket; that there is one does."""
    secrets = {
        "main": {
            "addr": "127.0.0.1:1",
            "backend-token": "s3cret",
            "nodestate-retention": {
                "policy": "move",
                "target-kind": "s3",
                "target-bucket": "b",
                "target-access-key": "s3cret",
                "target-secret-key": "s3cret",
            },
        },
        "nats": {
            "address": "nats://user:s3cr@et@host:4222,tls://s3cret@other,plain:4222",
            "username": "user",
            "password": "s3cret",
            "token": "s3cret",
        },
    }
    printed = dump_config(load(SMALL | secrets))
    assert "s3cr" not in json.dumps(printed)
    assert printed["nats"]["address"] == "nats://user:***@host:4222,tls://***@other,plain:4222"
    assert printed["nats"]["password"] == "***"
    assert load(printed).nats.username == "user"
    (problem,) = problems(SMALL | {"nats": {"password": ["s3cret"]}})
    assert problem == 'nats.password: not a string (got "***", wanted a string)'
    (problem,) = problems(SMALL | {"nats": {"address": "http://s3cret@host"}})
    assert "s3cret" not in problem


def test_a_config_without_arguments_is_the_one_without_a_file():
    """Config() can be used by tests and by the demonstration."""
    loaded = load_config(environ={})
    assert (Config().main, Config().metric_store, Config().nats) == (
        loaded.main,
        loaded.metric_store,
        loaded.nats,
    )


@pytest.mark.parametrize("name", ["", "m" * 256, "\u00e4" * 128, "a\nb", "a\0b"], ids=ascii)
def test_names_that_no_metric_may_have(name):
    """A name has to fit into the files of the log, and be fit to be read."""
    document = {**SMALL, "metrics": {name: {"frequency": 60, "aggregation": None}}}
    (problem,) = problems(document)
    assert problem == f"metrics.{name[:20]!a}: not a name for a metric (wanted 1 to 255 printable bytes)"


@pytest.mark.parametrize("name", ["m" * 255, "\u00e4" * 127, "a b"], ids=ascii)
def test_names_that_a_metric_may_have(name):
    """Everything else is a name, also one with a space, which a line can hold behind a backslash."""
    assert list(load({**SMALL, "metrics": {name: {"frequency": 60, "aggregation": None}}}).metrics) == [name]
