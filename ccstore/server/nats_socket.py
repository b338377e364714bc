"""Bytes to and from a NATS server: TCP, or TLS over it, read straight into a segment.

Owns the socket and, for TLS, the state of OpenSSL. Knows nothing of the protocol above. Invariant:
`receive_into` loses nothing when it is cancelled; `send` may, so whoever cancels it must not send
on this socket again.

trio.SSLStream is not used: it hands out one record of 16 KiB a call, which costs more than twice the
CPU of this loop, and trio.SocketStream allocates what it reads. The size of the socket's buffers
is left to the kernel: setting SO_RCVBUF would end its autotuning.
"""

import ssl
from collections.abc import Sequence
from typing import Protocol, cast

import trio

__all__ = ["Buffer", "TcpTransport", "TlsTransport", "Transport", "open_tcp"]

KIB = 1024
ENCRYPTED_BYTES = 512 * KIB  # asked of the kernel at once
IOV_MAX = 1024  # how many buffers Linux takes in one call
TLS_CHUNK = 256 * KIB  # encrypted at once, so that sending starts early
UNSENT_BYTES = 256 * KIB  # may wait in the kernel; with Trio's 16 KiB every payload takes several turns


Buffer = bytes | bytearray | memoryview


class Transport(Protocol):
    """Where bytes come from and go to; one task may receive while another sends."""

    async def receive_into(self, view: memoryview) -> int:
        """Fill `view` from its start with what is there, at least one byte; 0 is the end."""

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send all `parts` in order."""

    def close(self) -> None:
        """Close the socket at once, without a farewell."""


async def open_tcp(host: str, port: int) -> "Transport":
    """Connect, trying all addresses of `host`. Raises OSError."""
    stream = await trio.open_tcp_stream(host, port)
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return TcpTransport(stream.socket)


class TcpTransport:
    """A plain socket."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.socket = sock

    async def receive_into(self, view: memoryview) -> int:
        """Fill `view` from its start with what is there, at least one byte; 0 is the end."""
        return await self.socket.recv_into(view)

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send all `parts` in order, without joining them."""
        rest = [memoryview(part) for part in parts if len(part)]
        done = 0
        while done < len(rest):
            sent = await self.socket.sendmsg(rest[done : done + IOV_MAX])
            while done < len(rest) and sent >= len(rest[done]):
                sent -= len(rest[done])
                done += 1
            if sent:
                rest[done] = rest[done][sent:]

    def close(self) -> None:
        """Close the socket at once, without a farewell."""
        self.socket.close()


class TlsTransport:
    """TLS over a connected socket; call `handshake` first."""

    def __init__(self, tcp: Transport, context: ssl.SSLContext, server_name: str) -> None:
        self._tcp = tcp
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._encrypted = memoryview(bytearray(ENCRYPTED_BYTES))
        self._sending = trio.Lock()

    async def handshake(self) -> None:
        """Agree on keys and check the server's certificate. Raises OSError."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise ConnectionResetError("closed by the server in the TLS handshake") from None
        await self._flush()

    async def receive_into(self, view: memoryview) -> int:
        """Fill `view` from its start with what is there, at least one byte; 0 is the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (filled := self._decrypt_into(view)):
            # Decrypting can leave an answer to send, such as new keys; before waiting, because an
            # await after decrypting could be cancelled and lose what is in `view`.
            await self._flush()
            if not await self._feed():
                return 0
        return filled

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send all `parts` in order."""
        plain = memoryview(b"".join(parts))  # few large records instead of one for each part
        async with self._sending:
            for start in range(0, len(plain), TLS_CHUNK):
                self._tls.write(plain[start : start + TLS_CHUNK])
                await self._tcp.send([self._outgoing.read()])

    def close(self) -> None:
        """Close the socket at once, without a farewell."""
        self._tcp.close()

    def _decrypt_into(self, view: memoryview) -> int:
        filled = 0
        try:
            while filled < len(view):
                # Given a buffer it returns how much it wrote there, which its type leaves out.
                count = cast("int", self._tls.read(len(view) - filled, view[filled:]))
                if not count:
                    break  # a farewell; the end of the socket follows
                filled += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            if not filled:  # else hand out what was good, the error comes again
                raise
        return filled

    async def _feed(self) -> int:
        count = await self._tcp.receive_into(self._encrypted)
        self._incoming.write(self._encrypted[:count])
        return count

    async def _flush(self) -> None:
        if self._outgoing.pending:
            async with self._sending:
                await self._tcp.send([self._outgoing.read()])
