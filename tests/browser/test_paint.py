"""How long a cluster of 2 000 nodes takes to be seen: run with ``-s`` to read the figure."""

import json
import re
import sys
import time
from pathlib import Path

import httpx
from conftest import Eyes, free_port, serving
from playwright.sync_api import expect

HOSTS = [f"n{number:04d}" for number in range(2000)]

_WATCH = """
addEventListener("DOMContentLoaded", () => new MutationObserver((_, observer) => {
  if (document.querySelectorAll(".nodes a").length < 2000) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { document.body.dataset.painted = performance.now(); }));
}).observe(document.body, { childList: true, subtree: true }));
"""


def configure(directory: Path, port: int) -> Path:
    """Write a configuration with a cluster of these hosts."""
    cluster = {
        "name": "big",
        "metricConfig": [{"name": "cpu_load", "timestep": 60, "aggregation": "avg", "scope": "node"}],
        "subClusters": [{"name": "main", "nodes": "n[0000-1999]"}],
    }
    (directory / "archive" / "big").mkdir(parents=True)
    (directory / "archive" / "version.txt").write_text("3\n")
    (directory / "archive" / "big" / "cluster.json").write_text(json.dumps(cluster))
    config = {
        "main": {"addr": f"127.0.0.1:{port}", "db": str(directory / "job.db")},
        "archive": {"kind": "file", "path": str(directory / "archive")},
        "metric-store": {
            "retention-in-memory": "1h",
            "memory-cap": 0,
            "checkpoints": {"directory": str(directory / "checkpoints")},
        },
    }
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    return path


def fill(url: str) -> None:
    """Tell a state and a sample of each host."""
    now = int(time.time())
    lines = "\n".join(f"cpu_load,cluster=big,hostname={host} value=1 {now}" for host in HOSTS)
    nodes = [{"hostname": host, "states": ["allocated" if host < "n1000" else "idle"]} for host in HOSTS]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        client.post("/api/write", content=lines).raise_for_status()
        told = client.post("/api/nodestate/", json={"cluster": "big", "nodes": nodes}).raise_for_status()
        assert told.json()["stored"] == len(HOSTS)


def test_a_large_cluster_is_soon_seen(eyes: Eyes, tmp_path: Path):
    """All of its nodes are there, and the figure is printed."""
    port = free_port()
    with serving(configure(tmp_path, port), port) as url:
        fill(url)
        eyes.page.add_init_script(_WATCH)
        eyes.page.goto(url)
        body = eyes.page.locator("body")
        expect(body).to_have_attribute("data-painted", re.compile("."))
        seconds = float(body.get_attribute("data-painted")) / 1000
        sys.stdout.write(f"\nfirst useful paint of {len(HOSTS)} nodes: {seconds:.2f} s\n")
        assert eyes.page.locator(".nodes a[data-state=allocated]").count() == 1000
