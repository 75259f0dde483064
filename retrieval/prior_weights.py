"""The learned part of the prior: how much to trust each count.

    score from counts = a * log( sum_h m_h x_h + sum_{g,k} w_gk y_gk + e )

x are popularity shares and y transition shares, both times the number of items (see
`retrieval.prior`), m = softmax of logits, e and w positive through their logarithms. Because the
log of a constant factor cancels in a softmax, this is `a * log(prior + eps)` with eps = e / number
of items.

The part without transitions belongs to the item alone and so fits into an index as one more
coordinate; transitions add a bonus to few pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from domain.state import State
from domain.state_reading import StateReader
from retrieval.prior import PriorConfig

# Near where learning settled beside the towers on two streams of very different speed (film ratings
# over half a year, video clicks over two weeks).
_START_SCALE = 1.0
_START_EPS = 0.5
_START_TRANSITION = 0.1
_RECENCY_DECAY = 0.5


class PriorWeights(nn.Module):
    """a, e, m_H and w_F of the formula above, learned by gradient beside the towers."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        num_half_lives = len(config.transition_half_lives_ms)
        start = [
            math.log(_START_TRANSITION * _RECENCY_DECAY**k / num_half_lives)
            for _ in range(num_half_lives)
            for k in range(config.num_recent)
        ]
        self.scale = nn.Parameter(torch.tensor(_START_SCALE))
        self.log_eps = nn.Parameter(torch.tensor(math.log(_START_EPS)))
        self.blend_logits_H = nn.Parameter(torch.zeros(len(config.popularity_half_lives_ms)))
        self.log_weights_F = nn.Parameter(torch.tensor(start))

    def blend(self) -> Tensor:
        """Return m_H, which sums to 1."""
        return torch.softmax(self.blend_logits_H, dim=0)

    def item_part(self, shares_HR: Tensor) -> Tensor:
        """Return what counts say of each item without transitions, float32 (R,)."""
        return self.scale * torch.log(self.blend() @ shares_HR + self.log_eps.exp())

    def pair_bonus(self, shares_HP: Tensor, values_PF: Tensor) -> Tensor:
        """Return what transitions add to each pair's item part, float32 (P,)."""
        without_P = self.blend() @ shares_HP + self.log_eps.exp()
        transitions_P = values_PF @ self.log_weights_F.exp()
        return self.scale * torch.log1p(transitions_P / without_P)

    def save(self) -> State:
        """Return the four parameters."""
        return {name: value.detach().numpy().copy() for name, value in self.named_parameters()}

    def restore(self, state: State) -> None:
        """Become what `save` described."""
        self.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in state.items()})

    def read_delta(self, reader: StateReader) -> State:
        """Check what `save` of others returned, which is small enough to travel whole.

        Raises:
            SnapshotError: it is something else.
        """
        return {name: reader.array(name, own.dtype, own.shape) for name, own in self.save().items()}
