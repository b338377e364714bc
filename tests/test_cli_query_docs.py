"""What the documentation says about queries is run as it stands."""

import re
import runpy
import shlex
import sys
import time
from pathlib import Path

import httpx
import orjson
import pytest
import trio
from querying import START, STOP, ZONE, hour, query, store

from ccstore.cli import ExitCode
from ccstore.cli import query as command

ROOT = Path(__file__).parents[1]
COMMAND_LINE = (ROOT / "docs" / "how-to" / "query-from-the-command-line.md").read_text(encoding="utf-8")
PROGRAM = (ROOT / "docs" / "how-to" / "query-from-a-program.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
DEFAULT = "http://127.0.0.1:8082"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine in Central Europe at two o'clock on the day of the samples."""
    for name in ("CCSTORE_URL", "CCSTORE_TOKEN", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    monkeypatch.setattr(command, "_now", lambda: STOP)
    monkeypatch.setattr(time, "time", lambda: float(STOP))
    yield
    monkeypatch.undo()
    time.tzset()


def blocks(page, language):
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


async def test_every_command_line_of_the_how_to(capsys):
    """Each works on the samples that the page shows; --watch needs a terminal."""
    found = re.findall(r"^    ccstore query(.*)$", COMMAND_LINE, re.MULTILINE)
    assert len(found) >= 12
    async with store(hour()) as url:
        for line in found:
            arguments = shlex.split(line.partition(">")[0])
            if "--watch" not in arguments:
                assert await query(url, *arguments) == ExitCode.OK, (line, capsys.readouterr().err)


async def test_the_table_of_the_how_to(capsys):
    """It is what the command prints."""
    async with store(hour()) as url:
        assert await query(url, "cpu_load") == ExitCode.OK
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    shown = re.search(r"((?:^    .*\n)+)\nThe host a0002 sent nothing", COMMAND_LINE, re.MULTILINE)
    assert shown is not None
    assert [line.removeprefix("    ") for line in shown[1].splitlines()] == printed


async def test_the_request_with_curl():
    """Its body is answered with what stands below it."""
    body = re.search(r"--data '(.*?)' ", blocks(PROGRAM, "sh")[0], re.DOTALL)
    assert body is not None
    async with store(hour()) as url, httpx.AsyncClient(base_url=url) as client:
        by_post = await client.post("/api/query", content=body[1])
        by_get = await client.request("GET", "/api/query", content=body[1])
    assert by_post.text == by_get.text == blocks(PROGRAM, "json")[0].strip()


async def test_the_programs_of_the_how_to(capsys):
    """They run as they are, and the first prints what stands below it."""
    first, second = blocks(PROGRAM, "python")
    async with store(hour()) as url:
        for program in first, second:
            assert DEFAULT in program
            code = compile(program.replace(DEFAULT, url), "query-from-a-program.md", "exec")
            await trio.to_thread.run_sync(exec, code, {})
            if program is first:
                assert capsys.readouterr().out == blocks(PROGRAM, "text")[0]
    assert capsys.readouterr().out == "a0010 156.0\na0002 104.0\na0001 52.0\n"


async def test_the_lists_of_the_how_to():
    """Clusters and metrics have the form that is shown."""
    clusters, metrics = map(orjson.loads, blocks(PROGRAM, "json")[-1].splitlines())
    async with store(hour()) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/api/clusters")).json() == clusters
        assert metrics["metrics"][0] in (await client.get("/api/metrics/")).json()["metrics"]


async def test_the_example(capsys, monkeypatch):
    """It prints a ranking, and one line if there is nothing to rank."""
    example = str(ROOT / "examples" / "query.py")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [example, *arguments])
        namespace = runpy.run_path(example)
        return namespace["main"]()

    async with store(hour()) as url:
        monkeypatch.setenv("CCSTORE_URL", url)
        assert await trio.to_thread.run_sync(run, "alex", "cpu_load", "2") == 0
        out, err = capsys.readouterr()
        assert out.splitlines() == [
            "cpu_load of 3 hosts of alex, average of 15 minutes",
            "   1  a0010                  156.00",
            "   2  a0002                  104.00",
        ]
        assert err == ""
        assert await trio.to_thread.run_sync(run, "alex", "clock") == 1
        assert capsys.readouterr().err == "nothing of clock in alex\n"
        assert await trio.to_thread.run_sync(run, "alex", "temp") == 1
        assert "the metric has no aggregation" in capsys.readouterr().err
    assert await trio.to_thread.run_sync(run, "alex", "cpu_load") == 1
    assert capsys.readouterr().err.startswith(url)


def test_every_option_has_its_place_in_the_reference():
    """The section of the command names each of its options, and no other."""
    section = REFERENCE.partition("\n## query\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`(--[a-z]+)", section))
    assert documented == {
        option for parameter in command.command.params for option in parameter.opts if option[0] == "-"
    }


def test_the_samples_are_those_of_the_page():
    """The seconds in the pages are the hour that the tests store."""
    assert {int(number) for number in re.findall(r"\b1698\d{6}\b", PROGRAM)} == {START, START + 300, STOP}
