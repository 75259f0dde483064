from __future__ import annotations

import math
from typing import Any

import pytest

from domain.errors import ConfigError, DecodeError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem
from domain.examples import JoinedExample
from domain.features import FeatureSchema, Head
from domain.state import state_hash
from stream.joiner import Joiner, JoinerConfig

SCHEMA = FeatureSchema(
    heads=(
        Head(name="click", feedback_kind="click"),
        Head(name="good", feedback_kind="rating", positive_at=4.0),
    )
)
CLICK_ONLY = FeatureSchema()
WINDOW_MS = 1_000


def _joiner(schema: FeatureSchema = SCHEMA, **config: Any) -> Joiner:
    config = {"attribution_window_ms": WINDOW_MS, "organic_negatives": 0} | config
    if config.get("policy") == "fast":
        config.setdefault("fast_delay_ms", 100)
    return Joiner(schema, JoinerConfig(**config), rng_seed=7)


def _shown(event_id: str, time_ms: int, items: str = "a", user_id: str = "ann") -> Impression:
    shown = tuple(ShownItem(item_id=item, position=at) for at, item in enumerate(items))
    return Impression(event_id=event_id, time_ms=time_ms, user_id=user_id, items=shown)


def _done(
    item_id: str, time_ms: int, impression_id: str | None = "p", kind: str = "click", **more: Any
) -> Feedback:
    more = {"value": 1.0, "user_id": "ann", "event_id": f"{item_id}{time_ms}{kind}"} | more
    return Feedback(
        item_id=item_id, time_ms=time_ms, impression_id=impression_id, kind=kind, **more
    )


def _observe(joiner: Joiner, *events: Event) -> list[JoinedExample]:
    return [example for event in events for example in joiner.observe(event)]


def _said(examples: list[JoinedExample]) -> list[tuple[str, str, tuple[str, ...], int]]:
    """Return (item, role, labels as one character each, revealed) of every example."""
    return [
        (one.item_id, one.role, tuple(_letter(label) for label in one.labels), one.revealed_ms)
        for one in examples
    ]


def _letter(label: float) -> str:
    return "?" if math.isnan(label) else str(int(label))


# --- wait -----------------------------------------------------------------------------------------


def test_item_is_a_no_when_the_window_closes_in_silence() -> None:
    joiner = _joiner()
    assert _observe(joiner, _shown("p", 0, "ab")) == []
    assert joiner.advance(999) == []
    examples = joiner.advance(1_000)
    assert _said(examples) == [("a", "final", ("0", "0"), 1_000), ("b", "final", ("0", "0"), 1_000)]
    assert [one.item_index for one in examples] == [0, 1]
    assert {one.shown_ms for one in examples} == {0}
    assert joiner.take_finished() == ["p"]


def test_item_is_settled_at_once_when_every_head_is_decided() -> None:
    joiner = _joiner()
    assert _observe(joiner, _shown("p", 0, "ab"), _done("a", 10)) == []
    examples = _observe(joiner, _done("a", 20, kind="rating", value=3.0))
    assert _said(examples) == [("a", "final", ("1", "0"), 20)]
    assert joiner.take_finished() == []  # b is still open
    assert _said(joiner.advance(5_000)) == [("b", "final", ("0", "0"), 1_000)]
    assert joiner.take_finished() == ["p"]


def test_known_no_settles_an_item_before_the_window_closes() -> None:
    joiner = _joiner(CLICK_ONLY)
    examples = _observe(joiner, _shown("p", 0), _done("a", 10, value=0.0))
    assert _said(examples) == [("a", "final", ("0",), 10)]
    assert joiner.take_finished() == ["p"]


def test_undecided_head_is_a_no_when_the_window_closes_on_a_yes() -> None:
    joiner = _joiner()
    _observe(joiner, _shown("p", 0), _done("a", 10))
    assert _said(joiner.advance(1_000)) == [("a", "final", ("1", "0"), 1_000)]


def test_window_is_open_before_its_end_and_closed_at_it() -> None:
    joiner = _joiner(CLICK_ONLY)
    _observe(joiner, _shown("p", 0, "ab"))
    assert _said(_observe(joiner, _done("a", 999), _done("b", 1_000))) == [
        ("a", "final", ("1",), 999)
    ]
    assert joiner.counts.feedback_late == 1
    assert _said(joiner.advance(1_000)) == [("b", "final", ("0",), 1_000)]


def test_feedback_is_late_when_the_watermark_has_closed_its_impression() -> None:
    joiner = _joiner(CLICK_ONLY)
    _observe(joiner, _shown("p", 0))
    joiner.advance(1_000)
    late = _done("a", 500)
    assert joiner.items_to_score(late) is None
    assert _observe(joiner, late) == []
    assert joiner.counts.feedback_late == 1


def test_repeated_feedback_changes_nothing_when_its_head_is_decided() -> None:
    joiner = _joiner(CLICK_ONLY)
    _observe(joiner, _shown("p", 0, "ab"), _done("a", 10))
    assert _observe(joiner, _done("a", 20), _done("a", 30, value=0.0)) == []
    _observe(joiner, _done("b", 40))
    assert _observe(joiner, _done("b", 50)) == []  # the whole impression is settled
    assert joiner.counts.feedback_repeated == 3
    assert joiner.counts.feedback_joined == 2


def test_repeated_impression_changes_nothing_while_open_and_when_closed() -> None:
    joiner = _joiner(CLICK_ONLY)
    _observe(joiner, _shown("p", 0))
    assert joiner.items_to_score(_shown("p", 0)) is None
    _observe(joiner, _shown("p", 0))
    assert len(joiner.advance(1_000)) == 1
    _observe(joiner, _shown("p", 0))
    assert joiner.advance(9_000) == []
    assert joiner.counts.impressions_repeated == 2


def test_late_impression_yields_no_examples_because_silence_means_nothing() -> None:
    joiner = _joiner(CLICK_ONLY)
    joiner.advance(1_000)
    late = _shown("p", 0)
    assert joiner.items_to_score(late) is None
    assert _observe(joiner, late, _done("a", 10)) == []
    assert joiner.advance(9_000) == []
    assert joiner.counts.impressions_late == 1
    assert joiner.counts.feedback_late == 1


def test_examples_come_in_order_of_due_time() -> None:
    joiner = _joiner(CLICK_ONLY)
    _observe(joiner, _shown("late", 50), _shown("b", 10), _shown("a", 10))
    assert [one.impression_id for one in joiner.advance(2_000)] == ["a", "b", "late"]


def test_oldest_impression_is_settled_early_when_too_many_wait() -> None:
    joiner = _joiner(CLICK_ONLY, max_pending=1)
    _observe(joiner, _shown("p", 0))
    joiner.advance(300)
    examples = _observe(joiner, _shown("q", 400))
    assert _said(examples) == [("a", "final", ("0",), 300)]
    assert joiner.take_finished() == ["p"]
    assert joiner.counts.impressions_settled_early == 1
    assert _observe(joiner, _done("a", 410)) == []
    assert joiner.counts.feedback_late == 1


def test_label_settled_early_is_revealed_no_earlier_than_its_feedback() -> None:
    joiner = _joiner(max_pending=1)
    _observe(joiner, _shown("p", 0), _done("a", 350))
    joiner.advance(300)
    assert _said(_observe(joiner, _shown("q", 400))) == [("a", "final", ("1", "0"), 350)]


def test_impression_shown_again_after_it_was_forgotten_has_a_window_of_its_own() -> None:
    joiner = _joiner(CLICK_ONLY, max_closed=1)
    for name in ("p", "q"):
        _observe(joiner, _shown(name, 0), _done("a", 1, name))
    _observe(joiner, _shown("p", 500))  # only q is remembered
    assert joiner.advance(1_000) == []
    assert len(joiner.advance(1_500)) == 1


def test_late_impression_is_known_to_be_late_just_after_a_restart() -> None:
    joiner, resumed = _joiner(CLICK_ONLY), _joiner(CLICK_ONLY)
    joiner.advance(1_000)
    resumed.load(joiner.save())
    assert _observe(resumed, _shown("p", 0)) == []
    assert resumed.counts.impressions_late == 1


def test_kind_without_a_head_is_counted_and_decides_nothing() -> None:
    joiner = _joiner(CLICK_ONLY)
    assert _observe(joiner, _shown("p", 0), _done("a", 10, kind="share")) == []
    assert joiner.counts.feedback_unlabelled == 1
    assert _said(joiner.advance(1_000)) == [("a", "final", ("0",), 1_000)]


def test_feedback_before_its_list_was_shown_is_revealed_when_it_was_shown() -> None:
    joiner = _joiner(CLICK_ONLY)  # two machines' clocks differ by 5 ms
    examples = _observe(joiner, _shown("p", 100), _done("a", 95))
    assert _said(examples) == [("a", "final", ("1",), 100)]


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        (_done("z", 10), "feedback.item_id: expected an item of impression 'p', got 'z'"),
        (
            _done("a", 10, user_id="bob"),
            "feedback.user_id: expected 'ann', who was shown impression 'p', got 'bob'",
        ),
    ],
)
def test_contradictory_feedback_is_refused_before_anything_changes(
    feedback: Feedback, message: str
) -> None:
    joiner = _joiner()
    _observe(joiner, _shown("p", 0, "ab"))
    before = joiner.save()
    for verb in (joiner.items_to_score, joiner.observe):
        with pytest.raises(DecodeError, match=message):
            verb(feedback)
    after = joiner.save()
    assert after.pop("counts")["feedback_contradictory"] == 2
    before.pop("counts")
    assert state_hash(after) == state_hash(before)


def test_items_to_score_are_the_items_of_an_impression() -> None:
    joiner = _joiner()
    event = Impression(
        event_id="p",
        time_ms=5,
        user_id="ann",
        items=(ShownItem(item_id="a", position=0), ShownItem(item_id="b", position=1)),
        context={"page": "home"},
    )
    demand = joiner.items_to_score(event)
    assert demand is not None
    assert (demand.impression_id, demand.user_id, demand.time_ms) == ("p", "ann", 5)
    assert demand.item_ids == ("a", "b")
    assert demand.context == {"page": "home"}
    assert not demand.organic
    _observe(joiner, event)
    assert joiner.items_to_score(_done("a", 10)) is None
    assert joiner.items_to_score(ItemUpdate(event_id="i", time_ms=1, item_id="a")) is None


# --- feedback before its impression ---------------------------------------------------------------


def test_early_feedback_is_joined_when_its_impression_comes() -> None:
    joiner = _joiner(CLICK_ONLY)
    click = _done("a", 10)
    demand = joiner.items_to_score(click)
    assert demand is not None
    assert demand.organic
    assert _observe(joiner, click) == []
    assert joiner.num_early == 1
    assert _said(_observe(joiner, _shown("p", 0, "ab"))) == [("a", "final", ("1",), 10)]
    assert joiner.take_finished() == [demand.impression_id]  # its capture is not needed
    assert joiner.num_early == 0
    assert _said(joiner.advance(5_000)) == [("b", "final", ("0",), 1_000)]
    assert joiner.counts.feedback_joined == 1
    assert joiner.counts.feedback_organic == 0


def test_early_feedback_becomes_organic_when_its_impression_never_comes() -> None:
    joiner = _joiner()
    click = _done("a", 10)
    demand = joiner.items_to_score(click)
    assert demand is not None
    _observe(joiner, click)
    assert joiner.advance(1_009) == []
    (example,) = joiner.advance(1_010)
    assert example.organic
    assert example.impression_id == demand.impression_id
    assert _said([example]) == [("a", "final", ("1", "?"), 1_010)]
    assert joiner.take_finished() == [demand.impression_id]


def test_early_no_is_orphaned_when_its_impression_never_comes() -> None:
    joiner = _joiner()
    no = _done("a", 10, value=0.0)
    assert joiner.items_to_score(no) is None
    _observe(joiner, no)
    assert joiner.advance(5_000) == []
    assert joiner.counts.feedback_orphaned == 1


def test_contradictory_early_feedback_is_set_aside_when_its_impression_comes() -> None:
    joiner = _joiner(CLICK_ONLY)
    _observe(joiner, _done("z", 10), _done("a", 11, user_id="bob"), _shown("p", 0))
    assert joiner.counts.feedback_contradictory == 2
    assert len(joiner.take_finished()) == 2
    assert _said(joiner.advance(1_000)) == [("a", "final", ("0",), 1_000)]


def test_early_feedback_is_joined_in_event_time_order() -> None:
    joiner = _joiner(CLICK_ONLY)
    yes = _done("a", 20, event_id="1")
    no = _done("a", 10, event_id="2", value=0.0)
    assert _said(_observe(joiner, yes, no, _shown("p", 0))) == [("a", "final", ("0",), 10)]


def test_earliest_due_feedback_gives_up_waiting_when_too_much_waits() -> None:
    joiner = _joiner(CLICK_ONLY, max_pending=2)
    _observe(joiner, _done("a", 30), _done("b", 10, impression_id="q"))
    (example,) = _observe(joiner, _done("c", 20, impression_id="r"))
    assert (example.item_id, example.organic, example.revealed_ms) == ("b", True, 10)
    assert joiner.num_early == 2


# --- fast -----------------------------------------------------------------------------------------


def test_silence_is_an_early_no_and_a_later_yes_corrects_it() -> None:
    joiner = _joiner(CLICK_ONLY, policy="fast")
    _observe(joiner, _shown("p", 0, "ab"))
    assert joiner.advance(99) == []
    assert _said(joiner.advance(100)) == [
        ("a", "early_negative", ("0",), 100),
        ("b", "early_negative", ("0",), 100),
    ]
    assert _said(_observe(joiner, _done("a", 500))) == [("a", "correction", ("1",), 500)]
    assert _observe(joiner, _done("a", 600)) == []
    assert joiner.take_finished() == []
    assert joiner.advance(1_000) == []
    assert joiner.take_finished() == ["p"]
    assert _observe(joiner, _done("b", 700)) == []
    assert joiner.counts.feedback_late == 1


def test_yes_before_the_delay_is_final() -> None:
    joiner = _joiner(CLICK_ONLY, policy="fast")
    _observe(joiner, _shown("p", 0, "ab"))
    assert _said(_observe(joiner, _done("a", 50))) == [("a", "final", ("1",), 50)]
    assert _said(joiner.advance(100)) == [("b", "early_negative", ("0",), 100)]


def test_each_head_is_final_or_assumed_when_only_some_are_decided() -> None:
    joiner = _joiner(policy="fast")
    _observe(joiner, _shown("p", 0), _done("a", 50))
    assert _said(joiner.advance(100)) == [
        ("a", "final", ("1", "?"), 50),
        ("a", "early_negative", ("?", "0"), 100),
    ]
    good = _done("a", 300, kind="rating", value=5.0)
    assert _said(_observe(joiner, good)) == [("a", "correction", ("?", "1"), 300)]
    assert joiner.take_finished() == ["p"]  # nothing is left to decide


def test_known_no_after_an_early_no_says_nothing_new() -> None:
    joiner = _joiner(CLICK_ONLY, policy="fast")
    _observe(joiner, _shown("p", 0))
    joiner.advance(100)
    assert _observe(joiner, _done("a", 300, value=0.0)) == []
    assert joiner.take_finished() == ["p"]


def test_early_no_is_said_at_once_when_too_many_wait() -> None:
    joiner = _joiner(CLICK_ONLY, policy="fast", max_pending=1)
    examples = _observe(joiner, _shown("p", 0), _shown("q", 10))
    assert _said(examples) == [("a", "early_negative", ("0",), 0)]
    joiner.advance(110)
    assert _observe(joiner, _shown("r", 200)) == []  # q had its early no
    assert joiner.take_finished() == ["p", "q"]


# --- organic --------------------------------------------------------------------------------------


def test_organic_yes_has_negatives_that_were_asked_to_be_scored() -> None:
    joiner = _joiner(organic_negatives=2)
    _observe(joiner, _shown("p", 0, "abcde"))
    click = _done("a", 10, impression_id=None)
    demand = joiner.items_to_score(click)
    assert demand is not None
    assert demand.organic
    assert demand == joiner.items_to_score(click)
    assert demand.item_ids[0] == "a"
    examples = _observe(joiner, click)
    assert tuple(one.item_id for one in examples) == demand.item_ids
    assert [one.item_index for one in examples] == [0, 1, 2]
    assert {one.impression_id for one in examples} == {demand.impression_id}
    assert [_letter(one.labels[0]) for one in examples] == ["1", "0", "0"]
    assert all(math.isnan(one.labels[1]) for one in examples)
    assert {one.log_sampling_rate for one in examples} == {math.log(2 / 4)}
    assert {(one.shown_ms, one.revealed_ms) for one in examples} == {(10, 10)}
    assert joiner.take_finished() == [demand.impression_id]


def test_asking_what_to_score_changes_nothing() -> None:
    asked, plain = (_joiner(organic_negatives=2) for _ in range(2))
    for joiner in (asked, plain):
        _observe(joiner, _shown("p", 0, "abcdefgh"))
    for time_ms in range(20, 40):
        asked.items_to_score(_done("b", time_ms, impression_id=None))
    assert state_hash(asked.save()) == state_hash(plain.save())
    click = _done("a", 50, impression_id=None)
    assert [one.item_id for one in asked.observe(click)] == [
        one.item_id for one in plain.observe(click)
    ]


def test_negatives_are_drawn_anew_when_something_was_observed_since_they_were_asked_for() -> None:
    asked, plain = (_joiner(organic_negatives=2) for _ in range(2))
    click, more = _done("a", 10, impression_id=None), _shown("q", 5, "fghijklmn")
    asked.items_to_score(click)
    assert [one.item_id for one in _observe(asked, more, click)] == [
        one.item_id for one in _observe(plain, more, click)
    ]


def test_organic_no_is_an_example_without_negatives() -> None:
    joiner = _joiner(organic_negatives=2)
    _observe(joiner, _shown("p", 0, "abcde"))
    bad = _done("a", 10, impression_id=None, kind="rating", value=2.0)
    demand = joiner.items_to_score(bad)
    assert demand is not None
    assert demand.item_ids == ("a",)
    (example,) = _observe(joiner, bad)
    assert _said([example]) == [("a", "final", ("?", "0"), 10)]
    assert example.log_sampling_rate == 0.0


def test_organic_feedback_of_an_unknown_kind_asks_for_nothing() -> None:
    joiner = _joiner()
    share = _done("a", 10, impression_id=None, kind="share")
    assert joiner.items_to_score(share) is None
    assert _observe(joiner, share) == []
    assert joiner.counts.feedback_unlabelled == 1


# --- bounds and configuration ---------------------------------------------------------------------


def test_memory_is_bounded_when_the_stream_goes_on() -> None:
    joiner = _joiner(CLICK_ONLY, max_pending=20, max_closed=30, max_items=10, max_users=5)
    for number in range(3_000):
        shown = _shown(f"p{number}", number, "ab", user_id=f"u{number}")
        _observe(joiner, shown)
        for item in "ab":  # settled by feedback: nothing waits for the watermark
            _observe(joiner, _done(item, number, shown.event_id, user_id=shown.user_id))
        _observe(joiner, _done(f"i{number}", number, f"never{number}", user_id=shown.user_id))
    assert joiner.num_pending == 0
    assert joiner.num_early == 20
    state = joiner.save()
    assert len(state["closed"]) == 30
    assert len(state["sampler"]["items"]) == 10
    assert len(state["sampler"]["users"]) == 5
    assert len(joiner._due) < 1_100
    assert len(joiner._early._due) < 1_100


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"policy": "slow"}, r"^joiner\.policy must be 'wait' or 'fast', got 'slow'"),
        ({"attribution_window_ms": 0}, r"^joiner\.attribution_window_ms must be positive, got 0"),
        ({"organic_negatives": -1}, r"^joiner\.organic_negatives must be at least 0, got -1"),
        ({"max_pending": 0}, r"^joiner\.max_pending must be positive, got 0"),
        (
            {"policy": "fast", "fast_delay_ms": 100, "attribution_window_ms": 100},
            r"^joiner\.fast_delay_ms must be less than attribution_window_ms",
        ),
    ],
)
def test_config_names_the_key_when_out_of_range(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JoinerConfig(**config)
