"""The rule by which rows move, chosen by name: what it keeps beside a row, and its step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ranking import row_kernels, row_steps
from ranking.compiled import COMPILES
from ranking.row_groups import RowGroups
from ranking.row_store import RowStore, Shape

OptimiserName = Literal["adagrad", "rowwise_adagrad", "lazy_adam"]
OPTIMISERS: tuple[OptimiserName, ...] = get_args(OptimiserName)

_COLUMNS: Mapping[OptimiserName, Mapping[str, tuple[type, bool]]] = {
    "adagrad": {"square": (np.float32, True)},
    "rowwise_adagrad": {"square": (np.float32, False)},
    "lazy_adam": {
        "first": (np.float32, True),
        "second": (np.float32, True),
        "steps": (np.int32, False),
    },
}
"""Columns beside the weights: their type, and whether they are as wide as a row or a number each.
All begin at zero, so a row that is given out anew begins anew."""


class RowOptimiser:
    """Moves rows of a store that has `columns`, its own and "weight" among them."""

    def __init__(
        self,
        name: OptimiserName,
        dimension: int,
        betas: tuple[float, float],
        *,
        compiles: bool = COMPILES,
    ) -> None:
        self._name = name
        self._betas = betas
        self._do: Any = row_kernels if compiles else row_steps
        self.columns: dict[str, tuple[type, Shape]] = {"weight": (np.float32, (dimension,))}
        for column, (dtype, wide) in _COLUMNS[name].items():
            self.columns[column] = (dtype, (dimension,) if wide else ())

    def read_bags(self, store: RowStore, rows_BI: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the sum of each bag's rows (B, D); -1 is a row of zeros."""
        weight_RD = store["weight"]
        sums_BD = np.empty((len(rows_BI), weight_RD.shape[1]), np.float32)
        self._do.read_bags(weight_RD, rows_BI, sums_BD)
        return sums_BD

    def step(
        self, store: RowStore, groups: RowGroups, given_BD: NDArray[np.float32], rate: float
    ) -> None:
        """Move each row once, by the sum of the gradients of the bags it stands in."""
        which = (groups.rows_U, groups.starts, groups.bags_N)
        weight_RD = store["weight"]
        if not len(groups.rows_U):
            return
        if self._name == "adagrad":
            self._do.step_adagrad(weight_RD, store["square"], which, given_BD, rate)
        elif self._name == "rowwise_adagrad":
            self._do.step_rowwise_adagrad(weight_RD, store["square"], which, given_BD, rate)
        else:
            moments = (store["first"], store["second"], store["steps"])
            self._do.step_lazy_adam(weight_RD, moments, which, given_BD, rate, self._betas)
