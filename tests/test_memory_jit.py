"""How kernels are compiled: what the cache on disk depends on, warming up, and the words Python lacks."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccstore.jit import JIT, load_u64, prefetch, trailing_zeros

ROOT = Path(__file__).parent.parent

PART = """
    from ccstore.jit import inline
    from room.layout import STEP

    @inline
    def part(value):
        return value + STEP
"""
MAIN = """
    from ccstore.jit import kernel, slots_of
    from room.kernels.part import part

    @kernel(slots_of("i8", writable=False))
    def total(values):
        found = 0
        for value in values:
            found += part(value)
        return found
"""
RUN = """
    import numpy as np
    from room.kernels.main import total
    print(total(np.arange(4)), sum(total.stats.cache_hits.values()) if hasattr(total, "stats") else "")
"""


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Return a directory with a package of one kernel, with parts in two other files."""
    for name, text in (("layout", "STEP = 10"), ("kernels/part", PART), ("kernels/main", MAIN)):
        put(tmp_path / "room" / f"{name}.py", text)
    return tmp_path


def run(room: Path, code: str = RUN, **environment: str) -> str:
    """Run code in a process of its own, with a cache of its own."""
    path = os.pathsep.join([str(room), str(ROOT)])
    cache = {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(room / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env=os.environ | cache | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not JIT, reason="there is no cache without compilation")
def test_compiled_code_is_used_until_a_part_of_it_changes(room: Path) -> None:
    """Also if only a constant or an inlined part in another file has changed."""
    assert run(room) == "46 0"
    assert run(room) == "46 1"
    for total, (name, old, new) in enumerate(
        [
            ("layout", "10", "11"),
            ("kernels/part", "value + STEP", "value + STEP + 1"),
            ("kernels/main", "part(value)", "part(value) + 1"),
        ],
        start=1,
    ):
        source = room / "room" / f"{name}.py"
        source.write_text(source.read_text().replace(old, new))
        assert run(room) == f"{46 + 4 * total} 0"
    assert run(room) == "58 1"


@pytest.mark.skipif(not JIT, reason="there is no cache without compilation")
def test_a_machine_without_a_place_for_the_cache(room: Path) -> None:
    """Kernels are compiled at each start: slow, but it works."""
    nowhere = {"NUMBA_CACHE_DIR": "", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    assert [run(room, **nowhere) for _ in range(2)] == ["46 0", "46 0"]


def test_without_compilation_the_result_is_the_same(room: Path) -> None:
    """A kernel is ordinary Python then."""
    assert run(room, NUMBA_DISABLE_JIT="1") == "46"


@pytest.mark.skipif(not JIT, reason="there is nothing to warm up")
def test_warming_up_tells_how_far_it_is(room: Path) -> None:
    """Each kernel once; then a wrong type is an error, and there is nothing to do a second time."""
    code = """
        import numpy as np
        from ccstore.jit import warm_up
        from room.kernels.main import total
        print(list(warm_up()), list(warm_up()), total(np.arange(4)), end=" ")
        try:
            total(np.arange(4.0))
        except TypeError:
            print("refused")
    """
    assert run(room, code) == "[('total', 1)] [] 46 refused"


# --- what Python has no word for

eight_bytes = numba.njit(lambda data, index: load_u64(data, index))
low_zeros = numba.njit(lambda value: trailing_zeros(value))


@settings(deadline=None)  # the first call compiles
@given(st.binary(min_size=8, max_size=40), st.data())
def test_eight_bytes_are_one_number(data: bytes, draw: st.DataObject) -> None:
    """At any offset, the first byte lowest."""
    index = draw.draw(st.integers(0, len(data) - 8))
    expected = int.from_bytes(data[index : index + 8], "little")
    assert expected == eight_bytes(np.frombuffer(bytearray(data), np.uint8), index)


@pytest.mark.parametrize("value", [1, 2, 3, 0x80, 2**63, 2**64 - 1, 0b1011000, 0])
def test_low_zeros_are_counted(value: int) -> None:
    """0 has 64 of them."""
    expected = len(f"{value:b}") - len(f"{value:b}".rstrip("0")) if value else 64
    assert expected == low_zeros(np.uint64(value))


@numba.njit
def touch(array: np.ndarray, index: int) -> int:
    prefetch(array, index)
    return len(array)


@pytest.mark.parametrize("index", [0, 2, -1, 10**6])
def test_memory_is_asked_for_without_looking_at_it(index: int) -> None:
    """Whatever is asked for need not exist."""
    assert touch(np.zeros(3), index) == 3
