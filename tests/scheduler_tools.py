"""A scheduler that reports to a whole server, over HTTP or a real broker, and a look into the database."""

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import service_tools
from attrs import define, evolve
from nats_broker import open_broker
from nats_fake import watch_log
from service_tools import NOW, running, wait_until
from serving import Answer, ask

from ccstore.config import Config, NatsConfig
from ccstore.config.clusters import Cluster, Clusters, Subcluster
from ccstore.config.nodelist import parse_node_list
from ccstore.config.sections import ApiSubjects
from ccstore.server.nats import Client, open_client
from ccstore.wire.events import EventOutcome

TRANSPORTS = ("http", "nats")

EXPECTED = ("cpu_load", "mem_used")
CLUSTERS = Clusters(
    [
        Cluster(
            "c",
            {},
            (
                Subcluster("main", parse_node_list("n[1-9]"), EXPECTED),
                Subcluster("gpu", parse_node_list("g[1-3]"), ("acc_util",)),
            ),
        ),
        Cluster("wild", {}, (Subcluster("all", None, EXPECTED),)),
    ]
)
SUBJECTS = ApiSubjects("sched.jobs", "sched.nodes")

PATHS = {
    "start_job": "/api/jobs/start_job/",
    "stop_job": "/api/jobs/stop_job/",
    "nodestate": "/api/nodestate/",
}
GOOD = {200, 201}


def job(**changes: Any) -> dict[str, Any]:
    """Return a start that is good, with other values for some keys; None leaves a key out."""
    good = {
        "cluster": "c", "jobId": 1001, "startTime": NOW - 600, "user": "u", "project": "p", "numNodes": 1,
        "resources": [{"hostname": "n1"}],
    }  # fmt: skip
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def stop(**changes: Any) -> dict[str, Any]:
    """Return the stop of that job, with other values for some keys; None leaves a key out."""
    good = {"cluster": "c", "jobId": 1001, "stopTime": NOW}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def report(*nodes: Mapping[str, Any] | tuple[str, Sequence[str]], cluster: str = "c") -> dict[str, Any]:
    """Return a report of nodes: objects, or names with states."""
    made = [
        {"hostname": node[0], "states": list(node[1])} if isinstance(node, tuple) else node for node in nodes
    ]
    return {"cluster": cluster, "nodes": made}


def line(function: str, event: Any) -> bytes:
    """Write an event as a line; what is no text is written as JSON."""
    text = event if isinstance(event, str) else json.dumps(event)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    measurement = "nodestate" if function == "nodestate" else f"job,function={function}"
    return f'{measurement} event="{quoted}" {NOW}000000000\n'.encode()


def with_clusters(config: Config, **main: Any) -> Config:
    """Give a configuration two clusters, and a database of its own."""
    path = f"{config.metric_store.checkpoints.directory}.db"
    return evolve(config, clusters=CLUSTERS, main=evolve(config.main, **{"db": path, **main}))


@define
class Scheduler:
    """Reports over one transport, and tells what became of it in the words of both."""

    server: service_tools.Server
    transport: str
    client: Client | None = None
    answer: Answer | None = None
    """The last one, over HTTP."""

    async def send(self, function: str, event: Any, *, method: str = "POST") -> str:
        """Send an event, wait until something became of it, and return what; ``kept`` for an early stop."""
        events = self.server.services.events
        before, kept = events.counts.copy(), len(events.early)
        if self.client is None:
            body = event if isinstance(event, str) else json.dumps(event)
            self.answer = await ask(self.server.port, method, PATHS[function], body=body.encode())
            if events.counts == before:  # it was not even an event
                assert self.answer.status not in GOOD
                return EventOutcome.REFUSED.value
        else:
            await self.publish(function, line(function, event))
            await wait_until(lambda: events.counts != before or len(events.early) > kept)
        ended = [(key[0], key[2].value) for key in events.counts - before]
        if not ended:
            return "kept"
        assert {source for source, _ in ended} == {self.transport}
        outcomes = {outcome for _, outcome in ended}
        assert len(outcomes) == 1
        if self.answer is not None:
            assert (self.answer.status in GOOD) == (outcomes == {"done"})
        return outcomes.pop()

    async def publish(self, function: str, payload: bytes) -> None:
        """Publish a message on the subject of a function."""
        assert self.client is not None
        subject = SUBJECTS.subject_node_state if function == "nodestate" else SUBJECTS.subject_job_event
        await self.client.publish(subject, payload)
        await self.client.flush()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return rows of the database, as another program sees it."""
        return rows(Path(self.server.services.config.main.db), query)

    def jobs(self) -> list[tuple[int, str, int, str]]:
        """Return number, cluster, start and state of every job."""
        columns = "SELECT job_id, cluster, start_time, job_state FROM"
        return sorted(self.rows(f"{columns} job UNION ALL {columns} job_cache"))

    def states(self) -> list[tuple[str, str, str, str, str]]:
        """Return host, subcluster, state, health and metrics of every record."""
        return self.rows(
            "SELECT hostname, subcluster, node_state, health_state, health_metrics "
            "FROM node_state s JOIN node n ON n.id = s.node_id ORDER BY s.id"
        )


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return rows of a database, as another program sees it."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return connection.execute(query).fetchall()


@asynccontextmanager
async def scheduling(
    transport: str, directory: Path, config: Config | None = None, **main: Any
) -> AsyncIterator[Scheduler]:
    """Run a server with clusters, and a scheduler that reports to it."""
    config = with_clusters(config or service_tools.make_config(), **main)
    if transport == "http":
        async with running(config) as server:
            await server.services.registry.read(lambda _: None)  # so that others can open it, too
            yield Scheduler(server, transport)
        return
    async with open_broker(directory) as broker:
        nats = NatsConfig(address=broker.url)
        config = evolve(config, nats=nats, main=evolve(config.main, **{"api_subjects": SUBJECTS, **main}))
        async with watch_log() as log, running(config) as server, open_client(nats) as client:
            await log.wait("subscribed to 'sched.jobs'")
            await log.wait("subscribed to 'sched.nodes'")
            await server.services.registry.read(lambda _: None)
            yield Scheduler(server, transport, client)


def counts(scheduler: Scheduler) -> dict[str, int]:
    """Return how many lines and requests ended as what."""
    found: dict[str, int] = {}
    for (_, kind, outcome), number in scheduler.server.services.events.counts.items():
        found[f"{kind} {outcome.value}"] = number
    return found


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock for writers, as another program would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()
