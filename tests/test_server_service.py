"""The whole server: how it starts, what a start that fails leaves behind, and what ends it."""

import socket
import subprocess
import sys
from time import perf_counter
from typing import Any

import orjson
import pytest
import trio
from attrs import evolve
from service_tools import (
    get_json,
    get_problems,
    kept_services,
    lines,
    logged,
    make_config,
    open_sockets,
    post,
    running,
    stored,
)
from serving import ask
from trio.testing import wait_all_tasks_blocked

from ccstore.errors import ConfigError
from ccstore.server import service
from ccstore.server.loopwatch import LONG
from ccstore.server.services import Services

pytestmark = pytest.mark.timeout(60)


async def test_write_and_query() -> None:
    """A server answers at the URL it tells, and what was written can be asked for."""
    async with running(make_config()) as server:
        answer = await post(server, "/api/write?cluster=birch", lines(["h1", "h2"]) + b"nonsense\n")
        assert answer.status == 400
        assert orjson.loads(answer.body)["stored"] == 2
        assert await get_problems(server) == []
    assert stored(server.services) == {("birch", "h1"): [1], ("birch", "h2"): [2]}
    assert server.services.ledger.total()["received"] == 3


async def test_all_addresses_of_a_host() -> None:
    """Without a host it listens on every address, and tells a URL for each."""
    config = make_config()
    async with kept_services(), trio.open_nursery() as nursery:
        stop = trio.Event()
        config = evolve(config, main=evolve(config.main, addr=":0", disable_authentication=True))
        urls = await nursery.start(
            lambda task_status: service.run(config, stop=stop.wait, task_status=task_status)
        )
        for url in urls:
            assert (await ask(int(url.rpartition(":")[2]), "GET", "/api/health/live")).status == 200
        stop.set()
    assert urls


async def test_a_stop_that_comes_at_once() -> None:
    """A server whose stop is there already starts and ends."""
    async with kept_services() as made:
        await service.run(make_config(), stop=trio.lowlevel.checkpoint)
    assert made[0].stopping.is_set()


async def test_warnings_of_the_configuration_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """They are in the log at each start."""
    async with running(evolve(make_config(), warnings=("main.x: odd", "nats: odd"))):
        pass
    assert logged(caplog) == ["main.x: odd", "nats: odd"]


# A start that fails


@pytest.mark.parametrize(
    ("section", "keys", "problem"),
    [
        (
            "main",
            {"https_cert_file": "/nowhere/cert", "https_key_file": "/nowhere/key"},
            "main.https-cert-file",
        ),
        ("main", {"user": "nobody-at-all"}, "main.user: no such user"),
        ("nats", {"creds_file_path": "/nowhere/creds"}, "/nowhere/creds"),
        ("nats", {"address": "nats://127.0.0.1:1", "nkey_seed_file": "/nowhere/seed"}, "/nowhere/seed"),
    ],
    ids=["certificate", "user", "creds", "seed"],
)
async def test_a_start_that_fails_leaves_nothing(section: str, keys: dict[str, str], problem: str) -> None:
    """Whatever does not fit the machine is a ConfigError, and no socket stays open."""
    config = make_config("nats://127.0.0.1:1", {"hpc": "birch"})
    config = evolve(config, **{section: evolve(getattr(config, section), **keys)})
    before = open_sockets()
    async with kept_services():
        with pytest.raises((ConfigError, ExceptionGroup)) as caught:
            await service.run(config, stop=trio.sleep_forever)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, ConfigError)
    assert problem in str(error)
    assert open_sockets() == before


async def test_an_occupied_port() -> None:
    """A port that somebody else has is one ConfigError that names it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = make_config()
        config = evolve(config, main=evolve(config.main, addr=f"127.0.0.1:{port}"))
        before = open_sockets()
        with pytest.raises(
            ConfigError, match=rf"^main\.addr: cannot listen on 127\.0\.0\.1:{port}: Address already"
        ):
            await service.run(config, stop=trio.sleep_forever)
        assert open_sockets() == before


REFUSED = """
import resource
from ccstore.cli.warmup import compile_kernels
from ccstore.config import Config
from ccstore.errors import ConfigError
from ccstore.server.services import make_services
compile_kernels()
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    make_services(Config())
except ConfigError as error:
    print(error)
"""


def test_refused_address_space() -> None:
    """A system that does not promise the memory is a matter of configuration, and no traceback."""
    printed = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith(
        "metric-store: the system refuses the address space for so many series and samples"
    )


# What ends it


async def test_a_bug_in_a_handler_that_writes_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    """Its client gets a 500, and the server ends with the bug instead of going on half changed."""
    statuses = []

    def break_store(services: Services) -> None:
        def append(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("ours")

        services.store.append = append  # type: ignore[method-assign]

    async def run_broken() -> None:
        async with running(make_config(), break_store) as server:
            statuses.append((await post(server, "/api/write", lines(["h1"], cluster="birch"))).status)
            await trio.sleep_forever()

    before = open_sockets()
    with pytest.raises(ExceptionGroup) as caught:
        await run_broken()
    assert caught.group_contains(ZeroDivisionError, match="ours")
    assert statuses == [500]
    assert open_sockets() == before


async def test_cancellation_ends_it() -> None:
    """Cancelled from outside, it leaves no socket and no instrument behind."""
    before = open_sockets()
    async with kept_services() as made, trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: service.run(make_config(), task_status=task_status, stop=trio.sleep_forever)
        )
        nursery.cancel_scope.cancel()
    assert open_sockets() == before
    with pytest.raises(KeyError):
        trio.lowlevel.remove_instrument(made[0].loop)


# The event loop


async def test_who_holds_the_event_loop_is_seen() -> None:
    """A task that does not let others run is measured, named and counted."""

    async def hog() -> None:
        end = perf_counter() + 1.5 * LONG
        while perf_counter() < end:
            pass

    async with running(make_config()) as server, trio.open_nursery() as nursery:
        loop = server.services.loop
        loop.longest, held = 0.0, loop.held
        nursery.start_soon(hog)
        await wait_all_tasks_blocked()
        stats = await get_json(server, "/api/stats")
        assert stats["loop_hold_seconds_max"] >= 1.5 * LONG
        assert stats["loop_hold_task"].endswith("hog")
        assert stats["loop_holds"] > held
