"""The configuration: from a file to one frozen `Config`, or to every mistake in it at once.

This package owns the keys an operator can set, their checks, their defaults and their way back
to text. It opens the configuration file and nothing else, starts nothing, and is imported by
server and cli alone: the rooms below get plain values. Invariant: a `Config` that `load_config`
returns is complete, in house units and free of contradictions, so nobody checks it again.
"""

from ccstore.config.clusters import Cluster, Clusters, Subcluster, Topology
from ccstore.config.defaults import DEFAULT_METRICS
from ccstore.config.dump import dump_config
from ccstore.config.durations import format_duration, parse_duration
from ccstore.config.keys import is_loopback, split_address
from ccstore.config.load import load_config
from ccstore.config.schema import make_schema
from ccstore.config.sections import (
    ApiSubjects,
    ArchiveConfig,
    CheckpointsConfig,
    CleanupConfig,
    Config,
    CronConfig,
    DbConfig,
    DebugConfig,
    LimitsConfig,
    MainConfig,
    MetricStoreConfig,
    NatsConfig,
    NatsSubscription,
    NatsTlsConfig,
    NodestateRetention,
    Resampling,
    WalConfig,
)

__all__ = [
    "DEFAULT_METRICS",
    "ApiSubjects",
    "ArchiveConfig",
    "CheckpointsConfig",
    "CleanupConfig",
    "Cluster",
    "Clusters",
    "Config",
    "CronConfig",
    "DbConfig",
    "DebugConfig",
    "LimitsConfig",
    "MainConfig",
    "MetricStoreConfig",
    "NatsConfig",
    "NatsSubscription",
    "NatsTlsConfig",
    "NodestateRetention",
    "Resampling",
    "Subcluster",
    "Topology",
    "WalConfig",
    "dump_config",
    "format_duration",
    "is_loopback",
    "load_config",
    "make_schema",
    "parse_duration",
    "split_address",
]
