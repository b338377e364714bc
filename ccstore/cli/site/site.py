"""The site as a whole: groups of hosts, and what they send in an interval.

Owns the names of the hosts and how they are grouped. A group has one node type and one schedule, and
is computed at once, which keeps numpy busy and everybody else's turn short: some milliseconds.
"""

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ccstore.cli.site.applications import APPLICATIONS
from ccstore.cli.site.hardware import NODE_TYPES, NodeType
from ccstore.cli.site.jobs import Job, Schedule
from ccstore.cli.site.lines import LineWriter
from ccstore.cli.site.metrics import Block, Detail, make_blocks, measure
from ccstore.cli.site.noise import make_keys, noise, wobble
from ccstore.cli.site.quantities import Load

__all__ = ["MIXED", "Message", "Site", "make_site"]

MIXED = "mixed"
"""The topology of a site with hosts of all types."""

_GROUP = 32
"""Hosts at most: 15 000 lines, which stay in the processor's cache while they are made."""
_RACK = 64
_WARM_UP = 240.0
"""Seconds until a host is warm."""


@frozen
class Message:
    """What one or more hosts send for an interval."""

    payload: bytes
    lines: int
    hosts: int
    offset: float
    """Seconds after the begin of the interval at which it is sent."""


@define(eq=False)
class _Group:
    """Hosts of one type that share a schedule."""

    node: NodeType
    hosts: Sequence[str]
    schedule: Schedule
    blocks: Sequence[Block]
    writer: LineWriter
    seed: int
    _host_keys: NDArray[np.uint32] = field(init=False)
    _keys: NDArray[np.uint32] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._host_keys = make_keys(len(self.hosts), seed=self.seed)
        self._keys = self._host_keys[:, None] ^ make_keys(self.lines, seed=~self.seed)

    @property
    def lines(self) -> int:
        """Lines a host and interval."""
        return self.blocks[-1].stop

    def render(self, time: int, stamps: Sequence[int]) -> list[bytes]:
        """Return the lines of each host for a time (s), stamped with its entry of `stamps`."""
        values = measure(self.node, self.blocks, self._load(time), noise(self._keys, time))
        return self.writer.write(self.hosts, values, stamps)

    def _load(self, time: int) -> Load:
        """Return what the jobs want of each host at a time; no two hosts of a job do quite the same."""
        rows = np.zeros((len(self.hosts), len(attrs.fields(Load))))
        for job in self.schedule.running(time):
            age = float(time - job.start)
            demand = APPLICATIONS[job.application](age, float(job.stop - job.start), job.traits)
            warmth = 1.0 - np.exp(-age / _WARM_UP)
            rows[job.first : job.first + len(job.hosts)] = (*attrs.astuple(demand), warmth)
        load = Load(*rows.T.copy())
        for swing, period, column in (
            (0.12, 180, load.flops),
            (0.08, 120, load.bandwidth),
            (0.3, 60, load.network),
            (0.5, 90, load.read),
            (0.5, 90, load.write),
            (0.02, 600, load.memory),
        ):
            column *= 1.0 - swing * wobble(self._host_keys, time, period=period)
        return load


@define(eq=False)
class Site:
    """Some clusters, their hosts and their jobs; made by `make_site`."""

    groups: Sequence[_Group]

    @property
    def hosts(self) -> int:
        """How many hosts there are."""
        return sum(len(group.hosts) for group in self.groups)

    @property
    def series(self) -> int:
        """How many series they send, which is also the number of lines of an interval."""
        return sum(len(group.hosts) * group.lines for group in self.groups)

    @property
    def host_names(self) -> list[tuple[str, str, str]]:
        """Cluster, name and node type of each host, in the order in which they send."""
        return [(g.schedule.cluster, host, g.node.name) for g in self.groups for host in g.hosts]

    def running_jobs(self, time: int) -> list[Job]:
        """Return the jobs that run at a time (s), the latest first."""
        jobs = [job for group in self.groups for job in group.schedule.running(time)]
        return sorted(jobs, key=lambda job: (-job.start, job.job_id))

    def messages(self, time: int, *, batch: int = 1, skew: float = 0.0, ticks: int = 1) -> Iterator[Message]:
        """Make what the site sends for the interval that begins at `time` (s), in the order of sending.

        Each message has the lines of `batch` hosts. The hosts measure one after the other within `skew`
        seconds; times are in `ticks` a second.
        """
        position, total = 0, self.hosts
        waiting: list[bytes] = []
        lines = 0
        for group in self.groups:
            offsets = [skew * number / total for number in range(position, position + len(group.hosts))]
            stamps = [time * ticks + int(offset * ticks) for offset in offsets]
            for payload, offset in zip(group.render(time, stamps), offsets, strict=True):
                waiting.append(payload)
                lines += group.lines
                position += 1
                if len(waiting) == batch or position == total:
                    yield Message(b"".join(waiting), lines, len(waiting), offset)
                    waiting, lines = [], 0


def make_site(
    hosts: int,
    *,
    topology: str = MIXED,
    cluster: str = "",
    detail: Detail = Detail.USUAL,
    seed: int = 0,
) -> Site:
    """Make a site of so many hosts, of all types or of the one that `topology` names.

    `cluster` is the one cluster of all of them; by default each type has its own.
    """
    counts = _share_out(hosts) if topology == MIXED else {topology: hosts}
    number_of_groups = sum(-(-count // _GROUP) for count in counts.values())
    groups: list[_Group] = []
    for name, count in counts.items():
        node = NODE_TYPES[name]
        names = _host_names(node, count)
        blocks = make_blocks(node, detail)
        where = cluster or node.cluster
        longest = max(map(len, names), default=0)
        writer = LineWriter(node, blocks, where, most_hosts=min(_GROUP, count), longest_host=longest)
        for first in range(0, count, _GROUP):
            members, number = names[first : first + _GROUP], len(groups)
            schedule = Schedule(where, members, bool(node.accelerators), seed, number, number_of_groups)
            groups.append(_Group(node, members, schedule, blocks, writer, seed * 65_537 + number))
    return Site(groups)


def _share_out(hosts: int) -> dict[str, int]:
    """Return how many hosts of each type a mixed site has; the largest remainders get what is left over."""
    exact = {name: hosts * node.share for name, node in NODE_TYPES.items()}
    counts = {name: int(count) for name, count in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: hosts - sum(counts.values())]:
        counts[name] += 1
    return {name: count for name, count in counts.items() if count}


def _host_names(node: NodeType, count: int) -> list[str]:
    """Return names by rack and place in the rack: ``a0101``, ``a0102`` ..."""
    width = max(2, len(str(-(-count // _RACK))))
    return [f"{node.prefix}{n // _RACK + 1:0{width}d}{n % _RACK + 1:02d}" for n in range(count)]
