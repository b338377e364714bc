"""The commands nodes and jobs against a real server that a scheduler has told of both."""

import json
import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import trio
from cli_screen import read_until
from querying import ZONE
from scheduler_tools import job, report, stop
from service_tools import NOW
from told_site import lines, running_site

from ccstore.cli import ExitCode, main, nodes
from ccstore.cli.listing import age

OK, FAILED, USAGE = ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine in Central Europe without a terminal, two minutes after the first report."""
    for name in ("CCSTORE_URL", "CCSTORE_TOKEN", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    monkeypatch.setattr(nodes, "_now", lambda: NOW + 120)
    yield
    monkeypatch.undo()
    time.tzset()


async def run(site, *arguments):
    """Run a command in a thread and return its exit code."""
    url = site.server.url
    return await trio.to_thread.run_sync(main.run, [arguments[0], "--url", url, *arguments[1:]])


async def fill(site):
    """Tell of three nodes and three jobs."""
    await site.write(*lines("cpu_load", "n1", [1]), *lines("mem_bw", "n1", [1]), *lines("mem_bw", "n2", [1]))
    busy = {"hostname": "n1", "states": ["ALLOCATED"], "jobsRunning": 2, "cpusAllocated": 4}
    for minute in range(2):
        site.clock.now = NOW + 60 * minute
        await site.tell("/api/nodestate/", report(busy, ("n2", ["IDLE"] if minute else ["DOWN"])))
    await site.tell("/api/nodestate/", report(("n1", ["down"]), cluster="d"))
    hosts = [{"hostname": f"n{k}"} for k in range(1, 6)]
    await site.tell(
        "/api/jobs/start_job/", job(numNodes=5, resources=hosts, walltime=90_000, partition="large")
    )
    other = {"cluster": "d", "user": "v", "resources": [{"hostname": "b1", "hwthreads": [0, 1]}]}
    await site.tell(
        "/api/jobs/start_job/", job(jobId=1002, startTime=NOW - 60, metaData={"jobName": "x"}, **other)
    )
    await site.tell("/api/jobs/stop_job/", stop(jobId=1002, cluster="d", jobState="timeout"))


def rows_of(text):
    """Return the first line, and the cells of the others: there are two spaces at least between two."""
    first, *rest = text.splitlines()
    return first.strip(), [re.split(r" {2,}", line.strip()) for line in rest]


async def test_nodes(capsys):
    """A line for each, with its state, its health, since when, and what is missing."""
    async with running_site() as site:
        await fill(site)
        assert await run(site, "nodes") == OK
        title, rows = rows_of(capsys.readouterr().out)
        assert title == "3 nodes; 1 allocated, 1 idle, 1 down; 2 full, 1 partial"
        assert rows == [
            ["host", "cluster", "subcluster", "state", "health", "since", "jobs", "CPUs", "told", "metrics"],
            ["n1", "c", "main", "allocated", "full", "2m00s", "2", "4", "1m00s"],
            ["n2", "c", "main", "idle", "partial", "1m00s", "1m00s", "missing: cpu_load"],
            ["n1", "d", "all", "down", "full", "1m00s", "1m00s"],
        ]
        assert await run(site, "nodes", "--cluster", "c", "--state", "IDLE,down", "--health", "partial") == OK
        title, rows = rows_of(capsys.readouterr().out)
        assert (title, [row[0] for row in rows]) == ("1 node; 1 idle; 1 partial", ["host", "n2"])
        assert await run(site, "nodes", "--subcluster", "none") == OK
        assert capsys.readouterr().out == "0 nodes\n"


async def test_one_node(capsys):
    """Everything that was told of it, the newest first; its cluster is found if only one has it."""
    async with running_site() as site:
        await fill(site)
        assert await run(site, "nodes", "n2") == OK
        title, rows = rows_of(capsys.readouterr().out)
        assert title == "n2, main of c"
        assert rows == [
            ["time", "state", "health", "metrics"],
            ["2023-11-14 23:14:20", "idle", "partial", "missing: cpu_load"],
            ["2023-11-14 23:13:20", "down", "full"],
        ]
        assert await run(site, "nodes", "n1", "--cluster", "d") == OK
        assert rows_of(capsys.readouterr().out)[0] == "n1, all of d"
        assert await run(site, "nodes", "n1") == FAILED
        assert await run(site, "nodes", "n9") == FAILED
        assert await run(site, "nodes", "n9", "--cluster", "c") == FAILED
        errors = capsys.readouterr().err.splitlines()
        assert errors[:2] == [
            "ccstore: nodes: 'n1' is in c, d (wanted one as --cluster NAME)",
            "ccstore: nodes: nobody has told of 'n9'",
        ]
        assert errors[2].endswith("404 Not Found: node 'n9' of cluster 'c': not found")


async def test_jobs(capsys):
    """Those that run, or all of them; a column without any text is left out."""
    async with running_site() as site:
        await fill(site)
        assert await run(site, "jobs") == OK
        title, rows = rows_of(capsys.readouterr().out)
        assert title == "1 job, 1 running"
        heads = ["user", "project", "partition", "state", "start", "duration", "walltime", "nodes", "hosts"]
        assert rows == [
            ["job", *heads],
            ["1001", "u", "p", "large", "running", "2023-11-14 23:03", "11m00s", "1d01h", "5", "n1 n2 n3 +2"],
        ]
        assert await run(site, "jobs", "--all") == OK
        title, rows = rows_of(capsys.readouterr().out)
        assert (title, [row[0] for row in rows]) == ("2 jobs, 1 timeout, 1 running", ["job", "1002", "1001"])
        for options in (["--state", "timeout"], ["--all", "--user", "v"], ["--all", "--host", "b1"],
                        ["--all", "--cluster", "d"], ["--all", "--limit", "1"]):  # fmt: skip
            assert await run(site, "jobs", *options) == OK
            assert [row[0] for row in rows_of(capsys.readouterr().out)[1]] == ["job", "1002"]


async def test_one_job(capsys):
    """What is known of it, with what it has of each host."""
    async with running_site() as site:
        await fill(site)
        assert await run(site, "jobs", "1002") == OK
        title, rows = rows_of(capsys.readouterr().out)
        assert title == "job 1002, timeout"
        assert rows[1:] == [
            ["cluster", "big of d"],
            ["user", "v"], ["project", "p"], ["start", "2023-11-14 23:12"], ["duration", "1m00s"],
            ["shared", "none"], ["meta: jobName", "x"], ["host", "b1 threads 0,1"],
        ]  # fmt: skip
        assert await run(site, "jobs", "7") == FAILED
        assert capsys.readouterr().err.endswith("404 Not Found: job 7: not found\n")


async def test_json_is_what_the_server_answers(capsys):
    """For programs."""
    async with running_site() as site:
        await fill(site)
        for command, target in (("nodes", "/api/nodes/"), ("jobs", "/api/jobs/?state=running")):
            assert await run(site, command, "--json") == OK
            assert json.loads(capsys.readouterr().out) == await site.get(target)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nodes", "--state", "drain"],
         "'drain' (wanted some of allocated, reserved, idle, mixed, down, unknown)"),
        (["nodes", "n1", "--state", "idle"], "a HOST with --subcluster, --state or --health"),
        (["nodes", "--watch"], "--watch with --json, or without a terminal"),
        (["nodes", "--watch", "0"], "not a number of whole seconds"),
        (["jobs", "--all", "--state", "failed"], "--all with --state"),
        (["jobs", "0"], "0 is not in the range"),
        (["jobs", "1", "--cluster", "a,b"], "a JOB with several clusters"),
        (["jobs", "--json", "--watch", "5"], "--watch with --json, or without a terminal"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_options_that_make_no_sense(arguments, error, capsys):
    """They are told before anybody is asked."""
    assert main.run(arguments) == USAGE
    assert error in capsys.readouterr().err


def test_ages_are_short():
    """Two units, so that a column of them is easy to compare."""
    ages = [-5, 0, 59, 60, 3599, 3600, 86399, 86400, 10**6]
    assert list(map(age, ages)) == [
        "0s",
        "0s",
        "59s",
        "1m00s",
        "59m59s",
        "1h00m",
        "23h59m",
        "1d00h",
        "11d13h",
    ]


async def test_watching_goes_on_until_it_is_ended():
    """On a terminal the list is drawn again, and what fits not is counted; Ctrl-C ends it with 130."""
    async with running_site() as site:
        nodes_told = [(f"x{k}", ["idle"]) for k in range(40)]
        await site.tell("/api/nodestate/", report(*nodes_told, cluster="d"))
        command = [sys.executable, "-m", "ccstore", "nodes", "--watch", "1", "--url", site.server.url]
        master, slave = os.openpty()
        environment = {**os.environ, "TERM": "xterm", "LINES": "20", "COLUMNS": "100"}
        async with trio.open_nursery() as nursery:
            ends = {"stdin": slave, "stdout": slave, "stderr": slave}
            run_it = partial(trio.run_process, command, **ends, env=environment, check=False)
            process = await nursery.start(run_it)
            os.close(slave)
            async with trio.lowlevel.FdStream(master) as screen:
                shown = await read_until(screen, b"and 24 more")
                await site.tell("/api/nodestate/", report(("x0", ["down"]), cluster="d"))
                await read_until(screen, b"39 idle, 1 down")
                process.send_signal(signal.SIGINT)
                assert await process.wait() == ExitCode.INTERRUPTED
    assert b"40 nodes; 40 idle; 40 failed" in shown


async def test_the_tables_of_the_manual(capsys):
    """They are those of these tests."""
    manual = (Path(__file__).parents[1] / "docs" / "reference" / "cli.md").read_text()
    async with running_site() as site:
        await fill(site)
        for command in ("nodes", "jobs"):
            assert await run(site, command) == OK
            shown = capsys.readouterr().out
            for line in shown.splitlines():
                assert f"    {line.rstrip()}\n" in manual
