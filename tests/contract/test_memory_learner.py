"""What every memory learner must keep to, whatever it remembers and however."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from domain.state import state_hash
from memory.config import MemoryConfig, NeighboursConfig
from memory.learner import ErrorMemoryLearner

HIDDEN_SIZE, NUM_HEADS = 12, 2

Make = Callable[[], ErrorMemoryLearner]
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_default() -> ErrorMemoryLearner:
    return ErrorMemoryLearner(MemoryConfig(), HIDDEN_SIZE, NUM_HEADS, seed=3)


def make_as_in_the_paper() -> ErrorMemoryLearner:
    config = MemoryConfig(
        centring="none",
        half_life_ms=None,
        reset_every_ms=60_000,
        similarity="density",
        tau=0.1,
        gamma=1.0,
        prior_count=0.0,
    )
    return ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed=3)


def make_counting() -> ErrorMemoryLearner:
    """Nothing decays: counts are integers."""
    config = MemoryConfig(half_life_ms=None, lambda_rule="shares")
    return ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed=3)


def make_neighbours() -> ErrorMemoryLearner:
    config = MemoryConfig(kind="neighbours", neighbours=NeighboursConfig(window=1_000))
    return ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed=3)


def make_thinned_neighbours() -> ErrorMemoryLearner:
    """As the paper has them, and with fewer than all examples kept."""
    window = NeighboursConfig(window=500, count=16, min_error=0.1, keep_rate=0.5)
    config = MemoryConfig(
        kind="neighbours",
        centring="none",
        half_life_ms=None,
        gamma=1.0,
        prior_count=0.0,
        lambda_rule="shares",
        neighbours=window,
    )
    return ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed=3)


MAKERS = [
    make_default,
    make_as_in_the_paper,
    make_counting,
    make_neighbours,
    make_thinned_neighbours,
]


def stream(num_batches: int, seed: int = 0) -> list[Batch]:
    """Return batches in which the base says 0.2 and the truth is 0.9 on one side of the space."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(num_batches):
        hidden_ND = rng.normal(size=(60, HIDDEN_SIZE)).astype(np.float32)
        base_NH = np.full((60, NUM_HEADS), 0.2, np.float32)
        rate_N1 = np.where(hidden_ND[:, :1] > 0, 0.9, 0.2)
        labels_NH = (rng.random((60, NUM_HEADS)) < rate_N1).astype(np.float32)
        labels_NH[rng.random((60, NUM_HEADS)) < 0.1] = np.nan
        batches.append((hidden_ND, base_NH, labels_NH))
    return batches


def teach(learner: ErrorMemoryLearner, batches: list[Batch], first_step: int = 0) -> None:
    for step, batch in enumerate(batches, start=first_step):
        learner.learn(*batch, time_ms=step * 1_000)


def check_compensates_before_the_first_learn(make: Make) -> None:
    hidden_ND, base_NH, _ = stream(1)[0]
    assert make().compensate(hidden_ND, base_NH).tobytes() == base_NH.tobytes()
    assert not make().read_errors(hidden_ND, base_NH).any()


def check_compensation_helps_where_the_base_is_wrong(make: Make) -> None:
    learner = make()
    teach(learner, stream(60))
    hidden_ND, base_NH, _ = stream(1, seed=1)[0]
    score_NH = learner.compensate(hidden_ND, base_NH)
    wrong_N = hidden_ND[:, 0] > 0
    assert score_NH[wrong_N].mean() > 0.35
    assert score_NH[wrong_N].mean() > score_NH[~wrong_N].mean() + 0.1


def check_compensating_changes_nothing(make: Make) -> None:
    learner = make()
    teach(learner, stream(60))
    before = state_hash(learner.save())
    hidden_ND, base_NH, _ = stream(1, seed=1)[0]
    kept = hidden_ND.copy(), base_NH.copy()
    first_NH = learner.compensate(hidden_ND, base_NH)
    np.testing.assert_array_equal(first_NH, learner.compensate(hidden_ND, base_NH))
    np.testing.assert_array_equal(hidden_ND, kept[0])
    np.testing.assert_array_equal(base_NH, kept[1])
    assert state_hash(learner.save()) == before


def check_keeps_no_reference_to_its_input(make: Make) -> None:
    learner = make()
    batches = stream(3)
    teach(learner, batches)
    hidden_ND, base_NH, _ = stream(1, seed=1)[0]
    score_NH = learner.compensate(hidden_ND, base_NH)
    before = state_hash(learner.save())
    for array in (*batches[0], *batches[1], *batches[2], hidden_ND, base_NH, score_NH):
        array[:] = 0.123
    assert state_hash(learner.save()) == before


def check_state_is_a_copy_both_ways(make: Make) -> None:
    learner, restored = make(), make()
    teach(learner, stream(5))
    state = learner.save()
    hash_before = state_hash(state)
    teach(learner, stream(5, seed=1), first_step=5)
    assert state_hash(state) == hash_before
    restored.load(state)
    teach(restored, stream(5, seed=2), first_step=5)
    assert state_hash(state) == hash_before


def check_goes_on_bit_for_bit_after_load(make: Make) -> None:
    learner, restored = make(), make()
    teach(learner, stream(20))
    teach(restored, stream(2, seed=9))
    restored.load(learner.save())
    for one in (learner, restored):
        teach(one, stream(20, seed=1), first_step=20)
    assert state_hash(learner.save()) == state_hash(restored.save())


def check_seeded_runs_repeat(make: Make) -> None:
    one, other = make(), make()
    for learner in (one, other):
        teach(learner, stream(20))
    assert state_hash(one.save()) == state_hash(other.save())


def check_a_batch_is_scored_as_its_rows_are(make: Make) -> None:
    learner = make()
    teach(learner, stream(60))
    hidden_ND, base_NH, _ = stream(1, seed=1)[0]
    rows = [
        learner.compensate(hidden_ND[n : n + 1], base_NH[n : n + 1]) for n in range(len(base_NH))
    ]
    np.testing.assert_array_equal(learner.compensate(hidden_ND, base_NH), np.concatenate(rows))


def check_unknown_labels_teach_nothing(make: Make) -> None:
    learner = make()
    teach(learner, stream(5))
    before = state_hash(learner.save())
    hidden_ND, base_NH, labels_NH = stream(1, seed=1)[0]
    learner.learn(hidden_ND, base_NH, np.full_like(labels_NH, np.nan), time_ms=5_000)
    assert state_hash(learner.save()) == before


def check_never_reads_its_own_write(make: Make) -> None:
    """With errors read just before, `learn` must end where it ends when it reads them itself."""
    one, other = make(), make()
    for step, (hidden_ND, base_NH, labels_NH) in enumerate(stream(40)):
        errors_NH = other.read_errors(hidden_ND, base_NH)
        one.learn(hidden_ND, base_NH, labels_NH, step)
        other.learn(hidden_ND, base_NH, labels_NH, step, errors_NH=errors_NH)
    assert state_hash(one.save()) == state_hash(other.save())


def check_an_empty_batch_is_welcome(make: Make) -> None:
    learner = make()
    teach(learner, stream(60))
    hidden_ND, base_NH, labels_NH = (array[:0] for array in stream(1)[0])
    learner.learn(hidden_ND, base_NH, labels_NH, time_ms=10**6)
    assert learner.compensate(hidden_ND, base_NH).shape == (0, NUM_HEADS)


def check_without_other_values_lambda_stays_zero(make: Make) -> None:
    """However wrong the base is: with 0 alone in the grid it is reproduced, to the bit."""
    learner = make()
    config = replace(learner.config, lambda_grid=(0.0,))
    learner = ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed=3)
    teach(learner, stream(60))
    hidden_ND, base_NH, _ = stream(1, seed=1)[0]
    assert learner.read_errors(hidden_ND, base_NH).any()
    assert learner.compensate(hidden_ND, base_NH).tobytes() == base_NH.tobytes()


def check_one_sample_written_often_is_what_is_read(make: Make) -> None:
    learner = make()
    hidden_ND = stream(1)[0][0][:1]
    base_NH, labels_NH = np.full((2, 1, NUM_HEADS), 0.2, np.float32)
    labels_NH[:] = 1.0
    for _ in range(400):
        learner.learn(hidden_ND, base_NH, labels_NH, 0)
    np.testing.assert_allclose(learner.read_errors(hidden_ND, base_NH), 0.8, atol=0.15)


def check_written_again_after_a_reset_says_the_same(make: Make) -> None:
    """As long as no centre moves in between: one batch, so that both have the same mean."""
    learner, other = make(), make()
    hidden_ND, base_NH, labels_NH = stream(1)[0]
    learner.learn(hidden_ND, base_NH, labels_NH, 60_000)
    other.learn(hidden_ND, base_NH, labels_NH, 60_000)
    learner.reset()
    assert not learner.read_errors(hidden_ND, base_NH).any()
    learner.rewrite(hidden_ND, base_NH, labels_NH, np.full(len(base_NH), 60_000))
    ours, theirs = (one.read_errors(hidden_ND, base_NH) for one in (learner, other))
    if learner.config.neighbours.keep_rate == 1.0:  # else other ones are kept
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert ours.any()


def check_memory_is_bounded(make: Make) -> None:
    learner = make()
    sizes = set()
    for part in range(4):
        teach(learner, stream(30, seed=part), first_step=30 * part)
        sizes.add(sum(a.nbytes for a in learner.save()["memory"].values() if hasattr(a, "nbytes")))
    assert len(sizes) == 1


CHECKS = [
    check_compensates_before_the_first_learn,
    check_compensation_helps_where_the_base_is_wrong,
    check_compensating_changes_nothing,
    check_keeps_no_reference_to_its_input,
    check_state_is_a_copy_both_ways,
    check_goes_on_bit_for_bit_after_load,
    check_seeded_runs_repeat,
    check_a_batch_is_scored_as_its_rows_are,
    check_unknown_labels_teach_nothing,
    check_never_reads_its_own_write,
    check_an_empty_batch_is_welcome,
    check_without_other_values_lambda_stays_zero,
    check_one_sample_written_often_is_what_is_read,
    check_written_again_after_a_reset_says_the_same,
    check_memory_is_bounded,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__)
def test_memory_learner_contract(make: Make, check: Callable[[Make], None]) -> None:
    check(make)
