"""How long the event loop was held: the longest time that one task ran without letting others run.

Everything the server does happens on one thread between two awaits, so this number tells how
late an answer can be because of somebody else. It costs two readings of the clock for each step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import trio
from attrs import define

__all__ = ["LONG", "LoopWatch"]

LONG = 0.05
"""Seconds; a step that takes longer is counted."""


@define(eq=False)
class LoopWatch(trio.abc.Instrument):
    """Measures each step of each task, in seconds."""

    longest: float = 0.0
    """The longest step since the start."""
    longest_name: str = ""
    """The task that took it."""
    busy: float = 0.0
    """All steps together, so that its rate is the share of time in which the loop works."""
    held: int = 0
    """Steps that took longer than LONG."""
    _began: float = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure while the context is open, from the rest of the step that opens it."""
        self._began = perf_counter()
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 -- trio calls it so
        """Note when a step begins."""
        self._began = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note how long it took."""
        seconds = perf_counter() - self._began
        self.busy += seconds
        if seconds > self.longest:
            self.longest, self.longest_name = seconds, task.name
        if seconds > LONG:
            self.held += 1
