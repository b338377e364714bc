"""The ledger: what became of every line that was received.

Owns the counts, and never sees a line. Invariant: a line ends as exactly one outcome, so the counts
of a source add up to what it sent, and they never go back.

What was never taken for a line is not in it: blank lines, comments, the half line at the end of a body
that was cut, and messages that the NATS client had to drop, which it counts itself.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ccstore.model import Batch, Outcome

__all__ = ["OUTCOMES", "Counts", "Ledger", "count_outcomes"]

OUTCOMES = tuple(outcome for outcome in Outcome if outcome is not Outcome.BLANK)

Counts = NDArray[np.int64]
"""int64[len(Outcome)]: lines of each outcome."""


def count_outcomes(batch: Batch) -> Counts:
    """Count the rows of a batch by their outcome."""
    return np.bincount(batch.outcomes[: batch.count], minlength=len(Outcome))


class Ledger:
    """Counts of lines by source and outcome."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}

    def add(self, source: str, counts: Counts) -> None:
        """Add what became of some lines that came from a source, ``http`` or ``nats``."""
        if source not in self._counts:
            self._counts[source] = np.zeros(len(Outcome), np.int64)
        self._counts[source] += counts

    def total(self) -> Mapping[str, int]:
        """Return the lines of each outcome over all sources, and how many were `received`."""
        counts = sum(self._counts.values(), np.zeros(len(Outcome), np.int64))
        totals = {outcome.name.lower(): int(counts[outcome]) for outcome in OUTCOMES}
        return {"received": sum(totals.values()), **totals}

    def __iter__(self) -> Iterator[tuple[str, Outcome, int]]:
        """Iterate over (source, outcome, lines)."""
        for source, counts in self._counts.items():
            for outcome in OUTCOMES:
                yield source, outcome, int(counts[outcome])
