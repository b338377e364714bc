"""Who may report, which hosts are in use because of it, and what of them lasts."""

import json
import os
from pathlib import Path

import pytest
import service_tools
from attrs import evolve
from scheduler_tools import (
    job,
    report,
    scheduling,
    stop,
    with_clusters,
)
from service_tools import (
    NOW,
    fill,
    get,
    make_config,
    post,
    running,
    stored,
)
from serving import ask

from ccstore.server import jobs
from ccstore.server.upkeep import free_old
from ccstore.server.used_nodes import join_providers, lonely_provider

pytestmark = pytest.mark.timeout(60)


# --- who may, and which hosts are in use


@pytest.mark.parametrize(
    ("allowed", "permitted"),
    [((), True), (("*",), True), (("127.0.0.1",), True), (("10.0.0.1", "::ffff:127.0.0.1"), True),
     (("10.0.0.1",), False), (("10.0.0.1", "*"), False)],
    ids=["none", "all", "one", "mapped", "other", "star behind"],
)  # fmt: skip
async def test_addresses(allowed: tuple[str, ...], permitted: bool, tmp_path: Path) -> None:
    """The address of the connection counts and no header; one alias of the reference is open to all."""
    async with scheduling("http", tmp_path, api_allowed_ips=allowed) as scheduler:
        port, body = scheduler.server.port, json.dumps(report(("n1", ["down"]))).encode()
        headers = [("X-Real-Ip", "10.0.0.1"), ("X-Forwarded-For", "10.0.0.1")]
        for path in ("/api/nodestate", "/api/nodestats", "/api/healthcheck"):
            status = (await ask(port, "POST", path, headers, body)).status
            assert status == (200 if permitted or path == "/api/healthcheck" else 403)
        for path in ("/api/jobs/start_job", "/api/jobs/stop_job"):
            assert (await ask(port, "PUT", path, headers, b"{")).status == (400 if permitted else 403)
        answer = await ask(port, "GET", "/api/jobs/used_nodes?ts=0", headers)
        assert answer.status == (200 if permitted else 403)


async def test_used_nodes(tmp_path: Path) -> None:
    """Hosts of running jobs that began before the time, sorted, each once, of both tables (D-46)."""
    async with scheduling("http", tmp_path) as scheduler:

        async def used(query: str) -> tuple[int, object]:
            answer = await get(scheduler.server, f"/api/jobs/used_nodes{query}")
            return answer.status, json.loads(answer.body).get("usedNodes")

        assert await used(f"?ts={NOW}") == (200, {})
        two = [{"hostname": "n2"}, {"hostname": "n1"}]
        assert await scheduler.send("start_job", job(resources=two, numNodes=2)) == "done"
        tags = [{"type": "t", "name": "n"}]
        assert await scheduler.send("start_job", job(jobId=2, tags=tags, startTime=NOW - 10)) == "done"
        assert await scheduler.send("start_job", job(jobId=3, cluster="wild")) == "done"
        assert await scheduler.send("stop_job", stop(jobId=3, cluster="wild")) == "done"
        assert await used(f"?ts={NOW}") == (200, {"c": ["n1", "n2"]})
        assert await used(f"/?ts={NOW - 600}") == (200, {})
        assert await used(f"?ts={NOW - 599}") == (200, {"c": ["n1", "n2"]})
        for bad in ("", "?ts=", "?ts=now", "?ts=1.5", "?ts=99999999999999999999"):
            assert await used(bad) == (400, None)


# --- what lasts


async def test_what_a_running_job_needs_stays_across_a_restart(tmp_path: Path) -> None:
    """Retention frees the samples of the other hosts alone, also right after the next start."""
    old = NOW - 100 * 3600
    config = service_tools.with_store(with_clusters(make_config()), retention_in_memory=48 * 3600.0)
    async with running(config) as server:
        begun = json.dumps(job(startTime=old - 60)).encode()
        assert (await post(server, "/api/jobs/start_job", begun)).status == 201
        await fill(server.services, service_tools.lines(["n1", "n2"], cluster="c", time=old))
        await free_old(server.services)
        assert stored(server.services, start=old - 3600, stop=NOW) == {("c", "n1"): [1]}
    async with running(config) as server:
        await server.services.wait_recovered()
        await free_old(server.services)
        ended = json.dumps(stop()).encode()
        assert (await post(server, "/api/jobs/stop_job", ended)).status == 200
        assert await server.services.used_nodes(NOW) == {}
        await free_old(server.services)


async def test_our_jobs_and_those_of_a_backend(tmp_path: Path) -> None:
    """With both, the hosts of either are in use; if one cannot tell, nobody knows."""

    async def backend(before: int) -> dict[str, list[str]]:
        return {"c": ["n1", "n9"], "d": ["x"]}

    async def silent(before: int) -> None:
        return None

    async with scheduling("http", tmp_path) as scheduler:
        own = scheduler.server.services.used_nodes
        assert await scheduler.send("start_job", job()) == "done"
        joined = await join_providers(own, backend, None)(NOW)
        assert joined == {"c": {"n1", "n9"}, "d": {"x"}}
        assert await join_providers(own, silent)(NOW) is None


async def test_who_is_asked_without_a_server(tmp_path: Path) -> None:
    """Our own database if it is there; it is not made by asking."""
    config = with_clusters(make_config())
    assert await lonely_provider(config)(NOW) == {}
    assert not is_there(config.main.db)
    async with running(config) as server:
        assert (await post(server, "/api/jobs/start_job", json.dumps(job()).encode())).status == 201
    assert await lonely_provider(config)(NOW) == {"c": {"n1"}}
    assert await lonely_provider(config)(NOW - 600) == {}


async def test_the_periodic_jobs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Started jobs move to the main table, durations are refreshed, and what is beyond its walltime ends."""
    async with scheduling("http", tmp_path) as scheduler:
        registry = scheduler.server.services.registry
        assert await scheduler.send("start_job", job(walltime=300)) == "done"
        await jobs.refresh_durations(registry, NOW)
        assert scheduler.rows("SELECT duration FROM job_cache") == [(600,)]
        await jobs.commit_cache(registry)
        assert scheduler.rows("SELECT job_state FROM job") == [("running",)]
        await jobs.stop_overdue(registry, NOW, 300)
        assert scheduler.rows("SELECT job_state FROM job") == [("running",)]
        await jobs.stop_overdue(registry, NOW, 299)
        assert scheduler.rows("SELECT job_state, duration FROM job") == [("failed", 300)]
        assert "beyond its walltime" in caplog.text


def is_there(path: str) -> bool:
    """Tell whether there is a file."""
    return os.path.exists(path)


async def test_nothing_is_opened_before_it_is_needed() -> None:
    """A site without clusters and events gets no database, until somebody asks for one."""
    config = evolve(make_config(), main=evolve(make_config().main, db="var/own.db"))
    async with running(config) as server:
        assert await server.services.used_nodes(NOW) == {}
        await free_old(server.services)
        assert not is_there("var/own.db")
        assert (await post(server, "/api/jobs/stop_job", json.dumps(stop()).encode())).status == 404
        assert is_there("var/own.db")
