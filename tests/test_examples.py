"""Every example is run against the real thing, or checked line by line."""

import base64
import configparser
import json
import os
import re
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from attrs import evolve
from nats_broker import open_broker
from prometheus_client.parser import text_string_to_metric_families
from querying import warm_up

from ccstore import Config, load_config, run
from ccstore.cli import ExitCode
from ccstore.cli.main import commands, translate
from ccstore.cli.main import run as run_command
from ccstore.config import ApiSubjects, Cluster, Clusters, NatsConfig, Subcluster
from ccstore.model import Outcome

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MONITOR = (ROOT / "docs" / "how-to" / "monitor.md").read_text(encoding="utf-8")

OVERFLOW = "ignore:overflow encountered:RuntimeWarning"
"""What hot loops say that run as plain Python (NUMBA_DISABLE_JIT)."""

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings(OVERFLOW)]
"""The first test compiles, once."""


@pytest.fixture(autouse=True)
def compiled() -> None:
    """Compile what a server runs, before anybody waits for its answer."""
    warm_up()


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[str]:
    """Run a whole server on any port of this machine, and yield its URL."""
    config = evolve(config, main=evolve(config.main, addr="127.0.0.1:0"))
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        (url,) = await nursery.start(partial(run, config, stop=stop.wait))
        try:
            yield url
        finally:
            stop.set()


async def program(
    name: str, *arguments: str, stdin: bytes = b"", **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run an example in a process of its own, to its end."""
    return await trio.run_process(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdin=stdin, capture_stdout=True, capture_stderr=True, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith(("CCSTORE_", "NATS_"))}
        | {"PYTHONWARNINGS": OVERFLOW}
        | environment,
    )  # fmt: skip


async def until(client: httpx.AsyncClient, path: str, holds: Any) -> None:
    """Ask again and again until an answer is as wanted."""
    with trio.fail_after(60):
        while not holds(await client.get(path)):
            await trio.lowlevel.checkpoint()


def write_config(directory: Path, name: str, changes: Mapping[str, Mapping[str, object]]) -> Config:
    """Load an example of a configuration with some keys changed."""
    document = json.loads((EXAMPLES / name).read_text())
    for section, values in changes.items():
        document[section] = document[section] | values if values else {}
    document["metric-store"]["checkpoints"] = {"directory": str(directory / "var")}
    path = directory / name
    path.write_text(json.dumps(document))
    return load_config(str(path), environ={})


def test_every_example_is_checked() -> None:
    """There is no file in the directory that this module does not name."""
    source = Path(__file__).read_text(encoding="utf-8")
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
    assert [name for name in names if f'"{name}"' not in source] == []
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"](../examples/{name})" not in index] == []


async def test_the_small_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """check-config takes it as it is, and a server runs with it."""
    assert run_command(["check-config", str(EXAMPLES / "config.json")]) == ExitCode.OK
    capsys.readouterr()
    config = load_config(str(EXAMPLES / "config.json"), environ={})
    async with serving(config) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/api/health/ready")).status_code == 200


async def test_the_configuration_of_a_site_with_key_and_tokens(tmp_path: Path) -> None:
    """With a key of make_token.py it lets in whom it should, over TLS."""
    key, authority = str(tmp_path / "token.key"), trustme.CA()
    made = await program("make_token.py", "key", key)
    assert (made.returncode, len(base64.b64decode(made.stdout))) == (0, 32)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    main = {
        "https-cert-file": str(tmp_path / "server.pem"), "https-key-file": str(tmp_path / "server.key"),
        "jwt-public-key": made.stdout.decode().strip(), "user": "", "group": "", "backend-url": "",
    }  # fmt: skip
    config = write_config(tmp_path, "config-site.json", {"main": main, "nats": {}})

    async def token(*arguments: str) -> Mapping[str, str]:
        done = await program("make_token.py", "token", key, *arguments)
        return {"Authorization": f"Bearer {done.stdout.decode().strip()}"}

    collector, reader, admin = (
        await token("c", "api"),
        await token("u", "user", "90"),
        await token("a", "admin"),
    )
    outdated = await token("u", "admin", "-1")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serving(config) as url, httpx.AsyncClient(base_url=url, verify=context) as client:
        assert url.startswith("https://")
        for headers, statuses in (
            (collector, (200, 200, 403)),
            (reader, (403, 200, 403)),
            (admin, (200, 200, 200)),
            (outdated, (401, 401, 401)),
            ({}, (401, 401, 401)),
        ):
            write = await client.post("/api/write", content=b"", headers=headers)
            query = await client.post("/api/query", content=b"{}", headers=headers)
            free = await client.post("/api/free?to=0", content=b"null", headers=headers)
            assert (write.status_code, query.status_code, free.status_code) == statuses


async def test_the_key_is_kept_safe(tmp_path: Path) -> None:
    """Only its owner can read the key, none is overwritten, and a wrong call explains itself."""
    key = tmp_path / "token.key"
    assert (await program("make_token.py", "key", str(key))).returncode == 0
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (await program("make_token.py", "key", str(key))).returncode == 1
    assert key.read_bytes() == before
    assert (await program("make_token.py")).returncode == 2


async def test_sending_over_http() -> None:
    """The small collector stores its two metrics."""
    async with serving(Config()) as url:
        sent = await program("send_http.py", "alex", CCSTORE_URL=url)
        assert (sent.returncode, sent.stderr) == (0, b"")
        assert re.fullmatch(rb"2 samples of \S+ sent\n", sent.stdout)
        async with httpx.AsyncClient(base_url=url) as client:
            lines = (await client.get("/api/stats")).json()["lines"]
        assert (lines["received"], lines["stored"]) == (2, 2)


async def test_ranking_hosts() -> None:
    """query.py finds the host with the most."""
    before = int(time.time()) - 60  # it asks for the last minutes, whenever it runs
    lines = [f"mem_used,cluster=alex,hostname=a000{k},type=node value={k} {before}\n" for k in (1, 2, 3)]
    async with serving(Config()) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/api/write", content="".join(lines))).status_code == 200
        ranked = await program("query.py", "alex", "mem_used", "2", CCSTORE_URL=url)
    assert (ranked.returncode, ranked.stderr) == (0, b"")
    assert re.findall(rb"a000\d", ranked.stdout) == [b"a0003", b"a0002"]


async def test_sending_over_http_without_success() -> None:
    """It says why in one line: no server, no token."""
    config = Config()
    config = evolve(config, main=evolve(config.main, jwt_public_key=bytes(range(32))))
    async with serving(config) as url:
        refused = await program("send_http.py", "alex", CCSTORE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{url}: 401 ".encode())
    missing = await program("send_http.py", "alex", CCSTORE_URL=url)
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"{url}: ".encode())
    assert missing.stderr.count(b"\n") == 1


async def test_sending_over_nats(tmp_path: Path) -> None:
    """What it reads comes to a store through a real broker, in messages that the broker takes."""
    now = int(time.time())
    lines = [
        f"cpu_load,hostname=a{k:04},type=node value={k} {now - second}\n"
        for k in range(100) for second in range(3000, 0, -60)
    ]  # fmt: skip
    async with open_broker(tmp_path, "max_payload: 65536\n") as broker:
        nats = {"address": broker.url, "creds-file-path": "", "tls": {}}
        subscriptions = [{"subscribe-to": "hpc.metrics.alex", "cluster-tag": "alex"}]
        main = {"https-cert-file": "", "https-key-file": "", "user": "", "group": "", "backend-url": ""}
        store = {"nats-subscriptions": subscriptions}
        config = write_config(
            tmp_path, "config-site.json", {"main": main, "nats": nats, "metric-store": store}
        )
        config = evolve(config, main=evolve(config.main, jwt_public_key=b""))
        async with serving(config) as url, httpx.AsyncClient(base_url=url) as client:
            await until(client, "/api/health/ready", lambda answer: answer.status_code == 200)
            sent = await program(
                "send_nats.py", "hpc.metrics.alex", stdin="".join(lines).encode(), NATS_URL=broker.url
            )
            assert (sent.returncode, sent.stderr) == (0, b"")
            messages = int(sent.stdout.split()[0])
            assert messages >= sum(map(len, lines)) / 65536
            await until(client, "/api/stats", lambda answer: answer.json()["lines"]["received"] == len(lines))
            stats = (await client.get("/api/stats")).json()
            assert (stats["nats"]["messages"], stats["lines"]["stored"]) == (messages, len(lines))
            assert (await client.get("/api/clusters")).json() == {
                "clusters": [{"name": "alex", "hosts": 100}]
            }


SINFO = "a0001 allocated\na0002 mixed+drain\na0003 idle*\na0003 down*\n"
SQUEUE = (
    "1001|ann|thesis|main|2026-11-02T08:00:00|1-00:00:00|a[0001-0002]\n"
    "1002|bob|lab|main|2026-11-02T09:00:00|UNLIMITED|a0002,a[0003,0005-0006]\n"
)


@pytest.mark.parametrize("transport", ["http", "nats"])
async def test_feeding_from_slurm(transport: str, tmp_path: Path) -> None:
    """What sinfo and squeue print becomes states, starts, and a stop for the job that is listed no more."""
    (tmp_path / "nodes.txt").write_text(SINFO)
    (tmp_path / "jobs.txt").write_text(SQUEUE)
    clusters = Clusters([Cluster("alex", {}, (Subcluster("all", None, ("cpu_load",)),))])
    config = evolve(Config(), clusters=clusters)
    config = evolve(config, main=evolve(config.main, db=str(tmp_path / "job.db")))
    async with open_broker(tmp_path) as broker:
        environment = {}
        if transport == "nats":
            subjects = ApiSubjects(subject_job_event="cc.jobs", subject_node_state="cc.nodes")
            config = evolve(
                config,
                main=evolve(config.main, api_subjects=subjects),
                nats=NatsConfig(address=broker.url),
            )
            environment = {"NATS_URL": broker.url}
        async with serving(config) as url, httpx.AsyncClient(base_url=url) as client:
            await until(client, "/api/health/ready", lambda answer: answer.status_code == 200)

            async def feed() -> bytes:
                files = [str(tmp_path / "nodes.txt"), str(tmp_path / "jobs.txt")]
                fed = await program("feed_slurm.py", "alex", *files, CCSTORE_URL=url, **environment)
                assert (fed.returncode, fed.stderr) == (0, b"")
                return fed.stdout

            assert await feed() == b"3 nodes, 2 starts, 0 stops\n"
            await until(client, "/api/jobs/", lambda answer: len(answer.json()["jobs"]) == 2)
            await until(client, "/api/nodes/", lambda answer: len(answer.json()["nodes"]) == 3)
            nodes = (await client.get("/api/nodes/")).json()["nodes"]
            assert [node["state"] for node in nodes] == ["allocated", "mixed", "down"]
            newest, first = (await client.get("/api/jobs/")).json()["jobs"]
            assert [one["hostname"] for one in newest["resources"]] == ["a0002", "a0003", "a0005", "a0006"]
            assert (first["user"], first["project"], first["walltime"]) == ("ann", "thesis", 86400)
            (tmp_path / "jobs.txt").write_text(SQUEUE.splitlines(keepends=True)[1])
            assert await feed() == b"3 nodes, 0 starts, 1 stops\n"
            await until(client, "/api/jobs/?state=completed", lambda answer: len(answer.json()["jobs"]) == 1)


async def test_feeding_from_slurm_without_success(tmp_path: Path) -> None:
    """It says why, and tells the same again the next time."""
    (tmp_path / "nodes.txt").write_text(SINFO)
    (tmp_path / "jobs.txt").write_text(SQUEUE)
    config = Config()
    config = evolve(config, main=evolve(config.main, db=str(tmp_path / "job.db")))
    async with serving(config) as url:
        files = [str(tmp_path / "nodes.txt"), str(tmp_path / "jobs.txt")]
        fed = await program("feed_slurm.py", "alex", *files, CCSTORE_URL=url)
    assert fed.returncode == 1
    assert fed.stderr.startswith(f"{url}: start_job: ".encode())
    assert not (tmp_path / "jobs.txt.told").exists()


async def test_watching_a_job() -> None:
    """watch_job.py prints what is stored and what comes, of the hosts that were asked for."""
    now = int(time.time())
    lines = [f"mem_used,cluster=alex,hostname=a000{k},type=node value={k}.5 {now - 60}\n" for k in (1, 2, 3)]
    async with serving(Config()) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/api/write", content="".join(lines))).status_code == 200
        some = await program("watch_job.py", "alex", "a0001,a0003", "mem_used", "--for", "2", CCSTORE_URL=url)
        every = await program("watch_job.py", "alex", "all", "mem_used", "--for", "2", CCSTORE_URL=url)
    assert (some.returncode, some.stderr, every.stderr) == (0, b"", b"")
    assert re.findall(rb"(a000\d) +mem_used +(\S+)", some.stdout) == [
        (b"a0001", b"1.500"),
        (b"a0003", b"3.500"),
    ]
    assert re.findall(rb"a000\d", every.stdout) == [b"a0001", b"a0002", b"a0003"]


async def test_a_stream_in_a_notebook() -> None:
    """notebook_stream.py goes on where it stopped."""
    now = int(time.time())
    lines = [f"mem_used,cluster=alex,hostname=a0001,type=node value={k} {now - 60 * k}\n" for k in (3, 2, 1)]
    async with serving(Config()) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/api/write", content="".join(lines))).status_code == 200
        done = await program("notebook_stream.py", "alex", "mem_used", "1", CCSTORE_URL=url)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().split() == ["3", "values", "a0001", "2.000", "0", "more"]


async def test_embedding() -> None:
    """The server runs in another program's nursery, and ends with it."""
    done = await program("embed.py")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "a0001 1.0\na0002 2.0\na0003 3.0\n"


def unit() -> configparser.ConfigParser:
    """Return the unit for systemd."""
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(EXAMPLES / "ccstore.service", encoding="utf-8")
    return parser


def test_the_unit_fits_the_program() -> None:
    """Its command line parses, its times fit the defaults, and the cache is where it says."""
    service = unit()["Service"]
    program_path, *arguments = shlex.split(service["ExecStart"])
    assert Path(program_path).name == "ccstore"
    name, *rest = translate(arguments)
    with commands.make_context("ccstore", [], resilient_parsing=True) as context:
        command = commands.get_command(context, name)
    assert command is not None
    command.make_context(name, rest)
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) > Config().main.shutdown_grace
    assert service["Environment"] == f"NUMBA_CACHE_DIR=/var/cache/{service['CacheDirectory']}"
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert "MemoryDenyWriteExecute" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="a machine without systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd-analyze finds nothing to complain about."""
    text = (EXAMPLES / "ccstore.service").read_text(encoding="utf-8")
    here = tmp_path / "ccstore.service"
    here.write_text(text.replace("/opt/ccstore/bin/ccstore", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "ccstore.service" in line]
    assert complaints == []


async def test_the_rules_for_prometheus_ask_for_what_there_is() -> None:
    """Every metric and every outcome in them exists, and the guide explains every alert."""
    async with serving(Config()) as url, httpx.AsyncClient(base_url=url) as client:
        line = b"cpu_load,cluster=alex,hostname=a0001,type=node value=1"
        assert (await client.post("/api/write", content=line)).status_code == 200
        text = (await client.get("/metrics")).text
    rules = (EXAMPLES / "prometheus-rules.yml").read_text(encoding="utf-8")
    scrape = (EXAMPLES / "prometheus.yml").read_text(encoding="utf-8")
    known = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    known |= {"ccstore_http_requests_total"}  # of routes that nobody has asked
    asked = set(re.findall(r"\bccstore_\w+", rules))
    assert len(asked) > 8
    assert asked <= known
    outcomes = {name for group in re.findall(r'outcome=~?"([a-z_|]+)"', rules) for name in group.split("|")}
    assert outcomes <= {outcome.name.lower() for outcome in Outcome}
    assert set(re.findall(r'\bjob="(\w+)"', rules)) == set(re.findall(r"job_name: (\w+)", scrape))
    assert re.findall(r"^ *- (\S+\.yml)$", scrape, re.MULTILINE) == ["prometheus-rules.yml"]
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert alerts == re.findall(r"^\| (Ccstore\w+) \|", MONITOR, re.MULTILINE)
    assert set(re.findall(r"`(ccstore_\w+)`", MONITOR)) <= known


def test_the_files_for_prometheus_are_yaml() -> None:
    """Each rule has a name, an expression, a severity and a summary."""
    yaml = pytest.importorskip("yaml")
    scrape = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text(encoding="utf-8"))
    assert scrape["scrape_configs"][0]["metrics_path"] == "/metrics"
    (group,) = yaml.safe_load((EXAMPLES / "prometheus-rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["expr"].strip()
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].startswith("{{ $labels.instance }}")


async def test_the_dashboard_asks_for_what_there_is() -> None:
    """Every metric in it exists and has the labels that it is grouped by; panels do not lie on each other."""
    async with serving(Config()) as url, httpx.AsyncClient(base_url=url) as client:
        line = b"cpu_load,cluster=alex,hostname=a0001,type=node value=1"
        assert (await client.post("/api/write", content=line)).status_code == 200
        families = list(text_string_to_metric_families((await client.get("/metrics")).text))
    known = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    known = {name: {*labels, "instance"} for name, labels in known.items()}
    dashboard = json.loads((EXAMPLES / "grafana" / "ccstore.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions += [entry["expr"] for entry in dashboard["annotations"]["list"]]
    asked = set()
    for expression in expressions:
        names = re.findall(r"\b((?:ccstore|process|python)_\w+)\{", expression)
        assert names, expression
        asked |= set(names)
        groups = [re.split(", *", group) for group in re.findall(r"by \(([\w, ]+)\)", expression)]
        for name in names:
            assert name in known, expression
            assert {label for group in groups for label in group} <= known[name], expression
        assert expression.count("(") == expression.count(")")
    assert len(asked) > 50
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == re.findall(r"^\| ([\w ]+) \| [^|]*\? \|$", MONITOR, re.MULTILINE)


async def test_the_ledger_and_the_log_count_the_same() -> None:
    """What the alert on an open ledger compares: every line that is stored, again or anew, is logged."""
    async with serving(Config()) as url, httpx.AsyncClient(base_url=url) as client:
        lines = b"cpu_load,cluster=alex,hostname=a0001 value=%d\n"
        body = lines % 1 + lines % 2 + b"nonsense\n" + b"cpu_load,cluster=alex,hostname=a0002 value=1\n"
        assert (await client.post("/api/write", content=body)).status_code == 400
        stats = (await client.get("/api/stats")).json()
    counts = stats["lines"]
    assert (counts["stored"], counts["overwritten"], counts["bad_line"]) == (2, 1, 1)
    assert stats["log_appended_samples"] == 3
