"""Reading and moving rows of a table, compiled: one pass over each row that has a gradient.

Shape legend: R rows of the table, D wide; B bags of I rows each; U rows that move, see `RowGroups`.
`row_steps` has the same functions without a compiler, and the formulas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranking.compiled import inlined, prefetch, vectorised
from ranking.row_steps import ADAM_EPSILON, EPSILON

Floats = NDArray[np.float32]
Groups = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]

_AHEAD = 8
"""Rows asked for before they are read: a core waits for some twelve lines of 64 bytes at once."""
_LINE = 16
"""Numbers in a line."""


@vectorised
def read_bags(weight_RD: Floats, rows_BI: NDArray[np.int64], out_BD: Floats) -> None:
    """Write the sum of each bag's rows; -1 is a row of zeros."""
    rows_N, width, dimension = rows_BI.reshape(-1), rows_BI.shape[1], weight_RD.shape[1]
    i = 0
    for bag in range(len(rows_BI)):
        out = out_BD[bag]
        for d in range(dimension):
            out[d] = np.float32(0.0)
        for _ in range(width):
            if i + _AHEAD < len(rows_N) and rows_N[i + _AHEAD] >= 0:
                for d in range(0, dimension, _LINE):
                    prefetch(weight_RD, rows_N[i + _AHEAD] * dimension + d)
            row = rows_N[i]
            i += 1
            if row >= 0:
                # Unsigned: no check whether the row is to be counted from the end.
                weight = weight_RD[np.uint64(row)]
                for d in range(dimension):
                    out[d] += weight[d]


@vectorised
def step_adagrad(
    weight_RD: Floats, square_RD: Floats, groups: Groups, given_BD: Floats, rate: float
) -> None:
    """Take Adagrad's step, with a sum of squares for every number."""
    rows_U, starts, bags_N = groups
    dimension = weight_RD.shape[1]
    step, epsilon = np.float32(rate), np.float32(EPSILON)
    total = np.empty(dimension, np.float32)
    for u in range(len(rows_U)):
        if u + _AHEAD < len(rows_U):
            for d in range(0, dimension, _LINE):
                prefetch(weight_RD, rows_U[u + _AHEAD] * dimension + d)
                prefetch(square_RD, rows_U[u + _AHEAD] * dimension + d)
        _add_up(given_BD, bags_N, starts[u], starts[u + 1], total)
        weight, square = weight_RD[np.uint64(rows_U[u])], square_RD[np.uint64(rows_U[u])]
        for d in range(dimension):
            square[d] += total[d] * total[d]
            weight[d] -= step * total[d] / (np.sqrt(square[d]) + epsilon)


@vectorised
def step_rowwise_adagrad(
    weight_RD: Floats, square_R: Floats, groups: Groups, given_BD: Floats, rate: float
) -> None:
    """Take Adagrad's step, with one mean of squares for a row."""
    rows_U, starts, bags_N = groups
    dimension = weight_RD.shape[1]
    step, epsilon = np.float32(rate), np.float32(EPSILON)
    share = np.float32(1.0) / np.float32(dimension)
    total = np.empty(dimension, np.float32)
    for u in range(len(rows_U)):
        if u + _AHEAD < len(rows_U):
            prefetch(square_R, rows_U[u + _AHEAD])
            for d in range(0, dimension, _LINE):
                prefetch(weight_RD, rows_U[u + _AHEAD] * dimension + d)
        _add_up(given_BD, bags_N, starts[u], starts[u + 1], total)
        squares = np.float32(0.0)
        for d in range(dimension):
            squares += total[d] * total[d]
        row = np.uint64(rows_U[u])
        square_R[row] += squares * share
        factor = step / (np.sqrt(square_R[row]) + epsilon)
        weight = weight_RD[row]
        for d in range(dimension):
            weight[d] -= factor * total[d]


@vectorised
def step_lazy_adam(
    weight_RD: Floats,
    moments: tuple[Floats, Floats, NDArray[np.int32]],
    groups: Groups,
    given_BD: Floats,
    rate: float,
    betas: tuple[float, float],
) -> None:
    """Take Adam's step on the rows that have a gradient, each by its own count of steps."""
    rows_U, starts, bags_N = groups
    first_RD, second_RD, steps_R = moments
    dimension = weight_RD.shape[1]
    epsilon = np.float32(ADAM_EPSILON)
    keep_1, keep_2 = np.float32(betas[0]), np.float32(betas[1])
    new_1, new_2 = np.float32(1.0 - betas[0]), np.float32(1.0 - betas[1])
    total = np.empty(dimension, np.float32)
    for u in range(len(rows_U)):
        if u + _AHEAD < len(rows_U):
            prefetch(steps_R, rows_U[u + _AHEAD])
            for d in range(0, dimension, _LINE):
                prefetch(weight_RD, rows_U[u + _AHEAD] * dimension + d)
                prefetch(first_RD, rows_U[u + _AHEAD] * dimension + d)
                prefetch(second_RD, rows_U[u + _AHEAD] * dimension + d)
        _add_up(given_BD, bags_N, starts[u], starts[u + 1], total)
        row = np.uint64(rows_U[u])
        weight, first, second = weight_RD[row], first_RD[row], second_RD[row]
        steps_R[row] += 1
        step = np.float32(rate / (1.0 - betas[0] ** steps_R[row]))
        scale = np.float32(1.0 / (1.0 - betas[1] ** steps_R[row]))
        for d in range(dimension):
            first[d] = keep_1 * first[d] + new_1 * total[d]
            second[d] = keep_2 * second[d] + new_2 * total[d] * total[d]
            weight[d] -= step * first[d] / (np.sqrt(scale * second[d]) + epsilon)


@inlined
def _add_up(
    given_BD: Floats, bags_N: NDArray[np.int32], start: int, end: int, total: Floats
) -> None:
    """Sum the gradients of some bags; two at a time, which halves the traffic with `total`."""
    one = given_BD[np.uint64(bags_N[start])]
    if end - start == 1:
        for d in range(len(total)):
            total[d] = one[d]
        return
    other = given_BD[np.uint64(bags_N[start + 1])]
    for d in range(len(total)):
        total[d] = one[d] + other[d]
    for at in range(start + 2, end - 1, 2):
        one, other = given_BD[np.uint64(bags_N[at])], given_BD[np.uint64(bags_N[at + 1])]
        for d in range(len(total)):
            total[d] += one[d] + other[d]
    if (end - start) % 2:
        one = given_BD[np.uint64(bags_N[end - 1])]
        for d in range(len(total)):
            total[d] += one[d]
