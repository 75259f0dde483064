"""Between the full stream and its sampled negatives: what a probability means on either side."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.sampling_scale import on_sampled_scale


def test_probability_is_itself_when_nothing_was_sampled() -> None:
    given_N = np.array([0.0, 0.3, 1.0], np.float32)
    assert on_sampled_scale(given_N, 0.0) is given_N


def test_one_click_in_ten_is_one_in_two_when_a_ninth_of_the_negatives_is_kept() -> None:
    # One click and nine silences; of the nine, one is kept.
    assert on_sampled_scale(np.array([0.1], np.float32), math.log(1 / 9)) == pytest.approx([0.5])


@given(p=st.floats(0.001, 0.999), rate=st.floats(0.001, 1.0))
def test_sampled_probability_is_the_share_of_clicks_among_what_is_kept(
    p: float, rate: float
) -> None:
    expected = p / (p + (1 - p) * rate)
    sampled = on_sampled_scale(np.array([p], np.float32), math.log(rate))
    assert sampled.dtype == np.float32
    assert sampled == pytest.approx([expected], rel=1e-4)


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_certainty_stays_certainty(certain: float) -> None:
    sampled = on_sampled_scale(np.array([certain], np.float32), math.log(0.01))
    assert sampled.tolist() == [certain]
