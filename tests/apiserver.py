"""A whole server in memory, with a clock that stands still, for tests of the HTTP API."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import trio
from attrs import define, frozen
from serving import NOW, Answer, ask, served

from ccstore.cli.warmup import compile_kernels
from ccstore.config import Clusters, Config, LimitsConfig, MainConfig, MetricStoreConfig
from ccstore.model import Aggregation, Metric
from ccstore.server import service
from ccstore.server.services import Services, make_services

METRICS = (
    Metric("x", 60, Aggregation.SUM),
    Metric("m", 60, Aggregation.SUM),
    Metric("load", 60, Aggregation.AVG, "threads"),
    Metric("plain", 10),
)


@cache
def warm_up() -> None:
    """Compile what a server runs, before a test's time begins to count."""
    compile_kernels()


def make_config(
    metrics: Iterable[Metric] = METRICS,
    *,
    limits: Mapping[str, int] | None = None,
    clusters: Clusters | None = None,
    **main: Any,
) -> Config:
    """Make a configuration of these metrics, with small limits and other settings of `main` where given."""
    store = MetricStoreConfig(limits=LimitsConfig(**{"max_series": 10_000, **(limits or {})}))
    return Config(
        main=MainConfig(addr="127.0.0.1:0", **main),
        metrics={metric.name: metric for metric in metrics},
        metric_store=store,
        clusters=clusters or Clusters(),
    )


@define
class Server:
    """A running server."""

    port: int
    services: Services
    clock: "Clock"

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | str | Any = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """Send one request; a body that is neither bytes nor text is sent as JSON."""
        if isinstance(body, str):
            body = body.encode()
        elif body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return await ask(self.port, method, target, headers, body)

    async def write(self, *lines: str) -> None:
        """Store lines, all of them."""
        answer = await self.ask("POST", "/api/write", "\n".join(lines))
        assert (answer.status, answer.body) == (200, b""), answer.body

    async def query(self, body: Any) -> str:
        """Ask for values; return the text of the answer."""
        answer = await self.ask("POST", "/api/query", body)
        assert (answer.status, answer["Content-Type"]) == (200, "application/json"), answer.body
        return answer.body.decode()

    def counts(self) -> dict[str, int]:
        """Return how many lines the ledger has of each outcome, those without any left out."""
        return {name: count for name, count in self.services.ledger.total().items() if count}


@define
class Clock:
    """A wall clock that tests set."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now


@asynccontextmanager
async def running(config: Config | None = None, **settings: Any) -> AsyncIterator[Server]:
    """Run a server with all routes on a port of loopback; `settings` as for `make_config`."""
    warm_up()
    config = config or make_config(**settings)
    clock = Clock()
    services = make_services(config, now=clock)
    async with trio.open_nursery() as nursery:
        with services.registry.held():
            nursery.start_soon(services.registry.run)
            async with served(service._make_app(config, services)) as port:
                yield Server(port, services, clock)


@frozen
class Point:
    """A sample to be written as a line."""

    metric: str
    host: str
    value: float
    time: int
    component: str = ""
    """As tags, such as ``type=socket,type-id=0``."""
    cluster: str = "c"

    def __str__(self) -> str:
        tags = f"cluster={self.cluster},hostname={self.host}" + f",{self.component}" * bool(self.component)
        return f"{self.metric},{tags} value={self.value} {self.time}"


def series(metric: str, host: str, values: Iterable[float], *, start: int = 1000, **more: str) -> list[str]:
    """Write one line for each value, 60 s apart."""
    return [str(Point(metric, host, value, start + 60 * k, **more)) for k, value in enumerate(values)]


def example() -> list[str]:
    """Write the lines of the contract's examples of queries."""
    lines = series("x", "h", [k + 0.126 for k in range(5)])
    for socket, factor in ((0, 1), (2, 10)):
        lines += series("m", "h", [k * factor for k in range(5)], component=f"type=socket,type-id={socket}")
    return lines


def error_of(answer: Answer) -> dict[str, Any]:
    """Check that an answer is an error object, and return it without its status in words."""
    assert answer["Content-Type"] == "application/json"
    assert answer.body.endswith(b"}\n")
    value = json.loads(answer.body)
    assert (
        value.pop("status")
        == {
            400: "Bad Request",
            401: "Unauthorized",
            403: "Forbidden",
            408: "Request Timeout",
            404: "Not Found",
            413: "Request Entity Too Large",
            422: "Unprocessable Entity",
            500: "Internal Server Error",
            503: "Service Unavailable",
        }[answer.status]
    )
    return value
