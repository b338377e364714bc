"""What holds between keys: contradictions, warnings, and notes for going back to the reference store."""

import base64
import json

import pytest

from ccstore.config import load_config
from ccstore.config.rules import TEST_KEY
from ccstore.errors import ConfigError

KEY = base64.b64encode(bytes(range(32))).decode()
LOOPBACK = {"addr": "127.0.0.1:8082"}
METRICS = {"m": {"frequency": 60, "aggregation": "sum"}}


def load(tmp_path, main=LOOPBACK, store=(), nats=None, environ=(), **rest):
    """Load a configuration made of its sections."""
    store = {"retention-in-memory": "48h", "memory-cap": 10} | dict(store)
    document = {"main": main, "metrics": METRICS, "metric-store": store, **rest}
    if nats is not None:
        document["nats"] = nats
    (tmp_path / "config.json").write_text(json.dumps(document))
    return load_config(str(tmp_path / "config.json"), environ=dict(environ))


def problem(tmp_path, **options):
    """Return the only mistake."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **options)
    (only,) = caught.value.problems
    return only


@pytest.mark.parametrize("addr", ["0.0.0.0:8082", ":8082", "[::]:8082", "10.1.2.3:80", "login1:8082"])
def test_without_a_key_other_machines_must_not_reach_the_server(tmp_path, addr):
    """No key and an address that is not loopback: no start, unless authentication is switched off."""
    assert problem(tmp_path, main={"addr": addr}).startswith(
        f"main.jwt-public-key: missing, while other machines can reach {addr!r} (wanted a key, "
    )
    assert load(tmp_path, main={"addr": addr, "jwt-public-key": KEY}).main.addr == addr
    assert load(tmp_path, main={"addr": addr, "disable-authentication": True}).main.addr == addr
    assert load(tmp_path, main={"addr": addr}, environ={"JWT_PUBLIC_KEY": KEY}).main.addr == addr


def test_the_documented_default_address_needs_a_key(tmp_path):
    """A file without addr listens on all interfaces, so it needs a key, too."""
    assert problem(tmp_path, main={}).startswith("main.jwt-public-key: missing")
    assert load(tmp_path, main={"jwt-public-key": KEY}).main.addr == "0.0.0.0:8082"


@pytest.mark.parametrize("addr", ["127.0.0.1:8082", "127.9.9.9:1", "[::1]:8082", "localhost:8082"])
def test_loopback_works_without_a_key_but_warns(tmp_path, addr):
    """For first steps; every user of the machine has access, which the warning says."""
    warnings = load(tmp_path, main={"addr": addr}).warnings
    assert f"main.jwt-public-key: missing, so every user of this machine may use {addr}" in warnings


def test_switched_off_authentication_warns(tmp_path):
    """Loudly enough to stand in the log at every start."""
    (warning,) = load(tmp_path, main={"disable-authentication": True}).warnings
    assert warning == "main.disable-authentication: everybody who reaches the server may read, write and free"


def test_the_published_test_key_is_refused_unless_allowed(tmp_path):
    """Anybody can have an administrator's token for it, so it takes a second key to use it."""
    published = {"addr": "127.0.0.1:1", "jwt-public-key": base64.b64encode(TEST_KEY).decode()}
    assert problem(tmp_path, main=published).startswith("main.jwt-public-key: the published test key")
    assert problem(
        tmp_path, main={"addr": "127.0.0.1:1"}, environ={"JWT_PUBLIC_KEY": published["jwt-public-key"]}
    )
    assert load(tmp_path, main=published | {"disable-authentication": True}).main.jwt_public_key == TEST_KEY
    config = load(tmp_path, main=published | {"allow-test-key": True})
    assert config.main.jwt_public_key == TEST_KEY
    assert config.warnings == (
        "main.jwt-public-key: the published test key; anybody has an administrator's token for it",
    )


def test_certificate_and_key_belong_together(tmp_path):
    """One of the two alone would silently mean no TLS."""
    assert problem(tmp_path, main=LOOPBACK | {"https-cert-file": "c"}) == (
        "main.https-key-file: missing (wanted beside main.https-cert-file)"
    )
    assert problem(tmp_path, main=LOOPBACK | {"https-key-file": "k"}) == (
        "main.https-cert-file: missing (wanted beside main.https-key-file)"
    )
    assert problem(tmp_path, nats={"tls": {"key-file": "k"}}) == (
        "nats.tls.cert-file: missing (wanted beside nats.tls.key-file)"
    )


def test_checkpoints_must_not_be_rarer_than_the_retention(tmp_path):
    """Samples would leave memory before they are saved."""
    assert problem(tmp_path, store={"retention-in-memory": "1h", "checkpoint-interval": "61m"}) == (
        "metric-store.checkpoint-interval: longer than retention-in-memory, so that samples would go unsaved "
        "(got 1h1m, wanted at most 1h)"
    )
    same = load(tmp_path, store={"retention-in-memory": "1h", "checkpoint-interval": "1h"})
    assert same.metric_store.checkpoint_interval == 3600.0
    endless = load(tmp_path, store={"retention-in-memory": "0", "checkpoint-interval": "24h"})
    assert endless.metric_store.checkpoint_interval == 86400.0


@pytest.mark.parametrize(
    ("cleanup", "accepted"),
    [
        (None, True),
        ({"mode": "delete"}, True),
        ({"mode": "archive", "directory": "d"}, True),
        ({"directory": "d"}, True),
        ({"mode": "archive"}, False),
        ({}, False),
    ],
)
def test_cleanup_names_a_directory_unless_it_deletes(tmp_path, cleanup, accepted):
    """An object without mode must name one, too; null is the same as no object."""
    if accepted:
        assert load(tmp_path, store={"cleanup": cleanup}).metric_store.cleanup.mode in ("delete", "archive")
    else:
        assert problem(tmp_path, store={"cleanup": cleanup}) == (
            'metric-store.cleanup.directory: missing (wanted unless metric-store.cleanup.mode is "delete")'
        )


def test_moving_node_states_needs_a_target(tmp_path):
    """A path for files, a bucket for S3, nothing for deleting."""
    path = "main.nodestate-retention"
    for kind, key in (("file", "target-path"), ("s3", "target-bucket")):
        retention = {"policy": "move", "target-kind": kind}
        assert problem(tmp_path, main=LOOPBACK | {"nodestate-retention": retention}) == (
            f'{path}.{key}: missing (wanted with policy "move" and target-kind "{kind}")'
        )
        whole = load(tmp_path, main=LOOPBACK | {"nodestate-retention": retention | {key: "x"}})
        assert whole.main.nodestate_retention.target_kind == kind
        assert any("so node states stay" in warning for warning in whole.warnings)
    deleting = {"policy": "delete", "target-kind": "s3"}
    assert load(tmp_path, main=LOOPBACK | {"nodestate-retention": deleting}).main.nodestate_retention


def test_two_nkeys_contradict_each_other(tmp_path):
    """A credentials file holds a seed, so a second seed leaves open which one signs."""
    assert problem(tmp_path, nats={"nkey-seed-file": "n", "creds-file-path": "c"}).startswith(
        "nats.nkey-seed-file: stands beside nats.creds-file-path"
    )


def test_a_broken_key_brings_up_no_second_complaint(tmp_path):
    """Rules between keys are not applied to a key that is wrong by itself."""
    assert problem(tmp_path, main={"addr": 5}).startswith("main.addr: not a string")
    assert problem(tmp_path, main={"addr": ":1", "jwt-public-key": "x"}).startswith(
        "main.jwt-public-key: not base64"
    )
    assert problem(tmp_path, store={"retention-in-memory": "1h", "checkpoint-interval": "2d"}).startswith(
        "metric-store.checkpoint-interval: unknown unit"
    )
    assert problem(tmp_path, store={"cleanup": {"mode": "zip"}}).startswith(
        "metric-store.cleanup.mode: unknown"
    )


def nats_warnings(tmp_path, subscriptions, nats=None, main=LOOPBACK):
    """Return the warnings about NATS for a list of (subject, tag)."""
    entries = [{"subscribe-to": subject, "cluster-tag": tag} for subject, tag in subscriptions]
    nats = {"address": "nats://h"} if nats is None else nats
    config = load(tmp_path, main=main, store={"nats-subscriptions": entries}, nats=nats)
    return [warning for warning in config.warnings if "nats" in warning]


def test_one_subject_with_several_cluster_tags_warns(tmp_path):
    """Lines without a cluster are ambiguous: the first tag counts."""
    (warning,) = nats_warnings(tmp_path, [("hpc-nats", "a"), ("hpc-nats", "b"), ("hpc-nats", "b")])
    assert warning == (
        "metric-store.nats-subscriptions: 'hpc-nats' with the cluster tags 'a', 'b'; "
        "lines without a cluster get the first"
    )
    assert nats_warnings(tmp_path, [("hpc-nats", "a"), ("hpc-nats", "a")]) == []


@pytest.mark.parametrize(
    ("pattern", "subject", "covers"),
    [
        ("hpc.>", "hpc.a", True),
        ("hpc.>", "hpc.a.b", True),
        ("hpc.>", "hpc", False),
        ("hpc.*", "hpc.a", True),
        ("hpc.*", "hpc.a.b", False),
        ("hpc.*", "hpc.>", False),
        (">", "hpc.>", True),
        ("hpc.*", "hpc.*.a", False),
        ("hpc.a", "hpc.b", False),
        ("hpc.a.b", "hpc.a", False),
    ],
)
def test_a_subject_that_covers_another_warns(tmp_path, pattern, subject, covers):
    """Messages that two subscriptions match arrive twice."""
    expected = f"metric-store.nats-subscriptions: {pattern!r} covers {subject!r}; such messages arrive twice"
    warnings = nats_warnings(tmp_path, [(pattern, ""), (subject, "")])
    assert (expected in warnings) == covers


def test_halves_of_a_nats_set_up_warn(tmp_path):
    """Subjects without a broker, a broker without subjects, a user without a password."""
    assert nats_warnings(tmp_path, [("a", "")], nats={}) == [
        "metric-store.nats-subscriptions: unused, for nats.address is empty"
    ]
    assert nats_warnings(tmp_path, []) == [
        "nats.address: unused, for there is no subject (metric-store.nats-subscriptions)"
    ]
    events = {"api-subjects": {"subject-job-event": "a", "subject-node-state": "b"}}
    assert nats_warnings(tmp_path, [], main=LOOPBACK | events) == []
    assert nats_warnings(tmp_path, [], nats={}, main=LOOPBACK | events) == [
        "main.api-subjects: unused, for nats.address is empty"
    ]
    assert nats_warnings(tmp_path, [("a", "")], nats={"address": "nats://h", "username": "u"}) == [
        "nats.username: used only together with nats.password"
    ]


def test_a_file_of_the_reference_store_has_no_notes(tmp_path):
    """What both programs take alike is passed over in silence."""
    store = {"checkpoints": {"file-format": "wal"}, "nats-subscriptions": [{"subscribe-to": "a"}]}
    config = load(
        tmp_path, main=LOOPBACK | {"jwt-public-key": KEY}, store=store, nats={"address": "nats://h"}
    )
    assert config.notes == ()
    assert config.warnings == ()


def test_notes_name_every_key_the_reference_would_refuse(tmp_path):
    """Our keys, the backend program's keys, and the objects that are ours as a whole, once each."""
    main = LOOPBACK | {"jwt-roles": "check", "db": "x", "validate": True}
    store = {"checkpoints": {"file-format": "json"}, "wal": {"ack": "disk"}}
    assert load(tmp_path, main=main, store=store, nats={"queue-group": "q"}).notes == (
        "main.validate: known to the backend program of the reference, but its store refuses to start",
        "main.db: known to the backend program of the reference, but its store refuses to start",
        "main.jwt-roles: unknown to the reference, which refuses to start",
        "metric-store.wal: unknown to the reference, which refuses to start",
        "nats.queue-group: unknown to the reference, which logs an error",
    )


def test_notes_name_what_the_reference_takes_differently(tmp_path):
    """No address, no metrics, no cap, our file format and an included store section."""
    (tmp_path / "store.json").write_text('{"retention-in-memory": "1h", "memory-cap": 0}')
    document = {"main": {"jwt-public-key": KEY}, "metric-store-file": str(tmp_path / "store.json")}
    (tmp_path / "config.json").write_text(json.dumps(document))
    notes = load_config(str(tmp_path / "config.json"), environ={}).notes
    assert [note.split(":")[0] for note in notes] == [
        "metric-store-file",
        "main.addr",
        "metrics",
        "metric-store.memory-cap",
        "metric-store.checkpoints.file-format",
    ]
