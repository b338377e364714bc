"""The hardware of a simulated site: node types, their parts, and how the parts are named.

Owns what never changes while a site runs. Knows neither jobs, nor time, nor lines as a whole.
Invariant: the tags of a part are sorted by key, as collectors send them.

Four types stand for what is found in computing centres: two generations of processors with and
without many memory domains, a node that is all accelerators, and an old one with little memory and two
threads a core. Their figures are those of common products, rounded.
"""

import enum
from collections.abc import Mapping

from attrs import frozen

__all__ = ["NODE_TYPES", "NodeType", "Scope"]

_A100_ADDRESSES = ("07", "0F", "47", "4E", "87", "90", "B7", "BD")


class Scope(enum.Enum):
    """The kind of part that a sample belongs to: its type, subtype, and the names of its parts."""

    NODE = enum.auto()
    SOCKET = enum.auto()
    MEMORY_DOMAIN = enum.auto()
    CORE = enum.auto()
    HWTHREAD = enum.auto()
    ACCELERATOR = enum.auto()
    ETHERNET = enum.auto()
    FABRIC = enum.auto()
    PARALLEL_FILESYSTEM = enum.auto()
    HOME_FILESYSTEM = enum.auto()
    LOCAL_FILESYSTEM = enum.auto()
    DISK = enum.auto()


_NAMES = {
    Scope.SOCKET: "socket",
    Scope.MEMORY_DOMAIN: "memoryDomain",
    Scope.CORE: "core",
    Scope.HWTHREAD: "hwthread",
    Scope.ACCELERATOR: "accelerator",
    Scope.ETHERNET: "network",
    Scope.FABRIC: "network",
    Scope.PARALLEL_FILESYSTEM: "filesystem",
    Scope.HOME_FILESYSTEM: "filesystem",
    Scope.LOCAL_FILESYSTEM: "filesystem",
    Scope.DISK: "disk",
}
_COMPONENTS = (Scope.SOCKET, Scope.MEMORY_DOMAIN, Scope.CORE, Scope.HWTHREAD, Scope.ACCELERATOR)
"""Scopes that are types of their own; the others are subtypes of the node."""


@frozen
class NodeType:
    """One kind of node. Figures are of the whole node unless told otherwise."""

    name: str
    cluster: str
    """Where such nodes live in a site whose clusters have no other name."""
    prefix: str
    """First letter of its hosts' names."""
    share: float
    """Part of a mixed site."""
    sockets: int
    cores: int
    """A socket."""
    memory_domains: int
    memory: float
    """GB."""
    flops: float
    """GF/s in double precision."""
    bandwidth: float
    """GB/s of memory."""
    idle_clock: float
    """MHz."""
    clock: float
    """MHz when all cores are busy."""
    socket_power: float
    """W a socket, at most."""
    fabric: tuple[str, ...]
    """Names of the interfaces to the interconnect."""
    fabric_rate: float
    """B/s an interface."""
    disk: str
    smt: int = 1
    """Hardware threads a core."""
    accelerators: tuple[str, ...] = ()
    """PCI addresses."""
    accelerator_memory: float = 0.0
    """GB each."""
    accelerator_power: float = 0.0
    """W each, at most."""
    accelerator_clock: float = 0.0
    """MHz."""

    @property
    def threads(self) -> int:
        """Hardware threads."""
        return self.sockets * self.cores * self.smt

    def parts(self, scope: Scope) -> tuple[str, ...]:
        """Return the names of the parts, in the order of their samples; none if it has no such part."""
        count = {
            Scope.SOCKET: self.sockets,
            Scope.MEMORY_DOMAIN: self.memory_domains,
            Scope.CORE: self.sockets * self.cores,
            Scope.HWTHREAD: self.threads,
        }
        named = {
            Scope.NODE: ("",),
            Scope.ACCELERATOR: self.accelerators,
            Scope.ETHERNET: ("eth0",),
            Scope.FABRIC: self.fabric,
            Scope.PARALLEL_FILESYSTEM: ("/scratch", "/work"),
            Scope.HOME_FILESYSTEM: ("/home",),
            Scope.LOCAL_FILESYSTEM: ("/", "/tmp"),  # noqa: S108 -- a name on a simulated host
            Scope.DISK: (self.disk,),
        }
        return tuple(map(str, range(count[scope]))) if scope in count else named[scope]

    def tags(self, scope: Scope) -> list[str]:
        """Return the tags of each part as they stand in a line behind cluster and host."""
        if scope is Scope.NODE:
            return [",type=node"]
        name = _NAMES[scope]
        if scope in _COMPONENTS:
            return [f",type={name},type-id={part}" for part in self.parts(scope)]
        return [f",stype={name},stype-id={part},type=node" for part in self.parts(scope)]


NODE_TYPES: Mapping[str, NodeType] = {
    node_type.name: node_type
    for node_type in (
        NodeType(
            "cpu72", "alder", "a", share=0.6, sockets=2, cores=36, memory_domains=8, memory=256.0,
            flops=5500.0, bandwidth=330.0, idle_clock=800.0, clock=2600.0, socket_power=250.0,
            fabric=("ib0",), fabric_rate=12.5e9, disk="nvme0n1",
        ),
        NodeType(
            "cpu128", "beech", "b", share=0.2, sockets=2, cores=64, memory_domains=8, memory=512.0,
            flops=5000.0, bandwidth=380.0, idle_clock=1500.0, clock=2450.0, socket_power=280.0,
            fabric=("ib0",), fabric_rate=25e9, disk="nvme0n1",
        ),
        NodeType(
            "gpu8", "maple", "m", share=0.12, sockets=2, cores=64, memory_domains=8, memory=1024.0,
            flops=4600.0, bandwidth=380.0, idle_clock=1500.0, clock=2250.0, socket_power=225.0,
            fabric=("ib0", "ib1"), fabric_rate=25e9, disk="nvme0n1",
            accelerators=tuple(f"00000000:{bus}:00.0" for bus in _A100_ADDRESSES),
            accelerator_memory=80.0, accelerator_power=400.0, accelerator_clock=1410.0,
        ),
        NodeType(
            "smt40", "willow", "w", share=0.08, sockets=2, cores=10, smt=2, memory_domains=2, memory=64.0,
            flops=350.0, bandwidth=100.0, idle_clock=1200.0, clock=2200.0, socket_power=105.0,
            fabric=("ib0",), fabric_rate=5e9, disk="sda",
        ),
    )
}  # fmt: skip
"""By name; the names tell the hardware threads, or the accelerators, of a node."""
