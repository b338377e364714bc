"""Counts of what became of streams; plain numbers that the hub and its sessions add to."""

from attrs import define, field

from ccstore.server.histogram import Histogram

__all__ = ["LiveStatistics"]


@define
class LiveStatistics:
    """How the streams are."""

    connections: int = 0
    refused: int = 0
    """Messages of clients that were answered with an error."""
    sent_messages: int = 0
    sent_bytes: int = 0
    lags: int = 0
    """Times that a subscription was interrupted: its client takes less than there is to tell."""
    closed_slow: int = 0
    """Connections that were closed for that."""
    delay_seconds_max: float = 0.0
    """The longest time from a sample to the end of its hand-over to the connections."""
    delays: Histogram = field(factory=Histogram)
    """The same for each entry of each subscription."""
