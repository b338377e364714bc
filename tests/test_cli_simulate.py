"""The command ``simulate``: what it sends is what a store receives, to the line."""

import io
import json
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import click
import httpx
import orjson
import pytest
import trio
from cli_screen import read_until
from nats_broker import open_broker
from querying import warm_up
from rich.console import Console

from ccstore.cli import ExitCode, main
from ccstore.cli.player import Player, Schedule
from ccstore.cli.progress import describe_tally, picture
from ccstore.cli.publish import Count, Tally, open_publisher
from ccstore.cli.simulate import command, describe, simulate
from ccstore.cli.site import make_site
from ccstore.config import Config, MainConfig, MetricStoreConfig, NatsConfig, NatsSubscription
from ccstore.server import service

ROOT = Path(__file__).parents[1]
NOW = 1_700_000_040
"""A full minute, long ago."""
PLAIN = Console(file=io.StringIO(), width=100)

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def store(**options):
    """Run a whole server; yield its URL."""
    warm_up()
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        config = Config(main=MainConfig(addr="127.0.0.1:0"), **options)
        (url,) = await nursery.start(partial(service.run, config, stop=stop.wait))
        yield url
        stop.set()


async def ledger(url):
    """Return the server's count of lines."""
    async with httpx.AsyncClient(base_url=url) as client:
        return (await client.get("/api/stats")).json()["lines"]


async def play(site, publishing, schedule, *, late=0.0):
    """Simulate at a time that stands still; return the player and the exit code."""
    return await simulate(site, publishing, schedule, console=PLAIN, now=lambda: NOW + late)


PAST = Schedule(history=300, skew=20, duration=0)
"""Half a minute after NOW: five intervals, NOW being the last."""
PRESENT = Schedule(duration=0, batch=4)
"""At a full minute: this interval alone."""


@pytest.mark.parametrize("connections", [1, 5])
async def test_over_http_everything_sent_is_received_and_stored(connections):
    """The past and the present, in small and in large messages: both counts agree to the line."""
    site, sent = make_site(30), Count()
    async with store() as url:
        for schedule, late, intervals in ((PAST, 30, 5), (PRESENT, 60, 1)):
            publishing = open_publisher(url, connections=connections)
            player, code = await play(site, publishing, schedule, late=late)
            tally = player.publisher.tally
            assert code == ExitCode.OK
            assert tally.sent == tally.acknowledged
            assert tally.sent.lines == intervals * site.series
            sent.add(tally.sent)
        lines = await ledger(url)
    assert lines["received"] == lines["stored"] == sent.lines
    assert sent.messages > 8
    assert lines["by_source"].keys() == {"http"}


async def test_over_nats_everything_sent_is_received_and_stored(tmp_path):
    """The broker passes on every message, and both counts agree to the line."""
    site, sent = make_site(30, cluster="over-nats"), Count()
    subscriptions = (NatsSubscription(subscribe_to="site.*"),)
    async with open_broker(tmp_path) as broker:
        config = {
            "nats": NatsConfig(address=broker.url),
            "metric_store": MetricStoreConfig(nats_subscriptions=subscriptions),
        }
        async with store(**config) as url:
            await subscribed(url)
            for schedule, late in ((PAST, 30), (PRESENT, 60)):
                player, code = await play(
                    site, open_publisher(broker.url, subject="site.one"), schedule, late=late
                )
                assert code == ExitCode.OK
                assert player.publisher.tally.sent == player.publisher.tally.acknowledged
                sent.add(player.publisher.tally.sent)
            while (lines := await ledger(url))["received"] < sent.lines:
                await trio.lowlevel.checkpoint()
    assert lines["received"] == lines["stored"] == sent.lines == 6 * site.series
    assert lines["by_source"].keys() == {"nats"}


async def subscribed(url):
    """Wait until the server is ready, which it is when it has subscribed."""
    async with httpx.AsyncClient(base_url=url) as client:
        while (await client.get("/api/health/ready")).status_code != 200:
            await trio.lowlevel.checkpoint()


async def test_sending_the_same_again_overwrites():
    """The values follow from the time, so a second run finds each slot taken, and each value the same."""
    site = make_site(3)
    schedule = Schedule(history=180, duration=0)
    async with store() as url:
        await play(site, open_publisher(url), schedule)
        await play(make_site(3), open_publisher(url), schedule)
        lines = await ledger(url)
    assert lines["stored"] == lines["overwritten"] == 4 * site.series


async def test_any_precision_means_the_same_second():
    """Milliseconds to nanoseconds are told apart by the store."""
    site = make_site(2)
    async with store() as url:
        for ticks in (1, 10**3, 10**6, 10**9):
            await play(site, open_publisher(url), Schedule(ticks=ticks, duration=0))
        lines = await ledger(url)
    assert (lines["stored"], lines["overwritten"]) == (site.series, 3 * site.series)


async def test_every_detail_and_topology_is_stored():
    """No series of any kind of host is refused, collapsed or unknown."""
    async with store() as url:
        sent = 0
        for detail in ("host", "full"):
            arguments = ["--detail", detail, "--hosts", "4", "--cluster", detail]
            done = await run(
                url, *arguments, "--history", "1m", "--interval", "60s", "--duration", "0s", "--json"
            )
            sent += json.loads(done.stdout)["acknowledged"]["lines"]
        async with httpx.AsyncClient(base_url=url) as client:
            stats = (await client.get("/api/stats")).json()
    assert stats["lines"]["stored"] == stats["lines"]["received"] == sent
    assert stats["collapsed_keys"] == 0


async def run(url, *arguments, check=True):
    """Run the command in a process of its own, as an operator does."""
    return await trio.run_process(
        [sys.executable, "-m", "ccstore", "simulate", "--to", url, *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=check,
        cwd=ROOT,
    )


async def test_the_count_is_printed_for_machines():
    """The JSON on stdout agrees with the server; a line for each interval is on stderr."""
    async with store() as url:
        done = await run(url, "--hosts", "5", "--history", "3m", "--duration", "0s", "--json")
        lines = await ledger(url)
    count = json.loads(done.stdout)
    assert count["sent"] == count["acknowledged"]
    assert count["sent"]["lines"] == lines["received"] == lines["stored"]
    assert count["series"] * count["intervals"] == count["sent"]["lines"]
    assert (count["hosts"], count["retries"], count["lost"]["messages"]) == (5, 0, 0)
    head, past, *_ = done.stderr.decode().splitlines()
    assert head.startswith("5 hosts, ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d  [34] intervals of the past  [\d ]+ lines  [\d ]+ lines/s", past)


async def test_the_count_is_printed_for_people():
    """A small table, in which everything that was sent was acknowledged."""
    async with store() as url:
        done = await run(url, "--hosts", "2", "--history", "1m", "--duration", "0s")
    rows = {line.split("  ")[0]: line for line in done.stdout.decode().splitlines()}
    assert list(rows) == ["", "sent", "acknowledged", "refused", "lost", "retried"]
    assert (
        rows["sent"].removeprefix("sent").split() == rows["acknowledged"].removeprefix("acknowledged").split()
    )


async def test_what_is_refused_makes_it_fail():
    """The exit code is 1, and the server's words are on one line."""
    async with store() as url:
        where = f"{url}/api/nothing"
        done = await run(where, "--hosts", "2", "--history", "1m", "--duration", "0s", check=False)
    assert done.returncode == ExitCode.FAILED
    assert re.search(rb"\nccstore: \d messages were not stored: http://.*: 404 .*\n$", done.stderr)


async def test_ctrl_c_ends_it_softly():
    """What is under way is finished and counted, the count is printed, and the exit code says the rest."""
    async with store() as url, trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [*(sys.executable, "-m", "ccstore", "simulate"), "--to", url, "--history", "2m", "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                cwd=ROOT,
            )
        )
        await read_until(process.stderr, b"intervals of the past")
        process.send_signal(signal.SIGINT)
        stdout = b"".join([chunk async for chunk in process.stdout])
        await process.wait()
        lines = await ledger(url)
    assert process.returncode == ExitCode.INTERRUPTED
    assert json.loads(stdout)["acknowledged"]["lines"] == lines["stored"] == lines["received"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--skew", "60s"], "invalid value for '--skew': not shorter than the interval"),
        (
            ["--interval", "1.5s"],
            "invalid value for '--interval': got '1.5s', wanted whole seconds, at least 1 s",
        ),
        (["--interval", "60"], "invalid value for '--interval': a duration needs a unit behind each number"),
        (["--history", "-1h"], "invalid value for '--history': got '-1h', wanted a duration, at least 0 s"),
        (["--cluster", "a b"], "invalid value for '--cluster': got 'a b', wanted letters, digits, - and _"),
        (["--hosts", "0"], "invalid value for '--hosts': 0 is not in the range"),
        (["--topology", "pi"], "invalid value for '--topology': 'pi' is not one of"),
    ],
)
def test_wrong_usage(arguments, what, capsys):
    """Nothing is sent, and one line says what is wanted."""
    assert main.run(["simulate", *arguments]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"ccstore: simulate: {what}")


@pytest.mark.parametrize("url", ["store", "http://h:x", "nats://"])
def test_an_address_that_makes_no_sense(url, capsys):
    """It is one line on stderr and exit code 1."""
    assert main.run(["simulate", "--to", url]) == ExitCode.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ccstore: ")
    assert "address" in line


def test_the_page_of_the_command_line_has_every_option():
    """docs/reference/cli.md lists the options of `simulate` with their defaults, and no others."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## simulate\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    options, context = {param.opts[0]: param for param in command.params}, click.Context(command)
    rows = dict(re.findall(r"^\|[^|]*\| `(--[a-z]+)[^|]*` \| ?([^|]*?) \|", section, re.MULTILINE))
    assert list(rows) == list(options)
    for name, default in rows.items():
        value = options[name].get_default(context)
        assert default == ("" if value in (None, "") or value is False else f"`{value}`"), name


# What is seen meanwhile.


def shown(player, width=60):
    """Return the lines of the picture of a player."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(picture(player, width - 2))
    return [line.rstrip() for line in console.export_text().splitlines()]


def player_at(time, **state):
    """Return a player that is somewhere."""
    player = Player(make_site(20), Idle(), Schedule(), lambda: NOW + 12.0)
    player.time = NOW + time
    for name, value in state.items():
        setattr(player, name, value)
    return player


@attrs.define(eq=False)
class Idle:
    """A publisher to look at."""

    tally: Tally = attrs.Factory(Tally)
    where: str = "nowhere"
    most_bytes: int = 1
    state: str = ""


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_past_is_shown_by_a_bar(width):
    """How far it is, how much was sent and how fast; never wider than the terminal."""
    player = player_at(-1800, begin=NOW - 3600, lines_done=5_000_000, seconds_spent=2.5)
    player.publisher.tally.sent = Count(12, 5_000_000, 440_000_000)
    what, bar, numbers = shown(player, width)
    assert "filling in the past" in what
    assert bar.count("━") == pytest.approx(min(width - 2, 200) / 2, abs=1)
    assert numbers.startswith("5 000 000 lines   440.0 MB   2 000 00"[: width - 4])


def test_the_present_is_shown_by_its_hosts():
    """How many hosts have sent, how late it is, and what went wrong."""
    player = player_at(0, in_past=False, hosts_done=5, lines_done=1000, seconds_spent=0.5, lag=2.0)
    player.publisher.tally = Tally(sent=Count(9, 1000, 10), lost=Count(2), retries=7, last_error="h: gone")
    what, _, numbers, troubles = shown(player)
    assert what.endswith("5 of 20 hosts")
    assert numbers.endswith("2 000 lines/s   2.0 s late")
    assert troubles == "7 retried, 2 lost: h: gone"


def test_between_two_intervals_the_next_one_is_announced():
    """Nobody should think that it hangs."""
    what, *_ = shown(player_at(60, in_past=False, hosts_done=20))
    assert what.endswith("in 48 s")


def test_a_broker_that_is_away_is_shown():
    """With the state of the connection."""
    player = player_at(0, in_past=False)
    player.publisher.state = "connecting"
    assert shown(player)[-1] == "connecting"


async def test_on_a_terminal_the_picture_is_redrawn_and_then_gone():
    """What is left is the line before it."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    async with store() as url:
        schedule = Schedule(history=300, duration=0)
        await simulate(make_site(2), open_publisher(url), schedule, console=console, now=lambda: NOW + 1.0)
    assert "filling in the past" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")


def test_the_table_of_the_count():
    """Digits are grouped, and columns stand below each other, within 60 columns."""
    tally = Tally(
        sent=Count(1234, 5678901, 4 * 10**9), acknowledged=Count(1234, 5678901, 4 * 10**9), retries=3
    )
    lines = describe_tally(tally).splitlines()
    assert lines[0].split() == ["messages", "lines", "MB"]
    assert lines[1] == "sent                 1 234       5 678 901     4 000.0"
    assert lines[-1].split() == ["retried", "3"]
    assert {len(line) for line in lines[:-1]} == {54}


def test_the_count_for_machines_is_json():
    """Every number of it is an integer or a float, and the sum holds."""
    player = player_at(0, intervals=3, longest_lag=0.12345)
    player.publisher.tally = Tally(
        sent=Count(3, 30, 300), acknowledged=Count(1, 10, 100), lost=Count(2, 20, 200)
    )
    count = orjson.loads(orjson.dumps(describe(player)))
    assert count["longest_lag_seconds"] == 0.123
    assert count["sent"]["lines"] == sum(count[kind]["lines"] for kind in ("acknowledged", "refused", "lost"))
