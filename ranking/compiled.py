"""Compilation of the few inner loops that NumPy cannot express without many small steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function on its first call, and keep the machine code for the next process.

    It runs without the interpreter lock, so that threads that predict do not wait for each other.
    """
    try:
        kept: Callable[P, R] = njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # numba found no folder to write to (a read-only image): each process compiles anew.
        kept = njit(nogil=True)(function)
    return kept
