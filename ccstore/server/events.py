"""Events of jobs and nodes: who goes when, and what became of each.

Owns the order: starts and stops of one job, and reports of one cluster, take effect as they came, over HTTP
and NATS together; so many jobs and clusters at once as is configured. What an event does is in `jobs` and
`nodes`, how it comes over NATS in `event_intake`; here it is done in its turn, and counted. Invariant:
what came in ends as exactly one outcome. And here, in one place, those are told who follow jobs and nodes.

The line of a job is that of its number alone, without the cluster, because a stop need not name one.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, TypeVar

from ccstore.config.clusters import Clusters
from ccstore.config.sections import ApiSubjects
from ccstore.errors import CcstoreError, ProtocolError, UnavailableError
from ccstore.memory.store import Store
from ccstore.model import Job, JobRefusal, JobStop, NodeReport, NodesStored, RefusedJob
from ccstore.server import jobs, nodes
from ccstore.server.early_stops import EarlyStops
from ccstore.server.nats import NatsStatistics
from ccstore.server.registry import Registry
from ccstore.server.turns import Ticket, Turns
from ccstore.wire.events import EventOutcome

__all__ = ["Events", "Kind", "Request", "Source", "kind_of"]

log = logging.getLogger("ccstore.events")

Source = Literal["http", "nats"]
Kind = Literal["job", "node"]
Request = Job | JobStop | NodeReport
"""What an event asks for."""

R = TypeVar("R", Job, JobStop, NodeReport)
A = TypeVar("A")

JOB_CAPACITY, NODE_CAPACITY = 4096, 256
"""Events that wait for their turn or have it; a report of 2 000 nodes takes half a megabyte."""
EARLY_CAPACITY = 10_000
"""Stops that wait for their start."""


class Events:
    """The lines of jobs and nodes, and counts of what became of their events."""

    def __init__(
        self,
        *,
        store: Store,
        clusters: Clusters,
        registry: Registry,
        now: Callable[[], int],
        wait_recovered: Callable[[], Awaitable[None]],
        settings: ApiSubjects,
        job_ended: Callable[[Job], None],
        nodes_reported: Callable[[str], None],
    ) -> None:
        self.turns: dict[Kind, Turns] = {
            "job": Turns(settings.job_concurrency, JOB_CAPACITY),
            "node": Turns(settings.node_concurrency, NODE_CAPACITY),
        }
        self.early = EarlyStops(settings.early_stop_wait, EARLY_CAPACITY)
        self.counts: Counter[tuple[Source, Kind, EventOutcome]] = Counter()
        """Lines of NATS and requests of HTTP; those that wait are in none yet."""
        self.empty_messages = 0
        self.nats = NatsStatistics()
        """Of the connection that brings events."""
        self._store = store
        self._clusters = clusters
        self._registry = registry
        self._now = now
        self._wait_recovered = wait_recovered
        self._job_ended = job_ended
        self._nodes_reported = nodes_reported

    def count(self, source: Source, kind: Kind, outcome: EventOutcome, number: int = 1) -> None:
        """Note what became of something that came in."""
        self.counts[source, kind, outcome] += number

    async def queue(self, request: Request) -> Ticket:
        """Take the place of a request in its line; `perform` has to follow at once."""
        return await self.turns[kind_of(request)].queue(_key_of(request))

    # What somebody waits for.

    async def start_job(self, job: Job) -> Job | RefusedJob:
        """Store a job that has begun, when it is its turn. Raises ProtocolError."""
        return await self._answer(job, self._start)

    async def stop_job(self, stop: JobStop) -> Job | RefusedJob:
        """Store that a job has ended, when it is its turn. Raises ProtocolError."""
        return await self._answer(stop, self._stop)

    async def store_report(self, report: NodeReport) -> NodesStored:
        """Store states of nodes, when it is its turn."""
        return await self._answer(report, self._report)

    async def _answer(self, request: R, do: Callable[[R], Awaitable[A]]) -> A:
        kind, outcome = kind_of(request), EventOutcome.LOST
        ticket = await self.queue(request)
        try:
            async with self.turns[kind].turn(ticket):
                answer = await do(request)
            outcome = EventOutcome.REFUSED if isinstance(answer, RefusedJob) else EventOutcome.DONE
            return answer
        except ProtocolError:
            outcome = EventOutcome.REFUSED
            raise
        except UnavailableError:
            raise  # the server stops
        except Exception:
            outcome = EventOutcome.FAILED
            raise
        finally:
            self.count("http", kind, outcome)

    # What nobody waits for.

    async def perform(self, ticket: Ticket, request: Request) -> None:
        """Do what an event asks for, when it is its turn; whatever comes of it is counted and logged."""
        kind = kind_of(request)
        outcome: EventOutcome | None = EventOutcome.LOST
        try:
            async with self.turns[kind].turn(ticket):
                outcome = await self._try(request)
                if outcome is None:
                    assert isinstance(request, JobStop)
                    outcome = self._keep(request)
        finally:
            if outcome is not None:
                self.count("nats", kind, outcome)

    async def _try(self, request: Request) -> EventOutcome | None:
        """Do what an event asks for; return None for the stop of a job that is not known."""
        try:
            match request:
                case Job():
                    answer: Job | RefusedJob | NodesStored = await self._start(request)
                case JobStop():
                    answer = await self._stop(request)
                case NodeReport():
                    answer = await self._report(request)
        except UnavailableError as error:
            log.error("%(event)s: lost: %(error)s", {"event": _describe(request), "error": error})
            return EventOutcome.LOST
        except CcstoreError as error:
            _log_refusal(request, str(error))
            return EventOutcome.REFUSED
        except Exception:  # a bug; its transaction was taken back, and one odd event must not end the server
            log.exception("bug in %(event)s", {"event": _describe(request)})
            return EventOutcome.FAILED
        if isinstance(answer, RefusedJob) and answer.why is JobRefusal.UNKNOWN:
            return None
        return self._outcome_of(request, answer)

    def _outcome_of(self, request: Request, answer: Job | RefusedJob | NodesStored) -> EventOutcome:
        if isinstance(answer, RefusedJob):
            _log_refusal(request, answer.text)
            return EventOutcome.REFUSED
        return EventOutcome.DONE

    def _keep(self, stop: JobStop) -> EventOutcome | None:
        if self.early.keep(stop):
            fields = {"event": _describe(stop), "seconds": self.early.wait}
            log.debug("%(event)s: no such job yet, kept for %(seconds)g s", fields)
            return None
        _log_refusal(stop, "no such job, and no room to wait for its start")
        return EventOutcome.REFUSED

    async def expire_stops(self) -> None:
        """Drop the stops whose starts have not come in time, for ever; at the end, all that are left."""
        try:
            while True:
                self._drop(await self.early.wait_expired(), f"no such job within {self.early.wait:g} s")
        finally:
            for stop in self.early.take_all():
                self._drop(stop, "no such job before the server stopped")

    def _drop(self, stop: JobStop, why: str) -> None:
        _log_refusal(stop, why)
        self.count("nats", "job", EventOutcome.REFUSED)

    # The same for both.

    async def _start(self, job: Job) -> Job | RefusedJob:
        """Store a start and what is known of its end, together: who waits for it may leave at any moment."""
        waiting = self.early.of_job(job.job_id)
        stops = [early.stop for early in waiting]
        started, *ended = await jobs.start_job(self._registry, self._clusters, job, stops)
        self._announce(ended)
        for early, end in zip(waiting, ended, strict=False):  # none for a start that was refused
            is_unknown = isinstance(end, RefusedJob) and end.why is JobRefusal.UNKNOWN
            if not is_unknown and self.early.take(early):
                self.count("nats", "job", self._outcome_of(early.stop, end))
        return started

    async def _stop(self, stop: JobStop) -> Job | RefusedJob:
        stopped = await jobs.stop_job(self._registry, stop)
        self._announce([stopped])
        return stopped

    async def stop_overdue(self, grace: int) -> None:
        """End the jobs that have run for more than `grace` seconds beyond their walltime, out of turn."""
        self._announce(await jobs.stop_overdue(self._registry, self._now(), grace))

    def _announce(self, stopped: Iterable[Job | RefusedJob]) -> None:
        """Tell of jobs that have ended, at once: nothing may be awaited after they were stored."""
        for job in stopped:
            if isinstance(job, Job):
                self._job_ended(job)

    async def _report(self, report: NodeReport) -> NodesStored:
        await self._wait_recovered()  # before that the store knows only some of what has arrived
        stored = await nodes.store_report(
            report, store=self._store, clusters=self._clusters, registry=self._registry, now=self._now()
        )
        if stored.stored:
            self._nodes_reported(report.cluster)
        return stored


def kind_of(request: Request) -> Kind:
    """Return which of the two lines a request belongs to."""
    return "node" if isinstance(request, NodeReport) else "job"


def _key_of(request: Request) -> int | str:
    return request.cluster if isinstance(request, NodeReport) else request.job_id


def _log_refusal(request: Request, reason: str) -> None:
    log.error("%(event)s: refused: %(reason)s", {"event": _describe(request), "reason": reason})


def _describe(request: Request) -> str:
    match request:
        case NodeReport():
            return f"states of {len(request.nodes)} nodes of cluster {request.cluster[:40]!r}"
        case JobStop():
            return f"stop of job {request.job_id}, cluster {request.cluster[:40]!r}"
        case Job():
            return f"start of job {request.job_id}, cluster {request.cluster[:40]!r}"
