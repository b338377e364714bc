"""``ccstore status``: what it shows of whole servers, and how it ends."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from cli_screen import Screen
from querying import bare_store
from rich.console import Console, RenderableType
from service_tools import lines, make_config, post, running, wait_until, with_store

from ccstore.cli import ExitCode, main, status
from ccstore.cli.status_view import ADVICE, Look, _span, advise, draw, rates
from ccstore.server.metrics import encode_stats

METRICS = (Path(__file__).parents[1] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the second time at once; without anything of the machine."""
    monkeypatch.setattr(status.time, "sleep", lambda _: None)
    for name in ("CCSTORE_URL", "CCSTORE_TOKEN", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


async def run(url: str, *arguments: str) -> int:
    """Run the command in a thread; return its exit code."""
    return await trio.to_thread.run_sync(main.run, ["status", "--url", url, *arguments])


def text_of(picture: RenderableType, width: int = 100) -> str:
    """Return what is shown, without the spaces at the ends of lines."""
    console = Console(file=Screen(), width=width, markup=False, emoji=False, highlight=False)
    console.print(picture)
    assert isinstance(console.file, Screen)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


async def example() -> dict[str, Any]:
    """Return the statistics of a server with a little of everything."""
    async with running(with_store(make_config(), memory_cap_bytes=10**9)) as server:
        await post(server, "/api/write?cluster=c", lines(["h1", "h2"]) + b"odd value=1\nnonsense")
        await wait_until(lambda: not server.services.traffic.running)
        stats: dict[str, Any] = json.loads(json.dumps(encode_stats(server.services)))
    return stats


async def test_a_store_that_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """One screen, and the exit code 0."""
    async with running(make_config()) as server:
        await post(server, "/api/write?cluster=c", lines(["h1", "h2"]) + b"odd value=1\nx\x1b[2J value=1")
        assert await run(server.url) == ExitCode.OK
    shown = capsys.readouterr().out
    heads = re.findall(r"^([A-Z]\S*(?: \w+)?)  ", shown, re.MULTILINE)
    assert heads == [
        "Lines", "Unknown", "Memory", "Log", "Checkpoints", "NATS", "HTTP", "Event loop", "Jobs",
    ]  # fmt: skip
    assert shown.splitlines()[0].endswith("  ready")
    assert re.search(r"stored +\S+/s +2\s", shown)
    assert "odd   (metrics not configured)" in shown
    assert "2 hosts in 1 cluster" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "\x1b" not in shown


async def test_a_store_that_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem with what to do about it, and the exit code 1, in both forms."""
    async with running(make_config()) as server:
        server.services.over_cap = True
        assert await run(server.url) == ExitCode.FAILED
        shown = capsys.readouterr().out
        assert await run(server.url, "--json") == ExitCode.FAILED
        stats = json.loads(capsys.readouterr().out)
    assert shown.splitlines()[0].endswith("  not ready")
    (problem,) = stats["problems"]
    assert f"  {problem}\n    {ADVICE['memory: over the cap']}\n" in shown
    assert stats["ready"] is False
    assert stats["rates"]["lines"].keys() == stats["lines"].keys() - {"by_source"}


async def test_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there, or another server: one line, and the exit code 1."""
    assert await run("http://127.0.0.1:1") == ExitCode.FAILED
    assert "cannot connect" in capsys.readouterr().err
    async with bare_store() as url:
        assert await run(url) == ExitCode.FAILED
    assert f"ccstore: {url}/api/stats: 404" in capsys.readouterr().err
    with pytest.raises(KeyError):
        Look({"uptime_seconds": 1})


async def test_watching_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """And no JSON."""
    assert await run("http://127.0.0.1:1", "--watch") == ExitCode.USAGE
    assert "--watch" in capsys.readouterr().err


async def test_watching_outlives_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was seen last stays, with what is wrong above it."""
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("LINES", "40"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    looks = 0
    async with running(make_config()) as server:
        services = server.services

        def sleep(_: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 2:
                trio.from_thread.run_sync(services.stopping.set)
                trio.from_thread.run(wait_stopped)
            if looks == 3:
                raise KeyboardInterrupt

        async def wait_stopped() -> None:
            while services.traffic.connections:
                await trio.testing.wait_all_tasks_blocked(0.001)

        monkeypatch.setattr(status.time, "sleep", sleep)
        assert await run(server.url, "--watch", "1") == ExitCode.INTERRUPTED
    shown = capsys.readouterr().out
    assert "ready" in shown
    assert f"{server.url}: " in shown


async def test_rates() -> None:
    """Differences by the server's clock; none of another life of the server, or of the same moment."""
    stats = await example()
    before = Look(stats)
    after = json.loads(json.dumps(stats))
    after["uptime_seconds"] += 10
    after["lines"]["received"] += 500
    after["lines"]["stored"] += 500
    after["nats"]["messages"] += 20
    after["routes"]["/api/query"] = {"requests": 5, "errors": 0, "seconds": 1.0}
    paces = rates(before, Look(after))
    assert (paces["seconds"], paces["lines"]["stored"], paces["lines"]["late"]) == (10, 50, 0)
    assert (paces["nats"]["messages"], paces["requests"]) == (2, {"/api/query": 0.5, "/api/write": 0})
    shown = text_of(draw(before, Look(after), url="http://x", width=100))
    assert re.search(r"stored +50/s +502\b", shown)
    assert "/api/query 0.5/s" in shown
    for other in (Look(stats), Look({**stats, "uptime_seconds": 0.0})):
        assert rates(before, other)["lines"]["stored"] is None
        assert "stored           -/s" in text_of(draw(before, other, url="http://x", width=100))


async def test_what_is_wrong_is_shown() -> None:
    """Damage, drops, errors of jobs and of NATS, with numbers; what could move a cursor is escaped."""
    stats = await example()
    stats |= {"log_durable": False, "recovery_damages": 2, "unknown_metrics": [f"m{k}" for k in range(20)]}
    stats["nats"] |= {"state": "connecting", "dropped_lines": 1234, "last_error": "no \x1b[2J broker"}
    stats["jobs"]["memory"] = {"runs": 1, "failures": 1, "seconds": 2.0, "last_error": "OSError: odd"}
    stats["lines"]["late"] = 7
    stats |= {"stream_connections": 2, "stream_feeds": 1, "stream_lags": 3}
    for width in (60, 100):
        shown = text_of(draw(Look(stats), Look(stats), url="http://x", width=width), width)
        flat = " ".join(shown.split())
        for part in (
            "NOT DURABLE", "2 damaged places", "1 234 lines dropped", r"last error: no \x1b[2J broker",
            "memory failed, is tried again: OSError: odd", "m7 and 12 more",
            "2 websockets 1 subscription - interrupted 3 times for slow clients",
        ):  # fmt: skip
            assert part in flat
        assert re.search(r"late +-/s +7\b", shown)
        assert "future" not in shown
        assert max(map(len, shown.splitlines())) <= width


async def test_an_older_server() -> None:
    """What it does not tell is left out."""
    stats = await example()
    for key in ("routes", "shards", "unknown_metrics", "loop_busy_seconds", "http_connections"):
        del stats[key]
    assert "Checkpoints" in text_of(draw(Look(stats), Look(stats), url="http://x", width=100))


def test_there_is_advice_for_every_problem() -> None:
    """Those of the reference, and no others; a new one is told from the server's log."""
    section = METRICS.partition("# Why it is not ready\n")[2].partition("\n## ")[0]
    problems = [
        found.removesuffix("...").removesuffix(", ")
        for found in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
    ]
    assert len(problems) >= 7
    for problem in problems:
        assert advise(problem.ljust(80)) != advise("new"), problem
    for start in ADVICE:
        assert any(problem.startswith(start) or start.startswith(problem) for problem in problems), start


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (200_000, "2 d 7 h")],
)
def test_spans(seconds: float, text: str) -> None:
    """Two units tell enough."""
    assert _span(seconds) == text
