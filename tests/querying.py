"""A real store with known samples, and the command line run against it."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial

import httpx
import trio
from serving import make_app, served

from ccstore.cli import main
from ccstore.cli.warmup import compile_kernels
from ccstore.config import Config, MainConfig
from ccstore.model import Aggregation, Metric
from ccstore.server import api, service
from ccstore.server.services import make_services

MINUTE, HOUR, DAY = 60, 3600, 86400
START = 1_698_926_400
"""2023-11-02 12:00 UTC, which is 13:00 in the zone of the tests: the first sample."""
STOP = START + HOUR

ZONE = "CET-1CEST,M3.5.0,M10.5.0/3"
"""Central Europe, in a form that needs no database."""

METRICS = {
    metric.name: metric
    for metric in (
        Metric("cpu_load", 60, Aggregation.AVG),
        Metric("mem_bw", 60, Aggregation.SUM, "GB/s"),
        Metric("net_bytes_in", 60, Aggregation.SUM, "B/s"),
        Metric("temp", 30, Aggregation.NONE, "degC"),
        Metric("clock", 60, Aggregation.AVG, "MHz"),
    )
}

HOSTS = ("a0001", "a0002", "a0010")


def sample(
    metric: str, host: str, value: float, time: int, *, cluster: str = "alex", **component: object
) -> str:
    """Write one line."""
    tags = {"type": "node", **{key.replace("_", "-"): value for key, value in component.items()}}
    written = "".join(f",{key}={value}" for key, value in tags.items())
    return f"{metric},cluster={cluster},hostname={host}{written} value={value} {time}"


def hour() -> Iterable[str]:
    """Write the samples that most tests are about.

    cpu_load of host k rises by k a minute from 0, and a0002 is silent from 12:20 to 12:39; sockets 0 and 1
    have constant 100 and 50 GB/s; a0010 has no socket 1.
    """
    for number, host in enumerate(HOSTS, 1):
        for minute in range(60):
            time = START + minute * MINUTE
            if host != "a0002" or not 20 <= minute < 40:
                yield sample("cpu_load", host, number * minute, time)
            yield sample("mem_bw", host, 100, time, type="socket", type_id=0)
            if host != "a0010":
                yield sample("mem_bw", host, 50, time, type="socket", type_id=1)
            yield sample("net_bytes_in", host, 1_234_567.891, time)
        yield sample("temp", host, 60, START, type="hwthread", type_id=0)
        yield sample("temp", host, 61, START, type="hwthread", type_id=1)


@cache
def warm_up() -> None:
    """Compile what a server runs, before anybody waits for its answer."""
    compile_kernels()


@asynccontextmanager
async def store(lines: Iterable[str] = (), *, public_key: bytes = b"", token: str = "") -> AsyncIterator[str]:
    """Run a whole server with these lines in it, and yield its URL; `token` is for writing them."""
    warm_up()
    config = Config(main=MainConfig(addr="127.0.0.1:0", jwt_public_key=public_key), metrics=METRICS)
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        (url,) = await nursery.start(partial(service.run, config, stop=stop.wait))
        try:
            await write(url, lines, token=token)
            yield url
        finally:
            stop.set()


@asynccontextmanager
async def bare_store(lines: Iterable[str] = ()) -> AsyncIterator[str]:
    """Run a server with the routes of the reference store and no others."""
    warm_up()
    app = make_app()
    api.add_routes(app, make_services(Config(metrics=METRICS)))
    async with served(app) as port:
        await write(f"http://127.0.0.1:{port}", lines)
        yield f"http://127.0.0.1:{port}"


async def write(url: str, lines: Iterable[str], *, token: str = "") -> None:
    """Store lines, all of them."""
    body = "\n".join(lines)
    if not body:
        return
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await client.post("/api/write", content=body, headers=headers)
        assert answer.status_code == 200, answer.text


async def query(url: str, *arguments: str) -> int:
    """Run ``ccstore query`` in a thread and return its exit code."""
    return await trio.to_thread.run_sync(main.run, ["query", "--url", url, *arguments])


def whole_hour(*arguments: str) -> Sequence[str]:
    """Return arguments with the hour of `hour` added."""
    return [*arguments, "--from", str(START), "--to", str(STOP)]
