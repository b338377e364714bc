"""The command ``demo``: a store with something in it, on this machine, in a few seconds.

Owns the set-up: a server with embedded defaults, a small simulated cluster that sends to it over
HTTP like any other, and a panel that tells where to look. Invariant: it needs no file, and nobody
on another machine can reach it. What it writes lies in a temporary directory.

Both run in one nursery. The cluster stops first; when what it has sent is acknowledged, the server
does. What both have counted is compared at the end, because nothing shall get lost.
"""

import math
import shlex
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
import httpx
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ccstore.cli import ExitCode
from ccstore.cli.figures import amount
from ccstore.cli.interrupt import run_until_signal
from ccstore.cli.player import Player, Schedule
from ccstore.cli.progress import grouped, show_progress
from ccstore.cli.publish import Publisher, open_publisher
from ccstore.cli.scheduler import Scheduler, write_cluster
from ccstore.cli.simulate import SendError, duration
from ccstore.cli.site import Site, make_site
from ccstore.cli.warmup import compile_kernels
from ccstore.config import DEFAULT_METRICS, CheckpointsConfig, Config, MainConfig, MetricStoreConfig
from ccstore.config.clusterfile import read_clusters
from ccstore.errors import ConfigError
from ccstore.server import service

__all__ = ["command", "demo"]

_EPILOG = """
\b
Examples:
  ccstore demo                     16 hosts, one hour of the past, then a sample every 10 s
  ccstore demo --hosts 200         more of them
  ccstore demo --port 9000         at another port; by default 8082 or the next free one
  ccstore demo --duration 1m       ends by itself

What it writes is in a temporary directory, which goes with it; Ctrl-C ends it.
"""
CLUSTER = "birch"
HOST = "127.0.0.1"
PORT = 8082
_PORTS = 100
"""How many ports are tried."""
_REFRESH = 2.0
"""Seconds between two looks at the server."""
_BATCH = 64
"""Hosts a message, at most: some megabytes."""
_TELLING = {
    "dense": ("flops_any", "compute bound"),
    "stencil": ("mem_bw", "memory bound"),
    "climate": ("lustre_write_bw", "writes now and then"),
    "molecular": ("ib_recv", "bound by communication"),
    "sweep": ("cpu_load", "badly balanced"),
    "assembly": ("mem_used", "takes more and more memory"),
    "training": ("acc_utilization", "epochs on accelerators"),
    "notebook": ("cpu_load", "forgotten"),
}
"""The metric that shows what an application is like, and that in words."""
_JOBS = 3
"""How many of the running jobs are suggested, the largest first."""
_HOSTS = 4
"""How many of a job's hosts."""


@click.command("demo", epilog=_EPILOG, context_settings={"show_default": True})
@click.option("--hosts", type=click.IntRange(1, 10_000), default=16, help="How many hosts.")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=None,
    help=f"Where to listen on {HOST} (default: {PORT}, or the next one that is free).",
)
@click.option(
    "--interval",
    metavar="DURATION",
    callback=duration(least=1, whole=True),
    default="10s",
    help="Between two samples of a series.",
)
@click.option(
    "--history",
    metavar="DURATION",
    callback=duration(),
    default="1h",
    help="Of the past, to begin with.",
)
@click.option(
    "--duration",
    metavar="DURATION",
    default=None,
    callback=duration(),
    help="Stop after so long (default: at Ctrl-C).",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Another seed, other jobs.")
def command(
    hosts: int, port: int | None, interval: float, history: float, duration: float | None, seed: int
) -> ExitCode:
    """Run a store with a simulated cluster, to look at."""
    compile_kernels()
    console = Console()
    if port is None:
        port = find_port()
        if port != PORT:
            console.print(f"port {PORT} is taken, so this is at {port}")
    schedule = Schedule(
        interval=int(interval),
        batch=min(hosts, _BATCH),
        history=history,
        duration=math.inf if duration is None else duration,
    )
    site = make_site(hosts, cluster=CLUSTER, seed=seed)
    with tempfile.TemporaryDirectory(prefix="ccstore-demo-") as directory:
        config = make_config(port, directory, site, frequency=int(interval))
        code: ExitCode = trio.run(
            partial(demo, config, site, schedule, console, now=time.time), strict_exception_groups=True
        )
    return code


def find_port() -> int:
    """Return the usual port, or the next one that is free. Raises ConfigError if none is."""
    for port in range(PORT, PORT + _PORTS):
        try:
            socket.create_server((HOST, port)).close()
        except OSError:  # taken; any other reason comes up again when the server listens
            continue
        return port
    raise ConfigError(f"--port: none is free (got {PORT} to {PORT + _PORTS - 1}, wanted --port with another)")


def make_config(port: int, directory: str, site: Site, *, frequency: int) -> Config:
    """Return the embedded configuration: this machine alone, the usual metrics, so many seconds apart.

    Its cluster is that of the site, whose file is written into the directory.
    """
    write_cluster(site, CLUSTER, Path(directory) / "job-archive")
    metrics = {name: attrs.evolve(metric, frequency=frequency) for name, metric in DEFAULT_METRICS.items()}
    checkpoints = CheckpointsConfig(directory=f"{directory}/checkpoints")
    return Config(
        main=MainConfig(addr=f"{HOST}:{port}", db=f"{directory}/job.db"),
        metrics=metrics,
        metric_store=MetricStoreConfig(checkpoints=checkpoints),
        clusters=read_clusters(f"{directory}/job-archive").clusters,
    )


async def demo(
    config: Config, site: Site, schedule: Schedule, console: Console, *, now: Callable[[], float]
) -> ExitCode:
    """Run a server and play a site to it until the schedule ends or a signal comes."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(service.run, config, stop=stop.wait))
        async with _client(url) as client:
            async with open_publisher(url) as publisher:
                player = Player(site, publisher, schedule, now)
                code = await run_until_signal(partial(_play, player, client, console))
            await _report(publisher, client, console)
        stop.set()
    if publisher.tally.failed:
        raise SendError(f"{publisher.tally.failed} messages were not stored: {publisher.tally.last_error}")
    return code


def _client(url: str) -> httpx.AsyncClient:
    """Return a client for this server alone, without certificates, which take long to load."""
    return httpx.AsyncClient(base_url=url, trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def _play(player: Player, client: httpx.AsyncClient, console: Console) -> None:
    async with show_progress(player, console):
        await player.play_past()
    scheduler = Scheduler(player.site, CLUSTER, client)
    await scheduler.tell(int(player.now()))
    for line in describe(player.site, str(client.base_url).rstrip("/"), int(player.now()), console.width):
        console.print(line, soft_wrap=True, highlight=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_schedule, scheduler, player)
        if console.is_terminal:
            nursery.start_soon(_show_status, player, scheduler, client, console)
        await player.play_present()
        nursery.cancel_scope.cancel()


def describe(site: Site, url: str, now: int, width: int) -> list[Text]:
    """Return the lines of the panel: what this is, where it is, and what to try on it.

    There is no frame, and a command never shares its line with something that does not fit, so that
    it can be copied whatever the width (columns) of the terminal.
    """
    past = f"{grouped(site.hosts)} hosts of the cluster {CLUSTER}, {grouped(site.series)} series"
    commands = suggest(site, url, now)
    job = max(site.running_jobs(now), key=lambda job: len(job.hosts), default=None)
    longest = max(len(command) for command, _ in commands)
    if 4 + longest + 3 + max(len(about) for _, about in commands) < width:
        lines = [
            Text.assemble("    ", (f"{command:{longest}}", "green"), "   ", (about, "dim"))
            for command, about in commands
        ]
    else:
        lines = [
            line
            for command, about in commands
            for line in (Text(f"  # {about}", "dim"), Text.assemble("  ", (command, "green")), Text())
        ][:-1]
    return [
        Text(),
        Text.assemble("  ", ("ccstore demo", "bold"), f"   {past}"),
        Text(),
        Text("  Open in a browser:"),
        Text(),
        Text.assemble("    ", (url, "bold cyan")),
        *([Text.assemble("    ", (f"{url}/#/job/{CLUSTER}/{job.job_id}", "cyan"))] if job else []),
        Text(),
        Text("  Try in another terminal:"),
        Text(),
        *lines,
        Text(),
    ]


def suggest(site: Site, url: str, now: int) -> list[tuple[str, str]]:
    """Return commands that show something at a time (s), each with what that is."""
    where = "" if url == f"http://{HOST}:{PORT}" else f" --url {url}"
    query = f"{program()} query"
    found = [
        (f"{query}{where}", "what there is"),
        (f"{program()} nodes{where}", "states and health of the nodes"),
        (f"{program()} jobs{where}", "the jobs that run"),
    ]
    jobs = {job.application: job for job in sorted(site.running_jobs(now), key=lambda job: len(job.hosts))}
    for job in [job for job in jobs.values() if job.application in _TELLING][-_JOBS:][::-1]:
        metric, about = _TELLING[job.application]
        hosts = ",".join(job.hosts[:_HOSTS])
        found.append((f"{query} {metric} --host {hosts}{where}", f"{about}, a job of {job.user}"))
    _, host, _ = site.host_names[0]
    found.append((f"{query} flops_any --host {host} --type hwthread --ids 0-3{where}", "single threads"))
    found.append((f"{program()} status{where}", "how the store is"))
    return found


def program() -> str:
    """Return how this program is called in another terminal, where no environment may be activated."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m ccstore"
    if sys.prefix == sys.base_prefix:
        return path.name
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


async def _schedule(scheduler: Scheduler, player: Player) -> None:
    """Tell of nodes and jobs once an interval, for ever."""
    while True:
        await trio.sleep(player.schedule.interval)
        await scheduler.tell(int(player.now()))


async def _show_status(
    player: Player, scheduler: Scheduler, client: httpx.AsyncClient, console: Console
) -> None:
    """Show how the server is, for ever."""
    before, intervals_before = (await _look(client))["lines"]["received"], player.intervals
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            stats = await _look(client)
            # Over whole intervals: lines come in bursts, and nobody wants to see them as a pace.
            seconds = (player.intervals - intervals_before) * player.schedule.interval
            pace = (stats["lines"]["received"] - before) / seconds if seconds else 0.0
            live.update(
                Text(_status(stats, pace, scheduler), no_wrap=True, overflow="ellipsis"), refresh=True
            )
            await trio.sleep(_REFRESH)


def _status(stats: Mapping[str, Any], pace: float, scheduler: Scheduler) -> str:
    jobs = amount(len(scheduler.jobs), "job")
    numbers = (
        time.strftime("%H:%M:%S"),
        f"{grouped(pace)} lines/s",
        f"{grouped(stats['series'])} series",
        f"{scheduler.busy} of {grouped(scheduler.site.hosts)} nodes busy, {jobs}",
        f"{(stats['samples_bytes'] + stats['keys_bytes']) / 1e6:.1f} MB",
        f"loop held {stats['loop_hold_seconds_max'] * 1e3:.0f} ms at most",
        "Ctrl-C ends it",
    )
    return "  " + "   ".join(numbers)


async def _look(client: httpx.AsyncClient) -> Any:
    """Ask the server how it is."""
    answer = await client.get("/api/stats")
    return answer.raise_for_status().json()


async def _report(publisher: Publisher, client: httpx.AsyncClient, console: Console) -> None:
    """Say what was sent and what the server has of it."""
    lines = (await _look(client))["lines"]
    console.print(
        f"{grouped(publisher.tally.sent.lines)} lines were sent, {grouped(lines['received'])} received, "
        f"{grouped(lines['stored'] + lines['overwritten'])} stored",
        highlight=False,
    )
