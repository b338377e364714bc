#!/usr/bin/env python3
"""Watch a job, some hosts, or all of a cluster: the newest value of some metrics, as they come in.

    watch_job.py CLUSTER WHAT METRIC... [--for SECONDS]

WHAT is the number of a job, which is watched until it ends, or a list of hosts with commas, or "all". The
store is CCSTORE_URL (default http://127.0.0.1:8082), with the token CCSTORE_TOKEN.
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


async def watch(cluster: str, what: str, metrics: list[str]) -> None:
    """Print what comes in, for ever or until the job ends."""
    url, token = os.environ.get("CCSTORE_URL", "http://127.0.0.1:8082"), os.environ.get("CCSTORE_TOKEN", "")
    client = Client(url, token=token)
    if what.isdecimal():
        opened = client.stream_job(cluster, int(what), metrics)
    elif what == "all":
        opened = client.stream(cluster, for_all_nodes=metrics, window=300)
    else:
        queries = [Query(metric, host) for host in what.split(",") for metric in metrics]
        opened = client.stream(cluster, queries, window=300)
    async with client, opened as stream:
        async for update in stream:
            show(update)
        if stream.ended is not None:
            print(f"job {what}: {stream.ended.state}")


async def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cluster")
    parser.add_argument("what")
    parser.add_argument("metrics", nargs="+")
    parser.add_argument("--for", dest="seconds", type=float, default=math.inf)
    given = parser.parse_args()
    try:
        with trio.move_on_after(given.seconds):
            await watch(given.cluster, given.what, given.metrics)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(trio.run(main))
    except KeyboardInterrupt:
        sys.exit(130)
