"""The command ``serve`` as a process of its own: signals, systemd, privileges, what operators get wrong."""

import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from disk_directories import START, write_reference
from querying import warm_up
from service_tools import lines, write_config

pytestmark = pytest.mark.timeout(60)

STORE = {"retention-in-memory": "48h", "memory-cap": 0}
LOOPBACK = {"addr": "127.0.0.1:0"}


@contextmanager
def started(directory: Path, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run ccstore with arguments in a directory, and end it if the test did not."""
    warm_up()  # once, so that no server spends its time on compiling
    process = subprocess.Popen(
        [sys.executable, "-m", "ccstore", *arguments],
        cwd=directory, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C is for the tests
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> re.Match[str]:
    """Return the first match in what it logs."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"no {pattern!r} in:\n" + "".join(seen))


def wait_url(process: "subprocess.Popen[str]") -> str:
    """Return where it listens; needs the log level info."""
    return read_until(process, r"listening on (http\S+)$")[1]


def run(directory: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """Run ccstore to its end; return the exit code and the lines on stderr."""
    with started(directory, *arguments, **environment) as process:
        _, errors = process.communicate()
        return process.returncode, errors.splitlines()


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_it_softly(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and the first Ctrl-C end the server with exit code 0 and a line in the log."""
    config = write_config(tmp_path, main=LOOPBACK, **{"metric-store": STORE})
    with started(tmp_path, "serve", "--config", str(config), "--loglevel", "info") as process:
        url = wait_url(process)
        assert httpx.post(f"{url}/api/write?cluster=c", content=lines(["h1"])).status_code == 200
        process.send_signal(number)
        _, rest = process.communicate()
        assert process.returncode == 0
        first, *checkpoints, last = rest.splitlines()
        assert (first, last) == (f"<6>[INFO]     stopping on {number.name}", "<6>[INFO]     stopped")
        assert [line[:30] for line in checkpoints] == ["<6>[INFO]     checkpoint: shard"[:30]]


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    """While a stop waits for a client that does not read on, another Ctrl-C ends everything with 130."""
    config = write_config(tmp_path, main=LOOPBACK, **{"metric-store": STORE})
    with started(tmp_path, "serve", "--config", str(config), "--loglevel", "info") as process:
        url = wait_url(process)
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /api/write?cluster=c HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            # a second request is answered only after the first was taken up
            assert httpx.get(f"{url}/api/health/live").status_code == 200
            process.send_signal(signal.SIGINT)
            read_until(process, "stopping on SIGINT")
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate()
        assert process.returncode == 130
        assert rest == ""


# systemd


def test_systemd(tmp_path: Path) -> None:
    """READY=1 with the URL when it listens, the watchdog while it runs, STOPPING=1 when it stops."""
    config = write_config(tmp_path, main=LOOPBACK, **{"metric-store": STORE})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"}
        with started(tmp_path, "serve", "--config", str(config), **environment) as process:
            messages = [systemd.recv(4096).decode()]
            while not any(message.startswith("READY=1\nSTATUS=listening on http://") for message in messages):
                messages.append(systemd.recv(4096).decode())
            while messages[-3:] != ["WATCHDOG=1"] * 3:
                messages.append(systemd.recv(4096).decode())
            process.send_signal(signal.SIGTERM)
            while messages[-1] != "STOPPING=1":
                messages.append(systemd.recv(4096).decode())
            process.communicate()
            assert process.returncode == 0


# Configuration and machine


def test_without_any_configuration(tmp_path: Path) -> None:
    """In an empty directory it says that everything has its default, and keeps its files in ./var."""
    with started(tmp_path, "serve", "--loglevel", "info") as process:
        assert read_until(process, r"^<4>\[WARNING\]  \./config\.json: no such file")
        seen = read_until(process, r"listening on (http\S+)$|cannot listen on 127\.0\.0\.1:8082")
        assert seen[1] in ("http://127.0.0.1:8082", None)  # somebody else may have the port
        process.terminate()
        process.communicate()
    assert {path.name for path in tmp_path.iterdir()} <= {"var"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["-config", "config.json", "-loglevel", "info"],
        ["--loglevel=info", "-dev", "-gops", "-logdate"],  # and ./config.json
    ],
    ids=" ".join,
)
def test_flags_of_the_reference_store(tmp_path: Path, arguments: Sequence[str]) -> None:
    """A service file of the reference store starts this one."""
    write_config(tmp_path, main=LOOPBACK, **{"metric-store": STORE})
    with started(tmp_path, *arguments) as process:
        if "-dev" in arguments:
            assert read_until(process, "--dev and --gops have no effect")
        assert httpx.get(f"{wait_url(process)}/").text.startswith("ccstore ")
        process.terminate()
        process.communicate()
        assert process.returncode == 0


BROKEN: list[tuple[str, dict[str, Any], list[str]]] = [
    ("missing section", {"main": LOOPBACK}, ["ccstore: metric-store: missing (wanted an object)"]),
    (
        "two mistakes",
        {"main": LOOPBACK | {"adr": "x"}, "metric-store": STORE | {"retention-in-memory": 48}},
        [
            'ccstore: main.adr: unknown key (did you mean "addr"?)',
            "ccstore: metric-store.retention-in-memory: not a string (got 48, wanted a duration",
        ],
    ),
    (
        "certificate",
        {"main": LOOPBACK | {"https-cert-file": "no.pem", "https-key-file": "no.key"}, "metric-store": STORE},
        [
            "ccstore: main.https-cert-file: cannot use 'no.pem' with key 'no.key': No such file or directory",
        ],
    ),
    (
        "creds",
        {
            "main": LOOPBACK,
            "metric-store": STORE | {"nats-subscriptions": [{"subscribe-to": "hpc"}]},
            "nats": {"address": "nats://127.0.0.1:1", "creds-file-path": "no.creds"},
        },
        ["ccstore: nats.creds-file-path: no.creds: "],
    ),
]


@pytest.mark.parametrize(
    ("config", "problems"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_what_does_not_fit_is_one_line_each(
    tmp_path: Path, config: dict[str, Any], problems: list[str]
) -> None:
    """Mistakes of the configuration end the start with exit code 1, and no traceback."""
    path = write_config(tmp_path, metrics={"cpu_load": {"frequency": 60, "aggregation": None}}, **config)
    code, errors = run(tmp_path, "serve", "--config", str(path))
    told = [line for line in errors if "[WARNING]" not in line]
    assert code == 1
    assert len(told) == len(problems)
    assert all(line.startswith(problem) for line, problem in zip(told, problems, strict=True))


def test_no_such_configuration(tmp_path: Path) -> None:
    """A file that is named has to be there, and to be JSON."""
    assert run(tmp_path, "-config", "no.json") == (
        1, ["ccstore: no.json: cannot be read (No such file or directory)"],
    )  # fmt: skip
    (tmp_path / "broken.json").write_text('{"main": {]}')
    code, (line,) = run(tmp_path, "-config", "broken.json")
    assert code == 1
    assert line.startswith("ccstore: broken.json: line 1, column 11: ")


def test_an_occupied_port(tmp_path: Path) -> None:
    """A port that somebody has is one line that says which key to look at."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        config = write_config(tmp_path, main={"addr": address}, **{"metric-store": STORE})
        problem = f"ccstore: main.addr: cannot listen on {address}: Address already in use"
        code, errors = run(tmp_path, "serve", "--config", str(config))
        assert (code, errors[-1]) == (1, problem)
        assert not [line for line in errors if "Traceback" in line]


def test_cleanup_of_checkpoints(tmp_path: Path) -> None:
    """The flag of the reference store removes what is old, starts no server, and says what it did (D-75)."""
    for time in (START, 4_000_000_000):
        write_reference(tmp_path / "files", time, {(("c", "h1"), "load", time): 1.0}, stop=time + 60)
    store = {**STORE, "checkpoints": {"directory": "files", "file-format": "wal"}}
    config = write_config(tmp_path, main=LOOPBACK, **{"metric-store": store})
    arguments = [sys.executable, "-m", "ccstore", "-config", str(config), "-cleanup-checkpoints"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "files: 1 old checkpoint removed\n"), done.stderr
    assert [path.name for path in (tmp_path / "files" / "c" / "h1").iterdir()] == ["4000000000.bin"]


# TLS and privileges


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """Write a certificate and a key that only their owner can read; return who trusts them."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (tmp_path / "key.pem").chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


TLS = LOOPBACK | {"https-cert-file": "cert.pem", "https-key-file": "key.pem"}


def test_tls(tmp_path: Path, certificate: ssl.SSLContext) -> None:
    """With a certificate it speaks TLS and nothing else."""
    config = write_config(tmp_path, main=TLS, **{"metric-store": STORE})
    with started(tmp_path, "serve", "--config", str(config), "--loglevel", "info") as process:
        url = wait_url(process)
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(verify=certificate) as client:
            assert client.get(f"{url}/api/health/ready").json() == {"status": "ready", "problems": []}
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_privileges_are_dropped(tmp_path: Path, certificate: ssl.SSLContext) -> None:
    """Started as root it reads the key, binds a port below 1024, and is another user afterwards."""
    nobody = pwd.getpwnam("nobody")
    with socket.socket() as probe:
        for port in range(1023, 512, -1):
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            break
    main = TLS | {"addr": f"127.0.0.1:{port}", "user": "nobody"}
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        store = STORE | {"checkpoints": {"directory": directory}}
        check_privileges(tmp_path, write_config(tmp_path, main=main, **{"metric-store": store}), certificate)


def check_privileges(tmp_path: Path, config: Path, certificate: ssl.SSLContext) -> None:
    """Start a server that becomes nobody, look who it is, and stop it."""
    nobody = pwd.getpwnam("nobody")
    with started(tmp_path, "serve", "--config", str(config), "--loglevel", "info") as process:
        url = wait_url(process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.MULTILINE)
        ids = {key: set(value.split()) for key, value in found}
        assert ids["Uid"] == {str(nobody.pw_uid)}
        assert ids["Gid"] == {str(nobody.pw_gid)}
        assert ids["Groups"] <= {str(nobody.pw_gid)}
        with httpx.Client(verify=certificate) as client:
            assert client.get(f"{url}/api/health/live").status_code == 200
        process.terminate()
        process.communicate()
        assert process.returncode == 0
