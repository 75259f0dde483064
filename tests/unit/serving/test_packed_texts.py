from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequestError
from serving.packed_texts import pack_texts, unpack_texts

TEXTS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


@given(TEXTS)
def test_texts_come_back_as_they_went_in(texts):
    assert unpack_texts("ids", pack_texts(texts), [len(texts)]) == tuple(texts)


@given(st.binary(), st.lists(st.integers(0, 5), max_size=2))
def test_any_bytes_are_texts_or_a_named_field(data, shape):
    try:
        texts = unpack_texts("ids", data, shape)
    except InvalidRequestError as error:
        named = error.field
    else:
        named = "ids.data"
        assert (pack_texts(texts), [len(texts)]) == (data, shape)
    assert named in ("ids.data", "ids.shape")


def test_no_text_and_one_empty_text_are_told_apart():
    assert unpack_texts("ids", b"", [0]) == ()
    assert unpack_texts("ids", b"", [1]) == ("",)


@pytest.mark.parametrize("texts", [["a\0b"], ["a", "\0"], ["\0"]])
def test_text_with_a_zero_byte_is_refused(texts):
    with pytest.raises(InvalidRequestError, match=r"^answer_form: .* zero byte"):
        pack_texts(texts)
