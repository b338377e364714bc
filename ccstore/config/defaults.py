"""The metrics that are known when no configuration names any.

This module owns one table: the metrics that collectors in the style of ClusterCockpit usually
send, every 60 s, under the names that sites usually give them. It is for first steps, for the
demonstration and for tests of the whole; a site lists its own metrics, because a metric that is
not listed is not stored. Invariant: rates and amounts are summed over the parts of a host, ratios,
frequencies and temperatures are averaged.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ccstore.model import Aggregation, Metric

__all__ = ["DEFAULT_FREQUENCY", "DEFAULT_METRICS"]

DEFAULT_FREQUENCY = 60
"""Seconds."""

_SUM: Mapping[str, tuple[str, ...]] = {
    "GF/s": ("flops_any", "flops_dp", "flops_sp"),
    "GB/s": ("mem_bw",),
    "GB": ("mem_used", "mem_cached", "mem_free", "disk_free", "acc_mem_used"),
    "W": ("cpu_power", "core_power", "mem_power", "acc_power", "node_total_power"),
    "B/s": (
        "net_bytes_in",
        "net_bytes_out",
        "ib_recv",
        "ib_xmit",
        "lustre_read_bw",
        "lustre_write_bw",
        "nfsio_nread",
        "nfsio_nwrite",
    ),
    "packets/s": ("net_pkts_in", "net_pkts_out", "ib_recv_pkts", "ib_xmit_pkts"),
    "operations": (
        "lustre_open",
        "lustre_close",
        "lustre_statfs",
        "nfs4_read",
        "nfs4_write",
        "nfs4_total",
        "io_reads",
        "io_writes",
    ),
}
_AVG: Mapping[str, tuple[str, ...]] = {
    "": ("cpu_load", "ipc"),
    "%": (
        "cpu_user",
        "cpu_system",
        "cpu_idle",
        "cpu_iowait",
        "cpu_irq",
        "vectorization_ratio",
        "acc_utilization",
        "acc_mem_util",
    ),
    "MHz": ("clock", "acc_clock"),
    "degC": ("temp", "acc_temp"),
}

DEFAULT_METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        name: Metric(name, DEFAULT_FREQUENCY, aggregation, unit)
        for aggregation, table in ((Aggregation.SUM, _SUM), (Aggregation.AVG, _AVG))
        for unit, names in table.items()
        for name in names
    }
)
"""By name; read only."""
