"""Variants see what the live models see, when they see it, and answer in their own way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from domain.features import FeatureSchema
from domain.requests import CapturedRequest, RankingRequest, RankingScores
from replay.baselines import CounterBaseline
from replay.variants import CounterVariant, FrozenVariant, MemoryVariant, OnlineVariant
from stream.observer import Demand
from tests.unit.replay.measured_fakes import demand, example, measured

NAN = math.nan


class TideRanker:
    """Its probability for everything is the water's height when the copy was made."""

    def __init__(self) -> None:
        self.height = 0.1
        self.copies = 0
        self.asked: list[int] = []

    def copy(self) -> TideRanker:
        self.copies += 1
        twin = TideRanker()
        twin.height = self.height
        return twin

    def capture(self, request: RankingRequest) -> CapturedRequest:
        return CapturedRequest(request.user.user_id, request.item_ids, request.time_ms, {})

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        self.asked.append(len(captured))
        return [self._scores(len(one.item_ids)) for one in captured]

    def _scores(self, num_items: int) -> RankingScores:
        scores_NH = np.full((num_items, 2), self.height, np.float32)
        return RankingScores(probabilities=scores_NH, hidden=np.zeros((num_items, 1), np.float32))


def _counters() -> CounterVariant:
    return CounterVariant(CounterBaseline("counters/item", ("item",), FeatureSchema()))


def _frozen(live: TideRanker, from_ordinal: int) -> FrozenVariant:
    def begins(demand: Demand) -> bool:
        return demand.ordinal >= from_ordinal

    return FrozenVariant(live.copy, begins)  # type: ignore[arg-type]


def test_online_is_the_ranker_and_memory_is_what_a_server_answers() -> None:
    one = measured(example("p", 0, 1.0, NAN), base=0.25, compensated=0.75)
    assert OnlineVariant().probabilities([one]).tolist() == [[0.25, 0.25]]
    assert MemoryVariant().probabilities([one]).tolist() == [[0.75, 0.75]]
    assert (OnlineVariant.name, MemoryVariant.name) == ("online", "online+memory")


def test_counters_answer_with_the_counts_of_the_moment_the_items_were_shown() -> None:
    counters = _counters()
    counters.on_demand(demand("p", "a", "b"))
    counters.on_examples([example("p", 0, 1.0), example("p", 1, 0.0)])
    counters.on_demand(demand("q", "a", "b"))
    before = [measured(example("p", index, 1.0)) for index in (0, 1)]
    after = [measured(example("q", index, 1.0)) for index in (0, 1)]
    assert counters.probabilities(before).tolist() == [[0.5], [0.5]]
    first, second = counters.probabilities(after)[:, 0]
    assert first > 0.5 > second


def test_counters_count_the_primary_head_only_and_only_what_they_were_shown() -> None:
    counters, untouched = _counters(), _counters()
    counters.on_demand(demand("p", "a"))
    counters.on_examples([example("p", 0, NAN, 1.0), example("never shown", 0, 1.0, 1.0)])
    for each in (counters, untouched):
        each.on_demand(demand("q", "a"))
    one = [measured(example("q", 0, 1.0))]
    assert counters.probabilities(one) == untouched.probabilities(one)


def test_counters_of_sampled_labels_are_on_the_scale_of_those_labels() -> None:
    counters = _counters()
    rate = math.log(0.01)
    for number in range(50):  # one click to four sampled negatives
        counters.on_demand(demand(f"p{number}", "a", "b", "c", "d", "e"))
        labels = [1.0, 0.0, 0.0, 0.0, 0.0]
        counters.on_examples(
            [
                example(f"p{number}", index, label, log_sampling_rate=rate)
                for index, label in enumerate(labels)
            ]
        )
    counters.on_demand(demand("new", "x"))
    one = measured(example("new", 0, 1.0, log_sampling_rate=rate))
    assert counters.probabilities([one])[:, 0] == pytest.approx([0.2], abs=0.01)


def test_counters_forget_what_is_done_with() -> None:
    counters = _counters()
    counters.on_demand(demand("p", "a"))
    counters.on_forget(["p", "never shown"])
    with pytest.raises(KeyError):
        counters.probabilities([measured(example("p", 0, 1.0))])
    counters.on_examples([example("p", 0, 1.0)])
    counters.on_demand(demand("q", "a"))
    assert counters.probabilities([measured(example("q", 0, 1.0))]).tolist() == [[0.5]]


def test_frozen_is_the_live_ranker_before_its_moment_and_never_moves_after() -> None:
    live = TideRanker()
    frozen = _frozen(live, from_ordinal=2)
    answers = []
    for ordinal, height in enumerate((0.1, 0.2, 0.3, 0.4)):
        live.height = height
        frozen.on_demand(demand(f"p{ordinal}", "a", ordinal=ordinal))
        one = measured(example(f"p{ordinal}", 0, 1.0), base=height)
        answers.append(round(float(frozen.probabilities([one])[0, 0]), 4))
    assert answers == [0.1, 0.2, 0.3, 0.3]
    assert live.copies == 1


def test_frozen_scores_each_list_once_however_often_it_is_asked() -> None:
    live = TideRanker()
    twins: list[TideRanker] = []

    def copy() -> TideRanker:
        twins.append(live.copy())
        return twins[-1]

    frozen = FrozenVariant(copy, lambda demand: True)  # type: ignore[arg-type]
    frozen.on_demand(demand("p", "a", "b"))
    frozen.on_demand(demand("q", "a"))
    for _ in range(3):
        frozen.probabilities([measured(example("p", 1, 1.0)), measured(example("q", 0, 0.0))])
    assert twins[0].asked == [2]


def test_frozen_answers_for_sampled_negatives_among_sampled_negatives() -> None:
    live = TideRanker()
    live.height = 0.2
    frozen = _frozen(live, from_ordinal=0)
    frozen.on_demand(demand("p", "a"))
    one = measured(example("p", 0, 1.0, log_sampling_rate=math.log(0.25)))
    assert frozen.probabilities([one])[0] == pytest.approx([0.5, 0.5])


def test_frozen_forgets_what_is_done_with_scored_or_not() -> None:
    live = TideRanker()
    frozen = _frozen(live, from_ordinal=0)
    frozen.on_demand(demand("p", "a"))
    frozen.probabilities([measured(example("p", 0, 1.0))])
    frozen.on_demand(demand("q", "a"))
    frozen.on_forget(["p", "q"])
    gone = [measured(example(name, 0, 1.0), base=0.875) for name in ("p", "q")]
    assert frozen.probabilities(gone).tolist() == [[0.875], [0.875]]


def test_frozen_learns_nothing_from_labels() -> None:
    live = TideRanker()
    frozen = _frozen(live, from_ordinal=0)
    frozen.on_demand(demand("p", "a"))
    live.height = 0.9
    frozen.on_examples([example("p", 0, 1.0)])
    answer = frozen.probabilities([measured(example("p", 0, 1.0))])
    assert answer[0] == pytest.approx([0.1, 0.1])
