"""The command ``demo``: a server and a cluster in one process, and where to look."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import httpx
import pytest
import trio
from cli_screen import Screen, read_until
from querying import warm_up
from rich.console import Console
from trio.testing import MockClock

import ccstore.cli.demo
from ccstore.cli import ExitCode, main
from ccstore.cli.demo import command, demo, describe, find_port, make_config, program, suggest
from ccstore.cli.player import Schedule
from ccstore.cli.site import make_site
from ccstore.config import DEFAULT_METRICS, is_loopback
from ccstore.errors import ConfigError

ROOT = Path(__file__).parents[1]
NOW = 1_700_000_040
URL = "http://127.0.0.1:8082"

pytestmark = pytest.mark.timeout(120)


async def run(schedule, screen, *, hosts=4, terminal=False, now=lambda: NOW + 1.0):
    """Run a demo at any free port."""
    warm_up()
    console = Console(file=screen, force_terminal=terminal, width=120)
    site = make_site(hosts, cluster="birch")
    config = make_config(0, "./var", site, frequency=schedule.interval)
    return await demo(config, site, schedule, console, now=now)


async def test_a_demo_ends_by_itself_with_both_counts(monkeypatch):
    """What was sent is what was received and stored, and the panel stood before it."""
    monkeypatch.setattr(sys, "argv", ["ccstore", "demo"])
    screen = Screen()
    code = await run(Schedule(interval=10, history=600, batch=4, duration=0), screen)
    text = screen.getvalue()
    assert code == ExitCode.OK
    assert "4 hosts of the cluster birch" in text
    assert "ccstore query" in text
    sent, received, stored = re.findall(
        r"([\d ]+) lines were sent, ([\d ]+) received, ([\d ]+) stored\n$", text
    )[0]
    assert sent == received == stored
    assert int(sent.replace(" ", "")) == 60 * make_site(4).series
    assert "\x1b" not in text


async def test_a_demo_tells_of_nodes_and_jobs():
    """When the panel stands, the server knows every node, and the jobs that run."""
    screen, site = Screen(), make_site(4, cluster="birch")
    async with trio.open_nursery() as nursery:
        schedule = Schedule(interval=10, history=600, batch=4)
        nursery.start_soon(partial(run, schedule, screen))
        url = (await screen.wait(r"http://[\d.:]+"))[0]
        async with httpx.AsyncClient(base_url=url) as client:
            nodes = (await client.get("/api/nodes/")).json()["nodes"]
            jobs = (await client.get("/api/jobs/?state=running")).json()["jobs"]
        nursery.cancel_scope.cancel()
    running = site.running_jobs(NOW + 1)
    busy = {host for job in running for host in job.hosts}
    assert {node["hostname"]: node["state"] for node in nodes} == {
        host: "allocated" if host in busy else "idle" for _, host, _ in site.host_names
    }
    assert {node["subcluster"] for node in nodes} == {kind for _, _, kind in site.host_names}
    assert sorted(job["jobId"] for job in jobs) == sorted(job.job_id for job in running)


async def test_a_live_demo_goes_on_and_can_be_asked(autojump_clock: MockClock):
    """After the past, each interval is sent in time, and the server answers meanwhile."""
    autojump_clock.autojump_threshold = 0.05
    screen, base = Screen(), NOW + 1.0 - trio.current_time()
    site = make_site(4)
    async with trio.open_nursery() as nursery:
        schedule = Schedule(interval=10, history=60, batch=4, duration=45)
        nursery.start_soon(partial(run, schedule, screen, now=lambda: base + trio.current_time()))
        url = (await screen.wait(r"http://[\d.:]+"))[0]
        async with httpx.AsyncClient(base_url=url) as client:
            begin = (await client.get("/api/stats")).json()
            assert begin["lines"]["stored"] == begin["lines"]["received"] == 6 * site.series
            await trio.sleep(30)
            later = (await client.get("/api/stats")).json()
            assert later["lines"]["stored"] == later["lines"]["received"] == 9 * site.series
            assert later["series"] == site.series
    (sent,) = re.findall(r"([\d ]+) lines were sent", screen.getvalue())
    assert int(sent.replace(" ", "")) == 10 * site.series


async def test_on_a_terminal_there_is_a_status_line(autojump_clock: MockClock):
    """It tells the pace over whole intervals, so it does not jump with every burst."""
    autojump_clock.autojump_threshold = 0.05
    screen, base = Screen(), NOW + 1.0 - trio.current_time()
    series = make_site(4).series
    schedule = Schedule(interval=10, history=60, batch=4, duration=45)
    await run(schedule, screen, terminal=True, now=lambda: base + trio.current_time())
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue())
    paces = [int(pace.replace(" ", "")) for pace in re.findall(r"   ([\d ]+) lines/s   [\d ]+ series", text)]
    assert len(paces) > 10
    assert set(paces) == {0, round(series / 10)}
    assert re.search(r"   \d+\.\d MB   loop held \d+ ms at most   Ctrl-C ends it", text)


async def test_what_is_suggested_works():
    """Every command of the panel finds something, with the hosts and metrics that it names."""
    screen = Screen()
    async with trio.open_nursery() as nursery:
        schedule = Schedule(interval=10, history=1800, batch=16)
        async with trio.open_nursery() as running:
            running.start_soon(partial(run, schedule, screen, hosts=16))
            url = (await screen.wait(r"http://[\d.:]+"))[0]
            await screen.wait("how the store is")
            commands = [line for line, _ in suggest(make_site(16, cluster="birch"), url, NOW)]
            assert len(commands) == 8
            for line in commands[1:]:
                arguments = shlex.split(line.removeprefix(program()))
                assert arguments[0] in ("query", "nodes", "jobs", "status")
                times = ["--cluster", "birch", "--from", str(NOW - 600), "--to", str(NOW)]
                times = times if arguments[0] == "query" else []
                assert await trio.to_thread.run_sync(main.run, [*arguments, *times]) == ExitCode.OK
            running.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def test_suggestions_name_hosts_and_metrics_of_the_site():
    """At any time, with any seed, and the largest job first."""
    for seed in range(20):
        site = make_site(16, cluster="birch", seed=seed)
        hosts = {host for _, host, _ in site.host_names}
        suggested = [line for line, _ in suggest(site, URL, NOW + seed * 5000)]
        assert suggested[0] == f"{program()} query"
        assert suggested[1:3] == [f"{program()} nodes", f"{program()} jobs"]
        assert suggested[-1] == f"{program()} status"
        for line in suggested[3:-1]:
            metric, option, names = line.removeprefix(f"{program()} query ").split()[:3]
            assert metric in DEFAULT_METRICS
            assert option == "--host"
            assert set(names.split(",")) <= hosts
        assert "--url" not in " ".join(suggested)


def test_another_port_is_in_every_suggestion():
    """Nobody has to think of it."""
    site = make_site(16, cluster="birch")
    assert all(
        "--url http://127.0.0.1:9000" in line for line, _ in suggest(site, "http://127.0.0.1:9000", NOW)
    )


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_command_can_be_copied_at_any_width(width):
    """It shares its line only with what fits beside it, and is never cut."""
    site = make_site(16, cluster="birch")
    lines = [line.plain.rstrip() for line in describe(site, URL, NOW, width)]
    for wanted, about in suggest(site, URL, NOW):
        (line,) = [line for line in lines if re.match(rf" +{re.escape(wanted)}(   |$)", line)]
        assert len(line) < width or line.strip() == wanted
        assert (about in line) != (f"  # {about}" in lines)


def test_how_the_program_is_called(monkeypatch, tmp_path):
    """As it can be called in another terminal, where no environment may be active."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", "/venv")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "ccstore")])
    assert program() == ".venv/bin/ccstore"
    monkeypatch.setattr(sys, "argv", ["/opt/my venv/bin/ccstore"])
    assert program() == "'/opt/my venv/bin/ccstore'"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ccstore"])
    assert program() == "ccstore"
    monkeypatch.setattr(sys, "argv", ["/x/ccstore/__main__.py"])
    assert program() == f"{shlex.quote(sys.executable)} -m ccstore"


def test_the_embedded_configuration():
    """This machine alone, all usual metrics, at the pace of the demo."""
    config = make_config(8082, "./var", make_site(4, cluster="birch"), frequency=10)
    assert is_loopback(config.main.addr)
    assert {name: metric.frequency for name, metric in config.metrics.items()} == dict.fromkeys(
        DEFAULT_METRICS, 10
    )


def test_a_port_that_is_taken_is_stepped_over(monkeypatch):
    """The next free one is used; with none free, the operator is asked for one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ccstore.cli.demo, "PORT", port)
        assert find_port() > port
        monkeypatch.setattr(ccstore.cli.demo, "_PORTS", 1)
        with pytest.raises(ConfigError, match="--port"):
            find_port()


def test_a_port_that_was_asked_for_is_used_or_refused():
    """It is one line and exit code 1 if somebody else has it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "ccstore", "demo", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert (done.returncode, done.stdout) == (ExitCode.FAILED, "")
    assert done.stderr == f"ccstore: main.addr: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.OK)]
)
async def test_a_signal_ends_it_cleanly(number, code):
    """Both sides stop, their counts agree, and nothing is on stderr."""
    with socket.socket() as sock:  # a port that was free a moment ago
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    arguments = ["demo", "--hosts", "3", "--history", "5m", "--port", str(port)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "ccstore", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                cwd=ROOT,
            )
        )
        said = await read_until(process.stdout, b"how the store is")
        process.send_signal(number)
        said += b"".join([chunk async for chunk in process.stdout])
        complaints = b"".join([chunk async for chunk in process.stderr])
        await process.wait()
    assert (process.returncode, complaints) == (code, b"")
    sent, received, stored = re.findall(
        rb"([\d ]+) lines were sent, ([\d ]+) received, ([\d ]+) stored\n$", said
    )[0]
    assert sent == received == stored


def test_the_page_of_the_command_line_has_every_option():
    """docs/reference/cli.md lists the options of `demo` with their defaults, and no others."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## demo\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    context = click.Context(command)
    defaults = {param.opts[0]: param.get_default(context) for param in command.params}
    rows = dict(re.findall(r"^\|[^|]*\| `(--[a-z]+)[^|]*` \| ?([^|]*?) \|", section, re.MULTILINE))
    assert sorted(rows) == sorted(defaults)
    for name, default in rows.items():
        assert default == ("" if defaults[name] is None else f"`{defaults[name]}`"), name
