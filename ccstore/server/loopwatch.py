"""How long the event loop was held: the longest time that one task ran without letting others run.

Everything the server does happens on one thread between two awaits, so this number tells how
late an answer can be because of somebody else. It costs two readings of the clock for each step.
"""

from time import perf_counter

import trio
from attrs import Factory, define

__all__ = ["LoopWatch"]


@define(eq=False, slots=False)
class LoopWatch(trio.abc.Instrument):
    """Measures each step of each task, in seconds."""

    longest: float = 0.0
    """The longest step since the start."""
    longest_name: str = ""
    """The task that took it."""
    held: int = 0
    """Steps of more than 50 ms."""
    _began: float = Factory(perf_counter)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 -- trio calls it so
        """Note when a step begins."""
        self._began = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note how long it took."""
        seconds = perf_counter() - self._began
        if seconds > self.longest:
            self.longest, self.longest_name = seconds, task.name
        if seconds > 0.05:
            self.held += 1

    def reset(self) -> None:
        """Forget the longest step."""
        self.longest, self.longest_name = 0.0, ""
