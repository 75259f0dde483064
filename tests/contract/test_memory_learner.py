"""What every memory learner must keep to, whatever it remembers and however."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from domain.learners import MemoryLearner
from domain.state import state_hash
from memory.config import MemoryConfig
from memory.learner import ErrorMemoryLearner

HIDDEN_SIZE, NUM_HEADS = 12, 2

Make = Callable[[], MemoryLearner]
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_default() -> MemoryLearner:
    return ErrorMemoryLearner(MemoryConfig(), HIDDEN_SIZE, NUM_HEADS, seed=3)


def make_as_in_the_paper() -> MemoryLearner:
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


def teach(learner: MemoryLearner, batches: list[Batch], first_step: int = 0) -> None:
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
    check_memory_is_bounded,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [make_default, make_as_in_the_paper], ids=lambda m: m.__name__)
def test_memory_learner_contract(make: Make, check: Callable[[Make], None]) -> None:
    check(make)
