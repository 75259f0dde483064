"""Sign-random-projection hash: hidden states that point the same way fall into the same buckets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory import kernels


class SignHash:
    """K arrays of L Gaussian vectors; fixed once drawn.

    Bit l of array k is [w_kl . (h - centre) > 0]. Two states at angle a share one bit with
    probability 1 - a / pi and a bucket of L bits with that to the power of L (SimHash; ReLoop2,
    section 3.2).

    Attributes:
        planes_DLK: float32 (D, L, K), the Gaussian vectors.
    """

    def __init__(
        self, num_arrays: int, num_bits: int, hidden_size: int, generator: np.random.Generator
    ) -> None:
        self.planes_DLK = generator.standard_normal(
            (hidden_size, num_bits, num_arrays), dtype=np.float32
        )

    def codes(
        self, hidden_ND: NDArray[np.float32], centre_D: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Return (N, K) bucket numbers, each row's independent of the rows beside it."""
        # A read-only or strided array would make Numba compile once more, in mid-request.
        hidden_ND = np.require(hidden_ND, np.float32, ["C", "W"])
        codes_NK = np.empty((len(hidden_ND), self.planes_DLK.shape[2]), np.int32)
        kernels.sign_codes(hidden_ND, centre_D, self.planes_DLK, codes_NK)
        return codes_NK


def sign_codes_numpy(
    hidden_ND: NDArray[np.float32], centre_D: NDArray[np.float32], planes_DLK: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Return what `SignHash.codes` returns, bit for bit, in plain NumPy: its slow twin.

    The sum runs over coordinates in order, because rounding depends on the order.
    """
    centred_ND = hidden_ND - centre_D
    sums_NLK = np.zeros((len(hidden_ND), *planes_DLK.shape[1:]), np.float32)
    for d in range(len(planes_DLK)):
        sums_NLK += centred_ND[:, d, None, None] * planes_DLK[d]
    powers_L1 = 2 ** np.arange(planes_DLK.shape[1], dtype=np.int32)[::-1, None]
    codes_NK: NDArray[np.int32] = ((sums_NLK > 0) * powers_L1).sum(axis=1, dtype=np.int32)
    return codes_NK
