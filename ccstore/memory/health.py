"""Health of a host as the store sees it: whether the metrics arrive that should.

`Store.check_health` counts, for each metric, the series of the host whose newest slot ended at most
five frequencies ago (fresh) or earlier (stale); here that becomes a verdict. NaN counts as data,
and a component that stopped reporting keeps its metric degraded until its chunks are freed.
"""

from collections.abc import Iterable

from ccstore.model import Health, NodeHealth

__all__ = ["UNKNOWN", "classify"]

UNKNOWN = NodeHealth(Health.FAILED, known=False)
"""The health of a host of which nothing is stored."""


def classify(counts: Iterable[tuple[str, int, int]]) -> NodeHealth:
    """Judge a host by (metric, fresh series, stale series) of each expected metric.

    The order of the metrics is kept in the lists of the verdict. A host of which nothing else is
    expected is in full health; one with nothing healthy left has failed.
    """
    degraded, missing, healthy = [], [], 0
    for name, fresh, stale in counts:
        if stale:
            degraded.append(name)
        elif fresh:
            healthy += 1
        else:
            missing.append(name)
    if not degraded and not missing:
        state = Health.FULL
    else:
        state = Health.PARTIAL if healthy else Health.FAILED
    return NodeHealth(state, known=True, degraded=tuple(degraded), missing=tuple(missing))
