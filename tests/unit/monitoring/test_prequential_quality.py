"""Progressive and windowed quality, against the pure functions over the same examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import state_hash
from monitoring.head_quality import HeadQuality, head_quality
from monitoring.prequential_quality import PrequentialQuality, PrequentialQualityConfig
from monitoring.session_gauc import SessionGaucConfig

HEADS = ("click", "like")
Stream = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


def make_stream(examples: int = 3_000, seed: int = 3) -> Stream:
    """Sessions of about ten impressions, a minute apart; a tenth of the like labels unknown."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 1.0, (examples, 2))
    scores = 1.0 / (1.0 + np.exp(-logits))
    labels = (rng.random((examples, 2)) < scores).astype(np.float32)
    labels[rng.random(examples) < 0.1, 1] = np.nan
    sessions = np.arange(examples) // 10
    return labels, scores.astype(np.float32), sessions, np.arange(examples) * 60_000


def feed(quality: PrequentialQuality, stream: Stream, batch: int = 37) -> None:
    for start in range(0, len(stream[2]), batch):
        quality.update(*(part[start : start + batch] for part in stream))


def expected(stream: Stream, head: int, last: int | None = None) -> HeadQuality:
    labels, scores, sessions, _ = stream
    rows = slice(None) if last is None else slice(-last, None)
    label, score, session = labels[rows, head], scores[rows, head], sessions[rows]
    known = ~np.isnan(label)
    return head_quality(label[known], score[known], session[known])


def assert_alike(got: HeadQuality, want: HeadQuality) -> None:
    assert got.auc is not None
    assert want.auc is not None
    assert abs(got.auc - want.auc) <= got.auc_error + 1e-12
    for name in ("gauc", "log_loss", "normalized_entropy", "calibration"):
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=1e-6), name
    assert got.expected_calibration_error == pytest.approx(
        want.expected_calibration_error, abs=1e-6
    )
    assert (got.examples, got.positives, got.gauc_examples) == (
        want.examples,
        want.positives,
        want.gauc_examples,
    )


def test_progressive_values_equal_those_over_all_examples_within_the_stated_error() -> None:
    stream, quality = make_stream(), PrequentialQuality(HEADS)
    feed(quality, stream)
    for head, name in enumerate(HEADS):
        got = quality.get("progressive")[name]
        assert_alike(got, expected(stream, head))
        assert 0.0 < got.auc_error < 0.002  # usually 0.0007: 3,000 examples, 8,192 buckets


def test_progressive_auc_error_bounds_the_truth_when_buckets_are_coarse() -> None:
    stream = make_stream()
    quality = PrequentialQuality(HEADS, PrequentialQualityConfig(score_buckets=16))
    feed(quality, stream)
    got, want = quality.get("progressive")["click"], expected(stream, 0)
    assert got.auc is not None
    assert want.auc is not None
    assert 1e-4 < abs(got.auc - want.auc) <= got.auc_error


def test_windowed_values_are_those_of_the_last_examples_exactly() -> None:
    stream = make_stream()
    quality = PrequentialQuality(HEADS, PrequentialQualityConfig(window=500))
    feed(quality, stream)
    for head, name in enumerate(HEADS):
        assert quality.get("window")[name] == expected(stream, head, last=500)


def test_window_holds_the_newest_when_one_batch_is_larger_than_it() -> None:
    stream = make_stream()
    quality = PrequentialQuality(HEADS, PrequentialQualityConfig(window=100))
    quality.update(*stream)
    assert quality.get("window")["click"] == expected(stream, 0, last=100)


def test_progressive_values_are_exact_when_everything_is_kept() -> None:
    stream = make_stream()
    quality = PrequentialQuality(HEADS, PrequentialQualityConfig(window=100, keep_all=True))
    feed(quality, stream)
    assert quality.get("progressive")["like"] == expected(stream, 1)


def test_values_are_none_before_the_first_example() -> None:
    for scope in ("progressive", "window"):
        nothing = PrequentialQuality(HEADS).get(scope)["click"]
        assert nothing == HeadQuality(
            examples=0,
            positives=0,
            auc=None,
            auc_error=0.0,
            gauc=None,
            gauc_examples=0,
            log_loss=None,
            normalized_entropy=None,
            calibration=None,
            expected_calibration_error=None,
        )


def test_window_forgets_what_progressive_remembers_when_quality_turns() -> None:
    """First perfect order, then perfectly wrong: .5 overall, 0 lately."""
    quality = PrequentialQuality(("click",), PrequentialQualityConfig(window=10))
    labels = np.tile([[1.0], [0.0]], (10, 1))
    scores = np.where(labels == 1.0, 0.75, 0.25)
    sessions, times = np.arange(20) // 2, np.arange(20)
    quality.update(labels, scores, sessions, times)
    quality.update(labels, 1.0 - scores, 100 + sessions, times)
    assert quality.get("window")["click"].auc == 0.0
    assert quality.get("progressive")["click"].auc == pytest.approx(0.5)
    assert quality.get("progressive")["click"].gauc == pytest.approx(0.5)


def test_scores_that_are_not_finite_are_counted_and_measure_nothing() -> None:
    quality = PrequentialQuality(("click",))
    quality.update([[1.0], [0.0], [0.0]], [[0.9], [np.nan], [0.1]], [0, 0, 0], [0, 0, 0])
    assert quality.non_finite_scores == 1
    assert quality.get("progressive")["click"].examples == 2


def test_update_keeps_no_reference_to_its_input() -> None:
    stream, quality = make_stream(200), PrequentialQuality(HEADS)
    quality.update(*stream)
    before = [quality.get("progressive"), quality.get("window")]
    for part in stream:
        part[:] = 0
    assert [quality.get("progressive"), quality.get("window")] == before


@pytest.mark.parametrize("keep_all", [False, True])
def test_load_continues_bit_for_bit_where_save_stood(keep_all: bool) -> None:
    config = PrequentialQualityConfig(
        window=150, keep_all=keep_all, sessions=SessionGaucConfig(max_open_examples=400)
    )
    first, second = make_stream(1_000, seed=1), make_stream(1_000, seed=2)
    straight, before, after = (PrequentialQuality(HEADS, config) for _ in range(3))
    feed(straight, first)
    feed(before, first)
    after.load(before.save())
    feed(straight, second)
    feed(after, second)
    assert state_hash(after.save()) == state_hash(straight.save())
    for scope in ("progressive", "window"):
        assert after.get(scope) == straight.get(scope)


def test_saved_state_does_not_change_when_more_is_measured() -> None:
    stream, quality = make_stream(300), PrequentialQuality(HEADS)
    quality.update(*stream)
    state = quality.save()
    saved = state_hash(state)
    quality.update(*stream)
    assert state_hash(state) == saved


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (PrequentialQuality(("buy",)), "heads"),
        (PrequentialQuality(HEADS, PrequentialQualityConfig(score_buckets=64)), "score_buckets"),
        (PrequentialQuality(HEADS, PrequentialQualityConfig(keep_all=True)), "keep_all"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_load_refuses_a_state_of_another_configuration(other: PrequentialQuality, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^prequential_quality\.{key}:"):
        other.load(PrequentialQuality(HEADS).save())


def test_memory_stays_bounded_when_the_stream_does_not_end() -> None:
    config = PrequentialQualityConfig(
        window=100, sessions=SessionGaucConfig(close_after_ms=60_000, max_open_examples=50)
    )
    quality = PrequentialQuality(HEADS, config)
    for part in range(3):
        feed(quality, make_stream(1_000, seed=part))
        state = quality.save()
        assert len(state["window"]["session"]) == 100
        assert len(state["running"]["sessions"]["session"]) <= 50


@pytest.mark.parametrize("bad", [{"window": 0}, {"score_buckets": 1}])
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"^prequential_quality\.{next(iter(bad))} "):
        replace(PrequentialQualityConfig(), **bad)
