"""Demands, labels and measured predictions that can be said aloud, without a loop to make them."""

from __future__ import annotations

import numpy as np

from domain.events import Features
from domain.examples import JoinedExample, Role
from domain.requests import RankingRequest, UserView
from stream.observer import Demand, Measured


def demand(
    impression_id: str,
    *item_ids: str,
    ordinal: int = 0,
    session: int = 0,
    user_id: str = "ann",
    time_ms: int = 1_000,
    context: Features | None = None,
) -> Demand:
    """Items about to be shown."""
    request = RankingRequest(
        user=UserView(user_id=user_id),
        item_ids=item_ids,
        item_features=tuple({} for _ in item_ids),
        time_ms=time_ms,
        context=context or {},
    )
    return Demand(impression_id, ordinal, session, request)


def example(
    impression_id: str,
    item_index: int,
    *labels: float,
    role: Role = "final",
    log_sampling_rate: float = 0.0,
    shown_ms: int = 1_000,
) -> JoinedExample:
    """A label that became known."""
    return JoinedExample(
        impression_id=impression_id,
        item_index=item_index,
        user_id="ann",
        item_id=f"i{item_index}",
        shown_ms=shown_ms,
        revealed_ms=shown_ms + 500,
        labels=labels,
        role=role,
        log_sampling_rate=log_sampling_rate,
    )


def measured(
    one: JoinedExample, base: float = 0.5, compensated: float = 0.5, session: int = 0
) -> Measured:
    """A settled label beside what the live models had said."""
    heads = len(one.labels)
    return Measured(
        example=one,
        session=session,
        base_H=np.full(heads, base, np.float32),
        compensated_H=np.full(heads, compensated, np.float32),
    )
