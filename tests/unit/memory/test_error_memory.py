"""The sketch on tiny worlds: what was written is what is read, and time makes it fade."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domain.errors import ModelError
from memory import kernels
from memory.config import MemoryConfig
from memory.sketch import Sketch

HOUR_MS = 3_600_000


def make_memory(num_heads: int = 1, **settings: Any) -> Sketch:
    chosen = {"num_arrays": 6, "num_bits": 8, "centring": "none", "prior_count": 0.0} | settings
    return Sketch(MemoryConfig(**chosen), 16, num_heads, np.random.default_rng(0))


def some_hidden(num_rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, 16)).astype(np.float32)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_read_knows_nothing_when_the_memory_is_empty() -> None:
    read = make_memory().read(some_hidden(3))
    for values_NH in (read.trust, read.mean_label, read.mean_base, read.support):
        np.testing.assert_array_equal(values_NH, np.zeros((3, 1)))


def test_empty_share_counts_the_buckets_that_hold_too_little_to_be_read() -> None:
    memory = make_memory(num_heads=2, half_life_ms=1_000, min_count=0.5)
    assert memory.empty_share == 1.0
    labels_NH = np.array([[1.0, np.nan]], np.float32)
    memory.write(some_hidden(1), np.full((1, 2), 0.25, np.float32), labels_NH, time_ms=0)
    buckets = memory.num_bytes // (12 * 2)  # of one head; its six arrays hold one example each
    assert memory.empty_share == pytest.approx(1.0 - 6 / (2 * buckets))
    memory.write(
        some_hidden(1, seed=2), np.full((1, 2), 0.25, np.float32), labels_NH, time_ms=2_000
    )
    assert memory.empty_share >= 1.0 - 6 / (2 * buckets), "the first counts a quarter by now"


@pytest.mark.parametrize("centring", ["none", "running"])
@pytest.mark.parametrize("similarity", ["density", "count", "log_count"])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_every_array_says_the_label_when_one_sample_was_written_n_times(
    centring: str, similarity: str, label: float
) -> None:
    memory = make_memory(centring=centring, similarity=similarity)
    hidden_ND = some_hidden(1)
    for _ in range(7):
        memory.write(hidden_ND, column(0.25), column(label), time_ms=0)
    read = memory.read(hidden_ND)
    assert read.support[0, 0] == 7.0  # the mean over all six arrays: every one was hit every time
    assert read.trust[0, 0] == pytest.approx(1.0)
    assert read.mean_label[0, 0] == pytest.approx(label)
    assert read.mean_base[0, 0] == pytest.approx(0.25)


def test_density_is_the_share_of_all_writes_that_share_the_bucket() -> None:
    memory = make_memory(similarity="density", num_bits=12)
    here_ND, opposite_ND = some_hidden(1), -some_hidden(1)
    for hidden_ND, times in ((here_ND, 3), (opposite_ND, 1)):
        for _ in range(times):
            memory.write(hidden_ND, column(0.5), column(1.0), time_ms=0)
    assert memory.density(here_ND)[0, 0] == pytest.approx(0.75)
    assert memory.density(opposite_ND)[0, 0] == pytest.approx(0.25)


def test_attention_prefers_the_fuller_bucket_when_tau_is_small() -> None:
    """Array 0 saw 3 zeros; array 1 saw those and a one: (0, 0, 0) against (0, 0, 0, 1)."""
    memory = make_memory(num_arrays=2, num_bits=1, similarity="count", tau=1.0)
    state = memory.save()
    state["planes"] = np.zeros((16, 1, 2), np.float32)
    state["planes"][0, 0, 0] = 1.0  # array 0 looks at coordinate 0, array 1 at coordinate 1
    state["planes"][1, 0, 1] = 1.0
    memory.load(state)
    zero_ND, one_ND = np.zeros((2, 1, 16), np.float32)
    zero_ND[0, :2] = (1, 1)
    one_ND[0, :2] = (-1, 1)
    for _ in range(3):
        memory.write(zero_ND, column(0.5), column(0.0), time_ms=0)
    memory.write(one_ND, column(0.5), column(1.0), time_ms=0)
    attention = np.exp(4.0) / (np.exp(4.0) + np.exp(3.0))
    assert memory.read(zero_ND).mean_label[0, 0] == pytest.approx(attention * 0.25)


def test_empty_buckets_are_left_out_when_others_hold_something() -> None:
    memory = make_memory(num_arrays=12, num_bits=4)
    memory.write(some_hidden(1), column(0.4), column(1.0), time_ms=0)
    near_ND = some_hidden(1) + 0.35 * some_hidden(1, seed=9)
    read = memory.read(near_ND)
    assert 0 < read.support[0, 0] < 1, "this test needs some shared and some empty buckets"
    assert read.trust[0, 0] == pytest.approx(1.0)
    assert read.mean_label[0, 0] == pytest.approx(1.0)
    assert read.mean_base[0, 0] == pytest.approx(0.4)


def test_trust_is_count_over_count_plus_prior_when_there_is_a_prior() -> None:
    memory = make_memory(prior_count=6.0)
    hidden_ND = some_hidden(1)
    for _ in range(2):
        memory.write(hidden_ND, column(0.4), column(1.0), time_ms=0)
    read = memory.read(hidden_ND)
    assert read.trust[0, 0] == pytest.approx(2 / 8)
    assert read.mean_label[0, 0] == pytest.approx(2 / 8 * 1.0)
    assert read.mean_base[0, 0] == pytest.approx(2 / 8 * 0.4)


def test_heads_are_counted_apart_when_a_label_is_unknown() -> None:
    memory = make_memory(num_heads=2)
    hidden_ND = some_hidden(1)
    base_NH = np.array([[0.2, 0.6]], np.float32)
    memory.write(hidden_ND, base_NH, np.array([[1.0, np.nan]], np.float32), time_ms=0)
    memory.write(hidden_ND, base_NH, np.array([[0.0, 1.0]], np.float32), time_ms=0)
    memory.write(hidden_ND, base_NH, np.array([[np.nan, np.nan]], np.float32), time_ms=0)
    read = memory.read(hidden_ND)
    assert read.support[0].tolist() == [2.0, 1.0]
    np.testing.assert_allclose(read.mean_label, [[0.5, 1.0]])
    np.testing.assert_allclose(read.mean_base, [[0.2, 0.6]], rtol=1e-6)


def test_old_errors_count_half_when_a_half_life_has_passed() -> None:
    memory = make_memory(half_life_ms=HOUR_MS)
    hidden_ND = some_hidden(1)
    memory.write(hidden_ND, column(0.5), column(1.0), time_ms=0)
    memory.write(hidden_ND, column(0.5), column(0.0), time_ms=2 * HOUR_MS)
    read = memory.read(hidden_ND)
    assert read.support[0, 0] == pytest.approx(1.25)
    assert read.mean_label[0, 0] == pytest.approx(0.25 / 1.25)


def test_everything_counts_the_same_when_there_is_no_half_life() -> None:
    memory = make_memory(half_life_ms=None)
    hidden_ND = some_hidden(1)
    memory.write(hidden_ND, column(0.5), column(1.0), time_ms=0)
    memory.write(hidden_ND, column(0.5), column(0.0), time_ms=10**12)
    assert memory.read(hidden_ND).support[0, 0] == 2.0


def test_time_does_not_go_back_when_an_older_write_comes() -> None:
    memory = make_memory(half_life_ms=HOUR_MS)
    hidden_ND = some_hidden(1)
    memory.write(hidden_ND, column(0.5), column(1.0), time_ms=5 * HOUR_MS)
    memory.write(hidden_ND, column(0.5), column(0.0), time_ms=0)
    assert memory.read(hidden_ND).support[0, 0] == 2.0


@pytest.mark.parametrize("passed_half_lives", [15, 16, 40, 100_000])
def test_the_memory_is_as_good_as_empty_when_many_half_lives_have_passed(
    passed_half_lives: int,
) -> None:
    memory = make_memory(half_life_ms=HOUR_MS, num_bits=12)
    old_ND, new_ND = some_hidden(1), -some_hidden(1)
    memory.write(old_ND, column(0.5), column(1.0), time_ms=0)
    memory.write(new_ND, column(0.5), column(1.0), time_ms=passed_half_lives * HOUR_MS)
    assert memory.read(old_ND).trust[0, 0] == 0.0, "below min_count a bucket is empty"
    assert memory.read(new_ND).support[0, 0] == 1.0


def test_a_bucket_stays_exact_enough_when_it_is_written_without_end() -> None:
    """Float32 stops counting at 2**24; halving a full bucket keeps it open for what is new."""
    memory = make_memory(num_arrays=1, half_life_ms=None)
    hidden_ND = np.repeat(some_hidden(1), 50_000, axis=0)
    ones, zeros = np.ones((50_000, 1), np.float32), np.zeros((50_000, 1), np.float32)
    for _ in range(20):
        memory.write(hidden_ND, ones / 2, ones, time_ms=0)
    assert memory.read(hidden_ND[:1]).support[0, 0] <= kernels.MAX_BUCKET_COUNT
    for _ in range(10):
        memory.write(hidden_ND, ones / 2, zeros, time_ms=0)
    read = memory.read(hidden_ND[:1])
    assert read.mean_label[0, 0] < 0.3, "500,000 zeros outweigh what is left of the ones"
    assert read.mean_base[0, 0] == pytest.approx(0.5, abs=1e-3)


def test_the_sketch_takes_twelve_bytes_per_bucket_and_never_grows() -> None:
    memory = make_memory(num_heads=3, num_arrays=4, num_bits=10)
    assert memory.num_bytes == 12 * 3 * 4 * 2**10
    sizes = set()
    for i in range(5):
        hidden_ND = some_hidden(200, seed=i)
        memory.write(hidden_ND, np.full((200, 3), 0.5), np.ones((200, 3)), time_ms=i * HOUR_MS)
        sizes.add(sum(memory.save()[name].nbytes for name in ("counts", "bases")))
    assert sizes == {memory.num_bytes}


def test_the_paper_s_example_takes_141_6_megabytes() -> None:
    for half_life_ms in (None, HOUR_MS):  # integers or not
        memory = make_memory(num_arrays=180, num_bits=16, half_life_ms=half_life_ms)
        assert memory.num_bytes == 12 * 180 * 2**16 == 141_557_760


def test_counts_are_integers_where_every_example_counts_one() -> None:
    memory = make_memory(half_life_ms=None)
    memory.write(some_hidden(50), np.full((50, 1), 0.5), np.ones((50, 1)), time_ms=0)
    assert memory.save()["counts"].dtype == np.int32
    assert memory.save()["counts"][..., 0].sum() == 6 * 50
    assert make_memory(half_life_ms=HOUR_MS).save()["counts"].dtype == np.float32
    with pytest.raises(ModelError, match=r"memory\.counts: expected float32 .*got int32"):
        make_memory(half_life_ms=HOUR_MS).load(memory.save())


def test_two_identical_states_always_share_every_bucket() -> None:
    memory = make_memory(num_arrays=16, num_bits=16, half_life_ms=None)
    memory.write(some_hidden(300), np.full((300, 1), 0.5), np.ones((300, 1)), time_ms=0)
    assert (memory.read(some_hidden(300)).support >= 1.0).all(), "each of 16 arrays holds it"
    assert memory.read(some_hidden(300)).trust == pytest.approx(1.0)


def test_centring_spreads_states_over_buckets_when_they_share_a_large_part() -> None:
    rng = np.random.default_rng(5)
    hidden_ND = (10.0 + rng.normal(size=(2_000, 16))).astype(np.float32)
    filled = {}
    for centring in ("none", "running"):
        memory = make_memory(centring=centring)
        for start in range(0, 2_000, 100):
            rows = hidden_ND[start : start + 100]
            memory.write(rows, np.full((100, 1), 0.5), np.ones((100, 1)), time_ms=0)
        filled[centring] = np.count_nonzero(memory.save()["counts"][..., 0])
    assert filled["running"] > 10 * filled["none"]  # usually 1382 against 33


def test_reset_forgets_everything_when_the_base_model_is_replaced() -> None:
    memory = make_memory(centring="running")
    memory.write(some_hidden(20), np.full((20, 1), 0.5), np.ones((20, 1)), time_ms=7)
    memory.reset()
    assert memory.read(some_hidden(20)).trust.max() == 0.0
    assert not memory.save()["centre"].any()


def test_the_memory_resets_itself_when_the_refresh_interval_has_passed() -> None:
    memory = make_memory(half_life_ms=None, reset_every_ms=1_000)
    hidden_ND = some_hidden(1)
    supports = []
    for time_ms in (50, 1_049, 1_050, 2_000, 2_050):
        memory.write(hidden_ND, column(0.5), column(1.0), time_ms)
        supports.append(float(memory.read(hidden_ND).support[0, 0]))
    assert supports == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_load_refuses_when_the_state_has_other_sizes() -> None:
    state = make_memory(num_bits=8).save()
    with pytest.raises(ModelError, match=r"memory\.planes: expected float32 of shape .* got "):
        make_memory(num_bits=9).load(state)
    with pytest.raises(ModelError, match=r"memory\.counts: expected float32 of shape .* got "):
        make_memory(num_heads=2).load(state)


def test_a_half_life_may_change_when_a_state_is_loaded() -> None:
    hidden_ND = some_hidden(1)
    slow = make_memory(half_life_ms=HOUR_MS)
    slow.write(hidden_ND, column(0.5), column(1.0), time_ms=0)
    slow.write(hidden_ND, column(0.5), column(1.0), time_ms=HOUR_MS)
    fast = make_memory(half_life_ms=HOUR_MS // 10)
    fast.load(slow.save())
    assert fast.read(hidden_ND).support[0, 0] == pytest.approx(1.5)
    fast.write(hidden_ND, column(0.5), column(1.0), time_ms=HOUR_MS + HOUR_MS // 10)
    assert fast.read(hidden_ND).support[0, 0] == pytest.approx(1.75)
