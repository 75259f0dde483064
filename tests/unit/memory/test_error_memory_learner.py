"""The whole fast learner on streams: it helps after a drift and keeps out of the way otherwise."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from domain.errors import ModelError
from memory.config import MemoryConfig
from memory.learner import ErrorMemoryLearner

SECOND_MS = 1_000
# Six kinds of (user, item), each a direction in hidden space, and the base's click rate for each.
NUM_KINDS = 6
RATES = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.8])
DIRECTIONS = np.random.default_rng(11).normal(size=(NUM_KINDS, 32))


def make_learner(num_heads: int = 1, **settings: Any) -> ErrorMemoryLearner:
    chosen = {"num_arrays": 8, "num_bits": 8} | settings
    return ErrorMemoryLearner(MemoryConfig(**chosen), 32, num_heads, seed=5)


class Stream:
    """A batch of 100 (hidden, base, labels) a second; labels follow `rates`, the base `told`."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.time_ms = 0

    def batch(
        self, rates: np.ndarray, told: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.time_ms += SECOND_MS
        kinds = self.rng.integers(NUM_KINDS, size=100)
        hidden_ND = DIRECTIONS[kinds] + 0.1 * self.rng.normal(size=(100, 32))
        labels_N = self.rng.random(100) < rates[kinds]
        arrays = (hidden_ND, told[kinds][:, None], labels_N[:, None])
        return tuple(array.astype(np.float32) for array in arrays)  # type: ignore[return-value]


def log_loss(score_NH: np.ndarray, labels_NH: np.ndarray) -> float:
    of_label_NH = np.clip(1.0 - np.abs(labels_NH - score_NH), 1e-6, 1.0)
    return float(-np.log(of_label_NH).mean())


def run(
    learner: ErrorMemoryLearner, stream: Stream, rates: np.ndarray, told: np.ndarray, batches: int
) -> tuple[float, float]:
    """Predict, measure, learn; return the mean log loss of the base and of the compensation."""
    losses = []
    for _ in range(batches):
        hidden_ND, base_NH, labels_NH = stream.batch(rates, told)
        corrected_NH = learner.compensate(hidden_ND, base_NH)
        losses.append((log_loss(base_NH, labels_NH), log_loss(corrected_NH, labels_NH)))
        learner.learn(hidden_ND, base_NH, labels_NH, stream.time_ms)
    base_loss, corrected_loss = np.mean(losses, axis=0)
    return float(base_loss), float(corrected_loss)


def test_memory_repairs_the_scores_when_tastes_change_at_once() -> None:
    """Every rate turns into 1 minus itself; the base does not notice."""
    learner, stream = make_learner(half_life_ms=10 * SECOND_MS), Stream()
    run(learner, stream, RATES, RATES, 50)
    assert learner.lambdas[0] == 0.0
    run(learner, stream, 1 - RATES, RATES, 50)
    base_loss, corrected_loss = run(learner, stream, 1 - RATES, RATES, 50)
    perfect = -np.mean(RATES * np.log(RATES) + (1 - RATES) * np.log(1 - RATES))
    assert learner.lambdas[0] >= 0.8
    assert base_loss > 1.0  # usually 1.21
    assert corrected_loss < perfect + 0.05  # usually perfect + 0.02


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("similarity", ["density", "count", "log_count"])
def test_memory_helps_after_a_drift_whatever_the_reading(gamma: float, similarity: str) -> None:
    learner, stream = make_learner(gamma=gamma, similarity=similarity, tau=0.5), Stream()
    run(learner, stream, 1 - RATES, RATES, 50)
    base_loss, corrected_loss = run(learner, stream, 1 - RATES, RATES, 20)
    assert learner.lambdas[0] > 0.0
    assert corrected_loss < base_loss - 0.3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lambda_stays_zero_when_the_base_is_calibrated(seed: int) -> None:
    learner, stream = make_learner(), Stream(seed)
    seen = set()
    for _ in range(40):
        base_loss, corrected_loss = run(learner, stream, RATES, RATES, 5)
        seen.add(float(learner.lambdas[0]))
        assert corrected_loss == base_loss
    assert seen == {0.0}


def test_lambda_goes_back_to_zero_when_the_base_has_caught_up() -> None:
    learner, stream = make_learner(half_life_ms=20 * SECOND_MS), Stream()
    run(learner, stream, 1 - RATES, RATES, 50)
    assert learner.lambdas[0] > 0.0
    run(learner, stream, 1 - RATES, 1 - RATES, 200)
    assert learner.lambdas[0] == 0.0


def test_compensation_is_the_base_bit_for_bit_when_lambda_is_zero() -> None:
    learner, stream = make_learner(), Stream()
    hidden_ND, base_NH, labels_NH = stream.batch(RATES, RATES)
    learner.learn(hidden_ND, base_NH, labels_NH, time_ms=0)
    assert learner.read_errors(hidden_ND, base_NH).any()
    assert learner.compensate(hidden_ND, base_NH).tobytes() == base_NH.tobytes()


def test_compensation_is_the_base_bit_for_bit_when_the_memory_was_emptied() -> None:
    learner, stream = make_learner(), Stream()
    run(learner, stream, 1 - RATES, RATES, 50)
    learner.reset()
    hidden_ND, base_NH, _ = stream.batch(RATES, RATES)
    assert learner.lambdas[0] > 0.0
    assert learner.compensate(hidden_ND, base_NH).tobytes() == base_NH.tobytes()


def test_lambda_is_measured_with_the_errors_read_at_scoring_time_when_they_are_given() -> None:
    """The estimate given says +0.7 and is right, the memory itself is empty and says nothing."""
    told, silent = make_learner(), make_learner()
    hidden_ND = Stream().batch(RATES, RATES)[0]
    base_NH, labels_NH = np.full((2, 100, 1), 0.2, np.float32)
    labels_NH[:] = 1.0
    told.learn(hidden_ND, base_NH, labels_NH, 0, errors_NH=np.full((100, 1), 0.7, np.float32))
    silent.learn(hidden_ND, base_NH, labels_NH, 0)
    assert told.lambdas[0] == 1.0
    assert silent.lambdas[0] == 0.0, "its own write must not have been read"


def test_learn_reads_before_it_writes_when_no_errors_are_given() -> None:
    one, other = make_learner(), make_learner()
    stream = Stream()
    for step in range(30):
        hidden_ND, base_NH, labels_NH = stream.batch(1 - RATES, RATES)
        errors_NH = other.read_errors(hidden_ND, base_NH)
        one.learn(hidden_ND, base_NH, labels_NH, step)
        other.learn(hidden_ND, base_NH, labels_NH, step, errors_NH=errors_NH)
    np.testing.assert_array_equal(
        one.save()["lambda"]["evidence"], other.save()["lambda"]["evidence"]
    )
    assert one.lambdas[0] > 0.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_ND", np.nan, r"hidden_ND must be finite, got nan at \[3, 0\]"),
        ("base_NH", 1.5, r"base_NH must be probabilities, got 1\.5 at \[3, 0\]"),
        ("base_NH", np.nan, "base_NH must be probabilities, got nan"),
        ("labels_NH", 0.5, r"labels_NH must be 0, 1 or NaN, got 0\.5 at \[3, 0\]"),
        ("errors_NH", np.inf, "errors_NH must be finite, got inf"),
    ],
)
def test_learn_refuses_and_changes_nothing_when_a_value_makes_no_sense(
    field: str, value: float, message: str
) -> None:
    learner = make_learner()
    hidden_ND, base_NH, labels_NH = Stream().batch(RATES, RATES)
    arrays = {"hidden_ND": hidden_ND, "base_NH": base_NH, "labels_NH": labels_NH}
    arrays["errors_NH"] = np.zeros_like(base_NH)
    arrays[field][3, 0] = value
    with pytest.raises(ModelError, match=message):
        learner.learn(**arrays, time_ms=0)
    assert not learner.save()["memory"]["counts"].any()


def test_shapes_are_named_when_they_differ() -> None:
    learner = make_learner()
    hidden_ND, base_NH, _ = Stream().batch(RATES, RATES)
    with pytest.raises(ModelError, match=r"hidden_ND must be \(N, 32\), got \(100, 31\)"):
        learner.compensate(hidden_ND[:, 1:], base_NH)
    with pytest.raises(ModelError, match=r"base_NH must be \(100, 1\), got \(99, 1\)"):
        learner.read_errors(hidden_ND, base_NH[1:])
    with pytest.raises(ModelError, match=r"labels_NH must be \(100, 1\), got \(100, 2\)"):
        learner.learn(hidden_ND, base_NH, np.zeros((100, 2), np.float32), 0)


def test_reads_see_whole_writes_when_threads_read_while_one_writes() -> None:
    """Every label is 1 and every base score 0.5, so each bucket that holds something says so."""
    learner = make_learner(prior_count=0.0)
    hidden_ND = Stream().batch(RATES, RATES)[0]
    ones = np.ones((100, 1), np.float32)
    done = threading.Event()
    wrong: list[tuple[float, float]] = []

    def read() -> None:
        while not done.is_set():
            read = learner.read(hidden_ND)
            known = read.trust > 0
            low = np.min(read.mean_label[known], initial=1.0)
            high = np.max(read.mean_base[known], initial=0.5)
            if abs(low - 1.0) > 1e-9 or abs(high - 0.5) > 1e-9:
                wrong.append((float(low), float(high)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(200):
        learner.learn(hidden_ND, ones / 2, ones, time_ms=step * 60 * SECOND_MS)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
