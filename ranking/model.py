"""The ranking network: fields and numbers and history in, one logit per label head out.

Embedded fields pass the state-aware adapter; the candidate attends to the user's history; both meet
the normalised numbers (label counters above all) in a small feed-forward network, and beside it in
a cross network where one is asked for.

Shape legend: B requests, M items of all of them, C most items of one request, T history entries,
U distinct ids, F fields, D embedding width, E history width, W numbers, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import relu

from encoders.backbone import HistoryState
from ranking.adaf2m2 import (
    NUM_NORM_SIGNALS,
    AdaF2M2Config,
    StateAwareAdapter,
    count_signals,
    masked_copies,
    norm_signals,
)
from ranking.aefs import AefsConfig, AefsOutput, FieldChoice, SmallModel
from ranking.collate import Batch
from ranking.counters import NUM_ACTIVITY
from ranking.cross_network import CrossNetwork
from ranking.field_layout import FieldLayout, Side
from ranking.history_encoder import BackboneConfig, CandidateEncoder
from ranking.id_map import ABSENT


@dataclass(frozen=True, slots=True)
class NetConfig:
    """What the network's shape follows from.

    Attributes:
        num_floats: W, numbers per item.
        num_flagged: of how many of them, from the left, the absence is an input too.
        state_columns: the numbers that tell the state of user and item.
        cross_layers: layers of the cross network; 0 is none.
    """

    layout: FieldLayout
    num_heads: int
    num_floats: int
    num_flagged: int
    state_columns: tuple[int, ...]
    embedding_dimension: int
    history_length: int
    hidden: tuple[int, ...]
    cross_layers: int
    backbone: BackboneConfig
    adaf2m2: AdaF2M2Config
    aefs: AefsConfig = field(default_factory=AefsConfig)


@dataclass(frozen=True, slots=True)
class NetInput:
    """A batch as tensors; see `Batch`. `present_U` is 0 for the id that means "no value".

    `states` holds histories that were encoded before, one per request; with them, the batch's own
    are not looked at.
    """

    present_U1: Tensor
    request_BS: Tensor
    item_MI: Tensor
    history_BT: Tensor
    lengths_B: Tensor
    times_s_BU: Tensor
    outcomes_BTH: Tensor
    activity_MA: Tensor
    numbers_MW: Tensor
    missing_MW: Tensor
    request_M: Tensor
    slot_M: Tensor
    num_slots: int
    states: Sequence[HistoryState] | None = None


@dataclass(frozen=True, slots=True)
class NetOutput:
    """What the network says of a batch.

    Attributes:
        hidden_MD: the last hidden layer before its activation; after it, all vectors would lie in
            one corner of the space and the error memory could not tell them apart.
        masked_logits: of the masked copies, (M * K, H); None when there are none.
        aefs: what the losses of early selection need; None when all fields were looked up.
    """

    logits_MH: Tensor
    hidden_MD: Tensor
    masked_logits: Tensor | None
    aefs: AefsOutput | None = None


def net_input(
    batch: Batch, normal_MW: NDArray[np.float32], num_heads: int, device: torch.device
) -> NetInput:
    """Move a batch, with its numbers normalised, to a device."""

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device)

    bits_BTH = (batch.outcomes_BT[:, :, None] >> np.arange(num_heads)) & 1
    return NetInput(
        present_U1=tensor((batch.ids != ABSENT).astype(np.float32)[:, None]),
        request_BS=tensor(batch.request_BS),
        item_MI=tensor(batch.item_MI),
        history_BT=tensor(batch.history_BT),
        lengths_B=tensor(batch.lengths_B),
        times_s_BU=tensor(batch.times_s_BU),
        outcomes_BTH=tensor(bits_BTH.astype(np.float32)),
        activity_MA=tensor(batch.activity_MA),
        numbers_MW=tensor(normal_MW),
        missing_MW=tensor(np.isnan(batch.floats_MW).astype(np.float32)),
        request_M=tensor(batch.request_M),
        slot_M=tensor(batch.slot_M),
        num_slots=batch.num_slots,
    )


class RankingNet(nn.Module):
    """The dense part of the ranker; embedding rows come from outside, one per distinct id."""

    def __init__(self, config: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self._config = config
        layout, width = config.layout, config.embedding_dimension
        self.defaults = nn.Parameter(
            torch.empty(layout.num_fields, width).normal_(0, 0.05, generator=generator)
        )
        inputs = layout.num_fields * width + config.num_floats + config.num_flagged
        self.history: CandidateEncoder | None = None
        if config.backbone.blocks:
            self.token = _linear(width, config.backbone.width, generator)
            self.outcome = _linear(config.num_heads + 1, config.backbone.width, generator)
            self.history = CandidateEncoder(config.backbone, config.history_length, generator)
            inputs += config.backbone.width
        self.adapter: StateAwareAdapter | None = None
        if config.adaf2m2.adapter:
            # Of the user and of the item.
            signals = len(config.state_columns) + 2 * (NUM_ACTIVITY + NUM_NORM_SIGNALS)
            if config.adaf2m2.id_embeddings_in_state:
                signals += 2 * (config.aefs.small_dimension if config.aefs.keep else width)
            num_weights = layout.num_fields + int(self.history is not None)
            self.adapter = StateAwareAdapter(signals, num_weights, config.adaf2m2.scale)
        widths = (inputs, *config.hidden)
        layers = [_linear(before, after, generator) for before, after in pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        self.cross: CrossNetwork | None = None
        read = config.hidden[-1]
        if config.cross_layers:
            self.cross = CrossNetwork(inputs, config.cross_layers, generator)
            read += inputs
        self.heads = _linear(read, config.num_heads, generator)
        self.small: SmallModel | None = None
        if config.aefs.keep:
            widths = (config.num_floats + config.num_flagged, width, config.num_heads)
            self.small = SmallModel(config.aefs, layout.num_fields, widths, generator)
        self.masked_heads = self.heads
        if config.adaf2m2.masked_forwards and config.adaf2m2.masked_heads:
            self.masked_heads = _linear(read, config.num_heads, generator)
        if self.history is not None:
            # What the history says comes in as it proves useful, not as noise from the start. It is
            # the last of the inputs, and what was crossed the last that heads read.
            readers = [layers[0].weight]
            if self.cross is not None:
                readers += [*self.cross.weights, self.heads.weight, self.masked_heads.weight]
            for weight in readers:
                nn.init.zeros_(weight.data[:, -config.backbone.width :])

    def choose(
        self, small_US: Tensor, given: NetInput, dropout: torch.Generator | None = None
    ) -> FieldChoice:
        """Choose each item's fields by the rows of the small table."""
        assert self.small is not None, "asked for only where fields are chosen"
        return self.small.choose(self._pooled(small_US, given), dropout)

    def forward(
        self,
        rows_UD: Tensor,
        given: NetInput,
        mask_generator: torch.Generator | None = None,
        choice: FieldChoice | None = None,
    ) -> NetOutput:
        """Score the items of a batch; masked copies are scored too when a generator is given.

        With a choice of fields, the rows of others may be anything: they are not looked at.
        """
        pooled_MFD = self._pooled(rows_UD, given)
        if choice is not None:
            pooled_MFD = pooled_MFD * choice.chosen_MF[..., None]
        fields_MFD = pooled_MFD + self.defaults
        numbers = torch.cat(
            (given.numbers_MW, given.missing_MW[:, : self._config.num_flagged]), dim=1
        )
        history_ME = self._history(rows_UD, fields_MFD, given)
        known_MFD, aefs = pooled_MFD, None
        if choice is not None:
            assert self.small is not None
            known_MFD = choice.raw_MFS - self.small.defaults
            fields_MFD, aefs = self.small.look(choice, numbers, fields_MFD)
        weighed = self._adapted(fields_MFD, history_ME, known_MFD, given)
        inputs_MX = _joined(*weighed, numbers)
        hidden_MD = self._hidden(inputs_MX)
        logits_MH = self.heads(self._read(hidden_MD, inputs_MX))
        copies = self._config.adaf2m2.masked_forwards
        if mask_generator is None or not copies:
            return NetOutput(logits_MH, hidden_MD, None, aefs)
        masked = masked_copies(fields_MFD, self.defaults, self._config.adaf2m2, mask_generator)
        repeated = [
            None if part is None else part.repeat_interleave(copies, dim=0)
            for part in (history_ME, numbers)
        ]
        assert repeated[1] is not None
        inputs_MX = _joined(masked, repeated[0], repeated[1])
        masked_logits = self.masked_heads(self._read(self._hidden(inputs_MX), inputs_MX))
        return NetOutput(logits_MH, hidden_MD, masked_logits, aefs)

    def _pooled(self, rows_UD: Tensor, given: NetInput) -> Tensor:
        layout = self._config.layout
        request_BFD = _pooled(rows_UD, given.present_U1, given.request_BS, layout.request)
        item_MFD = _pooled(rows_UD, given.present_U1, given.item_MI, layout.item)
        return torch.cat((request_BFD[given.request_M], item_MFD), dim=1)

    def encode(self, rows_UD: Tensor, given: NetInput) -> HistoryState:
        """Encode the histories of a batch; only for a network that reads them."""
        assert self.history is not None
        item_field = self._config.layout.request.num_fields
        tokens_BTD = rows_UD[given.history_BT] + self.defaults[item_field]
        shown_BT1 = torch.ones_like(given.outcomes_BTH[..., :1])
        outcomes = torch.cat((shown_BT1, given.outcomes_BTH), dim=-1)
        history_BTE = self.token(tokens_BTD) + self.outcome(outcomes)
        return self.history.encode(history_BTE, given.lengths_B, given.times_s_BU)

    def _history(self, rows_UD: Tensor, fields_MFD: Tensor, given: NetInput) -> Tensor | None:
        if self.history is None:
            return None
        candidates_ME = self.token(fields_MFD[:, self._config.layout.request.num_fields])
        slots = (len(given.request_BS), given.num_slots)
        candidates_BCE = candidates_ME.new_zeros((*slots, candidates_ME.shape[1])).index_put(
            (given.request_M, given.slot_M), candidates_ME
        )
        if given.states is None:
            seen_BCE = self.history.candidates(candidates_BCE, self.encode(rows_UD, given))
        else:
            alone = zip(candidates_BCE.split(1), given.states, strict=True)
            seen_BCE = torch.cat([self.history.candidates(each, state) for each, state in alone])
        return seen_BCE[given.request_M, given.slot_M]

    def _adapted(
        self, fields_MFD: Tensor, history_ME: Tensor | None, known_MFD: Tensor, given: NetInput
    ) -> tuple[Tensor, Tensor | None]:
        """Weigh fields and history by state; `known_MFD` are the rows it is read from."""
        if self.adapter is None:
            return fields_MFD, history_ME
        ids = (0, self._config.layout.request.num_fields)
        own = [known_MFD[:, field] for field in ids]
        state = [
            given.numbers_MW[:, list(self._config.state_columns)],
            count_signals(given.activity_MA),
            *map(norm_signals, own),
        ]
        if self._config.adaf2m2.id_embeddings_in_state:
            flows = self._config.adaf2m2.id_gradient
            state += own if flows else [each.detach() for each in own]
        weights_MF = self.adapter(torch.cat(state, dim=1))
        num_fields = fields_MFD.shape[1]
        if history_ME is not None:
            history_ME = history_ME * weights_MF[:, num_fields:]
        return fields_MFD * weights_MF[:, :num_fields, None], history_ME

    def _hidden(self, inputs_MX: Tensor) -> Tensor:
        hidden: Tensor = self.layers[0](inputs_MX)
        for layer in self.layers[1:]:
            hidden = layer(relu(hidden))
        return hidden

    def _read(self, hidden_MD: Tensor, inputs_MX: Tensor) -> Tensor:
        """Return what the heads read."""
        if self.cross is None:
            return relu(hidden_MD)
        return torch.cat((relu(hidden_MD), self.cross(inputs_MX)), dim=1)


def _joined(fields_MFD: Tensor, history_ME: Tensor | None, numbers: Tensor) -> Tensor:
    """Return all inputs side by side, (M, X)."""
    parts = [fields_MFD.flatten(1), numbers]
    if history_ME is not None:
        parts.append(history_ME)
    return torch.cat(parts, dim=1)


def _pooled(rows_UD: Tensor, present_U1: Tensor, index_LI: Tensor, side: Side) -> Tensor:
    """Look up one side's ids, (L, I), and average the values of multi-valued fields; (L, F, D)."""
    rows_LID = rows_UD[index_LI]
    if not side.multis:
        return rows_LID
    singles, rest = rows_LID[:, : side.num_single_ids], rows_LID[:, side.num_single_ids :]
    shape = (len(index_LI), len(side.multis), side.width)
    present = present_U1[index_LI[:, side.num_single_ids :]].reshape(*shape, 1)
    # Absent values are rows of zeros, so the sum needs no mask.
    multis = rest.reshape(*shape, rows_UD.shape[1]).sum(dim=2) / present.sum(dim=2).clamp(min=1.0)
    return torch.cat((singles, multis), dim=1)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
