"""Compilation of the few inner loops that NumPy cannot express without many small steps.

Where numba is not installed the same functions run as plain Python: slowly, and with the same
results. What would be too slow for that has a vectorised twin, chosen by `COMPILES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from numpy.typing import NDArray

try:
    from llvmlite import ir
    from numba import njit, types
    from numba.core import cgutils
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    COMPILES = True
    """Whether loops become machine code here."""
except ImportError:
    COMPILES = False

P = ParamSpec("P")
R = TypeVar("R")

_REORDERED = {"reassoc", "contract"}
"""Sums may be taken in another order and products fused, as vector units do; nothing else: NaN and
infinity stay what they are."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function on its first call, and keep the machine code for the next process.

    It runs without the interpreter lock, so that threads that predict do not wait for each other.
    """
    return _compiled(function, {})


def vectorised(function: Callable[P, R]) -> Callable[P, R]:
    """Do what `compiled` does, for loops over float arrays: sums may be reordered, x / 0 is inf."""
    return _compiled(function, {"error_model": "numpy", "fastmath": _REORDERED})


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Do what `vectorised` does, for a part of such a function that is copied into it."""
    return _compiled(function, {"error_model": "numpy", "fastmath": _REORDERED, "inline": "always"})


def _compiled(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    if not COMPILES:
        return function
    try:
        kept: Callable[P, R] = njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        # numba found no folder to write to (a read-only image): each process compiles anew.
        kept = njit(nogil=True, **options)(function)
    return kept


def _prefetch_code(_typing: Any, array: Any, element: Any) -> Any:
    """Have numba emit LLVM's prefetch of the cache line that holds an element."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        make: Any = make_array
        insert: Any = cgutils.get_or_insert_function
        data = make(signature.args[0])(context, builder, values[0]).data
        pointer = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(8).as_pointer())
        whole = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, whole, whole, whole])
        callee = insert(builder.module, kind, "llvm.prefetch.p0")
        # 0: to be read, 3: into every cache, 1: data.
        builder.call(callee, [pointer, whole(0), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


def _nothing(_array: NDArray[Any], _element: int) -> None:
    """Plain Python has no use for it."""


_intrinsic: Any = intrinsic if COMPILES else lambda _code: _nothing
prefetch: Callable[[NDArray[Any], Any], None] = _intrinsic(_prefetch_code)
"""Ask the processor for the cache line of an element of a contiguous array, counted through all its
dimensions. Only a hint; for use in compiled functions."""
