"""The hash collides as sign random projections must, whatever the batch around a row."""

from __future__ import annotations

import numpy as np
import pytest

from memory.hashing import SignHash, sign_codes_numpy

NO_CENTRE = np.zeros(64, np.float32)


def make_hash(num_arrays: int, num_bits: int, hidden_size: int = 64, seed: int = 0) -> SignHash:
    return SignHash(num_arrays, num_bits, hidden_size, np.random.default_rng(seed))


def test_codes_follow_the_signs_when_the_planes_are_the_axes() -> None:
    hash_ = make_hash(num_arrays=1, num_bits=3, hidden_size=3)
    hash_.use(np.eye(3, dtype=np.float32)[:, :, None])
    hidden_ND = np.array([[1, -1, 1], [-1, -1, -1], [5, 1, 1], [0, 0, 1]], np.float32)
    codes_NK = hash_.codes(hidden_ND, np.zeros(3, np.float32)).T
    assert codes_NK.tolist() == [[0b101], [0b000], [0b111], [0b001]]


def test_codes_use_the_centre_when_one_is_given() -> None:
    hash_ = make_hash(num_arrays=1, num_bits=1, hidden_size=1)
    hash_.use(np.ones((1, 1, 1), np.float32))
    hidden_ND = np.array([[1], [3]], np.float32)
    assert hash_.codes(hidden_ND, np.array([2], np.float32)).tolist() == [[0, 1]]


@pytest.mark.parametrize(("num_rows", "hidden_size"), [(1, 1), (2, 4), (7, 63), (16, 65)])
def test_codes_equal_the_plain_twin_when_sizes_are_odd(num_rows: int, hidden_size: int) -> None:
    hash_ = make_hash(5, 9, hidden_size)
    rng = np.random.default_rng(1)
    hidden_ND = rng.normal(size=(num_rows, hidden_size)).astype(np.float32)
    centre_D = rng.normal(size=hidden_size).astype(np.float32)
    expected_NK = sign_codes_numpy(hidden_ND, centre_D, hash_.planes_DLK)
    np.testing.assert_array_equal(hash_.codes(hidden_ND, centre_D).T, expected_NK)


def test_codes_are_the_same_when_the_array_is_read_only_or_strided() -> None:
    hash_ = make_hash(4, 8)
    hidden_ND = np.random.default_rng(2).normal(size=(6, 64)).astype(np.float32)
    expected_NK = hash_.codes(hidden_ND, NO_CENTRE)
    wide_ND = np.repeat(hidden_ND, 2, axis=1)
    np.testing.assert_array_equal(hash_.codes(wide_ND[:, ::2], NO_CENTRE), expected_NK)
    hidden_ND.flags.writeable = False
    np.testing.assert_array_equal(hash_.codes(hidden_ND, NO_CENTRE), expected_NK)


@pytest.mark.parametrize(
    ("cosine", "expected"), [(1.0, 1.0), (0.99, 0.478), (0.95, 0.182), (0.9, 0.084), (0.5, 0.0015)]
)
def test_codes_collide_as_often_as_theory_says_when_pairs_have_a_cosine(
    cosine: float, expected: float
) -> None:
    """(1 - arccos(cosine) / pi) ** 16; 600 pairs x 64 arrays, so about 0.003 of sampling error."""
    hash_ = make_hash(num_arrays=64, num_bits=16)
    rng = np.random.default_rng(3)
    one_ND = rng.normal(size=(600, 64))
    one_ND /= np.linalg.norm(one_ND, axis=1, keepdims=True)
    side_ND = rng.normal(size=(600, 64))
    side_ND -= (side_ND * one_ND).sum(axis=1, keepdims=True) * one_ND
    side_ND /= np.linalg.norm(side_ND, axis=1, keepdims=True)
    other_ND = cosine * one_ND + np.sqrt(1 - cosine**2) * side_ND
    rate = np.mean(
        hash_.codes(one_ND.astype(np.float32), NO_CENTRE)
        == hash_.codes(other_ND.astype(np.float32), NO_CENTRE)
    )
    assert rate == pytest.approx(expected, abs=0.012 if expected < 1 else 0)


def test_codes_differ_when_the_seed_does() -> None:
    hidden_ND = np.random.default_rng(4).normal(size=(20, 64)).astype(np.float32)
    one, same, other = make_hash(4, 12, seed=1), make_hash(4, 12, seed=1), make_hash(4, 12, seed=2)
    np.testing.assert_array_equal(one.codes(hidden_ND, NO_CENTRE), same.codes(hidden_ND, NO_CENTRE))
    assert (one.codes(hidden_ND, NO_CENTRE) != other.codes(hidden_ND, NO_CENTRE)).any()
