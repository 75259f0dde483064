"""Which labels stand, beside which predictions, and what may be forgotten."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from domain.examples import JoinedExample
from domain.state import state_hash
from stream.pending import PendingRequests
from stream.settlement import Settlement, corrected, group_by_impression
from tests.unit.stream.pending_fakes import NAN, ShiftMemory, SumRanker, example, request


def _scored(**requests: tuple[float, ...]) -> tuple[PendingRequests, Settlement]:
    pending = PendingRequests()
    for name, x in requests.items():
        pending.add(name, request(name, *x, organic=name.startswith("organic"), session=len(name)))
    pending.score(SumRanker(), ShiftMemory())
    return pending, Settlement(pending)


def _labels(example: JoinedExample) -> str:
    return "".join("?" if math.isnan(label) else str(int(label)) for label in example.labels)


def _measured(
    settlement: Settlement, *groups: Sequence[JoinedExample]
) -> list[tuple[str, int, str]]:
    return [
        (one.example.impression_id, one.example.item_index, _labels(one.example))
        for one in settlement.measure(groups)
    ]


def test_final_label_stands_at_once_beside_its_request() -> None:
    _, settlement = _scored(p=(0.25, 0.5))
    (labeled,) = settlement.settle([example("p", 1, 1.0, 0.0)], [])
    assert labeled.captured.user_id == "p"
    assert labeled.item_indices.tolist() == [1]
    assert labeled.labels.tolist() == [[1.0, 0.0]]
    assert labeled.roles == ("final",)


def test_measured_label_carries_the_score_a_server_showed_also_after_a_restart() -> None:
    pending = PendingRequests()
    pending.add("p", replace(request("p", 0.25, 0.5), served_N=np.array([0.5, 0.25], np.float32)))
    pending.add("q", request("q", 0.25))
    again = PendingRequests()
    again.load(copy.deepcopy(pending.save()))
    for one in (pending, again):
        one.score(SumRanker(), ShiftMemory())
        groups = [[example("p", 1, 1.0, 0.0)], [example("q", 0, 0.0, 0.0)]]
        told, untold = Settlement(one).measure(groups)
        assert told.served == 0.25
        assert math.isnan(untold.served)


def test_labels_of_one_request_come_together_in_order_of_first_appearance() -> None:
    _, settlement = _scored(p=(0.1, 0.2), q=(0.3,))
    finals = [example("q", 0, 0.0, 0.0), example("p", 1, 1.0, 0.0), example("q", 0, 0.0, 1.0)]
    assert [len(group) for group in group_by_impression(finals)] == [2, 1]
    labeled = settlement.settle(finals, [])
    assert [(one.captured.user_id, len(one.roles)) for one in labeled] == [("q", 2), ("p", 1)]
    assert labeled[0].labels.dtype == np.float32
    assert labeled[0].item_indices.dtype == np.int64


def test_request_reveals_its_labels_when_the_last_of_them_was_revealed() -> None:
    _, settlement = _scored(p=(0.1, 0.2))
    finals = [example("p", 0, 0.0, 0.0, revealed_ms=900), example("p", 1, 1.0, 0.0)]
    (labeled,) = settlement.settle(finals, [])
    assert labeled.revealed_ms == 900


def test_early_negative_stands_only_when_no_correction_can_come() -> None:
    _, settlement = _scored(p=(0.25, 0.5))
    early = [example("p", at, 0.0, 0.0, role="early_negative") for at in (0, 1)]
    assert settlement.settle(early, []) == []
    assert _measured(settlement, early) == []
    (labeled,) = settlement.settle([], ["p"])
    assert labeled.labels.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert labeled.roles == ("final", "final")
    assert _measured(settlement) == [("p", 0, "00"), ("p", 1, "00")]
    assert _measured(settlement) == []


def test_correction_replaces_the_early_negative_and_is_measured_once() -> None:
    _, settlement = _scored(p=(0.25, 0.5))
    settlement.settle([example("p", 0, 0.0, 0.0, role="early_negative")], [])
    correction = example("p", 0, 1.0, NAN, role="correction")
    settlement.settle([correction], [])
    assert _measured(settlement, [correction]) == []
    settlement.settle([], ["p"])
    assert _measured(settlement) == [("p", 0, "10")]


def test_heads_decided_before_the_early_negative_are_measured_apart() -> None:
    _, settlement = _scored(p=(0.25,))
    click = example("p", 0, 1.0, NAN)
    settlement.settle([click, example("p", 0, NAN, 0.0, role="early_negative")], ["p"])
    assert _measured(settlement, [click]) == [("p", 0, "1?"), ("p", 0, "?0")]


@pytest.mark.parametrize(
    ("before", "now", "both"),
    [
        ((0.0, 0.0), (1.0, NAN), "10"),
        ((0.0, NAN), (NAN, 1.0), "01"),
        ((NAN, 0.0), (NAN, 1.0), "?1"),
    ],
)
def test_correction_keeps_the_heads_it_says_nothing_of(
    before: tuple[float, ...], now: tuple[float, ...], both: str
) -> None:
    early = example("p", 0, *before, role="early_negative")
    late = example("p", 0, *now, role="correction", revealed_ms=900)
    assert _labels(corrected(early, late)) == both
    assert corrected(early, late).revealed_ms == 900
    assert corrected(None, late) is late


def test_measured_scores_are_those_of_the_item_before_and_after_the_memory() -> None:
    _, settlement = _scored(pp=(0.25, 0.5))
    (one,) = settlement.measure([[example("pp", 1, 1.0, 0.0)]])
    assert one.base_H.tolist() == [0.5, 0.5]
    assert one.compensated_H.tolist() == [0.625, 0.625]
    assert one.session == 2


def test_sampled_negatives_are_measured_among_sampled_negatives() -> None:
    _, settlement = _scored(organic=(0.2, 0.2))
    rate = math.log(0.25)
    group = [
        example("organic", at, 1.0, NAN, organic=True, log_sampling_rate=rate) for at in (0, 1)
    ]
    for one in settlement.measure([group]):
        # Of four silences one is kept: 0.2 / (0.2 + 0.8 / 4).
        assert one.base_H[0] == pytest.approx(0.5)
        assert one.compensated_H[0] == pytest.approx(0.325 / (0.325 + 0.675 / 4))


def test_memory_is_taught_what_it_said_at_scoring_time_and_nothing_organic() -> None:
    _, settlement = _scored(p=(0.25, 0.5), organic=(0.2,))
    groups = [
        [example("organic", 0, 1.0, NAN, organic=True)],
        [example("p", 1, 1.0, NAN), example("p", 0, 0.0, 0.0)],
    ]
    memory = ShiftMemory(9.0)
    settlement.teach(memory, settlement.measure(groups), time_ms=77)
    ((hidden_ND, base_NH, labels_NH, errors_NH),) = memory.taught
    assert hidden_ND.tolist() == [[0.5, 0.0], [0.25, 0.0]]
    assert base_NH[:, 0].tolist() == [0.5, 0.25]
    np.testing.assert_array_equal(labels_NH, [[1.0, NAN], [0.0, 0.0]])
    assert errors_NH.tolist() == [[0.125, 0.125], [0.125, 0.125]]  # of then, not the 9.0 of now
    assert memory.times_ms == [77]


def test_memory_is_left_alone_when_nothing_real_was_measured() -> None:
    _, settlement = _scored(organic=(0.2,))
    memory = ShiftMemory()
    settlement.teach(memory, [], time_ms=1)
    group = [example("organic", 0, 1.0, NAN, organic=True)]
    settlement.teach(memory, settlement.measure([group]), time_ms=1)
    assert memory.taught == []


def test_label_of_an_unknown_request_is_left_out() -> None:
    _, settlement = _scored(p=(0.25,))
    assert settlement.settle([example("never shown", 0, 1.0, 0.0)], []) == []
    assert _measured(settlement, [example("never shown", 0, 1.0, 0.0)]) == []
    assert settlement.settle([example("gone", 0, 0.0, 0.0, role="early_negative")], ["gone"]) == []


def test_request_is_forgotten_once_all_of_its_examples_were_learned() -> None:
    pending, settlement = _scored(p=(0.1, 0.2), q=(0.3,), r=(0.4,))
    settlement.settle([example("p", 0, 0.0, 0.0), example("p", 1, 0.0, 0.0)], ["p"])
    settlement.settle([example("q", 0, 0.0, 0.0)], ["q"])
    settlement.settle([example("r", 0, NAN, 1.0)], [])
    assert settlement.forget(num_waiting=3) == []
    assert settlement.forget(num_waiting=2) == ["p"]
    assert len(pending) == 2
    assert settlement.forget(num_waiting=0) == ["q"]
    assert pending.get("r") is not None


def test_request_that_never_had_an_example_is_forgotten_too() -> None:
    pending, settlement = _scored(p=(0.1,))
    settlement.settle([], ["p"])
    assert settlement.forget(num_waiting=0) == ["p"]
    assert len(pending) == 0


def test_settlement_comes_back_with_what_stands_and_what_may_be_forgotten() -> None:
    pending, settlement = _scored(p=(0.1,), q=(0.2,), r=(0.3,))
    settlement.settle([example("p", 0, 0.0, 0.0, role="early_negative")], ["p"])
    settlement.settle([example("q", 0, 1.0, 0.0)], ["q"])
    state = copy.deepcopy(settlement.save())
    again = Settlement(pending)
    again.load(state)
    assert state_hash(again.save()) == state_hash(state)
    assert _measured(again) == [("p", 0, "00")]
    assert again.forget(num_waiting=1) == ["p"]
    assert again.forget(num_waiting=0) == ["q"]
