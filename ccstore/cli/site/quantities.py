"""How each metric of a host comes about: one formula a metric, over hardware and load.

Owns the table. Knows neither time, nor noise, nor how a host's samples are ordered. Invariants: with
any load, no formula exceeds what the hardware can do; the shares of the processors' time make 100 %,
and those of the memory all of it.

A metric of a part is ``(idle + extra * activity) * (1 - jitter * noise)``, divided by the number of
parts if the parts add up. Idle and extra are figures of the whole host, so a metric can be moved to
larger or smaller parts without another formula; and noise only takes away, so a peak is a peak.
"""

from collections.abc import Callable

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.cli.site.hardware import NodeType, Scope

__all__ = ["QUANTITIES", "Formula", "Load", "Quantity"]

Floats = NDArray[np.float64]

_FILES = 0.2
"""Part of the interconnect that the parallel file system can take; the rest is for messages."""
_PACKET = 2048
"""Bytes on the interconnect."""


@frozen
class Load:
    """What a group of hosts has to do at one moment; float64[hosts] each, see `applications.Demand`."""

    threads: Floats
    flops: Floats
    single: Floats
    bandwidth: Floats
    network: Floats
    read: Floats
    write: Floats
    wait: Floats
    memory: Floats
    accelerators: Floats
    imbalance: Floats
    warmth: Floats
    """From 0 for a cold host to 1 for one whose job has run for a while."""


Formula = Callable[[NodeType, Load], Floats] | float


@frozen
class Quantity:
    """How one metric comes about."""

    metric: str
    scope: Scope
    extra: Formula
    """What full activity adds: on the whole host if the parts add up, on each part if they average."""
    idle: Formula = 0.0
    """What there is without any activity."""
    jitter: float = 0.05
    finest: Scope | None = None
    """The smallest part that can tell; None for `scope`."""
    active: bool = False
    """Whether it follows the threads of each part; otherwise all parts have `extra`."""


def _cpu_power(n: NodeType, d: Load) -> Floats:
    return 0.75 * n.sockets * n.socket_power * (0.45 + 0.4 * d.flops + 0.15 * d.bandwidth)


def _idle_cpu_power(n: NodeType, d: Load) -> Floats:
    return np.full_like(d.flops, 0.25 * n.sockets * n.socket_power)


def _accelerator_power(n: NodeType, d: Load) -> Floats:
    return len(n.accelerators) * n.accelerator_power * (0.14 + 0.86 * d.accelerators)


def _accelerator_memory(n: NodeType, d: Load) -> Floats:
    share = np.where(d.accelerators > 0, 0.25 + 0.75 * d.memory, 0.006)
    return len(n.accelerators) * n.accelerator_memory * share


def _accelerator_clock(n: NodeType, d: Load) -> Floats:
    return np.where(d.accelerators > 0, n.accelerator_clock, 210.0)


def _idle_power(n: NodeType, d: Load) -> Floats:
    return 80 + 1.1 * (_idle_cpu_power(n, d) + _accelerator_power(n, d)) + 0.05 * n.memory


def _power(n: NodeType, d: Load) -> Floats:
    return 1.1 * _cpu_power(n, d) + 0.13 * n.memory * d.bandwidth


def _interconnect(n: NodeType) -> float:
    return len(n.fabric) * n.fabric_rate


def _read(n: NodeType, d: Load) -> Floats:
    return _FILES * _interconnect(n) * d.read


def _write(n: NodeType, d: Load) -> Floats:
    return _FILES * _interconnect(n) * d.write


def _received(n: NodeType, d: Load) -> Floats:
    return (1 - _FILES) * _interconnect(n) * d.network + _read(n, d)


def _sent(n: NodeType, d: Load) -> Floats:
    return (1 - _FILES) * _interconnect(n) * d.network + _write(n, d)


def _used_memory(n: NodeType, d: Load) -> Floats:
    return n.memory * (0.03 + 0.97 * d.memory)


def _other_memory(n: NodeType, d: Load) -> Floats:
    return n.memory - _used_memory(n, d)


def _instructions(_n: NodeType, d: Load) -> Floats:
    return 0.2 + 2.6 * d.flops * (1 - d.bandwidth / 2)


def _clock(n: NodeType, d: Load) -> Floats:
    return (n.clock - n.idle_clock) * (1 - 0.15 * d.flops)


def _vectorized(_n: NodeType, d: Load) -> Floats:
    return np.minimum(98.0, 15 + 120 * d.flops)


def _heat(_n: NodeType, d: Load) -> Floats:
    return 45 * d.warmth * (0.5 + 0.3 * d.flops + 0.2 * d.bandwidth)


def _busy(
    metric: str,
    scope: Scope,
    extra: Formula,
    idle: Formula = 0.0,
    *,
    jitter: float = 0.05,
    finest: Scope | None = None,
) -> Quantity:
    """Return a quantity that follows the threads."""
    return Quantity(metric, scope, extra, idle, jitter, finest, active=True)


_NODE, _THREAD, _SOCKET, _ACC = Scope.NODE, Scope.HWTHREAD, Scope.SOCKET, Scope.ACCELERATOR
_FABRIC, _LUSTRE = Scope.FABRIC, Scope.PARALLEL_FILESYSTEM

QUANTITIES = (
    _busy("flops_any", _THREAD, lambda n, d: n.flops * d.flops * (1 + d.single)),
    _busy("flops_dp", _NODE, lambda n, d: n.flops * d.flops * (1 - d.single), finest=_THREAD),
    _busy("flops_sp", _NODE, lambda n, d: 2 * n.flops * d.flops * d.single, finest=_THREAD),
    _busy("ipc", _THREAD, _instructions, 0.35),
    _busy("clock", _THREAD, _clock, lambda n, d: np.full_like(d.flops, n.idle_clock), jitter=0.01),
    _busy("vectorization_ratio", _NODE, _vectorized, finest=_THREAD),
    _busy("cpu_user", _THREAD, lambda _, d: 96 * (1 - d.wait), 0.3, jitter=0.01),
    _busy("cpu_iowait", _NODE, lambda _, d: 96 * d.wait, jitter=0.0, finest=_THREAD),
    _busy("cpu_system", _NODE, 2.0, 0.4, jitter=0.01, finest=_THREAD),
    _busy("cpu_irq", _NODE, 0.4, 0.1, jitter=0.01, finest=_THREAD),
    _busy("cpu_idle", _NODE, -98.4, 99.2, jitter=0.0, finest=_THREAD),
    _busy("cpu_load", _NODE, lambda n, d: np.full_like(d.flops, n.threads - 0.02), 0.02, jitter=0.02),
    _busy(
        "mem_bw",
        Scope.MEMORY_DOMAIN,
        lambda n, d: 0.999 * n.bandwidth * d.bandwidth,
        lambda n, d: np.full_like(d.flops, 0.001 * n.bandwidth),
    ),
    _busy(
        "core_power",
        Scope.CORE,
        lambda n, d: 0.6 * _cpu_power(n, d),
        lambda n, d: 0.2 * _idle_cpu_power(n, d),
    ),
    _busy("cpu_power", _SOCKET, _cpu_power, _idle_cpu_power, jitter=0.02),
    _busy(
        "mem_power",
        _SOCKET,
        lambda n, d: 0.12 * n.memory * d.bandwidth,
        lambda n, d: np.full_like(d.flops, 0.04 * n.memory),
        jitter=0.02,
    ),
    _busy("temp", _SOCKET, _heat, 33.0, jitter=0.01),
    _busy("node_total_power", _NODE, _power, _idle_power, jitter=0.01),
    Quantity("acc_utilization", _ACC, lambda _, d: 100 * d.accelerators),
    Quantity("acc_mem_util", _ACC, lambda _, d: 70 * d.accelerators),
    Quantity("acc_mem_used", _ACC, _accelerator_memory, jitter=0.002),
    Quantity("acc_power", _ACC, _accelerator_power),
    Quantity("acc_clock", _ACC, _accelerator_clock, jitter=0.005),
    Quantity("acc_temp", _ACC, lambda _, d: 42 * d.warmth * d.accelerators, 29.0, jitter=0.02),
    Quantity("mem_used", _NODE, _used_memory, jitter=0.0),
    Quantity("mem_cached", _NODE, lambda n, d: 0.2 * _other_memory(n, d), jitter=0.0),
    Quantity("mem_free", _NODE, lambda n, d: 0.8 * _other_memory(n, d), jitter=0.0),
    Quantity("disk_free", Scope.LOCAL_FILESYSTEM, lambda _, d: 1500 - 300 * d.memory, jitter=0.0005),
    Quantity("net_bytes_in", Scope.ETHERNET, lambda _, d: 2e4 + 9e4 * d.threads, jitter=0.5),
    Quantity("net_bytes_out", Scope.ETHERNET, lambda _, d: 1e4 + 1.2e5 * d.threads, jitter=0.5),
    Quantity("net_pkts_in", Scope.ETHERNET, lambda _, d: 90 + 150 * d.threads, jitter=0.5),
    Quantity("net_pkts_out", Scope.ETHERNET, lambda _, d: 80 + 120 * d.threads, jitter=0.5),
    Quantity("ib_recv", _FABRIC, _received, 400.0, jitter=0.1),
    Quantity("ib_xmit", _FABRIC, _sent, 400.0, jitter=0.1),
    Quantity("ib_recv_pkts", _FABRIC, lambda n, d: 8 + _received(n, d) / _PACKET, jitter=0.1),
    Quantity("ib_xmit_pkts", _FABRIC, lambda n, d: 8 + _sent(n, d) / _PACKET, jitter=0.1),
    Quantity("lustre_read_bw", _LUSTRE, _read, jitter=0.3),
    Quantity("lustre_write_bw", _LUSTRE, _write, jitter=0.3),
    Quantity("lustre_open", _LUSTRE, lambda _, d: 60 * (d.read + d.write), jitter=0.5),
    Quantity("lustre_close", _LUSTRE, lambda _, d: 60 * (d.read + d.write), jitter=0.5),
    Quantity("lustre_statfs", _LUSTRE, 4.0, jitter=0.5),
    Quantity("nfsio_nread", Scope.HOME_FILESYSTEM, lambda _, d: 3e3 + 2e6 * d.read, jitter=0.7),
    Quantity("nfsio_nwrite", Scope.HOME_FILESYSTEM, lambda _, d: 2e3 + 8e5 * d.write, jitter=0.7),
    Quantity("nfs4_read", _NODE, lambda _, d: 3 + 40 * d.read, jitter=0.5),
    Quantity("nfs4_write", _NODE, lambda _, d: 2 + 30 * d.write, jitter=0.5),
    Quantity("nfs4_total", _NODE, lambda _, d: 90 + 90 * (d.read + d.write), jitter=0.5),
    Quantity("io_reads", Scope.DISK, lambda _, d: 2 + 60 * d.read, jitter=0.6),
    Quantity("io_writes", Scope.DISK, lambda _, d: 25 + 200 * d.write, jitter=0.6),
)
"""Every metric of the built-in table, but for what a host without accelerators lacks."""
