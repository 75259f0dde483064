"""Settings that both towers read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domain.errors import ConfigError
from retrieval.row_table import RowTableConfig

Encoder = Literal["fuxi", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """Sizes and speeds of the towers.

    Attributes:
        width: length of item and query vectors.
        encoder: "fuxi" reads the history in order and with times (FuXi-alpha); "mean" averages it.
        max_history: the newest events of a history that are read.
        num_blocks: FuXi-alpha blocks.
        num_heads: attention heads per block; they share `width`.
        ffn_multiple: hidden width of a block's second stage divided by `width`.
        id_learning_rate: Adagrad step size of item id vectors.
        id_init_std: spread of a new item's id vector.
        bias_learning_rate: Adagrad step size of item biases.
        content_learning_rate: Adagrad step size of vectors of feature values.
        content_init_std: spread of a new feature value's vector.
        initial_square: what Adagrad's sums of squared gradients start at.
        dense_learning_rate: Adam step size of everything that is not a row of a table.
        max_multi_values: values read of one multi-valued field.
        max_values: feature values per entity that get a vector; later ones contribute nothing.
    """

    width: int = 32
    encoder: Encoder = "fuxi"
    max_history: int = 20
    num_blocks: int = 2
    num_heads: int = 2
    ffn_multiple: int = 1
    id_learning_rate: float = 0.05
    id_init_std: float = 0.02
    bias_learning_rate: float = 0.02
    content_learning_rate: float = 0.02
    content_init_std: float = 0.02
    initial_square: float = 0.001
    dense_learning_rate: float = 0.001
    max_multi_values: int = 8
    max_values: int = 100_000

    def __post_init__(self) -> None:
        if self.encoder not in ("fuxi", "mean"):
            raise ConfigError(
                f'retrieval.tower.encoder must be "fuxi" or "mean", got {self.encoder!r}'
            )
        for name in ("id_init_std", "content_init_std", "initial_square"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(
                    f"retrieval.tower.{name} must not be negative, got {getattr(self, name)}"
                )
        for name in (
            "width",
            "max_history",
            "num_blocks",
            "num_heads",
            "ffn_multiple",
            "id_learning_rate",
            "bias_learning_rate",
            "content_learning_rate",
            "dense_learning_rate",
            "max_multi_values",
            "max_values",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"retrieval.tower.{name} must be positive, got {getattr(self, name)}"
                )
        if self.width % self.num_heads:
            raise ConfigError(
                f"retrieval.tower.num_heads must divide width {self.width}, got {self.num_heads}"
            )

    def table(self, init_std: float, learning_rate: float) -> RowTableConfig:
        """Return the shape of a table of this width."""
        return RowTableConfig(
            width=self.width,
            init_std=init_std,
            learning_rate=learning_rate,
            initial_square=self.initial_square,
        )
