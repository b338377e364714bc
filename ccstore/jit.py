"""Compiled loops: how the kernels of memory and wire become machine code.

A kernel is a plain function over numpy arrays and numbers, decorated with its signature. It is
compiled by numba on its first use, kept in numba's cache on disk, and gives the same result as
ordinary Python when ``NUMBA_DISABLE_JIT=1`` is set, which is how kernels are debugged and their
coverage is measured.

Signatures stand beside the code instead of being inferred from a first call, so that everything
can be compiled ahead (`warm_up`): a server must not stop for seconds in the middle of its first
message, and an argument of a wrong type must be an error instead of a silent second compilation.

Kernels neither allocate nor keep arrays, so they are compiled without reference counting, which
would cost several times the work of a loop over records.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

__all__ = ["JIT", "inline", "kernel", "load_u64", "prefetch", "slots_of", "trailing_zeros", "warm_up"]

Kernel = Callable[..., Any]
"""A compiled function: numba knows its types, mypy does not."""

_numba: Any = numba  # its hints leave out much of what is used here

JIT: bool = not _numba.config.DISABLE_JIT
"""False if ``NUMBA_DISABLE_JIT=1``: the kernels are ordinary, slow Python."""

_waiting: list[tuple[Any, Any]] = []  # kernels with their signatures that are not warmed up


def kernel(*arguments: Any, returns: Any = types.int64) -> Callable[[Kernel], Kernel]:
    """Mark a function as a kernel that takes arguments of these numba types.

    It runs without the GIL, so a worker thread may run it beside the Trio thread on arrays
    that nobody else changes.
    """

    def decorate(function: Kernel) -> Kernel:
        compiled = _compile(function)
        if JIT:
            _keep_on_disk(compiled, function)
            _waiting.append((compiled, returns(*arguments)))
        return compiled

    return decorate


def inline(function: Kernel) -> Kernel:
    """Mark a function as a part of kernels: it becomes a part of the code of each kernel that calls it.

    Not only as far as the compiler likes: a call passes each field of each array on the stack,
    which makes a part of a few instructions cost a hundred.
    """
    return _compile(function, forceinline=True)


def _compile(function: Kernel, **options: bool) -> Kernel:
    compiled: Kernel = _numba.njit(nogil=True, error_model="numpy", _nrt=False, **options)(function)
    return compiled


def warm_up() -> Iterator[tuple[str, int]]:
    """Compile every imported kernel that is not, or load it from the cache.

    Yields each kernel's name and how many are left, before the work is done, for a progress bar.
    Afterwards a call with arguments of other types is a `TypeError`.
    """
    while _waiting:
        compiled, signature = _waiting[0]
        yield compiled.__name__, len(_waiting)
        compiled.compile(signature)
        compiled.disable_compile()
        del _waiting[0]


# --- the cache on disk


class _Cache(FunctionCache):
    """numba's cache of one kernel, which also looks at what is compiled into the kernel.

    numba compares the kernel's own file alone, and not even its time: a constant or an inlined
    part that changed elsewhere, by an upgrade or a `git pull`, would leave old code in use that
    reads memory by old rules.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        key = super()._index_key(sig, codegen)  # type: ignore[no-untyped-call]
        return key, _digest(Path(self._py_func.__code__.co_filename).parent)


@functools.cache
def _digest(kernels: Path) -> str:
    """Return a digest of all that may be compiled into the kernels of a directory."""
    shared = [kernels.parent / "layout.py", Path(__file__), Path(__file__).with_name("model.py")]
    sources = [path.read_bytes() for path in [*sorted(kernels.glob("*.py")), *shared] if path.exists()]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def _keep_on_disk(compiled: Any, function: Kernel) -> None:
    """Let a kernel use the cache on disk; where there is no place for one it is compiled at each start."""
    with contextlib.suppress(RuntimeError):  # neither the package nor a home directory can be written to
        cache = _Cache(function)  # type: ignore[no-untyped-call]
        compiled._cache = cache  # noqa: SLF001 -- as njit(cache=True) does with its own class


# --- what Python has no word for


def slots_of(dtype: Any, *, dimensions: int = 1, contiguous: bool = True, writable: bool = True) -> Any:
    """Return the numba type of an array of `dtype`: of a numpy scalar type or a record.

    Where a kernel takes an array that it does not write (`writable=False`), both kinds are accepted.
    """
    array: Any = types.Array
    layout = "C" if contiguous else "A"
    return array(numba.from_dtype(np.dtype(dtype)), dimensions, layout, readonly=not writable)


def _pointer_to(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


@intrinsic
def _load_u64(_context: Any, array: Any, _index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.IntType(64).as_pointer()
        address = builder.bitcast(_pointer_to(context, builder, signature, args), number)
        load = builder.load(address)
        load.align = 1
        return load

    return types.uint64(array, types.int64), codegen


@intrinsic
def _prefetch(_context: Any, array: Any, _index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        touch = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        address = builder.bitcast(_pointer_to(context, builder, signature, args), byte)
        # for reading and writing alike, keep in all cache levels, data cache
        builder.call(touch, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def _trailing_zeros(_context: Any, _value: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


if JIT:
    load_u64: Kernel = _load_u64
    prefetch: Kernel = _prefetch
    trailing_zeros: Kernel = _trailing_zeros
else:

    def load_u64(array: Any, index: int) -> Any:
        """Return eight bytes of a uint8 array as one number; the array goes on behind them."""
        return np.uint64(int.from_bytes(array[index : index + 8].tobytes(), "little"))

    def trailing_zeros(value: Any) -> Any:
        """Return how many of the low bits of a uint64 are 0; 64 for 0."""
        number = int(value)
        return np.uint64((number & -number).bit_length() - 1 if number else 64)

    def prefetch(array: Any, index: int) -> None:
        """Bring an element of an array into the cache; it is needed in a while."""
