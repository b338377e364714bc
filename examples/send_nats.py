"""Publish lines in line protocol from standard input to a NATS broker, for a store to receive.

    some-collector | python examples/send_nats.py hpc.metrics.north

Needs nats-py. NATS_URL tells where the broker is; user and password, or a token, can stand before the host.
Lines go out together, in messages as large as the broker takes, and at least every FLUSH_DELAY seconds.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import nats

URL = os.environ.get("NATS_URL") or "nats://127.0.0.1:4222"
FLUSH_DELAY = 5.0


async def batches(reader: asyncio.StreamReader, most_bytes: int) -> AsyncIterator[bytes]:
    """Yield lines put together: as many as fit, and no longer than FLUSH_DELAY after the first came."""
    line: bytes | None = await reader.readline()
    while line:
        batch = line
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_DELAY):
                while True:
                    line = None  # not read yet, should the time be up
                    line = await reader.readline()
                    if not line or len(batch) + len(line) > most_bytes:
                        break
                    batch += line
        yield batch
        if line is None:
            line = await reader.readline()


async def main() -> int:
    """Connect, publish, and wait until the broker has everything."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    connection = await nats.connect(URL, name="send_nats")
    messages = 0
    async for batch in batches(reader, connection.max_payload):
        await connection.publish(sys.argv[1], batch)
        messages += 1
    await connection.flush()  # the broker has them now; nobody tells whether a store has
    await connection.close()
    print(f"{messages} messages published on {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
