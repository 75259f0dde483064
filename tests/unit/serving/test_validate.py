from __future__ import annotations

import pytest

from domain.errors import InvalidRequestError
from serving.validate import check_features, check_id, check_item_ids, check_limit, named_field
from tests.unit.serving.worlds import SCHEMA


@pytest.mark.parametrize(
    ("entity", "features", "reason"),
    [
        ("context", {"tab": "x" * 513}, "context.tab: expected at most 512 characters, got 513"),
        ("item", {"tags": ("x" * 513,)}, "item.tags: expected at most 512 characters, got 513"),
        ("item", {"tags": ("x",) * 1_001}, "item.tags: expected at most 1000 texts, got 1001"),
    ],
)
def test_features_of_no_sane_size_are_refused(entity, features, reason):
    with pytest.raises(InvalidRequestError) as caught:
        check_features(SCHEMA, entity, features, entity)
    assert str(caught.value).startswith(reason)


def test_check_limit_returns_the_default_for_0():
    assert check_limit(0, default=10, most=500) == 10
    assert check_limit(500, default=10, most=500) == 500


@pytest.mark.parametrize("limit", [-1, 501])
def test_check_limit_refuses_what_is_out_of_range(limit):
    with pytest.raises(InvalidRequestError, match=f"limit: expected 1 to 500.*got {limit}"):
        check_limit(limit, default=10, most=500)


def test_check_id_refuses_an_empty_and_an_absurdly_long_id():
    check_id("user_id", "u" * 512)
    for value in ("", "u" * 513):
        with pytest.raises(InvalidRequestError, match=r"^user_id: "):
            check_id("user_id", value)


def test_check_item_ids_names_both_places_of_a_repeated_id():
    with pytest.raises(InvalidRequestError, match=r"^item_ids\[2\]: 'a' .* item_ids\[0\]"):
        check_item_ids(["a", "b", "a"], 10)


def test_check_features_names_the_feature():
    check_features(SCHEMA, "context", {"tab": "home"}, "context")
    with pytest.raises(InvalidRequestError) as caught:
        check_features(SCHEMA, "context", {"tab": 3.0}, "events[3].feedback.context")
    assert caught.value.field == "events[3].feedback.context.tab"
    assert caught.value.reason == "expected categorical, got 3.0"


def test_named_field_keeps_colons_of_the_reason():
    error = named_field("kind: expected one of: a, b", "events[0].")
    assert (error.field, error.reason) == ("events[0].kind", "expected one of: a, b")
