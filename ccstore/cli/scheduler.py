"""The scheduler of a simulated site: its cluster file, and what it tells a store of nodes and jobs.

Owns what was told last, so that each start and each stop is told once. It computes no job (`site` does), and
knows a store by its HTTP API alone. Invariant: what is counted was taken by the store.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from attrs import define, field

from ccstore.cli.site import Site
from ccstore.cli.site.hardware import NODE_TYPES, Scope
from ccstore.cli.site.jobs import Job
from ccstore.config import DEFAULT_METRICS

__all__ = ["Scheduler", "write_cluster"]

_EXPECTED = ("cpu_load", "mem_used", "flops_any", "mem_bw")
_NOTHING_TO_DO = (404, 422)  # the store took it the time before, and its answer got lost
_OF_ACCELERATORS = ("acc_utilization", "acc_power")


def write_cluster(site: Site, cluster: str, directory: Path) -> None:
    """Write the files of a cluster that has all hosts of a site: a subcluster for each type of node."""
    hosts: dict[str, list[str]] = {}
    for _, host, kind in site.host_names:
        hosts.setdefault(kind, []).append(host)
    value = {
        "name": cluster,
        "metricConfig": [_metric(name) for name in _EXPECTED],
        "subClusters": [_subcluster(kind, names) for kind, names in hosts.items()],
    }
    (directory / cluster).mkdir(parents=True, exist_ok=True)
    (directory / "version.txt").write_text("3\n")
    (directory / cluster / "cluster.json").write_text(json.dumps(value))


def _metric(name: str) -> dict[str, Any]:
    metric = DEFAULT_METRICS[name]
    return {"name": name, "timestep": metric.frequency, "aggregation": metric.aggregation.value or None}


def _subcluster(kind: str, hosts: list[str]) -> dict[str, Any]:
    node = NODE_TYPES[kind]
    threads = list(range(node.threads))

    def shares(scope: Scope) -> list[list[int]]:
        count = len(node.parts(scope))
        size = len(threads) // count
        return [threads[k * size : (k + 1) * size] for k in range(count)]

    return {
        "name": kind,
        "nodes": ",".join(hosts),
        "metricConfig": [_metric(name) for name in _OF_ACCELERATORS] if node.accelerators else [],
        "topology": {
            "node": threads,
            "socket": shares(Scope.SOCKET),
            "memoryDomain": shares(Scope.MEMORY_DOMAIN),
            "core": shares(Scope.CORE),
            "accelerators": [{"id": name} for name in node.accelerators],
        },
    }


@define
class Scheduler:
    """Tells a store what becomes of the nodes and the jobs of a site."""

    site: Site
    cluster: str
    client: httpx.AsyncClient
    jobs: dict[int, Job] = field(factory=dict)
    """Those that run, as the store was told."""
    busy: int = 0
    """Nodes with a job, as the store was told."""

    async def tell(self, now: int) -> None:
        """Tell what has changed until a time (s); what the store cannot take now is told the next time."""
        with suppress(httpx.HTTPError):
            await self._tell(now)

    async def _tell(self, now: int) -> None:
        running = {job.job_id: job for job in self.site.running_jobs(now)}
        for number in self.jobs.keys() - running.keys():
            job = self.jobs[number]
            await self._post("jobs/stop_job", {**self._name(job), "stopTime": min(job.stop, now)})
            del self.jobs[number]
        for number in running.keys() - self.jobs.keys():
            await self._post("jobs/start_job", self._start(running[number]))
            self.jobs[number] = running[number]
        in_use = {host for job in running.values() for host in job.hosts}
        nodes = [
            {
                "hostname": host,
                "states": ["allocated" if host in in_use else "idle"],
                "jobsRunning": int(host in in_use),
            }
            for _, host, _ in self.site.host_names
        ]
        await self._post("nodestate", {"cluster": self.cluster, "nodes": nodes})
        self.busy = len(in_use)

    def _name(self, job: Job) -> dict[str, Any]:
        return {"cluster": self.cluster, "jobId": job.job_id, "startTime": job.start}

    def _start(self, job: Job) -> dict[str, Any]:
        return {
            **self._name(job),
            "user": job.user,
            "project": job.application,
            "walltime": job.stop - job.start,
            "numNodes": len(job.hosts),
            "resources": [{"hostname": host} for host in job.hosts],
            "metaData": {"jobName": job.application},
        }

    async def _post(self, path: str, event: dict[str, Any]) -> None:
        answer = await self.client.post(f"/api/{path}/", json=event)
        if answer.status_code not in _NOTHING_TO_DO:
            answer.raise_for_status()
