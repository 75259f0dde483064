"""One pass after the other over all users: shuffled, in batches, AdamW.

A batch is led through the model in groups of users with about equally long histories, each padded
to its own longest, and gradients are added up: the same step as with everything padded to the
container (test), in a fraction of the time. Every epoch draws from generators seeded by (seed,
epoch), so weights and optimiser state are all that a run needs to go on.

Shape legend: P places of all users of a batch, R drawn items per place, V rows of the item table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.errors import NonFiniteLossError
from domain.state import State
from encoders.dropout import reseed_dropout
from evaluation.config import SequentialConfig
from evaluation.model import SequenceModel
from evaluation.sampled_softmax import draw_negatives, unit
from evaluation.sampled_softmax_kernel import fused_sampled_softmax
from evaluation.sequences import Ints, Sequences, batch, lengths

BETAS = (0.9, 0.98)
_PLACES_AT_ONCE = {"cpu": 4_096, "cuda": 65_536}
"""A CPU works best on what its cache holds."""


class SequenceTrainer:
    """A model, its optimiser, and the users whose last `cut` events it never sees.

    Attributes:
        model: what is trained.
        epochs_done: passes so far.
    """

    def __init__(
        self,
        sequences: Sequences,
        config: SequentialConfig,
        *,
        cut: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._sequences = sequences
        self._config = config
        self._cut = cut
        self._seed = seed
        self._device = device
        self._users = sequences.users_with(cut + 2)
        generator = torch.Generator().manual_seed(seed)
        self.model = SequenceModel(config, sequences.num_rows, generator).to(device)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=BETAS,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.epochs_done = 0

    @property
    def steps_per_epoch(self) -> int:
        """Return how many batches a pass has."""
        return math.ceil(len(self._users) / self._config.batch_size)

    def epoch(self, after_step: Callable[[], None] = lambda: None) -> float:
        """Make one pass over all users; return the mean loss per place.

        Raises:
            NonFiniteLossError: before the step that would have spoilt the weights.
        """
        order_seed, negative_seed, dropout_seed = (
            int(word)
            for word in np.random.SeedSequence([self._seed, self.epochs_done]).generate_state(3)
        )
        reseed_dropout(self.model, dropout_seed)
        negatives = torch.Generator(self._device).manual_seed(negative_seed)
        users = np.random.default_rng(order_seed).permutation(self._users)
        total, places = 0.0, 0
        for at in range(0, len(users), self._config.batch_size):
            loss, size = self._step(users[at : at + self._config.batch_size], negatives)
            total, places = total + loss, places + size
            after_step()
        self.epochs_done += 1
        return total / max(1, places)

    def _step(self, users_B: Ints, generator: torch.Generator) -> tuple[float, int]:
        """Learn from one batch; return the summed loss and the number of places."""
        self.model.train()
        length_B = lengths(
            self._sequences, users_B, cut=self._cut, longest=self._config.history_length
        )
        users_B = users_B[np.argsort(length_B, kind="stable")]
        num_places = int(length_B.sum())
        negative_PR = draw_negatives(
            num_places, self._config.negatives, self._sequences.num_candidates, generator
        )
        self._optimizer.zero_grad()
        # The table is scaled once for all groups: their gradients meet in a copy of it.
        unit_VD = unit(self.model.item_VD)
        shared_VD = unit_VD.detach().requires_grad_()
        total, done = 0.0, 0
        for group in _groups(users_B, np.sort(length_B), _PLACES_AT_ONCE[self._device.type]):
            query_PD, target_P = self._places(group)
            drawn_PR = negative_PR[done : done + len(target_P)]
            done += len(target_P)
            loss = fused_sampled_softmax(
                query_PD, shared_VD, target_P, drawn_PR, self._config.temperature
            )
            torch.autograd.backward(loss / num_places)
            total += loss.item()
        if not math.isfinite(total):
            raise NonFiniteLossError(
                f"epoch {self.epochs_done + 1}: expected a finite loss, got {total}; a smaller "
                "--learning-rate may help"
            )
        torch.autograd.backward(unit_VD, shared_VD.grad)
        self._optimizer.step()
        return total, num_places

    def _places(self, users_B: Ints) -> tuple[Tensor, Tensor]:
        """Return what the model says at every place of these users, and what came next there."""
        part = batch(self._sequences, users_B, cut=self._cut, longest=self._config.history_length)
        length_B = torch.from_numpy(part.length_B).to(self._device)
        out_BTD = self.model(
            torch.from_numpy(part.histories()).to(self._device),
            torch.from_numpy(part.time_s_BT1).to(self._device),
            length_B,
        )
        is_place_BT = torch.arange(out_BTD.shape[1], device=self._device) < length_B[:, None]
        next_BT = torch.from_numpy(part.item_BT1[:, 1:]).to(self._device)
        return out_BTD[is_place_BT], next_BT[is_place_BT]

    def state(self) -> State:
        """Return weights, optimiser state and how far it has come."""
        moments = self._optimizer.state_dict()["state"]
        return {
            "epochs_done": self.epochs_done,
            "weights": {name: _array(x) for name, x in self.model.state_dict().items()},
            "optimizer": {
                str(number): {name: _array(x) for name, x in of_one.items()}
                for number, of_one in moments.items()
            },
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(
            {name: torch.from_numpy(np.array(x)) for name, x in state["weights"].items()}
        )
        moments = {
            int(number): {name: torch.from_numpy(np.array(x)) for name, x in of_one.items()}
            for number, of_one in state["optimizer"].items()
        }
        whole = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**whole, "state": moments})
        self.epochs_done = state["epochs_done"]


def _groups(users_B: Ints, length_B: Ints, most_places: int) -> Iterator[Ints]:
    """Yield users, shortest histories first, so many that their padded places are `most_places`."""
    at = 0
    while at < len(users_B):
        end = at + 1
        while end < len(users_B) and (end + 1 - at) * length_B[end] <= most_places:
            end += 1
        yield users_B[at:end]
        at = end


def _array(x: Tensor) -> NDArray[Any]:
    return np.array(x.detach().cpu().numpy())
