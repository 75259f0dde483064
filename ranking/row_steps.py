"""Reading and moving rows of a table with NumPy: the formulas, and the oracle of `row_kernels`.

Where numba is missing these take the place of the compiled functions. Shape legend as there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Groups = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]

EPSILON = 1e-10
ADAM_EPSILON = 1e-8


def read_bags(weight_RD: Floats, rows_BI: NDArray[np.int64], out_BD: Floats) -> None:
    """Write the sum of each bag's rows; -1 is a row of zeros."""
    values_BID = weight_RD[rows_BI]
    values_BID[rows_BI < 0] = 0.0
    values_BID.sum(axis=1, out=out_BD)


def step_adagrad(
    weight_RD: Floats, square_RD: Floats, groups: Groups, given_BD: Floats, rate: float
) -> None:
    """Take Adagrad's step (Duchi et al. 2011): s += g^2, w -= rate * g / (sqrt(s) + epsilon)."""
    rows_U, total_UD = groups[0], _totals(groups, given_BD)
    square_UD = square_RD[rows_U] + total_UD**2
    square_RD[rows_U] = square_UD
    weight_RD[rows_U] -= np.float32(rate) * total_UD / (np.sqrt(square_UD) + np.float32(EPSILON))


def step_rowwise_adagrad(
    weight_RD: Floats, square_R: Floats, groups: Groups, given_BD: Floats, rate: float
) -> None:
    """Take Adagrad's step with one s for a row: s += mean of its g^2.

    This is fbgemm's EXACT_ROWWISE_ADAGRAD (Mudigere et al. 2022, section 4.1.4): exact in that the
    gradients of a row that comes several times are summed before they are squared.
    """
    rows_U, total_UD = groups[0], _totals(groups, given_BD)
    square_U = square_R[rows_U] + (total_UD**2).mean(axis=1)
    square_R[rows_U] = square_U
    factor_U = np.float32(rate) / (np.sqrt(square_U) + np.float32(EPSILON))
    weight_RD[rows_U] -= factor_U[:, None] * total_UD


def step_lazy_adam(
    weight_RD: Floats,
    moments: tuple[Floats, Floats, NDArray[np.int32]],
    groups: Groups,
    given_BD: Floats,
    rate: float,
    betas: tuple[float, float],
) -> None:
    """Take Adam's step (Kingma and Ba 2015, algorithm 1) on the rows that have a gradient.

    Rows without one stand still, moments included. The corrections of the first steps go by the
    number of steps that the row itself has taken: an id may come a million steps after the first.
    """
    rows_U, total_UD = groups[0], _totals(groups, given_BD)
    first_RD, second_RD, steps_R = moments
    steps_R[rows_U] += 1
    first_UD = np.float32(betas[0]) * first_RD[rows_U] + np.float32(1 - betas[0]) * total_UD
    second_UD = np.float32(betas[1]) * second_RD[rows_U] + np.float32(1 - betas[1]) * total_UD**2
    first_RD[rows_U], second_RD[rows_U] = first_UD, second_UD
    step_U, scale_U = (1.0 / (1.0 - beta ** steps_R[rows_U].astype(np.float64)) for beta in betas)
    step_U1 = (rate * step_U).astype(np.float32)[:, None]
    root_UD = np.sqrt(scale_U.astype(np.float32)[:, None] * second_UD)
    weight_RD[rows_U] -= step_U1 * first_UD / (root_UD + np.float32(ADAM_EPSILON))


def _totals(groups: Groups, given_BD: Floats) -> Floats:
    rows_U, starts, bags_N = groups
    if len(bags_N) == len(rows_U):
        alone: Floats = given_BD[bags_N]
        return alone
    totals: Floats = np.add.reduceat(given_BD[bags_N], starts[:-1], axis=0)
    return totals
