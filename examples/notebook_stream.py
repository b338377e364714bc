#!/usr/bin/env python3
"""A stream in a notebook, cell by cell: collect what comes in for a while, as arrays, and go on later.

Jupyter runs "%autoawait trio" first; then each "await" below stands in a cell of its own. As a program
it is one function. The store is CCSTORE_URL (default http://127.0.0.1:8082), with the token CCSTORE_TOKEN.
"""

import os
import sys

import numpy as np
import trio

from ccstore.client import Client, Stream


async def collect(stream: Stream, seconds: float) -> int:
    """Take what comes in for some seconds; return how many values that were."""
    count = 0
    with trio.move_on_after(seconds):
        async for update in stream:
            count += sum(len(change.values) for change in update.changes)
    return count


async def main(cluster: str, metric: str, seconds: float) -> None:
    """What the cells do, one after the other."""
    url, token = os.environ.get("CCSTORE_URL", "http://127.0.0.1:8082"), os.environ.get("CCSTORE_TOKEN", "")
    async with Client(url, token=token) as client, client.stream(cluster, for_all_nodes=[metric]) as stream:
        print(await collect(stream, seconds), "values")  # cell 1: the last ten minutes, and what comes
        table = {series.host: stream.values(index)[1] for index, series in stream.series.items()}
        means = {host: np.mean(values) for host, values in table.items() if len(values)}  # cell 2
        for host, mean in sorted(means.items(), key=lambda pair: -pair[1])[:10]:
            print(f"{host:12} {mean:10.3f}")
        print(await collect(stream, seconds), "more")  # cell 3: what has come since cell 1, and what comes


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:3], float(sys.argv[3]) if len(sys.argv) > 3 else 5.0)
