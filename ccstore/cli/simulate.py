"""The command ``simulate``: a site of any size, for a store to receive.

Owns the options. What a site is stands in `site`, when it sends in `player`, how in `publish`, and what is
seen meanwhile in `progress`.
"""

import math
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import attrs
import click
import orjson
import trio
from rich.console import Console

from ccstore.cli import ExitCode
from ccstore.cli.client import DEFAULT_URL
from ccstore.cli.interrupt import run_until_signal
from ccstore.cli.player import Player, Schedule
from ccstore.cli.progress import describe_tally, grouped, show_progress
from ccstore.cli.publish import Publisher, open_publisher
from ccstore.cli.site import MIXED, NODE_TYPES, Detail, Site, make_site
from ccstore.config import parse_duration
from ccstore.errors import CcstoreError

__all__ = ["SendError", "command", "duration", "simulate"]

_EPILOG = """
\b
Examples:
  ccstore simulate                                    100 hosts to a store on this machine
  ccstore simulate --hosts 2000 --skew 3s --to http://store:8082
  ccstore simulate --history 2h --duration 0s         the past two hours, and no more
  ccstore simulate --to nats://broker:4222 --subject metrics
  ccstore simulate --duration 5m --json > sent.json

The first interval begins at the next full multiple of --interval. What was sent is counted and
printed at the end: hold it against the "lines" of GET /api/stats. The exit code is 1 if something
was refused or lost.
"""
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_CLUSTER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def duration(
    *, least: float = 0.0, whole: bool = False
) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Return the callback of an option such as ``90s`` or ``1h30m``; the parameter gets seconds."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
        if text is None:
            return None
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            raise click.BadParameter(f"{error} (got {text!r}, wanted one such as 90s)", ctx, param) from error
        if seconds < least or (whole and seconds % 1):
            kind = "whole seconds" if whole else "a duration"
            raise click.BadParameter(f"got {text!r}, wanted {kind}, at least {least:g} s", ctx, param)
        return seconds

    return read


class SendError(CcstoreError):
    """Not everything that was sent has arrived."""


def _cluster(ctx: click.Context, param: click.Parameter, name: str) -> str:
    if name and not _CLUSTER.fullmatch(name):
        raise click.BadParameter(f"got {name!r}, wanted letters, digits, - and _", ctx, param)
    return name


@click.command("simulate", epilog=_EPILOG, context_settings={"show_default": True})
@click.option(
    "--to",
    "url",
    metavar="URL",
    default=DEFAULT_URL,
    help="http://, https://, nats:// or tls:// address.",
)
@click.option("--subject", default="metrics", help="NATS: the subject to publish on.")
@click.option(
    "--creds",
    metavar="PATH",
    default="",
    show_default=False,
    help="NATS: credentials file; user, password or token can stand in the URL.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="CCSTORE_TOKEN",
    default="",
    show_default=False,
    show_envvar=True,
    help="HTTP: shown to the server.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 256),
    default=4,
    help="HTTP: messages under way at a time.",
)
@click.option("--hosts", type=click.IntRange(1, 1_000_000), default=100, help="How many hosts.")
@click.option(
    "--topology",
    type=click.Choice([MIXED, *NODE_TYPES]),
    default=MIXED,
    help="Their hardware.",
)
@click.option(
    "--detail",
    type=click.Choice([detail.value for detail in Detail]),
    default=Detail.USUAL.value,
    help="How many series a host has: about 50, 400 to 750, or twice that.",
)
@click.option(
    "--cluster",
    metavar="NAME",
    default="",
    show_default=False,
    callback=_cluster,
    help="The cluster of all hosts (default: one for each topology).",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Another seed, other jobs and values.",
)
@click.option(
    "--interval",
    metavar="DURATION",
    callback=duration(least=1, whole=True),
    default="60s",
    help="Between two samples of a series.",
)
@click.option(
    "--skew",
    metavar="DURATION",
    callback=duration(),
    default="0s",
    help="From the first host to the last, in each interval.",
)
@click.option(
    "--history",
    metavar="DURATION",
    callback=duration(),
    default="0s",
    help="Fill in so much of the past first, as fast as possible.",
)
@click.option(
    "--duration",
    metavar="DURATION",
    default=None,
    callback=duration(),
    help="Stop after so long (default: at Ctrl-C).",
)
@click.option("--batch", type=click.IntRange(1), default=1, help="Hosts a message.")
@click.option("--rate", type=click.IntRange(1), default=None, help="Lines a second, at most.")
@click.option(
    "--precision",
    type=click.Choice(list(_TICKS)),
    default="s",
    help="Unit of the timestamps.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the count as JSON.")
def command(*, as_json: bool, **options: Any) -> ExitCode:
    """Publish the metrics of a simulated site over NATS or HTTP.

    Its hosts have the topologies of real ones; jobs come and go on them, and compute, wait, write, leak,
    or forget to do anything. The same options give the same values at the same time, always.
    """
    site, schedule = _site(**options), _schedule(**options)
    simulation = partial(
        simulate, site, _publishing(**options), schedule, console=Console(stderr=True), now=time.time
    )
    player, code = trio.run(simulation, strict_exception_groups=True)
    tally = player.publisher.tally
    click.echo(orjson.dumps(describe(player)).decode() if as_json else describe_tally(tally))
    if tally.failed:
        raise SendError(f"{grouped(tally.failed)} messages were not stored: {tally.last_error}")
    return code


def _site(*, hosts: int, topology: str, detail: str, cluster: str, seed: int, **_others: object) -> Site:
    return make_site(hosts, topology=topology, cluster=cluster, detail=Detail(detail), seed=seed)


def _schedule(
    *,
    interval: float,
    skew: float,
    batch: int,
    precision: str,
    history: float,
    duration: float | None,
    rate: int | None,
    **_others: object,
) -> Schedule:
    if skew >= interval:
        raise click.BadParameter("not shorter than the interval", param_hint="'--skew'")
    return Schedule(
        interval=int(interval),
        skew=skew,
        batch=batch,
        ticks=_TICKS[precision],
        history=history,
        duration=math.inf if duration is None else duration,
        rate=math.inf if rate is None else rate,
    )


def _publishing(
    *, url: str, connections: int, token: str, subject: str, creds: str, **_others: object
) -> AbstractAsyncContextManager[Publisher]:
    return open_publisher(url, connections=connections, token=token, subject=subject, creds=creds)


async def simulate(
    site: Site,
    publishing: AbstractAsyncContextManager[Publisher],
    schedule: Schedule,
    *,
    console: Console,
    now: Callable[[], float],
) -> tuple[Player, ExitCode]:
    """Play a site until the schedule ends or a signal comes; return who played, with the final count."""
    async with publishing as publisher:
        click.echo(
            f"{grouped(site.hosts)} hosts, {grouped(site.series)} series, to {publisher.where}", err=True
        )
        player = Player(site, publisher, schedule, now)
        async with show_progress(player, console) as told:
            code = await run_until_signal(partial(_play, player, told))
    return player, code


async def _play(player: Player, told: Callable[[], None]) -> None:
    await player.play_past()
    if player.intervals:
        told()
    await player.play_present(told=told)


def describe(player: Player) -> dict[str, Any]:
    """Return everything that was counted as a value for JSON."""
    return {
        "hosts": player.site.hosts,
        "series": player.site.series,
        "intervals": player.intervals,
        "longest_lag_seconds": round(player.longest_lag, 3),
        **attrs.asdict(player.publisher.tally),
    }
