"""Lines whose keys are forgotten, or were never learned."""

import numpy as np
import pytest
from wire_keys import find, forget
from wire_oracle import Bench, Row, sample

from ccstore.model import Outcome
from ccstore.wire import keys as keys_module

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "_FORGET_STEP", 7)


def test_lines_of_more_clusters_than_are_remembered() -> None:
    """Lines go on to find their place for any number of default clusters."""
    bench, line = Bench(), b"m,host=h value=1 5\nm,cluster=c,host=h value=1 5\n"
    for _ in range(2):
        for k in (*range(1, 1010, 9), *range(990, 1010)):
            bench.keys.domain(str(k))
        for cluster in ("x", "y", "5"):
            assert [sample(1, 5, cluster, "h"), sample(1, 5, "c", "h")] == bench.scan(
                line, default_cluster=cluster
            )
        for k in range(1010):
            bench.keys.domain(f"other {k}")


def test_a_full_cache_is_only_slower() -> None:
    """Lines whose keys there was no room for find their series as others do."""
    bench = Bench(max_keys=3)
    message = b"".join(b"m,cluster=c,host=h%d value=%d 5\n" % (k, k) for k in range(20))
    expected = [sample(k, 5, "c", f"h{k}") for k in range(20)]
    for _ in range(3):
        assert expected == bench.scan(message)
    assert (len(bench.keys), bench.store.statistics().series) == (3, 20)


def test_places_are_learned_anew_when_there_is_no_room() -> None:
    """When the places that are remembered are too many, all are forgotten, and the next ones learned."""
    bench = Bench(places=10)
    for k in range(30):
        assert [sample(1, 5, "c", f"h{k}")] == bench.scan(b"m,cluster=c,host=h%d value=1 5\n" % k)
        assert len(bench.scanner.places) <= 10
    assert find(bench.scanner.places, b"cluster=c,host=h0") is None
    assert find(bench.scanner.places, b"cluster=c,host=h29") is not None


def test_a_series_comes_back_while_it_is_forgotten() -> None:
    """Whatever is still marked at the end of a pass has no key; what was learned meanwhile is not marked."""
    bench = Bench()
    lines = [b"m,cluster=c,host=h%d value=1 5\n" % k for k in range(30)]
    bench.scan(b"".join(lines))
    dead = bench.store.dormant()
    assert dead.all()
    with bench.keys.forgetting(dead) as forgetting:
        assert not forgetting.step()  # the first seven are forgotten
        expected = [sample(1, 5, "c", "h3"), sample(1, 5, "c", "h20")]
        assert expected == bench.scan(lines[3] + lines[20])
        while not forgetting.step():
            pass
        spared = np.flatnonzero(~forgetting.dead).tolist()
        assert spared == [3]  # the key of 20 was still known, and is gone now
        bench.store.prune(bench.store.index.root, forgetting.dead)
        bench.scanner.forget_places()
    assert len(bench.keys) == 1
    assert [sample(1, 5, "c", f"h{k}") for k in range(30)] == bench.scan(b"".join(lines))


def test_series_newer_than_the_pass_are_spared() -> None:
    """A series that was made after a pass had begun keeps its key."""
    bench = Bench()
    bench.scan(b"m,cluster=c,host=a value=1 5\n")
    with bench.keys.forgetting(bench.store.dormant()) as forgetting:
        bench.scan(b"m,cluster=c,host=b value=1 5\n")
        while not forgetting.step():
            pass
    assert len(bench.keys) == 1
    assert find(bench.keys, b"m,cluster=c,host=b") is not None


def test_a_forgotten_key_is_no_guess() -> None:
    """What came next the last time may be gone; a line that begins like its tail is none of it."""
    bench, first = Bench(), b"m,cluster=c,host=a value=1 5\n"
    bench.scan(first + b"m,cluster=c,host=b value=1 5\n")
    forget(bench.keys, np.array([False, True]))
    expected = [sample(1, 5, "c", "a"), Row(Outcome.UNKNOWN_METRIC)]
    assert expected == bench.scan(first + b" value=1 5\n")
