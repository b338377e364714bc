"""What goes over HTTP, in numbers: connections, bytes, requests by route and status, and how long they took.

Owns counts only; the connections write them, and everybody may read them at any time. They never go back.
Invariant: labels are bounded, whatever clients send: a route is one of ours or `OTHER`, a status one of a
few numbers.
"""

from collections import Counter

from attrs import define, field

from ccstore.server.histogram import Histogram

__all__ = ["LEFT", "OTHER", "Traffic"]

OTHER = "other"
"""The route of a request that is for none of ours."""
LEFT = 499
"""The status of a request whose client left before there was one, as nginx counts them."""


@define(eq=False)
class Traffic:
    """Counts of one server."""

    connections: int = 0
    """Open now."""
    accepted: int = 0
    """Connections since the start."""
    received_bytes: int = 0
    """Read from sockets: heads, bodies, TLS and all."""
    sent_bytes: int = 0
    running: int = 0
    """Requests that are being answered."""
    requests: Counter[tuple[str, int]] = field(factory=Counter)
    """Requests answered by route and status."""
    seconds: dict[str, Histogram] = field(factory=dict)
    """From the head of a request to the end of its answer, by route."""

    def enter(self, route: str, status: int, seconds: float) -> None:
        """Enter a request whose answer is complete, or whose client has left."""
        self.requests[route, status] += 1
        if route not in self.seconds:
            self.seconds[route] = Histogram()
        self.seconds[route].observe(seconds)
