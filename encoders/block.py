"""What every block of a backbone can do, for whole sequences and for candidates.

Shape legend: B sequences, T events, S rows that are computed, C candidates, D width, X some width
of the block's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from encoders.geometry import Ahead, Geometry, one_row


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What later rows and candidates need of a sequence in one layer.

    Attributes:
        values_BTX: zero at padding, once a whole history is meant.
        keys_BTX: the same; None where attention does not ask for content.
    """

    values_BTX: Tensor
    keys_BTX: Tensor | None

    @property
    def keys(self) -> Tensor:
        """Return the keys of a block that has some."""
        assert self.keys_BTX is not None
        return self.keys_BTX

    def masked(self, valid_BT: Tensor) -> Memory:
        """Return it with zeros at padding, so that nobody after it needs a mask."""
        valid_BT1 = valid_BT.unsqueeze(-1)
        keys = self.keys_BTX
        return Memory(self.values_BTX * valid_BT1, None if keys is None else keys * valid_BT1)

    def with_row(self, row_B: Tensor, new: Memory) -> Memory:
        """Return it with one row per sequence replaced by the only row of `new`."""
        values_BTX = _with_row(self.values_BTX, row_B, new.values_BTX)
        if self.keys_BTX is None or new.keys_BTX is None:
            return Memory(values_BTX, None)
        return Memory(values_BTX, _with_row(self.keys_BTX, row_B, new.keys_BTX))


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """What a block makes of its input, row by row, before anything is mixed.

    Attributes:
        gate_BSX: what the mixture is multiplied by; None where it is not.
        query_BSX: None where attention does not ask for content.
    """

    gate_BSX: Tensor | None
    query_BSX: Tensor | None
    own: Memory

    @property
    def gate(self) -> Tensor:
        """Return the gate of a block that has one."""
        assert self.gate_BSX is not None
        return self.gate_BSX

    @property
    def query(self) -> Tensor:
        """Return the queries of a block that has some."""
        assert self.query_BSX is not None
        return self.query_BSX

    def at(self, row_B: Tensor) -> Projected:
        """Return gate and query of one row per sequence; the memory stays whole."""
        gate, query = (
            None if x is None else one_row(x, row_B) for x in (self.gate_BSX, self.query_BSX)
        )
        return Projected(gate, query, self.own)


@dataclass(frozen=True, slots=True, eq=False)
class LayerState:
    """One layer of an encoded history.

    Attributes:
        common: what all candidates of a request have in common besides; the block knows its form.
    """

    memory: Memory
    common: Tensor


class Block(nn.Module, ABC):
    """One block. Rows are mixed causally: a row reads itself and earlier ones, nothing else."""

    reads_time: ClassVar[bool] = True
    """Whether rows depend on when things happened."""
    reads_order: ClassVar[bool] = True
    """Whether rows depend on the order of earlier ones, however alike their tokens."""

    @abstractmethod
    def project(self, x_BSD: Tensor) -> Projected:
        """Return what the rows bring along."""

    @abstractmethod
    def attend(
        self, x_BSD: Tensor, projected: Projected, memory: Memory, where: Geometry
    ) -> Tensor:
        """Return the block's output of some rows, (B, S, D).

        Args:
            x_BSD: the rows' inputs.
            projected: what they became.
            memory: of the whole sequence, T columns, the rows themselves among them.
            where: S rows, T columns.
        """

    @abstractmethod
    def shared(self, memory: Memory, look: Ahead) -> Tensor:
        """Return what the candidates of a request have in common, whatever they are."""

    @abstractmethod
    def candidates(self, x_BCD: Tensor, layer: LayerState) -> Tensor:
        """Return (B, C, D): each candidate attends to the history and to itself, to no other.

        Equal to appending each alone to the sequence and taking the last row.
        """

    def memory(self, x_BTD: Tensor) -> Memory:
        """Return what later rows and candidates need, where nothing else of `x` is."""
        return self.project(x_BTD).own

    def forward(self, x_BTD: Tensor, where: Geometry, row_B: Tensor | None = None) -> Tensor:
        """Return (B, T, D), or (B, 1, D) when only one row per sequence is asked for.

        A last block that computes one row does a fraction of the work, and gives the same
        numbers: no row reads what another one becomes within the block.
        """
        projected = self.project(x_BTD)
        if row_B is None:
            return self.attend(x_BTD, projected, projected.own, where)
        x_B1D = one_row(x_BTD, row_B)
        return self.attend(x_B1D, projected.at(row_B), projected.own, where.at(row_B))


def _with_row(x_BTX: Tensor, row_B: Tensor, new_B1X: Tensor) -> Tensor:
    index_B1X = row_B[:, None, None].expand_as(new_B1X)
    return x_BTX.scatter(1, index_B1X, new_B1X)
