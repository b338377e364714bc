"""Jobs and nodes for programs, against a real server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from apiserver import Server
from live_tools import live
from scheduler_tools import CLUSTERS, PATHS, job, report, stop
from serving import NOW
from test_cli_tail import tail
from test_client import client_of, point
from test_examples import program

from ccstore.client import JobEnd, ServerError
from ccstore.errors import UnavailableError
from ccstore.model import JobStop
from ccstore.server.live.jobs import Followed
from ccstore.wire.stream import JobWanted


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that knows a job and two nodes, and has two samples of the job."""
    async with live(clusters=CLUSTERS, db=f"{tmp_path}/registry.db") as running:
        body = report(("n1", ["allocated"]), ("n2", ["idle"]))
        assert (await running.ask("POST", PATHS["nodestate"], body)).status == 200
        assert (await running.ask("POST", PATHS["start_job"], job())).status == 201
        await running.write(*(point("x", "n1", k, 300 - 60 * k) for k in range(2)))
        yield running


async def test_a_job_until_it_ends(server: Server) -> None:
    """The loop ends when the job does, and what is known stays."""
    updates = 0
    async with client_of(server) as client, client.stream_job("c", 1001, ["x"]) as stream:
        async for update in stream:
            updates += 1
            if update.reset:
                assert (stream.job["jobId"], stream.start, stream.ended) == (1001, NOW - 600, None)
                await server.services.events.stop_job(JobStop(1001, NOW - 30, "c", state="timeout"))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert updates >= 1
    assert stream.ended == JobEnd("timeout", NOW - 30)
    assert stream.values(0)[1].tolist() == [0.0, 1.0]


async def test_a_job_that_ends_while_the_connection_is_lost(server: Server) -> None:
    """The next connection tells of it."""
    async with client_of(server) as client, client.stream_job("c", 1001, ["x"], window=3600) as stream:
        await anext(stream)
        assert stream._socket is not None
        await stream._socket._stream.aclose()
        await server.services.events.stop_job(JobStop(1001, NOW, "c"))
        async for _ in stream:
            pass
    assert (stream.reconnects, stream.ended) == (1, JobEnd("completed", NOW))


async def test_a_job_that_nobody_knows(server: Server) -> None:
    """It is an error; a registry that cannot be asked now is asked again."""
    async with client_of(server) as client:
        async with client.stream_job("c", 7, ["x"]) as stream:
            with pytest.raises(ServerError, match="404 job 7 of cluster 'c': not found") as caught:
                await anext(stream)
        assert caught.value.status == 404
        find, failures = server.services.hub.find_job, [UnavailableError("registry: locked")]

        async def find_later(wanted: JobWanted) -> Followed:
            if failures:
                raise failures.pop()
            return await find(wanted)

        server.services.hub.find_job = find_later
        async with client.stream_job("c", 1001, ["x"]) as stream:
            await anext(stream)
            assert (stream.reconnects, failures) == (1, [])


async def test_nodes(server: Server) -> None:
    """All of them, then those of which something is new; also after a lost connection."""
    async with client_of(server) as client, client.stream_nodes("c") as stream:
        update = await anext(stream)
        assert (update.reset, [node.hostname for node in update.nodes]) == (True, ["n1", "n2"])
        body = report({"hostname": "n2", "states": ["mixed"], "jobsRunning": 3})
        await server.ask("POST", PATHS["nodestate"], body)
        update = await anext(stream)
        assert (update.reset, [node.jobs_running for node in update.nodes]) == (False, [3])
        assert {host: node.state for host, node in stream.nodes.items()} == {"n1": "allocated", "n2": "mixed"}
        assert (stream.nodes["n1"].subcluster, stream.nodes["n1"].health_since) == ("main", NOW)
        assert stream._socket is not None
        await stream._socket._stream.aclose()
        assert (await anext(stream)).reset


async def test_tail_of_a_job(server: Server) -> None:
    """Lines of its hosts; the command ends with the job, and says how."""
    url = f"http://127.0.0.1:{server.port}"
    assert (await server.ask("POST", PATHS["stop_job"], stop(jobState="failed"))).status == 200
    code, output, errors = await tail(url, "x", "--job", "1001", "--cluster", "c")
    assert (code, output) == (0, f"x,n1,{NOW - 300},0\nx,n1,{NOW - 240},1\n")
    assert errors == "job 1001: failed\n"
    code, output, errors = await tail(url, "x", "--job", "1001", "--host", "n1", "--cluster", "c")
    assert (code, output) == (2, "")
    assert "a job has its own hosts" in errors


async def test_the_example(server: Server) -> None:
    """watch_job.py prints what comes in of a job, and how it ended."""
    assert (await server.ask("POST", PATHS["stop_job"], stop())).status == 200
    done = await program("watch_job.py", "c", "1001", "x", CCSTORE_URL=f"http://127.0.0.1:{server.port}")
    assert (done.returncode, done.stderr) == (0, b"")
    first, last = done.stdout.decode().splitlines()
    assert first.split()[1:] == ["n1", "x", "1.000"]
    assert last == "job 1001: completed"
