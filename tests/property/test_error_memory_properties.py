"""The compiled sketch against its slow twin: a list of everything written, summed up anew."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from domain.state import state_hash
from memory.config import MemoryConfig, NeighboursConfig
from memory.hashing import SignHash, sign_codes_numpy
from memory.learner import ErrorMemoryLearner
from memory.neighbours import Neighbours, search_numpy
from memory.sketch import Sketch

HIDDEN_SIZE, NUM_HEADS = 5, 2
HALF_LIFE_MS = 1_000

finite = st.floats(-1e3, 1e3, width=32)
seeds = st.integers(0, 2**32 - 1)


@dataclass
class ListMemory:
    """What the sketch approximates nothing of: every write, kept, and decayed one by one."""

    config: MemoryConfig
    planes_DLK: np.ndarray
    writes: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    hidden: list[tuple[int, np.ndarray]] = field(default_factory=list)
    newest_ms: int = 0

    def age(self, time_ms: int) -> float:
        if self.config.half_life_ms is None:
            return 1.0
        return 0.5 ** ((self.newest_ms - time_ms) / self.config.half_life_ms)

    def codes(self, hidden_ND: np.ndarray) -> np.ndarray:
        centre_D = np.zeros(HIDDEN_SIZE, np.float32)
        if self.hidden and self.config.centring == "running":
            ages = [self.age(time_ms) for time_ms, _ in self.hidden]
            centre_D = np.average([h for _, h in self.hidden], axis=0, weights=ages)
        return sign_codes_numpy(hidden_ND, centre_D.astype(np.float32), self.planes_DLK)

    def write(
        self, hidden_ND: np.ndarray, base_NH: np.ndarray, labels_NH: np.ndarray, time_ms: int
    ) -> None:
        known_N = ~np.isnan(labels_NH).all(axis=1)
        if known_N.any():
            self.newest_ms = max(self.newest_ms, time_ms) if self.writes else time_ms
            self.hidden += [(self.newest_ms, h.astype(np.float64)) for h in hidden_ND[known_N]]
        codes_NK = self.codes(hidden_ND)
        for n in np.flatnonzero(known_N):
            self.writes.append((self.newest_ms, codes_NK[n], labels_NH[n], base_NH[n]))

    def read(self, hidden_D: np.ndarray, head: int) -> tuple[float, float, float, float]:
        """Return (trust, mean label, mean base, support) as the formulas say them."""
        known = [w for w in self.writes if not math.isnan(w[2][head])]
        written = sum(self.age(time_ms) for time_ms, *_ in known)
        found = []
        for k, code in enumerate(self.codes(hidden_D[None])[0]):
            here = [w for w in known if w[1][k] == code]
            count = sum(self.age(time_ms) for time_ms, *_ in here)
            labels = sum(self.age(time_ms) * float(y[head]) for time_ms, _, y, _ in here)
            scores = sum(self.age(time_ms) * float(b[head]) for time_ms, _, _, b in here)
            found.append((count, labels, scores))
        support = sum(count for count, _, _ in found) / len(found)
        held = [f for f in found if f[0] >= self.config.min_count]
        if not held:
            return 0.0, 0.0, 0.0, support
        attention = [math.exp(self.similarity(c, written) / self.config.tau) for c, _, _ in held]
        shares = [a / sum(attention) for a in attention]
        pairs = [
            (s / (f[0] + self.config.prior_count), f) for s, f in zip(shares, held, strict=True)
        ]
        trust, label, base = (sum(weight * f[i] for weight, f in pairs) for i in range(3))
        return trust, label, base, support

    def similarity(self, count: float, written: float) -> float:
        kind = self.config.similarity
        return {"density": count / written, "count": count, "log_count": math.log1p(count)}[kind]


configs = st.builds(
    MemoryConfig,
    lambda_rule=st.sampled_from(["margin", "shares"]),
    num_arrays=st.integers(1, 5),
    num_bits=st.integers(1, 6),
    centring=st.sampled_from(["running", "none"]),
    half_life_ms=st.sampled_from([HALF_LIFE_MS, None]),
    similarity=st.sampled_from(["density", "count", "log_count"]),
    tau=st.sampled_from([0.1, 1.0]),
    prior_count=st.sampled_from([0.0, 2.0]),
)


def a_batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hidden states around a common part, scores, and labels of which some are unknown."""
    hidden_ND = (rng.normal(size=(size, HIDDEN_SIZE)) + 0.5).astype(np.float32)
    base_NH = rng.random((size, NUM_HEADS)).astype(np.float32)
    labels_NH = rng.choice([0.0, 1.0, np.nan], size=(size, NUM_HEADS)).astype(np.float32)
    return hidden_ND, base_NH, labels_NH


@settings(max_examples=60)
@given(
    configs,
    # Half-lives are passed in whole, in part, many at once, and backwards.
    st.lists(st.sampled_from([0, 333, 1_000, -500, 15_999, 40_000]), min_size=1, max_size=6),
    seeds,
)
def test_sketch_equals_the_list_of_all_writes(
    config: MemoryConfig, steps_ms: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    memory = Sketch(config, HIDDEN_SIZE, NUM_HEADS, np.random.default_rng(seed))
    twin = ListMemory(config, memory.save()["planes"])
    time_ms = 10**6
    for step_ms in steps_ms:
        time_ms += step_ms
        hidden_ND, base_NH, labels_NH = a_batch(rng, size=int(rng.integers(1, 6)))
        memory.write(hidden_ND, base_NH, labels_NH, time_ms)
        twin.write(hidden_ND, base_NH, labels_NH, time_ms)
        probe_ND = np.concatenate([hidden_ND, a_batch(rng, 2)[0]])
        read = memory.read(probe_ND)
        for n, hidden_D in enumerate(probe_ND):
            for h in range(NUM_HEADS):
                got = [x[n, h] for x in (read.trust, read.mean_label, read.mean_base, read.support)]
                assert got == pytest.approx(twin.read(hidden_D, h), rel=1e-5, abs=1e-7)


@given(seeds, st.sampled_from([1e-30, 1e-12, 1.0, 1e12, 1e30]))
def test_codes_equal_the_plain_twin_where_rounding_decides(seed: int, size: float) -> None:
    """States all but orthogonal to a plane: the sum is nothing but rounding."""
    rng = np.random.default_rng(seed)
    hash_ = SignHash(3, 4, 24, rng)
    plane_D = hash_.planes_DLK[:, 0, 0].astype(np.float64)
    hidden_ND = rng.normal(size=(40, 24))
    hidden_ND -= (hidden_ND @ plane_D)[:, None] * plane_D / (plane_D @ plane_D)
    hidden_ND = (hidden_ND * size).astype(np.float32)
    no_centre_D = np.zeros(24, np.float32)
    with np.errstate(all="ignore"):
        expected_NK = sign_codes_numpy(hidden_ND, no_centre_D, hash_.planes_DLK)
    np.testing.assert_array_equal(hash_.codes(hidden_ND, no_centre_D).T, expected_NK)


@settings(max_examples=40)
@given(seeds, st.integers(1, 30), st.integers(1, 8), st.booleans())
def test_search_of_neighbours_equals_the_plain_twin(
    seed: int, num_written: int, count: int, repeated: bool
) -> None:
    rng = np.random.default_rng(seed)
    config = MemoryConfig(kind="neighbours", neighbours=NeighboursConfig(window=12, count=count))
    memory = Neighbours(config, HIDDEN_SIZE, NUM_HEADS, rng)
    hidden_ND, base_NH, _ = a_batch(rng, num_written)
    if repeated:  # ties all over: the newer one is nearer
        hidden_ND[:] = hidden_ND[rng.integers(2, size=num_written) % num_written]
    memory.write(hidden_ND, base_NH, np.ones_like(base_NH), 0)
    state = memory.save()
    held = min(num_written, 12)
    assert (state["order"] >= 0).sum() == held
    query_ND = memory._units(np.concatenate([hidden_ND, a_batch(rng, 3)[0]]))
    slots_Nk, cosine_Nk = memory._search(query_ND, held)
    expected = search_numpy(query_ND, state["units"][:held], state["order"][:held], count)
    np.testing.assert_array_equal(slots_Nk, expected[0])
    np.testing.assert_array_equal(cosine_Nk, expected[1])


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([0, 333, 1_000, -500, 40_000]), min_size=1, max_size=6),
    st.sampled_from([HALF_LIFE_MS, None]),
    st.sampled_from([0.0, 2.0]),
    seeds,
)
def test_neighbours_say_what_a_list_of_the_last_writes_says(
    steps_ms: list[int], half_life_ms: int | None, prior_count: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    config = MemoryConfig(
        kind="neighbours",
        half_life_ms=half_life_ms,
        prior_count=prior_count,
        centring="none",
        neighbours=NeighboursConfig(window=7, count=3),
    )
    memory = Neighbours(config, HIDDEN_SIZE, NUM_HEADS, rng)
    written: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    newest_ms = time_ms = 10**6
    for step_ms in steps_ms:
        time_ms += step_ms
        newest_ms = max(newest_ms, time_ms)
        hidden_ND, base_NH, _ = a_batch(rng, size=int(rng.integers(1, 6)))
        labels_NH = rng.integers(2, size=base_NH.shape).astype(np.float32)
        memory.write(hidden_ND, base_NH, labels_NH, time_ms)
        written += [(newest_ms, *row) for row in zip(hidden_ND, labels_NH, base_NH, strict=True)]
        written = written[-7:]
        for hidden_D in [*hidden_ND, *a_batch(rng, 2)[0]]:
            got = memory.read(hidden_D[None])
            cosines = [
                float(h @ hidden_D / (np.linalg.norm(h) * np.linalg.norm(hidden_D)))
                for _, h, _, _ in written
            ]
            best = sorted(range(len(written)), key=lambda i: -cosines[i])[:3]
            ages = [
                1.0 if half_life_ms is None else 0.5 ** ((newest_ms - written[i][0]) / half_life_ms)
                for i in best
            ]
            support = sum(ages)
            if support < config.min_count:
                assert not got.trust.any()
                continue
            weights = [age * math.exp(cosines[i] / 0.1) for i, age in zip(best, ages, strict=True)]
            trust = support / (support + prior_count)
            mean_label = sum(w * written[i][2] for w, i in zip(weights, best, strict=True))
            mean_base = sum(w * written[i][3] for w, i in zip(weights, best, strict=True))
            np.testing.assert_allclose(got.trust[0], trust, rtol=1e-5)
            np.testing.assert_allclose(got.support[0], support, rtol=1e-5)
            np.testing.assert_allclose(
                got.mean_label[0], trust * mean_label / sum(weights), rtol=1e-4, atol=1e-6
            )
            np.testing.assert_allclose(
                got.mean_base[0], trust * mean_base / sum(weights), rtol=1e-4, atol=1e-6
            )


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=finite),
    st.integers(1, 4),
    st.integers(1, 12),
    seeds,
)
def test_codes_equal_the_plain_twin_and_ignore_the_rows_beside(
    hidden_ND: np.ndarray, num_arrays: int, num_bits: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    hash_ = SignHash(num_arrays, num_bits, hidden_ND.shape[1], rng)
    centre_D = rng.normal(size=hidden_ND.shape[1]).astype(np.float32)
    codes_NK = hash_.codes(hidden_ND, centre_D).T
    np.testing.assert_array_equal(codes_NK, sign_codes_numpy(hidden_ND, centre_D, hash_.planes_DLK))
    one_by_one_NK = np.concatenate([hash_.codes(row[None], centre_D).T for row in hidden_ND])
    np.testing.assert_array_equal(codes_NK, one_by_one_NK)
    assert (codes_NK >= 0).all()
    assert (codes_NK < 2**num_bits).all()


windows = st.builds(
    MemoryConfig,
    kind=st.just("neighbours"),
    half_life_ms=st.sampled_from([HALF_LIFE_MS, None]),
    neighbours=st.builds(
        NeighboursConfig,
        window=st.integers(1, 40),
        count=st.integers(1, 8),
        min_error=st.sampled_from([0.0, 0.4]),
        keep_rate=st.sampled_from([0.5, 1.0]),
    ),
)


@settings(max_examples=40)
@given(configs | windows, st.integers(0, 8), st.integers(0, 8), seeds)
def test_a_loaded_learner_goes_on_bit_for_bit(
    config: MemoryConfig, steps_before: int, steps_after: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    batches = [a_batch(rng, 8) for _ in range(steps_before + steps_after)]
    whole = ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed)
    half = ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed)
    for step, batch in enumerate(batches):
        whole.learn(*batch, time_ms=step * 700)
        if step == steps_before:
            resumed = ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed + 1)
            resumed.load(half.save())
            half = resumed
        half.learn(*batch, time_ms=step * 700)
    assert state_hash(half.save()) == state_hash(whole.save())


@settings(max_examples=40)
@given(configs | windows, seeds)
def test_scores_stay_probabilities_and_reading_changes_nothing(
    config: MemoryConfig, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    learner = ErrorMemoryLearner(config, HIDDEN_SIZE, NUM_HEADS, seed)
    for step in range(6):
        hidden_ND, base_NH, _ = a_batch(rng, 20)
        before = state_hash(learner.save())
        score_NH = learner.compensate(hidden_ND, base_NH)
        error_NH = learner.read_errors(hidden_ND, base_NH)
        assert state_hash(learner.save()) == before
        assert score_NH.dtype == error_NH.dtype == np.float32
        assert ((score_NH >= 0) & (score_NH <= 1)).all()
        assert (np.abs(error_NH) <= 1).all()
        labels_NH = np.ones_like(base_NH)
        learner.learn(hidden_ND, base_NH, labels_NH, time_ms=step * 900)
