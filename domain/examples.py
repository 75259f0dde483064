"""Labelled examples: what the joiner makes of impressions and feedback."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domain.events import Features
from domain.requests import CapturedRequest, UserView

Role = Literal["final", "early_negative", "correction"]
"""final: the label is settled. early_negative: policy `fast` assumed "no" after a short delay.
correction: a positive that arrived after an early negative had been emitted."""


@dataclass(frozen=True, slots=True, eq=False)
class JoinedExample:
    """One (impression, item) whose label became known.

    Attributes:
        impression_id: event id of the impression; for organic feedback, id made by the joiner.
        item_index: index of the item among the impression's items.
        shown_ms: event time of the impression.
        revealed_ms: event time at which the label became known.
        labels: one value per head, 0.0 or 1.0; NaN where this head's label is not known.
        organic: whether it comes from feedback without an impression.
        log_sampling_rate: ln r, where r is the rate at which the negatives of this example's group
            were kept; 0.0 when nothing was sampled. Sampling divides the odds by r, so a learner
            trains on `logit - log_sampling_rate` and the logit itself belongs to the unsampled
            stream. All examples of one organic group carry the same value.
    """

    impression_id: str
    item_index: int
    user_id: str
    item_id: str
    shown_ms: int
    revealed_ms: int
    labels: tuple[float, ...]
    role: Role = "final"
    organic: bool = False
    log_sampling_rate: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class LabeledRequest:
    """A captured request with the labels that became known together; the unit of ranking training.

    N items were captured; M of them are labelled here. H heads.

    Attributes:
        item_indices: int64 (M,), rows of the capture that are labelled.
        labels: float32 (M, H), NaN where unknown.
        roles: M roles.
        log_sampling_rates: float32 (M,), see `JoinedExample.log_sampling_rate`.
    """

    captured: CapturedRequest
    item_indices: NDArray[np.int64]
    labels: NDArray[np.float32]
    roles: tuple[Role, ...]
    log_sampling_rates: NDArray[np.float32]
    revealed_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class PositiveAction:
    """A user took an item: the unit of retrieval training.

    Attributes:
        user: the user as known just before the action (the item is not yet in her history).
        time_ms: event time of the action.
        context: features of the moment it was shown in, empty when nobody told.
    """

    user: UserView
    item_id: str
    time_ms: int
    context: Features = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What one learning step did.

    Attributes:
        loss: mean training loss before the step, NaN when the batch was empty.
        examples: how many examples it learned from.
        quarantined: examples set aside because loss or gradient was not finite.
    """

    loss: float
    examples: int
    quarantined: int = 0
