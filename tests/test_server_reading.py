"""Reading back what a scheduler said: nodes, their history, jobs, and the metrics of a job."""

from typing import Any

import pytest
from scheduler_tools import job, report, stop
from service_tools import NOW
from told_site import lines, running_site

pytestmark = pytest.mark.timeout(60)


async def test_the_state_of_nodes_and_since_when() -> None:
    """Each node with its newest record; a state that stays keeps the time at which it began."""
    async with running_site() as site:
        await site.write(
            *lines("cpu_load", "n1", [1]), *lines("mem_bw", "n1", [1]), *lines("mem_bw", "n2", [1])
        )
        busy = {"hostname": "n1", "states": ["ALLOCATED"], "jobsRunning": 2, "cpusAllocated": 4,
                "memoryAllocated": 1000, "gpusAllocated": 1}  # fmt: skip
        for minute in range(3):
            site.clock.now = NOW + 60 * minute
            idle = ("n2", ["IDLE"] if minute else ["DOWN"])
            await site.tell("/api/nodestate/", report(busy, idle))
        await site.tell("/api/nodestate/", report(("x", ["mixed"]), cluster="d"))
        found = (await site.get("/api/nodes/"))["nodes"]
        assert [(one["cluster"], one["hostname"]) for one in found] == [("c", "n1"), ("c", "n2"), ("d", "x")]
        assert found[0] == {
            "cluster": "c", "subcluster": "main", "hostname": "n1", "state": "allocated", "health": "full",
            "degraded": [], "missing": [], "reported": NOW + 120, "since": NOW, "healthSince": NOW,
            "jobsRunning": 2, "cpusAllocated": 4, "memoryAllocated": 1000, "gpusAllocated": 1,
        }  # fmt: skip
        shown = {key: found[1][key] for key in ("state", "health", "missing", "since", "healthSince")}
        assert shown == {
            "state": "idle", "health": "partial", "missing": ["cpu_load"], "since": NOW + 60,
            "healthSince": NOW + 60,
        }  # fmt: skip
        for query, hosts in {
            "cluster=d": ["x"],
            "cluster=c&cluster=d&state=idle&state=mixed": ["n2", "x"],
            "subcluster=main&health=full": ["n1"],
            "health=partial": ["n2"],
            "state=IDLE": ["n2"],
            "cluster=": ["n1", "n2", "x"],
            "cluster=e": [],
        }.items():
            found = (await site.get(f"/api/nodes?{query}"))["nodes"]
            assert (query, [one["hostname"] for one in found]) == (query, hosts)


async def test_the_history_of_a_node() -> None:
    """Newest first, in a range, and only so many."""
    async with running_site() as site:
        for minute, state in enumerate(("idle", "allocated", "down")):
            site.clock.now = NOW + 60 * minute
            await site.tell("/api/nodestate/", report(("n1", [state])))
        told = await site.get("/api/nodes/c/n1/")
        head = {key: told[key] for key in ("cluster", "subcluster", "hostname")}
        assert head == {"cluster": "c", "subcluster": "main", "hostname": "n1"}
        assert [(one["time"], one["state"], one["health"]) for one in told["states"]] == [
            (NOW + 120, "down", "full"), (NOW + 60, "allocated", "failed"), (NOW, "idle", "failed"),
        ]  # fmt: skip
        for query, times in {
            "limit=1": [NOW + 120],
            f"from={NOW + 60}": [NOW + 120, NOW + 60],
            f"to={NOW + 60}": [NOW],
            f"from={NOW + 500}": [],
        }.items():
            told = await site.get(f"/api/nodes/c/n1?{query}")
            assert (query, [one["time"] for one in told["states"]]) == (query, times)
            assert told["subcluster"] == "main"
        assert await site.get("/api/nodes/c/n2", 404) == {
            "status": "Not Found", "error": "node 'n2' of cluster 'c': not found",
        }  # fmt: skip


async def test_jobs_running_and_recent() -> None:
    """Newest start first, with filters; a running job has run until now."""
    async with running_site() as site:
        other = {"cluster": "d", "user": "v", "project": "q", "resources": [{"hostname": "b1"}]}
        await site.tell("/api/jobs/start_job/", job(metaData={"a": "b"}, walltime=3600))
        await site.tell("/api/jobs/start_job/", job(jobId=1002, startTime=NOW - 60, **other))
        await site.tell("/api/jobs/stop_job/", stop(jobId=1002, cluster="d", jobState="failed"))
        found = (await site.get("/api/jobs/"))["jobs"]
        assert [(one["jobId"], one["jobState"], one["duration"]) for one in found] == [
            (1002, "failed", 60), (1001, "running", 600),
        ]  # fmt: skip
        assert found[1] | job(metaData={"a": "b"}, walltime=3600, subCluster="main") == found[1]
        for query, numbers in {
            "state=running": [1001],
            "state=running&state=failed&limit=1": [1002],
            "user=v": [1002],
            "project=p&project=q": [1002, 1001],
            "host=n1": [1001],
            "host=n2": [],
            "cluster=c": [1001],
        }.items():
            found = (await site.get(f"/api/jobs/?{query}"))["jobs"]
            assert (query, [one["jobId"] for one in found]) == (query, numbers)


async def test_one_job_by_its_number() -> None:
    """The newest of those with the number; cluster and start tell which is meant."""
    async with running_site() as site:
        for start in (NOW - 900_000, NOW - 600):
            await site.tell("/api/jobs/start_job/", job(startTime=start))
        assert (await site.get("/api/jobs/1001/"))["startTime"] == NOW - 600
        assert (await site.get(f"/api/jobs/1001?startTime={NOW - 900_000}"))["startTime"] == NOW - 900_000
        assert (await site.get("/api/jobs/1001?cluster=c"))["jobState"] == "running"
        assert (await site.get("/api/jobs/7", 404))["error"] == "job 7: not found"
        assert (await site.get("/api/jobs/1001?cluster=d", 404))[
            "error"
        ] == "job 1001 of cluster 'd': not found"


async def test_parameters_that_mean_nothing() -> None:
    """They are refused with what was wanted."""
    async with running_site() as site:
        for target, error in {
            "/api/nodes?state=drain": "state: 'drain' (wanted one of "
            "allocated, reserved, idle, mixed, down, unknown)",
            "/api/nodes?health=good": "health: 'good' (wanted one of full, partial, failed)",
            "/api/nodes/c/n1?from=yesterday": "from: 'yesterday' (wanted seconds since the epoch)",
            "/api/nodes/c/n1?limit=0": "limit: '0' (wanted a number from 1 to 10000)",
            "/api/jobs?limit=10001": "limit: '10001' (wanted a number from 1 to 10000)",
            "/api/jobs/0": "job: 0 (wanted a number above 0, and below 2^60)",
            f"/api/jobs/{2**60 + 1}": f"job: {2**60 + 1} (wanted a number above 0, and below 2^60)",
            "/api/jobs/1?startTime=-1": "startTime: '-1' (wanted seconds since the epoch)",
        }.items():
            assert await site.get(target, 400) == {"status": "Bad Request", "error": error}
        statuses = {
            "/api/jobs/x": 404,
            "/api/nodes/c": 404,
            "/api/nodes/c/n1/x": 404,
            "/api/jobs/start_job": 405,
        }
        for target, status in statuses.items():
            assert (target, (await site.ask("GET", target)).status) == (target, status)


# --- queries by job


def shown(answer: Any) -> list[tuple[Any, ...]]:
    """Return what an answer tells of each query: metric, host, ids, and the values of each row."""
    return [
        (query["metric"], query["host"], query.get("type-ids"), [row.get("data") for row in rows])
        for query, rows in zip(answer["queries"], answer["results"], strict=True)
    ]


RESOURCES = [{"hostname": "n1", "hwthreads": [2, 3], "accelerators": ["g1"]}, {"hostname": "n2"}]


@pytest.mark.parametrize(
    ("scope", "n1", "n2"),
    [
        ("socket", ["1"], ["0", "1"]),
        ("memoryDomain", ["0"], ["0"]),
        ("core", ["2", "3"], ["0", "1", "2", "3"]),
        ("hwthread", ["2", "3"], ["0", "1", "2", "3"]),
        ("accelerator", ["g1"], ["g0", "g1"]),
    ],
)
async def test_the_parts_of_hosts_that_a_job_has(scope: str, n1: list[str], n2: list[str]) -> None:
    """Those that the scheduler named, or that have what it named, or else all; none loses its place."""
    async with running_site(strict_reference=True) as site:
        await site.tell("/api/jobs/start_job/", job(numNodes=2, resources=RESOURCES))
        ids = {"n1": n1, "n2": n2}
        for host, parts in ids.items():
            for k, part in enumerate(parts):
                if (host, k) != ("n2", 0):
                    await site.write(*lines("mem_bw", host, [k, k], f"type={scope},type-id={part}"))
        question = {"job": {"cluster": "c", "jobId": 1001}, "metrics": ["mem_bw"], "scope": scope}
        answer = await site.query(question | {"with-padding": False})
        assert [(query["type"], query["type-ids"]) for query in answer["queries"]] == [
            (scope, n1),
            (scope, n2),
        ]
        values = [[[k, k] if (host, k) != ("n2", 0) else None for k, _ in enumerate(parts)]
                  for host, parts in ids.items()]  # fmt: skip
        if n2 == ["0"]:
            values[1] = []
        assert [[row.get("data") for row in rows] for rows in answer["results"]] == values


async def test_a_job_on_whole_hosts() -> None:
    """Metric by metric, host by host; the range is that of the job, and the answer says of which."""
    async with running_site() as site:
        await site.tell("/api/jobs/start_job/", job(numNodes=2, resources=RESOURCES, startTime=NOW - 240))
        for host in ("n1", "n2"):
            await site.write(*lines("cpu_load", host, range(10)), *lines("mem_bw", host, [1] * 10))
        question = {"JOB": {"jobId": 1001}, "metrics": ["cpu_load", "mem_bw"]}
        answer = await site.query(question)
        assert answer["job"] == {"cluster": "c", "jobId": 1001, "startTime": NOW - 240, "jobState": "running"}
        assert (answer["from"], answer["to"]) == (NOW - 240, NOW)
        assert shown(answer) == [
            ("cpu_load", "n1", None, [[6, 7, 8, 9]]), ("cpu_load", "n2", None, [[6, 7, 8, 9]]),
            ("mem_bw", "n1", None, [[1, 1, 1, 1]]), ("mem_bw", "n2", None, [[1, 1, 1, 1]]),
        ]  # fmt: skip
        await site.tell("/api/jobs/stop_job/", stop(stopTime=NOW - 60, startTime=NOW - 240))
        answer = await site.query(question)
        assert (answer["job"]["jobState"], answer["job"]["stopTime"]) == ("completed", NOW - 60)
        assert shown(answer)[0][3] == [[6, 7, 8]]
        inside = question | {"from": NOW - 180, "to": NOW - 120, "with-stats": False}
        assert shown(await site.query(inside))[0][3] == [[7]]
        outside = await site.query(question | {"from": 0, "to": NOW + 1000})
        assert (outside["from"], outside["to"]) == (NOW - 240, NOW - 60)


async def test_without_a_topology_the_parts_are_those_that_are_stored() -> None:
    """In the order of their numbers."""
    async with running_site() as site:
        await site.tell(
            "/api/jobs/start_job/", job(cluster="d", resources=[{"hostname": "y"}], subCluster="all")
        )
        for core in (10, 9, 1):
            await site.write(*lines("cpu_load", "y", [core], f"type=core,type-id={core}", cluster="d"))
        question = {"job": {"cluster": "d", "jobId": 1001}, "metrics": ["cpu_load"], "with-padding": False}
        answer = await site.query(question | {"scope": "core"})
        assert shown(answer) == [("cpu_load", "y", ["1", "9", "10"], [[1], [9], [10]])]
        assert shown(await site.query(question | {"scope": "socket"})) == [("cpu_load", "y", [], [])]


async def test_questions_by_job_that_cannot_be_answered() -> None:
    """Each says why; a metric that is not stored is an error of its rows alone."""
    async with running_site(max_query_selectors=7) as site:
        await site.tell("/api/jobs/start_job/", job(numNodes=2, resources=RESOURCES))
        good = {"job": {"cluster": "c", "jobId": 1001}, "metrics": ["mem_bw"]}
        for change, status, error in (
            ({"job": {"jobId": 5}}, 404, "job 5: not found"),
            ({"job": {}}, 400, "body.job.jobId: 0 (wanted a number above 0)"),
            ({"job": 5}, 400, "body.job: 5 (wanted an object)"),
            ({"job": {"id": 5}}, 400, 'body.job: unknown key "id"'),
            ({"metrics": []}, 400, "body.metrics: empty (wanted the names of metrics)"),
            ({"scope": "rack"}, 400,
             "body.scope: 'rack' (wanted one of node, socket, memoryDomain, core, hwthread, accelerator)"),
            ({"queries": []}, 400, 'body: unknown key "queries"'),
            ({"scope": "hwthread", "metrics": ["mem_bw", "cpu_load"]}, 400, "query: more than 7 selectors"),
        ):  # fmt: skip
            assert (await site.query(good | change, status))["error"] == error
        answer = await site.query(good | {"metrics": ["x"]})
        assert [row[0]["error"] for row in answer["results"]] == ["unknown metric: x"] * 2
