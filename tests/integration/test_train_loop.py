"""The loop, real parts on tiny worlds: nothing of the future, each label once, any restart."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from domain.errors import DecodeError, SchemaError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from domain.features import FeatureSchema
from domain.state import State, state_hash
from replay.scenarios import Noise
from stream.checkpoint import states_of
from stream.label_heads import LabelHeads
from stream.observer import Demand, Measured
from stream.sampling_scale import on_sampled_scale
from stream.train_loop import TrainLoop, TrainLoopConfig
from tests.loop_trace import Trace, score_bytes, traced_loop
from tests.loop_worlds import (
    everything_of,
    hashes_of,
    lead,
    live_quality,
    make_loop,
    restored,
    tiny_settings,
    tiny_world,
    with_organic,
)

WINDOW_MS = 360_000
POLICIES = ("wait", "fast")
NOISE = Noise(duplicate_rate=0.1, late_rate=0.03, late_by_ms=600_000, disorder_ms=5_000)

Label = tuple[str, int, int, float]
"""Impression, item index, head and what was settled."""


def _finished(loop: TrainLoop, events: Iterable[Event]) -> TrainLoop:
    lead(loop, events).finish()
    return loop


def _labels(measured: Iterable[Measured]) -> list[Label]:
    return [
        (one.example.impression_id, one.example.item_index, head, label)
        for one in measured
        for head, label in enumerate(one.example.labels)
        if not math.isnan(label)
    ]


def _true_labels(schema: FeatureSchema, events: Iterable[Event]) -> list[Label]:
    """What a log in order says: yes where feedback came within the window, no everywhere else."""
    heads, shown, yes = LabelHeads(schema), {}, set()
    for event in events:
        if isinstance(event, Impression):
            shown[event.event_id] = event
        elif isinstance(event, Feedback) and event.impression_id is not None:
            impression = shown[event.impression_id]
            _, positive = heads.decide(event.kind, event.value)
            if event.time_ms - impression.time_ms < WINDOW_MS:
                ids = [item.item_id for item in impression.items]
                index = ids.index(event.item_id)
                yes |= {
                    (event.impression_id, index, head)
                    for head in range(heads.num_heads)
                    if positive >> head & 1
                }
    return [
        (impression_id, index, head, float((impression_id, index, head) in yes))
        for impression_id, impression in shown.items()
        for index in range(len(impression.items))
        for head in range(heads.num_heads)
    ]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished replay of 70 lists; every third piece of feedback is organic."""

    schema: FeatureSchema
    events: list[Event]
    loop: TrainLoop
    trace: Trace


@pytest.fixture(scope="module", params=POLICIES)
def run(request: pytest.FixtureRequest) -> Run:
    schema, events = tiny_world(70)
    events = with_organic(events)
    loop, trace = traced_loop(schema, tiny_settings(f"joiner.policy={request.param}"))
    _finished(loop, events)
    return Run(schema, events, loop, trace)


# What a prediction may know


@pytest.mark.parametrize("policy", POLICIES)
def test_request_is_captured_before_its_event_changes_anything(policy: str) -> None:
    schema, events = tiny_world(25)
    events = with_organic(events, every=2)
    loop, trace = traced_loop(schema, tiny_settings(f"joiner.policy={policy}"))
    parts, seen = loop.parts, []

    def state() -> str:
        known = (parts.joiner, parts.feature_store, parts.batcher, parts.ranking, parts.memory)
        return state_hash({str(at): part.save() for at, part in enumerate(known)})

    def compare(demand: Demand) -> None:
        seen.append((demand.impression_id, state() == before))

    trace.when_asked = compare
    for event in events:
        before = state()
        loop.process(event)
    assert len(seen) > 30
    assert [name for name, same in seen if not same] == []
    assert any(name.startswith("organic:") for name, _ in seen)


def _where_something_waits_to_be_scored(schema: FeatureSchema, events: list[Event]) -> int:
    loop, trace = traced_loop(schema)
    for at, event in enumerate(events):
        loop.process(event)
        if at > len(events) // 2 and len(trace.scores) < len(trace.captures):
            return at + 1
    raise AssertionError("everything was scored at once")


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_shown_before_a_moment_is_scored_the_same_whatever_comes_after(
    policy: str,
) -> None:
    schema, events = tiny_world(50)
    _, others = tiny_world(50, seed=2)
    settings = tiny_settings(f"joiner.policy={policy}")
    cut = _where_something_waits_to_be_scored(schema, events)
    moment_ms = events[cut].time_ms
    futures = [events[cut:], [event for event in others if event.time_ms >= moment_ms]]
    traces = []
    for future in futures:
        loop, trace = traced_loop(schema, settings)
        lead(loop, events[:cut])
        shown = dict(trace.captures)
        assert len(trace.scores) < len(shown)
        _finished(loop, future)
        traces.append((trace, shown))

    (one, shown), (other, shown_there) = traces
    assert one.learned != other.learned  # the futures differ
    assert shown == shown_there
    scores, there = dict(one.scores), dict(other.scores)
    for captured in shown.values():  # those scored after the moment too
        assert score_bytes(scores[captured]) == score_bytes(there[captured])


def test_labels_revealed_later_cannot_change_what_is_learned_from(run: Run) -> None:
    trace = run.trace
    learned = [capture for batch in trace.learned for capture in batch]
    assert len(learned) > 60
    assert set(learned) <= set(trace.captures.values())
    assert set(learned) <= {capture for capture, _ in trace.scores}


def test_retrieval_learns_an_action_from_the_history_before_it() -> None:
    loop, trace = traced_loop(FeatureSchema())
    for at, item_id in enumerate("abc"):
        click = Feedback(
            event_id=item_id, time_ms=1_000_000 + at, user_id="ann", item_id=item_id, kind="click"
        )
        loop.process(click)
    loop.finish()
    learned = [(one.item_id, one.user.history.item_ids) for one in trace.actions]
    assert learned == [("a", ()), ("b", ("a",)), ("c", ("a", "b"))]


def test_loop_predicts_then_measures_then_learns(run: Run) -> None:
    letters = {
        "ranking.capture": "c",
        "on_demand": "d",
        "ranking.observe": "o",
        "retrieval.observe_item": "i",
        "ranking.predict": "p",
        "scored": "s",
        "memory.read_errors": "r",
        "memory.compensate": "m",
        "retrieval.target_ranks": "t",
        "on_measured": "M",
        "on_ranks": "R",
        "memory.learn": "w",
        "ranking.learn": "L",
        "retrieval.learn": "T",
        "on_forget": "f",
        "on_step": ".",
    }
    story = "".join(letters[call] for call in run.trace.calls)
    assert re.fullmatch(r"((cd|o|i)*(ps+rm)?tMRw?LTf\.)+", story)
    steps = story.split(".")
    assert len(steps) > 10
    # Everything shown since the last step is scored, once, before anything is learned.
    assert [step for step in steps if step.count("c") != step.count("s")] == []


# What is measured


def test_each_label_is_measured_once_as_it_was_settled(run: Run) -> None:
    truth = _true_labels(run.schema, run.events)
    assert sum(label for *_, label in truth) > 50
    real = [one for one in run.trace.measured if not one.example.organic]
    assert sorted(_labels(real)) == sorted(truth)
    corrections = [one for one in run.trace.examples if one.role == "correction"]
    is_fast = any(one.role == "early_negative" for one in run.trace.examples)
    assert (len(corrections) > 5) == is_fast


def test_measured_score_is_what_was_said_before_the_label(run: Run) -> None:
    said = dict(run.trace.scores)
    for one in run.trace.measured:
        example = one.example
        scores = said[run.trace.captures[example.impression_id]]
        base_H = scores.probabilities[example.item_index]
        expected_H = on_sampled_scale(base_H, example.log_sampling_rate)
        assert one.base_H.tobytes() == expected_H.tobytes()


def test_sampled_feedback_is_measured_among_its_negatives_and_never_taught_to_the_memory(
    run: Run,
) -> None:
    trace = run.trace
    organic = [one for one in trace.measured if one.example.organic]
    sampled = [one for one in organic if one.example.log_sampling_rate < 0.0]
    assert len(sampled) > 100
    said = dict(trace.scores)
    for one in sampled:
        scores = said[trace.captures[one.example.impression_id]]
        # Among the negatives that were kept a click is more likely than among all.
        assert (one.base_H > scores.probabilities[one.example.item_index]).all()
    assert sum(trace.rows_taught) == len(trace.measured) - len(organic) > 0


def test_nothing_is_left_when_a_replay_has_finished(run: Run) -> None:
    stream = run.loop.save()
    assert stream["pending"]["rows"] == []
    assert stream["positives"]["rows"] == []
    assert stream["batcher"]["examples"] == []
    assert stream["settlement"]["finished"] == stream["settlement"]["settled_early"] == []
    assert sorted(run.trace.forgotten) == sorted(run.trace.captures)
    assert run.loop.counts.demands == len(run.trace.captures)
    assert run.loop.counts.examples == len(run.trace.examples)


def test_early_negatives_of_the_last_lists_are_measured_at_the_end_of_a_replay() -> None:
    items = tuple(ShownItem(item_id=name, position=at) for at, name in enumerate("ab"))
    first = Impression(event_id="first", time_ms=1_000_000, user_id="ann", items=items)
    later = UserUpdate(event_id="later", time_ms=1_100_000, user_id="ann")
    much_later = UserUpdate(event_id="much later", time_ms=1_200_000, user_id="ann")
    settings = tiny_settings("joiner.policy=fast", "batcher.linger_ms=1_000")
    loop, trace = traced_loop(FeatureSchema(), settings)
    lead(loop, [first, later, much_later])
    assert [example.role for example in trace.examples] == ["early_negative", "early_negative"]
    assert len(trace.learned) == 1
    assert trace.measured == []  # a correction may still come
    loop.finish()
    assert _labels(trace.measured) == [("first", 0, 0, 0.0), ("first", 1, 0, 0.0)]
    assert trace.forgotten == ["first"]


def test_requests_are_forgotten_although_examples_always_wait() -> None:
    """One odd example at the start, and the batcher is never empty at the end of a step."""
    settings = tiny_settings(
        "batcher.max_examples=2",
        "batcher.linger_ms=3_600_000",
        "joiner.attribution_window_ms=30_000",
        "watermark.allowed_lateness_ms=0",
    )
    loop, trace = traced_loop(FeatureSchema(), settings)
    for number in range(100):
        names = "abc" if number == 0 else "ab"
        loop.process(
            Impression(
                event_id=f"p{number}",
                time_ms=1_000_000 + 10_000 * number,
                user_id="ann",
                items=tuple(ShownItem(item_id=name, position=at) for at, name in enumerate(names)),
            )
        )
        assert len(loop.save()["pending"]["rows"]) <= 6
    assert len(trace.forgotten) > 90


# What changes nothing


def _repeated(events: list[Event], seed: int) -> list[Event]:
    """Every third event twice, some at once, some up to fifty events later."""
    rng = np.random.default_rng(seed)
    places = [(float(at), event) for at, event in enumerate(events)]
    for at, event in enumerate(events):
        if rng.random() < 1 / 3:
            places.append((at + float(rng.choice([0.5, 3.5, 50.5])), event))
    return [event for _, event in sorted(places, key=lambda place: place[0])]


@pytest.mark.parametrize("policy", POLICIES)
def test_repeated_events_change_nothing_but_their_count(policy: str) -> None:
    schema, events = tiny_world(50)
    events = with_organic(events)
    settings = tiny_settings(f"joiner.policy={policy}")
    again = _repeated(events, seed=5)
    once = lead(make_loop(schema, settings), events)
    twice = lead(make_loop(schema, settings), again)
    assert twice.counts.duplicates == len(again) - len(events) > 20
    twice.counts.duplicates = 0
    assert hashes_of(twice) == hashes_of(once)


def _shown(events: list[Event]) -> Impression:
    """The last list, whose labels are still awaited."""
    return [event for event in events if isinstance(event, Impression)][-1]


def _contradictions(events: list[Event]) -> dict[str, Event]:
    shown = _shown(events)
    answer = Feedback(
        event_id="odd",
        time_ms=shown.time_ms + 1,
        user_id=shown.user_id,
        item_id=shown.items[0].item_id,
        kind="click",
        impression_id=shown.event_id,
    )
    late_ms = shown.time_ms + 50_000
    tab = {"tab": "home"}
    return {
        "item that was not shown": replace(answer, item_id="never-shown"),
        "user it was not shown to": replace(answer, user_id="somebody-else"),
        "unknown context of feedback": replace(answer, context=tab),
        "unknown context of a list": replace(shown, event_id="odd", time_ms=late_ms, context=tab),
        "number for a category": ItemUpdate(
            event_id="odd", time_ms=late_ms, item_id="i1", features={"category": 3.0}
        ),
        "vector of another length": ItemUpdate(
            event_id="odd", time_ms=late_ms, item_id="i1", features={"content": (1.0,)}
        ),
        "unknown user field": UserUpdate(
            event_id="odd", time_ms=late_ms, user_id="u1", features={"age": 3.0}
        ),
    }


def _without_contradictions_counted(loop: TrainLoop) -> dict[str, State]:
    states = everything_of(loop)
    states["stream"]["joiner"]["counts"]["feedback_contradictory"] = 0
    return states


def test_event_that_contradicts_what_is_known_changes_nothing_but_a_count() -> None:
    schema, events = tiny_world(50)
    events = events[:130]
    loop = lead(make_loop(schema), events)
    before = state_hash(_without_contradictions_counted(loop))
    contradictions = _contradictions(events)
    for what, event in contradictions.items():
        with pytest.raises((DecodeError, SchemaError)):
            loop.process(event)
        assert state_hash(_without_contradictions_counted(loop)) == before, what
    assert loop.parts.joiner.counts.feedback_contradictory == 2
    assert loop.counts.events == len(events)


def test_contradiction_does_not_use_up_its_event_id() -> None:
    schema, events = tiny_world(50)
    events = events[:130]
    loop = lead(make_loop(schema), events)
    odd = _contradictions(events)["item that was not shown"]
    with pytest.raises(DecodeError, match=r"^feedback\.item_id: expected an item of impression"):
        loop.process(odd)
    loop.process(replace(odd, item_id=_shown(events).items[0].item_id))
    assert loop.counts.duplicates == 0
    assert loop.counts.events == len(events) + 1


# Any restart, any seed


@pytest.mark.parametrize("policy", POLICIES)
def test_restored_loop_goes_on_as_if_nothing_had_happened(policy: str) -> None:
    schema, events = tiny_world(70, noise=NOISE)
    events = with_organic(events)
    # With masked forwards the ranker, too, has a generator whose state must come back.
    settings = tiny_settings(f"joiner.policy={policy}", "ranking.adaf2m2.masked_forwards=1")

    def fresh() -> TrainLoop:
        return make_loop(schema, settings, (live_quality(schema, settings),))

    untouched = fresh()
    cuts = {50: {}, 121: {}, 172: {}}
    for at, event in enumerate(events):
        if at in cuts:
            # Not copied: what a state holds must not move when its owner goes on.
            cuts[at] = states_of(untouched)
        untouched.process(event)
    expected = hashes_of(untouched)
    assert untouched.counts.duplicates > 0 < untouched.counts.late
    for at, states in cuts.items():
        again = restored(fresh(), states)
        assert hashes_of(again) == {name: state_hash(state) for name, state in states.items()}
        assert hashes_of(lead(again, events[at:])) == expected
    waiting = [states["stream"] for states in cuts.values()]
    assert any(stream["pending"]["unscored"] for stream in waiting)
    assert any(stream["positives"]["rows"] for stream in waiting)
    assert any(stream["batcher"]["examples"] for stream in waiting)
    if policy == "fast":
        assert any(row["early"] for stream in waiting for row in stream["pending"]["rows"])


def test_loop_restored_over_another_life_forgets_that_life() -> None:
    schema, events = tiny_world(50)
    _, others = tiny_world(50, seed=2)
    cut = 100
    states = everything_of(lead(make_loop(schema), events[:cut]))
    other_life = lead(make_loop(schema), others[:100])
    expected = hashes_of(lead(make_loop(schema), events))
    assert hashes_of(lead(restored(other_life, states), events[cut:])) == expected


def test_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    schema, events = tiny_world(30)
    events = with_organic(events)
    runs = [
        hashes_of(_finished(make_loop(schema, tiny_settings(f"seed={seed}")), events))
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    for name in ("ranking", "memory", "retrieval", "stream"):
        assert runs[0][name] != runs[2][name], name


def test_observers_watch_and_change_nothing() -> None:
    schema, events = tiny_world(30)
    settings = tiny_settings()
    alone = hashes_of(_finished(make_loop(schema, settings), events))
    watched = make_loop(schema, settings, (live_quality(schema, settings), Trace()))
    together = hashes_of(_finished(watched, events))
    for name in ("ranking", "memory", "retrieval"):
        assert together[name] == alone[name]


# When a step is taken


def test_positive_actions_make_a_step_even_when_too_few_examples_wait() -> None:
    schema, events = tiny_world(50)
    settings = tiny_settings("train_loop.max_positives=5", "batcher.linger_ms=36_000_000")
    loop = lead(make_loop(schema, settings), events[:120])
    clicks = sum(isinstance(e, Feedback) and e.kind == "click" for e in events[:120])
    assert loop.counts.steps >= clicks // 5 > 2
    assert len(loop.save()["positives"]["rows"]) < 5


def test_step_with_nothing_waiting_does_no_harm() -> None:
    schema, events = tiny_world(30)
    loop = make_loop(schema)
    loop.step()
    lead(loop, events).finish()
    learned = {name: hashes_of(loop)[name] for name in ("ranking", "memory", "retrieval")}
    loop.step()
    assert {name: hashes_of(loop)[name] for name in learned} == learned


def test_absurdly_large_numbers_do_not_stop_the_loop() -> None:
    schema, events = tiny_world(50)
    huge = [
        replace(event, features={**event.features, "content": (1e37, -1e37, 0.0, 1e-37)})
        if isinstance(event, ItemUpdate) and at % 3 == 0
        else event
        for at, event in enumerate(events)
    ]
    loop, trace = traced_loop(schema)
    _finished(loop, huge)
    assert len(trace.measured) > 200
    assert all(np.isfinite(one.compensated_H).all() for one in trace.measured)


@pytest.mark.parametrize("value", [0, -1])
def test_config_names_the_key_when_out_of_range(value: int) -> None:
    with pytest.raises(ValueError, match=r"^train_loop\.max_positives must be at least 1, got"):
        TrainLoopConfig(max_positives=value)
