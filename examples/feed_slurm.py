"""Tell a store what Slurm says of nodes and jobs: states, starts and stops.

    sinfo -N -h -o '%N %T' | sort -u > nodes.txt
    squeue -h -t R -o '%A|%u|%a|%P|%S|%l|%N' > jobs.txt
    python examples/feed_slurm.py alex nodes.txt jobs.txt

The first argument is the cluster. Run it every minute: what it told last is kept beside the list of jobs,
in jobs.txt.told, and a job that is not in the list any more has ended. Needs nothing but Python; CCSTORE_URL
tells where the store is, CCSTORE_TOKEN holds a token. With NATS_URL everything goes over NATS instead, on the
subjects cc.nodes and cc.jobs; that needs nats-py.
"""

import asyncio
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

URL = os.environ.get("CCSTORE_URL") or "http://127.0.0.1:8082"
TOKEN = os.environ.get("CCSTORE_TOKEN")
NATS_URL = os.environ.get("NATS_URL")
PATHS = {
    "nodestate": "/api/nodestate/",
    "start_job": "/api/jobs/start_job/",
    "stop_job": "/api/jobs/stop_job/",
}
KNOWN = {"nodestate": (), "start_job": (422,), "stop_job": (404, 422)}
"""Answers that only mean that there is nothing left to do."""


def expand(hosts: str) -> list[str]:
    """Return the names in a list such as ``a[0001-0003,0007],login1``."""
    names = []
    for term in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", hosts):
        parts = []
        for text, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", term):
            bounds = [item.partition("-")[::2] for item in ranges.split(",")] if ranges else []
            numbers = [f"{n:0{len(a)}}" for a, b in bounds for n in range(int(a), int(b or a) + 1)]
            parts.append(numbers or [text])
        names += ["".join(name) for name in product(*parts)]
    return names


def seconds(limit: str) -> int:
    """Return a time limit such as ``1-00:00:00`` or ``30:00`` in seconds; 0 for none."""
    days, _, clock = limit.rpartition("-")
    if not re.fullmatch(r"[0-9:]+", clock):
        return 0
    parts = [int(part) for part in clock.split(":")]
    while len(parts) < 3:
        parts.insert(0, 0)
    return int(days or 0) * 86400 + parts[-3] * 3600 + parts[-2] * 60 + parts[-1]


def read_nodes(text: str, cluster: str) -> dict[str, Any]:
    """Return one report of all nodes; ``idle*`` and ``mixed+drain`` are several words for one node."""
    states: dict[str, set[str]] = {}
    for line in text.splitlines():
        host, state = line.split()
        states.setdefault(host, set()).update(re.findall(r"[a-z_]+", state.lower()))
    nodes = [{"hostname": host, "states": sorted(words)} for host, words in states.items()]
    return {"cluster": cluster, "nodes": nodes}


def read_jobs(text: str, cluster: str) -> dict[str, dict[str, Any]]:
    """Return the start of each running job, by number and time: a job that is requeued starts again."""
    jobs = {}
    for line in text.splitlines():
        number, user, account, partition, start, limit, hosts = line.split("|")
        names = expand(hosts)
        jobs[f"{number} {start}"] = {
            "cluster": cluster, "jobId": int(number), "user": user, "project": account,
            "partition": partition, "startTime": int(datetime.fromisoformat(start).timestamp()),
            "walltime": seconds(limit), "numNodes": len(names),
            "resources": [{"hostname": name} for name in names],
        }  # fmt: skip
    return jobs


def post(function: str, event: dict[str, Any]) -> None:
    """Send an event over HTTP; raise OSError if it was not taken."""
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    body = json.dumps(event).encode()
    request = urllib.request.Request(URL + PATHS[function], body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10):
            return
    except urllib.error.HTTPError as error:
        said = json.loads(error.read() or b"{}").get("error", error.reason)
        if error.code not in KNOWN[function]:
            raise OSError(f"{function}: {error.code} {said}") from error


async def publish(events: list[tuple[str, dict[str, Any]]]) -> None:
    """Send events over NATS, each as a line of its own; nobody answers."""
    import nats

    connection = await nats.connect(NATS_URL, name="feed_slurm")
    for function, event in events:
        text = json.dumps(event).replace("\\", "\\\\").replace('"', '\\"')
        is_node = function == "nodestate"
        name = "nodestate" if is_node else f"job,function={function}"
        line = f'{name} event="{text}" {time.time_ns()}\n'
        await connection.publish("cc.nodes" if is_node else "cc.jobs", line.encode())
    await connection.flush()
    await connection.close()


def main() -> int:
    """Tell what is new; return 0, or 1 if the store did not take it."""
    cluster, nodes, listed = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    now = int(time.time())
    told = listed.with_name(f"{listed.name}.told")
    before = json.loads(told.read_text()) if told.exists() else {}
    jobs = read_jobs(listed.read_text(), cluster)
    events = [("nodestate", read_nodes(nodes.read_text(), cluster))]
    events += [("start_job", job) for name, job in jobs.items() if name not in before]
    events += [
        (
            "stop_job",
            {"cluster": cluster, "jobId": job["jobId"], "startTime": job["startTime"], "stopTime": now},
        )
        for name, job in before.items()
        if name not in jobs
    ]
    try:
        if NATS_URL:
            asyncio.run(publish(events))
        else:
            for function, event in events:
                post(function, event)
    except OSError as error:
        print(f"{NATS_URL or URL}: {error}", file=sys.stderr)
        return 1
    told.write_text(json.dumps(jobs))
    count = {name: sum(function == name for function, _ in events) for name in ("start_job", "stop_job")}
    print(f"{len(events[0][1]['nodes'])} nodes, {count['start_job']} starts, {count['stop_job']} stops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
