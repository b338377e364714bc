"""Jobs over streams: their values as long as they run, and their end."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from apiserver import Point, Server
from live_tools import Client, connected, live
from scheduler_tools import CLUSTERS, PATHS, job, locked, stop
from serving import NOW

from ccstore.model import JobKey
from ccstore.server.live import hub, lookup, session
from ccstore.wire.jobquery import decode_question
from ccstore.wire.jobs import decode_job_stop
from ccstore.wire.stream import JobWanted, Subscribe, decode_request

JOB = {"job": {"cluster": "c", "jobId": 1001}, "metrics": ["x"]}


@asynccontextmanager
async def following(tmp_path: Path) -> AsyncIterator[tuple[Server, Client]]:
    """Run a server that knows a cluster, and connect to it."""
    async with (
        live(clusters=CLUSTERS, db=f"{tmp_path}/jobs.db") as server,
        connected(server.port) as client,
    ):
        yield server, client


async def tell(server: Server, function: str, event: Any) -> None:
    """Tell a server of an event, as a scheduler does."""
    answer = await server.ask("POST", PATHS[function], event)
    assert answer.status in (200, 201), answer.body


async def values(server: Server, start: int, stop_: int, host: str = "n1") -> None:
    """Write a sample a minute, in [start, stop) seconds from now on; its value is the minute."""
    await server.write(*(str(Point("x", host, k // 60, NOW + k)) for k in range(start, stop_, 60)))


def times(client: Client, name: str = "j") -> list[int]:
    """Return the times of the values that a client knows, in seconds from now on."""
    return sorted(time - NOW for _, time in client.told[name].table)


async def test_from_the_start_of_a_job_to_its_end(tmp_path: Path) -> None:
    """The job itself, what is stored of its time, what comes, and how it ended; then nothing any more."""
    async with following(tmp_path) as (server, client):
        await tell(server, "start_job", job(startTime=NOW - 300))
        await values(server, -600, -60)
        await client.follow("j", JOB)
        subscribed = await client.receive()
        assert (subscribed["op"], subscribed["resumed"]) == ("subscribed", False)
        assert subscribed["job"] == json.loads((await server.ask("GET", "/api/jobs/1001/")).body)
        described = await client.until("series")
        assert [(one["host"], one["metric"]) for one in described["series"]] == [("n1", "x")]
        assert (await client.until("data"))["from"] == NOW - 300
        assert times(client) == [-300, -240, -180, -120]
        await values(server, -60, 120)
        await client.until("data")
        assert times(client) == [-300, -240, -180, -120, -60, 0, 60]
        await tell(server, "stop_job", stop(stopTime=NOW + 60, jobState="failed"))
        assert await client.until("ended") == {
            "id": "j", "op": "ended", "state": "failed", "stopTime": NOW + 60,
        }  # fmt: skip
        assert times(client) == [-300, -240, -180, -120, -60, 0], "what is after the end is taken back"
        await values(server, 0, 60)
        await client.send(op="unsubscribe", id="j")
        assert await client.receive() == {
            "id": "j", "op": "error", "status": 400, "error": "id: 'j' is not subscribed",
        }  # fmt: skip


async def test_a_job_that_has_ended_already(tmp_path: Path) -> None:
    """All of its time that memory has, and its end at once; as `/api/query` by job answers it."""
    async with following(tmp_path) as (server, client):
        await tell(server, "start_job", job(startTime=NOW - 86400))
        await values(server, -86400 - 600, -86400 + 3600)
        await tell(server, "stop_job", stop(stopTime=NOW - 86400 + 1800))
        await client.follow("j", JOB)
        assert (await client.receive())["job"]["jobState"] == "completed"
        assert await client.until("ended") == {
            "id": "j", "op": "ended", "state": "completed", "stopTime": NOW - 86400 + 1800,
        }  # fmt: skip
        answer = json.loads(await server.query({**JOB, "with-padding": False}))["results"][0][0]
        assert client.told["j"].start == answer["from"] == NOW - 86400
        assert [value for _, value in sorted(client.told["j"].table.items())] == answer["data"]
        await client.follow("k", JOB, window=600)
        await client.until("ended", id="k")
        short = [time + 86400 for time in times(client, "k")]
        assert 10 <= len(short) <= 12
        assert 1200 - 120 < short[0] < short[-1] < 1800


async def test_a_job_without_a_second(tmp_path: Path) -> None:
    """One that ends when it begins has no values, and no error either."""
    async with following(tmp_path) as (server, client):
        await tell(server, "start_job", job())
        await values(server, -900, 0)
        await tell(server, "stop_job", stop(stopTime=NOW - 600))
        await client.follow("j", JOB)
        await client.until("ended")
        assert times(client) == []
        assert "error" not in client.told["j"].series[0]


async def test_a_stop_between_the_look_up_and_the_subscription(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry said that the job runs, and it does not any more: that is told all the same."""
    plan = lookup.plan_query

    async with following(tmp_path) as (server, client):

        async def plan_late(*args: Any) -> Any:
            assert args[1].state.value == "running"
            await server.services.events.stop_job(decode_job_stop(json.dumps(stop()).encode()))
            return await plan(*args)

        monkeypatch.setattr(lookup, "plan_query", plan_late)
        await tell(server, "start_job", job())
        await client.follow("j", JOB)
        assert (await client.receive())["job"]["jobState"] == "completed"
        assert (await client.until("ended"))["stopTime"] == NOW
        assert server.services.hub._searches == []


async def test_the_end_of_a_sweep(tmp_path: Path) -> None:
    """A job that nobody told of any more ends, too."""
    async with following(tmp_path) as (server, client):
        await tell(server, "start_job", job(walltime=60))
        await client.follow("j", JOB)
        await client.until("data")
        await server.services.events.stop_overdue(10)
        assert await client.until("ended") == {
            "id": "j", "op": "ended", "state": "failed", "stopTime": NOW - 540,
        }  # fmt: skip


async def test_only_the_job_that_is_meant_ends(tmp_path: Path) -> None:
    """A number comes again, on another cluster and on another day; without a start the newest is meant."""
    async with following(tmp_path) as (server, client):
        old = NOW - 5 * 86400
        await tell(server, "start_job", job(startTime=old))
        await tell(server, "start_job", job())
        await tell(server, "start_job", job(cluster="wild", resources=[{"hostname": "w1"}]))
        keys = {"old": {"startTime": old}, "new": {"cluster": "c"}, "wild": {"cluster": "wild"}}
        for name, key in keys.items():
            await client.follow(name, {"job": {"jobId": 1001, **key}, "metrics": ["x"]})
            await client.until("data", id=name)
        assert len(server.services.hub.feeds) == 3
        await tell(server, "stop_job", stop(startTime=old, stopTime=old + 60))
        assert (await client.until("ended"))["id"] == "old"
        await tell(server, "stop_job", stop(cluster="wild"))
        assert (await client.until("ended"))["id"] == "wild"
        (feed,) = [feed for feed in server.services.hub.feeds.values() if feed.end is None]
        assert isinstance(feed.key.query.job, JobKey)  # type: ignore[union-attr]


async def test_many_who_follow_the_same_job(tmp_path: Path) -> None:
    """However they name it, it is read once; a part of a host has its series."""
    async with following(tmp_path) as (server, client), connected(server.port) as other:
        await server.write(str(Point("m", "n1", 1, NOW - 60, component="type=socket,type-id=1")))
        await tell(server, "start_job", job())
        wanted = {"job": {"jobId": 1001}, "metrics": ["m"], "scope": "socket"}
        await client.follow("j", wanted)
        await client.until("data")
        await other.follow("k", {**wanted, "job": {"cluster": "c", "jobId": 1001, "startTime": NOW - 600}})
        await other.until("data")
        assert len(server.services.hub.feeds) == 1
        assert other.told["k"].series[0]["type-ids"] == ["1"]
        assert list(other.told["k"].table.values()) == [1.0]
        await tell(server, "stop_job", stop())
        await client.until("ended")
        await other.until("ended")


async def test_resume(tmp_path: Path) -> None:
    """Who comes back goes on, and learns of an end that came meanwhile."""
    async with following(tmp_path) as (server, client):
        await tell(server, "start_job", job())
        await values(server, -300, -120)
        await client.follow("j", JOB)
        await client.until("data")
        token = client.told["j"].token
        await values(server, -120, 0)
        await client.until("data")
        await tell(server, "stop_job", stop())
        await client.until("ended")
        async with connected(server.port) as again:
            again.told["j"] = client.told["j"]
            await again.follow("j", JOB, resume=token)
            assert (await again.receive())["resumed"]
            assert (await again.receive())["values"] == [[0, [NOW - 120, NOW - 60], [-2.0, -1.0]]]
            assert (await again.until("ended"))["stopTime"] == NOW
        async with connected(server.port) as again:
            await again.follow("j", JOB, resume="0123456789abcdef.7")
            assert not (await again.receive())["resumed"]
            assert (await again.until("series"))["reset"]
            await again.until("ended")
            assert times(again) == [-300, -240, -180, -120, -60]


_WINDOW = "message.window: wanted an integer from 1 to 604800"
_NUMBER = "body.job.jobId: 0 (wanted a number above 0)"
_METRICS = "body.metrics: empty (wanted the names of metrics)"
BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"job": {"cluster": "c", "jobId": 7}, "metrics": ["x"]}, 404, "job 7 of cluster 'c': not found"),
    ({"job": {"cluster": "c", "jobId": 0}, "metrics": ["x"]}, 400, _NUMBER),
    ({"job": {"cluster": "c", "jobId": 7}}, 400, _METRICS),
    ({"job": {"jobId": 7}, "metrics": ["x"], "window": 0}, 400, _WINDOW),
    ({"job": {"jobId": 7}, "metrics": ["x"], "form": 0}, 400, "message: unknown key 'form'"),
    ({"job": 5, "metrics": ["x"]}, 400, "body.job: 5 (wanted an object)"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "status", "text"), BAD, ids=[text for _, _, text in BAD])
async def test_what_is_refused(tmp_path: Path, message: Any, status: int, text: str) -> None:
    """It is an error of the message, and its name is free afterwards."""
    async with following(tmp_path) as (server, client):
        for _ in range(2):
            await client.follow("j", message)
            assert await client.receive() == {"id": "j", "op": "error", "status": status, "error": text}
        assert server.services.hub.statistics.refused == 2


async def test_a_registry_that_does_not_answer(tmp_path: Path) -> None:
    """It is 503 after a while; other subscriptions of the connection do not wait for it."""
    async with following(tmp_path) as (server, client):
        registry = server.services.registry
        busy = trio.Event()

        async def read(*_: Any) -> Any:
            await busy.wait()

        registry.longest_wait, registry.read = 0.3, read  # type: ignore[method-assign]
        await client.follow("j", JOB)
        await client.follow("k", JOB)
        await client.subscribe("a", {"cluster": "c", "queries": [{"metric": "x", "host": "n1"}]})
        await client.send(op="unsubscribe", id="k")
        assert (await client.receive())["id"] == "a"
        assert await client.until("unsubscribed") == {"id": "k", "op": "unsubscribed"}
        answer = await client.until("error")
        assert (answer["id"], answer["status"]) == ("j", 503)
        assert answer["error"].startswith("registry: busy for 0.3 s")


async def test_look_ups_count_as_subscriptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a client has no more of them under way than it may have subscriptions."""
    monkeypatch.setattr(session, "MAX_SUBSCRIPTIONS", 2)
    async with following(tmp_path) as (server, client):
        started, may_go = [], trio.Event()
        find = server.services.hub.find_job

        async def find_late(wanted: Any) -> Any:
            started.append(wanted)
            await may_go.wait()
            return await find(wanted)

        server.services.hub.find_job = find_late
        await tell(server, "start_job", job())
        for name in "jklj":
            await client.follow(name, JOB)
        errors = [await client.until("error") for _ in range(2)]
        assert [(one["id"], one["status"]) for one in errors] == [("l", 429), ("j", 400)]
        may_go.set()
        assert {(await client.until("subscribed"))["id"] for _ in range(2)} == {"j", "k"}
        assert len(started) == 2


async def test_the_window_of_a_large_job_is_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches as far back as there may be values; too many series are refused."""
    monkeypatch.setattr(hub, "MAX_VALUES", 12)
    async with following(tmp_path) as (server, client):
        hosts = [{"hostname": f"n{k}"} for k in (1, 2, 3)]
        await tell(server, "start_job", job(startTime=NOW - 6000, numNodes=3, resources=hosts))
        await values(server, -6000, 0)
        await client.follow("j", JOB)
        data = await client.until("data")
        assert NOW - 240 - 60 <= data["from"] <= NOW - 240
        server.services.hub.max_series = 2
        await client.follow("k", {**JOB, "metrics": ["load"]})
        answer = await client.until("error")
        assert answer["error"] == "query: more series than 2 (wanted fewer)"


async def test_a_bug_in_a_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs that subscription alone, and the log has the traceback."""
    async with following(tmp_path) as (server, client):
        monkeypatch.setattr(lookup, "plan_query", lambda *_: 1 / 0)
        await tell(server, "start_job", job())
        await client.follow("j", JOB)
        assert (await client.receive())["status"] == 500
        assert "ZeroDivisionError" in caplog.text
        await client.subscribe("a", {"cluster": "c", "for-all-nodes": ["x"]})
        await client.until("data")


async def test_a_locked_database_can_be_read(tmp_path: Path) -> None:
    """Somebody who holds the lock for writers does not hold up who looks a job up."""
    async with following(tmp_path) as (server, client):
        await tell(server, "start_job", job())
        with locked(f"{tmp_path}/jobs.db"):
            await client.follow("j", JOB)
            await client.until("data")


def test_the_query_of_a_stream_is_that_of_http() -> None:
    """Both name metrics, scope and resolution by the same keys."""
    body = {**JOB, "scope": "core", "resolution": 300}
    request = decode_request(json.dumps({"op": "subscribe", "id": "j", **body}))
    assert isinstance(request, Subscribe)
    assert request.wanted == JobWanted(decode_question(json.dumps(body).encode()), 0, False)  # type: ignore[arg-type]
