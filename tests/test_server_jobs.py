"""Starts and stops of jobs over HTTP and NATS: the same checks, in the same order, with the same effect."""

import json
from pathlib import Path
from typing import Any

import pytest
from scheduler_tools import TRANSPORTS, job, scheduling, stop
from service_tools import NOW

pytestmark = pytest.mark.timeout(60)

DAY = 86400
START = NOW - 600


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Every test runs over both."""
    return str(request.param)


async def test_a_job_from_its_start_to_its_end(transport: str, tmp_path: Path) -> None:
    """It is stored as running, and then with the state and the time of its end."""
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("start_job", job(jobState="failed")) == "done"
        assert scheduler.jobs() == [(1001, "c", START, "running")]
        assert await scheduler.send("stop_job", stop(jobState="timeout")) == "done"
        assert scheduler.jobs() == [(1001, "c", START, "timeout")]
        assert scheduler.rows("SELECT duration, subcluster FROM job") == [(600, "main")]
        if scheduler.answer is not None:
            ended = json.loads(scheduler.answer.body)
            assert ended | job(jobState="timeout", duration=600, subCluster="main") == ended
            assert ended["id"] == scheduler.rows("SELECT id FROM job")[0][0]


BAD_STARTS: dict[str, tuple[Any, str]] = {
    "empty": ("", "empty"),
    "not JSON": ("{", "not JSON"),
    "unknown key": (job(color="red"), "color"),
    "wrong type": (job(jobId="1001"), "jobId"),
    "fraction": (job(jobId=1001.5), "jobId"),
    "no job id": (job(jobId=None), "jobId"),
    "negative job id": (job(jobId=-1), "jobId"),
    "no start": (job(startTime=None), "startTime"),
    "start in milliseconds": (job(startTime=START * 1000), "startTime"),
    "no cluster": (job(cluster=None), "cluster"),
    "unknown cluster": (job(cluster="d"), "cluster"),
    "unknown subcluster": (job(subCluster="x"), "subCluster"),
    "host in no list": (job(resources=[{"hostname": "x1"}]), "node list"),
    "no resources": (job(resources=[]), "resources"),
    "no user": (job(user=""), "user"),
    "no nodes": (job(numNodes=0), "numNodes"),
    "other number of nodes": (job(numNodes=2), "numNodes"),
    "negative threads": (job(numHwthreads=-1), "numHwthreads"),
    "negative accelerators": (job(numAcc=-1), "numAcc"),
    "odd sharing": (job(shared="maybe"), "shared"),
    "odd monitoring": (job(monitoringStatus=4), "monitoringStatus"),
    "long name": (job(user="u" * 256), "user"),
    "host without a name": (job(subCluster="main", resources=[{"hostname": ""}]), "hostname"),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_bad_starts(transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is refused with a reason that names what is wrong, and nothing is stored."""
    async with scheduling(transport, tmp_path) as scheduler:
        for name, (event, reason) in BAD_STARTS.items():
            caplog.clear()
            assert (name, await scheduler.send("start_job", event)) == (name, "refused")
            if scheduler.answer is not None:
                error = json.loads(scheduler.answer.body)
                assert (name, scheduler.answer.status, error["status"]) == (name, 400, "Bad Request")
                assert reason in error["error"]
            else:
                assert [r.levelname for r in caplog.records if reason in r.getMessage()] == ["ERROR"], name
        assert scheduler.jobs() == []


async def test_the_first_mistake_is_told(
    transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the order of the contract: cluster, subcluster, resources and user, counts, number of resources."""
    broken: dict[str, Any] = {"cluster": "d", "subCluster": "x", "resources": [], "user": "", "numAcc": -1}
    mended = [
        ("cluster", "c"),
        ("subCluster", "main"),
        ("resources", [{"hostname": "n1"}] * 2),
        ("user", "u"),
    ]
    async with scheduling(transport, tmp_path) as scheduler:
        for key, value in [*mended, ("numAcc", 0), ("numNodes", 2)]:
            caplog.clear()
            assert await scheduler.send("start_job", job(**broken)) == "refused"
            told = scheduler.answer.body.decode() if scheduler.answer else caplog.text
            assert f"body.{key}" in told
            broken[key] = value
        assert await scheduler.send("start_job", job(**broken)) == "done"


@pytest.mark.parametrize(
    ("difference", "outcome"),
    [(0, "refused"), (DAY - 1, "refused"), (-DAY + 1, "refused"), (DAY, "done"), (-DAY, "done")],
)
@pytest.mark.parametrize("table", ["job_cache", "job"])
async def test_duplicates(transport: str, tmp_path: Path, difference: int, outcome: str, table: str) -> None:
    """One of the same number within a day, before or after, is the same job, in either table (D-117)."""
    async with scheduling(transport, tmp_path) as scheduler:
        tags = [{"type": "t", "name": "n"}] if table == "job" else None
        assert await scheduler.send("start_job", job(tags=tags)) == "done"
        assert scheduler.rows(f"SELECT count(*) FROM {table}") == [(1,)]
        assert await scheduler.send("start_job", job(startTime=START + difference)) == outcome
        if scheduler.answer is not None:
            assert scheduler.answer.status == (422 if outcome == "refused" else 201)
        assert await scheduler.send("start_job", job(cluster="wild")) == "done"
        assert await scheduler.send("start_job", job(jobId=1002)) == "done"


async def test_tags_are_stored(transport: str, tmp_path: Path) -> None:
    """With the scope of everybody unless there is another one; the reference loses them over NATS (D-99)."""
    tags = [{"type": "t", "name": "a"}, {"type": "t", "name": "b", "scope": "u", "id": 7}]
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("start_job", job(tags=tags)) == "done"
        assert scheduler.rows(
            "SELECT job.job_id, tag_type, tag_name, tag_scope FROM jobtag JOIN job ON job.id = jobtag.job_id "
            "JOIN tag ON tag.id = jobtag.tag_id ORDER BY tag_name"
        ) == [(1001, "t", "a", "global"), (1001, "t", "b", "u")]


BAD_STOPS: dict[str, tuple[Any, int]] = {
    "empty": ("", 400),
    "not JSON": ("[", 400),
    "unknown key": (stop(color="red"), 400),
    "wrong type": (stop(stopTime="now"), 400),
    "no job id": (stop(jobId=None), 400),
    "not running": (stop(jobId=1002), 422),
    "before its start": (stop(stopTime=START - 1), 400),
    "without a time": (stop(stopTime=None), 400),
    "unknown state": (stop(jobState="done"), 400),
    "state running": (stop(jobState="running"), 400),
    "state pending": (stop(jobState="pending"), 400),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_bad_stops(transport: str, tmp_path: Path) -> None:
    """Each is refused with the status of the contract, and the job runs on."""
    async with scheduling(transport, tmp_path) as scheduler:
        assert await scheduler.send("start_job", job()) == "done"
        assert await scheduler.send("start_job", job(jobId=1002)) == "done"
        assert await scheduler.send("stop_job", stop(jobId=1002)) == "done"
        before = scheduler.jobs()
        for name, (event, status) in BAD_STOPS.items():
            assert (name, await scheduler.send("stop_job", event)) == (name, "refused")
            if scheduler.answer is not None:
                assert (name, scheduler.answer.status) == (name, status)
        assert scheduler.jobs() == before


async def test_which_job_is_stopped(transport: str, tmp_path: Path) -> None:
    """The newest with the number, unless cluster or start tell; an end without a state is completed."""
    async with scheduling(transport, tmp_path) as scheduler:
        for cluster in ("c", "wild"):
            for start in (START - DAY, START):
                assert await scheduler.send("start_job", job(cluster=cluster, startTime=start)) == "done"
        assert await scheduler.send("stop_job", stop(startTime=START - DAY)) == "done"
        assert await scheduler.send("stop_job", stop(cluster=None)) == "done"
        assert scheduler.jobs() == [
            (1001, "c", START - DAY, "completed"),
            (1001, "c", START, "running"),
            (1001, "wild", START - DAY, "running"),
            (1001, "wild", START, "completed"),
        ]


async def test_the_subcluster_is_that_of_the_first_host(transport: str, tmp_path: Path) -> None:
    """Unless the scheduler names one."""
    async with scheduling(transport, tmp_path) as scheduler:
        hosts = [{"hostname": "g2"}, {"hostname": "n1"}]
        assert await scheduler.send("start_job", job(resources=hosts, numNodes=2)) == "done"
        assert await scheduler.send("start_job", job(jobId=2, subCluster="gpu")) == "done"
        assert await scheduler.send("start_job", job(jobId=3, cluster="wild")) == "done"
        found = scheduler.rows("SELECT job_id, subcluster FROM job_cache ORDER BY job_id")
        assert found == [(2, "gpu"), (3, "all"), (1001, "gpu")]
