"""Events over a real broker and HTTP together: lines, order, early stops, a database that is locked."""

import itertools
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import service_tools
import trio
from attrs import evolve
from nats_broker import open_broker
from nats_fake import watch_log
from scheduler_tools import (
    PATHS,
    SUBJECTS,
    counts,
    job,
    line,
    locked,
    report,
    scheduling,
    stop,
    with_clusters,
)
from service_tools import (
    NOW,
    get,
    get_problems,
    make_config,
    post,
    running,
    wait_until,
)
from serving import Answer
from test_server_ingest import messages_of
from trio.testing import MockClock

from ccstore.config import NatsConfig
from ccstore.config.sections import ApiSubjects
from ccstore.model import JobStop
from ccstore.server import event_intake
from ccstore.server.early_stops import EarlyStop, EarlyStops
from ccstore.server.nats import open_client
from ccstore.server.services import make_services
from ccstore.server.turns import Turns
from ccstore.wire.events import EventOutcome

pytestmark = pytest.mark.timeout(60)


async def test_every_line_of_a_message_is_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Good lines take effect whatever the others are (D-95), and each of those is logged at its level."""
    bad = line("start_job", job(jobId=5)).replace(b"start_job", b"go")
    lines = [
        line("start_job", job(jobId=1)), b"\n", b"# a comment\n", b'job,function=start_job event="\n',
        b"cpu_load,hostname=n1 value=1 1\n", line("start_job", job(jobId=2)).replace(b" 17", b" x17"), bad,
        b'job event="{}" 1\n', line("start_job", "{"), line("nodestate", report(("n1", []))),
        line("start_job", job(jobId=3)),
    ]  # fmt: skip
    async with scheduling("nats", tmp_path) as scheduler:
        await scheduler.publish("start_job", b"".join(lines))
        await scheduler.publish("start_job", b" \n")
        await scheduler.publish("nodestate", line("start_job", job(jobId=4)) + b"x value=1 1")
        events = scheduler.server.services.events
        await wait_until(lambda: events.counts.total() == 11 and events.empty_messages == 1)
        assert [number for number, *_ in scheduler.jobs()] == [1, 3]
        assert counts(scheduler) == {
            "job done": 2, "job bad_line": 2, "job no_event": 2, "job unknown_function": 1,
            "job no_function": 1, "job refused": 1, "node no_event": 2,
        }  # fmt: skip
    levels = {
        outcome: record.levelname
        for record in caplog.records
        for outcome in ("bad_line", "no_function", "unknown_function", "refused", "empty message")
        if record.name == "ccstore.events" and outcome in record.getMessage()
    }
    warnings = {"unknown_function": "WARNING", "empty message": "WARNING"}
    assert levels == {**dict.fromkeys(("bad_line", "no_function", "refused"), "ERROR"), **warnings}
    assert "WARNING" in [r.levelname for r in caplog.records if "no_event" in r.getMessage()]


async def test_what_is_no_event_leaves_others_their_turns(tmp_path: Path) -> None:
    """A broker may bring thousands of such messages at once."""
    turns, messages = 0, messages_of(*[b"metric value=1 1"] * 300)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    measurements = {messages[k].subscription.subject: frozenset({"job"}) for k in range(len(messages))}
    services = make_services(with_clusters(make_config()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await event_intake._deliver(services.events, measurements, nursery, messages)
        nursery.cancel_scope.cancel()
    assert turns >= len(messages) // 2
    assert services.events.counts == {("nats", "job", EventOutcome.NO_EVENT): len(messages)}


async def test_one_subject_for_both(tmp_path: Path) -> None:
    """It is subscribed once, and brings events of jobs and of nodes."""
    assert event_intake.measurements_of(SUBJECTS)["sched.jobs"] == {"job"}
    both = ApiSubjects("sched.jobs", "sched.jobs")
    assert event_intake.measurements_of(both) == {"sched.jobs": {"job", "nodestate"}}
    async with open_broker(tmp_path) as broker:
        nats = NatsConfig(address=broker.url)
        config = evolve(with_clusters(make_config(), api_subjects=both), nats=nats)
        async with watch_log() as log, running(config) as server, open_client(nats) as client:
            await log.wait("subscribed to 'sched.jobs'")
            events = line("start_job", job()) + line("nodestate", report(("n1", ["idle"])))
            await client.publish("sched.jobs", events)
            await wait_until(lambda: server.services.events.counts.total() == 2)
            assert {outcome for _, _, outcome in server.services.events.counts} == {EventOutcome.DONE}


async def test_order_under_load(tmp_path: Path) -> None:
    """Start, stop, start, stop ... of many jobs at once: each takes effect in its order."""
    days = [NOW - 86400 * k for k in (3, 2, 1)]
    async with scheduling("nats", tmp_path) as scheduler:
        for start, number in itertools.product(days, range(1, 101)):
            for function, event in (
                ("start_job", job(jobId=number, startTime=start)),
                ("stop_job", stop(jobId=number, stopTime=start + 60)),
            ):
                await scheduler.client.publish("sched.jobs", line(function, event))  # type: ignore[union-attr]
        await wait_until(lambda: scheduler.server.services.events.counts.total() == 600)
        assert counts(scheduler) == {"job done": 600}
        assert {state for *_, state in scheduler.jobs()} == {"completed"}
        assert scheduler.rows("SELECT DISTINCT duration FROM job") == [(60,)]
        assert scheduler.server.services.registry.commits < 600  # some of them together


async def test_a_request_waits_behind_events_of_its_job(tmp_path: Path) -> None:
    """A stop over HTTP that comes after a start over NATS finds its job, though the start still waits."""
    async with scheduling("nats", tmp_path) as scheduler:
        server, lock, line_of_jobs = (
            scheduler.server,
            ExitStack(),
            scheduler.server.services.events.turns["job"],
        )
        answers: list[Answer] = []

        async def end() -> None:
            answers.append(await post(server, "/api/jobs/stop_job", json.dumps(stop()).encode()))

        with lock:
            lock.enter_context(locked(server.services.config.main.db))
            await scheduler.publish("start_job", line("start_job", job()))
            await wait_until(lambda: len(line_of_jobs) == 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end)
                await wait_until(lambda: len(line_of_jobs) == 2)
                assert answers == []
                lock.close()
        assert answers[0].status == 200
        assert [state for *_, state in scheduler.jobs()] == ["completed"]


# --- stops that come before their start


async def test_a_stop_before_its_start(tmp_path: Path) -> None:
    """It is kept, and done when the start comes, over whichever way; one for another cluster stays."""
    async with scheduling("nats", tmp_path) as scheduler:
        assert await scheduler.send("stop_job", stop(jobState="failed")) == "kept"
        assert await scheduler.send("stop_job", stop(cluster="wild")) == "kept"
        server = scheduler.server
        early = server.services.events.early
        answer = await post(server, "/api/jobs/start_job", json.dumps(job()).encode())
        assert (answer.status, len(early)) == (201, 1)
        assert scheduler.jobs() == [(1001, "c", NOW - 600, "failed")]
        await scheduler.publish("start_job", line("start_job", job(cluster="wild")))
        await wait_until(lambda: not len(early))
        assert [state for *_, state in scheduler.jobs()] == ["failed", "completed"]
        assert server.services.events.counts[("nats", "job", EventOutcome.DONE)] == 3


async def test_a_start_that_never_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its stop is refused after the time that is configured; over HTTP it is 404 at once."""
    quick = evolve(SUBJECTS, early_stop_wait=0.05)
    async with scheduling("nats", tmp_path, api_subjects=quick) as scheduler:
        await scheduler.publish("stop_job", line("stop_job", stop()))
        await wait_until(lambda: counts(scheduler) == {"job refused": 1})
        assert "no such job within 0.05 s" in caplog.text
        answer = await post(scheduler.server, "/api/jobs/stop_job", json.dumps(stop()).encode())
        assert answer.status == 404


async def test_early_stops_have_bounds(mock_clock: MockClock) -> None:
    """So many at most, so long at most, each taken once, and none where they are not to be kept."""
    early = EarlyStops(60, 2)
    first, second, third = (JobStop(job_id=number) for number in (1, 1, 2))
    assert [early.keep(one) for one in (first, second, third)] == [True, True, False]
    assert [one.stop for one in early.of_job(1)] == [first, second]
    assert early.take(early.of_job(1)[0])
    assert not early.take(EarlyStop(first, 0))
    mock_clock.jump(61)
    assert await early.wait_expired() == second
    assert (len(early), early.of_job(1), list(early.take_all())) == (0, [], [])
    assert early.keep(third)
    assert list(early.take_all()) == [third]
    assert not EarlyStops(0, 2).keep(first)


# --- a database that cannot be used, a server that reads its files


@pytest.mark.parametrize("function", ["start_job", "stop_job", "nodestate"])
async def test_locked_for_long(function: str, tmp_path: Path) -> None:
    """A request is answered with 503 and not done later, an event is done later, and samples go on."""
    async with scheduling("nats", tmp_path) as scheduler:
        server, registry = scheduler.server, scheduler.server.services.registry
        assert await scheduler.send("start_job", job()) == "done"
        event = {"start_job": job(jobId=2), "stop_job": stop(), "nodestate": report(("n1", ["idle"]))}[
            function
        ]
        registry.longest_wait = 0.3
        with locked(server.services.config.main.db):
            answer = await post(server, PATHS[function], json.dumps(event).encode())
            assert (answer.status, answer["Retry-After"]) == (503, "1")
            assert "locked" in json.loads(answer.body)["error"]
            assert (await get(server, "/api/jobs/used_nodes?ts=1")).status == 200  # reads need no lock
            await scheduler.publish(function, line(function, event))
            assert (await post(server, "/api/write?cluster=c", service_tools.lines(["n1"]))).status == 200
            assert [problem[:14] for problem in await get_problems(server)] == ["registry: var/"]
        await wait_until(lambda: sum(counts(scheduler).values()) == 3)
        kind = "node" if function == "nodestate" else "job"
        assert counts(scheduler)[f"{kind} lost"] == 1
        assert counts(scheduler)[f"{kind} done"] == (1 if kind == "node" else 2)
        assert await get_problems(server) == []
        assert len(scheduler.states()) == (kind == "node")


async def test_too_much_for_a_locked_database(tmp_path: Path) -> None:
    """When all places are taken, reading rests; nothing is lost, and samples come in meanwhile."""
    async with scheduling("nats", tmp_path) as scheduler:
        server, events = scheduler.server, scheduler.server.services.events
        events.turns["job"] = Turns(8, 5)
        with locked(server.services.config.main.db):
            for number in range(1, 51):
                await scheduler.publish("start_job", line("start_job", job(jobId=number)))
            await wait_until(lambda: len(events.turns["job"]) == 5 and events.nats.queued_messages >= 45)
            assert (await post(server, "/api/write?cluster=c", service_tools.lines(["n1"]))).status == 200
        await wait_until(lambda: events.counts.total() == 50)
        assert counts(scheduler) == {"job done": 50}
        assert [number for number, *_ in scheduler.jobs()] == list(range(1, 51))


async def test_while_the_server_reads_its_files(tmp_path: Path) -> None:
    """Reports over HTTP are 503, those over NATS wait for the end of it; jobs need no samples."""
    async with scheduling("nats", tmp_path) as scheduler:
        server, durability = scheduler.server, scheduler.server.services.durability
        assert durability is not None
        durability.recovered, durability.settled = trio.Event(), trio.Event()
        answer = await post(server, "/api/nodestate", json.dumps(report(("n1", ["idle"]))).encode())
        assert (answer.status, answer["Retry-After"]) == (503, "1")
        await scheduler.publish("nodestate", line("nodestate", report(("n2", ["idle"]))))
        assert await scheduler.send("start_job", job()) == "done"
        assert scheduler.states() == []
        durability.recovered.set()
        durability.settled.set()
        await wait_until(lambda: counts(scheduler).get("node done") == 1)
        assert [row[0] for row in scheduler.states()] == ["n2"]
