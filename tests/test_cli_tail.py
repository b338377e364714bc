"""The command ``tail``: lines for programs, and the picture for people."""

import sys

import pytest
import trio
from live_tools import live
from rich.console import Console
from serving import NOW
from test_client import client_of, point

from ccstore.cli.tail import _Picture, make_sheets


async def tail(url: str, *arguments: str) -> tuple[int, str, str]:
    """Run the command; return exit code, output and errors."""
    command = [sys.executable, "-m", "ccstore", "tail", *arguments, "--url", url]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_lines() -> None:
    """Without a terminal each value is a line; a host that was not asked for is none."""
    async with live() as server:
        url = f"http://127.0.0.1:{server.port}"
        await server.write(point("x", "h", 1, 80), point("x", "h", 2.5, 20), point("x", "g", 3, 20))
        assert await tail(url, "x", "--host", "h", "--for", "3") == (
            0,
            f"x,h,{NOW - 80},1\nx,h,{NOW - 20},2.5\n",
            "",
        )


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["nope"], 1, "nope"),
        (["x", "--cluster", "nope"], 1, "nope"),
        (["x", "--last", "soon"], 2, "soon"),
        (["x", "--last", "300h"], 1, "message.window"),
        ([], 2, "METRIC"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
async def test_what_cannot_be_shown(arguments: list[str], code: int, error: str) -> None:
    """It is told in one line."""
    async with live() as server:
        await server.write(point("x", "h", 1, 60))
        got, output, told = await tail(f"http://127.0.0.1:{server.port}", *arguments)
    assert (got, output) == (code, "")
    assert error in told
    assert "Traceback" not in told


async def test_the_picture() -> None:
    """Few series are plots, many are a table; a gap stays one."""
    async with live() as server, client_of(server) as client:
        hosts = [f"h{k}" for k in range(9)]
        await server.write(
            *(point("load", host, k + 1, 200 - 60 * j) for k, host in enumerate(hosts) for j in (0, 1, 3))
        )
        async with client.stream("c", for_all_nodes=["load"]) as stream:
            await anext(stream)
            (sheet,) = make_sheets(stream, "c", start=NOW - 600, now=NOW)
            assert (sheet.metric, sheet.unit, len(sheet.series)) == ("load", "threads", 9)
            assert str(sheet.series[0].values.tolist()) == "[1.0, 1.0, nan, 1.0]"
            assert (sheet.series[8].begin, sheet.series[8].step, sheet.series[8].highest) == (
                NOW - 200,
                60,
                9,
            )
            console = Console(width=80, height=30, force_terminal=True, color_system=None)
            picture = _Picture(console, "c", 600, "host")
            with console.capture() as shown:
                console.print(picture._draw(stream))
            assert all(host in shown.get() for host in hosts)
        async with client.stream("c", for_all_nodes=["x"]) as stream:
            await anext(stream)
            with console.capture() as shown:
                console.print(picture._draw(stream))
            assert shown.get() == "nothing yet\n"
