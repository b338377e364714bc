"""The tutorial is walked through, command by command, against a demo."""

import re
import shlex
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from cli_screen import Screen
from querying import warm_up
from rich.console import Console

from ccstore.cli import ExitCode, main
from ccstore.cli.demo import demo, make_config
from ccstore.cli.player import Schedule
from ccstore.cli.site import make_site

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial" / "first-steps.md"
DEFAULT = "http://127.0.0.1:8082"

pytestmark = pytest.mark.timeout(180)


def commands():
    """Return the command lines of the page in their order."""
    return re.findall(r"^    ((?:ccstore|curl) .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


async def curl(url, arguments):
    """Send the request that curl would, and return status and text of the answer."""
    *options, address = arguments
    assert address.startswith(DEFAULT)
    assert not options or options[0] == "--data"
    async with httpx.AsyncClient() as client:
        target = address.replace(DEFAULT, url)
        answer = await (client.post(target, content=options[1]) if options else client.get(target))
    return answer.status_code, answer.text


async def walk(url):
    """Run every command of the page but the demo itself; `--watch` is left out, for it has no end."""
    done = []
    for line in commands():
        program, *arguments = shlex.split(line)
        if program == "curl":
            status, text = await curl(url, arguments)
            wrong = "value=much" in line
            assert (status, "line 1: value 'much'" in text) == ((400, True) if wrong else (200, False)), line
        elif arguments[0] == "query":
            arguments = [argument for argument in arguments if argument != "--watch"]
            # A reader is slower than this, and `now` is not part of a range that ends with it.
            arguments += ["--url", url, "--to", str(int(time.time()) + 2)]
            assert await trio.to_thread.run_sync(main.run, arguments) == ExitCode.OK, line
        elif arguments[0] in ("jobs", "nodes", "status", "tail"):
            arguments = [argument for argument in arguments if argument != "--watch"]
            assert await trio.to_thread.run_sync(main.run, [*arguments, "--url", url]) == ExitCode.OK, line
        elif arguments[0] == "simulate":
            done_so = await trio.run_process(
                [sys.executable, "-m", "ccstore", *arguments, "--to", url], capture_stdout=True, cwd=ROOT
            )
            sent, acknowledged = re.findall(rb"^(?:sent|acknowledged)(.*)$", done_so.stdout, re.MULTILINE)
            assert sent.split() == acknowledged.split(), line
        else:
            assert arguments == ["demo"]
            continue
        done.append(line)
    return done


async def test_every_command_of_the_tutorial():
    """Each does what the page says, in the order of the page."""
    warm_up()
    screen = Screen()
    console = Console(file=screen, width=100)
    schedule = Schedule(interval=10, history=300, batch=16)
    site = make_site(16, cluster="birch")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(demo, make_config(0, "./var", site, frequency=10), site, schedule, console, now=time.time)
        )
        url = (await screen.wait(r"(http://[\d.:]+)\n"))[1]
        await screen.wait("how the store is")
        done = await walk(url)
        nursery.cancel_scope.cancel()
    assert len(done) == len(commands()) - 1 >= 21
