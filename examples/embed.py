"""Run a store in a nursery of one's own, write to it and ask it, all in one program.

    python examples/embed.py

The hot loops are compiled on their first use, which takes a minute once; `ccstore warmup` does it ahead.
"""

import time
from functools import partial

import httpx
import trio
from attrs import evolve

from ccstore import Config, run


async def use(url: str) -> None:
    """Store one sample of each of three hosts, and ask for them."""
    now = int(time.time())
    lines = [f"cpu_load,cluster=alex,hostname=a000{k},type=node value={k} {now}\n" for k in (1, 2, 3)]
    question = {"cluster": "alex", "from": now - 60, "to": now + 60, "for-all-nodes": ["cpu_load"]}
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        (await client.post("/api/write", content="".join(lines))).raise_for_status()
        answer = (await client.post("/api/query", json=question)).raise_for_status().json()
    for query, results in zip(answer["queries"], answer["results"], strict=True):
        print(query["host"], results[0]["avg"])


async def main() -> None:
    """Start the server, use it, and stop it."""
    defaults = Config()  # or ccstore.load_config("config.json")
    config = evolve(defaults, main=evolve(defaults.main, addr="127.0.0.1:0"))
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(run, config, stop=done.wait))
        await use(url)
        done.set()  # the server finishes what it has begun, and the nursery ends


if __name__ == "__main__":
    trio.run(main)
