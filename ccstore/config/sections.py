"""The sections of the configuration as frozen values, one class for each object of the file.

This module owns which keys exist, their defaults and the kinds of their values; it reads no file
and checks no key against another (`load` and `rules` do). Invariant: every value is in house
units, durations in float seconds and sizes in bytes, and every class can be made without an
argument, which gives the documented defaults.

A field's key in the file is its name in kebab-case unless the declaration names another, as for
sizes, whose unit is part of our name but not of the file's.
"""

# ruff: noqa: RUF009 - `section` declares an attrs field, as `attrs.field` does; nothing is shared
from collections.abc import Mapping

import attrs
from attrs import frozen

from ccstore.config.clusters import Clusters
from ccstore.config.defaults import DEFAULT_METRICS
from ccstore.config.durations import HOURS
from ccstore.config.keys import (
    ADDRESS,
    AGGREGATION,
    BOOLEAN,
    CLIENT_ADDRESS,
    CLUSTER,
    DURATION,
    ED25519_KEY,
    HTTP_URL,
    NATS_SERVERS,
    PATH,
    POSITIVE_DURATION,
    SUBJECT,
    TEXT,
    ListOf,
    Section,
    choice,
    hide,
    hide_userinfo,
    integer,
    key,
    positive_or,
    section,
)
from ccstore.model import Metric

__all__ = [
    "ApiSubjects",
    "ArchiveConfig",
    "CheckpointsConfig",
    "CleanupConfig",
    "Config",
    "CronConfig",
    "DbConfig",
    "DebugConfig",
    "LimitsConfig",
    "MainConfig",
    "MetricEntry",
    "MetricStoreConfig",
    "NatsConfig",
    "NatsSubscription",
    "NatsTlsConfig",
    "NodestateRetention",
    "Resampling",
    "WalConfig",
]

GB = 10**9
KIB = 1024
MIB = 1024**2
LOOPBACK_ADDRESS = "127.0.0.1:8082"


@frozen
class DebugConfig:
    """Accepted because the reference accepts it; nothing depends on it."""

    dump_to_file: str = key("", TEXT)
    gops: bool = key(False, BOOLEAN)


@frozen
class ApiSubjects:
    """Subjects of job and node events."""

    subject_job_event: str = key("", SUBJECT, required=True)
    subject_node_state: str = key("", SUBJECT, required=True)
    job_concurrency: int = key(8, positive_or(8))
    node_concurrency: int = key(2, positive_or(2))
    early_stop_wait: float = key(60.0, DURATION, origin="ccstore")
    """Seconds that the stop of an unknown job is kept, for its start may still come."""


@frozen
class NodestateRetention:
    """What becomes of old node states."""

    policy: str = key("delete", choice("delete", "move"), required=True)
    age: float = key(24 * HOURS, positive_or(24, unit="hours", scale=3600))
    """Seconds; the file counts in hours."""
    target_kind: str = key("file", choice("file", "s3"))
    target_path: str = key("", TEXT)
    target_endpoint: str = key("", TEXT)
    target_bucket: str = key("", TEXT)
    target_access_key: str = key("", TEXT, mask=hide)
    target_secret_key: str = key("", TEXT, mask=hide)
    target_region: str = key("us-east-1", TEXT)
    target_use_path_style: bool = key(False, BOOLEAN)
    max_file_size_bytes: int = key(
        128 * MIB, positive_or(128, unit="megabytes", scale=MIB), name="max-file-size-mb"
    )


@frozen
class Resampling:
    """How answers are thinned out."""

    minimum_points: int = key(1000, positive_or(1000))
    """Series of fewer values are never resampled."""
    trigger: int = key(0, integer(0))
    """For the web interface of the backend program; unused here."""
    resolutions: tuple[int, ...] = key((), ListOf(integer(1, unit="seconds")))
    """Seconds; for the web interface of the backend program, unused here."""


@frozen
class DbConfig:
    """Tuning of the SQLite database."""

    cache_size_bytes: int = key(2048 * MIB, integer(0, unit="megabytes", scale=MIB), name="cache-size-mb")
    soft_heap_limit_bytes: int = key(
        16384 * MIB, integer(0, unit="megabytes", scale=MIB), name="soft-heap-limit-mb"
    )
    max_open_connections: int = key(4, integer(1))
    max_idle_connections: int = key(4, integer(0))
    max_idle_time: float = key(600.0, integer(0, unit="minutes", scale=60), name="max-idle-time-minutes")
    """Seconds."""
    busy_timeout_ms: int = key(60_000, integer(0, unit="milliseconds"))


@frozen
class MainConfig:
    """The server: where it listens, whom it lets in, what it leans on."""

    addr: str = key("0.0.0.0:8082", ADDRESS)
    """``host:port``; see `ccstore.config.split_address`."""
    https_cert_file: str = key("", TEXT)
    https_key_file: str = key("", TEXT)
    user: str = key("", TEXT)
    group: str = key("", TEXT)
    jwt_public_key: bytes = key(b"", ED25519_KEY)
    """32 bytes, or none: no authentication."""
    backend_url: str = key("", HTTP_URL)
    """Where to ask for the hosts in use; "" = nobody."""
    debug: DebugConfig | None = section(DebugConfig, optional=True)
    db: str = key("./var/job.db", PATH, origin="backend")
    api_allowed_ips: tuple[str, ...] = key((), ListOf(CLIENT_ADDRESS), origin="backend")
    """Empty or starting with ``*``: any client."""
    disable_authentication: bool = key(False, BOOLEAN, origin="backend")
    api_subjects: ApiSubjects | None = section(ApiSubjects, optional=True, origin="backend")
    nodestate_retention: NodestateRetention | None = section(
        NodestateRetention, optional=True, origin="backend"
    )
    stop_jobs_exceeding_walltime: int = key(0, integer(0, unit="seconds"), origin="backend")
    """Seconds beyond the walltime; 0 = never."""
    resampling: Resampling | None = section(Resampling, optional=True, origin="backend")
    db_config: DbConfig = section(DbConfig, origin="backend")
    backend_token: str = key("", TEXT, origin="ccstore", mask=hide)
    """Bearer token shown to `backend_url`."""
    jwt_roles: str = key("check", choice("check", "ignore"), origin="ccstore")
    allow_test_key: bool = key(False, BOOLEAN, origin="ccstore")
    """Whether the key whose private half is published may be used."""
    strict_reference: bool = key(False, BOOLEAN, origin="ccstore")
    """Whether aggregates cover only the range common to all components."""
    shutdown_grace: float = key(30.0, POSITIVE_DURATION, origin="ccstore")
    """Seconds between a stop request and insisting on it."""
    max_query_selectors: int = key(1_000_000, integer(0), origin="ccstore")
    """Selectors in one request, all nodes counted; 0 = no limit."""


@frozen
class MetricEntry:
    """One metric as the file has it; `Config.metrics` has it as a `Metric`."""

    frequency: int = key(60, integer(1, unit="seconds"), required=True)
    aggregation: str = key("", AGGREGATION, required=True)
    unit: str = key("", TEXT, origin="ccstore")


@frozen
class CheckpointsConfig:
    """Where and how checkpoints are written."""

    file_format: str = key("columnar", choice("columnar", "wal", "json"))
    directory: str = key("./var/checkpoints", PATH)
    max_wal_size_bytes: int = key(0, integer(0, unit="bytes"), name="max-wal-size")
    """A host; 0 = no limit. For the format ``wal``."""


@frozen
class CleanupConfig:
    """What becomes of checkpoints past the retention."""

    mode: str = key("delete", choice("delete", "archive"))
    directory: str = key("", TEXT)


@frozen
class NatsSubscription:
    """A subject with metrics."""

    subscribe_to: str = key("", SUBJECT, required=True)
    cluster_tag: str = key("", CLUSTER)
    """The cluster of lines that name none; "" = such lines are bad."""


@frozen
class LimitsConfig:
    """What one sender can cost everybody else."""

    max_body_size_bytes: int = key(256 * MIB, integer(1, unit="bytes"), name="max-body-size")
    max_line_length_bytes: int = key(128 * KIB, integer(KIB, unit="bytes"), name="max-line-length")
    new_series_per_second: int = key(1_000_000, integer(0))
    """0 = no limit."""
    max_series: int = key(10_000_000, integer(0))
    """0 = no limit."""


@frozen
class WalConfig:
    """When a write is acknowledged."""

    ack: str = key("disk", choice("disk", "memory"))
    max_delay: float = key(0.1, POSITIVE_DURATION)
    """Seconds until what nobody waits for is on disk."""


def _checkpoint_interval(store: "MetricStoreConfig") -> float:
    usual = (1 if store.checkpoints.file_format == "columnar" else 12) * HOURS
    return min(usual, store.retention_in_memory) if store.retention_in_memory > 0 else usual


@frozen
class MetricStoreConfig:
    """The store: how long, how much, from where, to which disk."""

    retention_in_memory: float = key(48 * HOURS, DURATION, required=True)
    """Seconds; zero and less: nothing is dropped by age."""
    memory_cap_bytes: int = key(
        0, integer(0, unit="GB (10^9 bytes)", scale=GB), name="memory-cap", required=True
    )
    """0 = no cap."""
    num_workers: int = key(0, integer())
    """Accepted for the reference store's sake."""
    checkpoints: CheckpointsConfig = section(CheckpointsConfig)
    checkpoint_interval: float = key(attrs.Factory(_checkpoint_interval, takes_self=True), POSITIVE_DURATION)
    """Seconds; by default 1 h (columnar) or 12 h, but never longer than the retention."""
    cleanup: CleanupConfig = section(CleanupConfig)
    nats_subscriptions: tuple[NatsSubscription, ...] = key((), ListOf(Section(NatsSubscription)))
    debug: DebugConfig | None = section(DebugConfig, optional=True)
    limits: LimitsConfig = section(LimitsConfig, origin="ccstore")
    future_bound: float = key(300.0, POSITIVE_DURATION, origin="ccstore")
    """Seconds, beside two frequencies, that a sample may be ahead of our clock."""
    nats_overflow: str = key("drop", choice("drop", "block"), origin="ccstore")
    nats_buffer_bytes: int = key(256 * MIB, integer(MIB, unit="bytes"), name="nats-buffer", origin="ccstore")
    """What may wait between the broker and the store."""
    wal: WalConfig = section(WalConfig, origin="ccstore")
    shards: int = key(0, integer(0), origin="ccstore")
    """0 = chosen by the server."""


@frozen
class NatsTlsConfig:
    """TLS towards the broker; also switched on by an address with ``tls://``."""

    ca_file: str = key("", TEXT)
    cert_file: str = key("", TEXT)
    key_file: str = key("", TEXT)
    first: bool = key(False, BOOLEAN)
    """Whether TLS starts before the broker's greeting."""


@frozen
class NatsConfig:
    """The broker; without an address there is none."""

    address: str = key("", NATS_SERVERS, mask=hide_userinfo)
    """Comma separated ``nats://`` or ``tls://`` addresses; "" = NATS off."""
    username: str = key("", TEXT)
    password: str = key("", TEXT, mask=hide)
    creds_file_path: str = key("", TEXT)
    token: str = key("", TEXT, origin="ccstore", mask=hide)
    nkey_seed_file: str = key("", TEXT, origin="ccstore")
    queue_group: str = key("", TEXT, origin="ccstore")
    tls: NatsTlsConfig = section(NatsTlsConfig, origin="ccstore")
    connect_timeout: float = key(5.0, POSITIVE_DURATION, origin="ccstore")
    """Seconds."""
    ping_interval: float = key(30.0, POSITIVE_DURATION, origin="ccstore")
    """Seconds."""


@frozen
class ArchiveConfig:
    """Where the clusters are described, and jobs archived."""

    kind: str = key("file", choice("file"), origin="backend")
    path: str = key("./var/job-archive", PATH, origin="backend")


@frozen
class CronConfig:
    """How often the database is looked after."""

    commit_job_worker: float = key(120.0, POSITIVE_DURATION, origin="backend")
    """Seconds."""
    duration_worker: float = key(300.0, POSITIVE_DURATION, origin="backend")
    """Seconds."""


@frozen
class Config:
    """Everything an operator can set; without an argument, what holds when there is no file."""

    main: MainConfig = attrs.Factory(lambda: MainConfig(addr=LOOPBACK_ADDRESS))
    metrics: Mapping[str, Metric] = attrs.field(default=DEFAULT_METRICS)
    """By name, in the order of the file."""
    own_metrics: Mapping[str, tuple[Metric, ...]] = attrs.Factory(dict)
    """By cluster: what its file defines otherwise than `metrics` does. Empty unless they are derived."""
    metrics_derived: bool = False
    """Whether the metrics are those of the cluster files."""
    metric_store: MetricStoreConfig = attrs.Factory(MetricStoreConfig)
    nats: NatsConfig = attrs.Factory(NatsConfig)
    archive: ArchiveConfig = attrs.Factory(ArchiveConfig)
    cron: CronConfig = attrs.Factory(CronConfig)
    clusters: Clusters = attrs.Factory(Clusters)
    """From the files in the archive's directory; empty if there are none."""
    path: str | None = None
    """The file, or None if there was none."""
    warnings: tuple[str, ...] = ()
    """What an operator should read at the start."""
    notes: tuple[str, ...] = ()
    """What the reference store would refuse in this file, or take differently."""

    def metrics_of(self, cluster: str) -> Mapping[str, Metric]:
        """Return the metrics by name as they are in a cluster."""
        return {**self.metrics, **{metric.name: metric for metric in self.own_metrics.get(cluster, ())}}
