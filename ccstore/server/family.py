"""What one metric is, before it is written down: its type, its name, its help text, its samples."""

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from ccstore.server.histogram import Histogram

__all__ = ["Family", "counter", "gauge"]


@frozen
class Family:
    """One metric with its samples."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    """Without the prefix ``ccstore_``, and without the ``_total`` of a counter."""
    help: str
    samples: Sequence[tuple[Mapping[str, str], float | Histogram]]
    """Labels and value; of a histogram, what was counted."""

    @property
    def number(self) -> float | None:
        """The value of a family that is one number, without labels; None of any other."""
        value = self.samples[0][1] if len(self.samples) == 1 and not self.samples[0][0] else None
        return None if isinstance(value, Histogram) else value


def gauge(name: str, text: str, value: float) -> Family:
    """Describe a number that goes up and down."""
    return Family("gauge", name, text, [({}, value)])


def counter(name: str, text: str, value: float) -> Family:
    """Describe a number that never goes back."""
    return Family("counter", name, text, [({}, value)])
