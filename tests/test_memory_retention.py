"""What is freed and when: plans, and what walking them leaves."""

import pytest
from memory_tools import check_accounts, chunks, make_store, read, steps, write

from ccstore.memory.retention import Release, check_interval, exceeds, plan_relief, plan_retention
from ccstore.memory.store import Store
from ccstore.model import Status

HOSTS = [("a", "h1"), ("a", "h2"), ("b", "h1"), ("b", "h3")]
HOUR = 3600


@pytest.mark.parametrize("used", [None, {}, {"x": ["h1"]}, {"a": []}])
def test_without_jobs_all_hosts_are_idle(used: dict[str, list[str]] | None) -> None:
    """No provider, an empty answer, and an answer about others mean the same."""
    expected = Release(tuple(HOSTS), 100_000 - HOUR)
    assert expected == plan_retention(HOSTS, used, now=100_000, retention=HOUR)


def test_a_host_with_a_job_keeps_its_samples() -> None:
    """It is told by cluster and name."""
    used = {"a": ["h1"], "b": ("h3", "h2")}
    expected = Release((("a", "h2"), ("b", "h1")), 100_000 - HOUR)
    assert expected == plan_retention(HOSTS, used, now=100_000, retention=HOUR)


@pytest.mark.parametrize("retention", [0, -1])
def test_without_retention_nothing_is_too_old(retention: int) -> None:
    """Then everything is kept."""
    assert plan_retention(HOSTS, None, now=100_000, retention=retention) is None


def test_relief_takes_from_idle_hosts_first() -> None:
    """All three steps for them, and only then the same for hosts with jobs (D-43)."""
    idle, busy = (("a", "h1"), ("b", "h1")), (("a", "h2"), ("b", "h3"))
    expected = [
        Release(idle, 1000 - 300, 0.75, False),
        Release(idle, 1000 - 200, 0.5, False),
        Release(idle, 1000 - 100, 0.25, False),
        Release(busy, 1000 - 300, 0.75, True),
        Release(busy, 1000 - 200, 0.5, True),
        Release(busy, 1000 - 100, 0.25, True),
    ]
    used = {"a": ["h2"], "b": ["h3"]}
    assert expected == plan_relief(iter(HOSTS), used, now=1000, retention=400)
    assert expected[:3] == plan_relief(idle, used, now=1000, retention=400)
    assert expected[3:] == plan_relief(busy, used, now=1000, retention=400)
    assert plan_relief([], used, now=1000, retention=400) == []


@pytest.mark.parametrize(
    ("used", "cap", "over", "interval"),
    [
        (10**12, 0, False, 300.0),
        (100, 100, False, 30.0),
        (101, 100, True, 30.0),
        (81, 100, False, 30.0),
        (80, 100, False, 300.0),
        (0, 100, False, 300.0),
    ],
)
def test_the_memory_cap(used: int, cap: int, over: bool, interval: float) -> None:
    """0 is no cap (D-41); near the cap one looks more often."""
    assert over is exceeds(used, cap)
    assert interval == check_interval(used, cap)


def walk(store: Store, release: Release) -> int:
    """Free what a release names, as the server does."""
    return sum(
        store.free(store.locate(host, create=False), release.cutoff)
        for host in release.hosts
    )  # fmt: skip


@pytest.fixture
def store() -> Store:
    """Return a store with two hosts, each with a chunk of every 512 minutes of the last two days."""
    store = make_store()
    for host in ("busy", "idle"):
        write(store, ("c", host, "cpu0"), steps(0, range(48 * 60)))
    return store


def test_walking_a_retention_plan(store: Store) -> None:
    """The idle host loses what is too old and vanishes when that is all it has; the busy one stays."""
    now, used = 48 * HOUR, {"c": ["busy"]}
    before = chunks(store, ("c", "busy", "cpu0"))
    for later, kept in ((0, 4), (24 * HOUR + 60, 0)):
        hosts = [(cluster, host) for cluster, host, _ in store.index.hosts()]
        plan = plan_retention(hosts, used, now=now + later, retention=24 * HOUR)
        assert plan is not None
        walk(store, plan)
        assert before == chunks(store, ("c", "busy", "cpu0"))
        assert kept == len(chunks(store, ("c", "idle", "cpu0")))
    assert store.hosts("c") == ["busy"]
    store.prune(store.index.root, store.dormant())
    assert [(cluster, host) for cluster, host, _ in store.index.hosts()] == [("c", "busy")]
    check_accounts(store)


@pytest.mark.parametrize(
    ("share", "steps_needed"), [(0.95, 1), (0.85, 2), (0.7, 3), (0.6, 4), (0.5, 5), (0.0, 6)]
)
def test_walking_a_relief_plan(store: Store, share: float, steps_needed: int) -> None:
    """Whoever stops when the memory in use is below the cap has freed no more than was needed."""
    full = store.statistics().bytes_used
    hosts = [(cluster, host) for cluster, host, _ in store.index.hosts()]
    taken = 0
    for release in plan_relief(hosts, {"c": ["busy"]}, now=48 * HOUR, retention=48 * HOUR):
        if not exceeds(store.statistics().bytes_used, max(1, int(share * full))):
            break
        taken += 1
        walk(store, release)
        if not release.busy:
            assert len(chunks(store, ("c", "busy", "cpu0"))) == 6
    assert steps_needed == taken
    for host in ("busy", "idle"):
        assert read(store, ("c", host), 0, 10**6).status is Status.GOOD, "the newest samples stay"
    check_accounts(store)
