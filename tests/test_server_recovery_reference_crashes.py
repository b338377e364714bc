"""Power cuts and kills behind every operation of lives in the reference's formats."""

import os

import pytest
from durable import schedule_by_seed
from durable_life import live

LIVES = int(os.environ.get("CCSTORE_LIVES", "6"))


@pytest.fixture(autouse=True)
def _no_log(caplog):
    caplog.set_level("CRITICAL", "ccstore")


@pytest.mark.parametrize(("kind", "shards"), [("json", 1), ("wal", 1), ("wal", 3)])
def test_every_operation_of_a_life(monkeypatch, kind, shards):
    """Behind every single operation of a server's life the power may fail."""
    schedule_by_seed(monkeypatch, shards)
    life = live(shards, [shards] * 2, actions=12, kind=kind)
    assert life.checked > 90


@pytest.mark.timeout(60 + 2 * LIVES)
def test_many_lives(monkeypatch):
    """Whatever the order of tasks, restarts and the number of shards: what was acknowledged is recovered."""
    for seed in range(LIVES):
        chance = schedule_by_seed(monkeypatch, seed)
        kind = chance.choice(["wal", "json"])
        live(seed, [chance.choice([1, 3]) for _ in range(3)], share=0.1, kind=kind, rewrites=seed % 3 == 0)


def test_with_threads():
    """The same with real worker threads, that write at the same time."""
    life = live(7, [3, 2], share=0.1, actions=10, kind="wal")
    assert life.checked > 5
