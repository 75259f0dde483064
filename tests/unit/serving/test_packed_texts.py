from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequestError
from serving.packed_texts import pack_texts, unpack_texts


@given(st.lists(st.text()))
def test_texts_come_back_as_they_went_in(texts):
    assert unpack_texts("ids", *pack_texts(texts)) == tuple(texts)


@given(st.binary(), st.binary())
def test_any_bytes_are_texts_or_a_named_field(data, offsets):
    try:
        texts = unpack_texts("ids", data, offsets)
    except InvalidRequestError as error:
        named = error.field
    else:
        named = "ids.data"
        assert "".join(texts).encode() == data
    assert named in ("ids.data", "ids.offsets")


@given(st.lists(st.text(), max_size=5), st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_any_offsets_cut_texts_out_or_name_the_field(texts, starts):
    data = "".join(texts).encode()
    offsets = np.array(starts, "<u4").tobytes()
    try:
        cut = unpack_texts("ids", data, offsets)
    except InvalidRequestError as error:
        named = error.field
    else:
        named = "ids.data"
        assert [len(text.encode()) for text in cut] == np.diff(starts).tolist()
    assert named in ("ids.data", "ids.offsets")


def test_a_character_cut_in_two_is_refused():
    with pytest.raises(InvalidRequestError, match=r"^ids\.data: expected UTF-8"):
        unpack_texts("ids", "ä".encode(), np.array([0, 1, 2], "<u4").tobytes())
