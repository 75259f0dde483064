"""Requests in few words, for tests of retrieval."""

from __future__ import annotations

from domain.requests import Candidates, RetrievalRequest, UserView
from retrieval.learner import RetrievalModel


def popular(model: RetrievalModel, limit: int, exclude: frozenset[str] = frozenset()) -> Candidates:
    """Ask for popular items on behalf of nobody."""
    return model.popular(RetrievalRequest(UserView(""), 0, limit, exclude))
