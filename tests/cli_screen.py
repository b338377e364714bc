"""Waiting for what a command says."""

import io
import re

import trio


async def read_until(stream: trio.abc.ReceiveStream, wanted: bytes) -> bytes:
    """Return what a process has said once it has said `wanted`; it is an error if it ends before."""
    said = b""
    while wanted not in said:
        chunk = await stream.receive_some()
        assert chunk, f"ended without {wanted!r}: {said.decode()}"
        said += chunk
    return said


class Screen(io.StringIO):
    """What is printed, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._news = trio.Event()

    def write(self, text: str) -> int:
        """Take some more."""
        count = super().write(text)
        self._news.set()
        return count

    async def wait(self, pattern: str) -> re.Match[str]:
        """Return the first match of a regular expression, once there is one."""
        while (found := re.search(pattern, self.getvalue())) is None:
            self._news = trio.Event()
            await self._news.wait()
        return found
