"""Sign-random-projection hash: hidden states that point the same way fall into the same buckets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory import kernels

_SUMS_AT_A_TIME = 100_000
"""These take 400 kB, which stay in a core's cache until their signs are packed."""
_ROUNDING = 2.0**-22
"""Two ways of adding D products of float32 differ by less than D * 2**-23 times the product of the
lengths (each is off by at most D * 2**-24 of it; Higham, Accuracy and Stability of Numerical
Algorithms, 3.1). Twice that leaves room for the rounding of the bound itself."""
_TINY = 1e-18
"""Squares of shorter vectors underflow, and with them the length that the bound is made of."""
_OVERFLOW = 1e37
"""Partial sums below this cannot overflow; above it nothing is taken for certain."""


class SignHash:
    """K arrays of L Gaussian vectors; fixed once drawn.

    Bit l of array k is [w_kl . (h - centre) > 0]. Two states at angle a share one bit with
    probability 1 - a / pi and a bucket of L bits with that to the power of L (SimHash; ReLoop2,
    section 3.2).

    The products come from the fastest matrix product there is, whose rounding depends on the
    machine and on the rows beside a row. Signs do not: those that rounding could turn are decided
    by a sum in a fixed order (about one row in a hundred has one of 192 such).

    Attributes:
        planes_DLK: float32 (D, L, K), the Gaussian vectors.
    """

    def __init__(
        self, num_arrays: int, num_bits: int, hidden_size: int, generator: np.random.Generator
    ) -> None:
        self.use(generator.standard_normal((hidden_size, num_bits, num_arrays), dtype=np.float32))

    def use(self, planes_DLK: NDArray[np.float32]) -> None:
        """Hash by these planes from now on; keeps them, so they must not be written to."""
        self.planes_DLK = np.ascontiguousarray(planes_DLK, np.float32)
        self._planes_DM = self.planes_DLK.reshape(len(planes_DLK), -1)
        self._planes_MD = np.ascontiguousarray(self._planes_DM.T)
        longest = np.linalg.norm(self._planes_DM.astype(np.float64), axis=0).max()
        self._bounds = (
            float(longest) * _ROUNDING * len(planes_DLK),
            _TINY,
            _OVERFLOW / max(float(longest), 1.0),
        )
        self._rows_at_a_time = min(max(_SUMS_AT_A_TIME // len(self._planes_MD), 32), 512)

    def codes(
        self, hidden_ND: NDArray[np.float32], centre_D: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Return (K, N) bucket numbers, each row's independent of the rows beside it."""
        codes_KN = np.empty((self.planes_DLK.shape[2], len(hidden_ND)), np.int32)
        for start in range(0, len(hidden_ND), self._rows_at_a_time):
            rows = hidden_ND[start : start + self._rows_at_a_time]
            # A read-only or strided array would make Numba compile once more, in mid-request.
            rows = np.require(rows, np.float32, ["C", "W"])
            centred_ND, doubt_N = np.empty(rows.shape, np.float32), np.empty(len(rows), np.float32)
            kernels.centre(rows, centre_D, self._bounds, centred_ND, doubt_N)
            with np.errstate(over="ignore", invalid="ignore"):  # then nothing is taken for certain
                sums_MN = self._planes_MD @ centred_ND.T
            kernels.pack_signs(
                sums_MN.view(np.int32),
                doubt_N.view(np.int32) & 0x7FFFFFFF,
                centred_ND,
                self._planes_DM,
                start,
                codes_KN,
            )
        return codes_KN


def sign_codes_numpy(
    hidden_ND: NDArray[np.float32], centre_D: NDArray[np.float32], planes_DLK: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Return what `SignHash.codes` returns, bit for bit but as (N, K): its slow twin.

    The sum runs over coordinates in order, because rounding depends on the order.
    """
    centred_ND = hidden_ND - centre_D
    sums_NLK = np.zeros((len(hidden_ND), *planes_DLK.shape[1:]), np.float32)
    for d in range(len(planes_DLK)):
        sums_NLK += centred_ND[:, d, None, None] * planes_DLK[d]
    powers_L1 = 2 ** np.arange(planes_DLK.shape[1], dtype=np.int32)[::-1, None]
    codes_NK: NDArray[np.int32] = ((sums_NLK > 0) * powers_L1).sum(axis=1, dtype=np.int32)
    return codes_NK
