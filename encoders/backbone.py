"""A stack of blocks over histories, and over the candidates that come after them.

Shape legend: B sequences, T events (oldest first, left-aligned, padding at the end), U = T + 1,
C candidates, D width. Times are seconds, whole or not; index `length` of a row holds the time of
the request (or of the target), which is what "the next event" means for the newest one. Padding may
hold anything finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encoders.block import Block, LayerState
from encoders.fuxi_alpha import FuxiAlphaBlock
from encoders.fuxi_beta import FuxiBetaBlock
from encoders.geometry import ahead, geometry, one_row, valid_places
from encoders.hstu import HstuBlock
from encoders.sasrec import SasrecBlock
from encoders.shape import BackboneShape, Kind

_BLOCKS: dict[Kind, Callable[[BackboneShape, torch.Generator], Block]] = {
    "fuxi-alpha": FuxiAlphaBlock,
    "fuxi-beta": FuxiBetaBlock,
    "hstu": HstuBlock,
    "sasrec": SasrecBlock,
}


@dataclass(frozen=True, slots=True, eq=False)
class HistoryState:
    """Encoded histories: all that candidates need of them.

    Attributes:
        layers: one for each block.
        newest_B1D: the newest event's token, as it was given.
        times_BU: as they were given.
        length_B: events of each history.
    """

    layers: tuple[LayerState, ...]
    newest_B1D: Tensor
    times_BU: Tensor
    length_B: Tensor

    @property
    def num_bytes(self) -> int:
        """Return the size of all tensors."""
        held = [self.newest_B1D, self.times_BU, self.length_B]
        for layer in self.layers:
            held += [layer.common, layer.memory.values_BTX]
            if layer.memory.keys_BTX is not None:
                held.append(layer.memory.keys_BTX)
        return sum(each.numel() * each.element_size() for each in held)


class Backbone(nn.Module):
    """Blocks on top of each other. Causal: a row reads itself and earlier ones, never padding."""

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        assert shape.blocks > 0
        make = _BLOCKS[shape.kind]
        self.blocks = nn.ModuleList(make(shape, generator) for _ in range(shape.blocks))

    @property
    def reads_order(self) -> bool:
        """Return whether blocks know places by themselves; else tokens must tell them."""
        return any(block.reads_order for block in self._stack())

    def forward(self, x_BTD: Tensor, times_BU: Tensor, length_B: Tensor) -> Tensor:
        """Return what each event became, (B, T, D); zero at padding."""
        where = geometry(times_BU)
        for block in self._stack():
            x_BTD = block(x_BTD, where)
        return x_BTD * valid_places(length_B, x_BTD.shape[1]).unsqueeze(-1)

    def newest(self, x_BTD: Tensor, times_BU: Tensor, length_B: Tensor) -> Tensor:
        """Return what the newest event became, (B, D); zero for an empty history.

        Equal to the row of `forward`; the last block computes nothing else.
        """
        where = geometry(times_BU)
        *first, last = self._stack()
        for block in first:
            x_BTD = block(x_BTD, where)
        row_B = (length_B - 1).clamp(min=0)
        out_BD: Tensor = last(x_BTD, where, row_B).squeeze(1)
        return out_BD * (length_B > 0).unsqueeze(1)

    def encode(self, x_BTD: Tensor, times_BU: Tensor, length_B: Tensor) -> HistoryState:
        """Encode histories for any number of candidates.

        Of the last block nothing is computed but the memory, which comes from its input; with a
        single block there is no attention among the events at all.
        """
        valid_BT = valid_places(length_B, x_BTD.shape[1])
        look = ahead(times_BU, length_B)
        newest_B1D = one_row(x_BTD, (length_B - 1).clamp(min=0))
        *first, last = self._stack()
        where = geometry(times_BU) if first else None
        layers = []
        for block in first:
            assert where is not None
            projected = block.project(x_BTD)
            memory = projected.own.masked(valid_BT)
            layers.append(LayerState(memory, block.shared(memory, look)))
            x_BTD = block.attend(x_BTD, projected, memory, where)
        memory = last.memory(x_BTD).masked(valid_BT)
        layers.append(LayerState(memory, last.shared(memory, look)))
        return HistoryState(tuple(layers), newest_B1D, times_BU, length_B)

    def candidates(self, x_BCD: Tensor, state: HistoryState) -> Tensor:
        """Return what each candidate became after seeing the history and itself, (B, C, D).

        Equal to appending each alone to its history at the time of the request, and taking the
        last row of `forward`.
        """
        for block, layer in zip(self._stack(), state.layers, strict=True):
            x_BCD = block.candidates(x_BCD, layer)
        return x_BCD

    def moved(self, state: HistoryState, request_B: Tensor) -> HistoryState:
        """Return the same histories as they look at other times of request.

        Equal to encoding them anew, up to rounding. Only the newest row looks back from the time
        of the request, so of every layer that row alone is computed again.
        """
        stack = self._stack()
        if not any(block.reads_time for block in stack):
            return state
        times_BU = state.times_BU.scatter(1, state.length_B[:, None], request_B[:, None])
        look = ahead(times_BU, state.length_B)
        row_B = (state.length_B - 1).clamp(min=0)
        some_B1 = (state.length_B > 0).unsqueeze(1)
        where, x_B1D = look.from_newest(), state.newest_B1D
        layers: list[LayerState] = []
        for block, layer in zip(stack, state.layers, strict=True):
            memory = layer.memory
            if layers:
                memory = memory.with_row(row_B, block.memory(x_B1D).masked(some_B1))
            layers.append(LayerState(memory, block.shared(memory, look)))
            if block is not stack[-1]:
                x_B1D = block.attend(x_B1D, block.project(x_B1D), memory, where)
        return replace(state, layers=tuple(layers), times_BU=times_BU)

    def _stack(self) -> list[Block]:
        blocks = []
        for block in self.blocks:
            assert isinstance(block, Block)
            blocks.append(block)
        return blocks
