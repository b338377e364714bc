"""How the NATS client is: state and counters, for readiness, metrics and tests.

Owns numbers only; the client writes them and everybody may read them at any time. Counters never
go back. Invariant: messages = delivered + queued + dropped, where delivered is what is left.
"""

from typing import Literal

import trio
from attrs import define

from ccstore.wire.nats_message import Messages

__all__ = ["NatsStatistics", "State"]

State = Literal["off", "connecting", "connected", "lame duck", "closed"]


@define(eq=False)
class NatsStatistics:
    """State and counters of one client; times are those of `trio.current_time`."""

    state: State = "off"
    since: float = 0.0
    """When this state began."""
    server: str = ""
    """Address of the server we are connected to, or were last."""
    connects: int = 0
    """Connections that were made; every one but the first is a reconnect."""
    failed_connects: int = 0
    """Attempts to connect that failed, since the start."""
    refused_subjects: tuple[str, ...] = ()
    """Subscriptions that the server does not permit; nothing will come of them."""
    last_error: str = ""

    messages: int = 0
    """Received, those dropped included."""
    bytes: int = 0
    """Of payload."""
    dropped_messages: int = 0
    """The buffer was full, or the server was stopped while it recovered."""
    dropped_bytes: int = 0
    dropped_lines: int = 0
    """Newlines in what was dropped."""
    is_dropping: bool = False
    """Whether the latest message was dropped."""
    is_blocked: bool = False
    """Whether reading rests until the store has taken something."""
    blocked_seconds: float = 0.0
    """How long it has rested in all, up to the last time that ended."""

    queued_messages: int = 0
    """Received and not yet taken by the store, the ones it is working on included."""
    queued_bytes: int = 0
    """Their payload."""
    held_bytes: int = 0
    """The memory that keeps them, in whole segments; what the budget limits."""
    budget_bytes: int = 0
    oldest_queued: float | None = None
    """When the oldest of them was received."""

    published_messages: int = 0
    published_bytes: int = 0
    """Of payload."""

    @property
    def reconnects(self) -> int:
        """How often a connection was made after the first."""
        return max(0, self.connects - 1)

    @property
    def is_connected(self) -> bool:
        """Whether messages can come in."""
        return self.state in ("connected", "lame duck")

    def oldest_queued_age(self) -> float:
        """Seconds that the oldest message has been waiting; 0 if none is."""
        return 0.0 if self.oldest_queued is None else trio.current_time() - self.oldest_queued

    def drop(self, messages: Messages) -> None:
        """Count messages that nobody is going to store."""
        self.dropped_messages += len(messages)
        self.dropped_bytes += messages.payload_bytes
        self.dropped_lines += messages.count_lines()

    def enter(self, state: State) -> None:
        """Change the state."""
        self.state = state
        self.since = trio.current_time()
