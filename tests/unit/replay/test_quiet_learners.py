"""Learners that do nothing: the ranker beside them is what it is beside real ones."""

from __future__ import annotations

import numpy as np

from domain.requests import RetrievalRequest, UserView
from replay.quiet_learners import QuietMemory, QuietRetrieval


def test_quiet_memory_leaves_scores_as_they_are() -> None:
    memory = QuietMemory()
    hidden_ND, base_NH = np.ones((3, 4), np.float32), np.full((3, 2), 0.3, np.float32)
    memory.learn(hidden_ND, base_NH, np.ones((3, 2), np.float32), 0)
    assert memory.compensate(hidden_ND, base_NH) is base_NH
    assert not memory.read_errors(hidden_ND, base_NH).any()
    assert memory.save() == memory.take_delta() == {}


def test_quiet_retrieval_finds_and_ranks_nothing() -> None:
    retrieval = QuietRetrieval()
    found = retrieval.retrieve(RetrievalRequest(user=UserView("u"), time_ms=0, limit=5))
    assert found.item_ids == ()
    assert len(found.scores) == 0
    assert retrieval.target_ranks([]).shape == (0,)
    assert retrieval.learn([]).examples == 0
