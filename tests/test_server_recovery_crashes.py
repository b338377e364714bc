"""Power cuts and kills before every operation of many lives: what was acknowledged is there.

``CCSTORE_LIVES=2000 pytest tests/test_server_recovery_crashes.py`` looks at more lives than a usual run.
"""

import os
import random

import pytest
from durable import schedule_by_seed
from durable_life import live

LIVES = int(os.environ.get("CCSTORE_LIVES", "12"))


@pytest.fixture(autouse=True)
def _no_log(caplog):
    caplog.set_level("CRITICAL", "ccstore")


@pytest.mark.parametrize("shards", [1, 3])
def test_every_operation_of_a_life(monkeypatch, shards):
    """Behind every single operation of a server's life the power may fail."""
    schedule_by_seed(monkeypatch, shards)
    life = live(shards, [shards] * 3, actions=16)
    assert life.checked > 90


@pytest.mark.timeout(60 + LIVES)
def test_many_lives(monkeypatch):
    """Whatever the order of tasks, restarts and the number of shards: what was acknowledged is recovered."""
    for seed in range(LIVES):
        chance = schedule_by_seed(monkeypatch, seed)
        live(seed, [chance.choice([1, 3]) for _ in range(4)], share=0.2)


def test_slots_that_are_written_again_after_their_host_was_removed(monkeypatch):
    """A host that was freed and comes back gets new numbers in the log, and its newest values."""
    for seed in range(max(3, LIVES // 4)):
        schedule_by_seed(monkeypatch, seed)
        live(seed, [2, 3, 3, 2], share=0.2, rewrites=True)


def test_with_threads(monkeypatch):
    """The same with real worker threads, that write at the same time."""
    for seed in range(2):
        life = live(random.Random(seed).randrange(10**6), [3, 2], share=0.1, actions=12)
        assert life.checked > 5
