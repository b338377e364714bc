"""The command query on terminals of several kinds, and without one."""

import io
import os
import re
import signal
import sys
import time
from functools import partial

import pytest
import trio
from querying import (
    MINUTE,
    START,
    STOP,
    ZONE,
    hour,
    query,
    sample,
    store,
    whole_hour,
    write,
)

from ccstore.cli import ExitCode
from ccstore.cli import query as command

OK, FAILED = ExitCode.OK, ExitCode.FAILED


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine in Central Europe, without a terminal, at two o'clock on the day of the samples."""
    for name in ("CCSTORE_URL", "CCSTORE_TOKEN", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    monkeypatch.setattr(command, "_now", lambda: STOP)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def terminal(monkeypatch):
    """Let rich think that it writes to a terminal of 80 by 24."""
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)


def lines_of(text):
    """Return the lines without the spaces behind them."""
    return [line.rstrip() for line in text.splitlines()]


async def test_on_a_terminal_a_few_series_are_a_plot(capsys, terminal):
    """As wide and as high as the terminal, in colours, with gaps; more than a few are a table."""
    async with store(hour()) as url:
        assert await query(url, "cpu_load", "--host", "a0001,a0002") == OK
        plot = capsys.readouterr().out
        assert await query(url, "cpu_load", "--table") == OK
        assert "trend" in capsys.readouterr().out
        many = [sample("clock", f"b{n}", 2400, START) for n in range(7)]
        await write(url, many)
        assert await query(url, "clock") == OK
        assert "trend" in capsys.readouterr().out
    assert "\x1b[36m" in plot
    assert "\x1b[33m" in plot
    lines = lines_of(re.sub("\x1b\\[[0-9;]*m", "", plot))
    assert len(lines) == 23
    assert max(map(len, lines)) <= 80
    assert lines[-4].split()[:3] == ["13:00", "13:10", "13:20"]
    assert lines[-1].split() == ["━━", "a0002", "118.0", "59.0", "0.0", "118.0"]


async def test_a_plot_without_a_terminal_or_colours(capsys, terminal, monkeypatch):
    """Is drawn if it is asked for, a plot for each series, and has no escape codes."""
    async with store(hour()) as url:
        monkeypatch.setenv("NO_COLOR", "1")
        assert await query(url, "cpu_load", "--host", "a0001,a0002") == OK
        on_terminal = capsys.readouterr().out
        monkeypatch.delenv("FORCE_COLOR")
        assert await query(url, "cpu_load", "--host", "a0001,a0002", "--plot") == OK
        piped = capsys.readouterr().out
    assert on_terminal.count("└") == piped.count("└") == 2
    assert "\x1b[3" not in on_terminal
    assert "\x1b" not in piped
    assert max(map(len, lines_of(piped))) <= 100


async def test_output_that_cannot_show_drawings(capsys, monkeypatch):
    """A table is plain ASCII, and a plot is refused."""
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    async with store(hour()) as url:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert await query(url, "cpu_load") == OK
        assert await query(url, "cpu_load", "--plot") == FAILED
    ascii_only.flush()
    text = ascii_only.buffer.getvalue().decode("ascii")
    assert lines_of(text)[1].split() == ["host", "last", "avg", "min", "max"]
    assert capsys.readouterr().err == "ccstore: query: --plot: the output is ascii (wanted UTF-8)\n"


async def test_a_reader_that_has_seen_enough():
    """`ccstore query ... | head -1` ends without a traceback."""
    async with store(hour()) as url:
        arguments = [sys.executable, "-m", "ccstore", "query", "--url", url, *whole_hour("cpu_load", "--csv")]
        read, write_end = os.pipe()
        os.close(read)
        try:
            done = await trio.run_process(arguments, stdout=write_end, capture_stderr=True, check=False)
        finally:
            os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 1


class Screen:
    """What was written to a pseudo terminal."""

    def __init__(self, descriptor):
        self._stream = trio.lowlevel.FdStream(descriptor)
        self.text = ""

    async def wait_for(self, text):
        """Read on until `text` was written after what was waited for before."""
        while text not in self.text:
            self.text += (await self._stream.receive_some()).decode(errors="replace")
        self.text = self.text.partition(text)[2]

    async def drain(self):
        """Read until nobody writes any more."""
        try:
            while await self._stream.receive_some():
                pass
        except (OSError, trio.BrokenResourceError):  # Linux reports a terminal without writers so
            pass


async def test_watch_shows_again_and_ends_with_ctrl_c():
    """New samples appear, a server that is gone is told and asked again, and Ctrl-C is exit code 130."""
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    master, slave = os.openpty()
    screen = Screen(master)
    async with trio.open_nursery() as nursery:
        async with store(hour()) as url:
            chosen = whole_hour("cpu_load", "--table", "--watch", "1")
            arguments = [sys.executable, "-m", "ccstore", "query", "--url", url, *chosen]
            ends = {"stdin": slave, "stdout": slave, "stderr": slave}
            run = partial(trio.run_process, arguments, **ends, env=environment, check=False)
            process = await nursery.start(run)
            os.close(slave)
            await screen.wait_for("59.0")
            await write(url, [sample("cpu_load", "a0001", 7777, STOP - MINUTE)])
            await screen.wait_for("7777")
        await screen.wait_for("cannot connect (Connection refused)")
        await screen.wait_for("7777")
        process.send_signal(signal.SIGINT)
        await screen.drain()
    assert process.returncode == ExitCode.INTERRUPTED


async def test_watch_of_nothing_ends_at_once():
    """What cannot be shown the first time is an error like any other."""
    master, slave = os.openpty()
    async with store(hour()) as url:
        arguments = [sys.executable, "-m", "ccstore", "query", "--url", url, "clock", "--watch"]
        done = await trio.run_process(arguments, stdout=slave, capture_stderr=True, check=False)
    os.close(slave)
    os.close(master)
    assert done.returncode == FAILED
    assert done.stderr == b"ccstore: query: no host of cluster 'alex' has 'clock'\n"
