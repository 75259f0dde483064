from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem
from domain.examples import JoinedExample
from domain.features import FeatureSchema, Head
from domain.state import state_hash
from stream.deduplicator import Deduplicator
from stream.joiner import Joiner, JoinerConfig
from stream.watermark import Watermark, WatermarkConfig

HEADS = (
    Head(name="click", feedback_kind="click"),
    Head(name="good", feedback_kind="rating", positive_at=4.0),
    Head(name="great", feedback_kind="rating", positive_at=5.0),
)
SCHEMA = FeatureSchema(heads=HEADS)
WINDOW_MS, DELAY_MS, LATENESS_MS = 100, 20, 30
END = ItemUpdate(event_id="end", time_ms=10_000, item_id="a")

Labels = dict[tuple[str, str], list[float]]
"""(impression, item) -> one label per head."""


@dataclass
class Run:
    """A joiner with what stands before it in the loop, and everything that came out."""

    joiner: Joiner
    watermark: Watermark
    deduplicator: Deduplicator
    examples: list[JoinedExample]
    finished: list[str]


def _run(events: list[Event], policy: str, resume_at: int = -1, **config: Any) -> Run:
    config = {"organic_negatives": 2, "fast_delay_ms": DELAY_MS} | config
    settings = JoinerConfig(policy=policy, attribution_window_ms=WINDOW_MS, **config)  # type: ignore
    run = Run(
        joiner=Joiner(SCHEMA, settings, rng_seed=5),
        watermark=Watermark(WatermarkConfig(allowed_lateness_ms=LATENESS_MS, max_jump_ms=0)),
        deduplicator=Deduplicator(),
        examples=[],
        finished=[],
    )
    for at, event in enumerate(events):
        if at == resume_at:
            resumed = Joiner(SCHEMA, settings, rng_seed=99)
            resumed.load(_through_files(run.joiner.save()))
            run.joiner = resumed
        demand = run.joiner.items_to_score(event)
        if run.deduplicator.seen(event.event_id, event.time_ms):
            continue
        run.watermark.observe(event.time_ms)
        examples = run.joiner.observe(event)
        for example in examples:
            if demand is not None and example.impression_id == demand.impression_id:
                assert demand.item_ids[example.item_index] == example.item_id
        run.examples += examples
        run.examples += run.joiner.advance(run.watermark.time_ms)
        run.finished += run.joiner.take_finished()
    return run


def _through_files(node: Any) -> Any:
    """Return a state as a snapshot gives it back: arrays as they are, the rest through JSON."""
    if isinstance(node, dict):
        return {key: _through_files(value) for key, value in node.items()}
    return node.copy() if isinstance(node, np.ndarray) else json.loads(json.dumps(node))


def _unattached() -> st.SearchStrategy[Feedback]:
    """Return feedback whose impression is not named, or never comes."""
    return st.builds(
        Feedback,
        event_id=st.sampled_from(["organic0", "organic1", "organic2"]),
        time_ms=st.integers(1, 300),
        user_id=st.just("bob"),
        item_id=st.sampled_from("abcd"),
        kind=st.sampled_from(["click", "rating", "share"]),
        value=st.sampled_from([1.0, 4.0]),
        impression_id=st.sampled_from([None, None, "never shown"]),
    )


@st.composite
def worlds(draw: st.DrawFn) -> list[Event]:
    """Return impressions and feedback in event-time order; nothing contradicts anything."""
    events: list[Event] = []
    for number in range(draw(st.integers(1, 4))):
        shown_ms = draw(st.integers(1, 300))
        items = "abc"[: draw(st.integers(1, 3))]
        shown = tuple(ShownItem(item_id=item, position=at) for at, item in enumerate(items))
        name = f"p{number}"
        events.append(Impression(event_id=name, time_ms=shown_ms, user_id="ann", items=shown))
        actions = st.tuples(st.sampled_from(items), st.sampled_from(["click", "rating"]))
        for item, kind in draw(st.lists(actions, unique=True, max_size=4)):
            events.append(
                Feedback(
                    event_id=f"{name}{item}{kind}",
                    time_ms=shown_ms + draw(st.integers(0, WINDOW_MS + 40)),
                    user_id="ann",
                    item_id=item,
                    kind=kind,
                    value=float(draw(st.sampled_from([0, 1, 4, 5]))),
                    impression_id=name,
                )
            )
    events += draw(st.lists(_unattached(), max_size=3, unique_by=lambda event: event.event_id))
    return sorted(events, key=lambda event: event.time_ms)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """Return a world in event-time order, and as it may arrive: disordered, but nothing late."""
    events = draw(worlds())
    repeats = draw(st.lists(st.sampled_from(events), max_size=5))
    delays = st.integers(0, LATENESS_MS)
    arrived = sorted(
        [(event.time_ms + draw(delays), at, event) for at, event in enumerate(events + repeats)],
        key=lambda row: row[:2],
    )
    return [*events, END], [*(event for _, _, event in arrived), END]


def _labels_by_definition(events: list[Event]) -> Labels:
    """Return the label of every (impression, item): the slow twin."""
    labels: Labels = {}
    for shown in [event for event in events if isinstance(event, Impression)]:
        for item in shown.items:
            labels[shown.event_id, item.item_id] = [
                float(
                    any(
                        event.kind == head.feedback_kind and event.value >= head.positive_at
                        for event in events
                        if isinstance(event, Feedback)
                        and (event.impression_id, event.item_id) == (shown.event_id, item.item_id)
                        and event.time_ms < shown.time_ms + WINDOW_MS
                    )
                )
                for head in HEADS
            ]
    return labels


def _shown(run: Run) -> list[JoinedExample]:
    return [example for example in run.examples if not example.organic]


def _plain(examples: list[JoinedExample]) -> list[str]:
    return [str(replace(example)) for example in examples]


@given(world=arrivals())
def test_wait_yields_one_final_example_with_the_label_of_the_definition(
    world: tuple[list[Event], list[Event]],
) -> None:
    in_order, arrived = world
    run = _run(arrived, "wait")
    assert run.watermark.late == 0
    shown = _shown(run)
    assert {example.role for example in shown} <= {"final"}
    assert len(shown) == len({(one.impression_id, one.item_id) for one in shown})
    got = {(one.impression_id, one.item_id): list(one.labels) for one in shown}
    assert got == _labels_by_definition(in_order)


@given(world=arrivals())
def test_fast_knows_each_head_once_and_corrects_it_at_most_once(
    world: tuple[list[Event], list[Event]],
) -> None:
    in_order, arrived = world
    expected = _labels_by_definition(in_order)
    known: Counter[tuple[str, str, int]] = Counter()
    corrected: Counter[tuple[str, str, int]] = Counter()
    got: Labels = {key: [math.nan] * len(HEADS) for key in expected}
    for example in _shown(_run(arrived, "fast")):
        key = (example.impression_id, example.item_id)
        for head, label in enumerate(example.labels):
            if math.isnan(label):
                continue
            if example.role == "correction":
                assert label == 1.0
                assert got[key][head] == 0.0
                corrected[*key, head] += 1
            else:
                assert example.role == "final" or label == 0.0
                known[*key, head] += 1
            got[key][head] = label
    assert got == expected
    assert set(known.values()) == {1}
    assert set(corrected.values()) <= {1}


@given(world=arrivals(), policy=st.sampled_from(["wait", "fast"]))
def test_repeated_events_change_nothing(
    world: tuple[list[Event], list[Event]], policy: str
) -> None:
    _, arrived = world
    first_only = list({event.event_id: event for event in arrived}.values())
    with_repeats, without = _run(arrived, policy), _run(first_only, policy)
    assert _plain(with_repeats.examples) == _plain(without.examples)
    assert state_hash(with_repeats.joiner.save()) == state_hash(without.joiner.save())


@given(
    events=worlds(),
    data=st.data(),
    policy=st.sampled_from(["wait", "fast"]),
    max_pending=st.sampled_from([1, 2, 100]),
)
def test_every_event_is_accounted_for_in_any_order(
    events: list[Event], data: st.DataObject, policy: str, max_pending: int
) -> None:
    arrived = data.draw(st.permutations(events))
    run = _run([*arrived, END], policy, max_pending=max_pending)
    counts = run.joiner.counts
    feedback = [event for event in events if isinstance(event, Feedback)]
    assert run.joiner.num_early == run.joiner.num_pending == 0
    assert len(events) - len(feedback) == counts.impressions_joined + counts.impressions_late
    assert len(feedback) == (
        counts.feedback_joined
        + counts.feedback_repeated
        + counts.feedback_late
        + counts.feedback_unlabelled
        + counts.feedback_organic
        + counts.feedback_orphaned
        + counts.feedback_contradictory
    )


@given(
    events=worlds(),
    data=st.data(),
    policy=st.sampled_from(["wait", "fast"]),
    max_pending=st.sampled_from([1, 2, 100]),
)
def test_examples_hold_their_promises_in_any_order(
    events: list[Event], data: st.DataObject, policy: str, max_pending: int
) -> None:
    arrived = data.draw(st.permutations(events))
    run = _run([*arrived, END], policy, max_pending=max_pending)
    assert all(one.revealed_ms >= one.shown_ms for one in run.examples)
    assert len(run.finished) == len(set(run.finished))
    assert {one.impression_id for one in run.examples} <= set(run.finished)
    finals = [one for one in _shown(run) if one.role != "correction"]
    heads = Counter(
        (one.impression_id, one.item_id, head)
        for one in finals
        for head, label in enumerate(one.labels)
        if not math.isnan(label)
    )
    assert set(heads.values()) <= {1}
    assert len(heads) == len(HEADS) * len({(one.impression_id, one.item_id) for one in finals})
    for one in run.examples:
        assert one.log_sampling_rate <= 0.0
        assert any(not math.isnan(label) for label in one.labels)


@given(
    world=arrivals(),
    policy=st.sampled_from(["wait", "fast"]),
    cut=st.integers(0, 30),
    max_pending=st.sampled_from([1, 100]),
)
def test_joiner_continues_exactly_when_loaded(
    world: tuple[list[Event], list[Event]], policy: str, cut: int, max_pending: int
) -> None:
    _, arrived = world
    whole = _run(arrived, policy, max_pending=max_pending)
    resumed = _run(arrived, policy, resume_at=cut, max_pending=max_pending)
    assert _plain(whole.examples) == _plain(resumed.examples)
    assert whole.finished == resumed.finished
    assert state_hash(whole.joiner.save()) == state_hash(resumed.joiner.save())
