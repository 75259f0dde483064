from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequestError
from domain.events import Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from domain.recommendations import Recommendation, ScoredItem
from protos.headrace.v1 import events_pb2, recommender_pb2
from serving import convert, convert_answers
from stream.codec import event_to_message

EVENTS = [
    Feedback(event_id="f", time_ms=5, user_id="ann", item_id="i1", kind="click", value=2.0),
    Impression(
        event_id="s", time_ms=6, user_id="ann", items=(ShownItem(item_id="i1", position=0),)
    ),
    ItemUpdate(event_id="n", time_ms=7, item_id="i9", features={"tags": ("a",)}),
    UserUpdate(event_id="u", time_ms=8, user_id="ann", features={"age": 3.0}),
]


def request(*events) -> events_pb2.PublishRequest:
    return events_pb2.PublishRequest(events=[event_to_message(event) for event in events])


def test_events_from_request_returns_events_of_every_kind_as_they_were_sent():
    assert convert.events_from_request(request(*EVENTS), now_ms=99, max_events=4) == EVENTS


def test_events_from_request_fills_in_missing_ids_and_times():
    sent = request(*EVENTS[:2])
    for message in sent.events:
        message.event_id, message.time_ms = "", 0
    first, second = convert.events_from_request(sent, now_ms=99, max_events=4)
    assert (first.time_ms, second.time_ms) == (99, 99)
    assert len({first.event_id, second.event_id, ""}) == 3


def test_events_from_request_names_the_event_and_the_field():
    sent = request(*EVENTS)
    sent.events[3].user_update.user_id = ""
    with pytest.raises(InvalidRequestError) as caught:
        convert.events_from_request(sent, now_ms=99, max_events=4)
    assert caught.value.field == "events[3].user_update.user_id"
    sent.events[1].ClearField("impression")
    with pytest.raises(InvalidRequestError, match=r"^events\[1\].kind: expected impression"):
        convert.events_from_request(sent, now_ms=99, max_events=4)


def test_events_from_request_refuses_too_many():
    with pytest.raises(InvalidRequestError, match="events: expected at most 3, got 4"):
        convert.events_from_request(request(*EVENTS), now_ms=99, max_events=3)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(
            st.text(max_size=5),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.lists(st.text(max_size=3), max_size=3).map(tuple),
            st.lists(
                st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=3
            ).map(tuple),
        ),
        max_size=4,
    )
)
def test_features_from_message_reads_back_what_the_log_would_hold(features):
    event = UserUpdate(event_id="e", time_ms=1, user_id="u", features=features)
    wire = event_to_message(event).user_update.features
    assert convert.features_from_message("context", wire) == features


@pytest.mark.parametrize(
    "value",
    [
        events_pb2.FeatureValue(),
        events_pb2.FeatureValue(number=float("nan")),
        events_pb2.FeatureValue(number=1e300),
        events_pb2.FeatureValue(vector=events_pb2.FloatList(values=[1.0, float("inf")])),
    ],
)
def test_features_from_message_names_what_the_log_would_not_take(value):
    with pytest.raises(InvalidRequestError) as caught:
        convert.features_from_message("context", {"hour": value})
    assert caught.value.field == "context.hour"


def test_recommend_response_says_all_that_the_answer_says():
    answer = Recommendation(
        items=(ScoredItem(item_id="i1", score=0.5), ScoredItem(item_id="i2", score=0.25)),
        snapshot_id="s1",
        path="cold_start",
        impression_id="e1",
        age_ms=7,
    )
    response = convert_answers.recommend_response(answer)
    assert [(item.item_id, item.score) for item in response.items] == [("i1", 0.5), ("i2", 0.25)]
    assert response.impression_id == "e1"
    for info in (
        response.info,
        convert_answers.retrieve_response(answer).info,
        convert_answers.rank_response(answer).info,
    ):
        assert (info.snapshot_id, info.model_age_ms) == ("s1", 7)
        assert info.path == recommender_pb2.ANSWER_PATH_COLD_START


def test_lists_and_conditions_of_filters_are_limited():
    request = recommender_pb2.RecommendRequest(user_id="ann")
    request.filters.deny.extend(["i"] * 10_001)
    with pytest.raises(InvalidRequestError, match=r"^filters\.deny: expected at most 10000"):
        convert.recommend_filters(request)
    del request.filters.deny[:]
    for _ in range(33):
        request.filters.where.add(feature="tags").one_of.values.append("a")
    with pytest.raises(InvalidRequestError, match=r"^filters\.where: expected at most 32"):
        convert.recommend_filters(request)


def test_allow_list_that_is_empty_is_not_the_same_as_none():
    request = recommender_pb2.RecommendRequest(user_id="ann")
    assert convert.recommend_filters(request).allow is None
    request.filters.allow.SetInParent()
    assert convert.recommend_filters(request).allow == frozenset()
