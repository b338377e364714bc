"""Clusters in which a metric is another one: its samples, its queries, its health, its way through files."""

import numpy as np
import pytest
from attrs import evolve
from memory_tools import FOREVER, check_accounts
from wire_oracle import Bench, sample

from ccstore.memory.naming import Resolver, name_series
from ccstore.memory.query import Reader, plan
from ccstore.memory.store import Store
from ccstore.model import Aggregation, Health, Metric, Query, QueryRequest, Status

SUM, AVG, NONE = Aggregation.SUM, Aggregation.AVG, Aggregation.NONE
METRICS = (Metric("load", 60), Metric("power", 60, SUM))
OWN = {"fast": [Metric("load", 10, AVG)], "slow": [Metric("power", 300), Metric("load", 120)]}


@pytest.fixture(name="bench")
def _bench() -> Bench:
    """Return a scanner and a store for the clusters `fast`, `slow`, and any other one."""
    return Bench(METRICS, own=OWN)


def fill(bench: Bench, message: bytes, **options) -> list:
    """Scan a short message into the store; return its rows."""
    rows = bench.scan(message, **options)
    bench.store.append(evolve(bench.scanner.batch, count=len(rows)), latest=FOREVER)
    return rows


def answer(store: Store, cluster: str, metric: str, host: str = "h") -> tuple[int, list[float], Status]:
    """Return step, values and status of a query for all that is stored in the first hour."""
    request = QueryRequest(cluster=cluster, start=0, stop=3600, queries=(Query(metric, host),))
    (groups,) = plan(store, request, [])
    ((_, window),) = Reader(store.columns).windows(groups, 0, 3600)
    return int(window.resolutions[0]), window.values.tolist(), Status(int(window.statuses[0]))


def test_a_metric_has_the_step_of_its_cluster(bench: Bench) -> None:
    """Lines of all clusters come in one message; each series has the grid of its own cluster."""
    lines = [
        b"load,cluster=%s,hostname=h value=%d %d" % (cluster, k, 600 + 10 * k)
        for k in range(12)
        for cluster in (b"fast", b"slow", b"other")
    ]
    fill(bench, b"\n".join(lines))
    assert answer(bench.store, "fast", "load") == (10, [float(k) for k in range(12)], Status.GOOD)
    assert answer(bench.store, "other", "load") == (60, [2.0, 8.0, 11.0], Status.GOOD)
    assert answer(bench.store, "slow", "load") == (120, [5.0, 11.0], Status.GOOD)
    check_accounts(bench.store)


def test_known_keys_and_default_clusters_keep_them_apart(bench: Bench) -> None:
    """The same bytes mean another series for each default cluster, the first time and ever after."""
    for time in (600, 610, 620):
        for cluster in ("fast", "other"):
            line = b"load,hostname=h value=1 %d" % time
            assert fill(bench, line, default_cluster=cluster) == [
                sample(1, time, cluster, "h", metric="load")
            ]
    assert answer(bench.store, "fast", "load")[:2] == (10, [1.0, 1.0, 1.0])
    assert answer(bench.store, "other", "load")[:2] == (60, [1.0])


def test_an_aggregation_is_that_of_the_cluster(bench: Bench) -> None:
    """Whether a subtype gets a place of its own, and whether threads can be combined, is asked by cluster."""
    fill(bench, b"power,cluster=slow,hostname=h,stype=gpu,stype-id=0 value=1 600")
    fill(bench, b"power,cluster=other,hostname=h,stype=gpu,stype-id=0 value=1 600")
    assert bench.store.locate(("slow", "h", "gpu0"), create=False) < 0
    assert bench.store.locate(("other", "h", "gpu0"), create=False) >= 0
    for cluster in (b"fast", b"slow"):
        for k in range(2):
            fill(bench, b"load,cluster=%s,hostname=g,type=core,type-id=%d value=%d 600" % (cluster, k, k))
    assert answer(bench.store, "fast", "load", "g") == (10, [0.5], Status.GOOD)
    assert answer(bench.store, "slow", "load", "g")[2] is Status.NO_AGGREGATION


def test_health_counts_in_the_steps_of_the_cluster(bench: Bench) -> None:
    """What is recent for a step of 120 s is old for one of 10 s."""
    fill(bench, b"load,cluster=fast,hostname=h value=1 600\nload,cluster=slow,hostname=h value=1 600")
    healths = [bench.store.check_health(cluster, "h", ["load"], now=800) for cluster in ("fast", "slow")]
    assert [(health.state, list(health.degraded)) for health in healths] == [
        (Health.FAILED, ["load"]),
        (Health.FULL, []),
    ]


def test_files_name_both_and_lead_back_to_both(bench: Bench) -> None:
    """One name with two frequencies goes into one file, and any store finds its own for it."""
    for cluster in (b"fast", b"other"):
        fill(bench, b"load,cluster=%s,hostname=h value=1 600" % cluster)
    names = name_series(bench.store, np.array([0, 1], np.int32))
    assert (list(names.metric_names), sorted(names.frequencies.tolist())) == (["load", "load"], [10, 60])
    for own, expected in ((OWN, [10, 60]), ({}, [60, 60])):
        store = Store(METRICS, own=own, max_series=10, max_bytes=1 << 20)
        resolver = Resolver(store)
        resolver.take(names)
        assert store.frequencies(resolver.series).tolist() == expected
        assert resolver.frequencies.tolist() == [10, 60]


def test_a_metric_that_is_not_stored_is_stored_nowhere(bench: Bench) -> None:
    """Names are the same for all clusters."""
    ids = [bench.store.metric_id(cluster, name) for cluster in ("fast", "other") for name in ("load", "x")]
    assert ids == [2, -1, 0, -1]
