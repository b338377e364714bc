"""The tree of places: selectors, what is visible, what freeing and pruning leave, health."""

import itertools

import numpy as np
import pytest
from memory_tools import (
    AVG,
    FOREVER,
    NAN,
    SUM,
    batch_of,
    check_accounts,
    chunks,
    enlist,
    make_store,
    read,
    steps,
    write,
)

from ccstore.memory import index
from ccstore.memory.store import Store
from ccstore.model import ANY, Health, Metric, NodeHealth, Outcome, Selector, Status

ROOT = 0


def metrics() -> tuple[Metric, ...]:
    return Metric("m", 60, SUM), Metric("n", 60, AVG), Metric("o", 60), Metric("p", 10)


@pytest.fixture
def store() -> Store:
    """Return a store with two clusters; m is at several levels."""
    store = make_store(*metrics())
    for k, path in enumerate(
        [
            ("a", "h1", "cpu0"), ("a", "h1", "cpu1"), ("a", "h2", "cpu0"), ("a", "h2", "socket0", "mem0"),
            ("a", "h2", "socket0", "mem1"), ("b", "h1"), ("b", "h1", "cpu0"),
        ]
    ):  # fmt: skip
        write(store, path, [(1000, 2**k)])
    write(store, ("a", "h1"), [(1000, 1)], metric="n")
    return store


# --- selectors


@pytest.mark.parametrize(
    ("selector", "total"),
    [
        (("a", "h1"), 0b11),
        (("a", "h1", "cpu1"), 0b10),
        (("a", "h1", ("cpu0", "cpu1")), 0b11),
        (("a", "h1", ("cpu0", "cpu7", "socket0")), 0b01),
        (("a", "h1", ANY), 0b11),
        (("a", "h2"), 0b11100),
        (("a", "h2", "socket0"), 0b11000),
        (("a", "h2", "socket0", ("mem1",)), 0b10000),
        (("a", "h2", ANY, ANY), 0b11000),
        (("a", ("h1", "h2"), "cpu0"), 0b101),
        (("a", ANY, "cpu0"), 0b101),
        (("a",), 0b11111),
        (("b", "h1"), 0b100000),
        (("b", "h1", "cpu0"), 0b1000000),
        (("b", "h1", ANY), 0b1000000),
        ((ANY, "h1"), 0b100011),
        (((), "h1"), None),
        (("a", "h1", ()), None),
        (("a", ""), None),
        (("", "h1"), None),
        (("a", "h3"), None),
        (("c", "h1"), None),
        (("a", "h1", "cpu0", "x"), None),
        ((), 0b111111),
    ],
)
def test_a_selector_means_series(store: Store, selector: Selector, total: int | None) -> None:
    """Names, groups and ANY pick children; a level's own series hides those below it."""
    got = read(store, selector, 900, 1300)
    if total is None:
        assert got.status is Status.NOTHING
    else:
        assert (float(total),) == got.values


def test_a_group_keeps_its_order(store: Store) -> None:
    """Series come in the order of the names, and ANY means the order of all names."""
    one, two = (int(store.select(("a", "h1", name), 0)[0]) for name in ("cpu0", "cpu1"))
    assert [two, one] == store.select(("a", "h1", ("cpu1", "cpu0")), 0).tolist()
    assert [one, two] == store.select(("a", "h1", ANY), 0).tolist()


def test_a_metric_that_nobody_configured(store: Store) -> None:
    """It is an error of its own, before the path is looked at and after the range."""
    assert read(store, ("a", "nobody"), 0, 1, metric="x").status is Status.UNKNOWN_METRIC
    assert read(store, ("a", "h1"), 1, 0, metric="x").status is Status.BAD_RANGE


def test_a_selection_follows_what_appears_and_vanishes(store: Store) -> None:
    """What is remembered of a host is forgotten when a series below it comes or goes."""
    host = ("a", "h1")
    assert read(store, host, 900, 1300).values == (3.0,)
    write(store, (*host, "cpu2"), [(1000, 100)])
    assert read(store, host, 900, 1300).values == (103.0,)
    write(store, host, [(1000, 7)])
    assert read(store, host, 900, 1300).values == (7.0,)
    write(store, (*host, "cpu0"), steps(1000, [1] * 9))
    store.free(store.locate(host), 1200)
    assert read(store, host, 900, 1060).values == (1.0,)
    store.free(store.locate(host), FOREVER)
    assert read(store, host, 900, 1300).status is Status.NOTHING
    write(store, host, [(1000, 5)])
    assert read(store, host, 900, 1300).values == (5.0,)


def test_selections_are_remembered_up_to_a_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten first, and all are right."""
    monkeypatch.setattr(index, "_MAX_REMEMBERED", 2)
    for _ in range(3):
        for selector, total in ((("a", "h1"), 3), (("a", "h2"), 28), (("b", "h1"), 32)):
            assert (float(total),) == read(store, selector, 900, 1300).values
    assert len(store.index._hosts) == 2


def test_many_selections_end_when_there_is_no_room(store: Store) -> None:
    """A step of a long query takes what fits, and at least something."""
    selectors, numbers = [("a", "h1")] * 1000, [0] * 1000
    assert len(store.index.select(selectors, numbers, room=1)) == 64
    assert len(store.index.select(selectors, numbers, room=3 * 70)) == 128
    assert len(store.index.select(selectors, numbers, room=10**6)) == 1000
    assert store.index.select([], [], room=5) == []


def test_a_host_of_many_components() -> None:
    """Results of any size fit."""
    store = make_store(max_series=5000)
    place = [store.locate(("c", "h", f"cpu{k}")) for k in range(4000)]
    ids, _ = store.enlist(np.array(place, np.int32), np.zeros(4000, np.int32), allowance=4000)
    store.append(batch_of(ids.tolist(), [(1000, 1)] * 4000), latest=FOREVER)
    assert read(store, ("c", "h"), 900, 1300).values == (4000.0,)
    assert sorted(ids) == sorted(store.select(("c", "h"), 0))


# --- what is visible


def test_only_places_with_data_are_visible(store: Store) -> None:
    """A place that was made for a refused sample is not listed, and names are sorted (D-07, D-50)."""
    write(store, ("a", "h0"), [(1000, 1)])
    enlist(store, ("a", "h9"))
    assert write(store, ("a", "h8", "cpu0"), [(1000, 1)], latest=0) == [Outcome.FUTURE]
    assert store.hosts("a") == ["h0", "h1", "h2"]
    assert store.hosts("x") == []
    assert list(store.index.visible(store.locate(("a", "h2")))) == ["cpu0", "socket0"]
    assert not store.index.is_visible(store.locate(("a", "h9")))
    listed = [(cluster, host) for cluster, host, _ in store.index.hosts()]
    assert [("a", f"h{k}") for k in (0, 1, 2, 8, 9)] + [("b", "h1")] == listed
    assert [(name, 0) for name, _ in store.series_at(store.locate(("b", "h1")))] == [("m", 0)]
    assert list(store.series_at(store.locate(("a", "h9")))) == []


def test_looking_makes_nothing(store: Store) -> None:
    """Neither a read nor a look-up leaves a place behind (D-38)."""
    before = store.statistics()
    assert store.locate(("x", "y"), create=False) == -1
    assert read(store, ("x", "y"), 0, 1).status is Status.NOTHING
    store.check_health("x", "y", ["m"], now=0)
    assert before == store.statistics()


def test_a_series_above_the_hosts(store: Store) -> None:
    """A cluster may have one: it hides its hosts, and is freed and pruned like any other."""
    assert read(store, ("a",), 900, 1300).values == (31.0,)
    write(store, ("a",), [(1000, 1000)])
    assert read(store, ("a",), 900, 1300).values == (1000.0,)
    assert read(store, ("a", "h1"), 900, 1300).values == (3.0,)
    write(store, ("a",), [(1060, 1), (100000, 2)])
    assert store.free(store.locate(("a",)), 2000) == 7
    assert read(store, ("a",), 900, 1300).status is Status.GOOD
    store.prune(store.locate(("a",)), store.dormant())
    assert store.hosts("a") == []
    assert read(store, ("a",), 99000, 200000).values[-1] == 2.0
    check_accounts(store)


def test_statistics_count_what_is_kept(store: Store) -> None:
    """Clusters, hosts, series and chunks."""
    got = store.statistics()
    assert (got.clusters, got.hosts, got.series, got.max_series, got.chunks) == (2, 3, 8, 1000, 8)
    assert store.combines("c", 0)
    assert store.combines("c", 1)
    assert not store.combines("c", 2)


# --- free


@pytest.mark.parametrize(("cutoff", "freed"), [(1239, 0), (1240, 0), (1241, 1), (10**30, 1), (-(10**30), 0)])
def test_a_chunk_goes_when_it_ends_before_the_cutoff(cutoff: int, freed: int) -> None:
    """Strictly before; then component and host are gone as well."""
    store = make_store()
    write(store, ("c", "h", "cpu0"), steps(1000, [1, 2, 3, 4]))
    assert freed == store.free(ROOT, cutoff)
    assert ([] if freed else ["h"]) == store.hosts("c")
    store.prune(ROOT, store.dormant())
    assert (0 if freed else 1) == store.statistics().hosts
    check_accounts(store)


def test_chunks_go_oldest_first() -> None:
    """A chunk stays as long as its last used slot, whatever is behind it."""
    store = make_store()
    write(store, ("c", "h"), [*steps(60030, range(512)), *steps(90757, [1, 2]), (200000, 3)])
    assert chunks(store, ("c", "h")) == [(60000, 512), (90727, 2), (199970, 1)]
    assert store.free(ROOT, 90750) == 0
    assert store.free(ROOT, 90751) == 1
    assert chunks(store, ("c", "h")) == [(90727, 2), (199970, 1)]
    assert write(store, ("c", "h"), [(60030, 1)]) == [Outcome.LATE]
    assert store.free(ROOT, 200061) == 2
    assert chunks(store, ("c", "h")) == []
    check_accounts(store)


@pytest.mark.parametrize(
    ("path", "hosts", "freed"),
    [
        (("a", "h1"), {"a": ["h2"], "b": ["h1"]}, 3),
        (("a", "h2", "socket0"), {"a": ["h1", "h2"], "b": ["h1"]}, 2),
        (("a",), {"a": [], "b": ["h1"]}, 6),
        ((), {"a": [], "b": []}, 8),
    ],
)
def test_only_what_is_below_is_freed(
    store: Store, path: tuple[str, ...], hosts: dict[str, list[str]], freed: int
) -> None:
    """Other hosts keep their samples."""
    assert freed == store.free(store.locate(path), FOREVER)
    assert hosts == {cluster: store.hosts(cluster) for cluster in hosts}
    assert store.free(store.locate(path), FOREVER) == 0
    check_accounts(store)


def test_a_sample_that_follows_a_free_is_not_lost(store: Store) -> None:
    """Its series is the same, as long as nobody pruned it (D-21)."""
    series = enlist(store, ("a", "h1", "cpu0"))
    store.free(ROOT, FOREVER)
    batch = batch_of([series], [(500, 3)])
    store.append(batch, latest=FOREVER)
    assert batch.outcomes.tolist() == [Outcome.STORED]
    assert store.hosts("a") == ["h1"]
    assert read(store, ("a", "h1"), 0, FOREVER).values == (3.0,)


# --- prune


def test_pruning_removes_marked_series_and_empty_places(store: Store) -> None:
    """What is not marked, not dormant, or holds something else stays."""
    store.free(store.locate(("a", "h1")), FOREVER)
    keep = enlist(store, ("a", "h1", "cpu1"))
    dead = store.dormant()
    assert dead.sum() == 3
    dead[keep] = False
    dead[enlist(store, ("a", "h2", "cpu0"))] = True
    store.prune(store.locate(("a", "h1")), dead)
    assert {"cpu1"} == set(store.index.children(store.locate(("a", "h1"))))
    assert keep == enlist(store, ("a", "h1", "cpu1"))
    assert store.statistics().series == 6
    check_accounts(store)
    store.prune(ROOT, dead)
    assert read(store, ("a", "h2"), 900, 1300).values == (28.0,)
    check_accounts(store)


def test_pruning_a_host_removes_its_empty_cluster(store: Store) -> None:
    """Parents that become empty go too; the root stays."""
    for cluster in ("a", "b"):
        for host in store.hosts(cluster):
            place = store.locate((cluster, host))
            store.free(place, FOREVER)
            store.prune(place, store.dormant())
    got = store.statistics()
    assert (got.clusters, got.hosts, got.series, got.chunks) == (0, 0, 0, 0)
    assert not store.dormant().any()
    check_accounts(store)


def test_ids_of_series_and_places_are_used_again(store: Store) -> None:
    """A new series has the id of an old one, and nothing of its data or of what was remembered."""
    old = enlist(store, ("b", "h1", "cpu0"))
    assert read(store, ("b", "h1", "cpu0"), 900, 1300).values == (64.0,)
    assert read(store, ("b", "h1"), 900, 1300).values == (32.0,)
    place = store.locate(("b", "h1"))
    store.free(place, FOREVER)
    store.prune(place, store.dormant())
    taken = {store.locate(("z", f"h{k}")): k for k in range(3)}
    assert place in taken, "the number of the place is in use again"
    assert read(store, ("z", f"h{taken[place]}"), 900, 1300).status is Status.NOTHING
    new = [enlist(store, ("z", f"h{k}")) for k in range(3)]
    assert old in new
    for k in range(3):
        write(store, ("z", f"h{k}"), [(1000, k)])
    for k in range(3):
        assert (float(k),) == read(store, ("z", f"h{k}"), 900, 1300).values
    check_accounts(store)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_children_are_removed_in_any_order(order: tuple[int, ...]) -> None:
    """The first, the last, or one between others: the rest stay linked."""
    store = make_store()
    for k in range(4):
        write(store, ("c", "h", f"cpu{k}"), [(1000, 2**k)])
    total = 0b1111
    for k in order:
        assert read(store, ("c", "h"), 900, 1300).values == (float(total),)
        place = store.locate(("c", "h", f"cpu{k}"))
        store.free(place, FOREVER)
        store.prune(place, store.dormant())
        total -= 2**k
        check_accounts(store)
    assert store.statistics().clusters == 0


@pytest.mark.parametrize("gone", ["m", "n", "o", "mn", "mo", "no"])
def test_some_series_of_a_place_are_removed(gone: str) -> None:
    """The others stay linked, and a removed one can come back."""
    store = make_store(*metrics())
    for name in "mno":
        write(store, ("c", "h"), [(1000 if name in gone else 5000, 1)], metric=name)
    assert store.free(ROOT, 3000) == len(gone)
    store.prune(ROOT, store.dormant())
    check_accounts(store)
    assert {name for name, _ in store.series_at(store.locate(("c", "h")))} == set("mno") - set(gone)
    assert store.statistics().series == 3 - len(gone)
    for name in "mno":
        write(store, ("c", "h"), [(6000, 2)], metric=name)
        assert read(store, ("c", "h"), 6000, 6060, metric=name).values == (2.0,)
    check_accounts(store)


def test_ids_beyond_the_marks_stay() -> None:
    """A series that was made after the marks were taken is not in them."""
    store = make_store()
    store.free(ROOT, FOREVER)
    dead = store.dormant()
    series = enlist(store, ("c", "h"))
    store.prune(ROOT, dead)
    assert series == enlist(store, ("c", "h"))
    assert store.statistics().series == 1


# --- health


@pytest.mark.parametrize(("age", "state"), [(0, Health.FULL), (330, Health.FULL), (331, Health.FAILED)])
def test_a_series_is_fresh_for_five_frequencies(age: int, state: Health) -> None:
    """Counted from the end of its newest slot."""
    store = make_store()
    write(store, ("c", "h"), [(10000 - age, 1)])
    assert state is store.check_health("c", "h", ["m"], now=10000).state


@pytest.mark.parametrize(
    ("expected", "health"),
    [
        (("m", "n", "o", "unknown"), NodeHealth(Health.PARTIAL, True, ("m",), ("o", "unknown"))),
        (("m",), NodeHealth(Health.FAILED, True, ("m",), ())),
        (("o", "m"), NodeHealth(Health.FAILED, True, ("m",), ("o",))),
        (("n",), NodeHealth(Health.FULL, True)),
        ((), NodeHealth(Health.FULL, True)),
        (("unknown", "p", "n"), NodeHealth(Health.PARTIAL, True, (), ("unknown", "p"))),
    ],
)
def test_the_health_of_a_host(expected: tuple[str, ...], health: NodeHealth) -> None:
    """One stale series degrades its metric; the lists keep the order that was asked for."""
    store = make_store(*metrics())
    write(store, ("c", "h", "cpu0"), [(10000, NAN)])
    write(store, ("c", "h", "cpu1"), [(9000, 1)])
    write(store, ("c", "h"), [(10000, 1)], metric="n")
    assert health == store.check_health("c", "h", expected, now=10000)


def test_the_health_of_a_host_without_data(store: Store) -> None:
    """A host that was never seen, or whose samples were freed, has failed; nothing is known of it."""
    store.free(store.locate(("b", "h1")), FOREVER)
    for cluster, host in (("b", "h1"), ("b", "h7"), ("x", "h1")):
        assert NodeHealth(Health.FAILED, False) == store.check_health(cluster, host, ["m"], now=1000)
