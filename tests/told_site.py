"""A server with two clusters that a scheduler tells of, and what is said to it."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, evolve
from scheduler_tools import with_clusters
from service_tools import NOW, Server, make_config, running
from serving import Answer, ask

from ccstore.config import Cluster, Clusters, Subcluster, Topology
from ccstore.config.nodelist import parse_node_list

TOPOLOGY = Topology(
    node=(0, 1, 2, 3),
    sockets=((0, 1), (2, 3)),
    memory_domains=((0, 1, 2, 3),),
    cores=((0,), (1,), (2,), (3,)),
    accelerators=("g0", "g1"),
)
EXPECTED = ("cpu_load", "mem_bw")
CLUSTERS = Clusters(
    [
        Cluster("c", {}, (Subcluster("main", parse_node_list("n[1-9]"), EXPECTED, TOPOLOGY),)),
        Cluster("d", {}, (Subcluster("all", None, EXPECTED), Subcluster("big", parse_node_list("b1"), ()))),
    ]
)


@define
class Clock:
    """A wall clock that tests set."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now


@define
class Site:
    """A server with clusters, and what is said to it."""

    server: Server
    clock: Clock

    async def ask(self, method: str, target: str, body: Any = None) -> Answer:
        """Send a request; a body is sent as JSON, or as it is if it is bytes."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return await ask(self.server.port, method, target, body=body)

    async def get(self, target: str, status: int = 200) -> Any:
        """Return what a GET answers."""
        answer = await self.ask("GET", target)
        assert (answer.status, answer["Content-Type"]) == (status, "application/json"), answer.body
        return json.loads(answer.body)

    async def tell(self, path: str, event: Any) -> None:
        """Send what a scheduler sends."""
        answer = await self.ask("POST", path, event)
        assert answer.status in (200, 201), answer.body

    async def write(self, *lines: str) -> None:
        """Store lines."""
        answer = await self.ask("POST", "/api/write", "\n".join(lines).encode())
        assert answer.status == 200, answer.body

    async def query(self, body: Any, status: int = 200) -> Any:
        """Return what a query answers."""
        answer = await self.ask("POST", "/api/query", body)
        assert answer.status == status, answer.body
        return json.loads(answer.body)


@asynccontextmanager
async def running_site(**main: Any) -> AsyncIterator[Site]:
    """Run a server with two clusters."""
    clock = Clock()
    config = evolve(with_clusters(make_config(**main)), clusters=CLUSTERS)
    async with running(config, now=clock) as server:
        yield Site(server, clock)


def lines(
    metric: str, host: str, values: Iterable[float], component: str = "", cluster: str = "c"
) -> list[str]:
    """Return a value a minute, the last one a minute ago."""
    values = list(values)
    tags = f"{metric},cluster={cluster},hostname={host}{component and ','}{component}"
    return [f"{tags} value={v} {NOW - 60 * (len(values) - k)}" for k, v in enumerate(values)]
