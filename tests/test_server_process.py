"""The process in its machine: sockets, privileges, systemd, signals."""

import ctypes
import grp
import os
import pwd
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ccstore.errors import ConfigError
from ccstore.server.process import (
    drop_privileges,
    feed_watchdog,
    listen,
    notify,
    stop_on_signal,
)

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def run(code: str) -> str:
    """Run Python code in a process of its own, and return what it printed."""
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    return done.stdout.strip()


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


# Listening


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "", "0.0.0.0", "::"])
def test_listen_on_a_free_port(host: str) -> None:
    """Port 0 is a free port, one for all addresses of a host, and it accepts connections."""
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 here")
    sockets = listen(host, 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        for sock in sockets:
            target = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
            with socket.create_connection((target, sock.getsockname()[1])):
                pass
    finally:
        close(sockets)


def test_all_addresses_are_both_families() -> None:
    """No host means IPv4, and IPv6 where there is any."""
    sockets = listen("", 0)
    try:
        families = [socket.AF_INET, *([socket.AF_INET6] if has_ipv6() else [])]
        assert sorted(sock.family for sock in sockets) == families
    finally:
        close(sockets)


def test_accepted_connections_inherit_options() -> None:
    """What is set once on the listening socket holds for each connection."""
    sockets = listen("127.0.0.1", 0, user_timeout=20.0)
    try:
        with socket.create_connection(sockets[0].getsockname()):
            accepted, _ = sockets[0].accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    finally:
        close(sockets)


def test_port_can_be_taken_again_at_once() -> None:
    """A restart does not wait for connections of the server before it."""
    first = listen("127.0.0.1", 0)
    address = first[0].getsockname()
    with socket.create_connection(address):
        accepted, _ = first[0].accept()
        accepted.close()  # our end closes first, so the kernel remembers the connection
    close(first)
    close(listen(*address))


def test_occupied_port() -> None:
    """A port that somebody else listens on is one line with the key of the configuration."""
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    try:
        with pytest.raises(ConfigError) as error:
            listen("127.0.0.1", port)
    finally:
        close(sockets)
    assert str(error.value) == f"main.addr: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_port_occupied_on_one_address_of_several() -> None:
    """A port that is free on some addresses only is refused, and none of them stays open."""
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="Address already in use"):
            listen("", port)
    close(listen("", port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "256.1.1.1"])
def test_address_that_is_not_ours(host: str) -> None:
    """A host that is unknown, or is another machine, is one line with the key of the configuration."""
    with pytest.raises(ConfigError, match=f"^main.addr: cannot listen on {host}:0: .+$"):
        listen(host, 0)


# Limits


def test_open_files() -> None:
    """As many files may be open as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    printed = run(
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(7)[1]))\n"
        "from ccstore.server.process import raise_open_files\n"
        "print(raise_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    assert printed == f"{hard} {hard}"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_large_buffers_are_reused() -> None:
    """Afterwards a buffer of a few MiB no longer is a mapping of its own."""
    printed = run(
        "import ctypes\n"
        "from ccstore.server.process import keep_freed_memory\n"
        "class Info(ctypes.Structure):\n"
        "    _fields_ = [(name, ctypes.c_size_t) for name in 'arena ordblks smblks hblks hblkhd'.split()]\n"
        "    _fields_ += [('rest', ctypes.c_size_t * 5)]\n"
        "mallinfo2 = ctypes.CDLL(None).mallinfo2\n"
        "mallinfo2.restype = Info\n"
        "def mapped():\n"
        "    before = mallinfo2().hblks\n"
        "    buffer = bytearray(4 << 20)\n"
        "    return mallinfo2().hblks - before\n"
        "first = mapped()\n"
        "keep_freed_memory()\n"
        "print(first, mapped())"
    )
    assert printed == "1 0"


# Privileges


DROP = """
import os
from ccstore.server.process import drop_privileges
drop_privileges({user!r}, {group!r})
print(os.getresuid(), os.getresgid(), os.getgroups())
try:
    os.setuid(0)
except PermissionError:
    print("for good")
"""


@needs_root
@pytest.mark.parametrize(("user", "group"), [("nobody", ""), ("nobody", "daemon"), ("daemon", "nogroup")])
def test_user_and_group_are_dropped_for_good(user: str, group: str) -> None:
    """Real, effective and saved ids change, root's groups go, and there is no way back."""
    uid = pwd.getpwnam(user).pw_uid
    gid = grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
    expected = sorted({gid, *(entry.gr_gid for entry in grp.getgrall() if user in entry.gr_mem)})
    assert run(DROP.format(user=user, group=group)) == f"{(uid,) * 3} {(gid,) * 3} {expected}\nfor good"


@needs_root
def test_group_alone() -> None:
    """A group without a user changes the group, and root's other groups go."""
    gid = grp.getgrnam("daemon").gr_gid
    assert run(DROP.format(user="", group="daemon")) == f"(0, 0, 0) {(gid,) * 3} [{gid}]"


def test_nothing_to_drop() -> None:
    """Without a user and a group nothing changes, root or not."""
    before = os.getresuid(), os.getresgid(), os.getgroups()
    drop_privileges("", "")
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


@needs_root
def test_already_that_user() -> None:
    """Started as the configured user, as systemd does, there is nothing to do, and no error."""
    code = DROP.format(user="nobody", group="")
    assert run(code + code).count("for good") == 2


@needs_root
def test_not_started_as_root() -> None:
    """Somebody who is not root cannot become somebody else, and is told so."""
    printed = run(
        "from ccstore.server.process import drop_privileges\n"
        "from ccstore.errors import ConfigError\n"
        "drop_privileges('nobody', '')\n"
        "try: drop_privileges('daemon', '')\n"
        "except ConfigError as error: print(error)"
    )
    assert printed == "main.user: cannot become user 'daemon', group '': not started as root"


@pytest.mark.parametrize(
    ("user", "group", "problem"),
    [
        ("no-such-user", "", r"main\.user: no such user \(got 'no-such-user'\)"),
        ("", "no-such-group", r"main\.group: no such group \(got 'no-such-group'\)"),
        ("root", "no-such-group", r"main\.group: no such group \(got 'no-such-group'\)"),
    ],
)
def test_unknown_user_and_group(user: str, group: str, problem: str) -> None:
    """Names that do not exist are refused before anything changes."""
    before = os.getresuid(), os.getresgid()
    with pytest.raises(ConfigError, match=problem):
        drop_privileges(user, group)
    assert (os.getresuid(), os.getresgid()) == before


# systemd


@pytest.fixture(params=["file", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The socket on which systemd listens, of either kind."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path if request.param == "file" else f"\0{path}")
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path if request.param == "file" else f"@{path}")
        yield sock


def test_notify(systemd: socket.socket) -> None:
    """Assignments arrive as one message, a line each."""
    assert notify("READY=1", "STATUS=listening on http://127.0.0.1:8082")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=listening on http://127.0.0.1:8082"


def test_notify_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_notify_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket that nobody reads is a line in the log, and not the end of the server."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")
    assert "cannot notify systemd" in caplog.text


async def test_watchdog(
    systemd: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
) -> None:
    """The watchdog hears from us twice in each of its intervals."""
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    nursery.start_soon(feed_watchdog)
    await trio.sleep(14)
    for _ in range(3):
        assert systemd.recv(4096) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}], ids=str)
async def test_no_watchdog(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Without a watchdog, or with one for another process, the task ends."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await feed_watchdog()


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_signal_asks_to_stop(number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end the wait, and end nothing else."""
    before = signal.getsignal(number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal)
        await wait_all_tasks_blocked()
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


STOP = """
import trio, trio.testing
from ccstore.server.process import stop_on_signal

async def tell():
    await trio.testing.wait_all_tasks_blocked()
    print("ready", flush=True)

async def main():
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)  # a stop that does not come to its end
            nursery.start_soon(tell)
            await stop_on_signal()
            print("stopping", flush=True)
    finally:
        print("cancelled", flush=True)

try:
    trio.run(main)
except* KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "printed"),
    [(signal.SIGINT, ["cancelled", "interrupted"]), (signal.SIGTERM, [])],
)
def test_second_signal_ends_it_at_once(number: signal.Signals, printed: list[str]) -> None:
    """While a stop takes its time, a second Ctrl-C cancels everything, a second SIGTERM kills."""
    root = str(Path(__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", STOP], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(number)
        assert process.stdout.read().split() == printed
        assert process.wait() == (0 if printed else -number)
