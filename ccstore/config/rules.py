"""What must, should and could hold between keys that are each fine alone.

This module owns three lists over a typed `Config`: the contradictions that stop a start, the
warnings an operator should read at a start, and the notes of what the reference store would
refuse or take differently, for going back with the same file. It reads nothing and changes
nothing. Invariant: a rule names every key it looks at, so that a key that is broken by itself
does not bring up a second complaint.
"""

import base64
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from attrs import frozen

from ccstore.config.durations import format_duration
from ccstore.config.keys import Origin, is_loopback
from ccstore.config.sections import Config, MainConfig, MetricStoreConfig, NatsConfig

__all__ = ["Contradiction", "find_contradictions", "find_notes", "find_warnings"]

_NAMES_SHOWN = 10

TEST_KEY = base64.b64decode("kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0=")
"""A public key that comes with widespread examples; so does a token of an administrator for it."""


@frozen
class Contradiction:
    """Keys that cannot hold together."""

    keys: tuple[str, ...]
    """All keys that were looked at; the first one is where the message points."""
    what: str

    def __str__(self) -> str:
        return f"{self.keys[0]}: {self.what}"


def find_contradictions(config: Config, given: Collection[str]) -> Iterator[Contradiction]:
    """Yield every contradiction in `config`, of which the keys in `given` stand in the file."""
    main, tls = config.main, config.nats.tls
    https = {"main.https-cert-file": main.https_cert_file, "main.https-key-file": main.https_key_file}
    yield from _together(https)
    yield from _authentication(main)
    yield from _nodestate_retention(main)
    yield from _metric_store(config.metric_store, given)
    yield from _together({"nats.tls.cert-file": tls.cert_file, "nats.tls.key-file": tls.key_file})
    if config.nats.creds_file_path and config.nats.nkey_seed_file:
        yield Contradiction(
            ("nats.nkey-seed-file", "nats.creds-file-path"),
            "stands beside nats.creds-file-path (got both, wanted one, for both hold a key)",
        )


def _together(pair: Mapping[str, str]) -> Iterator[Contradiction]:
    """Yield a contradiction if one of the two keys has a value and the other has none."""
    for missing, present in itertools.permutations(pair, 2):
        if pair[present] and not pair[missing]:
            yield Contradiction((missing, present), f"missing (wanted beside {present})")


def _authentication(main: MainConfig) -> Iterator[Contradiction]:
    if not main.jwt_public_key and not main.disable_authentication and not is_loopback(main.addr):
        yield Contradiction(
            ("main.jwt-public-key", "main.addr", "main.disable-authentication"),
            f"missing, while other machines can reach {main.addr!r} (wanted a key, "
            "an address such as 127.0.0.1:8082, or main.disable-authentication true)",
        )
    if main.jwt_public_key == TEST_KEY and not main.allow_test_key and not main.disable_authentication:
        yield Contradiction(
            ("main.jwt-public-key", "main.allow-test-key", "main.disable-authentication"),
            "the published test key, for which anybody has an administrator's token "
            "(wanted a key of your own, or main.allow-test-key true)",
        )


def _nodestate_retention(main: MainConfig) -> Iterator[Contradiction]:
    retention = main.nodestate_retention
    if retention is None or retention.policy != "move":
        return
    path = "main.nodestate-retention"
    wanted = {
        "file": ("target-path", retention.target_path),
        "s3": ("target-bucket", retention.target_bucket),
    }
    name, value = wanted[retention.target_kind]
    if not value:
        yield Contradiction(
            (f"{path}.{name}", f"{path}.policy", f"{path}.target-kind"),
            f'missing (wanted with policy "move" and target-kind "{retention.target_kind}")',
        )


def _metric_store(store: MetricStoreConfig, given: Collection[str]) -> Iterator[Contradiction]:
    if 0 < store.retention_in_memory < store.checkpoint_interval:
        yield Contradiction(
            ("metric-store.checkpoint-interval", "metric-store.retention-in-memory"),
            "longer than retention-in-memory, so that samples would go unsaved "
            f"(got {format_duration(store.checkpoint_interval)}, "
            f"wanted at most {format_duration(store.retention_in_memory)})",
        )
    must_name_directory = store.cleanup.mode == "archive" or (
        "metric-store.cleanup" in given and "metric-store.cleanup.mode" not in given
    )
    if must_name_directory and not store.cleanup.directory:
        yield Contradiction(
            ("metric-store.cleanup.directory", "metric-store.cleanup.mode"),
            'missing (wanted unless metric-store.cleanup.mode is "delete")',
        )


def find_warnings(config: Config) -> Iterator[str]:
    """Yield what an operator should know of a configuration that can be used."""
    main = config.main
    if main.disable_authentication:
        yield "main.disable-authentication: everybody who reaches the server may read, write and free"
    elif not main.jwt_public_key:
        yield f"main.jwt-public-key: missing, so every user of this machine may use {main.addr}"
    elif main.jwt_public_key == TEST_KEY:
        yield "main.jwt-public-key: the published test key; anybody has an administrator's token for it"
    if bool(config.nats.username) != bool(config.nats.password):
        yield "nats.username: used only together with nats.password"
    if main.nodestate_retention is not None and main.nodestate_retention.policy == "move":
        yield 'main.nodestate-retention.policy: "move" is for a later version, so node states stay'
    yield from _nats_warnings(config.nats, config.metric_store, main)
    if not config.metrics_derived:
        yield from _metric_warnings(config)


def _metric_warnings(config: Config) -> Iterator[str]:
    """Yield where the files of clusters disagree with section metrics, which is used alone."""
    for cluster in config.clusters.values():
        unknown = [name for name in cluster.metrics if name not in config.metrics]
        other = [
            f"{name} (every {metric.frequency} s, not {config.metrics[name].frequency} s)"
            for name, metric in cluster.metrics.items()
            if name in config.metrics and metric.frequency != config.metrics[name].frequency
        ]
        if unknown:
            yield f"metrics: cluster {cluster.name!r} has others, which are not stored: {_some(unknown)}"
        if other:
            yield f"metrics: cluster {cluster.name!r} has other steps, which do not count: {_some(other)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _nats_warnings(nats: NatsConfig, store: MetricStoreConfig, main: MainConfig) -> Iterator[str]:
    subscriptions = store.nats_subscriptions
    if subscriptions and not nats.address:
        yield "metric-store.nats-subscriptions: unused, for nats.address is empty"
    if main.api_subjects is not None and not nats.address:
        yield "main.api-subjects: unused, for nats.address is empty"
    if nats.address and not subscriptions and main.api_subjects is None:
        yield "nats.address: unused, for there is no subject (metric-store.nats-subscriptions)"
    tags: dict[str, list[str]] = {}
    for subscription in subscriptions:
        tags.setdefault(subscription.subscribe_to, []).append(subscription.cluster_tag)
    for subject, names in tags.items():
        if len(set(names)) > 1:
            yield (
                f"metric-store.nats-subscriptions: {subject!r} with the cluster tags "
                f"{', '.join(map(repr, dict.fromkeys(names)))}; lines without a cluster get the first"
            )
    for one, other in itertools.permutations(tags, 2):
        if _covers(one, other):
            yield f"metric-store.nats-subscriptions: {one!r} covers {other!r}; such messages arrive twice"


def _covers(pattern: str, subject: str) -> bool:
    """Return whether every message that `subject` matches is matched by `pattern`, too."""
    theirs = subject.split(".")
    for position, ours in enumerate(pattern.split(".")):
        if ours == ">":
            return position < len(theirs)
        if position >= len(theirs) or theirs[position] == ">" or ours not in ("*", theirs[position]):
            return False
    return len(pattern.split(".")) == len(theirs)


def find_notes(config: Config, given: Collection[str], foreign: Mapping[str, Origin]) -> Iterator[str]:
    """Yield what the reference store would refuse in this file, or take differently.

    `foreign` has the paths that stand in the file and are unknown to the reference store.
    """
    for path, origin in foreign.items():
        if path.startswith(("archive.", "cron.")):
            continue  # a section that its store does not look at
        if origin == "backend":
            yield f"{path}: known to the backend program of the reference, but its store refuses to start"
        elif path.startswith("nats."):
            yield f"{path}: unknown to the reference, which logs an error"
        else:
            yield f"{path}: unknown to the reference, which refuses to start"
    if "metric-store-file" in given:
        yield "metric-store-file: the reference takes it for an unknown section and refuses to start"
    if "main.addr" not in given:
        yield "main.addr: without it the reference listens on a random port of all interfaces"
    if "metrics" not in given:
        yield "metrics: without it the reference refuses to start"
    if config.metric_store.memory_cap_bytes == 0:
        yield "metric-store.memory-cap: with 0 the reference frees most of its data at every check"
    if config.metric_store.checkpoints.file_format == "columnar":
        yield (
            "metric-store.checkpoints.file-format: the reference reads no columnar files "
            '(wanted "wal" or "json" for going back)'
        )
