"""Which NATS server to try next, and how long to wait before.

Owns the list of servers: those of the configuration in their order, and those that a cluster
announces. Connects to none. Invariant: the configured ones are never forgotten, so that there is
always one to try.

All servers are tried once without a pause, then there is one that doubles with each further
round. It is random by half, lest all stores of a site fall upon a restarted server together.
"""

import random
from collections import deque

from ccstore.errors import ConfigError
from ccstore.wire.nats_auth import Address

__all__ = ["ServerList"]

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds


class ServerList:
    """The known servers, the one to try next in front."""

    def __init__(self, configured: tuple[Address, ...]) -> None:
        self._configured = configured
        self._order = deque(configured)
        self._tried = 0
        self._rounds = 0

    def __len__(self) -> int:
        return len(self._order)

    def next(self) -> tuple[Address, float]:
        """Return the server to try, and the seconds to wait before."""
        pause = 0.0
        if self._tried >= len(self._order):
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._rounds)
            pause = longest * random.uniform(0.5, 1.0)  # noqa: S311  nothing secret about a pause
            self._tried = 0
            self._rounds = min(self._rounds + 1, 16)  # bounds the power, not the number of attempts
        self._tried += 1
        address = self._order[0]
        self._order.rotate(-1)
        return address, pause

    def start_anew(self) -> None:
        """Forget the failures so far: a connection held."""
        self._tried = self._rounds = 0

    def learn(self, via: Address, urls: tuple[str, ...]) -> None:
        """Take over what the server at `via` says of its cluster; nothing if it says nothing."""
        if not urls:
            return
        servers = {(address.host, address.port): address for address in self._configured}
        for url in urls:
            try:
                address = via.neighbour(url)
            except ConfigError:
                continue  # of a kind we do not speak; the others will do
            servers.setdefault((address.host, address.port), address)
        known = [address for address in self._order if address in servers.values()]
        self._order = deque([*known, *(a for a in servers.values() if a not in known)])

    def others(self, address: Address) -> list[Address]:
        """Return all servers but `address`, the next to try first."""
        return [other for other in self._order if other != address]
