"""Requests between being shown and having their labels: scored once, with the models of then."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.state import state_hash
from stream.pending import PendingRequests, examples_from, examples_state
from tests.unit.stream.pending_fakes import NAN, ShiftMemory, SumRanker, example, request

SCORES = ("base_NH", "hidden_ND", "errors_NH", "compensated_NH")


def _pending(*names: str) -> PendingRequests:
    """Requests of 1, 2, 3... items; item k of the n-th has x = n / 10 + k / 100."""
    pending = PendingRequests()
    for number, name in enumerate(names):
        pending.add(name, request(name, *(number / 10 + k / 100 for k in range(number + 1))))
    return pending


def _base(pending: PendingRequests, name: str) -> list[float]:
    waiting = pending.get(name)
    assert waiting is not None
    assert waiting.base_NH is not None
    return [round(score, 4) for score in waiting.base_NH[:, 0].tolist()]


def test_requests_are_scored_together_and_each_gets_its_own_rows() -> None:
    pending, ranker = _pending("p", "q", "r"), SumRanker(0.5)
    assert pending.score(ranker, ShiftMemory(0.125)) == 3
    assert ranker.asked == [["p", "q", "r"]]
    assert _base(pending, "p") == [0.5]
    assert _base(pending, "q") == [0.6, 0.61]
    assert _base(pending, "r") == [0.7, 0.71, 0.72]
    last = pending.get("r")
    assert last is not None
    assert last.compensated_NH == pytest.approx(last.base_NH + 0.125)
    assert last.errors_NH == pytest.approx(np.full((3, 2), 0.125))
    assert last.hidden_ND == pytest.approx(np.array([[0.2, 0.5], [0.21, 0.5], [0.22, 0.5]]))


def test_a_request_is_scored_once_with_the_weights_of_then() -> None:
    pending, memory = _pending("p"), ShiftMemory()
    pending.score(SumRanker(0.25), memory)
    pending.add("late", request("late", 0.0))
    later = SumRanker(0.75)
    assert pending.score(later, memory) == 1
    assert later.asked == [["late"]]
    assert _base(pending, "p") == [0.25]
    assert _base(pending, "late") == [0.75]
    assert pending.score(later, memory) == 0
    assert len(later.asked) == 1


def test_a_forgotten_request_is_not_scored() -> None:
    pending, ranker = _pending("p", "q"), SumRanker()
    popped = pending.pop("p")
    assert popped is not None
    assert popped.captured.user_id == "p"
    assert pending.pop("p") is None
    assert pending.get("p") is None
    assert len(pending) == 1
    pending.score(ranker, ShiftMemory())
    assert ranker.asked == [["q"]]


def test_scores_of_one_request_are_no_view_of_the_whole_batch() -> None:
    pending = _pending("p", "q")
    pending.score(SumRanker(), ShiftMemory())
    first = pending.get("p")
    assert first is not None
    for name in SCORES:
        # A view would keep the scores of every request of the batch in memory.
        assert getattr(first, name).base is None


@given(scored=st.integers(0, 4), unscored=st.integers(0, 3), gone=st.sets(st.integers(0, 6)))
def test_pending_requests_come_back_scored_and_unscored_alike(
    scored: int, unscored: int, gone: set[int]
) -> None:
    names = [f"p{number}" for number in range(scored + unscored)]
    pending = _pending(*names[:scored])
    pending.score(SumRanker(0.5), ShiftMemory())
    for number, name in enumerate(names[scored:]):
        pending.add(name, request(name, *np.arange(number + 2) / 10, organic=True, session=number))
    for number in gone:
        pending.pop(f"p{number}")
    left = [name for number, name in enumerate(names) if number not in gone]
    if left:
        first = pending.get(left[0])
        assert first is not None
        first.early = {
            2: example(left[0], 2, NAN, 0.0, role="early_negative"),
            0: example(left[0], 0, 1.0, NAN, role="correction"),
        }

    state = copy.deepcopy(pending.save())
    again = PendingRequests()
    again.load(state)

    assert state_hash(again.save()) == state_hash(pending.save())
    assert len(again) == len(pending) == len(left)
    rankers = SumRanker(0.75), SumRanker(0.75)
    for each, ranker in zip((pending, again), rankers, strict=True):
        each.score(ranker, ShiftMemory())
    assert rankers[0].asked == rankers[1].asked
    for name in left:
        ours, theirs = pending.get(name), again.get(name)
        assert ours is not None
        assert theirs is not None
        assert _plain(theirs) == _plain(ours)


def _plain(waiting: Any) -> dict[str, Any]:
    plain = {name: getattr(waiting, name).tolist() for name in SCORES}
    plain["captured"] = (
        waiting.captured.user_id,
        waiting.captured.item_ids,
        waiting.captured.time_ms,
        {name: array.tolist() for name, array in waiting.captured.arrays.items()},
    )
    plain["said"] = (waiting.organic, waiting.session)
    plain["early"] = examples_state(list((waiting.early or {}).values()))
    return plain


def test_loading_forgets_what_was_there() -> None:
    pending = _pending("old", "older")
    pending.load(_pending("p").save())
    assert len(pending) == 1
    assert pending.get("old") is None
    ranker = SumRanker()
    pending.score(ranker, ShiftMemory())
    assert ranker.asked == [["p"]]


def test_examples_survive_json_with_their_unknown_labels() -> None:
    given_examples = [
        example("p", 0, 1.0, NAN, role="correction"),
        example("q", 3, NAN, 0.0, organic=True, log_sampling_rate=-1.5),
    ]
    text = json.dumps(examples_state(given_examples), allow_nan=False)
    back = examples_from(json.loads(text))
    for before, after in zip(given_examples, back, strict=True):
        for name in ("impression_id", "item_index", "role", "organic", "log_sampling_rate"):
            assert getattr(after, name) == getattr(before, name)
        assert [math.isnan(one) for one in after.labels] == [math.isnan(x) for x in before.labels]
        assert np.nansum(after.labels) == np.nansum(before.labels)
