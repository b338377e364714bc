"""What is measured with: the lines of a site, as its collectors would send them.

2 000 hosts of 72 hardware threads: 26 metrics of the node, 4 of each socket, 6 of each thread,
hence 466 series a host and 932 000 in all, 88 bytes a line on average. Everything follows from a seed.
"""

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ccstore.model import Aggregation, Metric

__all__ = ["THREADS", "Site", "as_buffer", "make_site"]

THREADS = 72
_NODE = (
    "cpu_load", "cpu_user", "cpu_system", "cpu_iowait", "mem_used", "mem_cached", "mem_bw_node",
    "net_bytes_in", "net_bytes_out", "net_pkts_in", "net_pkts_out",
    "ib_recv", "ib_xmit", "ib_recv_pkts", "ib_xmit_pkts",
    "lustre_read_bw", "lustre_write_bw", "lustre_open", "lustre_close", "nfs4_read", "nfs4_write",
    "node_power", "proc_run", "disk_free", "swap_used", "temp",
)  # fmt: skip
_SOCKET: tuple[str, ...] = ("mem_bw", "cpu_power", "mem_power", "cpu_temp")
_THREAD: tuple[str, ...] = ("flops_any", "flops_sp", "flops_dp", "ipc", "clock", "vectorization")
CLUSTER = "fritz"


@frozen
class Site:
    """The keys of all series, and how their values are written."""

    hosts: tuple[str, ...]
    keys: tuple[bytes, ...]
    """Raw bytes of measurement and tags, host by host."""
    hosts_at: tuple[int, ...]
    """Where the keys of each host begin, and the end of the last one's."""
    metrics: tuple[Metric, ...]

    def render(
        self, time: int, *, seed: int = 0, order: NDArray[np.int64] | None = None, digits: int = 8
    ) -> list[bytes]:
        """Return one interval: a body for each host, or a single one if an order of all lines is given.

        digits: significant digits of a value; 17 is what a sender writes that prints every bit.
        """
        values = np.random.default_rng(seed).gamma(2.0, 500.0, len(self.keys)).tolist()
        form = b"%%b value=%%.%dg %d\n" % (digits, time)
        lines = [form % pair for pair in zip(self.keys, values, strict=True)]
        if order is not None:
            return [b"".join([lines[k] for k in order.tolist()])]
        return [b"".join(lines[a:b]) for a, b in zip(self.hosts_at, self.hosts_at[1:], strict=False)]


def make_site(hosts: int) -> Site:
    """Return a site of so many hosts."""
    names = tuple(f"f{number:04d}" for number in range(hosts))
    keys: list[bytes] = []
    hosts_at = [0]
    for name in names:
        tags = f"cluster={CLUSTER},hostname={name}"
        keys += [f"{metric},{tags},type=node".encode() for metric in _NODE]
        for measured, kind, count in ((_SOCKET, "socket", 2), (_THREAD, "hwthread", THREADS)):
            keys += [
                f"{metric},{tags},type={kind},type-id={k}".encode()
                for metric in measured
                for k in range(count)
            ]
        hosts_at.append(len(keys))
    metrics = tuple(Metric(name, 60, Aggregation.SUM) for name in (*_NODE, *_SOCKET, *_THREAD))
    return Site(names, tuple(keys), tuple(hosts_at), metrics)


def as_buffer(bodies: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Lay messages behind one another as `Scan` wants them: bytes, starts, stops."""
    stops = np.cumsum([len(body) for body in bodies])
    data = np.frombuffer(b"".join(bodies) + bytes(64), np.uint8)
    return data, stops - np.array([len(body) for body in bodies]), stops
