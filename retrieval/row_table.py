"""Learned vectors by row, with their optimiser: tables that grow while they learn.

A table hands out leaf tensors, remembers which rows they stand for, and after the backward pass
moves exactly those rows by Adagrad (Duchi et al. 2011). Rows that change hands start anew, together
with their optimiser state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.changed_rows import ChangedRows
from domain.state import State
from domain.state_reading import StateReader
from retrieval.arrays import room_for

_TINY = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTableConfig:
    """Shape, start and speed of one table.

    Attributes:
        init_std: standard deviation of a new row's entries; 0.0 starts at zero.
        learning_rate: Adagrad step size.
        initial_square: what the sum of squared gradients starts at; larger means a gentler start.
    """

    width: int
    init_std: float
    learning_rate: float
    initial_square: float


class RowTable:
    """Vectors of N rows and the sums of their squared gradients."""

    def __init__(self, config: RowTableConfig, generator: torch.Generator) -> None:
        self._config = config
        self._generator = generator
        self._weight_ND = torch.zeros((0, config.width))
        self._square_ND = torch.zeros((0, config.width))
        self._num_rows = 0
        self._rate = config.learning_rate
        self._lent: list[tuple[Tensor | None, Tensor]] = []
        self._changed = ChangedRows()

    @property
    def width(self) -> int:
        """Return the length of a vector."""
        return self._config.width

    @property
    def num_rows(self) -> int:
        """Return the number of rows."""
        return self._num_rows

    def grow(self, num_rows: int) -> None:
        """Add new rows up to `num_rows`."""
        if num_rows <= self._num_rows:
            return
        first = self._num_rows
        self._make_room(num_rows)
        self._num_rows = num_rows
        self._changed.grow(num_rows)
        self.reset(np.arange(first, num_rows))

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Start rows anew, optimiser state included."""
        index = torch.from_numpy(rows)
        noise = torch.randn((len(rows), self._config.width), generator=self._generator)
        self._weight_ND[index] = noise * self._config.init_std
        self._square_ND[index] = self._config.initial_square
        self._changed.mark(rows)

    def read(self, rows: Tensor | None = None) -> Tensor:
        """Return the vectors of rows (None: all), without gradient.

        All rows come as a view that later steps move; chosen rows as a copy.
        """
        return self._weight_ND[: self._num_rows] if rows is None else self._weight_ND[rows]

    def lend(self, rows: Tensor | None = None) -> Tensor:
        """Return the vectors of rows as a leaf with gradient, to be settled by `step` or `forget`.

        Rows must not repeat.
        """
        leaf = self.read(rows).detach().requires_grad_()
        self._lent.append((rows, leaf))
        return leaf

    def gradients(self) -> list[Tensor]:
        """Return the gradients of everything lent that has one."""
        return [leaf.grad for _, leaf in self._lent if leaf.grad is not None]

    def scale_learning_rate(self, factor: float) -> None:
        """Take steps of this many times the configured size from now on."""
        self._rate = self._config.learning_rate * factor

    def step(self) -> None:
        """Move everything lent by its gradient: w -= lr * g / sqrt(sum of g^2)."""
        for rows, leaf in self._lent:
            if leaf.grad is not None:
                self._move(rows, leaf.grad)
        self._lent.clear()

    def forget(self) -> None:
        """Drop everything lent without moving it."""
        self._lent.clear()

    def _move(self, rows: Tensor | None, gradient_RD: Tensor) -> None:
        rate = self._rate
        if rows is None:
            weight_RD = self._weight_ND[: self._num_rows]
            square_RD = self._square_ND[: self._num_rows]
            square_RD.addcmul_(gradient_RD, gradient_RD)
            weight_RD.addcdiv_(gradient_RD, square_RD.sqrt().add_(_TINY), value=-rate)
            self._changed.mark_all()
            return
        square_RD = self._square_ND[rows].addcmul_(gradient_RD, gradient_RD)
        step_RD = gradient_RD / square_RD.sqrt().add_(_TINY)
        self._square_ND[rows] = square_RD
        self._weight_ND.index_add_(0, rows, step_RD, alpha=-rate)
        self._changed.mark(rows.numpy())

    def _make_room(self, num_rows: int) -> None:
        if num_rows <= len(self._weight_ND):
            return
        room = room_for(num_rows, len(self._weight_ND))
        for name in ("_weight_ND", "_square_ND"):
            old_ND = getattr(self, name)
            larger_ND = torch.zeros((room, self._config.width))
            larger_ND[: len(old_ND)] = old_ND
            setattr(self, name, larger_ND)

    def take_delta(self) -> State:
        """Return the vectors that moved since the last call; optimiser state stays."""
        rows = self._changed.take()
        return {
            "num_rows": self._num_rows,
            "rows": rows,
            "weight": self._weight_ND.numpy()[rows],
        }

    def read_delta(self, reader: StateReader, num_rows: int) -> State:
        """Check what `take_delta` of another table of `num_rows` rows returned.

        Raises:
            SnapshotError: it is something else.
        """
        reader.integer("num_rows", num_rows, num_rows)
        rows = reader.rows("rows", num_rows)
        weight = reader.array("weight", np.float32, (len(rows), self._config.width))
        return {"num_rows": num_rows, "rows": rows, "weight": weight}

    def apply_delta(self, delta: State) -> None:
        """Hold the vectors that the other table holds."""
        self._make_room(delta["num_rows"])
        self._num_rows = delta["num_rows"]
        self._weight_ND.numpy()[delta["rows"]] = delta["weight"]
        self._changed.grow(self._num_rows)
        self._changed.clear()

    def truncate(self, num_rows: int) -> None:
        """Take the rows from `num_rows` on away."""
        self._num_rows = min(self._num_rows, num_rows)

    def save(self) -> State:
        """Return vectors and optimiser state."""
        n = self._num_rows
        return {
            "weight": self._weight_ND[:n].numpy().copy(),
            "square": self._square_ND[:n].numpy().copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._weight_ND = torch.from_numpy(np.array(state["weight"], dtype=np.float32))
        self._square_ND = torch.from_numpy(np.array(state["square"], dtype=np.float32))
        self._num_rows = len(self._weight_ND)
        self._lent.clear()
        self._changed = ChangedRows()
        self._changed.grow(self._num_rows)
