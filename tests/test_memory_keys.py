"""The seam with the key cache: ids of series that are freed, forgotten, and given to others."""

from collections.abc import Iterator

import numpy as np
import pytest
from memory_tools import FOREVER, SUM, check_accounts, read

from ccstore.memory.store import Store
from ccstore.model import Metric, Outcome, Status
from ccstore.wire.keys import KeyCache
from ccstore.wire.scan import SPARE_BYTES, Scan, Scanner

# without compilation, the hash of the key cache overflows on purpose and numpy says so
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


class Sender:
    """A store with the scanner that feeds it."""

    def __init__(self) -> None:
        self.store = Store([Metric("m", 60, SUM), Metric("n", 60)], max_series=100, max_bytes=1 << 20)
        self.keys = KeyCache(max_keys=1000)
        self.scanner = Scanner(self.keys, self.store)

    def send(self, *lines: str, allowance: int = 100) -> list[Outcome]:
        """Write lines, and return what became of each."""
        text = "".join(f"{line}\n" for line in lines).encode()
        data = np.frombuffer(text + bytes(SPARE_BYTES), np.uint8)
        scan = Scan(self.scanner, data, np.array([0]), np.array([len(text)]), now=0)
        outcomes: list[Outcome] = []
        while not scan.done:
            batch, _ = scan.step(allowance=allowance)
            self.store.append(batch, latest=10**9)
            outcomes += map(Outcome, batch.outcomes[: batch.count].tolist())
        return outcomes

    def sweep(self) -> Iterator[None]:
        """Remove what is dormant, as the server does; others run at each step."""
        with self.keys.forgetting(self.store.dormant()) as forgetting:
            done = False
            while not done:
                yield
                done = forgetting.step()
            for _, _, place in self.store.index.hosts():
                yield
                self.scanner.forget_places()
                self.store.prune(place, forgetting.dead)

    def sum_of(self, host: str) -> float | None:
        """Return the last value of m at a host; None if there is none."""
        got = read(self.store, ("c", host), 0, FOREVER)
        return got.values[-1] if got.status is Status.GOOD and got.values else None


def line(host: str, value: float, time: int = 1000) -> str:
    return f"m,cluster=c,hostname={host} value={value} {time}"


@pytest.fixture
def sender() -> Sender:
    """Return a store to which two hosts have sent a sample each."""
    sender = Sender()
    assert sender.send(line("old", 1), line("kept", 2)) == [Outcome.STORED] * 2
    return sender


def run(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def test_a_swept_series_leaves_nothing_behind(sender: Sender) -> None:
    """No key, no id, no place; and what comes later is stored as if nothing had been."""
    sender.store.free(sender.store.locate(("c", "old")), FOREVER)
    run(sender.sweep())
    assert len(sender.keys) == 1
    assert (sender.store.statistics().series, sender.store.statistics().hosts) == (1, 1)
    sender.send(line("new", 3), line("old", 4))
    assert [sender.sum_of(host) for host in ("kept", "new", "old")] == [2.0, 3.0, 4.0]
    check_accounts(sender.store)


@pytest.mark.parametrize("moment", range(5))
@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("old", line("old", 5)),
        ("old", "m,hostname=old,cluster=c value=5 1000"),
        ("old", f"m,cluster=c,hostname=old,type=cpu,type-id=0,{'x' * 2000}=1 value=5 1000"),
        ("new", line("new", 5)),
    ],
    ids=["known key", "other spelling", "key that is not remembered", "new host"],
)
def test_lines_that_arrive_during_a_sweep_are_stored(
    sender: Sender, moment: int, host: str, sent: str
) -> None:
    """Between any two steps: no sample is lost, and none lands in the series of another."""
    sender.store.free(sender.store.locate(("c", "old")), FOREVER)
    steps = sender.sweep()
    for _ in range(moment):
        next(steps, None)
    assert sender.send(sent) == [Outcome.STORED]
    run(steps)
    check_accounts(sender.store)
    assert sender.sum_of(host) == 5.0
    assert sender.send(line("a", 6), line("b", 7), line("kept", 8, time=1060)) == [Outcome.STORED] * 3
    assert [sender.sum_of(name) for name in (host, "a", "b", "kept")] == [5.0, 6.0, 7.0, 8.0]
    run(sender.sweep())
    assert [sender.sum_of(name) for name in (host, "a", "b", "kept")] == [5.0, 6.0, 7.0, 8.0]
    check_accounts(sender.store)


@pytest.mark.parametrize("moment", range(5))
def test_lines_that_are_refused_during_a_sweep_keep_nothing(sender: Sender, moment: int) -> None:
    """A host that may not be made, and a sample of the future, leave neither key nor place behind."""
    sender.store.free(sender.store.locate(("c", "old")), FOREVER)
    steps = sender.sweep()
    for _ in range(moment):
        next(steps, None)
    assert sender.send(line("new", 5), allowance=0) == [Outcome.LIMIT]
    assert sender.send(line("old", 5, time=2 * 10**9)) == [Outcome.FUTURE]
    run(steps)
    run(sender.sweep())
    assert len(sender.keys) == 1
    assert (sender.store.statistics().series, sender.store.statistics().hosts) == (1, 1)
    check_accounts(sender.store)
