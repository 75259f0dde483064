"""Served scores in a log meet the trainer's: a server that knows as much is no distance apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from domain.events import Event, Impression
from stream.train_loop import TrainLoop
from tests.loop_trace import Trace
from tests.loop_worlds import everything_of, make_loop, restored, tiny_settings, tiny_world


def as_served(loop: TrainLoop, shown: Impression) -> Impression:
    """The list as a server shows it that has everything the loop has at this moment."""
    parts = loop.parts
    item_ids = tuple(item.item_id for item in shown.items)
    request = parts.feature_store.request(shown.user_id, item_ids, shown.time_ms, shown.context)
    scores = parts.ranking.predict([parts.ranking.capture(request)])[0]
    score_N = parts.memory.compensate(scores.hidden, scores.probabilities)[:, 0]
    items = tuple(
        replace(item, score=score)
        for item, score in zip(shown.items, score_N.tolist(), strict=True)
    )
    return replace(shown, items=items, snapshot_id="newest")


def served_and_trained(trace: Trace) -> NDArray[np.float64]:
    """Both scores of every measured item that a server showed, (N, 2)."""
    return np.array(
        [(one.served, one.compensated_H[0]) for one in trace.measured if not math.isnan(one.served)]
    )


def lead_served(loop: TrainLoop, events: list[Event], every: int = 1) -> int:
    """Lead events through; every so many lists are shown by a server. Returns its items."""
    lists = items = 0
    for event in events:
        if isinstance(event, Impression):
            lists += 1
            if lists % every == 0:
                event = as_served(loop, event)
                items += len(event.items)
        loop.process(event)
    return items


def test_server_that_knows_what_the_trainer_knows_gives_the_same_scores() -> None:
    schema, events = tiny_world(60)
    trace = Trace()
    # Lambda at once, so that the memory's correction is part of what is compared.
    loop = make_loop(schema, tiny_settings("memory.lambda_margin=0.001"), [trace])
    shown = lead_served(loop, events)
    loop.finish()
    both_N2 = served_and_trained(trace)
    assert len(both_N2) == shown == 300
    np.testing.assert_allclose(both_N2[:, 0], both_N2[:, 1], atol=1e-6)
    assert any(one.compensated_H[0] != one.base_H[0] for one in trace.measured), (
        "the memory had a say"
    )


def test_lists_of_others_are_not_taken_for_served_ones() -> None:
    schema, events = tiny_world(60)
    trace = Trace()
    loop = make_loop(schema, observers=[trace])
    shown = lead_served(loop, events, every=3)
    loop.finish()
    assert len(served_and_trained(trace)) == shown < len(trace.measured) / 2


def test_served_scores_survive_a_restart_while_labels_are_waited_for() -> None:
    schema, events = tiny_world(60)
    whole, first, second = Trace(), Trace(), Trace()
    lead_served(make_loop(schema, observers=[whole]), events)
    half = len(events) // 2
    loop = make_loop(schema, observers=[first])
    lead_served(loop, events[:half])
    again = restored(make_loop(schema, observers=[second]), everything_of(loop))
    lead_served(again, events[half:])
    both = [*served_and_trained(first).tolist(), *served_and_trained(second).tolist()]
    assert both == served_and_trained(whole).tolist() != []
