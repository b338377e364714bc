"""A store with a simulated cluster, as a process of its own, and a real browser in front of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from attrs import define, field
from playwright.sync_api import Browser, Page, sync_playwright

# what keeps it from asking anybody outside, and from wanting a screen
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

IMAGES = os.environ.get("CCSTORE_SCREENSHOTS", "")
"""Where screenshots go; nowhere if it is empty. docs/images has those of the documentation."""


@define
class Demo:
    """The command ``demo`` at a port that stays the same when it is started again."""

    port: int
    hosts: int = 16
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "ccstore",
            "demo",
            "--port",
            str(self.port),
            "--hosts",
            str(self.hosts),
        ]
        self.process = subprocess.Popen(
            [*command, "--interval", "1s", "--history", "10m"], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                stats = httpx.get(f"{self.url}/api/stats", trust_env=False).json()
                if stats["lines"]["received"] and stats["hosts"] == self.hosts:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, "the demo has ended"
            assert time.monotonic() < deadline, "the demo does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(config: Path, port: int) -> Iterator[str]:
    """Run the command ``serve`` with a configuration; yield its URL once it is ready."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "ccstore", "serve", "--config", str(config)]) as server:
        try:
            while not _is_ready(url):
                assert server.poll() is None, "the server has ended"
                time.sleep(0.05)
            yield url
        finally:
            server.terminate()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """A store that goes on through all tests."""
    made = Demo(free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's chromium, without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        yield browser
        browser.close()


@define
class Eyes:
    """A page of the browser, and what it complains about."""

    page: Page
    complaints: list[str] = field(factory=list)

    def shoot(self, name: str) -> None:
        """Take a screenshot for the documentation."""
        if IMAGES:
            self.page.screenshot(path=Path(IMAGES) / f"{name}.png")


@pytest.fixture
def eyes(chromium: Browser) -> Iterator[Eyes]:
    """A fresh page; nothing in it complains but of cut connections, tokens and hosts in vain."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    seen = Eyes(context.new_page())
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("console", lambda message: message.type == "error" and seen.complaints.append(message.text))
    seen.page.set_default_timeout(15_000)
    yield seen
    context.close()
    cut = re.compile("WebSocket connection to|ERR_CONNECTION_REFUSED|status of 40[14]")
    assert [text for text in seen.complaints if not cut.search(text)] == []
