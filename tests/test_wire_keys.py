"""The key cache, against a dictionary."""

import numba
import numpy as np
import pytest
from effort import EXAMPLES
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wire_keys import chain, check_structure, find, forget, learn

from ccstore.wire import keys as keys_module
from ccstore.wire.kernels.text import hash_of
from ccstore.wire.keys import EVERYWHERE, NOWHERE, Forgetting, KeyCache
from ccstore.wire.layout import KEYS, MAX_KEY_BYTES, PIECE, State

# wanted where the kernels run as plain Python
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


# bytes decide whether a key is tagged, as in lines
names = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.integers(1, 1100).map(lambda size: b"k" * size),
    st.builds(lambda size, last: b"key" * size + last, st.integers(0, 360), st.binary(max_size=2)),
    st.integers(0, 50).map(lambda n: b"common beginning of some length %d" % n),
).filter(bool)
numbers = st.integers(0, 30)
domains = st.integers(0, 2)


def domain_of(key: bytes, domain: int) -> int:
    """Return the domain of a key when it is seen in one."""
    return EVERYWHERE if key[-1] & 1 else domain


class CacheMachine(RuleBasedStateMachine):
    """Learn, forget, and forget while learning."""

    @initialize(max_keys=st.sampled_from([1, 3, 10, 40, 5000]))
    def begin(self, max_keys: int) -> None:
        self.cache = KeyCache(max_keys=max_keys, seed=3)
        self.model: dict[tuple[bytes, int], int] = {}
        self.dead: set[int] = set()
        self.forgetting: Forgetting | None = None
        self.context = None

    @rule(keys=st.lists(st.tuples(names, numbers, domains), min_size=1, max_size=60))
    def learn(self, keys: list[tuple[bytes, int, int]]) -> None:
        """Learn keys; whichever of them there is room for are known from now on."""
        keys = [(key, number, domain_of(key, domain)) for key, number, domain in keys]
        learn(self.cache, keys)
        self.dead -= {number for _, number, _ in keys}
        before = dict(self.model)
        for key, number, domain in keys:
            if len(key) <= MAX_KEY_BYTES:
                self.model.setdefault((key, domain), number)
        if len(self.cache) < len(self.model):  # no room for some
            self.model = {
                (key, domain): number
                for (key, domain), number in self.model.items()
                if (key, domain) in before or find(self.cache, key, domain) is not None
            }
            assert len(self.cache) == self.cache.max_keys or any(len(key) > 96 for key, _, _ in keys) or (
                self.cache.max_keys * 6 - int(self.cache.columns.state[State.FRESH_PIECE]) < 66
            )  # fmt: skip

    @rule(key=names, domain=domains)
    def look(self, key: bytes, domain: int) -> None:
        """What was not learned is not found."""
        assert self.model.get((key, domain_of(key, domain))) == find(self.cache, key, domain)

    @precondition(lambda self: self.forgetting is None)
    @rule(dead=st.sets(numbers, max_size=20))
    def begin_to_forget(self, dead: set[int]) -> None:
        """Begin a pass."""
        marks = np.zeros(25, np.bool_)
        marks[[number for number in dead if number < 25]] = True
        self.dead = {number for number in dead if number < 25}
        self.context = self.cache.forgetting(marks)
        self.forgetting = self.context.__enter__()

    @precondition(lambda self: self.forgetting is not None)
    @rule(steps=st.integers(1, 8))
    def go_on_forgetting(self, steps: int) -> None:
        """Go on with the pass; at its end no key of a series that is still marked is left."""
        assert self.forgetting is not None
        assert self.context is not None
        for _ in range(steps):
            before = {key for key in self.model if find(self.cache, *key) is not None}
            done = self.forgetting.step()
            gone = {key for key in before if find(self.cache, *key) is None}
            for key in gone:
                del self.model[key]
            if done:
                assert self.dead == set(np.flatnonzero(self.forgetting.dead).tolist())
                assert not self.dead & set(self.model.values())
                self.context.__exit__(None, None, None)
                self.forgetting, self.dead = None, set()
                return

    @precondition(lambda self: self.forgetting is None)
    @rule()
    def clear(self) -> None:
        """Forget everything at once."""
        self.cache.clear()
        self.model.clear()

    @invariant()
    def all_are_found(self) -> None:
        """Every key that was learned means what it meant, in its domain."""
        for (key, domain), number in self.model.items():
            assert number == find(self.cache, key, domain)
            if domain != EVERYWHERE:
                assert self.model.get((key, 7 - domain)) == find(self.cache, key, 7 - domain)
        assert len(self.model) == len(self.cache)

    @invariant()
    def nothing_leaks(self) -> None:
        """Every record and piece is in use or free."""
        check_structure(self.cache)


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "_FORGET_STEP", 7)


CacheMachine.TestCase.settings = settings(
    max_examples=max(10, EXAMPLES // 4), stateful_step_count=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
TestCache = CacheMachine.TestCase


@pytest.mark.parametrize("max_keys", [0, 1, 2, 5000])
def test_caches_of_all_sizes_have_one_type(max_keys: int) -> None:
    """The kernels take a cache of any size: an array of one element is contiguous whatever its strides."""
    assert numba.typeof(KeyCache(max_keys=max_keys).columns) == KEYS


def test_keys_of_all_lengths() -> None:
    """Keys of 1 to 1024 bytes are kept, longer ones and empty ones are not."""
    cache = KeyCache(max_keys=20_000)
    text = bytes(range(256)) * 5
    learn(cache, [(text[:size], size, EVERYWHERE) for size in range(1101)])
    assert len(cache) == MAX_KEY_BYTES
    for size in range(1, 1101):
        assert (size if size <= MAX_KEY_BYTES else None) == find(cache, text[:size])
    assert find(cache, text[1:20]) is None
    check_structure(cache)


def test_growth_and_decline() -> None:
    """Every key is found while the table grows, after most are forgotten, and after they are learned anew."""
    cache = KeyCache(max_keys=30_000)
    keys = [(b"m%d,cluster=c,hostname=h%d" % (k % 30, k), k, EVERYWHERE) for k in range(20_000)]
    for first in range(0, 20_000, 4_000):
        learn(cache, keys[first : first + 4_000])
        for key, number, _ in keys[0 : first + 4_000 : 97]:
            assert number == find(cache, key)
    dead = np.ones(20_000, np.bool_)
    dead[::7] = False
    forget(cache, dead)
    assert len(cache) == 2858
    check_structure(cache)
    used = cache.bytes_used
    learn(cache, keys)
    for key, number, _ in keys[::97]:
        assert number == find(cache, key)
    check_structure(cache)
    assert used == cache.bytes_used


def test_nothing_leaks() -> None:
    """What is forgotten is free: all records, all pieces, and shorter keys fit where longer ones were."""
    cache = KeyCache(max_keys=60)  # 360 pieces
    for size, room in ((1000, 5), (500, 5), (90, 50), (16, 60)):
        keys = [(b"%d" % k * size)[:size] for k in range(100, 160)]
        learn(cache, [(key, 1, EVERYWHERE) for key in keys])
        assert room <= len(cache) == sum(find(cache, key) is not None for key in keys)
        check_structure(cache)
        forget(cache, np.ones(2, np.bool_))
        assert len(cache) == 0
        check_structure(cache)


def test_the_last_piece_stays_free() -> None:
    """Bytes are read eight at a time, so the array of bytes goes on behind the last key."""
    cache = KeyCache(max_keys=10)
    learn(cache, [(b"0" * 960, 1, EVERYWHERE), (b"k", 2, EVERYWHERE)])
    assert (find(cache, b"0" * 960), find(cache, b"k"), len(cache)) == (1, None, 1)
    assert len(cache.columns.arena) - int(cache.columns.state[State.FRESH_PIECE]) * PIECE == PIECE


def test_colliding_hashes() -> None:
    """Keys with one hash are told apart by their bytes."""
    cache = KeyCache(max_keys=100)
    cache.columns.secrets[:] = 0
    keys = [(b"%04d\0\0\0\0" % k, k, EVERYWHERE) for k in range(50)]
    learn(cache, keys)
    tags = {
        int(hash_of(np.frombuffer(key + bytes(8), np.uint8), 0, 8, cache.columns.secrets))
        for key, _, _ in keys
    }
    assert len(tags) == 1
    for key, number, _ in keys:
        assert number == find(cache, key)
    assert find(cache, b"0050\0\0\0\0") is None
    dead = np.zeros(50, np.bool_)
    dead[1::2] = True
    forget(cache, dead)
    for key, number, _ in keys:
        assert (None if number % 2 else number) == find(cache, key)


def test_secrets_decide_the_hash() -> None:
    """Keys that collide with one seed do not with another, so nobody can prepare them."""
    data = np.frombuffer(b"cluster=a,hostname=" + bytes(8), np.uint8)
    first, second = KeyCache(max_keys=1, seed=1).columns.secrets, KeyCache(max_keys=1, seed=2).columns.secrets
    assert hash_of(data, 0, 19, first) != hash_of(data, 0, 19, second)
    rng = np.random.default_rng(5)
    texts = rng.integers(0, 2**64, (2000, 4), np.uint64)
    texts[1::2] = texts[::2] ^ np.array(
        [1 << 63, (1 << 63) | (1 << 31), 0, 0], np.uint64
    )  # undo each other elsewhere
    tags = [hash_of(np.frombuffer(text.tobytes() + bytes(8), np.uint8), 0, 32, first) for text in texts]
    assert not any(a == b for a, b in zip(tags[::2], tags[1::2], strict=True))


def test_hashes_are_spread() -> None:
    """Keys as senders use them fall evenly into buckets."""
    cache = KeyCache(max_keys=50_000)
    key = b"flops_any,cluster=c,hostname=f%04d,type=hwthread,type-id=%d"
    learn(cache, [(key % divmod(k, 72), k, EVERYWHERE) for k in range(40_000)])
    columns = cache.columns
    lengths = [
        len(list(chain(columns.records["next"].item, int(columns.buckets[b]))))
        for b in range(columns.state[State.BUCKETS])
    ]
    assert max(lengths) < 12
    assert 0.9 < np.var(lengths) / np.mean(lengths) < 1.4


def test_domains() -> None:
    """A key without a cluster means something else in each domain, any other key the same everywhere."""
    cache = KeyCache(max_keys=10)
    a, b = cache.domain("a"), cache.domain("b")
    learn(cache, [(b"k", 1, a), (b"k", 2, b), (b"tagged", 3, EVERYWHERE)])
    assert [
        find(cache, b"k", a), find(cache, b"k", b), find(cache, b"k", 5), find(cache, b"tagged", a),
        find(cache, b"tagged", b)
    ] == [1, 2, None, 3, 3]  # fmt: skip
    assert (a, b) == (cache.domain("a"), cache.domain("b"))


def test_more_domains_than_are_remembered() -> None:
    """Beyond a number of default clusters nothing is learned for new ones, and the old ones go on."""
    cache = KeyCache(max_keys=10)
    first = [cache.domain(str(k)) for k in range(1001)]
    assert first[1000] == NOWHERE
    assert len(set(first)) == 1001
    assert first[:1000] == [cache.domain(str(k)) for k in range(1000)]
    learn(cache, [(b"k", 1, NOWHERE), (b"l", 1, EVERYWHERE)])
    assert (find(cache, b"k", NOWHERE), find(cache, b"l", NOWHERE)) == (None, 1)


def test_what_is_no_id_spares_nobody() -> None:
    """A key that means something other than an id may be learned during a pass."""
    cache = KeyCache(max_keys=10)
    with cache.forgetting(np.ones(3, np.bool_)) as forgetting:
        learn(cache, [(b"refused", -1, EVERYWHERE), (b"other", 1, EVERYWHERE)])
        assert forgetting.dead.tolist() == [True, False, True]


def test_one_pass_at_a_time() -> None:
    """A second pass at the same time is a mistake of ours."""
    cache = KeyCache(max_keys=1)
    with cache.forgetting(np.zeros(1, np.bool_)), pytest.raises(AssertionError, match="one pass at a time"), \
            cache.forgetting(np.zeros(1, np.bool_)):  # fmt: skip
        pass
    with pytest.raises(RuntimeError), cache.forgetting(np.zeros(1, np.bool_)):
        raise RuntimeError
    forget(cache, np.zeros(1, np.bool_))
