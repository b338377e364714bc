#!/usr/bin/env python3
"""Watch the hosts of a job, or all of a cluster: the newest value of some metrics, as they come in.

    watch_job.py CLUSTER HOSTS METRIC... [--for SECONDS]

HOSTS is a list with commas, or "all". The store is CCSTORE_URL (default http://127.0.0.1:8082), with the
token CCSTORE_TOKEN.
"""

import argparse
import math
import os
import sys
import time

import trio

from ccstore.client import Client, Query, ServerError, Update


def show(update: Update) -> None:
    """Print a line for each host and metric that has something new."""
    for change in update.changes:
        newest = int(change.times.argmax())
        value, at = float(change.values[newest]), int(change.times[newest])
        if not math.isnan(value):
            series = change.series
            clock = time.strftime("%H:%M:%S", time.localtime(at))
            print(f"{clock} {series.host:12} {series.metric:16} {value:10.3f} {series.unit}")
    sys.stdout.flush()


async def watch(cluster: str, hosts: list[str], metrics: list[str]) -> None:
    """Print what comes in, for ever."""
    queries = [Query(metric, host) for host in hosts for metric in metrics]
    everything = [] if hosts else metrics
    url, token = os.environ.get("CCSTORE_URL", "http://127.0.0.1:8082"), os.environ.get("CCSTORE_TOKEN", "")
    async with (
        Client(url, token=token) as client,
        client.stream(cluster, queries, for_all_nodes=everything, window=300) as stream,
    ):
        async for update in stream:
            show(update)


async def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cluster")
    parser.add_argument("hosts")
    parser.add_argument("metrics", nargs="+")
    parser.add_argument("--for", dest="seconds", type=float, default=math.inf)
    given = parser.parse_args()
    hosts = [] if given.hosts == "all" else given.hosts.split(",")
    try:
        with trio.move_on_after(given.seconds):
            await watch(given.cluster, hosts, given.metrics)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(trio.run(main))
    except KeyboardInterrupt:
        sys.exit(130)
